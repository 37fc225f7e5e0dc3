//! Growth of the Go heap by who allocated: the difference of two heap profiles.
//!
//! Refuses what a few samples would make of little growth, and profiles that tell less than half of what became
//! resident: then no collection has ended in the window, or garbage is what grows. Refuses those too that tell
//! clearly more, as objects that fill pages which were resident before are not growth.
//!
//! The surprise: a profile lags behind by a collection or two. What was allocated before the window but published
//! in it did not grow; so what each stack is known to hold at the end is compared with all it may have held at the
//! start. That may be too little, for garbage at the start counts as held, but never too much.

use std::collections::{HashMap, HashSet};

use crate::runtimes::go::{HeapProfile, HeldSite};

/// Growth of fewer samples than this says nothing of who allocates.
const MIN_SAMPLES: u64 = 16;
/// Samples say more or less than there is: by so many percent, and so many bytes, it may be too much.
const EXCESS_PERCENT: u64 = 25;
const EXCESS_BYTES: u64 = 1 << 20;

/// What each stack of `end` gained or lost since `start`, as the profiles show it; `None` where they do not compare.
pub fn changes(start: &HeapProfile, end: &HeapProfile) -> Option<Vec<i64>> {
    let before = by_stack(start, end)?;
    let held_before = |site: &HeldSite| before.get(&*site.stack).copied().unwrap_or(0);
    Some(end.sites.iter().map(|site| difference(held_before(site), site.bytes)).collect())
}

/// Stacks of which `end` shows nothing any more, most bytes first; none where the two do not compare.
pub fn vanished<'a>(start: &'a HeapProfile, end: &HeapProfile) -> Vec<&'a HeldSite> {
    if !compare(start, end) {
        return Vec::new();
    }
    let left: HashSet<&[u64]> = end.sites.iter().map(|site| &*site.stack).collect();
    start.sites.iter().filter(|site| !left.contains(&*site.stack)).collect()
}

/// `end_bytes - start_bytes`; the farthest there is where that is out of range.
pub fn difference(start_bytes: u64, end_bytes: u64) -> i64 {
    let change = i128::from(end_bytes) - i128::from(start_bytes);
    i64::try_from(change).unwrap_or(if change < 0 { i64::MIN } else { i64::MAX })
}

fn compare(start: &HeapProfile, end: &HeapProfile) -> bool {
    start.is_kept() && start.rate_bytes == end.rate_bytes && !start.is_torn && !end.is_torn
}

fn by_stack<'a>(start: &'a HeapProfile, end: &HeapProfile) -> Option<HashMap<&'a [u64], u64>> {
    let sites = start.sites.iter().map(|site| (&*site.stack, site.bytes));
    compare(start, end).then(|| sites.collect())
}

/// The stacks that gained and by how much, most first, where that explains `resident_bytes` that the heap gained.
pub fn growth<'a>(
    start: &HeapProfile,
    end: &'a HeapProfile,
    resident_bytes: u64,
) -> Option<Vec<(&'a HeldSite, u64)>> {
    // Stacks beyond those kept may be others in the second profile; and who of several runtimes gained is not known.
    let is_summed = |profile: &HeapProfile| profile.counted.contains_key(&[][..]);
    if !compare(start, end) || is_summed(start) || is_summed(end) || end.has_others {
        return None;
    }
    let gain =
        |site: &HeldSite| site.bytes.saturating_sub(start.counted.get(&*site.stack).copied().unwrap_or(0));
    let gained = end.sites.iter().map(|site| (site, gain(site)));
    let mut gained: Vec<(&HeldSite, u64)> = gained.filter(|(_, bytes)| *bytes > 0).collect();
    let total_bytes = gained.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    let is_told = total_bytes >= MIN_SAMPLES.saturating_mul(end.rate_bytes);
    if !is_told || total_bytes < resident_bytes / 2 || total_bytes > most_bytes(resident_bytes) {
        return None;
    }
    gained.sort_by(|(one, bytes), (other, other_bytes)| {
        other_bytes.cmp(bytes).then_with(|| one.stack.cmp(&other.stack))
    });
    Some(gained)
}

