//! What [`crate::diagnose`] looks at, borrowed from a report whose findings are still empty.
//!
//! It stands here because `diagnose` must not know what a report is.

use super::{CallSite, CgroupMemory, ComponentRow, HEAP_PROFILE, Report};
use crate::diagnose::{Facts, Holding, Limit, Site};

impl Report {
    /// The facts for [`crate::diagnose::diagnose`].
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            is_go: self.target.runtime.kind == "go",
            race: self.target.runtime.race,
            goroutines: self.target.runtime.goroutines_started,
            rss_bytes: self.rss.end,
            rss_growth_bytes: self.rss.growth,
            window_seconds: self.window.seconds,
            threads: self.target.threads,
            live_growth_bytes: live_growth_bytes(&self.call_sites),
            holdings: self.components.iter().map(holding).collect(),
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
