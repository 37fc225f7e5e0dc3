//! Where the fields of the Go runtime's structures lie, by version and architecture.
//!
//! Taken from the DWARF of programs built by Go 1.19.8, 1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6
//! and 1.27.3 for linux/amd64 and linux/arm64; a build with the race detector has the same offsets
//! (compared for 1.27.3). Refuses versions before 1.19. The surprise: other point releases, 1.20 and
//! versions newer than the table get the nearest row, so nothing here may be believed before
//! [`super::find`] has seen the structure point back at itself.

use super::image::Arch;

/// Offsets in `runtime.pageAlloc`, which did not change from Go 1.19 to 1.27 (Go `src/runtime/mpagealloc.go`).
pub mod page_alloc {
    /// `summary [5][]pallocSum`.
    pub const SUMMARY_OFFSET: u64 = 0;
    /// `chunks [1 << 13]*[1 << 13]pallocData`.
    pub const CHUNKS_OFFSET: u64 = 120;
    /// `inUse addrRanges`: a slice of base and limit, then `totalBytes`.
    pub const IN_USE_OFFSET: u64 = 65680;
}

/// Offsets in `runtime.fixalloc` (Go `src/runtime/mfixalloc.go`).
pub mod fixalloc {
    /// `size uintptr`.
    pub const SIZE_OFFSET: u64 = 0;
    /// `arg unsafe.Pointer`; `mheap_.spanalloc` has the heap's own address there.
    pub const ARG_OFFSET: u64 = 16;
}

/// Offsets in `runtime.mspan`, which did not change from Go 1.19 to 1.27 (Go `src/runtime/mheap.go`).
pub mod mspan {
    /// `list *mSpanList`: the list the span is on, nil where it is on none.
    pub const LIST_OFFSET: usize = 16;
    /// `startAddr uintptr`.
    pub const START_OFFSET: usize = 24;
    /// `npages uintptr`.
    pub const PAGES_OFFSET: usize = 32;
}

/// The fields that moved between versions. All are offsets and sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `mheap.pages`, the page allocator.
    pub pages_offset: u64,
    /// `pageAlloc.mheapLock`, a pointer to the start of `mheap` itself.
    pub mheap_lock_offset: u64,
    /// `pageAlloc.scav.index.chunks`.
    pub scavenge_chunks_offset: u64,
    /// `mheap.allspans`; the number of pages in use, `pagesInUse`, follows it.
    pub allspans_offset: u64,
    /// `mheap.arenas`, whose only entry is the second level of the index.
    pub arenas_offset: u64,
    /// `mheap.heapArenas`, called `allArenas` before Go 1.25: a slice of the arenas' numbers.
    pub heap_arenas_offset: u64,
    /// `mheap.userArenaArenas`, which Go 1.25 took out of the former.
    pub user_arenas_offset: Option<u64>,
    /// `mheap.spanalloc`.
    pub spanalloc_offset: u64,
    /// Size of `mspan`.
    pub mspan_bytes: u64,
    /// `mspan.state`.
    pub span_state_offset: u64,
    /// `work.wbufSpans`, the collector's work buffers.
    pub work_buffers_offset: u64,
    /// Size of `memRecordCycle`, of which a profiling bucket has four.
    pub profile_cycle_bytes: u64,
    /// Size of `heapArena`.
    pub heap_arena_bytes: u64,
    /// `work.spanSPMCs` of the Green Tea collector, since Go 1.26.
    pub span_queues_offset: Option<u64>,
    /// `m.alllink`.
    pub alllink_offset: u64,
    /// `m.vgetrandomState`, since Go 1.24.
    pub vgetrandom_offset: Option<u64>,
    /// What is added to an address before it is divided into arenas (`arenaBaseOffset`, negated).
    pub arena_base_bytes: u64,
}

impl Layout {
    /// The row for Go 1.`minor`, or the nearest one; `None` before 1.19.
    pub fn for_version(minor: u32, arch: Arch) -> Option<Self> {
        let amd64 = match minor {
            ..=18 => return None,
            19 => GO_1_19,
            20..=21 => GO_1_21,
            22..=23 => GO_1_22,
            24 => GO_1_24,
            25 => GO_1_25,
            26 => GO_1_26,
            27.. => GO_1_27,
        };
        Some(match arch {
            Arch::Amd64 => amd64,
            Arch::Arm64 => amd64.on_arm64(minor),
        })
    }

