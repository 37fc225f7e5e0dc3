//! The sanitizers of C, C++ and Rust on x86_64, and where their ABI puts what.
//!
//! Facts: LLVM `compiler-rt/lib/{asan,tsan,msan,hwasan,lsan}`; each range was seen in programs built with gcc 12,
//! clang 14, clang 22 and rustc 1.95. Where a heap has no fixed place (AddressSanitizer since LLVM 17, where it is
//! wherever the kernel had room) there is no range here, and [`super::space`] finds it.

use crate::claim::Component;

/// A sanitizer and the address ranges of its ABI.
#[derive(Debug)]
pub(super) struct Sanitizer {
    /// What a person calls it.
    pub(super) name: &'static str,
    /// What instrumented code calls first.
    pub(super) symbol: &'static str,
    /// Start, end, and whose it is.
    pub(super) layout: &'static [(u64, u64, Component)],
    /// A program without any symbol has a mapping that starts at one of these, and nothing else has.
    pub(super) marks: &'static [u64],
    /// Its allocator's blocks, wherever they are.
    pub(super) heap: Component,
    /// Its own variables and allocations.
    pub(super) runtime: Component,
    /// How its allocator says whether a block is in use.
    pub(super) blocks: BlockState,
    /// Whether a thread's record is known to the thread alone (by `pthread_setspecific`).
    pub(super) has_thread_records: bool,
}

/// How an allocator says whether a block is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockState {
    /// A byte in front of it: 2 in use, 3 freed and in quarantine (asan_allocator.cpp, `ChunkHeader`).
    InHeader,
    /// In the metadata of its region, so many bytes a block: the first word without the bits that do not count
    /// is zero if it is free.
    InMetadata { bytes: u64, counting_bits: u64 },
    /// Not where this reader looks.
    Elsewhere,
}

/// The first that is found counts: AddressSanitizer carries LeakSanitizer within it.
pub(super) static SANITIZERS: [Sanitizer; 5] = [
    Sanitizer {
        name: "AddressSanitizer",
        symbol: "__asan_init",
        layout: &[
            // The page below the shadow is mapped with it.
            (0x7fff_7000, 0x1000_7fff_8000, Component::AsanShadow),
            // `kAllocatorSpace` of gcc, and of LLVM before it lost its place.
            (0x5000_0000_0000, 0x5400_0000_0000, Component::AsanHeap),
            (0x6000_0000_0000, 0x6400_0000_0000, Component::AsanHeap),
        ],
        marks: &[0x0200_8fff_7000],
        heap: Component::AsanHeap,
        runtime: Component::AsanRuntime,
        blocks: BlockState::InHeader,
        has_thread_records: false,
    },
    Sanitizer {
        name: "ThreadSanitizer",
        symbol: "__tsan_init",
        layout: &[
            // v2 (gcc 12): from 0x0100_0000_0000; v3: from 0x1000_0000_0000.
            (0x0100_0000_0000, 0x3000_0000_0000, Component::TsanShadow),
            (0x3000_0000_0000, 0x3800_0000_0000, Component::TsanMeta),
            // Traces of v2.
            (0x6000_0000_0000, 0x6200_0000_0000, Component::TsanRuntime),
            (0x7200_0000_0000, 0x7300_0000_0000, Component::TsanHeap),
            (0x7a00_0000_0000, 0x7c00_0000_0000, Component::TsanHeap),
        ],
        marks: &[0x7300_0000_0000, 0x7c00_0000_0000],
        heap: Component::TsanHeap,
        runtime: Component::TsanRuntime,
        blocks: BlockState::Elsewhere,
        has_thread_records: false,
    },
    Sanitizer {
        name: "MemorySanitizer",
        symbol: "__msan_init",
        layout: &[
            // The program's memory lies between them.
            (0x0100_0000_0000, 0x1000_0000_0000, Component::MsanShadow),
            (0x1100_0000_0000, 0x2000_0000_0000, Component::MsanOrigins),
            (0x2000_0000_0000, 0x3000_0000_0000, Component::MsanShadow),
            (0x3000_0000_0000, 0x4000_0000_0000, Component::MsanOrigins),
            (0x5000_0000_0000, 0x5100_0000_0000, Component::MsanShadow),
            (0x6000_0000_0000, 0x6100_0000_0000, Component::MsanOrigins),
            (0x7000_0000_0000, 0x7400_0000_0000, Component::MsanHeap),
        ],
        marks: &[0x7400_0000_0000],
        heap: Component::MsanHeap,
        runtime: Component::MsanRuntime,
        blocks: BlockState::InMetadata { bytes: 8, counting_bits: u64::MAX },
        has_thread_records: true,
    },
    Sanitizer {
        name: "HWAddressSanitizer",
        symbol: "__hwasan_init",
        layout: &[],
        marks: &[],
        heap: Component::HwasanHeap,
        runtime: Component::HwasanRuntime,
        blocks: BlockState::Elsewhere,
        has_thread_records: false,
    },
    Sanitizer {
        name: "LeakSanitizer",
        symbol: "__lsan_init",
        layout: &[
            (0x5000_0000_0000, 0x5400_0000_0000, Component::LsanHeap),
            (0x6000_0000_0000, 0x6400_0000_0000, Component::LsanHeap),
        ],
        marks: &[0x5400_0000_0000, 0x6400_0000_0000],
        heap: Component::LsanHeap,
        runtime: Component::LsanRuntime,
        blocks: BlockState::InMetadata { bytes: 16, counting_bits: 0xff },
        has_thread_records: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_ranges_that_do_not_overlap() {
        for sanitizer in &SANITIZERS {
            let mut ranges: Vec<(u64, u64)> =
                sanitizer.layout.iter().map(|(start_addr, end_addr, _)| (*start_addr, *end_addr)).collect();
            ranges.sort_unstable();
            assert!(ranges.iter().all(|(start_addr, end_addr)| start_addr < end_addr), "{}", sanitizer.name);
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{}", sanitizer.name);
        }
    }
}
