//! Growth of the Go heap by who allocated: the difference of two heap profiles.
//!
//! Refuses what a few samples would make of little growth, and profiles that tell less than half of what became
//! resident: then no collection has ended in the window, or garbage is what grows. The surprise: these are bytes
//! of objects, not of pages, and may be more than the heap's pages grew by, where objects fill what was free.

use std::collections::HashMap;

use crate::runtimes::go::{HeapProfile, HeldSite};

/// Growth of fewer samples than this says nothing of who allocates.
const MIN_SAMPLES: u64 = 16;

/// What each stack of `end` gained since `start`; `None` where the two do not compare.
pub fn changes<'a>(start: &HeapProfile, end: &'a HeapProfile) -> Option<Vec<(&'a HeldSite, i64)>> {
    if !start.is_kept() || start.rate_bytes != end.rate_bytes {
        return None;
    }
    let before: HashMap<&[u64], u64> = start.sites.iter().map(|site| (&*site.stack, site.bytes)).collect();
    let held_before = |site: &HeldSite| before.get(&*site.stack).copied().unwrap_or(0);
    let change = |site: &'a HeldSite| (site, site.bytes.wrapping_sub(held_before(site)).cast_signed());
    Some(end.sites.iter().map(change).collect())
}

/// The stacks that gained and by how much, most first, where that explains `resident_bytes` that the heap gained.
pub fn growth<'a>(
    start: &HeapProfile,
    end: &'a HeapProfile,
    resident_bytes: u64,
) -> Option<Vec<(&'a HeldSite, u64)>> {
    let changes = changes(start, end)?.into_iter();
    let gained = changes.filter_map(|(site, change)| Some((site, u64::try_from(change).ok()?)));
    let mut gained: Vec<(&HeldSite, u64)> = gained.filter(|(_, bytes)| *bytes > 0).collect();
    let total_bytes = gained.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    let is_told = total_bytes >= MIN_SAMPLES.saturating_mul(end.rate_bytes);
    if !is_told || total_bytes < resident_bytes / 2 {
        return None;
    }
    gained.sort_by(|(one, bytes), (other, other_bytes)| {
        other_bytes.cmp(bytes).then_with(|| one.stack.cmp(&other.stack))
    });
    Some(gained)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1000;

    fn profile(rate_bytes: u64, sites: &[(u64, u64)]) -> HeapProfile {
        let site = |&(addr, bytes): &(u64, u64)| HeldSite { stack: [addr].into(), bytes, objects: 1 };
        HeapProfile { rate_bytes, sites: sites.iter().map(site).collect(), ..HeapProfile::default() }
    }

    fn grown(start: &[(u64, u64)], end: &[(u64, u64)], resident_bytes: u64) -> Option<Vec<(u64, u64)>> {
        let (start, end) = (profile(RATE, start), profile(RATE, end));
        let found = growth(&start, &end, resident_bytes)?;
        Some(found.into_iter().map(|(site, bytes)| (site.stack[0], bytes)).collect())
    }

    #[test]
    fn what_grew_is_listed_and_what_shrank_is_not() {
        let (start, end) = ([(1, 50_000), (2, 9000), (4, 7)], [(1, 10_000), (2, 19_000), (3, 20_000)]);
        assert_eq!(grown(&start, &end, 30_000), Some(vec![(3, 20_000), (2, 10_000)]));
        let (start, end) = (profile(RATE, &start), profile(RATE, &end));
        let changes = changes(&start, &end).unwrap();
        assert_eq!(changes.iter().map(|(_, change)| *change).collect::<Vec<_>>(), [-40_000, 10_000, 20_000]);
    }

    #[test]
    fn too_little_is_not_told() {
        assert_eq!(grown(&[], &[(1, 15_999)], 10), None, "few samples");
        assert_eq!(grown(&[], &[(1, 16_000)], 40_000), None, "less than half of what grew");
        assert_eq!(grown(&[], &[(1, 16_000)], 32_000), Some(vec![(1, 16_000)]));
    }

    #[test]
    fn profiles_of_different_rates_do_not_compare() {
        let end = profile(RATE, &[(1, 50_000)]);
        assert_eq!(changes(&profile(RATE / 2, &[]), &end), None);
        assert_eq!(changes(&profile(0, &[]), &end), None, "it was switched on meanwhile");
    }
}
