//! The window: one loop that waits for events, the clock, the target's end and the user's ^C.

mod timeline;

use std::future::pending;
use std::io;
use std::mem;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use self::timeline::Timeline;
use crate::diagnose::trend::{Moment, Trend, trend};
use crate::launch::{Launched, Stop};
use crate::runtimes::go::GoRuntime;
use crate::target::Target;
use crate::trace::Tracer;
use crate::trace::recording::Recording;
use crate::unwind::Unwinder;

/// How often the ring buffer is emptied when nothing wakes us, and the sampling rate adapted.
const DRAIN_EVERY: Duration = Duration::from_millis(40);
/// How often it is emptied while the target is looked at.
const LOOK_DRAIN_EVERY: Duration = Duration::from_millis(10);
/// How often the user hears of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// How often the user hears of the trend.
const MINUTE: Duration = Duration::from_secs(60);

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
    /// A minute has passed.
    Minute {
        /// Since the window began.
        elapsed: Duration,
        /// VmRSS now, in bytes.
        rss_bytes: u64,
        /// In this minute, in bytes.
        growth_bytes: i64,
        /// Since the window began.
        trend: Trend,
    },
}

/// How the window went.
pub struct Watch {
    /// What ended it.
    pub end: End,
    /// How long it lasted.
    pub lasted: Duration,
    /// The looks within it.
    pub timeline: Vec<Moment>,
}

enum Wake {
    Events,
    Drain,
    Look,
    Ended(End),
}

/// A process that is watched, and what it is watched with.
pub struct Session<'a> {
    /// The process.
    pub target: &'a Target,
    /// The probes.
    pub tracer: Tracer,
    /// What they saw.
    pub recording: Recording,
    /// Turns what they captured into stacks.
    pub unwinder: Unwinder<'a>,
    /// Which threads are Go's.
    pub acquaintance: Acquaintance<'a>,
}

impl Session<'_> {
    /// Takes the events that wait.
    pub fn drain(&mut self) {
        self.tracer.drain(&mut self.recording, |stack| self.unwinder.unwind(stack));
    }

    /// Does `work`, which takes its time, and meanwhile lets a thread take the events: a busy target fills the ring
    /// buffer several times before it is looked at.
    pub fn meanwhile<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (working, worked) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut adapted = Instant::now();
                // The sender is dropped when the work is done, even where it panics.
                while worked.recv_timeout(LOOK_DRAIN_EVERY) == Err(RecvTimeoutError::Timeout) {
                    self.drain();
                    if adapted.elapsed() >= DRAIN_EVERY {
                        // Where it fails, the watching that follows fails, too, and says why.
                        let _ = self.tracer.adapt();
                        adapted = Instant::now();
                    }
                }
            });
            let working = working;
            let done = work();
            drop(working);
            done
        })
    }

    /// Goes on with other probes, which record already: the moment in which both do is in the recording twice, which
    /// counts its faults twice and changes nothing else. Returns the ones that are done.
    ///
    /// # Errors
    /// Where the old ones cannot be told to end, or what they lost cannot be read.
    pub fn hand_over(&mut self, tracer: Tracer) -> Result<Tracer> {
        self.tracer.end()?;
        self.drain();
        let earlier = mem::replace(&mut self.tracer, tracer);
        self.tracer.add_losses_of(&earlier)?;
        Ok(earlier)
    }
}

/// Watches until the window, which began at `started`, ends, whatever ends it.
///
/// # Errors
/// Where the event loop cannot be set up or the probes' counters cannot be read.
pub async fn watch(
    session: &mut Session<'_>,
    started: Instant,
    duration: Duration,
    mut launched: Option<&mut Launched>,
    tell: &mut dyn FnMut(Progress),
) -> Result<Watch> {
    let target = session.target;
    let set_up = "set up the event loop";
    let events = readable(session.tracer.as_fd()).context(set_up)?;
    let pidfd = readable(target.pidfd()).context(set_up)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(set_up)?;
    let mut terminate = signal(SignalKind::terminate()).context(set_up)?;
    let mut drains = interval(DRAIN_EVERY);
    drains.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = interval(Timeline::pace(duration));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    drains.reset();
    looks.reset();

    let mut looked = Looked::at_first(target, started.elapsed());
    session.tracer.begin()?;
    tell(Progress::Watching { pid: target.pid(), duration });
    loop {
        let wake = tokio::select! {
            biased;
            end = end_of(&mut launched) => Wake::Ended(end),
            ready = pidfd.readable() => { ready?.retain_ready(); Wake::Ended(End::Exited) }
            _ = interrupt.recv() => Wake::Ended(End::Interrupted),
            _ = terminate.recv() => Wake::Ended(End::Interrupted),
            () = sleep_until((started + duration).into()) => Wake::Ended(End::TimeOver),
            ready = events.readable() => { ready?.clear_ready(); Wake::Events }
            _ = looks.tick() => Wake::Look,
            _ = drains.tick() => Wake::Drain,
        };
        match wake {
            Wake::Events => {}
            Wake::Drain => session.tracer.adapt()?,
            Wake::Look => looked.look(target, started.elapsed(), tell),
            Wake::Ended(end) => return Ok(looked.finish(target, end, started.elapsed())),
        }
        session.drain();
        if session.unwinder.met_strangers() {
            session.acquaintance.renew(target, &mut session.tracer);
        }
        if session.recording.exec_seen() {
            // What the counters say now is another program's.
            let timeline = looked.timeline.into_moments();
            return Ok(Watch { end: End::Exec, lasted: started.elapsed(), timeline });
        }
    }
}

