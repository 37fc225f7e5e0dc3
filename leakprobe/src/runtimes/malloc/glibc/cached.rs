//! Freed chunks that still look as if in use, because malloc merges them with no neighbour: those in threads'
//! caches and in the arenas' fast bins. They are found by following their lists.
//!
//! Since 2.32 each pointer in a list is stored combined with the address it is stored at ("safe-linking",
//! malloc.c, `PROTECT_PTR`); which way it is shows where it leads. Refuses pointers that lead to no chunk of
//! the list's size in a heap: where the program changed a list meanwhile, what follows is not known.

use crate::address::PAGE_BYTES;
use crate::target::memory::Memory;

/// Chunks are looked up in pages kept at hand, 32 MiB at most: programs free in the order of addresses, mostly,
/// and the lists of all sizes lead through the same pages.
const KEPT_PAGES: usize = 8192;
/// Where one page follows the other, so much is read at once.
const BLOCK_BYTES: u64 = 64 << 10;
/// A list that breaks off before so many chunks is followed anew.
const BATCH_CHUNKS: usize = 1 << 16;
const MAX_ATTEMPTS: usize = 3;
/// A chunk's contents follow its header.
const HEADER_BYTES: u64 = 16;
/// The most chunks one list may have: beyond that it is a ring.
const MAX_CHUNKS: u64 = 1 << 32;

/// What a list of freed chunks points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointers {
    /// The chunks: fast bins.
    ToChunks,
    /// Their contents: threads' caches.
    ToContents,
}

/// A list to follow.
pub(super) struct List {
    pub(super) first_addr: u64,
    pub(super) pointers: Pointers,
    /// The size of its chunks; `None` where they differ.
    pub(super) chunk_bytes: Option<u64>,
}

/// Follows lists of freed chunks.
pub(super) struct Follower<'a> {
    pages: Pages<'a>,
    /// Pointers are stored as they are: to 2.31.
    are_plain: bool,
    is_in_heap: &'a dyn Fn(u64) -> bool,
}

impl<'a> Follower<'a> {
    /// `are_plain` says which way of storing pointers to try first.
    pub(super) fn new(memory: &'a dyn Memory, are_plain: bool, is_in_heap: &'a dyn Fn(u64) -> bool) -> Self {
        Self { pages: Pages::new(memory), are_plain, is_in_heap }
    }

    /// Calls `found` with address and size of each chunk; says whether the list was followed to its end.
    pub(super) fn follow(&mut self, list: &List, found: &mut dyn FnMut(u64, u64)) -> bool {
        let mut batch = Vec::new();
        for _ in 0..MAX_ATTEMPTS {
            let mut next_addr = list.first_addr;
            if self.collect(list, &mut next_addr, &mut batch).is_ok() {
                // The rest of a long list, batch by batch: its beginning will not be there a second time.
                let mut left = MAX_CHUNKS;
                loop {
                    batch.iter().for_each(|(addr, bytes)| found(*addr, *bytes));
                    left = left.saturating_sub(batch.len() as u64);
                    if next_addr == 0 || left == 0 {
                        return next_addr == 0;
                    }
                    if self.collect(list, &mut next_addr, &mut batch).is_err() {
                        batch.iter().for_each(|(addr, bytes)| found(*addr, *bytes));
                        return false;
                    }
                }
            }
            self.pages.forget();
        }
        batch.iter().for_each(|(addr, bytes)| found(*addr, *bytes));
        false
    }

    /// Collects up to [`BATCH_CHUNKS`] from `next_addr` on and leaves there where to go on, 0 at the end.
    fn collect(
        &mut self,
        list: &List,
        next_addr: &mut u64,
        batch: &mut Vec<(u64, u64)>,
    ) -> Result<(), Broken> {
        batch.clear();
        while *next_addr != 0 && batch.len() < BATCH_CHUNKS {
            let (chunk_addr, chunk_bytes) = self.chunk_at(list, *next_addr).ok_or(Broken)?;
            let link_addr = chunk_addr + HEADER_BYTES;
            *next_addr = self.decode(list, link_addr).ok_or(Broken)?;
            batch.push((chunk_addr, chunk_bytes));
        }
        Ok(())
    }

