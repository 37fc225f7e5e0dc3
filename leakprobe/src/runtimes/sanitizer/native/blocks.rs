//! The blocks of a region: which are in use, which were freed and are kept in quarantine.
//!
//! Page by page: one with any byte of a block in use is heap, one whose blocks were all freed, at least one of
//! them into the quarantine, is quarantine. Refuses metadata of another length than it knows. The surprise: a
//! block never freed and one never handed out look the same to the quarantine, but not to the allocator.
//!
//! Facts: LLVM `asan_allocator.cpp` (`ChunkHeader`, `LargeChunkHeader`), `msan_allocator.cpp`, `lsan_allocator.h`.

use super::catalogue::BlockState;
use super::space::Class;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Slack;
use crate::runtimes::malloc::anonymous::words_of;
use crate::target::memory::Memory;

/// `kAllocBegMagic`: the header is not at the block's start, and the next word says where.
const ELSEWHERE_MAGIC: u64 = 0xcc6e_96b9_cc6e_96b9;

/// `CHUNK_ALLOCATED`, `CHUNK_QUARANTINE`.
const STATE_IN_USE: u8 = 2;
const STATE_QUARANTINED: u8 = 3;

/// Read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Pages of a region of which a tally is kept: 64 GiB, all that a region can have.
const MAX_PAGES: u64 = 1 << 24;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    InUse,
    Quarantined,
    Free,
}

/// What is known of a page.
#[derive(Clone, Copy, Default)]
struct Page {
    in_use_bytes: u16,
    has_quarantined: bool,
}

impl Page {
    fn is_quarantine(self) -> bool {
        self.has_quarantined && self.in_use_bytes == 0
    }
}

/// A region divided.
#[derive(Default)]
pub(super) struct Division {
    /// Pages with anything in use, or on which nothing ever was in quarantine.
    pub(super) heap: Vec<AddrRange>,
    /// Pages on which there is nothing but freed blocks, some of them in quarantine.
    pub(super) quarantine: Vec<AddrRange>,
    /// What holds nothing live.
    pub(super) slack: Vec<Slack>,
}

/// Reads all blocks of a region; `None` where their state is not to be had.
pub(super) fn divide(memory: &dyn Memory, class: &Class, blocks: BlockState) -> Option<Division> {
    let page_count = class.user.len_bytes() / PAGE_BYTES;
    let metadata_bytes = match blocks {
        BlockState::InHeader => 0,
        BlockState::InMetadata { bytes, .. } => bytes,
        BlockState::Elsewhere => return None,
    };
    if page_count > MAX_PAGES || class.metadata_bytes != metadata_bytes || class.block_bytes == 0 {
        return None;
    }
    let mut pages = vec![Page::default(); usize::try_from(page_count).ok()?];
    let blocks_in_piece = (PIECE_BYTES / class.block_bytes).max(1);
    let block_count = class.user.len_bytes() / class.block_bytes;
    let mut first = 0;
    while first < block_count {
        let count = blocks_in_piece.min(block_count - first);
        let states = match blocks {
            BlockState::InMetadata { counting_bits, .. } => {
                by_metadata(memory, class, first, count, counting_bits)
            }
            _ => by_header(memory, class, first, count),
        };
        for (number, state) in (first..).zip(states) {
            tally(&mut pages, number * class.block_bytes, class.block_bytes, state);
        }
        first += count;
    }
    Some(division(class.user.start_addr, &pages))
}

fn by_header(memory: &dyn Memory, class: &Class, first: u64, count: u64) -> Vec<Block> {
    let addr = class.user.start_addr + first * class.block_bytes;
    let mut bytes = vec![0; (count * class.block_bytes) as usize];
    if !memory.read_resident(addr, &mut bytes) {
        return Vec::new();
    }
    let blocks = (0..).zip(bytes.chunks_exact(class.block_bytes as usize));
    blocks.map(|(number, block)| state_in(block, addr + number * class.block_bytes)).collect()
}

/// The state of the block with these bytes at `addr`.
pub(super) fn state_in(block: &[u8], addr: u64) -> Block {
    let word = |index: usize| block.as_chunks().0.get(index).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let header = match word(0) {
        ELSEWHERE_MAGIC => {
            let offset = word(1).checked_sub(addr).and_then(|offset| usize::try_from(offset).ok());
            offset.and_then(|offset| block.get(offset)).copied().unwrap_or(0)
        }
        word => word.to_le_bytes()[0],
    };
    match header {
        STATE_IN_USE => Block::InUse,
        STATE_QUARANTINED => Block::Quarantined,
        _ => Block::Free,
    }
}

fn by_metadata(memory: &dyn Memory, class: &Class, first: u64, count: u64, counting_bits: u64) -> Vec<Block> {
    let each_bytes = class.metadata_bytes;
    let Some(addr) = class.metadata_end_addr.checked_sub((first + count) * each_bytes) else {
        return Vec::new();
    };
    let mut bytes = vec![0; (count * each_bytes) as usize];
    if !memory.read_resident(addr, &mut bytes) {
        return Vec::new();
    }
    let state = |metadata: &[u8]| {
        let word = words_of(metadata).first().copied().unwrap_or(0);
        if word & counting_bits == 0 { Block::Free } else { Block::InUse }
    };
    bytes.chunks_exact(each_bytes as usize).rev().map(state).collect()
}

