//! What became resident, or changed its address, without a fault: ranges that the kernel filled when a system call
//! asked for it, and ranges that mremap moved.
//!
//! The surprise: that a call asked for it does not make it so. Whoever asks here has a page that is resident and
//! that nobody touched; where nothing was filled, there is no such page.

use rangemap::RangeMap;

use crate::address::{AddrRange, HUGE_PAGE_BYTES};

/// Ranges kept at most, of each sort.
const MAX_RANGES: usize = 100_000;

/// The call that filled memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// mmap with `MAP_POPULATE`, or of memory that is locked.
    Map,
    /// madvise with `MADV_POPULATE_READ` or `MADV_POPULATE_WRITE`.
    Advice,
    /// mlock, mlock2.
    Lock,
    /// madvise with `MADV_COLLAPSE`: made huge pages, whole ones.
    Collapse,
}

/// A range that was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// By which call.
    pub by: By,
    /// Index of the call's stack; `None` where the sample did not fall on it.
    pub stack: Option<u32>,
    /// As if it were written to, and not read only.
    pub writes: bool,
    /// When it was known.
    pub at_ns: u64,
}

/// What was filled, and what was moved.
#[derive(Default)]
pub struct Fills {
    filled: RangeMap<u64, Fill>,
    /// Where pages lie now, by how far they were moved there, modulo 2^64.
    moved: RangeMap<u64, Move>,
    refused: u64,
}

/// A move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    by_bytes: u64,
    at_ns: u64,
}

impl Fills {
    /// Notes that `range` was filled. What was filled before stays as it is: that is there already.
    pub fn fill(&mut self, range: AddrRange, fill: Fill) {
        let range = if fill.by == By::Collapse { whole_huge_pages(range) } else { Some(range) };
        let Some(range) = range else { return };
        if self.filled.len() >= MAX_RANGES {
            self.refused += 1;
            return;
        }
        let span = range.start_addr..range.end_addr;
        let new: Vec<_> = self.filled.gaps(&span).collect();
        for part in new {
            self.filled.insert(part, fill);
        }
    }

    /// Forgets what was known of `range` before `entered_ns`.
    pub fn clear(&mut self, range: AddrRange, entered_ns: u64) {
        forget(&mut self.filled, range, |fill| fill.at_ns > entered_ns);
        forget(&mut self.moved, range, |moved| moved.at_ns > entered_ns);
    }

    /// Moves what is known of `from` to `to_addr`, where its pages are now.
    pub fn rename(&mut self, from: AddrRange, to_addr: u64, at_ns: u64) {
        let by_bytes = to_addr.wrapping_sub(from.start_addr);
        for (range, fill) in take(&mut self.filled, from) {
            self.filled.insert(range.start.wrapping_add(by_bytes)..range.end.wrapping_add(by_bytes), fill);
        }
        let before = take(&mut self.moved, from);
        let Some(to) = AddrRange::with_len(to_addr, from.len_bytes()) else { return };
        if self.moved.len() + before.len() >= MAX_RANGES {
            self.refused += 1;
            return;
        }
        self.moved.insert(to.start_addr..to.end_addr, Move { by_bytes, at_ns });
        for (range, earlier) in before {
            let range = range.start.wrapping_add(by_bytes)..range.end.wrapping_add(by_bytes);
            self.moved.insert(range, Move { by_bytes: earlier.by_bytes.wrapping_add(by_bytes), at_ns });
        }
    }

    /// What filled the page at `addr`.
    pub fn at(&self, addr: u64) -> Option<&Fill> {
        self.filled.get(&addr)
    }

    /// Where what lies at `addr` was when the window began, where mremap moved it.
    pub fn origin(&self, addr: u64) -> Option<u64> {
        self.moved.get(&addr).map(|moved| addr.wrapping_sub(moved.by_bytes))
    }

    /// What mremap moved: where it is, and where it was when the window began.
    pub fn moves(&self) -> impl Iterator<Item = (AddrRange, AddrRange)> + '_ {
        self.moved.iter().filter_map(|(range, moved)| {
            let now = AddrRange::new(range.start, range.end)?;
            Some((now, AddrRange::with_len(now.start_addr.wrapping_sub(moved.by_bytes), now.len_bytes())?))
        })
    }

    /// How many ranges found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn whole_huge_pages(range: AddrRange) -> Option<AddrRange> {
    let start_addr = range.start_addr.checked_next_multiple_of(HUGE_PAGE_BYTES)?;
    AddrRange::new(start_addr, range.end_addr & !(HUGE_PAGE_BYTES - 1))
}

/// Removes `range` but for the parts whose values are to be kept.
fn forget<V: Copy + Eq>(map: &mut RangeMap<u64, V>, range: AddrRange, is_kept: impl Fn(&V) -> bool) {
    for (part, value) in take(map, range) {
        if is_kept(&value) {
            map.insert(part, value);
        }
    }
}

/// Removes `range`, and says what was there.
fn take<V: Copy + Eq>(map: &mut RangeMap<u64, V>, range: AddrRange) -> Vec<(std::ops::Range<u64>, V)> {
    if map.is_empty() {
        return Vec::new();
    }
    let span = range.start_addr..range.end_addr;
    let inside = |part: &std::ops::Range<u64>| part.start.max(span.start)..part.end.min(span.end);
    let taken = map.overlapping(&span).map(|(part, value)| (inside(part), *value)).collect();
    map.remove(span);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    fn fill(by: By, stack: u32) -> Fill {
        Fill { by, stack: Some(stack), writes: true, at_ns: 10 }
    }

    #[test]
    fn what_was_filled_first_stays_and_what_was_unmapped_goes() {
        let mut fills = Fills::default();
        fills.fill(range(0x1000, 0x3000), fill(By::Map, 1));
        fills.fill(range(0x2000, 0x5000), fill(By::Lock, 2));
        let stack = |fills: &Fills, addr| fills.at(addr).and_then(|fill| fill.stack);
        assert_eq!([0x1000, 0x2000, 0x4000].map(|addr| stack(&fills, addr)), [Some(1), Some(1), Some(2)]);
        fills.clear(range(0x2000, 0x4000), 20);
        assert_eq!([0x1000, 0x2000, 0x4000].map(|addr| stack(&fills, addr)), [Some(1), None, Some(2)]);
        fills.clear(range(0x0, 0x9000), 5);
        assert_eq!(stack(&fills, 0x1000), Some(1), "an unmapping that began before");
    }

    #[test]
    fn only_whole_huge_pages_collapse() {
        let mut fills = Fills::default();
        fills.fill(range(0x30_0000, 0x70_0000), fill(By::Collapse, 1));
        let is_filled = |addr| fills.at(addr).is_some();
        assert!(
            !is_filled(0x3f_f000) && is_filled(0x40_0000) && is_filled(0x5f_f000) && !is_filled(0x60_0000)
        );
    }

    #[test]
    fn a_page_that_moved_twice_came_from_its_first_place() {
        let mut fills = Fills::default();
        fills.fill(range(0x1000, 0x2000), fill(By::Map, 1));
        fills.rename(range(0x1000, 0x3000), 0x9000, 1);
        fills.rename(range(0xa000, 0xb000), 0x5000, 2);
        assert_eq!(
            [0x9000, 0xa000, 0x5000].map(|addr| fills.origin(addr)),
            [Some(0x1000), None, Some(0x2000)]
        );
        assert!(fills.at(0x9000).is_some() && fills.at(0x1000).is_none());
        fills.clear(range(0x9000, 0xa000), 3);
        assert_eq!(fills.origin(0x9000), None);
    }
}
