//! Go's race detector in production, and which of its known leaks this is.
//!
//! Told apart by what grows, and by the goroutines: its own allocations by so much for each goroutine that was started
//! (golang/go#63276, golang/go#37233), by far more for each that is alive, or without either (golang/go#26813); or the
//! shadow, which only follows the memory that it watches.

use super::{
    Confidence, Facts, Finding, GROWTH_MIN_BYTES, GoroutinesStarted, bytes_under, grouped, sites_of,
};
use crate::claim::Component;
use crate::diagnose::facts::Sum;

/// Fewer goroutines started say nothing of what each costs.
const STARTED_MIN: u64 = 1000;
/// `__tsan::ThreadContext`, which every goroutine leaves for good.
const CONTEXT_BYTES: u64 = 240;
const MAX_STARTED_COST_BYTES: u64 = 1500;
/// Fewer goroutines more say nothing of what each holds.
const ALIVE_MIN: u64 = 100;
/// One that is alive holds a piece of trace (`TracePart`, 128 KiB, LLVM `tsan_trace.h`), resident as far as it was
/// filled, and the shadow of its stack: 17 KiB were measured of those that only wait (Go 1.27).
const ALIVE_COST_BYTES: std::ops::RangeInclusive<u64> = (4 << 10)..=(1 << 20);

const REMEDY: &str = "Run a build without -race; the race detector cannot give this memory back. Until then \
                      restart it in time and start fewer goroutines (keep-alives, worker pools).";

/// What of the race detector grows.
enum Leak {
    /// What every goroutine leaves behind: its thread registry reuses a context only beyond a quarantine of 2^32-1,
    /// which is never. The revision that Go 1.27 carries:
    /// <https://github.com/llvm/llvm-project/blob/51bfeff0e4b0/compiler-rt/lib/sanitizer_common/sanitizer_thread_registry.cpp>
    Started { cost_bytes: u64, started: GoroutinesStarted },
    /// What every goroutine holds while it lives.
    Alive { cost_bytes: u64, more: u64 },
    /// Traces, clocks, what it knows of locks and atomics.
    Inside,
    /// The shadow and the metadata of the memory it watches.
    Shadow,
}

impl Leak {
    /// Of these, the one that explains the growth; none where little grows.
    fn of(facts: &Facts<'_>, sum: &Sum) -> Option<Self> {
        if !facts.is_notable_growth(sum.growth_bytes) {
            return None;
        }
        let per = |count: u64| Some(u64::try_from(sum.growth_bytes?).ok()? / count);
        if let Some(started) = facts.goroutines.filter(|started| started.in_window >= STARTED_MIN) {
            // Measured between 300 and 400 bytes with Go 1.21, 1.23 and 1.27: the context, and a piece of trace.
            let cost_bytes = per(started.in_window)?;
            if (CONTEXT_BYTES..=MAX_STARTED_COST_BYTES).contains(&cost_bytes) {
                return Some(Self::Started { cost_bytes, started });
            }
        }
        let more = facts.goroutine_growth.and_then(|more| u64::try_from(more).ok()).unwrap_or(0);
        if more >= ALIVE_MIN && !follows_heap(facts, sum) {
            let cost_bytes = per(more)?;
            if ALIVE_COST_BYTES.contains(&cost_bytes) {
                return Some(Self::Alive { cost_bytes, more });
            }
        }
        let inside_bytes = facts.gained_bytes(Component::TsanRuntime);
        Some(if inside_bytes < sum.growth_bytes? / 2 { Self::Shadow } else { Self::Inside })
    }

    fn summary(&self) -> String {
        match self {
            Self::Started { cost_bytes, .. } => {
                format!(
                    "It was built with -race: every goroutine ever started leaves ~{cost_bytes} B behind."
                )
            }
            Self::Alive { cost_bytes, .. } => {
                let kib = cost_bytes >> 10;
                format!("It was built with -race: each goroutine alive costs it ~{kib} KiB.")
            }
            Self::Inside => "It was built with -race: the race detector's traces and clocks grow.".to_owned(),
            Self::Shadow => {
                "It was built with -race: its shadow grows with the memory that it watches.".to_owned()
            }
        }
    }

