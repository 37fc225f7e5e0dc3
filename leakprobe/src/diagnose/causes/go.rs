//! The Go heap: objects that stay, pages that are kept, and memory that only looks resident.

use super::{Confidence, Facts, Finding, GROWTH_MIN_BYTES, Growth, HOLDS_MUCH_MIN_BYTES, is_percent_of, mib};
use crate::claim::Component;
use crate::diagnose::facts::Holding;
use crate::runtimes::go::Collector;

/// Freed lazily, this share of the RSS makes the RSS itself misleading.
const LAZY_FREE_MIN_PERCENT: u64 = 10;

/// The collector takes a smaller heap for one of this size (Go `src/runtime/mgcpacer.go`, `defaultHeapMinimum`).
const HEAP_MIN_BYTES: u64 = 4 << 20;

/// Objects do not fill their spans: in use is more than what is allocated, by one part in so many.
const SPAN_ROOM_PARTS: u128 = 4;

/// GOGC where nobody set it (Go `src/runtime/mgcpacer.go`, `readGOGC`).
const USUAL_GC_PERCENT: u32 = 100;

/// Objects that take the place of idle pages are no growth of the process.
pub(super) fn heap_growth(facts: &Facts<'_>) -> Option<Finding> {
    let is_heap = |owner| matches!(owner, Component::GoHeapInUse | Component::GoHeapIdle);
    let heap_growth_bytes = facts.sum(is_heap)?.growth_bytes;
    if heap_growth_bytes.is_none_or(|bytes| bytes < GROWTH_MIN_BYTES as i64) {
        return None;
    }
    // Less than half of what more is in use: the rest is garbage, and the profile is of samples.
    let grown_bytes = facts.gained_bytes(Component::GoHeapInUse).unsigned_abs();
    let gained = facts.live_growth_bytes.filter(|bytes| bytes.saturating_mul(2) >= grown_bytes);
    if gained.is_none() && is_within_room(facts) {
        return None;
    }
    let rule = match gained {
        None => Growth {
            id: "go-heap-growth",
            summary: "The Go heap grows; a leak and garbage awaiting collection look alike so far.",
            confidence: Confidence::Possible,
            remedy: "Watch longer than a few collections. If it goes on, compare two heap profiles (go tool pprof \
                     -diff_base); if they stay small, look for pools, goroutines and a high GOGC.",
            references: &[],
        },
        Some(_) => Growth {
            id: "go-heap-growth",
            summary: "The Go heap grows by objects that outlive collections: a leak, or a cache.",
            confidence: Confidence::Likely,
            remedy: "Look at the call sites above: who keeps what they allocate, and should it be kept? A cache \
                     needs a bound.",
            references: &[],
        },
    };
    let mut finding = rule.of(facts, Component::GoHeapInUse)?;
    finding.evidence.extend(
        gained.map(|bytes| format!("its heap profile gained {} MiB between two collections", mib(bytes))),
    );
    finding.evidence.extend(facts.collector.filter(|it| gained.is_none() && !is_usual(*it)).map(settings));
    Some(finding)
}

/// Whether the heap in use is no more than its collector lets it become before it runs: then all that grew may be
/// garbage. Unknown is no.
fn is_within_room(facts: &Facts<'_>) -> bool {
    let in_use_bytes = facts.row(Component::GoHeapInUse).map_or(0, |row| row.rss_bytes);
    let percent = facts.collector.and_then(|collector| collector.gc_percent);
    facts.live_bytes.zip(percent).is_some_and(|(live_bytes, percent)| {
        let goal_bytes =
            u128::from(live_bytes.max(HEAP_MIN_BYTES)) * u128::from(percent.saturating_add(100)) / 100;
        u128::from(in_use_bytes) <= goal_bytes + goal_bytes / SPAN_ROOM_PARTS
    })
}

