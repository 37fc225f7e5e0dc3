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
pub mod look;
pub mod report;
pub mod runtimes;
pub mod snapshot;
pub mod symbolize;
pub mod target;
pub mod trace;
pub mod unwind;
pub mod watch;

use std::time::{Duration, SystemTime};

use anyhow::Result;

use self::address::AddrRange;
use self::attribute::last_known;
use self::claim::Gap;
use self::diagnose::trend::{Moment, trend};
use self::look::{Look, look};
use self::report::{GoroutinesStarted, Report};
use self::runtimes::Runtimes;
use self::runtimes::go::GoRuntime;
use self::runtimes::go::goroutines::{Goroutines, StackPages};
use self::symbolize::Symbolizer;
use self::target::{Target, TargetError, modules};
use self::trace::backend::Backend;
use self::trace::rate::StackRate;
use self::trace::recording::Recording;
use self::trace::{Tracer, Tracing, Watched};
use self::unwind::Unwinder;
use self::watch::{Acquaintance, End, Progress, Watch};

/// Go's arenas follow each other; no window is long enough for the heap to grow by more.
const HEAP_ROOM_BYTES: u64 = 1 << 40;

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

/// Looks at a process and reports.
///
/// # Errors
/// [`TargetError`] or [`trace::AttachError`] somewhere in the chain where the process cannot be looked at
/// at all; whatever is merely missing from the answer is in the report.
pub async fn run(request: &Request, tell: &mut dyn FnMut(Progress)) -> Result<Outcome> {
    let target = Target::open(request.pid)?;
    let started_at = SystemTime::now();
    let regions = target.regions();
    let (modules, mut gaps) = modules::open_all(&target, &regions);
    let (runtimes, unread) = Runtimes::find(&target, &modules);
    gaps.extend(unread);
    let go = runtimes.go_code();
    let race_text = runtimes.race_text(&modules);
    let roles = runtimes.code_roles(&modules, &race_text);

    let window = if request.duration.is_zero() {
        Window::none(see(&target, &modules, &runtimes)?)
    } else {
        let mut unwinder = Unwinder::new(&modules, &regions, go.clone());
        let watched = watched(&target, &runtimes, &race_text)?;
        watch_window(request, &target, &watched, &modules, &runtimes, &mut unwinder, tell).await?
    };
    let end = window.end.as_ref().unwrap_or(&window.start);
    gaps.extend(end.gaps.iter().cloned());
    gaps.extend(window.ended_early.then(last_known::gap));

    let start = window.watched.then_some(&window.start);
    let recording = window.watched.then_some(&window.recording);
    let account = account::draw_up(start, end, recording, &roles, &modules);
    let mut symbolizer = Symbolizer::new(&modules, go);
    let call_sites = account.named_sites(&window.recording, &mut symbolizer);
    let call_sites = account::held::with_allocations(call_sites, start, end, &mut symbolizer);
    let heap_profile = account::held::heap_profile(start, end, &mut symbolizer);
    let goroutines =
        read_goroutines(&target, &runtimes, window.ended_early, &account.goroutine_stacks, &mut gaps);
    let call_sites = account::goroutines::with_stacks(call_sites, &goroutines, &mut symbolizer);
    let mut report = host::report(request, &target, &runtimes, &account, end);
    if !goroutines.is_empty() {
        report.goroutines = account::goroutines::named(&goroutines, start.is_some(), &mut symbolizer);
        report.goroutine_totals = Some(account::goroutines::totals(&goroutines));
    }
    report.window = report::Window { started_at: account::rfc3339(started_at), seconds: window.seconds };
    report.host.backend = window.probes.as_ref().map_or("none", |probes| probes.backend().word()).into();
    report.growth = trend(&window.timeline);
    report.timeline = window.timeline;
    report.target.ended = window.end_word.map(Into::into);
    report.target.runtime.goroutines_started = goroutines_started(start, end);
    report.tracing = window.tracing;
    report.call_sites = call_sites;
    report.heap_profile = heap_profile;
    report.gaps = gaps;
    report.tracing.own_peak_rss = host::own_peak_rss_bytes();
    report.findings = diagnose::diagnose(&report.facts());
    Ok(Outcome { report, probes: window.probes })
}

/// What the window yielded.
struct Window {
    start: Look,
    /// `None` for a snapshot.
    end: Option<Look>,
    watched: bool,
    /// The process was gone before its memory could be read again.
    ended_early: bool,
    end_word: Option<&'static str>,
    seconds: f64,
    timeline: Vec<Moment>,
    recording: Recording,
    tracing: Tracing,
    probes: Option<Tracer>,
}

