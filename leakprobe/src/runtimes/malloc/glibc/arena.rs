//! Arenas: `main_arena`, found by its bins, and the 64 MiB-aligned heaps of the others, found by `heap_info`.
//!
//! Refuses an arena whose fields contradict each other. The surprise: everything hangs on the bins. An
//! empty bin points at itself, and what precedes and follows the bins has kept its place for 20 years,
//! while the front of `malloc_state` has lost and gained fields.

use super::DataWords;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// Alignment and greatest size of a heap: `HEAP_MAX_SIZE`, arena.c.
const HEAP_BYTES: u64 = 64 << 20;

/// Heaps cannot be told from other memory without a look at each 64 MiB boundary, and a look at a page
/// that was never touched costs the target a page table. 4,096 of them are 256 GiB of address space.
const MAX_HEAP_ADDRS: usize = 4096;

/// More arenas than this no process has: the default limit is 8 for each CPU.
const MAX_ARENAS: usize = 1 << 16;

/// Where `bins` starts in `malloc_state`, by version: 2.27 to 2.42; to 2.26, without `have_fastchunks`;
/// since 2.43, without fast bins. Tried on 2.31, 2.36, 2.41 and 2.43; to 2.26 as malloc.c has it.
const BINS_OFFSETS: [u64; 3] = [112, 104, 24];

/// Where `malloc_state` starts behind `heap_info`: 48 since 2.35, which added `pagesize`; 32 before (2.31).
const STATE_IN_HEAP_OFFSETS: [u64; 2] = [48, 32];

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

/// glibc's `main_arena`.
pub(super) struct MainArena {
    /// Address of the top chunk; in `[heap]` unless brk failed.
    pub(super) top_addr: u64,
    /// Bytes the arena took from the kernel.
    pub(super) system_bytes: u64,
    is_unused: bool,
    bins_offset: u64,
    /// Addresses of all other arenas' `malloc_state`.
    others: Vec<u64>,
}

impl MainArena {
    /// Whether malloc was ever called on it.
    pub(super) fn is_used(&self) -> bool {
        !self.is_unused
    }

    /// The arenas in the ring of which no heap was found.
    pub(super) fn gap(&self, heaps: &[Heap]) -> Option<Gap> {
        let found = |arena: &&u64| heaps.iter().any(|heap| heap.arena_addr == **arena);
        let missing = self.others.len() - self.others.iter().filter(found).count();
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
            let others = ring(memory, bins_addr.checked_sub(bins_offset)?, bins_offset, state.next_addr)?;
            let State { top_addr, system_bytes, is_unused, .. } = state;
            Some(MainArena { top_addr, system_bytes, is_unused, bins_offset, others })
        })
    })
}

/// The arenas between `next_addr` and `main_addr`, following `next`; `None` where that does not close.
fn ring(memory: &dyn Memory, main_addr: u64, bins_offset: u64, next_addr: u64) -> Option<Vec<u64>> {
    let mut others = Vec::new();
    let mut arena_addr = next_addr;
    while arena_addr != main_addr {
        if !STATE_IN_HEAP_OFFSETS.contains(&(arena_addr % HEAP_BYTES)) || others.len() == MAX_ARENAS {
            return None;
        }
        others.push(arena_addr);
        let next_offset = bins_offset + 8 * NEXT_AFTER_BINS as u64;
        arena_addr = memory.read_u64(arena_addr.checked_add(next_offset)?).ok()?;
    }
    Some(others)
}

/// A heap of an arena other than the main one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heap {
    /// Start to the highest address that was ever made writable.
    pub(super) range: AddrRange,
    /// Address of its arena's `malloc_state`, in this heap or in an earlier one.
    pub(super) arena_addr: u64,
    /// Address of the heap before, 0 for an arena's first.
    prev_addr: u64,
}

impl Heap {
    /// Reads the `heap_info` at `heap_addr` (arena.c); `None` unless it agrees with itself, and what is
    /// mapped of the heap, which may have grown since the regions were listed, is free in `anonymous`.
    fn read(
        memory: &dyn Memory,
        mapped: &AnonymousMemory,
        anonymous: &AnonymousMemory,
        heap_addr: u64,
    ) -> Option<Self> {
        let words = words_of(&memory.read_vec(heap_addr, 32).ok()?);
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
    let candidates: Vec<Heap> = aligned_addrs(anonymous)
        .take(MAX_HEAP_ADDRS)
        .filter_map(|heap_addr| Heap::read(memory, mapped, anonymous, heap_addr))
        .collect();
    let starts: Vec<u64> = candidates.iter().map(|heap| heap.range.start_addr).collect();
    let is_heap = |addr: u64| starts.binary_search(&addr).is_ok();
    let arena_agrees = |heap: &Heap| {
        let known = main_arena.is_some_and(|main| main.others.contains(&heap.arena_addr));
        let offsets = main_arena.map_or(&BINS_OFFSETS[..], |main| std::slice::from_ref(&main.bins_offset));
        let mut states = offsets.iter().filter_map(|offset| State::read(memory, heap.arena_addr, *offset));
        known || states.any(|state| is_heap(state.top_addr - state.top_addr % HEAP_BYTES))
    };
    let chained = |heap: &&Heap| {
        is_heap(heap.arena_addr - heap.arena_addr % HEAP_BYTES)
            && (heap.prev_addr == 0 || is_heap(heap.prev_addr))
    };
    let agreeing: Vec<bool> = candidates.iter().map(|heap| chained(&heap) && arena_agrees(heap)).collect();
    candidates.into_iter().zip(agreeing).filter_map(|(heap, agrees)| agrees.then_some(heap)).collect()
}

/// The 64 MiB-aligned addresses inside `anonymous`, ascending. A heap may lie in the middle of a region:
/// the kernel merges it with what was mapped beside it.
fn aligned_addrs(anonymous: &AnonymousMemory) -> impl Iterator<Item = u64> {
    anonymous.ranges().iter().flat_map(|range| {
        let first_addr = range.start_addr.checked_next_multiple_of(HEAP_BYTES).unwrap_or(u64::MAX);
        (first_addr..range.end_addr).step_by(HEAP_BYTES as usize)
    })
}
