//! Why a process cannot be looked at, told from what the kernel said.

use std::io;

use rustix::io::Errno;

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
