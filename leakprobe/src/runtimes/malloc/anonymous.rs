//! The private, anonymous, writable memory of a process: where allocators and runtimes keep what they
//! took from the kernel, and where pointers into it must lead before anybody follows them.
//!
//! Thread and main stacks are in it too, except `[stack]`; memory of files is not, even private.

use crate::address::AddrRange;
use crate::target::maps::Region;
use crate::target::memory::{Memory, fill_or_zero};

/// Private anonymous memory that is readable and writable, less what others own already.
#[derive(Clone, Debug, Default)]
pub struct AnonymousMemory {
    /// Sorted, not overlapping. Neighbours are kept apart: where one region ends is evidence.
    ranges: Vec<AddrRange>,
}

impl AnonymousMemory {
    /// What `regions` hold of it, without the addresses in `taken`.
    pub fn new(regions: &[Region], taken: &[AddrRange]) -> Self {
        let mut ranges: Vec<AddrRange> = regions
            .iter()
            .filter(|region| region.is_private_anonymous() && region.readable && region.writable)
            .filter(|region| !region.name.starts_with("[stack"))
            .map(|region| region.range)
            .collect();
        ranges.sort_unstable();
        // The kernel's list never overlaps; a hostile or torn one may.
        ranges.dedup_by(|next, kept| next.start_addr < kept.end_addr);
        Self { ranges }.without(taken)
    }

    /// The same memory without the addresses in `taken`, which may overlap and come in any order.
    pub fn without(&self, taken: &[AddrRange]) -> Self {
        let taken = joined(taken);
        let mut ranges = Vec::with_capacity(self.ranges.len());
        let mut first_taken = 0;
        for range in &self.ranges {
            while taken.get(first_taken).is_some_and(|taken| taken.end_addr <= range.start_addr) {
                first_taken += 1;
            }
            let mut free_addr = range.start_addr;
            for hole in taken[first_taken..].iter().take_while(|hole| hole.start_addr < range.end_addr) {
                ranges.extend(AddrRange::new(free_addr, hole.start_addr));
                free_addr = hole.end_addr;
            }
            ranges.extend(AddrRange::new(free_addr, range.end_addr));
        }
        Self { ranges }
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> &[AddrRange] {
        &self.ranges
    }

    /// The range that holds `addr`.
    pub fn range_at(&self, addr: u64) -> Option<AddrRange> {
        let after = self.ranges.partition_point(|range| range.start_addr <= addr);
        self.ranges[..after].last().copied().filter(|range| range.contains(addr))
    }

    /// From `start_addr` to where the memory it lies in ends; neighbouring ranges count as one.
    pub fn run_from(&self, start_addr: u64) -> Option<AddrRange> {
        let after = self.ranges.partition_point(|range| range.start_addr <= start_addr);
        let mut end_addr = start_addr;
        for range in &self.ranges[after.saturating_sub(1)..] {
            if !range.contains(end_addr) {
                break;
            }
            end_addr = range.end_addr;
        }
        AddrRange::new(start_addr, end_addr)
    }

    /// Whether every byte of `wanted` is in it; neighbouring ranges count as one.
    pub fn covers(&self, wanted: AddrRange) -> bool {
        let after = self.ranges.partition_point(|range| range.start_addr <= wanted.start_addr);
        let mut covered_addr = wanted.start_addr;
        for range in &self.ranges[after.saturating_sub(1)..] {
            if !range.contains(covered_addr) {
                return false;
            }
            covered_addr = range.end_addr;
            if covered_addr >= wanted.end_addr {
                return true;
            }
        }
        false
    }

    /// What of `wanted` is in it, in ascending order.
    pub fn within(&self, wanted: AddrRange) -> impl Iterator<Item = AddrRange> + '_ {
        let first = self.ranges.partition_point(|range| range.end_addr <= wanted.start_addr);
        self.ranges[first..].iter().map_while(move |range| range.intersection(&wanted))
    }

    /// Whether the `len_bytes` bytes from `start_addr` are all in it.
    pub fn covers_len(&self, start_addr: u64, len_bytes: u64) -> bool {
        AddrRange::with_len(start_addr, len_bytes).is_some_and(|wanted| self.covers(wanted))
    }
}

/// The `len_bytes` bytes from `start_addr`, zero where a page cannot be read: private anonymous memory that
/// was never touched is zero.
pub fn read_or_zero(memory: &dyn Memory, start_addr: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    fill_or_zero(memory, start_addr, &mut bytes);
    bytes
}

/// The `len_bytes` bytes from `start_addr`, zero where nothing is resident: most of a tree or a map never is.
pub fn resident(memory: &dyn Memory, start_addr: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    memory.read_resident(start_addr, &mut bytes);
    bytes
}

/// Words likewise.
pub fn resident_words(memory: &dyn Memory, start_addr: u64, words: u64) -> Vec<u64> {
    words_of(&resident(memory, start_addr, usize::try_from(words * 8).unwrap_or(0)))
}

