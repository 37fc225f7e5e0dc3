//! Goroutines with names: the groups of the report, and whose stacks the goroutine stacks' new pages are.
//!
//! The surprise: they are read after the window's end, and run on meanwhile. A stack that moved since lies on no page
//! that was new, and its bytes are nobody's.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use super::sites::{Retold, retold};
use crate::claim::Component;
use crate::report::{CallSite, Frame, GOROUTINES, GoroutineGroup, GoroutineTotals};
use crate::runtimes::go::goroutines::{Goroutines, Group};
use crate::symbolize::Symbolizer;

/// Groups in the report.
const MAX_GROUPS: usize = 200;
/// The note of stacks' growth that no goroutine of the program has now.
const NO_GOROUTINES: &str = "stacks of goroutines that ended, kept for new ones, or of the runtime's own";

/// The groups of most goroutines, with names; of all runtimes together. `before` are those of the same runtimes at the
/// window's start; `is_watched` where there was a window.
pub fn named(
    before: Option<&[Goroutines]>,
    found: &[Goroutines],
    is_watched: bool,
    symbolizer: &mut Symbolizer<'_>,
) -> Vec<GoroutineGroup> {
    let counts_before: Option<HashMap<_, u64>> =
        before.map(|before| numbered(before).map(|(number, _, it)| ((number, it.key()), it.count)).collect());
    let mut groups: Vec<_> = numbered(found).collect();
    groups.sort_by_key(|(_, _, group)| Reverse(group.count));
    let named = groups.into_iter().take(MAX_GROUPS).map(|(number, runtime, group)| GoroutineGroup {
        count: group.count,
        growth: counts_before.as_ref().map(|counts| {
            super::signed(group.count, counts.get(&(number, group.key())).copied().unwrap_or(0))
        }),
        state: group.state.word().into(),
        wait_reason: group.reason.and_then(|reason| runtime.reasons.get(&reason).cloned()),
        waiting_seconds: group.longest_wait_ns.map(|ns| Duration::from_nanos(ns).as_secs_f64()),
        stack_bytes: group.stack_bytes,
        stack_rss: group.resident_bytes,
        stack_growth: is_watched.then_some(group.gained_bytes),
        frames: symbolizer.frames(group.code_addrs.iter().copied()),
        created_by: creator(group, symbolizer),
    });
    named.collect()
}

/// All groups, each with its runtime and the number of that.
fn numbered(found: &[Goroutines]) -> impl Iterator<Item = (usize, &Goroutines, &Group)> {
    let runtimes = found.iter().enumerate();
    runtimes.flat_map(|(number, it)| it.groups.iter().map(move |group| (number, it, group)))
}

/// All of them together, and how many more than `before`.
pub fn totals(before: Option<&[Goroutines]>, found: &[Goroutines]) -> GoroutineTotals {
    let sum = |field: fn(&Goroutines) -> u64| found.iter().map(field).sum();
    let count = sum(|it| it.count);
    GoroutineTotals {
        count,
        growth: before.map(|before| super::signed(count, before.iter().map(|it| it.count).sum())),
        stack_bytes: sum(|it| it.stack_bytes),
        system: sum(|it| it.system),
        dead: sum(|it| it.dead),
    }
}

/// The call sites, those of goroutine stacks by what the goroutines do where that tells at least half of them.
/// Who touched a stack first is the runtime, for whichever goroutine had it first.
pub fn with_stacks(
    faults: Vec<CallSite>,
    found: &[Goroutines],
    symbolizer: &mut Symbolizer<'_>,
) -> Vec<CallSite> {
    let resident_bytes = super::sites::bytes_of(&faults, Component::GoStacks);
    let groups = found.iter().flat_map(|it| &it.groups);
    let mut gained: Vec<(&Group, u64)> = groups.map(|group| (group, group.gained_bytes)).collect();
    gained.retain(|(_, bytes)| *bytes > 0);
    let told_bytes = gained.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    if told_bytes == 0 || told_bytes < resident_bytes / 2 {
        return faults;
    }
    gained.sort_by_key(|(_, bytes)| Reverse(*bytes));
    let told = Retold { component: Component::GoStacks, source: GOROUTINES, rest: NO_GOROUTINES };
    retold(faults, &told, &gained, |group| {
        let mut frames = symbolizer.frames(group.code_addrs.iter().copied());
        frames.extend(creator(group, symbolizer));
        frames
    })
}

/// The `go` statement they come from.
fn creator(group: &Group, symbolizer: &mut Symbolizer<'_>) -> Option<Frame> {
    symbolizer.frames(group.creator_addr.into_iter()).into_iter().next()
}