    fn evidence(&self, facts: &Facts<'_>) -> String {
        let window = facts.window();
        match self {
            Self::Started { started, .. } => format!(
                "{} goroutines started in {window}, {} ever, each with a context that is never freed",
                grouped(started.in_window),
                grouped(started.ever)
            ),
            Self::Alive { more, .. } => format!("{} goroutines more than {window} ago", grouped(*more)),
            Self::Inside => "its own allocations grow, and too fast for the goroutines started".to_owned(),
            Self::Shadow => "shadow and meta grow more than its own allocations".to_owned(),
        }
    }

    const fn confidence(&self) -> Confidence {
        match self {
            Self::Started { .. } => Confidence::Certain,
            Self::Alive { .. } | Self::Shadow => Confidence::Likely,
            Self::Inside => Confidence::Possible,
        }
    }

    const fn references(&self) -> &'static [&'static str] {
        match self {
            Self::Started { .. } => &["golang/go#63276", "golang/go#37233"],
            Self::Inside => &["golang/go#26813", "golang/go#37233"],
            Self::Alive { .. } | Self::Shadow => &["go.dev/doc/articles/race_detector"],
        }
    }
}

/// Whether the Go heap grows by so much that its shadow, twice as long, makes a good part of the growth.
fn follows_heap(facts: &Facts<'_>, sum: &Sum) -> bool {
    let heap_bytes = facts.gained_bytes(Component::GoHeapInUse);
    heap_bytes >= GROWTH_MIN_BYTES as i64 && heap_bytes.saturating_mul(4) >= sum.growth_bytes.unwrap_or(0)
}

pub(super) fn detector(facts: &Facts<'_>) -> Option<Finding> {
    let sum = facts.sum(Component::is_tsan).filter(|_| facts.is_go)?;
    let leak = Leak::of(facts, &sum);
    if leak.is_none() && !facts.is_much(sum.rss_bytes) {
        return None;
    }
    let built = match facts.race {
        Some(true) => "the build information says -race",
        _ => "it has TSan's memory regions",
    };
    let mut evidence = vec![built.to_owned()];
    evidence.extend(facts.growth_evidence(sum.growth_bytes));
    evidence.extend(leak.as_ref().map(|leak| leak.evidence(facts)));
    let seen = sites_of(facts, Component::is_tsan);
    let under_go = bytes_under(facts, Component::is_tsan, "runtime.newproc");
    if under_go > 0 {
        let percent = under_go as f64 / seen as f64 * 100.0;
        evidence.push(format!("{percent:.0} % of the detector's new memory was touched under go statements"));
    }
    // Then the heap is why: the shadow is what it costs, and comes after it.
    let follows_heap = follows_heap(facts, &sum) && matches!(leak, Some(Leak::Shadow));
    let held = "It was built with -race: the race detector keeps most of what it once took.";
    let references = leak.as_ref().map_or(&["golang/go#63276", "golang/go#37233"][..], Leak::references);
    Some(Finding {
        id: "go-race-detector".into(),
        owner: sum.largest,
        bytes: sum.rss_bytes,
        growth: match follows_heap {
            true => Some(facts.gained_bytes(Component::TsanRuntime)),
            false => sum.growth_bytes,
        },
        summary: leak.as_ref().map_or_else(|| held.to_owned(), Leak::summary),
        confidence: leak.as_ref().map_or(Confidence::Certain, Leak::confidence),
        evidence,
        remedy: match leak {
            Some(Leak::Shadow) => {
                "Run a build without -race. The shadow is no leak of its own: see who makes the Go heap grow."
            }
            _ => REMEDY,
        }
        .to_owned(),
        references: references.iter().map(|&name| name.into()).collect(),
    })
}
