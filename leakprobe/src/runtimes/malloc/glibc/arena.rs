//! Arenas: `main_arena`, found by its bins, and the 64 MiB-aligned heaps of the others, found by `heap_info`.
//!
//! Refuses an arena whose fields contradict each other. The surprise: everything hangs on the bins. An
//! empty bin points at itself, and what precedes and follows the bins has kept its place for 20 years,
//! while the front of `malloc_state` has lost and gained fields.

use std::collections::HashSet;

use super::DataWords;
use super::walk::Bounds;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// Alignment and greatest size of a heap: `HEAP_MAX_SIZE`, arena.c.
const HEAP_BYTES: u64 = 64 << 20;

/// Heaps cannot be told from other memory without a look at each 64 MiB boundary. 65,536 of them are 4 TiB of
/// address space.
const MAX_HEAP_ADDRS: usize = 1 << 16;

/// More arenas than this no process has: the default limit is 8 for each CPU.
const MAX_ARENAS: usize = 1 << 16;

/// Where `bins` starts in `malloc_state`, by version: 2.27 to 2.42; to 2.26, without `have_fastchunks`;
/// since 2.43, without fast bins. Tried on 2.31, 2.36, 2.41 and 2.43; to 2.26 as malloc.c has it.
const BINS_OFFSETS: [u64; 3] = [112, 104, 24];

/// Where `malloc_state` starts behind `heap_info`: 48 since 2.35, which added `pagesize`; 32 before (2.31).
const STATE_IN_HEAP_OFFSETS: [u64; 2] = [48, 32];

/// `fastbinsY` lies before `top`: ten bins in every version that has them.
const FAST_BINS_BEFORE_BINS: u64 = 96;
const FAST_BINS: usize = 10;

/// `NBINS` - 1; each bin is two words. Bin j's header lies two words before its own `fd`.
const BINS: usize = 127;

// Words relative to the first word of `bins`: malloc.c, struct malloc_state.
const TOP_BEFORE_BINS: usize = 2;
const NEXT_AFTER_BINS: usize = 2 * BINS + 2;
const SYSTEM_MEM_AFTER_BINS: usize = NEXT_AFTER_BINS + 3;
const MAX_SYSTEM_MEM_AFTER_BINS: usize = NEXT_AFTER_BINS + 4;
const WORDS_FROM_TOP: usize = TOP_BEFORE_BINS + MAX_SYSTEM_MEM_AFTER_BINS + 1;

/// What is needed of a `malloc_state`.
struct State {
    top_addr: u64,
    next_addr: u64,
    system_bytes: u64,
    /// `top` still points at the bins: no memory was taken from the kernel yet.
    is_unused: bool,
}

impl State {
    /// Understands `words`, which start with `top`; `bins_addr` is the address of the first bin.
    /// `None` unless they can be a `malloc_state`.
    fn parse(words: &[u64], bins_addr: u64) -> Option<Self> {
        let words = words.get(..WORDS_FROM_TOP)?;
        let (top_addr, bins) = (words[0], &words[TOP_BEFORE_BINS..]);
        let next_addr = bins[NEXT_AFTER_BINS];
        let (system_bytes, max_system_bytes) = (bins[SYSTEM_MEM_AFTER_BINS], bins[MAX_SYSTEM_MEM_AFTER_BINS]);
        // Cheap tests first: the scan of libc's data comes here for every word.
        if top_addr == 0 || next_addr == 0 || !top_addr.is_multiple_of(16) || !next_addr.is_multiple_of(16) {
            return None;
        }
        if system_bytes > max_system_bytes {
            return None;
        }
        let mut empty_bins = 0;
        for (number, bin) in bins[..2 * BINS].chunks_exact(2).enumerate() {
            let header_addr = bins_addr.wrapping_add(16 * number as u64).wrapping_sub(16);
            let is_chunk = |addr: u64| addr != 0 && addr != header_addr && addr.is_multiple_of(16);
            match (bin[0] == header_addr, bin[1] == header_addr) {
                (true, true) => empty_bins += 1,
                (false, false) if is_chunk(bin[0]) && is_chunk(bin[1]) => {}
                _ => return None,
            }
        }
        let is_unused = top_addr == bins_addr.wrapping_sub(16);
        (empty_bins > 0).then_some(Self { top_addr, next_addr, system_bytes, is_unused })
    }

    fn read(memory: &dyn Memory, state_addr: u64, bins_offset: u64) -> Option<Self> {
        let bins_addr = state_addr.checked_add(bins_offset)?;
        let bytes = memory.read_vec(bins_addr.checked_sub(8 * TOP_BEFORE_BINS as u64)?, 8 * WORDS_FROM_TOP);
        Self::parse(&words_of(&bytes.ok()?), bins_addr)
    }
}

/// An arena, whose fields are read when they are asked for: they change all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arena {
    /// Address of its `malloc_state`.
    pub(super) addr: u64,
    bins_offset: u64,
}

