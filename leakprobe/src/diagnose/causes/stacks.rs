//! Stacks of threads: more threads, deep calls whose pages stay, or stacks of threads that are no more.

use super::{Confidence, Facts, Finding, is_percent_of, mib};
use crate::claim::Component;

/// Fewer threads more are a pool that warms up.
const MORE_MIN: i64 = 10;

/// glibc keeps up to 40 MiB of the address space of stacks (`stack_cache_maxsize`, nptl/nptl-stack.c).
const LEFT_BEHIND: &str = "Stacks of threads that exited, which libc keeps for new ones. No leak.";

pub(super) fn thread_stacks(facts: &Facts<'_>) -> Option<Finding> {
    let sum = facts.sum(|component| component == Component::ThreadStacks)?;
    if !facts.is_notable_growth(sum.growth_bytes) && !facts.is_much(sum.rss_bytes) {
        return None;
    }
    let more = facts.thread_growth.filter(|more| *more >= MORE_MIN);
    let mut evidence: Vec<String> = facts.growth_evidence(sum.growth_bytes).into_iter().collect();
    if let Some(threads) = facts.threads.filter(|threads| *threads > 0) {
        let each_kib = sum.rss_bytes.saturating_sub(facts.exited_stack_bytes) / threads / 1024;
        evidence.push(format!("{threads} threads, {each_kib} KiB of stack each on average"));
    }
    evidence.extend(more.map(|more| format!("{more} threads more than {} ago", facts.window())));
    let native = facts.native_threads.filter(|native| *native > 0);
    evidence.extend(native.map(|native| format!("{native} of them run no Go code")));
    let is_left_behind = is_percent_of(facts.exited_stack_bytes, sum.rss_bytes.max(1), 50);
    if is_left_behind {
        evidence.push(format!("{} MiB are of threads that exited", mib(facts.exited_stack_bytes)));
    }
    let (summary, confidence) = match more {
        _ if is_left_behind => (LEFT_BEHIND.to_owned(), Confidence::Certain),
        Some(more) if facts.is_go => (
            format!("Thread stacks: {more} threads more, for C or system calls that block."),
            Confidence::Likely,
        ),
        Some(more) => (format!("Thread stacks: {more} threads more, each with a stack."), Confidence::Likely),
        None if facts.is_go => (
            "Thread stacks: C runs on them, and what it once touched stays resident.".to_owned(),
            Confidence::Likely,
        ),
        None => (
            "Thread stacks: many threads, or deep calls whose pages are never given back.".to_owned(),
            Confidence::Possible,
        ),
    };
    Some(Finding {
        id: "thread-stacks".into(),
        owner: Component::ThreadStacks,
        bytes: sum.rss_bytes,
        growth: sum.growth_bytes,
        summary,
        confidence,
        evidence,
        remedy: match is_left_behind {
            true => "Leave it be, or keep threads in place of ending and starting them.",
            false if facts.is_go => {
                "Bound the number of concurrent calls into C and of blocking system calls, and keep large buffers \
                 off C's stacks."
            }
            false => "Bound the number of threads, and keep large buffers off their stacks.",
        }
        .to_owned(),
        references: if facts.is_go { vec!["golang/go#71150".into()] } else { Vec::new() },
    })
}