fn tally(pages: &mut [Page], offset: u64, len_bytes: u64, state: Block) {
    if state == Block::Free {
        return;
    }
    let end_offset = offset + len_bytes;
    for number in offset / PAGE_BYTES..end_offset.div_ceil(PAGE_BYTES) {
        let Some(page) = pages.get_mut(number as usize) else { return };
        if state == Block::Quarantined {
            page.has_quarantined = true;
            continue;
        }
        let start = (number * PAGE_BYTES).max(offset);
        let bytes = ((number + 1) * PAGE_BYTES).min(end_offset) - start;
        page.in_use_bytes = page.in_use_bytes.saturating_add(bytes as u16).min(PAGE_BYTES as u16);
    }
}

/// Runs of pages that are alike: of quarantine, without anything in use, with something in use.
fn division(start_addr: u64, pages: &[Page]) -> Division {
    let mut division = Division::default();
    let kind = |page: &Page| (page.is_quarantine(), page.in_use_bytes == 0);
    let mut addr = start_addr;
    for run in pages.chunk_by(|one, next| kind(one) == kind(next)) {
        let Some(range) = AddrRange::with_len(addr, run.len() as u64 * PAGE_BYTES) else { continue };
        let in_use_bytes: u64 = run.iter().map(|page| u64::from(page.in_use_bytes)).sum();
        division.slack.push(Slack { range, dead_bytes: range.len_bytes() - in_use_bytes });
        let side = if run[0].is_quarantine() { &mut division.quarantine } else { &mut division.heap };
        side.push(range);
        addr = range.end_addr;
    }
    division
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::Noise;
    use crate::target::memory::canned::Pieces;

    const ADDR: u64 = 0x6040_0000_0000;
    const IN_METADATA: BlockState = BlockState::InMetadata { bytes: 8, counting_bits: u64::MAX };

    fn class(block_bytes: u64, pages: u64, metadata_bytes: u64) -> Class {
        Class {
            user: AddrRange::with_len(ADDR, pages * PAGE_BYTES).unwrap(),
            block_bytes,
            metadata_end_addr: ADDR + (1 << 30),
            metadata_bytes,
        }
    }

    #[test]
    fn a_page_of_freed_blocks_is_quarantine_and_one_with_a_block_in_use_is_heap() {
        let mut bytes = vec![0; 4 * 4096];
        bytes[0] = STATE_IN_USE;
        bytes[2048] = STATE_QUARANTINED;
        bytes[4096] = STATE_QUARANTINED;
        // The header of the third page's second block lies further on.
        bytes[3 * 2048 * 2 - 2048..][..8].copy_from_slice(&ELSEWHERE_MAGIC.to_le_bytes());
        bytes[3 * 2048 * 2 - 2040..][..8].copy_from_slice(&(ADDR + 5 * 2048 + 48).to_le_bytes());
        bytes[5 * 2048 + 48] = STATE_IN_USE;
        let division =
            divide(&Pieces(vec![(ADDR, bytes)]), &class(2048, 4, 0), BlockState::InHeader).unwrap();
        assert_eq!(division.quarantine, [AddrRange::with_len(ADDR + 4096, 4096).unwrap()]);
        let dead: Vec<u64> = division.slack.iter().map(|slack| slack.dead_bytes).collect();
        assert_eq!(dead, [2048, 4096, 2048, 4096]);
    }

    #[test]
    fn metadata_lies_from_the_end_backwards() {
        let end_addr = ADDR + (1 << 30);
        let mut metadata = vec![0; 16];
        metadata[8..].copy_from_slice(&100u64.to_le_bytes());
        let memory = Pieces(vec![(end_addr - 16, metadata)]);
        let division = divide(&memory, &class(4096, 2, 8), IN_METADATA).unwrap();
        let dead: Vec<u64> = division.slack.iter().map(|slack| slack.dead_bytes).collect();
        assert_eq!((dead, division.quarantine), (vec![0, 4096], vec![]));
        assert!(divide(&memory, &class(4096, 2, 16), IN_METADATA).is_none());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_stays_within_the_region(
            seed: u64,
            pool in prop::collection::vec(prop_oneof![any::<u64>(), Just(ELSEWHERE_MAGIC), Just(ADDR + 9)], 1..8),
            block_bytes in prop_oneof![Just(16u64), Just(48), Just(5120), Just(131_072)],
            blocks in prop_oneof![Just(BlockState::InHeader), Just(IN_METADATA)],
        ) {
            let metadata_bytes = if blocks == BlockState::InHeader { 0 } else { 8 };
            let class = class(block_bytes, 300, metadata_bytes);
            let division = divide(&Noise { seed, pool }, &class, blocks).unwrap();
            let all = division.slack.iter().map(|slack| slack.range).chain(division.quarantine);
            for range in all {
                prop_assert!(class.user.intersection(&range) == Some(range));
            }
        }
    }
}
