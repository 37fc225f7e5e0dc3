//! Waiting for a file descriptor, and for no longer than was said.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::places;

/// The moment at which waiting becomes a failure.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    allowed: Duration,
    at: Instant,
}

impl Deadline {
    /// So long from now.
    pub fn after(allowed: Duration) -> Self {
        Self { allowed, at: Instant::now() + allowed }
    }

    /// Long enough for anything here on a machine that does three other things as well.
    pub fn usual() -> Self {
        Self::after(Duration::from_secs(60) * places::slowness())
    }

    /// Whether it is over.
    pub fn has_passed(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Waits until `source` can be read or has ended; fails at the deadline, naming `awaited`.
    pub fn wait_for(&self, source: impl AsFd, awaited: &str) -> Result<()> {
        let ready = self.is_met(source)?;
        ensure!(ready, "{awaited} did not come within {:.1} s", self.allowed.as_secs_f64());
        Ok(())
    }

    /// Whether `source` could be read, or ended, before the deadline.
    pub fn is_met(&self, source: impl AsFd) -> Result<bool> {
        loop {
            let left = self.at.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).context("convert a deadline for poll")?;
            match poll(&mut [PollFd::new(&source, PollFlags::IN)], Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("poll a file descriptor"),
            }
        }
    }
}
