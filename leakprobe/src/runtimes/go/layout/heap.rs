//! Where the fields of the heap and of what hangs on it lie.

use super::fields::layout;
use crate::runtimes::go::image::Arch;

layout! {
    /// Offsets and sizes in bytes. What begins with `span` is in `mspan`, with `page` in `mheap.pages`, with
    /// `processor` in `p`, with `thread` in `m`, with `stats` in `mstats`.
    pub struct Layout {
        /// The page allocator.
        pages_offset: u64 = "mheap.pages",
        /// A slice of all spans; the number of pages in use, `pagesInUse`, follows it.
        allspans_offset: u64 = "mheap.allspans",
        /// Its only entry is the second level of the index.
        arenas_offset: u64 = "mheap.arenas",
        /// A slice of the arenas' numbers; called `allArenas` before Go 1.25.
        heap_arenas_offset: u64 = "mheap.heapArenas | mheap.allArenas",
        /// Go 1.25 took them out of the former.
        user_arenas_offset: Option<u64> = "mheap.userArenaArenas",
        /// What spans' headers are allocated by, a `fixalloc`.
        spanalloc_offset: u64 = "mheap.spanalloc",

        /// Size of what it allocates.
        fixalloc_size_offset: u64 = "fixalloc.size",
        /// `mheap_.spanalloc` has the heap's own address there.
        fixalloc_arg_offset: u64 = "fixalloc.arg",
        /// Which field of `memstats` it counts in.
        fixalloc_stat_offset: u64 = "fixalloc.stat",

        /// In `mheap.pages`: five slices of summaries.
        page_summary_offset: u64 = "pageAlloc.summary",
        /// In `mheap.pages`: two levels of bitmaps.
        page_chunks_offset: u64 = "pageAlloc.chunks",
        /// In `mheap.pages`: the ranges that the heap manages, a slice of base and limit, then `totalBytes`.
        page_ranges_offset: u64 = "pageAlloc.inUse",
        /// In `mheap.pages`: a pointer to the start of `mheap` itself.
        mheap_lock_offset: u64 = "pageAlloc.mheapLock",
        /// In `mheap.pages`.
        scavenge_chunks_offset: u64 = "pageAlloc.scav.index.chunks",

        /// Size of a span's header.
        mspan_bytes: u64 = "sizeof(mspan)",
        /// The list the span is on, nil where it is on none.
        span_list_offset: usize = "mspan.list",
        /// Where it starts.
        span_start_offset: usize = "mspan.startAddr",
        /// Its length in pages of 8 KiB.
        span_pages_offset: usize = "mspan.npages",
        /// Objects allocated. 2 bytes.
        span_alloc_count_offset: usize = "mspan.allocCount",
        /// Twice the size class, and 1 without pointers. 1 byte.
        span_class_offset: usize = "mspan.spanclass",
        /// 0 dead, 1 in use, 2 manual. 1 byte.
        span_state_offset: usize = "mspan.state",
        /// Size of an object.
        span_element_bytes_offset: usize = "mspan.elemsize",

        /// Size of what is kept of an arena of 64 MiB.
        heap_arena_bytes: u64 = "sizeof(heapArena)",

        /// In `work`: the collector's work buffers.
        work_buffers_offset: u64 = "workType.wbufSpans",
        /// In `work`: the queues of the Green Tea collector, since Go 1.26.
        span_queues_offset: Option<u64> = "workType.spanSPMCs",

        /// Spans' headers.
        stats_mspan_sys_offset: u64 = "mstats.mspan_sys",
        /// Profiling buckets.
        stats_buckhash_sys_offset: u64 = "mstats.buckhash_sys",

        /// Its number. 4 bytes.
        processor_id_offset: u64 = "p.id",

        /// The goroutine of its own stack.
        thread_g0_offset: u64 = "m.g0",
        /// The goroutine that it runs.
        thread_curg_offset: u64 = "m.curg",
        /// Its number in the kernel.
        thread_procid_offset: u64 = "m.procid",
        /// The next thread.
        alllink_offset: u64 = "m.alllink",
        /// The state of its random number generator, since Go 1.24.
        vgetrandom_offset: Option<u64> = "m.mOS.vgetrandomState",

        /// Size of a profiling bucket's header; its stack follows, and then a `memRecord`.
        profile_bucket_bytes: u64 = "sizeof(bucket)",
        /// Size of a `memRecord`.
        profile_record_bytes: u64 = "sizeof(memRecord)",
        /// Size of one of the four cycles it holds.
        profile_cycle_bytes: u64 = "sizeof(memRecordCycle)",
    }
}

impl Layout {
    /// What is added to an address before it is divided into arenas (`arenaBaseOffset`, negated): arm64's addresses
    /// have no upper half.
    pub const fn arena_base_bytes(&self) -> u64 {
        match self.arch {
            Arch::Amd64 => 0x8000_0000_0000,
            Arch::Arm64 => 0,
        }
    }
}