/// The end of a program that we started, while it still has its memory. Never comes for any other.
async fn end_of(launched: &mut Option<&mut Launched>) -> End {
    match launched {
        Some(launched) => match launched.stopped().await {
            Stop::Exec => End::Exec,
            Stop::Exiting | Stop::Gone => End::Exited,
        },
        None => pending().await,
    }
}

/// What the user is told follows from the looks.
struct Looked {
    timeline: Timeline,
    first_rss_bytes: Option<u64>,
    next_tick: Duration,
    next_minute: Duration,
    /// At the last minute's end.
    minute_rss_bytes: Option<u64>,
}

impl Looked {
    fn at_first(target: &Target, elapsed: Duration) -> Self {
        let status = target.status();
        let mut timeline = Timeline::new();
        timeline.add(elapsed, &status);
        Self {
            timeline,
            first_rss_bytes: status.rss_bytes,
            next_tick: PROGRESS_EVERY,
            next_minute: MINUTE,
            minute_rss_bytes: status.rss_bytes,
        }
    }

    fn look(&mut self, target: &Target, elapsed: Duration, tell: &mut dyn FnMut(Progress)) {
        let status = target.status();
        self.timeline.add(elapsed, &status);
        // Unknown once it has exited, which the next turn of the loop finds out.
        let Some(rss_bytes) = status.rss_bytes else { return };
        let since = |before: u64| rss_bytes.wrapping_sub(before).cast_signed();
        if let Some(growth_bytes) = self.first_rss_bytes.map(since).filter(|_| elapsed >= self.next_tick) {
            self.next_tick = elapsed + PROGRESS_EVERY;
            tell(Progress::Tick { elapsed, rss_bytes, growth_bytes });
        }
        if let Some(growth_bytes) = self.minute_rss_bytes.map(since).filter(|_| elapsed >= self.next_minute) {
            self.next_minute += MINUTE;
            self.minute_rss_bytes = Some(rss_bytes);
            tell(Progress::Minute {
                elapsed,
                rss_bytes,
                growth_bytes,
                trend: trend(self.timeline.moments()),
            });
        }
    }

    fn finish(mut self, target: &Target, end: End, lasted: Duration) -> Watch {
        self.timeline.close(lasted, &target.status());
        Watch { end, lasted, timeline: self.timeline.into_moments() }
    }
}

/// Which of the target's threads are Go's, as the probes know it.
pub struct Acquaintance<'a> {
    go: Option<&'a GoRuntime>,
    known: usize,
    renewed: Option<Instant>,
    pause: Duration,
}

impl<'a> Acquaintance<'a> {
    /// Of the runtime whose stacks the probes look for.
    pub fn new(go: Option<&'a GoRuntime>) -> Self {
        Self { go, known: 0, renewed: None, pause: DRAIN_EVERY }
    }

    /// Tells the probes which threads there are now. Strangers may be C's own threads, which stay that for ever: then it
    /// is tried less often.
    pub fn renew(&mut self, target: &Target, tracer: &mut Tracer) {
        if self.renewed.is_some_and(|renewed| renewed.elapsed() < self.pause) {
            return;
        }
        self.renewed = Some(Instant::now());
        let Some(Ok(threads)) = self.go.map(|go| go.threads(target)) else { return };
        let found_more = threads.len() > self.known;
        self.pause = if found_more { DRAIN_EVERY } else { (self.pause * 2).min(PROGRESS_EVERY) };
        self.known = threads.len();
        tracer.know_go_threads(threads.iter().map(|(tid, machine_addr)| (tid.unsigned_abs(), *machine_addr)));
    }
}

/// Waits for a descriptor of its own: a duplicate of `fd`.
fn readable(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = fd.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open, and the same file, for as long as it lives.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
