//! mimalloc 3: a map of two levels from addresses to pages' descriptions, and arenas of up to some GiB.

use std::collections::BTreeMap;

use super::page::{Page, Survey};
use crate::address::AddrRange;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, resident_words, words_of};
use crate::target::memory::Memory;

const SLICE_BYTES: u64 = 64 << 10;
/// First level: 2^18 pointers for 47 bits of address. Second: 2^13 pointers, one to a slice.
const MAP_WORDS: u64 = 1 << 18;
const PART_WORDS: u64 = 1 << 13;
/// Variables that are searched for the map, and pointers in them that are tried.
const MAX_SEARCHED_BYTES: u64 = 4 << 20;
const MAX_TRIED: usize = 256;
/// Words of one part that lead somewhere and are looked at to try it.
const MAX_TRIED_WORDS: usize = 16;
/// Parts of the map that are followed: 2 TiB of addresses.
const MAX_PARTS: usize = 1 << 12;
/// Descriptions that are read: of the smallest pages, 256 GiB.
const MAX_PAGES: usize = 1 << 22;
/// `mi_page_t` up to its origin, `memid`.
const PAGE_WORDS: usize = 15;
/// There are no more (`MI_MAX_ARENAS`).
const MAX_ARENAS: usize = 160;
/// No release keeps more of an arena for itself.
const MAX_ARENA_SLICES: u64 = 1 << 26;

/// Surveys all pages that the map leads to, and the rest of the arenas they lie in; whether there is a map.
pub(super) fn read(
    memory: &dyn Memory,
    variables: &[AddrRange],
    free: &AnonymousMemory,
    survey: &mut Survey<'_>,
) -> bool {
    let map = Map { memory, free };
    let Some(map_addr) = variables.iter().find_map(|range| map.find(*range)) else { return false };
    let (pages, arenas) = map.pages(map_addr);
    for arena in arenas.values() {
        survey.took(arena.range.len_bytes());
        survey.whole(arena.own, true);
        let mut addr = arena.own.end_addr;
        for (start_addr, page) in pages.range(arena.own.end_addr..arena.range.end_addr) {
            if *start_addr < addr {
                continue; // two states of one page
            }
            if let Some(between) = AddrRange::new(addr, *start_addr) {
                survey.whole(between, false);
            }
            survey.page(page);
            addr = addr.max(page.range.end_addr);
        }
        if let Some(rest) = AddrRange::new(addr, arena.range.end_addr) {
            survey.whole(rest, false);
        }
    }
    let mut addr = 0;
    let is_in_arena = |addr: u64| arenas.values().any(|arena| arena.range.contains(addr));
    for page in pages.values().filter(|page| !is_in_arena(page.range.start_addr)) {
        if page.range.start_addr >= addr {
            survey.took(page.range.len_bytes());
            survey.page(page);
            addr = page.range.end_addr;
        }
    }
    true
}

/// Where a page came from, if from an arena.
struct Origin {
    arena_addr: u64,
    slice_index: u64,
    slice_addr: u64,
}

struct Arena {
    range: AddrRange,
    /// Its bitmaps and the descriptions of its pages.
    own: AddrRange,
}

struct Map<'a> {
    memory: &'a dyn Memory,
    free: &'a AnonymousMemory,
}