impl Arena {
    /// Address of its top chunk now.
    pub(super) fn top_addr(&self, memory: &dyn Memory) -> Option<u64> {
        memory.read_u64(self.addr.checked_add(self.bins_offset - 8 * TOP_BEFORE_BINS as u64)?).ok()
    }

    /// Bytes it took from the kernel, as it counts them.
    pub(super) fn system_bytes(&self, memory: &dyn Memory) -> Option<u64> {
        let offset = self.bins_offset + 8 * SYSTEM_MEM_AFTER_BINS as u64;
        memory.read_u64(self.addr.checked_add(offset)?).ok()
    }

    /// The first chunk of each fast bin and the size of its chunks; none since 2.43.
    pub(super) fn fast_bins(&self, memory: &dyn Memory) -> Vec<(u64, u64)> {
        let Some(offset) = self.bins_offset.checked_sub(FAST_BINS_BEFORE_BINS) else { return Vec::new() };
        let first_addr = self.addr.saturating_add(offset);
        let words = words_of(&memory.read_vec(first_addr, 8 * FAST_BINS).unwrap_or_default());
        let sized = words.into_iter().zip((32..).step_by(16));
        sized.filter(|(chunk_addr, _)| *chunk_addr != 0).collect()
    }

    /// The first address behind its `malloc_state`, aligned as chunks are.
    fn end_addr(&self) -> u64 {
        let len_bytes = self.bins_offset + 8 * (MAX_SYSTEM_MEM_AFTER_BINS as u64 + 1);
        self.addr.saturating_add(len_bytes).next_multiple_of(16)
    }
}

/// glibc's `main_arena`.
pub(super) struct MainArena {
    /// Where it is.
    pub(super) arena: Arena,
    /// Address of the top chunk; in `[heap]` unless brk failed.
    pub(super) top_addr: u64,
    /// Bytes the arena took from the kernel.
    pub(super) system_bytes: u64,
    is_unused: bool,
    /// Addresses of all other arenas' `malloc_state`, ascending.
    others: Vec<u64>,
}

impl MainArena {
    /// Whether malloc was ever called on it.
    pub(super) fn is_used(&self) -> bool {
        !self.is_unused
    }

    /// The arenas in the ring of which no heap was found.
    pub(super) fn gap(&self, heaps: &[Heap]) -> Option<Gap> {
        let found: HashSet<u64> = heaps.iter().map(|heap| heap.arena.addr).collect();
        let missing = self.others.iter().filter(|addr| !found.contains(addr)).count();
        (missing > 0).then(|| Gap {
            what: format!("the heaps of {missing} of {} malloc arenas", self.others.len()),
            why: "their heap_info is not plausible, or they lie in memory that others own".to_owned(),
            bytes: None,
        })
    }
}

/// Looks for `main_arena` in libc's data: bins that point at themselves or at chunks, and a ring of arenas
/// through `next` that comes back.
pub(super) fn find_main(memory: &dyn Memory, data: &DataWords) -> Option<MainArena> {
    let last_index = data.words.len().checked_sub(WORDS_FROM_TOP)?;
    (0..=last_index).find_map(|top_index| {
        let bins_addr = data.addr(top_index + TOP_BEFORE_BINS);
        let state = State::parse(&data.words[top_index..], bins_addr)?;
        BINS_OFFSETS.into_iter().find_map(|bins_offset| {
            let arena = Arena { addr: bins_addr.checked_sub(bins_offset)?, bins_offset };
            let mut others = ring(memory, arena, state.next_addr)?;
            others.sort_unstable();
            let State { top_addr, system_bytes, is_unused, .. } = state;
            Some(MainArena { arena, top_addr, system_bytes, is_unused, others })
        })
    })
}

/// The arenas between `next_addr` and `main`, following `next`; `None` where that does not close.
fn ring(memory: &dyn Memory, main: Arena, next_addr: u64) -> Option<Vec<u64>> {
    let mut others = Vec::new();
    let mut arena_addr = next_addr;
    while arena_addr != main.addr {
        if !STATE_IN_HEAP_OFFSETS.contains(&(arena_addr % HEAP_BYTES)) || others.len() == MAX_ARENAS {
            return None;
        }
        others.push(arena_addr);
        let next_offset = main.bins_offset + 8 * NEXT_AFTER_BINS as u64;
        arena_addr = memory.read_u64(arena_addr.checked_add(next_offset)?).ok()?;
    }
    Some(others)
}

/// A heap of an arena other than the main one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heap {
    /// Start to the highest address that was ever made writable.
    pub(super) range: AddrRange,
    /// Its arena, whose `malloc_state` is in this heap or in an earlier one.
    pub(super) arena: Arena,
    /// It is its arena's first.
    is_first: bool,
}

