//! Chunks with a mapping of their own: what malloc gives out above `mmap_threshold`.
//!
//! Each starts its mapping with a header {`prev_size`, size | IS_MMAPPED}. The kernel merges the mappings,
//! with each other and with strangers', so the headers are followed from one chunk to the next, and what
//! they add up to is compared with malloc's own totals. Refuses a chain that neither the totals nor the
//! region's end confirm.

use super::malloc_par::{MallocPar, MmappedTotals};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// Bit 1 of a chunk's size; bits 0 and 2 are never set together with it.
const IS_MMAPPED: u64 = 2;
const FLAGS: u64 = 7;

/// `CHUNK_HDR_SZ`; since 2.43 the size of a mapped chunk does not count it.
const HEADER_BYTES: u64 = 16;

/// Pages looked at one by one where the totals say that chunks hide between strangers' mappings: 256 MiB.
const MAX_SEARCHED_PAGES: usize = 1 << 16;

/// A run of chunks without a gap.
struct Chain {
    chunks: Vec<AddrRange>,
    /// The last chunk ends where the memory ends.
    fills: bool,
}

impl Chain {
    fn follow(memory: &dyn Memory, free: AddrRange) -> Self {
        let mut chunks = Vec::new();
        let mut addr = free.start_addr;
        while let Some(chunk) = chunk_at(memory, addr, free.end_addr) {
            addr = chunk.end_addr;
            chunks.push(chunk);
        }
        Self { chunks, fills: addr == free.end_addr }
    }
}

/// The mapped chunks in `free`, memory that nobody else claims; and what malloc's totals say is missing.
///
/// A chain that fills its memory to the end proves itself. One that does not is believed as long as all of
/// them stay within the totals.
pub(super) fn chunks(
    memory: &dyn Memory,
    free: &AnonymousMemory,
    malloc_par: Option<&MallocPar>,
) -> (Vec<AddrRange>, Option<Gap>) {
    let totals_before = malloc_par.and_then(|par| par.totals(memory));
    // Not one: a process with 60,000 mappings is not asked for 30,000 headers.
    if totals_before.is_some_and(|totals| totals.count == 0 && totals.bytes == 0) {
        return (Vec::new(), None);
    }
    let chains: Vec<Chain> = free.ranges().iter().map(|range| Chain::follow(memory, *range)).collect();
    let filling = || chains.iter().filter(|chain| chain.fills).flat_map(|chain| chain.chunks.iter().copied());
    let Some(totals_before) = totals_before else { return (filling().collect(), None) };
    // The target ran on meanwhile.
    let totals = malloc_par.and_then(|par| par.totals(memory)).unwrap_or(totals_before);
    let most = MmappedTotals {
        count: totals.count.max(totals_before.count),
        bytes: totals.bytes.max(totals_before.bytes),
    };

    let mut found: Vec<AddrRange> = chains.iter().flat_map(|chain| chain.chunks.iter().copied()).collect();
    if found.len() as u64 > most.count || sum_bytes(&found) > most.bytes {
        found = filling().collect();
    }
    if sum_bytes(&found) < totals.bytes {
        let hidden = search(memory, &free.without(&found));
        let with_hidden = MmappedTotals {
            count: (found.len() + hidden.len()) as u64,
            bytes: sum_bytes(&found).saturating_add(sum_bytes(&hidden)),
        };
        if with_hidden == totals || with_hidden == totals_before {
            found.extend(hidden);
        }
    }
    let missing_bytes = totals.bytes.saturating_sub(sum_bytes(&found));
    (found, (missing_bytes > 0).then(|| gap(totals, missing_bytes)))
}

/// The header at `addr`, a page's start: the mapping it describes, if it ends by `end_addr`.
fn chunk_at(memory: &dyn Memory, addr: u64, end_addr: u64) -> Option<AddrRange> {
    if !addr.is_multiple_of(PAGE_BYTES) || end_addr.checked_sub(addr)? < PAGE_BYTES {
        return None;
    }
    let words = words_of(&memory.read_vec(addr, 16).ok()?);
    let &[prev_bytes, size_and_flags] = words.as_slice() else { return None };
    // `prev_size` of a mapped chunk is how far it is from the mapping's start; bit 0, since 2.43: huge pages.
    if prev_bytes > 1 || size_and_flags & FLAGS != IS_MMAPPED {
        return None;
    }
    let size_bytes = size_and_flags & !FLAGS;
    let header_bytes = if size_bytes.is_multiple_of(PAGE_BYTES) { 0 } else { HEADER_BYTES };
    let mapped_bytes = size_bytes.checked_add(header_bytes)?;
    let chunk = AddrRange::with_len(addr, mapped_bytes)?;
    (mapped_bytes.is_multiple_of(PAGE_BYTES) && chunk.end_addr <= end_addr).then_some(chunk)
}

/// Looks for headers at the pages of `free`, as many as [`MAX_SEARCHED_PAGES`].
fn search(memory: &dyn Memory, free: &AnonymousMemory) -> Vec<AddrRange> {
    let mut found = Vec::new();
    let mut pages_left = MAX_SEARCHED_PAGES;
    for range in free.ranges() {
        let mut addr = range.start_addr;
        while addr < range.end_addr && pages_left > 0 {
            pages_left -= 1;
            let chunk = chunk_at(memory, addr, range.end_addr);
            found.extend(chunk);
            addr = chunk.map_or(addr.saturating_add(PAGE_BYTES), |chunk| chunk.end_addr);
        }
    }
    found
}

fn sum_bytes(chunks: &[AddrRange]) -> u64 {
    chunks.iter().fold(0, |sum, chunk| chunk.len_bytes().saturating_add(sum))
}

fn gap(totals: MmappedTotals, missing_bytes: u64) -> Gap {
    Gap {
        what: format!("{missing_bytes} of the {} bytes that malloc mapped for single blocks", totals.bytes),
        why: "the blocks' headers were not found where the totals in libc say they are".to_owned(),
        bytes: None,
    }
}
