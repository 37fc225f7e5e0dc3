//! The race runtime's one `Context`: its slabs, its vectors and its lists of threads and trace parts.
//!
//! Go's race runtimes differ by two small mutexes in front of the fields; which of the layouts it is shows
//! in the fields themselves. Refuses a context in which none of them is consistent.

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// `sizeof(Context)` in all race runtimes of linux/amd64 and linux/arm64 from Go 1.19 to 1.27.
pub(super) const CONTEXT_LEN_BYTES: u64 = 0xa0_8200;

/// `trace_part_recycle`: list head {next, prev}, size; then `trace_part_total_allocated`. Same versions.
pub(super) const RECYCLE_OFFSET: u64 = 0xa0_81b8;

/// `mapped_shadow_begin`, `mapped_shadow_end`: since Go 1.21, zero in 1.19.
pub(super) const MAPPED_SHADOW_OFFSET: u64 = 0xa0_81e8;

/// `sizeof(ThreadContext)`, one for every goroutine ever started.
pub(super) const CONTEXT_BYTES: u64 = 240;

/// `ThreadContextBase::tid`, after the virtual table's address.
const TID_IN_THREAD_OFFSET: u64 = 8;

/// `MetaMap`'s two slab allocators come first: 2^18 pointers to slabs of 4,096 `MBlock`s of 16 bytes,
/// then 2^20 pointers to slabs of 1,024 `SyncVar`s of 88 bytes (tsan_sync.h, tsan_dense_alloc.h).
const BLOCK_MAP_OFFSET: u64 = 8;
const BLOCK_SLAB_BYTES: u64 = 4096 * 16;
const MAX_BLOCK_SLABS: u64 = 1 << 18;
const SYNC_SLAB_BYTES: u64 = 1024 * 88;
const MAX_SYNC_SLABS: u64 = 1 << 20;

/// Where the fields behind the pointers lie. `fillpos_` counts the pointers in use.
struct Layout {
    block_fill_offset: u64,
    sync_map_offset: u64,
    sync_fill_offset: u64,
}

const LAYOUTS: [Layout; 2] = [
    // Go 1.21.13, 1.23.9, 1.27.3: a mutex of 16 bytes and a 64-bit free list in each allocator.
    Layout { block_fill_offset: 0x20_0020, sync_map_offset: 0x20_0030, sync_fill_offset: 0xa0_0048 },
    // Go 1.19.8: a mutex of 4 bytes and a 32-bit free list.
    Layout { block_fill_offset: 0x20_0010, sync_map_offset: 0x20_0020, sync_fill_offset: 0xa0_0028 },
];

/// Reads of a list that does not agree with itself before it is given up.
const MAX_READS: usize = 4;

/// Vectors {data, capacity in bytes, size} lie in the words behind the slab allocators.
const VECTORS_OFFSETS: std::ops::Range<u64> = 0xa0_0050..0xa0_0300;

/// A vector that is longer than the goroutines of a year is none.
const MAX_VECTOR_BYTES: u64 = 1 << 36;

/// `ThreadRegistry::threads_`: a pointer to each goroutine's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Threads {
    /// Goroutines ever started.
    pub(super) count: u64,
    /// The main goroutine's `ThreadContext`.
    pub(super) first_context_addr: u64,
}

/// What is needed of the context.
pub(super) struct Context {
    /// Where it lies.
    pub(super) addr: u64,
    /// The slabs and the vectors' memory.
    pub(super) mappings: Vec<AddrRange>,
    /// `None` where the vector of threads was not found.
    pub(super) threads: Option<Threads>,
    /// `trace_part_total_allocated`.
    pub(super) trace_parts: u64,
    layout_known: bool,
}

impl Context {
    /// Reads the context at `range`; `None` where its list of trace parts contradicts itself.
    pub(super) fn read(memory: &dyn Memory, anonymous: &AnonymousMemory, range: AddrRange) -> Option<Self> {
        if range.len_bytes() != CONTEXT_LEN_BYTES {
            return None;
        }
        let addr = range.start_addr;
        let tail_addr = addr.checked_add(RECYCLE_OFFSET)?;
        // A goroutine may be putting a part into the list just now.
        let tail = (0..MAX_READS).find_map(|_| {
            let tail = memory.read_vec(tail_addr, (CONTEXT_LEN_BYTES - RECYCLE_OFFSET) as usize).ok()?;
            Some(words_of(&tail)).filter(|tail| recycle_list_agrees(tail, tail_addr))
        })?;
        let slabs = LAYOUTS.iter().find_map(|layout| slabs(memory, anonymous, addr, layout));
        let layout_known = slabs.is_some();
        let mut mappings = slabs.unwrap_or_default();
        let vectors = vectors(memory, addr);
        // A vector that grew moves: it may lie where the list of regions has nothing yet.
        mappings.extend(vectors.iter().map(|vector| vector.range).filter(|range| anonymous.covers(*range)));
        let threads = vectors.iter().find_map(|vector| threads_in(memory, anonymous, vector));
        Some(Self { addr, mappings, threads, trace_parts: tail[3], layout_known })
    }

