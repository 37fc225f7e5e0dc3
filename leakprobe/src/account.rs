//! Puts the parts together into the finished report: the last step before formats. Pure but for the
//! names it asks the symbolizer for.

use std::collections::HashMap;
use std::time::SystemTime;

use crate::attribute::growth::{RawCallSite, call_sites, claims_from_stacks, new_pages};
use crate::attribute::ledger::{Ledger, Owners};
use crate::claim::{Claim, Component};
use crate::look::Look;
use crate::report::{CallSite, ComponentRow, Rss, ThreadRow, Unaccounted};
use crate::runtimes::code::CodeRoles;
use crate::snapshot::{Residency, Snapshot};
use crate::symbolize::Symbolizer;
use crate::trace::recording::Recording;

/// Call sites that get names and a line each in the report; the rest is summed up by component.
const MAX_CALL_SITES: usize = 200;

/// The ledgers of the window's two ends, and what grew between them.
pub struct Account {
    /// At the end.
    pub end: Ledger,
    /// At the start; `None` without a window.
    pub start: Option<Ledger>,
    /// Growth by stack, largest first.
    pub sites: Vec<RawCallSite>,
}

/// Draws up both ledgers by the same claims, so that what is only better known at the end is not
/// mistaken for growth.
pub fn draw_up(start: Option<&Look>, end: &Look, recording: Option<&Recording>, roles: &CodeRoles) -> Account {
    let mut claims: Vec<Claim> = end.claims.clone();
    if let Some(recording) = recording {
        let owners = Owners::weigh(&claims);
        claims.extend(claims_from_stacks(&end.snapshot, &owners, recording, &|addr| roles.at(addr)));
    }
    let owners = Owners::weigh(&claims);
    let start_ledger = start.map(|start| {
        let both: Vec<Claim> = claims.iter().chain(&start.claims).copied().collect();
        Ledger::draw_up(&start.snapshot, &Owners::weigh(&both))
    });
    let sites = match (start, recording) {
        (Some(start), Some(recording)) => {
            let gained = new_pages(&start.snapshot.runs, &end.snapshot.runs);
            call_sites(&gained, &owners, recording)
        }
        _ => Vec::new(),
    };
    Account { end: Ledger::draw_up(&end.snapshot, &owners), start: start_ledger, sites }
}

impl Account {
    /// The ledger's rows, largest first.
    pub fn rows(&self, allocator: Option<&str>) -> Vec<ComponentRow> {
        let listed = |component: &Component| {
            self.end.entries.contains_key(component)
                || self.start.as_ref().is_some_and(|start| start.entries.contains_key(component))
        };
        let mut rows: Vec<ComponentRow> = Component::ALL
            .into_iter()
            .filter(listed)
            .map(|component| {
                let entry = self.end.entries.get(&component).cloned().unwrap_or_default();
                ComponentRow {
                    id: component,
                    label: component.label(),
                    rss: entry.rss_bytes,
                    growth: self.start.as_ref().map(|start| signed(entry.rss_bytes, start.rss_of(component))),
                    r#virtual: entry.virtual_bytes,
                    slack: None,
                    lazy_free: entry.lazy_free_bytes,
                    huge: Some(entry.huge_bytes),
                    swap: Some(entry.swap_bytes),
                    evidence: entry.main_evidence(),
                    allocator: allocator.filter(|_| component == Component::CHeap).map(str::to_owned),
                }
            })
            .collect();
        rows.sort_by(|a, b| b.rss.cmp(&a.rss).then(a.id.cmp(&b.id)));
        rows
    }

    /// What Go's heap profile cannot see; all unknown in a process without Go.
    pub fn unaccounted(&self, rows: &[ComponentRow]) -> Unaccounted {
        if !rows.iter().any(|row| row.id == Component::GoHeap) {
            return Unaccounted { bytes: None, growth: None, owner: None };
        }
        let outside = |ledger: &Ledger| ledger.rss_bytes.saturating_sub(ledger.rss_of(Component::GoHeap));
        let owner = rows.iter().filter(|row| row.id != Component::GoHeap).max_by_key(|row| row.rss);
        Unaccounted {
            bytes: Some(outside(&self.end)),
            growth: self.start.as_ref().map(|start| signed(outside(&self.end), outside(start))),
            owner: owner.map(|row| row.id),
        }
    }

    /// RSS of the whole process.
    pub fn rss(&self, end: &Snapshot) -> Rss {
        let start = self.start.as_ref().map(|start| start.rss_bytes);
        Rss {
            start,
            end: self.end.rss_bytes,
            growth: start.map(|start| signed(self.end.rss_bytes, start)),
            peak: end.status.peak_rss_bytes,
            swap: end.usages.iter().map(|usage| usage.swap_bytes).sum(),
            lazy_free: end.usages.iter().map(|usage| usage.lazy_free_bytes).sum(),
            huge: end.usages.iter().map(|usage| usage.huge_bytes).sum(),
        }
    }

    /// The call sites with names; what is beyond the first ones, by component.
    pub fn named_sites(&self, recording: &Recording, symbolizer: &mut Symbolizer<'_>) -> Vec<CallSite> {
        let (named, rest) = self.sites.split_at(self.sites.len().min(MAX_CALL_SITES));
        let mut sites: Vec<CallSite> = named
            .iter()
            .map(|site| {
                let stack = site.stack.map(|stack| recording.stack(stack));
                CallSite {
                    frames: stack.map_or_else(Vec::new, |stack| symbolizer.frames(stack.code_addrs())),
                    note: site.note.or(stack.filter(|stack| stack.truncated).map(|_| "the stack ends early")),
                    ..unnamed(site)
                }
            })
            .collect();
        let mut others: HashMap<Component, CallSite> = HashMap::new();
        for site in rest {
            let other = others.entry(site.component).or_insert_with(|| CallSite {
                bytes: 0,
                faults: 0,
                note: Some("many smaller call sites"),
                ..unnamed(site)
            });
            other.bytes += site.bytes;
            other.faults += site.faults;
        }
        sites.extend(others.into_values());
        sites.sort_by(|a, b| b.bytes.cmp(&a.bytes).then(a.component.cmp(&b.component)));
        sites
    }

    /// Threads with the resident bytes of their stacks.
    pub fn threads(&self, end: &Look) -> Vec<ThreadRow> {
        let resident = |range: &crate::address::AddrRange| -> u64 {
            let runs = end.snapshot.runs.iter().filter(|run| run.residency != Residency::Swapped);
            runs.filter_map(|run| run.range.intersection(range)).map(|common| common.len_bytes()).sum()
        };
        let threads = end.snapshot.threads.iter();
        threads
            .map(|thread| {
                let stack = end.stacks.iter().find(|stack| stack.tid == thread.ns_tid);
                ThreadRow {
                    tid: thread.tid,
                    comm: thread.comm.clone(),
                    stack_rss: stack.map(|stack| resident(&stack.range)),
                }
            })
            .collect()
    }
}

fn unnamed(site: &RawCallSite) -> CallSite {
    CallSite {
        component: site.component,
        bytes: site.bytes,
        faults: site.faults,
        weight: site.weight,
        frames: Vec::new(),
        note: site.note,
    }
}

/// RFC 3339, whole seconds, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn signed(now: u64, before: u64) -> i64 {
    now.wrapping_sub(before).cast_signed()
}