impl Window {
    fn none(start: Look) -> Self {
        Self {
            start,
            end: None,
            watched: false,
            ended_early: false,
            end_word: None,
            seconds: 0.0,
            timeline: Vec::new(),
            recording: Recording::default(),
            tracing: Tracing::default(),
            probes: None,
        }
    }
}

/// Probes first, then the snapshot that growth counts from: what is touched in between is in it. At the
/// end the snapshot first, then the last events: what it counts was recorded.
async fn watch_window(
    request: &Request,
    target: &Target,
    watched: &Watched,
    modules: &[modules::Module],
    runtimes: &Runtimes,
    unwinder: &mut Unwinder<'_>,
    tell: &mut dyn FnMut(Progress),
) -> Result<Window> {
    let mut recording = Recording::new(host::monotonic_ns(), host::brk_addr(&target.regions()));
    let mut tracer = Tracer::attach(watched, request.backend, request.stack_rate, request.verbose)?;
    let mut acquaintance = Acquaintance::new(runtimes.go.first());
    acquaintance.renew(target, &mut tracer);
    let start = watch::meanwhile(&mut tracer, &mut recording, unwinder, || see(target, modules, runtimes))?;
    let Watch { end: ended, lasted, timeline } = watch::watch(
        target,
        &mut tracer,
        &mut recording,
        unwinder,
        &mut acquaintance,
        request.duration,
        tell,
    )
    .await?;
    let end = match ended {
        End::Exec => None,
        _ => watch::meanwhile(&mut tracer, &mut recording, unwinder, || look(target, modules, runtimes))?,
    };
    tracer.drain(&mut recording, |stack| unwinder.unwind(stack));
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
    Ok(Window {
        tracing: tracer.summary(&recording)?,
        probes: Some(tracer),
        start,
        end: Some(end),
        watched: true,
        ended_early,
        end_word,
        seconds: lasted.as_secs_f64(),
        timeline,
        recording,
    })
}

fn see(target: &Target, modules: &[modules::Module], runtimes: &Runtimes) -> Result<Look> {
    look(target, modules, runtimes)?.ok_or_else(|| TargetError::Exited { pid: target.pid() }.into())
}

fn watched(target: &Target, runtimes: &Runtimes, race_text: &[AddrRange]) -> Result<Watched> {
    let hull = race_text.first().zip(race_text.last());
    // The kernel side knows one: the executable's, or else the first library's.
    let go = runtimes.go.first();
    Ok(Watched {
        process: target.namespaced_pid()?,
        go_text: go.and_then(|go| go.text_range()),
        race_text: hull.and_then(|(first, last)| AddrRange::new(first.start_addr, last.end_addr)),
        race_calls: go.and_then(|go| go.race_call_range()),
        go_fields: go.and_then(GoRuntime::thread_fields),
        go_heap: go.and_then(|go| stack_range(&go.heap_ranges(target).ok()?)),
    })
}

/// What the goroutines of each Go runtime do now, whose stacks lie on `stack_pages`. What cannot be read is a gap.
fn read_goroutines(
    target: &Target,
    runtimes: &Runtimes,
    is_gone: bool,
    stack_pages: &StackPages,
    gaps: &mut Vec<Gap>,
) -> Vec<Goroutines> {
    let mut all = Vec::new();
    for go in runtimes.go.iter().filter(|_| !is_gone) {
        match go.goroutines(target, &runtimes.plugins, stack_pages, host::monotonic_ns()) {
            Ok(found) => {
                gaps.extend(found.gaps());
                all.push(found);
            }
            Err(error) => {
                gaps.push(Gap { what: "goroutines".to_owned(), why: format!("{error:#}"), bytes: None });
            }
        }
    }
    all
}

/// As the race detector counts them, between two looks.
fn goroutines_started(start: Option<&Look>, end: &Look) -> Option<GoroutinesStarted> {
    let ever = end.race_counts?.goroutines_started;
    let before = start?.race_counts?.goroutines_started;
    Some(GoroutinesStarted { in_window: ever.saturating_sub(before), ever })
}

/// Where goroutine stacks may lie: from the heap's first arena to well beyond its last, since it grows.
fn stack_range(heap: &[AddrRange]) -> Option<AddrRange> {
    AddrRange::new(heap.first()?.start_addr, heap.last()?.end_addr.checked_add(HEAP_ROOM_BYTES)?)
}