/// What samples may make of growth by `resident_bytes`.
fn most_bytes(resident_bytes: u64) -> u64 {
    let excess_bytes = (resident_bytes / 100).saturating_mul(EXCESS_PERCENT).saturating_add(EXCESS_BYTES);
    resident_bytes.saturating_add(excess_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1000;
    const MIB: u64 = 1 << 20;

    /// A profile that has published all it counted.
    fn profile(rate_bytes: u64, sites: &[(u64, u64)]) -> HeapProfile {
        let site = |&(addr, bytes): &(u64, u64)| HeldSite { stack: [addr].into(), bytes, objects: 1 };
        let counted = sites.iter().map(|&(addr, bytes)| ([addr].into(), bytes)).collect();
        HeapProfile { rate_bytes, sites: sites.iter().map(site).collect(), counted, ..HeapProfile::default() }
    }

    fn told(found: Option<Vec<(&HeldSite, u64)>>) -> Option<Vec<(u64, u64)>> {
        Some(found?.into_iter().map(|(site, bytes)| (site.stack[0], bytes)).collect())
    }

    fn grown(start: &[(u64, u64)], end: &[(u64, u64)], resident_bytes: u64) -> Option<Vec<(u64, u64)>> {
        told(growth(&profile(RATE, start), &profile(RATE, end), resident_bytes))
    }

    #[test]
    fn what_grew_is_listed_and_what_shrank_is_not() {
        let (start, end) = ([(1, 50_000), (2, 9000), (4, 7)], [(1, 10_000), (2, 19_000), (3, 20_000)]);
        assert_eq!(grown(&start, &end, 30_000), Some(vec![(3, 20_000), (2, 10_000)]));
        let (start, end) = (profile(RATE, &start), profile(RATE, &end));
        assert_eq!(changes(&start, &end).unwrap(), [-40_000, 10_000, 20_000]);
        let vanished = vanished(&start, &end);
        assert_eq!(vanished.iter().map(|site| (site.stack[0], site.bytes)).collect::<Vec<_>>(), [(4, 7)]);
    }

    #[test]
    fn what_was_published_late_did_not_grow() {
        let mut start = profile(RATE, &[(2, 1000)]);
        start.counted.insert([1].into(), 100 * MIB);
        let end = profile(RATE, &[(1, 100 * MIB), (2, 36 * MIB + 1000)]);
        assert_eq!(told(growth(&start, &end, 39 * MIB)), Some(vec![(2, 36 * MIB)]));
    }

    #[test]
    fn too_little_is_not_told() {
        assert_eq!(grown(&[], &[(1, 15_999)], 10), None, "few samples");
        assert_eq!(grown(&[], &[(1, 16_000)], 40_000), None, "less than half of what grew");
        assert_eq!(grown(&[], &[(1, 16_000)], 32_000), Some(vec![(1, 16_000)]));
    }

    #[test]
    fn more_than_became_resident_is_not_told() {
        assert_eq!(grown(&[], &[(1, 6 * MIB + 1)], 4 * MIB), None, "it filled pages that were there");
        assert_eq!(grown(&[], &[(1, 5 * MIB)], 4 * MIB), Some(vec![(1, 5 * MIB)]), "as samples vary");
        assert_eq!(grown(&[], &[(1, u64::MAX)], u64::MAX), Some(vec![(1, u64::MAX)]));
    }

    #[test]
    fn profiles_of_different_rates_do_not_compare() {
        let end = profile(RATE, &[(1, 50_000)]);
        assert_eq!(changes(&profile(RATE / 2, &[]), &end), None);
        assert_eq!(changes(&profile(0, &[]), &end), None, "it was switched on meanwhile");
    }

    #[test]
    fn nor_do_torn_ones_nor_those_of_one_heap_of_several() {
        let (start, end) = (profile(RATE, &[]), profile(RATE, &[(1, 50_000)]));
        let torn = HeapProfile { is_torn: true, ..end.clone() };
        assert!(changes(&start, &torn).is_none() && growth(&start, &torn, 50_000).is_none());
        assert!(vanished(&torn, &start).is_empty());
        let one = HeapProfile { has_others: true, ..end };
        assert!(changes(&start, &one).is_some() && growth(&start, &one, 50_000).is_none());
    }

    #[test]
    fn stacks_that_were_summed_up_are_no_growth() {
        let (start, mut end) = (profile(RATE, &[]), profile(RATE, &[(1, 50_000)]));
        end.counted.insert([].into(), 5);
        assert!(growth(&start, &end, 50_000).is_none() && growth(&end, &end, 0).is_none());
    }

    #[test]
    fn no_difference_overflows() {
        assert_eq!(difference(u64::MAX, 0), i64::MIN);
        assert_eq!(difference(0, u64::MAX), i64::MAX);
        assert_eq!(difference(7, 5), -2);
    }
}
