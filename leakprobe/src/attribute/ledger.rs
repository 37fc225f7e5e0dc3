//! The ledger: claims weighed against each other, and the resident bytes of a snapshot divided among
//! the winners.
//!
//! A VMA with one owner is counted with the kernel's own figures; one with several, page by page. Where
//! the two readings of a VMA that holds still differ, what they differ by is the residual.

use std::collections::BTreeMap;

use rangemap::RangeMap;

use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence};
use crate::snapshot::{PageRun, RegionUsage, Residency, Snapshot};

/// Who owns an address, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The component.
    pub component: Component,
    /// Why.
    pub evidence: Evidence,
}

/// Every address's owner: of the claims on a page, the one with the strongest evidence.
#[derive(Clone, Debug, Default)]
pub struct Owners(RangeMap<u64, Owner>);

impl Owners {
    /// Weighs `claims`. Where evidence is equal, the order of the claims does not matter: the component
    /// decides, then.
    pub fn weigh(claims: &[Claim]) -> Self {
        Self::weigh_at_the_time(claims, &[])
    }

    /// Weighs `claims` of one moment with those of `another`, which win by stronger evidence only: a page
    /// that was idle then and holds objects now was idle.
    pub fn weigh_at_the_time(claims: &[Claim], another: &[Claim]) -> Self {
        let then = claims.iter().map(|claim| (true, claim));
        let mut sorted: Vec<(bool, &Claim)> =
            then.chain(another.iter().map(|claim| (false, claim))).collect();
        sorted.sort_by_key(|(is_then, claim)| (claim.evidence, *is_then, claim.component, claim.range));
        let mut owners = RangeMap::new();
        for (_, claim) in sorted {
            let Some(pages) = claim.range.touched_pages() else { continue };
            let owner = Owner { component: claim.component, evidence: claim.evidence };
            owners.insert(pages.start_addr..pages.end_addr, owner);
        }
        Self(owners)
    }

    /// The owner of the page at `addr`; nobody's is unknown.
    pub fn at(&self, addr: u64) -> Owner {
        self.0.get(&addr).copied().unwrap_or(UNKNOWN)
    }

    /// The parts of `range`, in order, each with its owner; unclaimed parts included.
    pub fn within(&self, range: AddrRange) -> Vec<(AddrRange, Owner)> {
        let span = range.start_addr..range.end_addr;
        let mut parts: Vec<(AddrRange, Owner)> = Vec::new();
        let mut addr = range.start_addr;
        for (claimed, owner) in self.0.overlapping(&span) {
            let Some(part) =
                range.intersection(&AddrRange { start_addr: claimed.start, end_addr: claimed.end })
            else {
                continue;
            };
            parts.extend(AddrRange::new(addr, part.start_addr).map(|unclaimed| (unclaimed, UNKNOWN)));
            parts.push((part, *owner));
            addr = part.end_addr;
        }
        parts.extend(AddrRange::new(addr, range.end_addr).map(|unclaimed| (unclaimed, UNKNOWN)));
        parts
    }

    /// What of `runs` is `component`'s.
    pub fn pages_of(&self, component: Component, runs: &[PageRun]) -> Vec<PageRun> {
        let owned = |run: &PageRun| {
            let run = *run;
            let parts = self.within(run.range).into_iter();
            let parts = parts.filter(move |(_, owner)| owner.component == component);
            parts.map(move |(range, _)| PageRun { range, ..run })
        };
        runs.iter().flat_map(owned).collect()
    }
}

const UNKNOWN: Owner = Owner { component: Component::AnonUnknown, evidence: Evidence::None };

/// What one component holds, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Resident.
    pub rss_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Swapped out.
    pub swap_bytes: u64,
    /// Of `rss_bytes`, in huge pages.
    pub huge_bytes: u64,
    /// Of `rss_bytes`, lazily freed; `None` where a VMA with such pages has several owners and the pages
    /// could not be told apart.
    pub lazy_free_bytes: Option<u64>,
    /// Of `rss_bytes`, locked; `None` where a VMA that is locked in part has several owners.
    pub locked_bytes: Option<u64>,
    /// Of `rss_bytes`, merged by KSM; `None` likewise, and where the kernel does not say.
    pub ksm_bytes: Option<u64>,
    /// `rss_bytes` by the evidence for them.
    pub by_evidence: BTreeMap<Evidence, u64>,
}

impl Entry {
    /// The evidence of most of the bytes.
    pub fn main_evidence(&self) -> Evidence {
        self.by_evidence
            .iter()
            .max_by_key(|(_, bytes)| **bytes)
            .map_or(Evidence::None, |(evidence, _)| *evidence)
    }
}

