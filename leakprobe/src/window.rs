//! The window: a look, the watch, another look.
//!
//! The surprise is a program that leakprobe has started: what runs in it shows only when it runs. Its libraries are
//! looked for again, and where it is Go's, its runtime is awaited, and probes that know it take over from the first
//! ones.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::timeout;

use crate::Request;
use crate::attribute::last_known;
use crate::claim::Gap;
use crate::diagnose::trend::Moment;
use crate::host;
use crate::launch::Launched;
use crate::look::{Look, look};
use crate::runtimes::go::goroutines::{Goroutines, StackPages};
use crate::scene::Scene;
use crate::target::{Target, TargetError};
use crate::trace::recording::Recording;
use crate::trace::{Tracer, Tracing};
use crate::watch::{self, Acquaintance, End, Progress, Session, Watch};

/// How often the runtime of a Go program that has just been started is looked for, and for how long.
const GO_EVERY: Duration = Duration::from_millis(20);
const GO_WITHIN: Duration = Duration::from_secs(5);

/// What runs in the target: when it was found, and, where it has just been started, when that had settled and at the
/// window's end. They outlive the window, since much borrows from them.
pub struct Scenes {
    first: Scene,
    settled: OnceCell<Scene>,
    last: OnceCell<Scene>,
}

impl Scenes {
    /// As it is now.
    pub fn of(target: &Target) -> Self {
        Self { first: Scene::now(target), settled: OnceCell::new(), last: OnceCell::new() }
    }

    /// The last one in which there was anything.
    pub fn latest(&self) -> &Scene {
        let last = self.last.get().filter(|scene| !scene.modules.is_empty());
        last.or(self.settled.get()).unwrap_or(&self.first)
    }
}

/// What the window yielded.
pub struct Window {
    /// The first look; `None` for a snapshot.
    pub start: Option<Look>,
    /// What goroutines did then, of the runtimes whose could be read; empty for a snapshot.
    pub start_goroutines: Vec<Goroutines>,
    /// The last one, or the only one.
    pub end: Look,
    /// The process was gone before its memory could be read again.
    pub ended_early: bool,
    /// How it ended, as in the report.
    pub end_word: Option<&'static str>,
    /// How long it lasted.
    pub seconds: f64,
    /// The looks at the counters.
    pub timeline: Vec<Moment>,
    /// What the probes saw.
    pub recording: Recording,
    /// And what they lost.
    pub tracing: Tracing,
    /// The probes.
    pub probes: Option<Tracer>,
}

impl Window {
    /// A single look.
    ///
    /// # Errors
    /// Where the process cannot be looked at, or has gone.
    pub fn snapshot(target: &Target, scene: &Scene) -> Result<Self> {
        Ok(Self {
            start: None,
            start_goroutines: Vec::new(),
            end: see(target, scene)?,
            ended_early: false,
            end_word: None,
            seconds: 0.0,
            timeline: Vec::new(),
            recording: Recording::default(),
            tracing: Tracing::default(),
            probes: None,
        })
    }

    /// Probes first, then the snapshot that growth counts from: what is touched in between is in it. At the
    /// end the snapshot first, then the last events: what it counts was recorded.
    ///
    /// # Errors
    /// Where nothing can be watched, or the process has gone before the first look.
    pub async fn watch(
        request: &Request,
        target: &Target,
        scenes: &Scenes,
        mut launched: Option<&mut Launched>,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let first = &scenes.first;
        let mut unwinder = first.unwinder(target);
        if launched.is_some() {
            unwinder.expect_latecomers(target);
        }
        let mut session = Session {
            target,
            tracer: attach(request, target, first)?,
            recording: Recording::new(host::monotonic_ns(), host::brk_addr(&target.regions())),
            unwinder,
            acquaintance: Acquaintance::new(first.runtimes.go.first()),
        };
        session.acquaintance.renew(target, &mut session.tracer);
        let (start, start_goroutines) = session.meanwhile(|| {
            // What they do is read after what they hold, here as at the end; and what is missing is said there.
            (see(target, first), first.goroutines(target, &StackPages::default(), &mut Vec::new()))
        });
        let start = start?;
        let started = Instant::now();
        if let Some(launched) = launched.as_deref_mut() {
            launched.resume();
            if first.awaits_go() {
                meet_go(request, &mut session, scenes, launched).await?;
            }
        }
        let is_launched = launched.is_some();
        let Watch { end: ended, lasted, timeline } =
            watch::watch(&mut session, started, request.duration, launched, tell).await?;
        let end = session.meanwhile(|| {
            if is_launched && ended != End::Exec {
                scenes.last.get_or_init(|| Scene::now(target));
            }
            let scene = scenes.latest();
            if ended == End::Exec { Ok(None) } else { look(target, &scene.modules, &scene.runtimes) }
        })?;
        session.drain();
        let Session { tracer, recording, .. } = session;
        let ended = if recording.exec_seen() { End::Exec } else { ended };
        let end = end.filter(|_| ended != End::Exec);
        let ended_early = end.is_none();
        let end = end.unwrap_or_else(|| Look {
            snapshot: last_known::snapshot(&start.snapshot, &recording),
            claims: start.claims.clone(),
            in_memory: start.in_memory.clone(),
            allocator: start.allocator.clone(),
            ..Look::default()
        });
        let end_word = if ended_early && ended != End::Exec { End::Exited.word() } else { ended.word() };
        Ok(Self {
            tracing: tracer.summary(&recording)?,
            probes: Some(tracer),
            start: Some(start),
            start_goroutines,
            end,
            ended_early,
            end_word,
            seconds: lasted.as_secs_f64(),
            timeline,
            recording,
        })
    }

    /// What could not be read.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + '_ {
        self.end.gaps.iter().cloned().chain(self.ended_early.then(last_known::gap))
    }
}

/// Waits until a Go program's runtime has come up, which takes some milliseconds, and lets probes that know it take
/// over. Where it does not, the first ones go on: what they see is the same, only stacks end earlier.
async fn meet_go<'a>(
    request: &Request,
    session: &mut Session<'a>,
    scenes: &'a Scenes,
    launched: &mut Launched,
) -> Result<()> {
    let target = session.target;
    let began = Instant::now();
    while began.elapsed() < GO_WITHIN {
        if timeout(GO_EVERY, launched.stopped()).await.is_ok() {
            return Ok(());
        }
        let scene = session.meanwhile(|| Scene::now(target));
        if scene.awaits_go() {
            continue;
        }
        let scene = scenes.settled.get_or_init(|| scene);
        session.unwinder = scene.unwinder(target);
        session.unwinder.expect_latecomers(target);
        let tracer = session.meanwhile(|| attach(request, target, scene))?;
        let first = session.hand_over(tracer)?;
        // Taking them down may take a second.
        session.meanwhile(|| drop(first));
        session.acquaintance = Acquaintance::new(scene.runtimes.go.first());
        session.acquaintance.renew(target, &mut session.tracer);
        return Ok(());
    }
    Ok(())
}

fn attach(request: &Request, target: &Target, scene: &Scene) -> Result<Tracer> {
    Ok(Tracer::attach(&scene.watched(target)?, request.backend, request.stack_rate, request.verbose)?)
}

fn see(target: &Target, scene: &Scene) -> Result<Look> {
    let looked = look(target, &scene.modules, &scene.runtimes)?;
    looked.ok_or_else(|| TargetError::Exited { pid: target.pid() }.into())
}
