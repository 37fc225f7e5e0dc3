//! The resident bytes of each row that hold nothing live.
//!
//! A runtime knows how much of a stretch is unused, the snapshot how much of it is resident: of a stretch
//! that is resident in part, the unused bytes count in proportion.

use std::collections::BTreeMap;

use super::ledger::Owners;
use crate::claim::{Component, Evidence, Slack};
use crate::snapshot::{PageRun, resident_bytes_in};

/// Slack in bytes, of every component whose inside was read; one that is absent was not.
pub fn by_component(slack: &[Slack], owners: &Owners, runs: &[PageRun]) -> BTreeMap<Component, u64> {
    let mut found: BTreeMap<Component, u64> = BTreeMap::new();
    for stretch in slack {
        for (part, owner) in owners.within(stretch.range) {
            if owner.evidence < Evidence::Structure {
                continue; // somebody else's in the end
            }
            let dead_bytes = share(stretch, resident_bytes_in(part, runs));
            *found.entry(owner.component).or_default() += dead_bytes;
        }
    }
    found
}

/// The part of the stretch's unused bytes that so many resident ones of it hold.
fn share(stretch: &Slack, resident_bytes: u64) -> u64 {
    let len_bytes = u128::from(stretch.range.len_bytes().max(1));
    let dead_bytes = u128::from(stretch.dead_bytes.min(stretch.range.len_bytes()));
    u64::try_from(dead_bytes * u128::from(resident_bytes) / len_bytes).unwrap_or(resident_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::AddrRange;
    use crate::claim::Claim;
    use crate::snapshot::Residency;

    const PAGE: u64 = 4096;

    fn pages(first: u64, count: u64) -> AddrRange {
        AddrRange::with_len(first * PAGE, count * PAGE).unwrap()
    }

    fn resident(first: u64, count: u64) -> PageRun {
        PageRun { range: pages(first, count), residency: Residency::Resident }
    }

    fn claim(first: u64, count: u64, evidence: Evidence) -> Claim {
        Claim { range: pages(first, count), component: Component::GoHeapInUse, evidence }
    }

    #[test]
    fn what_is_not_resident_has_no_slack() {
        let owners = Owners::weigh(&[claim(16, 8, Evidence::Structure)]);
        let slack = [Slack { range: pages(16, 8), dead_bytes: 3 * PAGE }];
        let found = |runs: &[PageRun]| by_component(&slack, &owners, runs).into_values().sum::<u64>();
        assert_eq!(found(&[resident(0, 100)]), 3 * PAGE);
        assert_eq!(found(&[resident(16, 2), resident(20, 2)]), 3 * PAGE / 2);
        assert_eq!(found(&[]), 0);
    }

    #[test]
    fn a_row_whose_inside_was_not_read_has_none_at_all() {
        let owners = Owners::weigh(&[claim(16, 8, Evidence::Neighbour)]);
        let slack = [Slack { range: pages(16, 8), dead_bytes: 0 }];
        assert!(by_component(&slack, &owners, &[resident(0, 100)]).is_empty());
        assert!(by_component(&[], &owners, &[resident(0, 100)]).is_empty());
    }

    proptest! {
        #[test]
        fn slack_is_at_most_what_is_resident(
            stretches in proptest::collection::vec((0..64_u64, 1..32_u64, any::<u64>()), 0..6),
            first in 0..64_u64, count in 1..64_u64,
        ) {
            let mut next = 0;
            let mut slack = Vec::new();
            for (gap, count, dead_bytes) in stretches {
                slack.push(Slack { range: pages(next + gap, count), dead_bytes });
                next += gap + count;
            }
            let owners = Owners::weigh(&[claim(0, 1024, Evidence::Structure)]);
            let found = by_component(&slack, &owners, &[resident(first, count)]);
            prop_assert!(found.values().sum::<u64>() <= count * PAGE);
        }
    }
}
