//! Who touched each page last: one small entry a page, in blocks of 64, so that what the table costs
//! grows with what the target touched, up to a limit.

use std::collections::BTreeMap;

use crate::address::{AddrRange, HUGE_PAGE_BYTES, PAGE_BYTES};

const BLOCK_PAGES: u64 = 64;
/// Blocks kept at most, some 130 MiB of them: 40 GiB touched side by side. Faults that fail leave entries
/// too, and a target may take as many of those as it likes.
const MAX_BLOCKS: usize = 160_000;
/// A fault maps up to 16 pages around it where they are in the page cache already
/// (Linux `mm/memory.c`, `fault_around_pages`), and folios of anonymous memory may be as large.
const FAULT_AROUND_BYTES: u64 = 64 << 10;

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
    weight: u32,
}

impl Slot {
    fn holder(&self) -> Holder {
        Holder { stack: self.stack.checked_sub(1), weight: self.weight }
    }
}

/// The last touch of every page since the window began.
#[derive(Default)]
pub struct PageHolders {
    blocks: BTreeMap<u64, Box<[Slot; BLOCK_PAGES as usize]>>,
    refused: u64,
}

impl PageHolders {
    /// Notes that the page of `addr` was touched `micros` after the window's start.
    pub fn touch(&mut self, addr: u64, micros: u32, holder: Holder) {
        let page = addr / PAGE_BYTES;
        if self.blocks.len() >= MAX_BLOCKS && !self.blocks.contains_key(&(page / BLOCK_PAGES)) {
            self.refused += 1;
            return;
        }
        let block = self.blocks.entry(page / BLOCK_PAGES).or_insert_with(|| Box::new([Slot::default(); 64]));
        block[(page % BLOCK_PAGES) as usize] = Slot {
            touched: micros.saturating_add(1),
            stack: holder.stack.map_or(0, |stack| stack + 1),
            weight: holder.weight,
        };
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
        let mut emptied = Vec::new();
        for (&number, block) in self.blocks.range_mut(blocks) {
            for (index, slot) in block.iter_mut().enumerate() {
                let page = number * BLOCK_PAGES + index as u64;
                if (first..=last).contains(&page) && slot.touched <= micros {
                    *slot = Slot::default();
                }
            }
            if block.iter().all(|slot| slot.touched == 0) {
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
            let block =
                self.blocks.entry(page / BLOCK_PAGES).or_insert_with(|| Box::new([Slot::default(); 64]));
            block[(page % BLOCK_PAGES) as usize] = slot;
        }
    }

    /// Who made the page at `addr` resident: who touched it, else who touched a neighbour that the
    /// kernel maps together with it, within `huge` pages or the usual few.
    pub fn holder(&self, addr: u64, huge: bool) -> Option<Holder> {
        let exact = AddrRange::with_len(addr & !(PAGE_BYTES - 1), PAGE_BYTES)?;
        let around = |bytes: u64| AddrRange::with_len(addr & !(bytes - 1), bytes);
        self.nearest(exact, addr)
            .or_else(|| self.nearest(around(FAULT_AROUND_BYTES)?, addr))
            .or_else(|| if huge { self.nearest(around(HUGE_PAGE_BYTES)?, addr) } else { None })
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

    fn nearest(&self, range: AddrRange, addr: u64) -> Option<Holder> {
        let (_, slot) = self.touched(range).min_by_key(|(page_addr, _)| page_addr.abs_diff(addr))?;
        Some(slot.holder())
    }

    fn touched(&self, range: AddrRange) -> impl Iterator<Item = (u64, &Slot)> {
        let first = range.start_addr / PAGE_BYTES;
        let last = (range.end_addr - 1) / PAGE_BYTES;
        self.blocks.range(first / BLOCK_PAGES..=last / BLOCK_PAGES).flat_map(move |(&number, block)| {
            block.iter().enumerate().filter_map(move |(index, slot)| {
                let page = number * BLOCK_PAGES + index as u64;
                (slot.touched != 0 && (first..=last).contains(&page)).then_some((page * PAGE_BYTES, slot))
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

    #[test]
    fn the_last_touch_holds_a_page_until_it_is_unmapped() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 10, by(1));
        holders.touch(0x5fff, 20, by(2));
        assert_eq!(holders.holder(0x5123, false), Some(by(2)));
        holders.clear(AddrRange::new(0x5000, 0x6000).unwrap(), 30);
        assert_eq!(holders.holder(0x5123, false), None);
        assert!(holders.blocks.is_empty());
    }

    #[test]
    fn a_touch_after_the_unmap_was_entered_survives_it() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 31, by(1));
        holders.clear(AddrRange::new(0x5000, 0x6000).unwrap(), 30);
        assert_eq!(holders.holder(0x5000, false), Some(by(1)));
    }

    #[test]
    fn neighbours_hold_what_the_kernel_maps_around_a_fault() {
        let mut holders = PageHolders::default();
        holders.touch(0x40_3000, 1, by(1));
        assert_eq!(holders.holder(0x40_f000, false), Some(by(1)));
        assert_eq!(holders.holder(0x41_0000, false), None);
        assert_eq!(holders.holder(0x5f_f000, true), Some(by(1)));
        assert_eq!(holders.holder(0x60_0000, true), None);
    }

    #[test]
    fn moved_pages_keep_their_holders() {
        let mut holders = PageHolders::default();
        holders.touch(0x5000, 1, by(1));
        holders.touch(0x7000, 1, by(2));
        holders.rename(AddrRange::new(0x5000, 0x8000).unwrap(), 0x10_0000);
        assert_eq!(holders.pages().collect::<Vec<_>>(), [0x10_0000, 0x10_2000]);
    }
}