    /// arm64's cache lines are twice as long, which moves what is padded to them; its addresses have no
    /// upper half.
    fn on_arm64(self, minor: u32) -> Self {
        let (arenas_moved_bytes, spanalloc_offset) = match minor {
            ..=19 => (0, self.spanalloc_offset),
            20..=21 => (0, 100_936),
            22..=24 => (64, 101_064),
            25.. => (64, 101_088),
        };
        Self {
            arenas_offset: self.arenas_offset + arenas_moved_bytes,
            heap_arenas_offset: self.heap_arenas_offset + arenas_moved_bytes,
            user_arenas_offset: self.user_arenas_offset.map(|offset| offset + arenas_moved_bytes),
            spanalloc_offset,
            work_buffers_offset: if minor <= 19 { 80 } else { 272 },
            span_queues_offset: self.span_queues_offset.map(|_| 592),
            arena_base_bytes: 0,
            ..self
        }
    }
}

const GO_1_19: Layout = Layout {
    pages_offset: 16,
    mheap_lock_offset: 65800,
    scavenge_chunks_offset: 65736,
    allspans_offset: 65856,
    arenas_offset: 65936,
    heap_arenas_offset: 66016,
    user_arenas_offset: None,
    spanalloc_offset: 92224,
    mspan_bytes: 144,
    span_state_offset: 99,
    work_buffers_offset: 80,
    profile_cycle_bytes: 32,
    heap_arena_bytes: 2_165_776,
    span_queues_offset: None,
    alllink_offset: 336,
    vgetrandom_offset: None,
    arena_base_bytes: 0x8000_0000_0000,
};

const GO_1_21: Layout = Layout {
    pages_offset: 8,
    mheap_lock_offset: 65816,
    scavenge_chunks_offset: 65720,
    allspans_offset: 65864,
    arenas_offset: 65944,
    heap_arenas_offset: 66032,
    spanalloc_offset: 92232,
    mspan_bytes: 168,
    span_state_offset: 107,
    work_buffers_offset: 144,
    heap_arena_bytes: 1_133_584,
    ..GO_1_19
};

const GO_1_22: Layout = Layout {
    arenas_offset: 66008,
    heap_arenas_offset: 66096,
    spanalloc_offset: 92296,
    mspan_bytes: 160,
    span_state_offset: 99,
    heap_arena_bytes: 68_624,
    alllink_offset: 328,
    ..GO_1_21
};

const GO_1_24: Layout = Layout { alllink_offset: 352, vgetrandom_offset: Some(1328), ..GO_1_22 };

const GO_1_25: Layout = Layout {
    user_arenas_offset: Some(66120),
    spanalloc_offset: 92320,
    heap_arena_bytes: 69_648,
    alllink_offset: 344,
    vgetrandom_offset: Some(1320),
    ..GO_1_24
};

const GO_1_26: Layout = Layout { alllink_offset: 352, span_queues_offset: Some(336), ..GO_1_25 };

const GO_1_27: Layout = Layout { profile_cycle_bytes: 16, ..GO_1_26 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_without_a_row() {
        assert_eq!(Layout::for_version(18, Arch::Amd64), None);
        assert_eq!(Layout::for_version(28, Arch::Amd64), Some(GO_1_27), "newer ones get the newest row");
        assert_eq!(Layout::for_version(20, Arch::Amd64), Some(GO_1_21));
    }

    #[test]
    fn arm64_moves_what_is_padded() {
        let layout = Layout::for_version(27, Arch::Arm64).unwrap();
        assert_eq!((layout.arenas_offset, layout.heap_arenas_offset), (66072, 66160));
        assert_eq!((layout.user_arenas_offset, layout.span_queues_offset), (Some(66184), Some(592)));
        assert_eq!(layout.work_buffers_offset, 272);
        assert_eq!(layout.mheap_lock_offset, GO_1_27.mheap_lock_offset);
    }
}