    /// What could not be read of it.
    pub(super) fn gap(&self) -> Option<Gap> {
        let missing = match (self.layout_known, self.threads.is_some()) {
            (true, true) => return None,
            (false, true) => "synchronisation objects",
            (true, false) => "list of goroutines",
            (false, false) => "synchronisation objects and list of goroutines",
        };
        Some(super::gap(
            &format!("the race runtime's {missing}"),
            "no known layout of its context is consistent",
        ))
    }
}

/// Whether `words`, which lie at `list_addr`, are the list of recycled trace parts and its counters: head
/// pointers that both point at a part, or both at the head, and no more parts than were ever allocated.
pub(super) fn recycle_list_agrees(words: &[u64], list_addr: u64) -> bool {
    let &[next_addr, prev_addr, size, total, ..] = words else { return false };
    let is_part_node =
        |addr: u64| addr > PAGE_BYTES && addr % PAGE_BYTES == super::traces::GLOBAL_NODE_OFFSET;
    let is_empty = size == 0 && next_addr == list_addr && prev_addr == list_addr;
    let is_filled = size > 0 && is_part_node(next_addr) && is_part_node(prev_addr);
    (is_empty || is_filled) && (size..1 << 32).contains(&total)
}

/// The slabs of both allocators; `None` where the pointers do not end where `fillpos_` says, or there is no
/// slab at all: every program synchronises.
fn slabs(
    memory: &dyn Memory,
    anonymous: &AnonymousMemory,
    context_addr: u64,
    layout: &Layout,
) -> Option<Vec<AddrRange>> {
    let blocks = (BLOCK_MAP_OFFSET, layout.block_fill_offset, MAX_BLOCK_SLABS, BLOCK_SLAB_BYTES);
    let syncs = (layout.sync_map_offset, layout.sync_fill_offset, MAX_SYNC_SLABS, SYNC_SLAB_BYTES);
    let is_pointer = |addr: &u64| *addr != 0 && addr.is_multiple_of(PAGE_BYTES);
    let mut slabs = Vec::new();
    for (map_offset, fill_offset, max_count, slab_bytes) in [blocks, syncs] {
        let count = memory.read_u64(context_addr.checked_add(fill_offset)?).ok()?;
        if count >= max_count {
            return None;
        }
        let map_addr = context_addr.checked_add(map_offset)?;
        let pointers = words_of(&memory.read_vec(map_addr, 8 * usize::try_from(count + 1).ok()?).ok()?);
        let (end, pointers) = pointers.split_last()?;
        // A slab may have been added between the two reads: then there is one more pointer.
        if !pointers.iter().all(is_pointer) || (*end != 0 && !is_pointer(end)) {
            return None;
        }
        // And a slab may have been mapped since the list of regions was read: then it is not in there.
        let old = pointers.iter().filter(|addr| anonymous.covers_len(**addr, slab_bytes));
        let old: Vec<AddrRange> = old.filter_map(|addr| AddrRange::with_len(*addr, slab_bytes)).collect();
        if old.len() < pointers.len() / 2 {
            return None;
        }
        slabs.extend(old);
    }
    (!slabs.is_empty()).then_some(slabs)
}

/// An `InternalMmapVector`: memory of its own, in whole pages.
struct Vector {
    range: AddrRange,
    len: u64,
}

fn vectors(memory: &dyn Memory, context_addr: u64) -> Vec<Vector> {
    let start_addr = context_addr.saturating_add(VECTORS_OFFSETS.start);
    let len_bytes = (VECTORS_OFFSETS.end - VECTORS_OFFSETS.start) as usize;
    let words = memory.read_vec(start_addr, len_bytes).map(|bytes| words_of(&bytes)).unwrap_or_default();
    words
        .windows(3)
        .filter_map(|window| {
            let &[data_addr, capacity_bytes, len] = window else { return None };
            let in_pages = data_addr.is_multiple_of(PAGE_BYTES) && capacity_bytes.is_multiple_of(PAGE_BYTES);
            let range = AddrRange::with_len(data_addr, capacity_bytes)?;
            let fits = data_addr != 0 && capacity_bytes <= MAX_VECTOR_BYTES && len <= capacity_bytes;
            (in_pages && fits).then_some(Vector { range, len })
        })
        .collect()
}

/// The vector's threads, if its first element is the context of goroutine 0, and the one in the middle or the
/// last that of the goroutine with the number of its place. The last one is often younger than the list of
/// regions, or half made.
fn threads_in(memory: &dyn Memory, anonymous: &AnonymousMemory, vector: &Vector) -> Option<Threads> {
    if vector.len == 0 || vector.len > vector.range.len_bytes() / 8 {
        return None;
    }
    let context_with = |number: u64| {
        let addr = memory.read_u64(vector.range.start_addr + 8 * number).ok()?;
        let addr = Some(addr).filter(|addr| anonymous.covers_len(*addr, CONTEXT_BYTES))?;
        let stated = memory.read_u32(addr + TID_IN_THREAD_OFFSET).ok()?;
        (u64::from(stated) == number).then_some(addr)
    };
    let first_context_addr = context_with(0)?;
    context_with(vector.len / 2).or_else(|| context_with(vector.len - 1))?;
    Some(Threads { count: vector.len, first_context_addr })
}