/// The account: Σ entries + residual = RSS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// What each component holds; those that hold nothing are absent.
    pub entries: BTreeMap<Component, Entry>,
    /// The sum of the VMAs' RSS.
    pub rss_bytes: u64,
    /// What the rows of files and shared memory are made of, by address.
    pub portions: Vec<Portion>,
}

/// What one component holds of one VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Index of the VMA in the snapshot.
    pub region_index: usize,
    /// The component.
    pub component: Component,
    /// Its resident bytes there.
    pub rss_bytes: u64,
}

impl Ledger {
    /// Divides `snapshot` among `owners`.
    pub fn draw_up(snapshot: &Snapshot, owners: &Owners) -> Self {
        let mut ledger = Self { rss_bytes: snapshot.rss_bytes(), ..Self::default() };
        let mut runs = snapshot.runs.as_slice();
        for (region_index, usage) in snapshot.usages.iter().enumerate() {
            let range = usage.region.range;
            runs = &runs[runs.partition_point(|run| run.range.end_addr <= range.start_addr)..];
            let inside = &runs[..runs.partition_point(|run| run.range.start_addr < range.end_addr)];
            match owners.within(range).as_slice() {
                [(_, owner)] => {
                    ledger.add_whole(usage, *owner);
                    ledger.add_portion(region_index, owner.component, usage.rss_bytes);
                }
                parts => ledger.add_parts(region_index, usage, parts, inside),
            }
        }
        ledger.entries.retain(|_, entry| entry.rss_bytes + entry.swap_bytes > 0);
        ledger
    }

    /// What the rows do not add up to, signed: RSS − Σ rows.
    pub fn residual_bytes(&self) -> i64 {
        let rows: u64 = self.entries.values().map(|entry| entry.rss_bytes).sum();
        self.rss_bytes.wrapping_sub(rows).cast_signed()
    }

    /// Resident bytes of a component.
    pub fn rss_of(&self, component: Component) -> u64 {
        self.entries.get(&component).map_or(0, |entry| entry.rss_bytes)
    }

    fn add_whole(&mut self, usage: &RegionUsage, owner: Owner) {
        let entry = self.entry(owner.component);
        entry.rss_bytes += usage.rss_bytes;
        entry.virtual_bytes += usage.region.range.len_bytes();
        entry.swap_bytes += usage.swap_bytes;
        entry.huge_bytes += usage.huge_bytes;
        entry.lazy_free_bytes = sum(entry.lazy_free_bytes, Some(usage.lazy_free_bytes));
        entry.locked_bytes = sum(entry.locked_bytes, Some(usage.locked_bytes));
        entry.ksm_bytes = sum(entry.ksm_bytes, usage.ksm_bytes);
        *entry.by_evidence.entry(owner.evidence).or_default() += usage.rss_bytes;
    }

    fn add_portion(&mut self, region_index: usize, component: Component, rss_bytes: u64) {
        if component.is_named() && rss_bytes > 0 {
            self.portions.push(Portion { region_index, component, rss_bytes });
        }
    }

    fn add_parts(
        &mut self,
        region_index: usize,
        usage: &RegionUsage,
        parts: &[(AddrRange, Owner)],
        runs: &[PageRun],
    ) {
        let are_freed_pages_known = knows_freed_pages(usage, runs);
        for (part, owner) in parts {
            let entry = self.entry(owner.component);
            entry.virtual_bytes += part.len_bytes();
            if !are_freed_pages_known {
                entry.lazy_free_bytes = None;
            }
            let mut rss_bytes = 0;
            for run in &runs[runs.partition_point(|run| run.range.end_addr <= part.start_addr)..] {
                let Some(common) = run.range.intersection(part) else { break };
                match run.residency {
                    Residency::Swapped => entry.swap_bytes += common.len_bytes(),
                    Residency::Resident => rss_bytes += common.len_bytes(),
                    Residency::ResidentHuge => {
                        rss_bytes += common.len_bytes();
                        entry.huge_bytes += common.len_bytes();
                    }
                    Residency::ResidentLazyFree => {
                        rss_bytes += common.len_bytes();
                        entry.lazy_free_bytes = sum(entry.lazy_free_bytes, Some(common.len_bytes()));
                    }
                }
            }
            entry.rss_bytes += rss_bytes;
            entry.locked_bytes = sum(entry.locked_bytes, part_of(usage.locked_bytes, usage, rss_bytes));
            let ksm_bytes = usage.ksm_bytes.and_then(|bytes| part_of(bytes, usage, rss_bytes));
            entry.ksm_bytes = sum(entry.ksm_bytes, ksm_bytes);
            *entry.by_evidence.entry(owner.evidence).or_default() += rss_bytes;
            self.add_portion(region_index, owner.component, rss_bytes);
        }
    }

