//! What leakprobe says and how it ends when things are not as they should be: a sentence that says what
//! to do, the exit code of the manual, and the report of what was seen where there is any.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::probe::Outcome;
use leakprobe_tests::{Probe, Workload, expect, places};

pub(crate) const NOBODY: u32 = 65_534;

/// The sentence says what it is about, once, and neither panics nor shows a type of Rust.
pub(crate) fn ends_with(outcome: &Outcome, code: i32, words: &[&str]) -> Result<()> {
    let said = &outcome.stderr;
    ensure!(outcome.ended.code == Some(code), "expected exit code {code}, got {:?}: {said}", outcome.ended);
    ensure!(!said.contains("panicked") && !said.contains("Error {"), "this is not for people: {said}");
    for word in words {
        ensure!(said.contains(word), "the message does not say {word:?}: {said}");
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Result<Outcome> {
    let mut command = Command::new(places::leakprobe()?);
    command.args(arguments);
    Probe::spawn(command)?.finish()
}

#[test]
fn a_pid_that_nobody_has() -> Result<()> {
    // The kernel gives out ids below pid_max only.
    let limit = fs::read_to_string("/proc/sys/kernel/pid_max").context("read kernel.pid_max")?;
    let pid = limit.trim();
    ends_with(&run(&["--pid", pid, "--duration", "1s"])?, 3, &[pid, "no such process"])
}

#[test]
fn a_kernel_thread_has_no_memory() -> Result<()> {
    let pid = a_kernel_thread()?;
    ends_with(&run(&["--pid", &pid, "--duration", "1s"])?, 3, &[&pid, "kernel thread"])
}

#[test]
fn a_pid_that_is_none() -> Result<()> {
    for pid in ["0", "-1", "banana", ""] {
        let outcome = run(&[&format!("--pid={pid}"), "--duration", "1s"])?;
        ends_with(&outcome, 2, &["--pid"]).with_context(|| format!("--pid={pid}"))?;
    }
    Ok(())
}

#[test]
fn a_duration_that_is_none() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let outcome = run(&["--pid", &workload.pid().to_string(), "--duration", "soon"])?;
    ends_with(&outcome, 2, &["--duration", "soon"])
}

#[test]
fn an_ordinary_user_is_told_the_capability() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let copy = Copy::everybody_may_run()?;
    let mut command = Command::new(&copy.path);
    command.args(["--pid", &workload.pid().to_string(), "--duration", "1s"]).uid(NOBODY).gid(NOBODY);
    let outcome = Probe::spawn(command)?.finish()?;
    ends_with(&outcome, 4, &["CAP_"])
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_the_window() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let pid = workload.pid().to_string();
    let outcome = run(&["--pid", &pid, "--duration", "60s", "--output", "/nonexistent/report.json"])?;
    ends_with(&outcome, 2, &["/nonexistent/report.json"])?;
    ensure!(!outcome.stderr.contains("watching"), "it watched first: {}", outcome.stderr);
    Ok(())
}

#[test]
fn a_report_that_is_none_is_told() -> Result<()> {
    ends_with(
        &run(&["render", "/nonexistent/report.json"])?,
        2,
        &["/nonexistent/report.json", "No such file"],
    )?;
    ends_with(&run(&["render", "/proc/self/status"])?, 2, &["/proc/self/status", "it is not what"])?;
    // Standard input is empty here.
    ends_with(&run(&["render", "-"])?, 2, &["it is not what"])
}

#[test]
fn a_target_that_exits_in_the_window_still_has_a_report() -> Result<()> {
    let mut workload = Workload::start("c/mmap_leak")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    workload.grow(5)?;
    workload.end()?;
    // The window is longer than the deadline of this wait: leakprobe has to notice.
    let report = probe.finish()?.report()?;
    ensure!(report["target"]["ended"] == "exited", "target.ended is {}", report["target"]["ended"]);
    Ok(())
}

#[test]
fn a_target_that_executes_something_else_still_has_a_report() -> Result<()> {
    let mut workload = Workload::start("c/exec_self")?;
    let mut probe = Probe::start(&workload, &["--duration", "2s"])?;
    probe.wait_until_watching()?;
    let hello = workload.ask("exec")?;
    ensure!(hello["again"] == true, "the workload did not execute itself: {hello}");
    let report = probe.finish()?.report()?;
    ensure!(report["target"]["ended"] == "exec", "target.ended is {}", report["target"]["ended"]);
    Ok(())
}

#[test]
fn an_interrupt_ends_the_window_and_gives_the_report() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    let report = probe.report_now()?;
    ensure!(report["target"]["ended"] == "interrupted", "target.ended is {}", report["target"]["ended"]);
    let seconds = report["window"]["seconds"].as_f64().context("window.seconds")?;
    ensure!(seconds < 600.0, "the window lasted {seconds} s in the report");
    expect::ledger_balances(&report)
}

#[test]
fn a_reader_that_has_gone_is_no_error() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let (reader, writer) = std::io::pipe().context("create a pipe")?;
    let mut command = Command::new(places::leakprobe()?);
    command.args(["--pid", &workload.pid().to_string(), "--duration", "600s"]).stdout(writer);
    let mut probe = Probe::spawn_into(command, None)?;
    probe.wait_until_watching()?;
    drop(reader);
    probe.interrupt()?;
    ends_with(&probe.finish()?, 0, &[])
}

/// tracefs is mounted by whoever needs it first: leakprobe may be that one, and if it cannot mount it,
/// it says that tracefs is what is missing.
#[test]
fn without_tracefs_it_mounts_it_or_names_it() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount --all --types tracefs; exec \"$@\"", "sh"]);
    command.arg(places::leakprobe()?).args(["--pid", &workload.pid().to_string()]);
    command.args(["--duration", "1s", "--format", "json"]);
    let outcome = Probe::spawn(command)?.finish()?;
    if outcome.ended.code == Some(0) {
        return expect::ledger_balances(&outcome.report()?);
    }
    ends_with(&outcome, 5, &["tracefs"])
}

fn a_kernel_thread() -> Result<String> {
    /// PF_KTHREAD, in the flags of /proc/PID/stat.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    for entry in fs::read_dir("/proc").context("list /proc")? {
        let path = entry.context("list /proc")?.path();
        // Processes come and go while the folder is read.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let flags: u64 = after_name.split(' ').nth(6).and_then(|flags| flags.parse().ok()).unwrap_or(0);
        if flags & KERNEL_THREAD != 0 {
            let pid = path.file_name().and_then(|name| name.to_str());
            return Ok(pid.context("a folder of /proc has a number for its name")?.to_owned());
        }
    }
    anyhow::bail!("find a kernel thread: none is visible; run the tests outside a PID namespace")
}

/// leakprobe where every user can run it: the clone may lie in a home that is closed to others.
pub(crate) struct Copy {
    pub(crate) path: PathBuf,
}

impl Copy {
    pub(crate) fn everybody_may_run() -> Result<Self> {
        let original = places::leakprobe()?;
        let program = std::env::temp_dir().join(format!("leakprobe-for-nobody-{}", std::process::id()));
        fs::copy(&original, &program)
            .with_context(|| format!("copy {} to {}", original.display(), program.display()))?;
        let copy = Self { path: program };
        fs::set_permissions(&copy.path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("let everybody run {}", copy.path.display()))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A test that fails has more to tell than a copy that cannot be removed.
        fs::remove_file(&self.path).ok();
    }
}
