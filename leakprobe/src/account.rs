//! Puts the parts together into the finished report: the last step before formats. Pure but for the
//! names it asks the symbolizer for.

mod files;
pub mod goroutines;
pub mod held;
mod malloc;
pub mod sites;
pub mod stacks;

use std::collections::BTreeMap;
use std::time::SystemTime;

use self::files::Files;
use crate::attribute::growth::{claims_before_moves, claims_from_stacks, new_pages};
use crate::attribute::ledger::{Ledger, Owners};
use crate::attribute::sites::{Growth, Sites};
use crate::attribute::slack;
use crate::claim::{Claim, Component, Evidence};
use crate::look::Look;
use crate::report::{ComponentRow, Malloc, PartRow, Rss, RssCounters, Unaccounted};
use crate::runtimes::code::CodeRoles;
use crate::runtimes::go::goroutines::StackPages;
use crate::snapshot::Snapshot;
use crate::target::modules::Module;
use crate::trace::recording::Recording;

/// The ledgers of the window's two ends, and what grew between them.
pub struct Account {
    /// At the end.
    pub end: Ledger,
    /// At the start; `None` without a window.
    pub start: Option<Ledger>,
    /// Growth by stack, largest first.
    pub sites: Sites,
    /// Where goroutine stacks are resident.
    pub goroutine_stacks: StackPages,
    /// What malloc's blocks add up to.
    pub malloc: Option<Malloc>,
    /// Resident bytes that hold nothing live, of the components that were looked into.
    slack: BTreeMap<Component, u64>,
    /// What the rows of files are made of.
    files: Files,
    /// What the row of thread stacks is made of.
    stacks: Vec<PartRow>,
}

/// Draws up both ledgers by the same claims, so that what is only better known at the end is not
/// mistaken for growth; where both moments know equally well, each goes by its own.
pub fn draw_up(
    start: Option<&Look>,
    end: &Look,
    recording: Option<&Recording>,
    roles: &CodeRoles,
    modules: &[Module],
) -> Account {
    let mut claims: Vec<Claim> = end.claims.clone();
    if let Some(recording) = recording {
        let owners = Owners::weigh(&claims);
        claims.extend(claims_from_stacks(&end.snapshot, &owners, recording, &|addr| roles.at(addr)));
    }
    // Where a structure could not be read at the end, what it was at the start is the best guess left.
    let carried = start.iter().flat_map(|start| &start.claims);
    claims.extend(carried.map(|claim| Claim { evidence: claim.evidence.min(Evidence::Neighbour), ..*claim }));
    let owners = Owners::weigh(&claims);
    claims.extend(recording.iter().flat_map(|recording| claims_before_moves(recording, &owners)));
    let start_owners = start.map(|start| Owners::weigh_at_the_time(&start.claims, &claims));
    let start_ledger =
        start.zip(start_owners.as_ref()).map(|(start, owners)| Ledger::draw_up(&start.snapshot, owners));
    let gained = start.map(|start| new_pages(&start.snapshot.runs, &end.snapshot.runs)).unwrap_or_default();
    let sites = match (start.zip(start_owners.as_ref()), recording) {
        (Some((start, start_owners)), Some(recording)) => {
            let (start, end) = (&start.snapshot, &end.snapshot);
            Growth { start, start_owners, end, owners: &owners, recording }.call_sites(&gained)
        }
        _ => Sites::default(),
    };
    let goroutine_stacks = StackPages {
        resident: owners.pages_of(Component::GoStacks, &end.snapshot.runs),
        gained: owners.pages_of(Component::GoStacks, &gained),
    };
    let slack = slack::by_component(&end.slack, &owners, &end.snapshot.runs);
    let end_ledger = Ledger::draw_up(&end.snapshot, &owners);
    let start_slack = start
        .zip(start_owners.as_ref())
        .map(|(start, owners)| slack::by_component(&start.slack, owners, &start.snapshot.runs));
    let held_before = start_ledger.as_ref().zip(start_slack.as_ref());
    let reused_bytes =
        held_before.and_then(|before| malloc::reused_bytes(before, (&end_ledger, &slack), &sites.rows));
    let malloc = malloc::blocks(start, end, reused_bytes);
    let files = Files::of(start.zip(start_ledger.as_ref()), (end, &end_ledger), modules);
    let stacks = stacks::parts(start, end);
    Account { end: end_ledger, start: start_ledger, sites, goroutine_stacks, slack, files, stacks, malloc }
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
                    label: component.label().into(),
                    rss: entry.rss_bytes,
                    growth: self.start.as_ref().map(|start| signed(entry.rss_bytes, start.rss_of(component))),
                    r#virtual: entry.virtual_bytes,
                    slack: self.slack.get(&component).copied(),
                    lazy_free: entry.lazy_free_bytes,
                    huge: Some(entry.huge_bytes),
                    swap: Some(entry.swap_bytes),
                    locked: entry.locked_bytes,
                    ksm: entry.ksm_bytes,
                    reclaimable: self.files.reclaimable_bytes(component),
                    parts: match component {
                        Component::ThreadStacks => self.stacks.clone(),
                        _ => self.files.parts(component),
                    },
                    files: self.files.files(component),
                    variables: self.files.variables(component),
                    evidence: entry.main_evidence(),
                    allocator: allocator.filter(|_| component.is_malloc()).map(str::to_owned),
                }
            })
            .collect();
        rows.sort_by(|a, b| b.rss.cmp(&a.rss).then(a.id.cmp(&b.id)));
        rows
    }

    /// What Go's heap profile cannot see; all unknown in a process without Go.
    pub fn unaccounted(&self, rows: &[ComponentRow]) -> Unaccounted {
        if !rows.iter().any(|row| row.id == Component::GoHeapInUse) {
            return Unaccounted { bytes: None, growth: None, owner: None };
        }
        let outside =
            |ledger: &Ledger| ledger.rss_bytes.saturating_sub(ledger.rss_of(Component::GoHeapInUse));
        let owner = rows.iter().filter(|row| row.id != Component::GoHeapInUse).max_by_key(|row| row.rss);
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
            moved: end.moved_bytes,
            counters: RssCounters {
                rss: end.status.rss_bytes,
                anon: end.status.anon_bytes,
                file: end.status.file_bytes,
                shmem: end.status.shmem_bytes,
                difference: end.status.rss_bytes.map(|bytes| signed(bytes, self.end.rss_bytes)),
            },
            reclaimable: Component::ALL.into_iter().map(|it| self.files.reclaimable_bytes(it)).sum(),
            locked: end.usages.iter().map(|usage| usage.locked_bytes).sum(),
            ksm: end.usages.iter().filter_map(|usage| usage.ksm_bytes).reduce(u64::saturating_add),
        }
    }
}

/// RFC 3339, whole seconds, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn signed(now: u64, before: u64) -> i64 {
    now.wrapping_sub(before).cast_signed()
}
