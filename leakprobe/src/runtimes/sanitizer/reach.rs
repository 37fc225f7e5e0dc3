//! What a runtime's own variables lead to: the mappings it made for itself.
//!
//! A sanitizer keeps its threads' records, its lists, its stack depot and its allocator's regions in mappings
//! that begin with no mark, but its variables point at them, and they at each other. So words are followed, as
//! a collector of garbage would, through memory that nobody has proven to own. Refuses to say where such a
//! mapping ends but by the next one, or after 16 MiB: behind it may lie a stranger's. So this is inference,
//! and loses against every other.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence};
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// The longest mapping a sanitizer makes for itself that is touched here and there: a fake stack, 11 MiB.
const MAX_MAPPING_BYTES: u64 = 16 << 20;

/// Read at once, and looked into once.
const PIECE_BYTES: u64 = 64 << 10;

/// Pieces looked into in all: 512 MiB, where there is anything.
const MAX_PIECES: usize = 1 << 13;

/// Of the variables looked into, whatever the file says of their lengths: as much as of all they lead to. MSan has 75 MiB
/// of them, in two tables of stacks mostly.
const MAX_ROOT_BYTES: u64 = MAX_PIECES as u64 * PIECE_BYTES;

/// Pages that are followed: as many as all pieces have.
const MAX_PAGES: usize = MAX_PIECES * (PIECE_BYTES / PAGE_BYTES) as usize;

/// Claims for `component` what `roots` lead to in `free`.
pub(super) fn claims(
    memory: &dyn Memory,
    free: &AnonymousMemory,
    roots: &[AddrRange],
    component: Component,
) -> Vec<Claim> {
    let claim = |range| Claim { range, component, evidence: Evidence::Neighbour };
    reached(memory, free, roots).into_iter().map(claim).collect()
}

/// The parts of `free` that `roots` lead to.
fn reached(memory: &dyn Memory, free: &AnonymousMemory, roots: &[AddrRange]) -> Vec<AddrRange> {
    let mut search = Search { memory, free, pages: BTreeMap::new(), waiting: Vec::new() };
    let mut left_bytes = MAX_ROOT_BYTES;
    for root in roots {
        let Some(root) = AddrRange::with_len(root.start_addr, root.len_bytes().min(left_bytes)) else {
            break;
        };
        left_bytes -= root.len_bytes();
        search.look_into(root);
    }
    let mut pieces = BTreeSet::new();
    while let Some((page_addr, end_addr)) = search.waiting.pop() {
        let mut addr = page_addr;
        while addr < end_addr && pieces.len() < MAX_PIECES {
            let piece_end = (addr - addr % PIECE_BYTES + PIECE_BYTES).min(end_addr);
            // One that was begun in its middle is looked into again when its beginning is reached.
            if !pieces.contains(&addr) {
                pieces.insert(addr);
                AddrRange::new(addr, piece_end).into_iter().for_each(|piece| search.look_into(piece));
            }
            addr = piece_end;
        }
    }
    search.ranges()
}

struct Search<'a> {
    memory: &'a dyn Memory,
    free: &'a AnonymousMemory,
    /// Pages that are pointed at, with where at the latest their mapping ends.
    pages: BTreeMap<u64, u64>,
    waiting: Vec<(u64, u64)>,
}

