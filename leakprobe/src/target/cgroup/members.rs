//! The other processes that share the target's cgroup, and so its limit.
//!
//! The surprise: pages that several of them map count in the RSS of each, so the sum may exceed the bill.

use std::fs;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::PAGE_BYTES;

/// Cgroups and processes looked at, so that a host's whole tree costs no more than a moment.
const MAX_FOLDERS: usize = 1024;
const MAX_PROCESSES: usize = 4096;
/// The largest are named.
const NAMED: usize = 3;

/// The other processes in a cgroup and in those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Others {
    /// How many.
    pub processes: u64,
    /// The sum of their RSS in bytes; what they share counts more than once.
    pub rss: u64,
    /// The largest of them.
    pub largest: Vec<Member>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Process id.
    pub pid: i32,
    /// The kernel's short name of it.
    pub comm: String,
    /// Resident bytes.
    pub rss: u64,
}

/// All processes but `pid` in the cgroup of `folder`.
pub fn others(folder: &Path, pid: i32) -> Others {
    let mut members: Vec<Member> =
        pids(folder).into_iter().filter(|other| *other != pid).filter_map(Member::of).collect();
    members.sort_by(|a, b| b.rss.cmp(&a.rss).then(a.pid.cmp(&b.pid)));
    let processes = members.len() as u64;
    let rss = members.iter().map(|member| member.rss).sum();
    members.truncate(NAMED);
    Others { processes, rss, largest: members }
}

/// Processes of the cgroup and of those below it. Those of another PID namespace are listed as 0.
pub(super) fn pids(folder: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut folders_left = MAX_FOLDERS;
    while let Some(folder) = folders.pop() {
        let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        pids.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        pids.truncate(MAX_PROCESSES);
        for below in below(&folder) {
            if folders_left == 0 {
                break;
            }
            folders_left -= 1;
            folders.push(below);
        }
    }
    pids
}

pub(super) fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

impl Member {
    /// What it has now; `None` where it has gone.
    pub fn of(pid: i32) -> Option<Self> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, comm: comm.trim_end().to_owned(), rss: pages.checked_mul(PAGE_BYTES)? })
    }
}

/// What of a process's memory is its own, and its part of what it shares (Linux `Documentation/filesystems/proc.rst`,
/// `smaps_rollup`, since 4.14). `None` where the kernel does not say.
pub fn pss_bytes(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_below_count_and_the_target_does_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        let root = std::env::temp_dir().join(format!("leakprobe-members-{own}"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("cgroup.procs"), "0\n1\nnonsense\n").unwrap();
        fs::write(root.join("a/b/cgroup.procs"), format!("{own}\n")).unwrap();
        let seen = others(&root, 1);
        let none = others(&root, own);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((seen.processes, seen.largest[0].pid), (1, own));
        assert!(seen.rss > 0 && seen.rss == seen.largest[0].rss);
        assert!(none.largest.iter().all(|member| member.pid == 1), "{none:?}");
    }
}
