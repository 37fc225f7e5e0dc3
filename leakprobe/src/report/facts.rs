//! What [`crate::diagnose`] looks at, borrowed from a report whose findings are still empty.
//!
//! It stands here because `diagnose` must not know what a report is.

use std::cmp::Reverse;

use super::{
    CallSite, CgroupMemory, ComponentRow, FileRow, GoroutineGroup, HEAP_PROFILE, Malloc, Report, SizeClass,
    ThreadRow,
};
use crate::claim::Component;
use crate::diagnose::{Blocked, Facts, Holding, Limit, MallocFacts, Site, SizeGrowth};

impl Report {
    /// The facts for [`crate::diagnose::diagnose`].
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            is_go: self.target.runtime.kind == "go",
            race: self.target.runtime.race,
            collector: self.target.runtime.collector,
            goroutines: self.target.runtime.goroutines_started,
            goroutine_count: self.goroutine_totals.map(|totals| totals.count),
            goroutine_growth: self.goroutine_totals.and_then(|totals| totals.growth),
            blocked: self.goroutines.iter().filter_map(blocked).collect(),
            rss_bytes: self.rss.end,
            rss_growth_bytes: self.rss.growth,
            trend: self.growth,
            window_seconds: self.window.seconds,
            threads: self.target.threads,
            thread_growth: self.target.threads_growth,
            native_threads: native_threads(&self.threads),
            exited_stack_bytes: exited_stack_bytes(&self.components),
            live_bytes: self.heap_profile.in_use,
            live_growth_bytes: live_growth_bytes(&self.call_sites),
            holdings: self.components.iter().map(holding).collect(),
            malloc: self.malloc.as_ref().map(malloc),
            sites: self.call_sites.iter().map(site).collect(),
            cgroup: self.outside_rss.cgroup.as_ref().filter(|_| !self.target.is_gone()).and_then(limit),
        }
    }
}

/// What call sites of Go objects that come from the heap profile add up to; none without any.
fn live_growth_bytes(sites: &[CallSite]) -> Option<u64> {
    let told = sites.iter().filter(|site| site.source == HEAP_PROFILE && !site.frames.is_empty());
    told.map(|site| site.bytes).reduce(u64::saturating_add)
}

fn holding(row: &ComponentRow) -> Holding<'_> {
    Holding {
        component: row.id,
        rss_bytes: row.rss,
        growth_bytes: row.growth,
        lazy_free_bytes: row.lazy_free,
        allocator: row.allocator.as_deref(),
        slack_bytes: row.slack,
        huge_bytes: row.huge,
        reclaimable_bytes: row.reclaimable,
        copied_bytes: row.files.iter().map(|file| file.copied).fold(0, u64::saturating_add),
        largest_file: largest_file(&row.files),
    }
}

/// The path of the file that gained most, or else holds most, if that is most of them all.
fn largest_file(files: &[FileRow]) -> Option<&str> {
    let gained = |file: &FileRow| file.growth.unwrap_or(0).max(0);
    let any_gained = files.iter().any(|file| gained(file) > 0);
    let weight = |file: &FileRow| if any_gained { gained(file).unsigned_abs() } else { file.rss };
    let largest = files.iter().min_by_key(|file| Reverse(weight(file)))?;
    let all = files.iter().map(weight).fold(0, u64::saturating_add);
    largest.path.as_deref().filter(|_| weight(largest) > all / 2)
}

/// Of the threads, those that Go knows nothing of; none known where that is not known of all.
fn native_threads(threads: &[ThreadRow]) -> Option<u64> {
    let runs = threads.iter().map(|thread| thread.runs.as_deref()).collect::<Option<Vec<_>>>()?;
    Some(runs.into_iter().filter(|runs| *runs == "native").count() as u64)
}

fn exited_stack_bytes(rows: &[ComponentRow]) -> u64 {
    let parts = rows.iter().filter(|row| row.id == Component::ThreadStacks).flat_map(|row| &row.parts);
    parts.filter(|part| part.what == "exited").map(|part| part.rss).sum()
}

/// A group that waits; none of those that run or may.
fn blocked(group: &GoroutineGroup) -> Option<Blocked<'_>> {
    let is_for_ever = group.state == "leaked";
    let reason = group.wait_reason.as_deref().filter(|_| is_for_ever || group.state == "waiting")?;
    Some(Blocked {
        count: group.count,
        growth: group.growth,
        reason,
        is_for_ever,
        longest_wait_seconds: group.waiting_seconds,
        function: group
            .frames
            .iter()
            .filter_map(|frame| frame.function.as_deref())
            .find(|name| !is_waiting(name)),
        creator: group.created_by.as_ref().and_then(|frame| frame.function.as_deref()),
    })
}

/// Functions in which everybody waits: who called them says more.
fn is_waiting(function: &str) -> bool {
    ["runtime.", "sync.", "internal/", "time.Sleep"].iter().any(|start| function.starts_with(start))
}

fn malloc(malloc: &Malloc) -> MallocFacts {
    let growth = |class: &SizeClass| {
        let growth = class.growth.filter(|growth| growth.bytes > 0)?;
        Some(SizeGrowth { size_bytes: class.size, blocks: growth.blocks, bytes: growth.bytes })
    };
    MallocFacts {
        arenas: malloc.arenas,
        in_use_growth_bytes: malloc.in_use_growth.map(|growth| growth.bytes),
        in_use_growth_blocks: malloc.in_use_growth.map(|growth| growth.blocks),
        trimmable_bytes: malloc.trimmable,
        top_grower: malloc.sizes.iter().filter_map(growth).max_by_key(|growth| growth.bytes),
    }
}

fn site(site: &CallSite) -> Site<'_> {
    let functions = site.frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
    Site { component: site.component, bytes: site.bytes, cause: site.cause.as_deref(), functions }
}

fn limit(cgroup: &CgroupMemory) -> Option<Limit> {
    let (current_bytes, limit_bytes) = cgroup.current.zip(cgroup.limit)?;
    Some(Limit { current_bytes, limit_bytes })
}
