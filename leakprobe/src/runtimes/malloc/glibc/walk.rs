//! A heap's chunks from the first to the last: each header says where the next one is, and whether the chunk
//! before it is free.
//!
//! The program runs on, so no header is believed before the next one agrees with it; where that fails, the walk
//! looks for the next address from which a chain of chunks holds, and what lies between counts as in use and is
//! told. Refuses nothing: a heap of garbage is a heap that cannot be followed. The surprise: chunks in a
//! thread's cache or a fast bin look as if in use; [`super::cached`] takes them back afterwards.

use super::tcache;
use super::window::{Header, Window};
use crate::address::AddrRange;
use crate::runtimes::cpp::VtablePlaces;
use crate::runtimes::malloc::census::{BySize, Sum};
use crate::runtimes::malloc::first_words::FirstWords;
use crate::runtimes::malloc::pages::PageUses;

/// The least a chunk takes, `MINSIZE`.
const MIN_CHUNK_BYTES: u64 = 32;
/// A chunk's contents follow its header.
pub(super) const HEADER_BYTES: u64 = 16;
/// What closes a heap that could not grow: a header and nothing more.
const FENCE_BYTES: u64 = 16;
/// So many chunks in a row are no coincidence.
const CHAIN_LINKS: usize = 4;
/// Threads whose caches are looked at; each has one.
const MAX_TCACHES: usize = 1 << 16;

/// Where chunks lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Of the first chunk.
    pub(super) first_addr: u64,
    /// The top chunk, or the last header of a heap that is full.
    pub(super) end_addr: u64,
    /// It is the top chunk.
    pub(super) ends_in_top: bool,
    /// Of the main arena.
    pub(super) is_main: bool,
}

/// What one pass over a part of a heap found.
pub(super) struct Pass {
    /// Its pages.
    pub(super) pages: PageUses,
    /// The part of the last chunk that reaches beyond them, where it is in use.
    pub(super) overhang: Option<AddrRange>,
    /// Chunks in use, or in a cache.
    pub(super) in_use: Sum,
    /// The same by size.
    pub(super) by_size: BySize,
    /// Those that may begin with a vtable. Chunks in a cache do not: a list's pointer took its place.
    pub(super) first_words: FirstWords,
    /// Free chunks.
    pub(super) binned: Sum,
    /// Headers that close a heap.
    pub(super) fence_bytes: u64,
    /// What may be threads' caches.
    pub(super) tcaches: Vec<u64>,
    /// Where the next part starts.
    pub(super) next_addr: u64,
    /// Counted as in use because the chunks could not be followed.
    pub(super) unread_bytes: u64,
}

/// A walk through one heap.
pub(super) struct Walk<'w, 'm> {
    pub(super) window: &'w mut Window<'m>,
    pub(super) bounds: Bounds,
    pub(super) places: &'w VtablePlaces,
}

impl Walk<'_, '_> {
    /// Follows the chunks from `from_addr` to the first that starts at or behind `limit_addr`.
    pub(super) fn pass(&mut self, from_addr: u64, limit_addr: u64) -> Pass {
        self.window.close();
        let limit_addr = limit_addr.min(self.bounds.end_addr);
        let range = AddrRange { start_addr: from_addr, end_addr: limit_addr.max(from_addr) };
        let mut pass = Pass {
            pages: PageUses::new(range),
            overhang: None,
            in_use: Sum::default(),
            by_size: BySize::default(),
            first_words: FirstWords::default(),
            binned: Sum::default(),
            fence_bytes: 0,
            tcaches: Vec::new(),
            next_addr: from_addr,
            unread_bytes: 0,
        };
        let mut addr = from_addr;
        let mut header = self.header(addr);
        while addr < limit_addr {
            if let Some((next_addr, next)) = self.next(addr, header) {
                self.count(&mut pass, addr, next_addr - addr, next.is_prev_in_use());
                (addr, header) = (next_addr, next);
            } else {
                let resumed_addr = self.resume_after(addr);
                pass.unread_bytes += resumed_addr - addr;
                pass.add_live(addr, resumed_addr);
                addr = resumed_addr;
                header = self.header(addr);
            }
        }
        pass.next_addr = addr;
        pass
    }