impl Search<'_> {
    /// Follows the words of the memory at `range`.
    fn look_into(&mut self, range: AddrRange) {
        let mut addr = range.start_addr;
        let mut bytes = vec![0; PIECE_BYTES as usize];
        while addr < range.end_addr {
            let len_bytes = (range.end_addr - addr).min(PIECE_BYTES) as usize;
            if self.memory.read_resident(addr, &mut bytes[..len_bytes]) {
                let words = words_of(&bytes[..len_bytes]);
                words.into_iter().filter(|word| *word >= PAGE_BYTES).for_each(|word| self.follow(word));
            }
            addr += len_bytes as u64;
        }
    }

    fn follow(&mut self, word: u64) {
        let page_addr = word - word % PAGE_BYTES;
        if self.pages.contains_key(&page_addr) || self.pages.len() >= MAX_PAGES {
            return;
        }
        let Some(range) = self.free.range_at(word) else { return };
        let page_addr = page_addr.max(range.start_addr);
        let end_addr = range.end_addr.min(page_addr.saturating_add(MAX_MAPPING_BYTES));
        if self.pages.insert(page_addr, end_addr).is_none() {
            self.waiting.push((page_addr, end_addr));
        }
    }

    fn ranges(&self) -> Vec<AddrRange> {
        let mut ranges: Vec<AddrRange> = Vec::new();
        for (page_addr, end_addr) in &self.pages {
            match ranges.last_mut() {
                Some(last)
                    if *page_addr <= last.end_addr
                        && self.free.range_at(last.start_addr) == self.free.range_at(*page_addr) =>
                {
                    last.end_addr = last.end_addr.max(*end_addr);
                }
                _ => ranges.extend(AddrRange::new(*page_addr, *end_addr)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    const ROOT: u64 = 0x5500_0000_0000;
    const AT: u64 = 0x7f00_0000_0000;

    fn range(start_addr: u64, len_bytes: u64) -> AddrRange {
        AddrRange::with_len(start_addr, len_bytes).unwrap()
    }

    fn page(addr: u64, word: u64) -> (u64, Vec<u8>) {
        let mut bytes = vec![0; 4096];
        bytes[64..72].copy_from_slice(&word.to_le_bytes());
        (addr, bytes)
    }

    #[test]
    fn what_is_pointed_at_is_reached_and_what_lies_before_it_is_not() {
        let regions = [
            region(AT, AT + 0x4000, "rw-p", ""),
            region(AT + 0x10_0000, AT + 0x10_2000, "rw-p", ""),
            region(AT + 0x20_0000, AT + 0x20_1000, "rw-p", ""),
        ];
        let memory = Pieces(vec![page(ROOT, AT + 0x1010), page(AT + 0x1000, AT + 0x10_0000)]);
        let free = AnonymousMemory::new(&regions, &[]);
        let found = reached(&memory, &free, &[range(ROOT, 4096)]);
        assert_eq!(found, [range(AT + 0x1000, 0x3000), range(AT + 0x10_0000, 0x2000)]);
    }

    #[test]
    fn a_long_mapping_is_claimed_only_as_far_as_the_runtimes_reach() {
        let regions = [region(AT, AT + (1 << 30), "rw-p", "")];
        let memory = Pieces(vec![page(ROOT, AT)]);
        let found = reached(&memory, &AnonymousMemory::new(&regions, &[]), &[range(ROOT, 4096)]);
        assert_eq!(found, [range(AT, MAX_MAPPING_BYTES)]);
    }

    #[test]
    fn variables_that_are_said_to_be_endless_are_looked_into_as_far_as_real_ones() {
        let regions = [region(AT, AT + 0x1000, "rw-p", "")];
        let memory = Pieces(vec![page(ROOT, AT)]);
        let roots = [range(ROOT, 1 << 46), range(ROOT, 4096)];
        let found = reached(&memory, &AnonymousMemory::new(&regions, &[]), &roots);
        assert_eq!(found, [range(AT, 0x1000)]);
    }

    proptest! {
        #[test]
        fn garbage_ends_and_stays_within_what_is_free(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..4),
        ) {
            let regions = [region(AT, AT + 0x8_0000, "rw-p", "")];
            let likely = [AT, AT + 0x7_ffff, AT - 1, AT + 0x8_0000, u64::MAX];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            for range in reached(&memory, &AnonymousMemory::new(&regions, &[]), &[range(ROOT, 0x3001)]) {
                prop_assert!(regions[0].range.intersection(&range) == Some(range));
            }
        }
    }
}
