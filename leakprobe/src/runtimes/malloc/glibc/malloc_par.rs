//! `mp_`, malloc's parameters and statistics: how many chunks have a mapping of their own, and how long.
//!
//! Found in libc's data by `sbrk_base`, or by its thresholds, which the dynamic adjustment keeps in a fixed
//! proportion. Refuses a process that has no brk heap and set the thresholds itself: no totals then.

use super::DataWords;
use crate::address::PAGE_BYTES;
use crate::runtimes::malloc::anonymous::words_of;
use crate::target::memory::Memory;

/// `DEFAULT_TOP_PAD`, the least `mmap_threshold` and the initial `trim_threshold`: malloc.c.
const DEFAULT_THRESHOLD_BYTES: u64 = 128 << 10;

/// `DEFAULT_MMAP_THRESHOLD_MAX`: malloc.c.
const MAX_MMAP_THRESHOLD_BYTES: u64 = 32 << 20;

/// `DEFAULT_MMAP_MAX`: malloc.c.
const DEFAULT_MMAP_MAX: u32 = 65536;

/// Where `n_mmaps` lies in `struct malloc_par`, by version: to 2.34; 2.35 to 2.42, with huge-page fields;
/// since 2.43, with `thp_mode`. Tried on 2.31, 2.36, 2.41 and 2.43.
const N_MMAPS_OFFSETS: [usize; 3] = [40, 60, 68];

/// To `sbrk_base` in every version.
const WORDS: usize = 14;

/// Chunks with a mapping of their own, as malloc counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MmappedTotals {
    /// `n_mmaps`.
    pub(super) count: u64,
    /// `mmapped_mem`: bytes of their mappings.
    pub(super) bytes: u64,
}

/// Where `mp_` is, and how its version is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MallocPar {
    addr: u64,
    n_mmaps_offset: usize,
}

impl MallocPar {
    /// Looks for `mp_` in libc's data. `brk_start_addr` is where the brk heap starts, if there is one.
    pub(super) fn find(data: &DataWords, brk_start_addr: Option<u64>) -> Option<Self> {
        (0..data.words.len()).find_map(|index| {
            let words = &data.words[index..];
            let n_mmaps_offset = N_MMAPS_OFFSETS.into_iter().find(|offset| {
                let Some(fields) = Fields::parse(words, *offset) else { return false };
                let starts_brk = brk_start_addr.is_some_and(|addr| fields.sbrk_base_addr == addr);
                starts_brk || (fields.max_allowed == DEFAULT_MMAP_MAX && thresholds_agree(words))
            })?;
            Some(Self { addr: data.addr(index), n_mmaps_offset })
        })
    }

    /// Where malloc's part of the brk heap starts (`sbrk_base`): a static program keeps its first thread's
    /// variables before it.
    pub(super) fn sbrk_base_addr(&self, memory: &dyn Memory) -> Option<u64> {
        let words = words_of(&memory.read_vec(self.addr, 8 * WORDS).ok()?);
        Fields::parse(&words, self.n_mmaps_offset).map(|fields| fields.sbrk_base_addr)
    }

    /// The totals as they are now.
    pub(super) fn totals(&self, memory: &dyn Memory) -> Option<MmappedTotals> {
        let words = words_of(&memory.read_vec(self.addr, 8 * WORDS).ok()?);
        Fields::parse(&words, self.n_mmaps_offset).map(|fields| fields.totals)
    }
}

/// Whether `words` start with the thresholds that a `struct malloc_par` has unless `mallopt` or a tunable
/// set them: free() of a mapped chunk raises `mmap_threshold` to its size, `trim_threshold` to twice that.
fn thresholds_agree(words: &[u64]) -> bool {
    let &[trim_bytes, top_pad_bytes, mmap_bytes, ..] = words else { return false };
    top_pad_bytes == DEFAULT_THRESHOLD_BYTES
        && (DEFAULT_THRESHOLD_BYTES..=MAX_MMAP_THRESHOLD_BYTES).contains(&mmap_bytes)
        && (trim_bytes == 2 * mmap_bytes || (trim_bytes, mmap_bytes) == (mmap_bytes, DEFAULT_THRESHOLD_BYTES))
}

/// What is needed of a `struct malloc_par`.
struct Fields {
    totals: MmappedTotals,
    /// `n_mmaps_max`.
    max_allowed: u32,
    sbrk_base_addr: u64,
}

impl Fields {
    /// Understands `words`, the start of a `struct malloc_par`; `None` where they contradict each other.
    fn parse(words: &[u64], n_mmaps_offset: usize) -> Option<Self> {
        let int = |offset: usize| {
            let word = words.get(offset / 8)?.to_le_bytes();
            Some(u32::from_le_bytes(word.get(offset % 8..)?.get(..4)?.try_into().ok()?))
        };
        let (count, max_allowed) = (int(n_mmaps_offset)?, int(n_mmaps_offset + 4)?);
        let (max_count, no_dynamic) = (int(n_mmaps_offset + 8)?, int(n_mmaps_offset + 12)?);
        let &[bytes, max_bytes, sbrk_base_addr] =
            words.get((n_mmaps_offset + 16).div_ceil(8)..)?.first_chunk()?;
        let arena_limits = words.get(3..5)?;
        let agrees = count <= max_count
            && no_dynamic <= 1
            && bytes <= max_bytes
            && bytes.is_multiple_of(PAGE_BYTES)
            && bytes / PAGE_BYTES >= u64::from(count)
            && (count == 0) == (bytes == 0)
            && arena_limits.iter().all(|limit| *limit <= 1 << 32);
        let totals = MmappedTotals { count: u64::from(count), bytes };
        agrees.then_some(Self { totals, max_allowed, sbrk_base_addr })
    }
}