pub(super) fn heap_idle(facts: &Facts<'_>) -> Option<Finding> {
    let idle = facts.row(Component::GoHeapIdle)?;
    if !facts.is_much(idle.rss_bytes) {
        return None;
    }
    let mut evidence =
        vec![format!("{} MiB of resident pages in no span of the Go heap", mib(idle.rss_bytes))];
    evidence.extend(facts.collector.map(settings));
    let part = |bytes: Option<u64>, what: &str| {
        let bytes = bytes.filter(|bytes| mib(*bytes) > 0)?;
        Some(format!("{} MiB of it {what}", mib(bytes)))
    };
    evidence.extend(part(
        idle.lazy_free_bytes,
        "were freed by the scavenger, and are there until the kernel needs them",
    ));
    evidence.extend(part(idle.huge_bytes, "lie in huge pages"));
    Some(Finding {
        id: "go-heap-idle".into(),
        owner: Component::GoHeapIdle,
        bytes: idle.rss_bytes,
        growth: idle.growth_bytes,
        summary: "Much of it is Go heap that was freed and not yet returned: no leak.".to_owned(),
        confidence: Confidence::Certain,
        evidence,
        remedy: how_to_return(facts.collector).to_owned(),
        references: vec!["golang/go#41818".into()],
    })
}

/// The scavenger returns what lies above a tenth more than the last collection's goal, or above the limit; slowly,
/// with a hundredth of a processor's time (Go `src/runtime/mgcscavenge.go`).
fn how_to_return(collector: Option<Collector>) -> &'static str {
    match collector {
        Some(Collector { gc_percent: None, memory_limit: None }) => {
            "Leave it be if the load comes back: the next garbage fills it. Else switch the collector on again \
             (GOGC is off), or set GOMEMLIMIT."
        }
        Some(Collector { memory_limit: Some(_), .. }) => {
            "Leave it be if the load comes back: the next garbage fills it. Else lower GOMEMLIMIT, which the heap is \
             still below, or call debug.FreeOSMemory after the peak."
        }
        Some(Collector { gc_percent: Some(percent), .. }) if percent > USUAL_GC_PERCENT => {
            "Leave it be if the load comes back: the next garbage fills it. Else lower GOGC, which lets the heap grow \
             that far between two collections, or set GOMEMLIMIT."
        }
        _ => {
            "Leave it be if the load comes back: the next garbage fills it. Else set GOMEMLIMIT, lower \
             GOGC, or call debug.FreeOSMemory after the peak."
        }
    }
}

fn is_usual(collector: Collector) -> bool {
    collector.memory_limit.is_none() && collector.gc_percent == Some(USUAL_GC_PERCENT)
}

/// "GOGC=100, no GOMEMLIMIT".
fn settings(collector: Collector) -> String {
    let percent = collector.gc_percent.map_or_else(|| "off".to_owned(), |percent| percent.to_string());
    match collector.memory_limit {
        Some(bytes) => format!("GOGC={percent}, GOMEMLIMIT={} MiB", mib(bytes)),
        None => format!("GOGC={percent}, no GOMEMLIMIT"),
    }
}

/// Any allocator may free lazily; Go did so by itself from 1.12 to 1.15.
pub(super) fn madv_free(facts: &Facts<'_>) -> Option<Finding> {
    let lazy_free = |holding: &Holding<'_>| holding.lazy_free_bytes.unwrap_or(0);
    let bytes = facts.holdings.iter().map(lazy_free).sum();
    if bytes < HOLDS_MUCH_MIN_BYTES || !is_percent_of(bytes, facts.rss_bytes, LAZY_FREE_MIN_PERCENT) {
        return None;
    }
    Some(Finding {
        id: "madv-free".into(),
        owner: facts.holdings.iter().max_by_key(|holding| lazy_free(holding))?.component,
        bytes,
        growth: None,
        summary: "Part of it is freed already (MADV_FREE): the kernel takes it when it needs it.".to_owned(),
        confidence: Confidence::Certain,
        evidence: vec![format!("smaps counts {} MiB as LazyFree", mib(bytes))],
        remedy: if facts.is_go {
            "Leave it be; to see it in the RSS, GODEBUG=madvdontneed=1, the default from Go 1.16 on."
        } else {
            "Leave it be; to see it in the RSS, have the allocator use MADV_DONTNEED."
        }
        .to_owned(),
        references: if facts.is_go { vec!["golang/go#42330".into()] } else { Vec::new() },
    })
}
