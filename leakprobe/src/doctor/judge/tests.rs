//! Judgements of machines that lack one thing or another.

use std::path::PathBuf;

use anyhow::anyhow;
use expect_test::expect;

use super::*;
use crate::report::{self, Format, Style};
use crate::trace::Probe;

/// A machine that lacks nothing.
fn facts() -> Facts {
    Facts {
        kernel: "6.18.0".to_owned(),
        arch: "x86_64".to_owned(),
        capabilities: Some(u64::MAX),
        seccomp: Some(0),
        is_in_initial_user_namespace: Some(true),
        is_in_initial_pid_namespace: Some(true),
        lockdown: Some("none [integrity] confidentiality\n".to_owned()),
        ptrace_scope: Some(1),
        bpf_jit: Some(1),
        proc_options: Some("rw,relatime".to_owned()),
        has_btf: true,
        tracefs: Some(Ok(PathBuf::from("/sys/kernel/tracing"))),
        has_pagemap_scan: true,
        has_task_regs: true,
        processes: ProcessAccess {
            tried: 3,
            opened: 3,
            refusal: None,
            mapped_file: Some(Ok(())),
            has_cgroup: true,
        },
        trials: Backend::ALL.into_iter().map(|backend| Trial { backend, outcome: Ok(vec![]) }).collect(),
    }
}

fn refused() -> AttachError {
    AttachError::NotPermitted { error: "EPERM".to_owned() }
}

fn state(checkup: &Checkup, name: &str) -> Option<State> {
    checkup.checks.iter().chain(&checkup.backends).find(|check| check.name == name).map(|check| check.state)
}

#[test]
fn where_nothing_is_missing_nothing_is_said() {
    let checkup = judge(&facts());
    assert_eq!(checkup.ability, Ability::Watch);
    assert_eq!(checkup.verdict, "leakprobe can watch processes here. Its backend is fentry.");
    assert!(checkup.checks.iter().all(|check| check.state == State::Fine && check.costs.is_none()));
}

#[test]
fn without_a_backend_there_are_snapshots() {
    let mut facts = facts();
    for trial in &mut facts.trials {
        trial.outcome = Err(refused());
    }
    let checkup = judge(&facts);
    assert_eq!((checkup.ability, checkup.obstacle), (Ability::Snapshot, Some(Obstacle::NotPermitted)));
    assert!(
        checkup.verdict.contains("--duration 0") && checkup.backends[0].found.contains("EPERM"),
        "{checkup:?}"
    );
}

#[test]
fn a_call_is_missed_where_every_backend_misses_it() {
    let blind = |call: &str| Probe { name: format!("{call}(2)"), attached: false, error: None };
    let mut facts = facts();
    facts.trials.truncate(2);
    facts.trials[0].outcome = Ok(vec![blind("brk"), blind("madvise")]);
    facts.trials[1].outcome = Ok(vec![blind("madvise")]);
    assert_eq!(facts.calls_missed(), ["madvise(2)"]);
    let checkup = judge(&facts);
    assert!(checkup.verdict.contains("but not see madvise(2)"), "{}", checkup.verdict);
    assert_eq!(state(&checkup, "fentry"), Some(State::Limited));
}

#[test]
fn without_a_process_there_is_nothing() {
    let mut facts = facts();
    facts.processes = ProcessAccess {
        tried: 1,
        refusal: Some(anyhow!("not permitted to read /proc/7/mem")),
        ..ProcessAccess::default()
    };
    let checkup = judge(&facts);
    assert_eq!((checkup.ability, checkup.obstacle), (Ability::Nothing, Some(Obstacle::NotPermitted)));
    assert!(checkup.verdict.ends_with("What is in the way: Memory."), "{}", checkup.verdict);
    assert_eq!(state(&checkup, "Memory"), Some(State::Missing));
}

#[test]
fn what_stands_in_the_way_is_named() {
    let with = |change: fn(&mut Facts), name: &str| {
        let mut facts = facts();
        change(&mut facts);
        let checkup = judge(&facts);
        let check = checkup.checks.iter().find(|check| check.name == name).cloned();
        check.map(|check| (check.state, check.found, check.remedy.is_some()))
    };
    let confidential =
        |facts: &mut Facts| facts.lockdown = Some("none integrity [confidentiality]\n".to_owned());
    assert_eq!(
        with(confidential, "Lockdown"),
        Some((State::Missing, "lockdown=confidentiality".into(), true))
    );
    let without_ptrace = |facts: &mut Facts| facts.capabilities = Some(!(1 << 19));
    assert_eq!(
        with(without_ptrace, "Capabilities"),
        Some((State::Missing, "missing: CAP_SYS_PTRACE".into(), true))
    );
    let hidden = |facts: &mut Facts| {
        facts.capabilities = Some(0);
        facts.proc_options = Some("rw,hidepid=invisible".to_owned());
    };
    assert_eq!(with(hidden, "Processes").map(|it| it.0), Some(State::Limited));
    assert_eq!(with(|facts| facts.seccomp = Some(2), "Seccomp").map(|it| it.0), Some(State::Limited));
    assert_eq!(with(|facts| facts.ptrace_scope = Some(3), "Yama").map(|it| it.0), Some(State::Missing));
    assert_eq!(with(|facts| facts.bpf_jit = Some(0), "BPF compiler").map(|it| it.0), Some(State::Limited));
    let inner = |facts: &mut Facts| facts.is_in_initial_user_namespace = Some(false);
    assert_eq!(with(inner, "User namespace").map(|it| it.0), Some(State::Missing));
}

#[test]
fn the_page_in_a_rootless_container() {
    let mut facts = facts();
    facts.is_in_initial_user_namespace = Some(false);
    facts.is_in_initial_pid_namespace = Some(false);
    facts.trials.truncate(2);
    for trial in &mut facts.trials {
        trial.outcome = Err(refused());
    }
    let style = Style { width_columns: 80, color: false, full_stacks: false, top: None };
    let mut text = Vec::new();
    let mut checkup = judge(&facts);
    checkup.version = "1.2.3".to_owned();
    report::write_document(&checkup, Format::Text, &style, &mut text).unwrap();
    expect![[r#"
        leakprobe 1.2.3 on Linux 6.18.0, x86_64
        leakprobe can say who owns the memory (--duration 0), not who makes it grow.
        What is in the way: User namespace.

         ok    Capabilities     all that it makes use of
         NO    User namespace   not the machine's own: root in here is nobody outside
                                The kernel refuses probes, whatever capabilities there
                                are in here.
                                Run it outside, or in a container that is not rootless.
         ok    Lockdown         lockdown=integrity
         less  Processes        those of this container only
                                PIDs are the container's own; what runs outside cannot
                                be looked at.
                                For all of the machine: docker run --pid=host, or
                                hostPID: true.
         ok    Memory           that of 3 in 3 processes can be read
         ok    Mapped files     can be read for names and unwinding
         ok    Memory cgroup    its charge and limit can be read
         ok    PAGEMAP_SCAN     resident pages are read quickly
         ok    BTF              the kernel describes its own types
         ok    tracefs          /sys/kernel/tracing

        WHERE SYSTEM CALLS CAN BE SEEN, best first
         no    fentry           not permitted: EPERM
         no    kprobe           not permitted: EPERM
    "#]]
    .assert_eq(&String::from_utf8(text).unwrap());
}
