//! A process by its name: the kernel's short one, or that of its executable.
//!
//! The surprise: a name that several processes have is refused with a list of them, for the wrong one's report would
//! look as right as the right one's.

use std::fmt;
use std::fs;
use std::path::Path;

use super::cgroup::Member;
use super::pids;

/// Candidates listed; the largest are the likely ones.
const LISTED: usize = 20;

/// Why a name stands for no process.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// None has it.
    #[error(
        "no process is called {name:?}, nor is its executable: `ps -eo pid,comm` lists what they are called"
    )]
    NoSuchName {
        /// As typed.
        name: String,
    },
    /// Several have it.
    #[error("{} processes are called {name:?}: give the PID of one of them{}", found.len(), Table(found))]
    NotUnique {
        /// As typed.
        name: String,
        /// Which, largest first.
        found: Vec<Member>,
    },
}

/// The candidates below each other.
struct Table<'a>(&'a [Member]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Member { pid, comm, rss } in self.0.iter().take(LISTED) {
            let mib = *rss as f64 / f64::from(1 << 20);
            write!(formatter, "\n{pid:>10}  {mib:>9.1} MiB  {}", comm.escape_debug())?;
        }
        if self.0.len() > LISTED {
            write!(formatter, "\n  and {} smaller ones", self.0.len() - LISTED)?;
        }
        Ok(())
    }
}

/// The id of the only process of that name, leakprobe itself aside.
///
/// # Errors
/// [`NameError`] where none or several have it.
pub fn pid_of(name: &str) -> Result<i32, NameError> {
    let own = std::process::id();
    let called = pids().filter(|pid| pid.unsigned_abs() != own && is_called(*pid, name));
    let mut found: Vec<Member> = called.filter_map(Member::of).collect();
    found.sort_by(|one, other| other.rss.cmp(&one.rss).then(one.pid.cmp(&other.pid)));
    let name = name.to_owned();
    match found.as_slice() {
        [] => Err(NameError::NoSuchName { name }),
        [only] => Ok(only.pid),
        _ => Err(NameError::NotUnique { name, found }),
    }
}

/// The kernel's name has 15 bytes at most, and a program may change it; the executable's is as it was started.
fn is_called(pid: i32, name: &str) -> bool {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    if comm.strip_suffix(b"\n") == Some(name.as_bytes()) {
        return true;
    }
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let exe = exe.to_string_lossy();
    Path::new(exe.trim_end_matches(" (deleted)")).file_name().is_some_and(|file| file == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_listed_with_their_size_and_escaped() {
        let member = |pid, rss| Member { pid, comm: "a\x1b[2J".to_owned(), rss };
        let found = vec![member(7, 3 << 20), member(12_345, 1 << 19)];
        let error = NameError::NotUnique { name: "a".to_owned(), found };
        assert_eq!(
            error.to_string(),
            "2 processes are called \"a\": give the PID of one of them\n         7        3.0 MiB  a\\u{1b}[2J\n     \
             12345        0.5 MiB  a\\u{1b}[2J"
        );
    }

    #[test]
    fn leakprobe_itself_is_not_found() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        if let Ok(pid) = pid_of(own.trim_end()) {
            assert_ne!(pid.unsigned_abs(), std::process::id());
        }
        assert!(matches!(pid_of("no such name /"), Err(NameError::NoSuchName { .. })));
    }
}