    fn entry(&mut self, component: Component) -> &mut Entry {
        self.entries.entry(component).or_insert_with(|| Entry {
            lazy_free_bytes: Some(0),
            locked_bytes: Some(0),
            ksm_bytes: Some(0),
            ..Entry::default()
        })
    }
}

fn sum(known: Option<u64>, more: Option<u64>) -> Option<u64> {
    known.zip(more).map(|(known, more)| known + more)
}

/// How much of a VMA's `figure` is in a part of it with `rss_bytes`: known where it is all of the VMA or none.
fn part_of(figure: u64, usage: &RegionUsage, rss_bytes: u64) -> Option<u64> {
    match figure {
        0 => Some(0),
        whole if whole == usage.rss_bytes => Some(rss_bytes),
        _ => (rss_bytes == 0).then_some(0),
    }
}

/// Lazily freed pages are found some milliseconds after they were counted, and the kernel marks them in
/// batches: so much of the difference is that.
const MARKED_LATE_BYTES: u64 = 1 << 20;

/// Whether the lazily freed pages among `runs` are those that the kernel counts in the VMA.
fn knows_freed_pages(usage: &RegionUsage, runs: &[PageRun]) -> bool {
    let freed = runs.iter().filter(|run| run.residency == Residency::ResidentLazyFree);
    let in_region = freed.filter_map(|run| run.range.intersection(&usage.region.range));
    let found_bytes: u64 = in_region.map(|range| range.len_bytes()).sum();
    found_bytes.abs_diff(usage.lazy_free_bytes) <= MARKED_LATE_BYTES.min(usage.lazy_free_bytes / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::PAGE_BYTES;
    use crate::target::maps::parse_line;

    const FIRST_PAGE: u64 = 16;
    const PAGES: u64 = 48;

    /// VMAs of 12 pages each, side by side, with the given pages resident.
    fn snapshot(resident: &[bool]) -> Snapshot {
        let usages = (0..4)
            .map(|index| {
                let first = FIRST_PAGE + index * 12;
                let line =
                    format!("{:x}-{:x} rw-p 0 00:00 0 ", first * PAGE_BYTES, (first + 12) * PAGE_BYTES);
                let pages = &resident[index as usize * 12..index as usize * 12 + 12];
                let rss_bytes = pages.iter().filter(|page| **page).count() as u64 * PAGE_BYTES;
                RegionUsage {
                    rss_bytes,
                    anonymous_bytes: rss_bytes,
                    ..RegionUsage::new(parse_line(&line).unwrap())
                }
            })
            .collect();
        let runs = resident
            .iter()
            .enumerate()
            .filter(|(_, page)| **page)
            .filter_map(|(index, _)| {
                let range = AddrRange::with_len((FIRST_PAGE + index as u64) * PAGE_BYTES, PAGE_BYTES)?;
                Some(PageRun { range, residency: Residency::Resident })
            })
            .collect();
        Snapshot { usages, runs, ..Snapshot::default() }
    }

    fn any_claim() -> impl Strategy<Value = Claim> {
        let evidence = prop_oneof![
            Just(Evidence::Neighbour),
            Just(Evidence::TouchedBy),
            Just(Evidence::Mapping),
            Just(Evidence::Structure)
        ];
        let start = FIRST_PAGE * PAGE_BYTES..(FIRST_PAGE + PAGES) * PAGE_BYTES;
        (start, 1..20 * PAGE_BYTES, 0..Component::ALL.len(), evidence).prop_map(
            |(start, len, component, evidence)| Claim {
                range: AddrRange::with_len(start, len).unwrap(),
                component: Component::ALL[component],
                evidence,
            },
        )
    }

    proptest! {
        #[test]
        fn the_ledger_balances_whatever_is_claimed(
            resident in proptest::collection::vec(any::<bool>(), PAGES as usize),
            claims in proptest::collection::vec(any_claim(), 0..12),
        ) {
            let snapshot = snapshot(&resident);
            let ledger = Ledger::draw_up(&snapshot, &Owners::weigh(&claims));
            let rows: u64 = ledger.entries.values().map(|entry| entry.rss_bytes).sum();
            prop_assert_eq!(rows, snapshot.rss_bytes());
            prop_assert_eq!(ledger.residual_bytes(), 0);
            for (component, entry) in ledger.entries.iter().filter(|(component, _)| component.is_named()) {
                let portions = ledger.portions.iter().filter(|portion| portion.component == *component);
                prop_assert_eq!(portions.map(|portion| portion.rss_bytes).sum::<u64>(), entry.rss_bytes);
            }
            for entry in ledger.entries.values() {
                prop_assert_eq!(entry.by_evidence.values().sum::<u64>(), entry.rss_bytes);
            }
        }

        #[test]
        fn the_order_of_claims_does_not_matter(
            resident in proptest::collection::vec(any::<bool>(), PAGES as usize),
            claims in proptest::collection::vec(any_claim(), 0..12).prop_shuffle(),
        ) {
            let snapshot = snapshot(&resident);
            let mut sorted = claims.clone();
            sorted.sort_by_key(|claim| claim.range);
            prop_assert_eq!(
                Ledger::draw_up(&snapshot, &Owners::weigh(&claims)),
                Ledger::draw_up(&snapshot, &Owners::weigh(&sorted))
            );
        }

        #[test]
        fn one_more_claim_moves_bytes_and_makes_none(
            resident in proptest::collection::vec(any::<bool>(), PAGES as usize),
            mut claims in proptest::collection::vec(any_claim(), 0..8),
            more in any_claim(),
        ) {
            let snapshot = snapshot(&resident);
            let total = |claims: &[Claim]| -> u64 {
                Ledger::draw_up(&snapshot, &Owners::weigh(claims)).entries.values().map(|entry| entry.rss_bytes).sum()
            };
            let before = total(&claims);
            claims.push(more);
            prop_assert_eq!(total(&claims), before);
        }

        #[test]
        fn parts_cover_a_range_without_gap_or_overlap(
            claims in proptest::collection::vec(any_claim(), 0..12),
        ) {
            let range = AddrRange::with_len(FIRST_PAGE * PAGE_BYTES, PAGES * PAGE_BYTES).unwrap();
            let mut addr = range.start_addr;
            for (part, _) in Owners::weigh(&claims).within(range) {
                prop_assert_eq!(part.start_addr, addr);
                addr = part.end_addr;
            }
            prop_assert_eq!(addr, range.end_addr);
        }
    }

    #[test]
    fn what_a_page_was_is_not_what_it_became() {
        let snapshot = snapshot(&[true; PAGES as usize]);
        let range = AddrRange::with_len(FIRST_PAGE * PAGE_BYTES, 12 * PAGE_BYTES).unwrap();
        let claim = |component, evidence| Claim { range, component, evidence };
        let rss_of = |then, now, component| {
            Ledger::draw_up(&snapshot, &Owners::weigh_at_the_time(&[then], &[now])).rss_of(component)
        };
        let idle = claim(Component::GoHeapIdle, Evidence::Structure);
        let objects = claim(Component::GoHeapInUse, Evidence::Structure);
        assert_eq!(rss_of(idle, objects, Component::GoHeapIdle), range.len_bytes());
        assert_eq!(rss_of(objects, idle, Component::GoHeapInUse), range.len_bytes());
        let guessed = claim(Component::CMmap, Evidence::Neighbour);
        assert_eq!(rss_of(guessed, objects, Component::GoHeapInUse), range.len_bytes());
    }

    #[test]
    fn what_is_locked_or_merged_in_part_is_not_divided() {
        let half = AddrRange::with_len(FIRST_PAGE * PAGE_BYTES, 6 * PAGE_BYTES).unwrap();
        let claims = [Claim { range: half, component: Component::CMmap, evidence: Evidence::Structure }];
        let mut snapshot = snapshot(&[true; PAGES as usize]);
        let known = |snapshot: &Snapshot| {
            let ledger = Ledger::draw_up(snapshot, &Owners::weigh(&claims));
            let entry = &ledger.entries[&Component::CMmap];
            (entry.locked_bytes, entry.ksm_bytes)
        };
        assert_eq!(known(&snapshot), (Some(0), None), "a kernel that does not say what KSM merged");
        snapshot.usages[0].locked_bytes = 12 * PAGE_BYTES;
        snapshot.usages[0].ksm_bytes = Some(PAGE_BYTES);
        assert_eq!(known(&snapshot), (Some(half.len_bytes()), None));
    }

    #[test]
    fn pages_gone_between_the_two_readings_are_the_residual() {
        let mut snapshot = snapshot(&[true; PAGES as usize]);
        snapshot.runs.remove(0);
        let part = AddrRange::with_len(FIRST_PAGE * PAGE_BYTES, 2 * PAGE_BYTES).unwrap();
        let claims =
            [Claim { range: part, component: Component::GoHeapInUse, evidence: Evidence::Structure }];
        let ledger = Ledger::draw_up(&snapshot, &Owners::weigh(&claims));
        assert_eq!(ledger.residual_bytes(), PAGE_BYTES.cast_signed());
        assert_eq!(ledger.rss_of(Component::GoHeapInUse), PAGE_BYTES);
    }
}