/// The little-endian 8-byte words in `bytes`; an incomplete last one is left out.
pub fn words_of(bytes: &[u8]) -> Vec<u64> {
    let word = |piece: &[u8]| u64::from_le_bytes(piece.try_into().unwrap_or_default());
    bytes.chunks_exact(8).map(word).collect()
}

/// `ranges` in ascending order, with what overlaps or touches made one.
pub fn joined(ranges: &[AddrRange]) -> Vec<AddrRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut joined: Vec<AddrRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start_addr <= last.end_addr => {
                last.end_addr = last.end_addr.max(range.end_addr)
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::maps::parse_line;
    use crate::target::memory::ReadError;
    use crate::target::memory::canned::Pieces;

    /// A private anonymous region for the tests of this and the neighbouring modules.
    pub(crate) fn region(start_addr: u64, end_addr: u64, perms: &str, name: &str) -> Region {
        parse_line(&format!("{start_addr:x}-{end_addr:x} {perms} 00000000 00:00 0 {name}")).unwrap()
    }

    /// Memory in which every address can be read and holds a word of `pool`, the same at every read.
    pub(crate) struct Noise {
        pub(crate) seed: u64,
        pub(crate) pool: Vec<u64>,
    }

    impl Memory for Noise {
        fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
            for (offset, byte) in buf.iter_mut().enumerate() {
                let addr = addr.wrapping_add(offset as u64);
                let mixed = (addr / 8).wrapping_add(self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let word = self.pool[(mixed >> 32) as usize % self.pool.len()];
                *byte = word.to_le_bytes()[(addr % 8) as usize];
            }
            Ok(())
        }
    }

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    #[test]
    fn only_writable_private_memory_without_a_file_counts() {
        let regions = [
            region(0x1000, 0x2000, "rw-p", ""),
            region(0x2000, 0x3000, "---p", ""),
            region(0x3000, 0x4000, "rw-s", ""),
            region(0x4000, 0x5000, "rw-p", "[heap]"),
            region(0x5000, 0x6000, "rw-p", "[stack]"),
        ];
        let memory = AnonymousMemory::new(&regions, &[]);
        assert_eq!(memory.ranges(), [range(0x1000, 0x2000), range(0x4000, 0x5000)]);
    }

    #[test]
    fn covers_joins_neighbours_and_not_across_holes() {
        let regions = [
            region(0x1000, 0x2000, "rw-p", ""),
            region(0x2000, 0x3000, "rw-p", ""),
            region(0x4000, 0x5000, "rw-p", ""),
        ];
        let memory = AnonymousMemory::new(&regions, &[]);
        assert!(memory.covers(range(0x1800, 0x3000)));
        assert!(!memory.covers(range(0x1800, 0x4800)) && !memory.covers(range(0x800, 0x1800)));
        assert_eq!(memory.range_at(0x2fff), Some(range(0x2000, 0x3000)));
        assert_eq!(memory.range_at(0x3000), None);
        assert_eq!(memory.run_from(0x1800), Some(range(0x1800, 0x3000)));
        assert_eq!(memory.run_from(0x3000), None);
    }

    #[test]
    fn what_is_taken_is_cut_out() {
        let regions = [region(0x1000, 0x9000, "rw-p", "")];
        let taken =
            [range(0x6000, 0x7000), range(0x2000, 0x5000), range(0x3000, 0x4000), range(0x8000, 0xa000)];
        let memory = AnonymousMemory::new(&regions, &taken);
        assert_eq!(memory.ranges(), [range(0x1000, 0x2000), range(0x5000, 0x6000), range(0x7000, 0x8000)]);
    }

    #[test]
    fn pages_that_cannot_be_read_are_zero() {
        let memory = Pieces(vec![(0x1000, vec![1; 0x1000]), (0x3000, vec![3; 0x1000])]);
        let bytes = read_or_zero(&memory, 0x1ffe, 0x1004);
        assert_eq!((&bytes[..4], &bytes[0x1000..]), (&[1, 1, 0, 0][..], &[0, 0, 3, 3][..]));
        assert_eq!(read_or_zero(&memory, u64::MAX - 1, 8), [0; 8]);
    }

    proptest! {
        #[test]
        fn a_byte_is_left_if_and_only_if_it_was_there_and_is_not_taken(
            there in prop::collection::vec((0u64..64, 1u64..16), 0..6),
            taken in prop::collection::vec((0u64..64, 1u64..16), 0..6),
        ) {
            let taken: Vec<_> = taken.iter().filter_map(|&(s, l)| AddrRange::with_len(s, l)).collect();
            let mut there: Vec<_> = there.iter().filter_map(|&(s, l)| AddrRange::with_len(s, l)).collect();
            there.sort_unstable();
            there.dedup_by(|next, kept| next.start_addr < kept.end_addr);
            let left = AnonymousMemory { ranges: there.clone() }.without(&taken);
            for addr in 0..100 {
                let wanted = there.iter().any(|range| range.contains(addr))
                    && !taken.iter().any(|range| range.contains(addr));
                prop_assert_eq!(left.range_at(addr).is_some(), wanted, "at {}", addr);
            }
        }
    }
}