impl Map<'_> {
    /// The map, where a word of `variables` leads to it.
    fn find(&self, variables: AddrRange) -> Option<u64> {
        let start_addr = variables.start_addr.checked_next_multiple_of(8)?;
        let len_bytes = variables.end_addr.checked_sub(start_addr)?.min(MAX_SEARCHED_BYTES);
        let words = resident_words(self.memory, start_addr, len_bytes / 8);
        let likely = words.into_iter().filter(|word| {
            *word != 0 && word.is_multiple_of(8) && self.free.covers_len(*word, MAP_WORDS * 8)
        });
        let mut parts_left = MAX_PARTS;
        likely.take(MAX_TRIED).find(|map_addr| self.is_map(*map_addr, &mut parts_left))
    }

    /// All pages, and the arenas they lie in, by address.
    fn pages(&self, map_addr: u64) -> (BTreeMap<u64, Page>, BTreeMap<u64, Arena>) {
        let (mut pages, mut arenas) = (BTreeMap::new(), BTreeMap::new());
        let mut tries_left = MAX_PAGES;
        for (part_addr, first_slice) in self.parts(map_addr) {
            let mut last_addr = 0;
            for (slice, page_addr) in (first_slice..).zip(resident_words(self.memory, part_addr, PART_WORDS))
            {
                if page_addr == 0 || page_addr == last_addr || tries_left == 0 {
                    continue;
                }
                tries_left -= 1;
                last_addr = page_addr;
                let Some((page, origin)) = self.page(page_addr, slice) else { continue };
                if !arenas.contains_key(&origin.arena_addr) && arenas.len() < MAX_ARENAS {
                    arenas.extend(self.arena(&origin).map(|arena| (origin.arena_addr, arena)));
                }
                pages.insert(page.range.start_addr, page);
            }
        }
        (pages, arenas)
    }

    /// Some part of it leads to a page that begins in the slice that led there.
    /// `parts_left` of all that are tried: a real map answers in its first ones.
    fn is_map(&self, map_addr: u64, parts_left: &mut usize) -> bool {
        self.parts(map_addr).into_iter().take(*parts_left).any(|(part_addr, slice)| {
            *parts_left -= 1;
            let words = (slice..).zip(resident_words(self.memory, part_addr, PART_WORDS));
            let some = words.filter(|(_, page_addr)| *page_addr != 0).take(MAX_TRIED_WORDS);
            some.into_iter().any(|(slice, page_addr)| self.page(page_addr, slice).is_some())
        })
    }

    /// The parts of the map, each with the number of its first slice.
    fn parts(&self, map_addr: u64) -> Vec<(u64, u64)> {
        let numbered = (0..).zip(resident_words(self.memory, map_addr, MAP_WORDS));
        let is_part = |addr: u64| addr != 0 && self.free.covers_len(addr, PART_WORDS * 8);
        let parts = numbered.filter(|(_, part_addr)| is_part(*part_addr));
        parts.map(|(number, part_addr)| (part_addr, number * PART_WORDS)).take(MAX_PARTS).collect()
    }

    /// The page described at `page_addr`, where it begins in that slice.
    fn page(&self, page_addr: u64, slice: u64) -> Option<(Page, Origin)> {
        let words = words_of(&self.memory.read_vec(page_addr, PAGE_WORDS * 8).ok()?);
        let (counts, block_bytes, blocks_addr) = (words[2], words[5], words[6]);
        let slice_addr = slice.checked_mul(SLICE_BYTES)?;
        if blocks_addr / SLICE_BYTES != slice {
            return None;
        }
        let reserved = counts >> 32 & 0xffff;
        let end_addr = blocks_addr.checked_add(block_bytes.checked_mul(reserved)?)?;
        let range = AddrRange::new(slice_addr, end_addr.checked_next_multiple_of(SLICE_BYTES)?)?;
        let page = Page {
            range,
            block_bytes,
            used: counts & 0xffff,
            capacity: counts >> 16 & 0xffff,
            reserved,
            lists: [words[1], words[3], words[4]],
        };
        let origin = Origin { arena_addr: words[12], slice_index: words[13] & 0xffff_ffff, slice_addr };
        page.is_plausible().then_some((page, origin))
    }

    /// The arena that a page says it came from, where the page lies in it at the place it says.
    fn arena(&self, origin: &Origin) -> Option<Arena> {
        let offset_bytes = origin.slice_index.checked_mul(SLICE_BYTES)?;
        if origin.arena_addr.checked_add(offset_bytes)? != origin.slice_addr {
            return None;
        }
        let words = words_of(&self.memory.read_vec(origin.arena_addr, 56).ok()?);
        let (slices, own_slices) = (words[5], words[6]);
        let fits =
            own_slices <= origin.slice_index && origin.slice_index < slices && slices <= MAX_ARENA_SLICES;
        let range = AddrRange::with_len(origin.arena_addr, slices.checked_mul(SLICE_BYTES)?)?;
        let own = AddrRange::with_len(origin.arena_addr, own_slices.checked_mul(SLICE_BYTES)?)?;
        fits.then_some(Arena { range, own })
    }
}
