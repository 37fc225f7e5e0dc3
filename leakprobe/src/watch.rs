//! The window: one loop that waits for events, the clock, the target's end and the user's ^C.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::target::Target;
use crate::trace::Tracer;
use crate::trace::recording::Recording;
use crate::unwind::Unwinder;

/// How often the ring buffer is emptied when nothing wakes us, and the sampling rate adapted.
const DRAIN_EVERY: Duration = Duration::from_millis(40);
/// How often the user hears of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What ended the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The time was over.
    TimeOver,
    /// The process exited.
    Exited,
    /// The process replaced itself by another program.
    Exec,
    /// The user pressed ^C, or somebody sent SIGTERM.
    Interrupted,
}

impl End {
    /// As in the report; `None` for the usual end.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::TimeOver => None,
            Self::Exited => Some("exited"),
            Self::Exec => Some("exec"),
            Self::Interrupted => Some("interrupted"),
        }
    }
}

/// What the user is told while leakprobe works.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// The probes are attached and the first snapshot is taken: growth counts from here.
    Watching {
        /// The target.
        pid: i32,
        /// For how long at most.
        duration: Duration,
    },
    /// A second has passed.
    Tick {
        /// Since the window began.
        elapsed: Duration,
        /// VmRSS now, in bytes.
        rss_bytes: u64,
        /// Since the window began, in bytes.
        growth_bytes: i64,
    },
}

enum Wake {
    Events,
    Drain,
    Tell,
    Ended(End),
}

/// Watches until the window ends, whatever ends it; returns what did, and how long it lasted.
///
/// # Errors
/// Where the event loop cannot be set up or the probes' counters cannot be read.
pub async fn watch(
    target: &Target,
    tracer: &mut Tracer,
    recording: &mut Recording,
    unwinder: &mut Unwinder<'_>,
    duration: Duration,
    tell: &mut dyn FnMut(Progress),
) -> Result<(End, Duration)> {
    let set_up = "set up the event loop";
    let events = readable(tracer.as_fd()).context(set_up)?;
    let pidfd = readable(target.pidfd()).context(set_up)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(set_up)?;
    let mut terminate = signal(SignalKind::terminate()).context(set_up)?;
    let mut drains = interval(DRAIN_EVERY);
    drains.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tells = interval(PROGRESS_EVERY);
    drains.reset();
    tells.reset();

    let started = Instant::now();
    let rss_at_start_bytes = target.status().rss_bytes;
    tracer.begin()?;
    tell(Progress::Watching { pid: target.pid(), duration });
    loop {
        let wake = tokio::select! {
            biased;
            ready = pidfd.readable() => { ready?.retain_ready(); Wake::Ended(End::Exited) }
            _ = interrupt.recv() => Wake::Ended(End::Interrupted),
            _ = terminate.recv() => Wake::Ended(End::Interrupted),
            () = sleep_until((started + duration).into()) => Wake::Ended(End::TimeOver),
            ready = events.readable() => { ready?.clear_ready(); Wake::Events }
            _ = tells.tick() => Wake::Tell,
            _ = drains.tick() => Wake::Drain,
        };
        match wake {
            Wake::Events => {}
            Wake::Drain => tracer.adapt()?,
            Wake::Tell => {
                // Unknown once it has exited, which the next turn of the loop finds out.
                if let (Some(rss_bytes), Some(before)) = (target.status().rss_bytes, rss_at_start_bytes) {
                    let growth_bytes = rss_bytes.wrapping_sub(before).cast_signed();
                    tell(Progress::Tick { elapsed: started.elapsed(), rss_bytes, growth_bytes });
                }
            }
            Wake::Ended(end) => return Ok((end, started.elapsed())),
        }
        tracer.drain(recording, |stack| unwinder.unwind(stack));
        if recording.exec_seen() {
            return Ok((End::Exec, started.elapsed()));
        }
    }
}

/// Waits for a descriptor of its own: a duplicate of `fd`.
fn readable(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = fd.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open, and the same file, for as long as it lives.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
