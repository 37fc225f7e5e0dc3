//! Blocks that are too large for the regions: each has a mapping of its own.
//!
//! The mapping begins with a page that holds its own address and its length (sanitizer_allocator_secondary.h,
//! `LargeMmapAllocator`); behind it is the block, with AddressSanitizer's header. They follow each other
//! without a gap where the kernel put them side by side.

use super::blocks::{self, Block};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::target::memory::Memory;

/// AddressSanitizer's header is that near to the block's start unless the block is aligned to more.
const HEADER_BYTES: usize = 4096;

/// Read at once, to see where a mapping begins with such a page.
const PIECE_BYTES: u64 = 1 << 20;

/// Pieces looked at: 64 GiB of addresses.
const MAX_PIECES: usize = 1 << 16;

/// All in `free`, with whether it waits in the quarantine, where there `is_asan`. Any page may be the first of a
/// block: the kernel merges mappings.
pub(super) fn large_blocks(
    memory: &dyn Memory,
    free: &AnonymousMemory,
    is_asan: bool,
) -> Vec<(AddrRange, bool)> {
    let mut blocks = Vec::new();
    let mut bytes = vec![0; PIECE_BYTES as usize];
    let mut pieces = 0;
    for range in free.ranges() {
        let mut addr = range.start_addr;
        while addr < range.end_addr && pieces < MAX_PIECES {
            pieces += 1;
            let len_bytes = (range.end_addr - addr).min(PIECE_BYTES) as usize;
            let mut next_addr = addr + len_bytes as u64;
            if memory.read_resident(addr, &mut bytes[..len_bytes]) {
                let pages = (addr..).step_by(PAGE_BYTES as usize).zip(bytes.chunks(PAGE_BYTES as usize));
                let mut blocks_there = pages.filter_map(|(addr, page)| large_block(addr, page));
                if let Some(block) = blocks_there.find(|block| free.covers(*block)) {
                    blocks.push((block, is_asan && is_quarantined(memory, block.start_addr + PAGE_BYTES)));
                    next_addr = block.end_addr;
                }
            }
            addr = next_addr;
        }
    }
    blocks
}

/// The block whose `Header` (`map_beg`, `map_size`, `size`, all words) begins `page`, which is at `addr`.
fn large_block(addr: u64, page: &[u8]) -> Option<AddrRange> {
    let word = |index: usize| page.as_chunks().0.get(index).map(|bytes| u64::from_le_bytes(*bytes));
    let (map_addr, map_bytes, size_bytes) = (word(0)?, word(1)?, word(2)?);
    let is_block = map_addr == addr && map_bytes.is_multiple_of(PAGE_BYTES) && size_bytes <= map_bytes;
    AddrRange::with_len(addr, map_bytes).filter(|_| is_block)
}

fn is_quarantined(memory: &dyn Memory, block_addr: u64) -> bool {
    let mut start = [0; HEADER_BYTES];
    memory.read_resident(block_addr, &mut start) && blocks::state_in(&start, block_addr) == Block::Quarantined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::region;
    use crate::target::memory::canned::Pieces;

    const ADDR: u64 = 0x7f00_0000_0000;

    fn header(addr: u64, len_bytes: u64, state: u8) -> (u64, Vec<u8>) {
        let words = [addr, len_bytes, len_bytes - 4096];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(2 * 4096, 0);
        bytes[4096] = state;
        (addr, bytes)
    }

    #[test]
    fn large_blocks_follow_each_other() {
        let second_addr = ADDR + 0x5000;
        let memory = Pieces(vec![header(ADDR, 0x5000, 2), header(second_addr, 0x3000, 3)]);
        // What lies before them in the same region is passed over.
        let free = AnonymousMemory::new(&[region(ADDR - 0x3000, ADDR + 0xa000, "rw-p", "")], &[]);
        let ranges =
            [AddrRange::with_len(ADDR, 0x5000).unwrap(), AddrRange::with_len(second_addr, 0x3000).unwrap()];
        assert_eq!(large_blocks(&memory, &free, true), [(ranges[0], false), (ranges[1], true)]);
        assert_eq!(large_blocks(&memory, &free, false), [(ranges[0], false), (ranges[1], false)]);
    }

    #[test]
    fn a_block_that_reaches_out_of_the_memory_is_none() {
        let memory = Pieces(vec![header(ADDR, 0x5000, 2)]);
        let free = AnonymousMemory::new(&[region(ADDR, ADDR + 0x4000, "rw-p", "")], &[]);
        assert_eq!(large_blocks(&memory, &free, true), []);
        assert_eq!(large_block(ADDR, &[0; 24]), None);
        assert_eq!(large_block(ADDR, &[]), None);
    }
}
