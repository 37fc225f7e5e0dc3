//! leakprobe says who owns a process's resident memory, who makes it grow, and from where.
//!
//! One way for the data: [`target`] → [`snapshot`], [`runtimes`], [`trace`] → [`unwind`] →
//! [`attribute`] → [`symbolize`] → [`diagnose`] → [`report`]. Nothing imports to its right. `attribute`,
//! `diagnose` and `report` do no I/O. [`run`] is the order; ARCHITECTURE.md follows one command through.
//!
//! leakprobe is not suitable for finding which object a program forgot to free: it says whose memory
//! grows and which code touched it first, in bytes that are resident. Nor for watching many processes at
//! once, or for days: it looks once, for seconds.

pub mod account;
pub mod address;
pub mod attribute;
pub mod claim;
pub mod cli;
pub mod diagnose;
pub mod doctor;
mod host;
pub mod launch;
pub mod look;
pub mod report;
pub mod runtimes;
mod scene;
pub mod snapshot;
pub mod symbolize;
pub mod target;
pub mod trace;
pub mod unwind;
pub mod watch;
mod window;

use std::time::{Duration, SystemTime};

use anyhow::Result;

use self::claim::Gap;
use self::diagnose::trend::trend;
use self::launch::Launched;
use self::look::Look;
use self::report::{GoroutinesStarted, Report};
use self::symbolize::Symbolizer;
use self::target::Target;
use self::trace::Tracer;
use self::trace::backend::Backend;
use self::trace::rate::StackRate;
use self::watch::Progress;
use self::window::{Scenes, Window};

/// What to look at, and for how long.
#[derive(Clone, Debug)]
pub struct Request {
    /// The process.
    pub pid: i32,
    /// How long to watch; zero for a snapshot without probes.
    pub duration: Duration,
    /// Where to see system calls; `None` for the best place there is.
    pub backend: Option<Backend>,
    /// Which share of the events keeps its stack.
    pub stack_rate: StackRate,
    /// Let the kernel programs log.
    pub verbose: bool,
    /// What was typed, for the report.
    pub arguments: Vec<String>,
}

/// What a look yields.
pub struct Outcome {
    /// The report.
    pub report: Report,
    /// The probes, still attached: taking them down may take the kernel a second, in which nobody
    /// should wait for the report.
    pub probes: Option<Tracer>,
}

/// Looks at a process and reports. `launched` is the process where leakprobe has started it, and holds it; when this
/// returns it may be held at its end.
///
/// # Errors
/// [`target::TargetError`] or [`trace::AttachError`] somewhere in the chain where the process cannot be looked at
/// at all; whatever is merely missing from the answer is in the report.
pub async fn run(
    request: &Request,
    launched: Option<&mut Launched>,
    tell: &mut dyn FnMut(Progress),
) -> Result<Outcome> {
    let target = Target::open(request.pid)?;
    let started_at = SystemTime::now();
    let scenes = Scenes::of(&target);
    let window = if request.duration.is_zero() {
        Window::snapshot(&target, scenes.latest())?
    } else {
        Window::watch(request, &target, &scenes, launched, tell).await?
    };
    let scene = scenes.latest();
    let Window { start, end, .. } = &window;
    let start = start.as_ref();
    let mut gaps: Vec<Gap> = scene.gaps.iter().cloned().chain(window.gaps()).collect();

    let recording = start.map(|_| &window.recording);
    let account = account::draw_up(start, end, recording, &scene.code_roles(), &scene.modules);
    let mut symbolizer = Symbolizer::new(&scene.modules, scene.runtimes.go_code());
    let call_sites = account.named_sites(&window.recording, &mut symbolizer);
    let call_sites = account::held::with_allocations(call_sites, start, end, &mut symbolizer);
    let heap_profile = account::held::heap_profile(start, end, &mut symbolizer);
    let goroutines = match window.ended_early {
        true => Vec::new(),
        false => scene.goroutines(&target, &account.goroutine_stacks, &mut gaps),
    };
    let call_sites = account::goroutines::with_stacks(call_sites, &goroutines, &mut symbolizer);
    let mut report = host::report(request, &target, &scene.runtimes, &account, end);
    if !goroutines.is_empty() {
        let before = Some(&window.start_goroutines[..]).filter(|before| before.len() == goroutines.len());
        let is_watched = start.is_some();
        report.goroutines = account::goroutines::named(before, &goroutines, is_watched, &mut symbolizer);
        report.goroutine_totals = Some(account::goroutines::totals(before, &goroutines));
    }
    report.window = report::Window { started_at: account::rfc3339(started_at), seconds: window.seconds };
    report.host.backend = window.probes.as_ref().map_or("none", |probes| probes.backend().word()).into();
    report.growth = trend(&window.timeline);
    report.target.runtime.goroutines_started = goroutines_started(start, end);
    report.target.threads_growth = threads_growth(start, end);
    report.timeline = window.timeline;
    report.target.ended = window.end_word.map(Into::into);
    report.tracing = window.tracing;
    report.call_sites = call_sites;
    report.heap_profile = heap_profile;
    report.gaps = gaps;
    report.tracing.own_peak_rss = host::own_peak_rss_bytes();
    report.findings = diagnose::diagnose(&report.facts());
    Ok(Outcome { report, probes: window.probes })
}

/// As the race detector counts them, between two looks.
fn goroutines_started(start: Option<&Look>, end: &Look) -> Option<GoroutinesStarted> {
    let ever = end.race_counts?.goroutines_started;
    let before = start?.race_counts?.goroutines_started;
    Some(GoroutinesStarted { in_window: ever.saturating_sub(before), ever })
}

fn threads_growth(start: Option<&Look>, end: &Look) -> Option<i64> {
    let [before, now] = [start?, end].map(|look| look.snapshot.status.threads);
    now?.checked_signed_diff(before?)
}