    fn header(&mut self, addr: u64) -> Header {
        self.window.header(addr, self.bounds.end_addr)
    }

    /// The chunk behind the one at `addr`, if the two agree.
    #[inline]
    fn next(&mut self, addr: u64, header: Header) -> Option<(u64, Header)> {
        let next_addr = self.end_of(addr, header)?;
        let next = self.header(next_addr);
        self.agree(header, next_addr, next).then_some((next_addr, next))
    }

    /// Where the chunk at `addr` ends, if it can be one.
    #[inline]
    fn end_of(&self, addr: u64, header: Header) -> Option<u64> {
        let chunk_bytes = header.chunk_bytes();
        let is_long_enough = chunk_bytes >= MIN_CHUNK_BYTES || chunk_bytes == FENCE_BYTES;
        let end_addr = addr.checked_add(chunk_bytes)?;
        let is_sound = is_long_enough
            && chunk_bytes.is_multiple_of(16)
            && !header.is_mapped()
            && !(self.bounds.is_main && header.is_of_other_arena())
            && end_addr <= self.bounds.end_addr;
        is_sound.then_some(end_addr)
    }

    /// Whether the header behind a chunk says of it what it says of itself.
    #[inline]
    fn agree(&self, header: Header, next_addr: u64, next: Header) -> bool {
        let is_last = next_addr == self.bounds.end_addr;
        if !is_last && self.end_of(next_addr, next).is_none() {
            return false;
        }
        if next.is_prev_in_use() {
            // Chunks given out carry their arena's mark; a heap's closing headers and its unused rest do not.
            let is_marked = self.bounds.is_main || header.is_of_other_arena();
            is_marked || is_last || header.chunk_bytes() == FENCE_BYTES
        } else {
            next.prev_bytes == header.chunk_bytes()
        }
    }

    /// The next address behind `addr` from which chunks can be followed; the heap's end where there is none.
    fn resume_after(&mut self, addr: u64) -> u64 {
        let mut candidate_addr = addr.saturating_add(16);
        while candidate_addr < self.bounds.end_addr {
            let header = self.header(candidate_addr);
            if let Some(blank_end_addr) = self.window.blank_to(candidate_addr) {
                candidate_addr = blank_end_addr.max(candidate_addr + 16);
                continue;
            }
            if header.chunk_bytes() >= MIN_CHUNK_BYTES && self.holds_chain(candidate_addr, header) {
                return candidate_addr;
            }
            candidate_addr += 16;
        }
        self.bounds.end_addr
    }

    fn holds_chain(&self, mut addr: u64, mut header: Header) -> bool {
        for _ in 0..CHAIN_LINKS {
            let Some(next_addr) = self.end_of(addr, header) else { return false };
            let next = self.window.peek(next_addr);
            if !self.agree(header, next_addr, next) {
                return false;
            }
            if next_addr == self.bounds.end_addr {
                return true;
            }
            (addr, header) = (next_addr, next);
        }
        true
    }

    #[inline]
    fn count(&self, pass: &mut Pass, addr: u64, chunk_bytes: u64, is_in_use: bool) {
        if !is_in_use {
            pass.binned.add(chunk_bytes);
            return;
        }
        pass.add_live(addr, addr + chunk_bytes);
        if chunk_bytes == FENCE_BYTES {
            pass.fence_bytes += chunk_bytes;
            return;
        }
        pass.in_use.add(chunk_bytes);
        pass.by_size.add(chunk_bytes);
        let first_word = self.window.word(addr + HEADER_BYTES);
        if self.places.may_hold(first_word) {
            pass.first_words.add(first_word, chunk_bytes);
        }
        if tcache::is_size(chunk_bytes)
            && pass.tcaches.len() < MAX_TCACHES
            && tcache::is_plausible(self.window, addr)
        {
            pass.tcaches.push(addr);
        }
    }
}

impl Pass {
    #[inline]
    fn add_live(&mut self, start_addr: u64, end_addr: u64) {
        self.pages.add_live(start_addr, end_addr);
        let pages_end_addr = self.pages.end_addr();
        if end_addr > pages_end_addr {
            self.overhang = AddrRange::new(start_addr.max(pages_end_addr), end_addr);
        }
    }
}
