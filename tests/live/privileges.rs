//! With just the privileges that the manual names there is the whole answer; without one of them, a sentence that names
//! it and an exit code for scripts.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::probe::Outcome;
use leakprobe_tests::{Probe, Workload, expect, places};

use crate::bad_luck::{Copy, NOBODY, ends_with};
use crate::sites;

/// Enough for the whole answer on kernels from 5.9 on (README.md).
const ENOUGH: [&str; 5] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search", "checkpoint_restore"];

/// A command line for an ordinary user who has these capabilities and no other.
fn nobody_with(capabilities: &[&str], program: &Copy) -> Command {
    let set = capabilities.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    command.args([format!("--inh-caps={set}"), format!("--ambient-caps={set}"), "--no-new-privs".to_owned()]);
    command.arg(&program.path);
    command
}

/// A command line for root without some of root's capabilities.
fn root_without(capabilities: &[&str]) -> Result<Command> {
    let set: Vec<_> = capabilities.iter().map(|name| format!("-{name}")).collect();
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={}", set.join(","))).arg(places::leakprobe()?);
    Ok(command)
}

fn watch(mut command: Command, workload: &Workload) -> Result<Outcome> {
    command.args(["--pid", &workload.pid().to_string(), "--duration", "1s", "--format", "json"]);
    Probe::spawn(command)?.finish()
}

#[test]
fn five_capabilities_are_enough_for_the_whole_answer() -> Result<()> {
    let mut workload = Workload::start("c/mmap_leak")?;
    let program = Copy::everybody_may_run()?;
    let mut command = nobody_with(&ENOUGH, &program);
    command.args(["--pid", &workload.pid().to_string(), "--duration", "600s", "--format", "json"]);
    let mut probe = Probe::spawn(command)?;
    probe.wait_until_watching()?;
    let truth_bytes = workload.grow(20)?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", truth_bytes)?;
    sites::are_of(&report, "leak_mapping", truth_bytes)
}

#[test]
fn each_capability_that_is_missing_is_named() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let program = Copy::everybody_may_run()?;
    for missing in ["bpf", "perfmon", "sys_ptrace", "dac_read_search"] {
        let others: Vec<_> = ENOUGH.into_iter().filter(|name| *name != missing).collect();
        let outcome = watch(nobody_with(&others, &program), &workload)?;
        let name = format!("missing: CAP_{}", missing.to_uppercase());
        ends_with(&outcome, 4, &[&name, "leakprobe doctor"]).context(missing)?;
    }
    Ok(())
}

/// CAP_SYS_ADMIN stands in for what was split off from it.
#[test]
fn root_without_a_capability_is_told_which() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    for missing in [["bpf", "sys_admin"], ["perfmon", "sys_admin"], ["sys_ptrace", "sys_admin"]] {
        let name = format!("CAP_{}", missing[0].to_uppercase());
        let outcome = watch(root_without(&missing)?, &workload)?;
        ends_with(&outcome, 4, &[&name]).with_context(|| format!("{missing:?}"))?;
    }
    for enough in ["bpf", "perfmon", "dac_read_search", "checkpoint_restore"] {
        let report = watch(root_without(&[enough])?, &workload)?.report().context(enough)?;
        expect::ledger_balances(&report)?;
    }
    Ok(())
}

#[test]
fn a_container_without_privileges_is_told_from_one_with() -> Result<()> {
    let workload = Workload::start_contained(
        &["--mount", "--mount-proc", "--user", "--map-root-user"],
        &leakprobe_tests::compile::workload("c/idle")?,
    )?;
    let inside = |arguments: &[&str]| -> Result<Outcome> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &workload.pid().to_string(), "--mount", "--pid", "--user"]);
        command.arg(places::leakprobe()?).args(arguments);
        Probe::spawn(command)?.finish()
    };
    ends_with(&inside(&["1", "--duration", "1s"])?, 4, &["User namespace"])?;
    // Who owns the memory can be said without any probe.
    expect::ledger_balances(&inside(&["1", "--duration", "0", "--json"])?.report()?)?;
    let outcome = inside(&["doctor", "--json"])?;
    ensure!(outcome.ended.code == Some(4), "{}", outcome.stderr);
    let checkup = outcome.json()?;
    ensure!(checkup["ability"] == "snapshot" && checkup["obstacle"] == "not_permitted", "{checkup:#}");
    Ok(())
}

/// As container runtimes do it by default.
#[test]
fn a_filter_of_system_calls_is_named() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let mut command = Command::new(places::leakprobe()?);
    // SAFETY: between fork and exec it makes two system calls and touches nothing that another thread may hold.
    unsafe { command.pre_exec(refuse_bpf) };
    ends_with(&watch(command, &workload)?, 4, &["Seccomp"])
}

/// bpf(2) answers EPERM from here on.
fn refuse_bpf() -> std::io::Result<()> {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The number of the call is the first word of struct seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter lives until after the call, which copies it.
    let refused = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if refused == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Kernels built without it, or old ones.
#[test]
fn without_the_kernels_types_there_is_still_an_answer() -> Result<()> {
    let mut workload = Workload::start("c/mmap_leak")?;
    let hide = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf; exec \"$@\"", "sh"]);
        command.arg(places::leakprobe()?).args(arguments);
        Ok(command)
    };
    let outcome = Probe::spawn(hide(&["doctor"])?)?.finish()?;
    ensure!(outcome.stdout.contains(" less  BTF"), "{}", outcome.stdout);
    let pid = workload.pid().to_string();
    let mut probe = Probe::spawn(hide(&["--pid", &pid, "--duration", "600s", "--format", "json"])?)?;
    probe.wait_until_watching()?;
    let truth_bytes = workload.grow(20)?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", truth_bytes)
}

#[test]
fn the_doctor_says_that_this_machine_will_do() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let mut command = Command::new(places::leakprobe()?);
    command.args(["doctor", &workload.pid().to_string(), "--json"]);
    let outcome = Probe::spawn(command)?.finish()?;
    ensure!(outcome.ended.code == Some(0), "{}", outcome.stderr);
    let checkup = outcome.json()?;
    ensure!(checkup["schema"] == "leakprobe.doctor/1" && checkup["ability"] == "watch", "{checkup:#}");
    let backends = checkup["backends"].as_array().context("backends are a list")?;
    ensure!(backends.len() == 4, "{backends:#?}");
    Ok(())
}