impl Heap {
    /// Where its chunks lie now; `None` where its header makes no sense any more.
    pub(super) fn bounds(&self, memory: &dyn Memory) -> Option<Bounds> {
        let start_addr = self.range.start_addr;
        let size_bytes = memory.read_u64(start_addr.checked_add(16)?).ok()?;
        let heap = AddrRange::with_len(start_addr, HEAP_BYTES)?;
        let heap_info_bytes = self.arena.addr % HEAP_BYTES;
        let first_addr = if self.is_first { self.arena.end_addr() } else { start_addr + heap_info_bytes };
        let top_addr = self.arena.top_addr(memory)?;
        // A heap that was full ends in a header of no size.
        let ends_in_top = heap.contains(top_addr);
        let end_addr =
            if ends_in_top { top_addr } else { start_addr.checked_add(size_bytes)?.checked_sub(16)? };
        let is_sound = size_bytes <= HEAP_BYTES && end_addr.is_multiple_of(16) && first_addr <= end_addr;
        is_sound.then_some(Bounds { first_addr, end_addr, ends_in_top, is_main: false })
    }
}

/// What a `heap_info` says.
struct HeapInfo {
    range: AddrRange,
    arena_addr: u64,
    /// Address of the heap before, 0 for an arena's first.
    prev_addr: u64,
}

impl HeapInfo {
    /// Reads the `heap_info` at `heap_addr` (arena.c); `None` unless it agrees with itself, and what is
    /// mapped of the heap, which may have grown since the regions were listed, is free in `anonymous`.
    fn read(
        memory: &dyn Memory,
        mapped: &AnonymousMemory,
        anonymous: &AnonymousMemory,
        heap_addr: u64,
    ) -> Option<Self> {
        let mut bytes = [0; 32];
        memory.read_resident(heap_addr, &mut bytes);
        let words = words_of(&bytes);
        let &[arena_addr, prev_addr, size_bytes, mprotect_bytes] = words.as_slice() else { return None };
        let sizes_agree = size_bytes.is_multiple_of(PAGE_BYTES)
            && mprotect_bytes.is_multiple_of(PAGE_BYTES)
            && (PAGE_BYTES..=mprotect_bytes).contains(&size_bytes)
            && mprotect_bytes <= HEAP_BYTES;
        let first_heap_addr = arena_addr - arena_addr % HEAP_BYTES;
        let links_agree = STATE_IN_HEAP_OFFSETS.contains(&(arena_addr % HEAP_BYTES))
            && prev_addr.is_multiple_of(HEAP_BYTES)
            && (prev_addr == 0) == (first_heap_addr == heap_addr);
        let range =
            AddrRange::with_len(heap_addr, mprotect_bytes)?.intersection(&mapped.run_from(heap_addr)?)?;
        (sizes_agree && links_agree && anonymous.covers(range)).then_some(Self {
            range,
            arena_addr,
            prev_addr,
        })
    }
}

/// All heaps in `anonymous`, the memory of `mapped` that nobody else claims, that agree with an arena. An
/// arena agrees where it is in the main arena's ring or, for a second copy of libc and where no main arena
/// was found, where it is a `malloc_state` by itself.
pub(super) fn heaps(
    memory: &dyn Memory,
    mapped: &AnonymousMemory,
    anonymous: &AnonymousMemory,
    main_arena: Option<&MainArena>,
) -> Vec<Heap> {
    let candidates: Vec<HeapInfo> = aligned_addrs(anonymous)
        .take(MAX_HEAP_ADDRS)
        .filter_map(|heap_addr| HeapInfo::read(memory, mapped, anonymous, heap_addr))
        .collect();
    let starts: Vec<u64> = candidates.iter().map(|heap| heap.range.start_addr).collect();
    let is_heap = |addr: u64| starts.binary_search(&addr).is_ok();
    let arena_of = |heap: &HeapInfo| {
        let addr = heap.arena_addr;
        if let Some(main) = main_arena.filter(|main| main.others.binary_search(&addr).is_ok()) {
            return Some(Arena { addr, ..main.arena });
        }
        let offsets =
            main_arena.map_or(&BINS_OFFSETS[..], |main| std::slice::from_ref(&main.arena.bins_offset));
        let agrees = |offset: &&u64| {
            let state = State::read(memory, addr, **offset);
            state.is_some_and(|state| is_heap(state.top_addr - state.top_addr % HEAP_BYTES))
        };
        offsets.iter().find(agrees).map(|offset| Arena { addr, bins_offset: *offset })
    };
    let is_chained = |heap: &HeapInfo| {
        is_heap(heap.arena_addr - heap.arena_addr % HEAP_BYTES)
            && (heap.prev_addr == 0 || is_heap(heap.prev_addr))
    };
    let agreeing = candidates.iter().filter(|heap| is_chained(heap));
    agreeing
        .filter_map(|heap| {
            Some(Heap { range: heap.range, arena: arena_of(heap)?, is_first: heap.prev_addr == 0 })
        })
        .collect()
}

/// The 64 MiB-aligned addresses inside `anonymous`, ascending. A heap may lie in the middle of a region:
/// the kernel merges it with what was mapped beside it.
fn aligned_addrs(anonymous: &AnonymousMemory) -> impl Iterator<Item = u64> {
    anonymous.ranges().iter().flat_map(|range| {
        let first_addr = range.start_addr.checked_next_multiple_of(HEAP_BYTES).unwrap_or(u64::MAX);
        (first_addr..range.end_addr).step_by(HEAP_BYTES as usize)
    })
}
