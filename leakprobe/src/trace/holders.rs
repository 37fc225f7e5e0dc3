//! Who touched each page last: one small entry a page, in blocks of 64, so that what the table costs
//! grows with what the target touched, up to a limit.

use std::collections::BTreeMap;

use super::decode::Access;
use crate::address::{AddrRange, HUGE_PAGE_BYTES, PAGE_BYTES};

const BLOCK_PAGES: u64 = 64;
const HUGE_PAGES: u64 = HUGE_PAGE_BYTES / PAGE_BYTES;
/// Blocks kept at most, some 130 MiB of them: 40 GiB touched side by side. Faults that fail leave entries
/// too, and a target may take as many of those as it likes.
const MAX_BLOCKS: usize = 160_000;
/// The first touch that made a page resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Index of the stack in the recording; `None` where the sample did not fall on it.
    pub stack: Option<u32>,
    /// How many faults its stack stands for.
    pub weight: u32,
}

/// A page touched in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Where the page begins.
    pub addr: u64,
    /// Who touched it.
    pub holder: Holder,
    /// When: microseconds, from about the window's start.
    pub micros: u32,
}

/// 12 bytes a page, 0 in `touched` meaning "not touched".
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Microseconds since the window's start, plus one.
    touched: u32,
    /// Stack's index plus one; 0 for no stack.
    stack: u32,
    /// The weight; the highest bit says that the page was written to.
    weight_and_written: u32,
}

const WRITTEN: u32 = 1 << 31;

impl Slot {
    fn new(micros: u32, holder: Holder, written: bool) -> Self {
        Self {
            touched: micros.saturating_add(1),
            stack: holder.stack.map_or(0, |stack| stack + 1),
            weight_and_written: holder.weight.min(WRITTEN - 1) | if written { WRITTEN } else { 0 },
        }
    }

    fn holder(&self) -> Holder {
        Holder { stack: self.stack.checked_sub(1), weight: self.weight_and_written & !WRITTEN }
    }

    fn is_touched(&self) -> bool {
        self.touched != 0
    }

    /// Whether the page's own bytes came with this touch: a page that was only read may be all zeroes, which
    /// count for nothing, or a file's, which writing replaces by a copy.
    fn is_settled_by(&self, access: Access) -> bool {
        self.is_touched() && access.present && (self.weight_and_written & WRITTEN != 0 || !access.write)
    }
}

/// The last touch of every page since the window began.
#[derive(Default)]
pub struct PageHolders {
    blocks: BTreeMap<u64, Box<[Slot; BLOCK_PAGES as usize]>>,
    /// By number of the huge page: the last touch in it that was forgotten while others of its pages stayed. It
    /// may have made all of them resident.
    split: BTreeMap<u64, Slot>,
    refused: u64,
}

impl PageHolders {
    /// Notes that the page of `addr` was touched `micros` after the window's start. A touch that found the page
    /// there changes its holder only where the page was but read before: what a parent copies after a fork,
    /// another made resident.
    pub fn touch(&mut self, addr: u64, micros: u32, holder: Holder, access: Access) {
        let page = addr / PAGE_BYTES;
        if self.blocks.len() >= MAX_BLOCKS && !self.blocks.contains_key(&(page / BLOCK_PAGES)) {
            self.refused += 1;
            return;
        }
        let slot = &mut self.block(page / BLOCK_PAGES)[(page % BLOCK_PAGES) as usize];
        if !slot.is_settled_by(access) {
            *slot = Slot::new(micros, holder, access.write);
        }
    }

    /// Whether the page of `addr` was touched and not given back since.
    pub fn is_touched(&self, addr: u64) -> bool {
        let page = addr / PAGE_BYTES;
        let block = self.blocks.get(&(page / BLOCK_PAGES));
        block.is_some_and(|block| block[(page % BLOCK_PAGES) as usize].is_touched())
    }

    /// How many touches found no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Forgets the touches of `range` made before `micros`: later ones came after the unmapping that
    /// was entered then.
    pub fn clear(&mut self, range: AddrRange, micros: u32) {
        let first = range.start_addr / PAGE_BYTES;
        let last = (range.end_addr - 1) / PAGE_BYTES;
        let blocks = first / BLOCK_PAGES..=last / BLOCK_PAGES;
        let whole = first.next_multiple_of(HUGE_PAGES)..(last + 1) / HUGE_PAGES * HUGE_PAGES;
        if !whole.is_empty() {
            let huge = whole.start / HUGE_PAGES..whole.end / HUGE_PAGES;
            while let Some((&number, _)) = self.split.range(huge.clone()).next() {
                self.split.remove(&number);
            }
        }
        let mut emptied = Vec::new();
        for (&number, block) in self.blocks.range_mut(blocks) {
            for (index, slot) in block.iter_mut().enumerate() {
                let page = number * BLOCK_PAGES + index as u64;
                if (first..=last).contains(&page) && slot.is_touched() && slot.touched <= micros {
                    let huge = page / HUGE_PAGES;
                    if whole.contains(&page) {
                        // All of its pages go.
                    } else if self.split.len() < MAX_BLOCKS || self.split.contains_key(&huge) {
                        self.split.insert(huge, *slot);
                    } else {
                        self.refused += 1;
                    }
                    *slot = Slot::default();
                }
            }
            if !block.iter().any(Slot::is_touched) {
                emptied.push(number);
            }
        }
        for number in emptied {
            self.blocks.remove(&number);
        }
    }

