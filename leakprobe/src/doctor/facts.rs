//! What there is: read from /proc and /sys, and tried on ourselves and on another process.
//!
//! The surprise: trying may mount tracefs where it is not mounted, as watching a process does.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::snapshot;
use crate::target::namespace::PidNamespace;
use crate::target::{Target, TargetError, cgroup, pids};
use crate::trace::backend::Backend;
use crate::trace::rate::StackRate;
use crate::trace::{AttachError, Probe, Tracer, Watched, probes, tracefs};

/// Enough to know; a machine may have a hundred thousand.
const MAX_TRIED: usize = 500;

/// Everything that was read and tried. Texts are as the kernel gives them; `None` is what it does not give.
#[derive(Debug, Default)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture.
    pub arch: String,
    /// `CapEff` of our /proc/self/status.
    pub capabilities: Option<u64>,
    /// `Seccomp` of it: 0 for none, 2 for a filter.
    pub seccomp: Option<u64>,
    /// Whether the capabilities count outside of a container.
    pub is_in_initial_user_namespace: Option<bool>,
    /// Whether we see all processes.
    pub is_in_initial_pid_namespace: Option<bool>,
    /// /sys/kernel/security/lockdown, as "none [integrity] confidentiality".
    pub lockdown: Option<String>,
    /// kernel.yama.ptrace_scope.
    pub ptrace_scope: Option<u64>,
    /// net.core.bpf_jit_enable.
    pub bpf_jit: Option<u64>,
    /// The options with which /proc is mounted.
    pub proc_options: Option<String>,
    /// Whether the kernel describes its own types.
    pub has_btf: bool,
    /// Where tracefs is, or why it is not to be had; `None` where not tried.
    pub tracefs: Option<Result<PathBuf, AttachError>>,
    /// Whether there is `PAGEMAP_SCAN`.
    pub has_pagemap_scan: bool,
    /// Whether there is `bpf_task_pt_regs`.
    pub has_task_regs: bool,
    /// Processes that are none of ours.
    pub processes: ProcessAccess,
    /// Each backend, tried.
    pub trials: Vec<Trial>,
}

/// How far other processes can be looked at.
#[derive(Debug, Default)]
pub struct ProcessAccess {
    /// How many were tried, kernel threads left out.
    pub tried: usize,
    /// Of them, how many can be read.
    pub opened: usize,
    /// Why one of the others cannot.
    pub refusal: Option<anyhow::Error>,
    /// Whether files that a process has mapped can be opened; `None` where none was tried.
    pub mapped_file: Option<Result<()>>,
    /// Whether the memory controller's files of a process's cgroup can be read.
    pub has_cgroup: bool,
}

/// A backend, and its probes after each call was made.
#[derive(Debug)]
pub struct Trial {
    /// Which one.
    pub backend: Backend,
    /// Its probes, with those that turned out to be blind, or why it does not work.
    pub outcome: Result<Vec<Probe>, AttachError>,
}

impl Facts {
    /// Reads and tries everything; of all processes, where none is named.
    ///
    /// # Errors
    /// [`TargetError`] where the one that is named does not exist.
    pub fn gather(pid: Option<i32>) -> Result<Self> {
        let processes = match pid {
            None => ProcessAccess::to_all(),
            Some(pid) => ProcessAccess::to(pid)?,
        };
        Ok(Self {
            processes,
            tracefs: Some(tracefs::find()),
            has_pagemap_scan: snapshot::has_pagemap_scan(),
            has_task_regs: probes::has_task_regs(),
            trials: Backend::ALL.into_iter().map(Trial::of).collect(),
            ..Self::read()
        })
    }

    /// Reads, and tries nothing.
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let is_in = |kind, initial_inode| namespace_inode(kind).map(|inode| inode == initial_inode);
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            capabilities: field(&status, "CapEff:").and_then(|set| u64::from_str_radix(set, 16).ok()),
            seccomp: field(&status, "Seccomp:").and_then(|mode| mode.parse().ok()),
            is_in_initial_user_namespace: is_in("user", INITIAL_USER_INODE),
            is_in_initial_pid_namespace: is_in("pid", PidNamespace::INITIAL_INODE),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok(),
            ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
            bpf_jit: number("/proc/sys/net/core/bpf_jit_enable"),
            proc_options: fs::read_to_string("/proc/self/mounts").ok().and_then(|text| proc_options(&text)),
            has_btf: probes::has_kernel_types(),
            ..Self::default()
        }
    }
}

impl ProcessAccess {
    /// Tries the processes that we see; those that end meanwhile, kernel threads and ourselves are left out.
    fn to_all() -> Self {
        let mut access = Self::default();
        let others = pids().filter(|pid| pid.unsigned_abs() != std::process::id());
        for pid in others.take(MAX_TRIED) {
            // What is not there, or has no memory, says nothing of what we may do.
            let _ = access.attempt(pid);
        }
        access
    }

    /// Tries one.
    fn to(pid: i32) -> Result<Self> {
        let mut access = Self::default();
        access.attempt(pid)?;
        Ok(access)
    }

    /// An error where there is no such process, and not where it is refused.
    fn attempt(&mut self, pid: i32) -> Result<()> {
        match Target::open(pid) {
            Ok(target) => self.take(&target),
            Err(error) if is_refusal(&error) => {
                self.refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        self.tried += 1;
        Ok(())
    }

    fn take(&mut self, target: &Target) {
        self.opened += 1;
        if self.mapped_file.is_none() {
            let of_file = target.regions().into_iter().find(|region| region.inode != 0);
            self.mapped_file = of_file.map(|region| target.open_mapped(&region).map(drop));
        }
        if !self.has_cgroup {
            let cgroup = cgroup::parse(&target.cgroup_text());
            self.has_cgroup = cgroup.is_some_and(|cgroup| cgroup::memory(&cgroup, target.pid()).is_some());
        }
    }
}

fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(TargetError::NotPermitted { .. }))
}

impl Trial {
    fn of(backend: Backend) -> Self {
        // The trial watches ourselves, and after it nobody is watched.
        let attached = Tracer::attach(&Watched::default(), Some(backend), StackRate::Auto, false);
        Self { backend, outcome: attached.map(|tracer| tracer.probes().to_vec()) }
    }
}

/// The initial user namespace (Linux `include/linux/proc_ns.h`, `PROC_USER_INIT_INO`).
const INITIAL_USER_INODE: u64 = 0xEFFF_FFFD;

fn namespace_inode(kind: &str) -> Option<u64> {
    let path = format!("/proc/self/ns/{kind}");
    Some(rustix::fs::stat(path).ok()?.st_ino)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The last one mounted hides those before it.
fn proc_options(mounts: &str) -> Option<String> {
    let of_proc = mounts.lines().rev().find(|line| line.split(' ').nth(1) == Some("/proc"))?;
    of_proc.split(' ').nth(3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_proc() {
        let mounts = "proc /proc proc rw,hidepid=2 0 0\nsysfs /sys sysfs rw 0 0\n";
        assert_eq!(proc_options(mounts).as_deref(), Some("rw,hidepid=2"));
        assert_eq!(proc_options("sysfs /sys sysfs rw 0 0\n"), None);
    }
}
