//! One of mimalloc's pages: blocks of one size, of which three lists say that they are free.

use crate::address::AddrRange;
use crate::claim::{Component, Findings, Gap};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::runtimes::malloc::census::Census;
use crate::runtimes::malloc::pages::{PageUses, push_claim, push_slack};
use crate::target::memory::Memory;

/// Pages of more than one block are no longer than this (3: `MI_LARGE_PAGE_SIZE`).
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// Pages whose lists are followed, in bytes.
const MAX_FOLLOWED_BYTES: u64 = 512 << 30;
/// The lowest bits of a list's head that is shared between threads say how it is locked.
const LOCK_BITS: u64 = 3;

/// `mi_page_t`, whatever its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// What it takes of mimalloc's memory, from where its first slice begins.
    pub(super) range: AddrRange,
    /// Of a block, header and padding included.
    pub(super) block_bytes: u64,
    /// Blocks that were made of it so far; those beyond were never touched.
    pub(super) capacity: u64,
    /// Blocks that fit.
    pub(super) reserved: u64,
    /// Blocks in use, and those that other threads freed.
    pub(super) used: u64,
    /// First blocks of the lists of free ones: `free`, `local_free`, `xthread_free`.
    pub(super) lists: [u64; 3],
}

/// Pages as they are read: claims, and what their blocks add up to.
pub(super) struct Survey<'a> {
    memory: &'a dyn Memory,
    free: &'a AnonymousMemory,
    findings: Findings,
    census: Census,
    /// Pages whose lists could not be followed.
    torn_pages: u64,
    bytes_left: u64,
}

impl<'a> Survey<'a> {
    pub(super) fn new(memory: &'a dyn Memory, free: &'a AnonymousMemory) -> Self {
        let census = Census { arenas: 1, ..Census::default() };
        Self {
            memory,
            free,
            findings: Findings::default(),
            census,
            torn_pages: 0,
            bytes_left: MAX_FOLLOWED_BYTES,
        }
    }

    /// Claims memory that is no page: free, or mimalloc's own.
    pub(super) fn whole(&mut self, range: AddrRange, is_own: bool) {
        if is_own {
            self.census.overhead_bytes += range.len_bytes();
        }
        self.claim(range, !is_own);
    }

    /// Notes what mimalloc took from the kernel.
    pub(super) fn took(&mut self, bytes: u64) {
        self.census.system_bytes = self.census.system_bytes.saturating_add(bytes);
    }

    /// Claims a page, and counts its blocks.
    pub(super) fn page(&mut self, page: &Page) {
        let is_one_block = page.reserved <= 1;
        if page.used == 0 {
            self.census.binned.add_all(page.capacity, page.block_bytes);
            self.claim(page.range, true);
        } else if is_one_block {
            self.count(page, 1);
            self.claim(page.range, false);
        } else if page.range.len_bytes() <= MAX_PAGE_BYTES {
            self.blocks(page);
        }
    }

    pub(super) fn finish(mut self) -> (Findings, Census) {
        if self.torn_pages > 0 {
            self.findings.gaps.push(Gap {
                what: format!("which blocks are free in {} of mimalloc's pages", self.torn_pages),
                why: "the program changed their lists while they were read, or the lists are encoded; these pages \
                      count as in use"
                    .to_owned(),
                bytes: Some(self.census.unread_bytes),
            });
        }
        (self.findings, self.census)
    }

    fn claim(&mut self, range: AddrRange, is_free: bool) {
        let component = if is_free { Component::CHeapFree } else { Component::CHeapInUse };
        for part in self.free.within(range) {
            push_claim(&mut self.findings, part, component);
            if !is_free {
                push_slack(&mut self.findings, part, 0);
            }
        }
    }

    fn blocks(&mut self, page: &Page) {
        let Some(free_blocks) = self.free_blocks(page) else {
            self.torn_pages += 1;
            self.census.unread_bytes += page.range.len_bytes();
            self.count(page, page.used);
            for part in self.free.within(page.range) {
                push_claim(&mut self.findings, part, Component::CHeapInUse);
                let dead_bytes = part.len_bytes().saturating_sub(page.used * page.block_bytes);
                push_slack(&mut self.findings, part, dead_bytes);
            }
            return;
        };
        let mut uses = PageUses::new(page.range);
        let end_addr = page.first_block_addr(free_blocks.first().copied()) + page.capacity * page.block_bytes;
        uses.add_live(page.range.start_addr, end_addr.min(page.range.end_addr));
        for addr in &free_blocks {
            uses.remove_live(*addr, addr.saturating_add(page.block_bytes));
        }
        for part in self.free.within(page.range) {
            uses.claim(part, &mut self.findings);
        }
        self.count(page, page.capacity - free_blocks.len() as u64);
    }

    fn count(&mut self, page: &Page, live_blocks: u64) {
        self.census.live.add_all(live_blocks, page.block_bytes);
        self.census.by_size.add_all(live_blocks, page.block_bytes);
        self.census.binned.add_all(page.capacity.saturating_sub(live_blocks), page.block_bytes);
    }

    /// The addresses of the free blocks; `None` where a list leads out of the page, or has more blocks than there
    /// are.
    fn free_blocks(&mut self, page: &Page) -> Option<Vec<u64>> {
        let heads = page.lists.map(|head| head & !LOCK_BITS);
        let mut found = Vec::new();
        if heads == [0; 3] {
            return Some(found);
        }
        self.bytes_left = self.bytes_left.checked_sub(page.range.len_bytes())?;
        let mut bytes = vec![0; usize::try_from(page.range.len_bytes()).ok()?];
        self.memory.read_resident(page.range.start_addr, &mut bytes);
        for head in heads {
            let mut addr = head;
            while addr != 0 {
                if found.len() as u64 >= page.capacity {
                    return None;
                }
                found.push(addr);
                let offset = usize::try_from(addr.checked_sub(page.range.start_addr)?).ok()?;
                let next = bytes.get(offset..offset.checked_add(8)?)?;
                addr = u64::from_le_bytes(next.try_into().ok()?);
            }
        }
        Some(found)
    }
}

impl Page {
    /// Whether its figures can be true: those of a process that runs on, or of something else, need not be.
    pub(super) fn is_plausible(&self) -> bool {
        let blocks_bytes = self.reserved.checked_mul(self.block_bytes);
        let counts_fit = self.used <= self.capacity && self.capacity <= self.reserved && self.reserved > 0;
        counts_fit
            && self.block_bytes >= 8
            && blocks_bytes.is_some_and(|bytes| bytes <= self.range.len_bytes())
    }

    /// Where the blocks begin: as far from the start as leaves room for all of them, a whole number of blocks
    /// before one that is known. Each version leaves another lead.
    fn first_block_addr(&self, known_addr: Option<u64>) -> u64 {
        let room_bytes = self.range.len_bytes().saturating_sub(self.reserved * self.block_bytes);
        let known_offset = known_addr.map_or(0, |addr| addr.saturating_sub(self.range.start_addr));
        let lead_bytes = known_offset % self.block_bytes;
        let whole_blocks = room_bytes.saturating_sub(lead_bytes) / self.block_bytes;
        self.range.start_addr + lead_bytes + whole_blocks * self.block_bytes
    }
}