    /// Moves what is known of `from` to as many pages from `to_addr` on, as mremap does.
    pub fn rename(&mut self, from: AddrRange, to_addr: u64) {
        let pages: Vec<(u64, Slot)> = self.touched(from).map(|(addr, slot)| (addr, *slot)).collect();
        self.clear(from, u32::MAX);
        for (addr, slot) in pages {
            let page = (to_addr + (addr - from.start_addr)) / PAGE_BYTES;
            self.block(page / BLOCK_PAGES)[(page % BLOCK_PAGES) as usize] = slot;
        }
    }

    /// The pages touched and not given back since, in the order of their addresses.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        let all = AddrRange { start_addr: 0, end_addr: u64::MAX };
        self.touched(all).map(|(addr, _)| addr)
    }

    /// The pages of `range` touched and not given back, by address, each with its holder and when it was touched.
    pub fn within(&self, range: AddrRange) -> impl Iterator<Item = Touch> + '_ {
        self.touched(range).map(|(addr, slot)| Touch { addr, holder: slot.holder(), micros: slot.touched })
    }

    /// Who touched the huge page around `addr` and gave back the part that was touched.
    pub fn split_by(&self, addr: u64) -> Option<Holder> {
        self.split.get(&(addr / HUGE_PAGE_BYTES)).map(Slot::holder)
    }

    fn block(&mut self, number: u64) -> &mut [Slot; BLOCK_PAGES as usize] {
        self.blocks.entry(number).or_insert_with(|| Box::new([Slot::default(); BLOCK_PAGES as usize]))
    }

    fn touched(&self, range: AddrRange) -> impl Iterator<Item = (u64, &Slot)> {
        let first = range.start_addr / PAGE_BYTES;
        let last = (range.end_addr - 1) / PAGE_BYTES;
        self.blocks.range(first / BLOCK_PAGES..=last / BLOCK_PAGES).flat_map(move |(&number, block)| {
            block.iter().enumerate().filter_map(move |(index, slot)| {
                let page = number * BLOCK_PAGES + index as u64;
                (slot.is_touched() && (first..=last).contains(&page)).then_some((page * PAGE_BYTES, slot))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(stack: u32) -> Holder {
        Holder { stack: Some(stack), weight: 1 }
    }

    const NEW: Access = Access { present: false, write: true };
    const COPY: Access = Access { present: true, write: true };
    const LOOK: Access = Access { present: false, write: false };

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    fn at(holders: &PageHolders, addr: u64) -> Option<Holder> {
        holders.within(range(addr, addr + 1)).next().map(|touch| touch.holder)
    }

    #[test]
    fn the_last_touch_holds_a_page_until_it_is_unmapped() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 10, by(1), NEW);
        holders.touch(0x5fff, 20, by(2), NEW);
        assert_eq!(at(&holders, 0x5123), Some(by(2)));
        holders.clear(range(0x5000, 0x6000), 30);
        assert_eq!(at(&holders, 0x5123), None);
        assert!(holders.blocks.is_empty() && !holders.is_touched(0x5000));
    }

    #[test]
    fn a_touch_after_the_unmap_was_entered_survives_it() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 31, by(1), NEW);
        holders.clear(range(0x5000, 0x6000), 30);
        assert_eq!(at(&holders, 0x5000), Some(by(1)));
    }

    #[test]
    fn what_is_copied_after_a_fork_stays_its_first_writers() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 1, by(1), NEW);
        holders.touch(0x5000, 2, by(2), COPY);
        assert_eq!(at(&holders, 0x5000), Some(by(1)));
    }

    #[test]
    fn who_writes_first_takes_a_page_that_was_only_read() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 1, by(1), LOOK);
        holders.touch(0x5000, 2, by(2), COPY);
        holders.touch(0x5000, 3, by(3), COPY);
        assert_eq!(at(&holders, 0x5000), Some(by(2)));
    }

    #[test]
    fn a_huge_page_of_which_the_touched_part_was_given_back_is_remembered() {
        let mut holders = PageHolders::default();
        holders.touch(0x40_3000, 1, by(1), NEW);
        holders.clear(range(0x40_0000, 0x41_0000), 2);
        assert_eq!(holders.split_by(0x5f_f000), Some(by(1)));
        assert_eq!(holders.split_by(0x60_0000), None);
        holders.clear(range(0x30_0000, 0x60_0000), 3);
        assert_eq!(holders.split_by(0x5f_f000), None);
    }

    #[test]
    fn moved_pages_keep_their_holders() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 1, by(1), NEW);
        holders.touch(0x7000, 1, by(2), NEW);
        holders.rename(range(0x5000, 0x8000), 0x10_0000);
        assert_eq!(holders.pages().collect::<Vec<_>>(), [0x10_0000, 0x10_2000]);
    }
}
