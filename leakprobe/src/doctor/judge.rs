//! What the facts mean for the answer, and what to do about them. Pure.

use super::capabilities::{NEEDS, Need};
use super::facts::{Facts, ProcessAccess, Trial};
use crate::report::checkup::{Ability, Check, Checkup, Obstacle, SCHEMA, State};
use crate::trace::backend::Backend;
use crate::trace::{AttachError, Probe};

/// A judgement of everything.
pub fn judge(facts: &Facts) -> Checkup {
    let rules: [fn(&Facts) -> Option<Check>; 14] = [
        |facts| Some(capabilities(facts.capabilities)),
        user_namespace,
        seccomp,
        lockdown,
        ptrace_scope,
        |facts| Some(processes(facts)),
        |facts| Some(memory(&facts.processes)),
        |facts| mapped_files(&facts.processes),
        |facts| cgroup(&facts.processes),
        |facts| Some(pagemap_scan(facts.has_pagemap_scan)),
        |facts| Some(kernel_types(facts.has_btf)),
        registers,
        jit,
        tracefs,
    ];
    let checks: Vec<Check> = rules.iter().filter_map(|rule| rule(facts)).collect();
    let Verdict { ability, obstacle, sentence } = verdict(facts, &checks);
    Checkup {
        schema: SCHEMA.into(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: facts.kernel.clone(),
        arch: facts.arch.clone(),
        ability,
        obstacle,
        verdict: sentence,
        checks,
        backends: facts.trials.iter().map(backend).collect(),
    }
}

/// What is known, without a trial, to stand in the way of reading processes and of probes.
pub fn refused_by(facts: &Facts) -> Vec<Check> {
    let rules: [fn(&Facts) -> Option<Check>; 5] =
        [|facts| Some(capabilities(facts.capabilities)), user_namespace, seccomp, lockdown, ptrace_scope];
    let checks = rules.iter().filter_map(|rule| rule(facts));
    checks.filter(|check| matches!(check.state, State::Missing | State::Limited)).collect()
}

struct Verdict {
    ability: Ability,
    obstacle: Option<Obstacle>,
    sentence: String,
}

fn verdict(facts: &Facts, checks: &[Check]) -> Verdict {
    if facts.processes.opened == 0 {
        let sentence =
            format!("leakprobe can do nothing here: no process can be read.{}", in_the_way(checks));
        return Verdict { ability: Ability::Nothing, obstacle: Some(Obstacle::NotPermitted), sentence };
    }
    let Some((first, _)) = working(facts).next() else {
        let sentence = format!(
            "leakprobe can say who owns the memory (--duration 0), not who makes it grow.{}",
            in_the_way(checks)
        );
        let is_privilege = facts.lacks_privilege_for_probes();
        let obstacle = if is_privilege { Obstacle::NotPermitted } else { Obstacle::KernelLacks };
        return Verdict { ability: Ability::Snapshot, obstacle: Some(obstacle), sentence };
    };
    let missed = facts.calls_missed();
    let but = match missed.is_empty() {
        true => String::new(),
        false => format!(", but not see {}", missed.join(", ")),
    };
    let sentence = format!("leakprobe can watch processes here{but}. Its backend is {}.", first.word());
    Verdict { ability: Ability::Watch, obstacle: None, sentence }
}

fn in_the_way(checks: &[Check]) -> String {
    let missing = checks.iter().filter(|check| check.state == State::Missing);
    let names: Vec<&str> = missing.map(|check| &*check.name).collect();
    if names.is_empty() { String::new() } else { format!(" What is in the way: {}.", names.join(", ")) }
}

/// Backends that see anything, with the names of the calls they are blind to.
fn working(facts: &Facts) -> impl Iterator<Item = (Backend, Vec<&str>)> {
    facts.trials.iter().filter_map(|trial| Some((trial.backend, trial.outcome.as_deref().map(blind).ok()?)))
}

/// Names of what these probes are to see and do not.
fn blind(probes: &[Probe]) -> Vec<&str> {
    probes.iter().filter(|probe| !probe.attached).map(|probe| probe.name.as_str()).collect()
}

impl Facts {
    /// Of all backends the last needs least.
    fn lacks_privilege_for_probes(&self) -> bool {
        let last = self.trials.last().and_then(|trial| trial.outcome.as_ref().err());
        last.is_some_and(AttachError::is_for_want_of_privilege)
    }

    /// Calls that no backend sees.
    fn calls_missed(&self) -> Vec<&str> {
        let mut missed: Option<Vec<&str>> = None;
        for (_, blind) in working(self) {
            missed = Some(match missed {
                None => blind,
                Some(missed) => missed.into_iter().filter(|call| blind.contains(call)).collect(),
            });
        }
        missed.unwrap_or_default()
    }
}

fn capabilities(set: Option<u64>) -> Check {
    let Some(set) = set else {
        return check("Capabilities", State::Unknown, "/proc/self/status does not tell them");
    };
    let unmet: Vec<&Need> = NEEDS.iter().filter(|need| !need.is_met(set)).collect();
    let names =
        |needs: &[&Need]| needs.iter().map(|need| need.capability.name).collect::<Vec<_>>().join(", ");
    if unmet.is_empty() {
        return check("Capabilities", State::Fine, "all that it makes use of");
    }
    let is_essential = unmet.iter().any(|need| need.is_essential);
    let state = if is_essential { State::Missing } else { State::Limited };
    let costs: Vec<String> =
        unmet.iter().map(|need| format!("without {}, {}", need.capability.name, need.without)).collect();
    let remedy = "Run it as root; in a container, with --privileged or --cap-add for each of these.";
    check("Capabilities", state, &format!("missing: {}", names(&unmet)))
        .that_costs(&sentence(&costs.join("; ")))
        .mended_by(remedy)
}

fn user_namespace(facts: &Facts) -> Option<Check> {
    let is_inner = !facts.is_in_initial_user_namespace?;
    is_inner.then(|| {
        check("User namespace", State::Missing, "not the machine's own: root in here is nobody outside")
            .that_costs("The kernel refuses probes, whatever capabilities there are in here.")
            .mended_by("Run it outside, or in a container that is not rootless.")
    })
}

fn seccomp(facts: &Facts) -> Option<Check> {
    (facts.seccomp? != 0).then(|| {
        check("Seccomp", State::Limited, "a filter refuses some system calls")
            .that_costs("Probes need bpf(2) and perf_event_open(2), which the usual filters refuse.")
            .mended_by("In a container: --security-opt seccomp=unconfined, or --privileged.")
    })
}

/// `LOCKDOWN_BPF_READ_KERNEL` is a reason of confidentiality (Linux `include/linux/security.h`).
fn lockdown(facts: &Facts) -> Option<Check> {
    let text = facts.lockdown.as_deref()?;
    let mode = text.split('[').nth(1)?.split(']').next()?;
    let found = format!("lockdown={mode}");
    Some(match mode {
        "confidentiality" => check("Lockdown", State::Missing, &found)
            .that_costs("BPF programs may not read memory, so no stack can be recorded: snapshots only.")
            .mended_by("Boot with lockdown=integrity; nothing less changes it."),
        _ => check("Lockdown", State::Fine, &found),
    })
}

/// 3 refuses every attachment, and /proc/PID/mem counts as one (Linux `security/yama/yama_lsm.c`).
fn ptrace_scope(facts: &Facts) -> Option<Check> {
    (facts.ptrace_scope? >= 3).then(|| {
        check("Yama", State::Missing, "kernel.yama.ptrace_scope=3")
            .that_costs("Nobody may read another process's memory, not even root.")
            .mended_by("Set another value in /etc/sysctl.d and boot again; it cannot be lowered before.")
    })
}

fn processes(facts: &Facts) -> Check {
    let hides = facts.proc_options.as_deref().is_some_and(|options| {
        options
            .split(',')
            .any(|option| option.starts_with("hidepid=") && option != "hidepid=0" && option != "hidepid=off")
    });
    let has_ptrace = facts.capabilities.is_none_or(|set| NEEDS[0].is_met(set));
    if hides && !has_ptrace {
        return check("Processes", State::Limited, "/proc is mounted with hidepid")
            .that_costs("Other users' processes cannot be found.")
            .mended_by("Run it as root, or with CAP_SYS_PTRACE.");
    }
    match facts.is_in_initial_pid_namespace {
        Some(true) => check("Processes", State::Fine, "all of the machine"),
        Some(false) => check("Processes", State::Limited, "those of this container only")
            .that_costs("PIDs are the container's own; what runs outside cannot be looked at.")
            .mended_by("For all of the machine: docker run --pid=host, or hostPID: true."),
        None => check("Processes", State::Unknown, "/proc/self/ns/pid cannot be seen"),
    }
}

fn memory(processes: &ProcessAccess) -> Check {
    let ProcessAccess { tried, opened, refusal, .. } = processes;
    let found = match (tried, opened) {
        (1, 1) => "that of the process can be read".to_owned(),
        _ => format!("that of {opened} in {tried} processes can be read"),
    };
    let Some(refusal) = refusal else { return check("Memory", State::Fine, &found) };
    let state = if *opened == 0 { State::Missing } else { State::Limited };
    check("Memory", state, &found).that_costs(&sentence(&format!("{refusal:#}")))
}

fn mapped_files(processes: &ProcessAccess) -> Option<Check> {
    let refused = processes.mapped_file.as_ref()?.as_ref().err();
    Some(match refused {
        None => check("Mapped files", State::Fine, "can be read for names and unwinding"),
        Some(error) => check("Mapped files", State::Limited, &format!("{error:#}"))
            .that_costs("Functions have no names, and stacks without frame pointers end early.")
            .mended_by("Add CAP_CHECKPOINT_RESTORE, or run it as root."),
    })
}

fn cgroup(processes: &ProcessAccess) -> Option<Check> {
    (processes.opened > 0).then(|| match processes.has_cgroup {
        true => check("Memory cgroup", State::Fine, "its charge and limit can be read"),
        false => check("Memory cgroup", State::Limited, "none is mounted where processes have one")
            .that_costs("The report does not say how near the limit is.")
            .mended_by("In a container: --cgroupns=host and /sys/fs/cgroup of the machine, read-only."),
    })
}

fn pagemap_scan(is_there: bool) -> Check {
    match is_there {
        true => check("PAGEMAP_SCAN", State::Fine, "resident pages are read quickly"),
        false => check("PAGEMAP_SCAN", State::Limited, "not in this kernel (Linux 6.7)").that_costs(
            "Pages are read one by one: slower; pages of zeroes show as a negative residual, huge pages not at all.",
        ),
    }
}

fn kernel_types(is_there: bool) -> Check {
    match is_there {
        true => check("BTF", State::Fine, "the kernel describes its own types"),
        false => check("BTF", State::Limited, "/sys/kernel/btf/vmlinux is not there")
            .that_costs("No fentry; stacks of native code at system calls go by frame pointers only.")
            .mended_by("A kernel built with CONFIG_DEBUG_INFO_BTF has it, as all large distributions' do."),
    }
}

fn registers(facts: &Facts) -> Option<Check> {
    if facts.lacks_privilege_for_probes() {
        return None; // asking takes the same privilege
    }
    Some(match facts.has_task_regs {
        true => check("Registers", State::Fine, "a thread's own can be read in every probe"),
        false => check("Registers", State::Limited, "not in every probe (bpf_task_pt_regs, Linux 5.15)")
            .that_costs("Stacks at some tracepoints go by frame pointers only."),
    })
}

fn jit(facts: &Facts) -> Option<Check> {
    (facts.bpf_jit? == 0).then(|| {
        check("BPF compiler", State::Limited, "net.core.bpf_jit_enable=0: programs are interpreted")
            .that_costs("Each event costs the process several times as much.")
            .mended_by("sysctl net.core.bpf_jit_enable=1")
    })
}

fn tracefs(facts: &Facts) -> Option<Check> {
    Some(match facts.tracefs.as_ref()? {
        Ok(place) => check("tracefs", State::Fine, &place.display().to_string()),
        Err(error) => check("tracefs", State::Limited, &reason(error))
            .that_costs("Of the places below, tracepoint and syscalls cannot serve.")
            .mended_by("As root: mount -t tracefs nodev /sys/kernel/tracing"),
    })
}

fn backend(trial: &Trial) -> Check {
    let name = trial.backend.word();
    match &trial.outcome {
        Err(error) => check(name, State::Missing, &reason(error)),
        Ok(probes) => match blind(probes).as_slice() {
            [] => check(name, State::Fine, "every call made to test it was seen"),
            blind => check(name, State::Limited, &format!("blind to {}", blind.join(", ")))
                .that_costs("Another backend sees to these where one can."),
        },
    }
}

/// What the kernel said, without the advice that the checks above give.
fn reason(error: &AttachError) -> String {
    match error {
        AttachError::Backend { error, .. } => reason(error),
        AttachError::NotPermitted { error } => format!("not permitted: {error}"),
        AttachError::KernelLacks { error } => error.clone(),
        AttachError::NoTracefs { .. } => "there is no tracefs".to_owned(),
        AttachError::NoObject | AttachError::NoRingBuffer => error.to_string(),
    }
}

fn check(name: &'static str, state: State, found: &str) -> Check {
    Check { name: name.into(), state, found: found.to_owned(), costs: None, remedy: None }
}

impl Check {
    fn that_costs(mut self, costs: &str) -> Self {
        self.costs = Some(costs.to_owned());
        self
    }

    fn mended_by(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

#[cfg(test)]
mod tests;
