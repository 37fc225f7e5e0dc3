//! What [`crate::diagnose`] looks at, borrowed from a report whose findings are still empty.
//!
//! It stands here because `diagnose` must not know what a report is.

use super::{CallSite, CgroupMemory, ComponentRow, HEAP_PROFILE, Malloc, Report, SizeClass};
use crate::diagnose::{Facts, Holding, Limit, MallocFacts, Site, SizeGrowth};

impl Report {
    /// The facts for [`crate::diagnose::diagnose`].
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            is_go: self.target.runtime.kind == "go",
            race: self.target.runtime.race,
            goroutines: self.target.runtime.goroutines_started,
            rss_bytes: self.rss.end,
            rss_growth_bytes: self.rss.growth,
            trend: self.growth,
            window_seconds: self.window.seconds,
            threads: self.target.threads,
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
    }
}

fn malloc(malloc: &Malloc) -> MallocFacts {
    let growth = |class: &SizeClass| {
        let growth = class.growth.filter(|growth| growth.bytes > 0)?;
        Some(SizeGrowth { size_bytes: class.size, blocks: growth.blocks, bytes: growth.bytes })
    };
    MallocFacts {
        in_use_growth_bytes: malloc.in_use_growth.map(|growth| growth.bytes),
        in_use_growth_blocks: malloc.in_use_growth.map(|growth| growth.blocks),
        trimmable_bytes: malloc.trimmable,
        top_grower: malloc.sizes.iter().filter_map(growth).max_by_key(|growth| growth.bytes),
    }
}

fn site(site: &CallSite) -> Site<'_> {
    let functions = site.frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
    Site { component: site.component, bytes: site.bytes, functions }
}

fn limit(cgroup: &CgroupMemory) -> Option<Limit> {
    let (current_bytes, limit_bytes) = cgroup.current.zip(cgroup.limit)?;
    Some(Limit { current_bytes, limit_bytes })
}
