//! A process of ours: waited for with a deadline, ended by its PID, and priced when it is gone.
//!
//! The surprise: it is reaped with wait4 and not through std, because only wait4 tells a process's
//! own peak memory and CPU time.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Deadline;

/// A process that ends with this value at the latest.
#[derive(Debug)]
pub struct Process {
    /// Its pipes; nothing else of it is used.
    pub child: Child,
    pidfd: OwnedFd,
    name: String,
    ended: Option<Ended>,
}

/// How a process ended and what it used.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Most memory it had resident. The kernel counts from before the exec: never less than the
    /// few MiB of the program that started it.
    pub peak_rss_bytes: u64,
    /// User and system time.
    pub cpu_seconds: f64,
}

impl Process {
    /// Starts `command`; `name` is what messages call it.
    pub fn spawn(mut command: Command, name: &str) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("start {name} ({:?})", command.get_program()))?;
        let pid = Pid::from_child(&child);
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("open a pidfd of {name}"))?;
        Ok(Self { child, pidfd, name: name.to_owned(), ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            result => result.with_context(|| format!("send {signal:?} to {}", self.name)),
        }
    }

    /// Whether it is still there at the deadline. Reaps nothing.
    pub fn outlives(&self, deadline: Deadline) -> Result<bool> {
        Ok(!deadline.is_met(self.pidfd.as_fd())?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Deadline) -> Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        deadline.wait_for(self.pidfd.as_fd(), &format!("the end of {}", self.name))?;
        let ended = reap(self.child.id()).with_context(|| format!("reap {}", self.name))?;
        self.ended = Some(ended);
        Ok(ended)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // Nobody is left to tell of an error here; a killed process is reaped at once.
        if self.signal(Signal::KILL).is_ok() {
            self.child.wait().ok();
        }
    }
}

fn reap(pid: u32) -> std::io::Result<Ended> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the types wait4 writes; the child is unreaped, so
    // the id cannot have been given to another process.
    let reaped = unsafe { libc::wait4(pid.cast_signed(), &raw mut status, 0, &raw mut usage) };
    if reaped < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(Ended {
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        peak_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
    })
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}
