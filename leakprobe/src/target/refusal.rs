//! Why a process cannot be looked at, told from what the kernel said.

use std::io;

use rustix::io::Errno;

use crate::address::PAGE_BYTES;

/// Why a process cannot be looked at. `main` turns these into advice and exit codes.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No process has that id.
    #[error("no such process: {pid} (`ps -e` lists those that run)")]
    NoSuchProcess {
        /// The id.
        pid: i32,
    },
    /// The id is a thread's, and not its process's.
    #[error("{pid} is a thread of process {process}: look at the process, whose memory it shares")]
    IsThread {
        /// The id.
        pid: i32,
        /// The process it belongs to.
        process: i32,
    },
    /// A kernel thread, which has no memory of its own.
    #[error("{pid} ({comm}) is a kernel thread: it has no memory of its own to look at")]
    KernelThread {
        /// The id.
        pid: i32,
        /// Its name.
        comm: String,
    },
    /// The process ended before anything could be read.
    #[error("process {pid} exited before anything of it was read")]
    Exited {
        /// The id.
        pid: i32,
    },
    /// The kernel divides memory otherwise than leakprobe reckons.
    #[error(
        "this kernel's pages are {page_bytes} bytes and this leakprobe reckons with {PAGE_BYTES}: its figures would be wrong, so it gives none; run it on a kernel with pages of {PAGE_BYTES} bytes"
    )]
    OtherPageSize {
        /// The kernel's.
        page_bytes: u64,
    },
    /// The kernel does not let us.
    #[error(
        "not permitted to read {object} ({error}): run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
    )]
    NotPermitted {
        /// What was read.
        object: String,
        /// The refusal.
        error: io::Error,
    },
}

/// An error where pages are of another size: all of arm64's may be 16 or 64 KiB.
pub(super) fn ensure_page_size(page_bytes: u64) -> Result<(), TargetError> {
    if page_bytes == PAGE_BYTES { Ok(()) } else { Err(TargetError::OtherPageSize { page_bytes }) }
}

/// What a failure to open a file of /proc/PID means.
pub(super) fn refused(pid: i32, name: &str, errno: Errno) -> TargetError {
    match errno {
        Errno::NOENT | Errno::SRCH => TargetError::Exited { pid },
        _ => TargetError::NotPermitted { object: format!("/proc/{pid}/{name}"), error: errno.into() },
    }
}

/// The error for an id that names no process: the thread's process, where it is a thread's.
pub(super) fn thread_error(pid: i32) -> TargetError {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    match process {
        Some(process) if process != pid => TargetError::IsThread { pid, process },
        _ => TargetError::NoSuchProcess { pid },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_pages_are_refused_by_their_size() {
        assert!(ensure_page_size(PAGE_BYTES).is_ok());
        for page_bytes in [16 << 10, 64 << 10] {
            let words = ensure_page_size(page_bytes).unwrap_err().to_string();
            assert!(
                words.contains(&format!("pages are {page_bytes} bytes")) && words.contains("4096"),
                "{words}"
            );
        }
    }
}