    /// The chunk a pointer of the list leads to.
    fn chunk_at(&mut self, list: &List, pointer: u64) -> Option<(u64, u64)> {
        let chunk_addr = match list.pointers {
            Pointers::ToChunks => pointer,
            Pointers::ToContents => pointer.checked_sub(HEADER_BYTES)?,
        };
        if !chunk_addr.is_multiple_of(16) || !(self.is_in_heap)(chunk_addr) {
            return None;
        }
        let chunk_bytes = self.pages.word(chunk_addr + 8) & !7;
        let fits = list.chunk_bytes.map_or(chunk_bytes > 1024, |wanted| wanted == chunk_bytes);
        (fits && chunk_bytes.is_multiple_of(16)).then_some((chunk_addr, chunk_bytes))
    }

    /// The pointer stored at `link_addr`: 0 at the end of the list.
    fn decode(&mut self, list: &List, link_addr: u64) -> Option<u64> {
        let stored = self.pages.word(link_addr);
        let protected = stored ^ (link_addr >> 12);
        let ways = if self.are_plain { [stored, protected] } else { [protected, stored] };
        ways.into_iter().find(|pointer| *pointer == 0 || self.chunk_at(list, *pointer).is_some())
    }
}

/// The program changed the list, or it was none.
struct Broken;

/// Some pages of the target, each at the place its address gives it.
struct Pages<'a> {
    memory: &'a dyn Memory,
    bytes: Vec<u8>,
    /// Address of the page that is kept at each place.
    kept_addrs: Vec<u64>,
    last_read_addr: u64,
}

impl<'a> Pages<'a> {
    fn new(memory: &'a dyn Memory) -> Self {
        Self { memory, bytes: Vec::new(), kept_addrs: Vec::new(), last_read_addr: 0 }
    }

    fn forget(&mut self) {
        self.kept_addrs.fill(u64::MAX);
    }

    /// The word at `addr`, a multiple of 8; 0 where there is none.
    fn word(&mut self, addr: u64) -> u64 {
        let page_addr = addr - addr % PAGE_BYTES;
        let place = (page_addr / PAGE_BYTES) as usize % KEPT_PAGES;
        if self.kept_addrs.get(place) != Some(&page_addr) {
            self.read(page_addr);
        }
        let offset = place * PAGE_BYTES as usize + (addr - page_addr) as usize;
        let word = self.bytes.get(offset..offset + 8);
        word.map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap_or_default()))
    }

    /// Reads a page, or all of its block where the last one was near.
    fn read(&mut self, page_addr: u64) {
        if self.bytes.is_empty() {
            // Allocated as zeroes, so that only what is read to becomes resident.
            self.bytes = vec![0; KEPT_PAGES * PAGE_BYTES as usize];
            self.kept_addrs = vec![u64::MAX; KEPT_PAGES];
        }
        let is_near = page_addr.abs_diff(self.last_read_addr) <= BLOCK_BYTES;
        self.last_read_addr = page_addr;
        let len_bytes = if is_near { BLOCK_BYTES } else { PAGE_BYTES };
        let start_addr = page_addr - page_addr % len_bytes;
        let place = (start_addr / PAGE_BYTES) as usize % KEPT_PAGES;
        let start = place * PAGE_BYTES as usize;
        self.memory.read_resident(start_addr, &mut self.bytes[start..start + len_bytes as usize]);
        let addrs = (start_addr..).step_by(PAGE_BYTES as usize);
        let places = &mut self.kept_addrs[place..place + (len_bytes / PAGE_BYTES) as usize];
        places.iter_mut().zip(addrs).for_each(|(kept_addr, addr)| *kept_addr = addr);
    }
}
