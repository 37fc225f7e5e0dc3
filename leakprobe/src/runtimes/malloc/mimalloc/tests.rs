//! Segments and pages made by hand, as two releases lay them out, and by chance.

use proptest::prelude::*;

use super::*;
use crate::address::PAGE_BYTES;
use crate::claim::Component;
use crate::runtimes::malloc::anonymous::tests::region;
use crate::target::memory::canned::Pieces;

const SEGMENT_ADDR: u64 = 0x490_0000_0000;
const SLICE_BYTES: u64 = 64 << 10;
const VARIABLES_ADDR: u64 = 0x5600_0000_0000;

fn put(bytes: &mut [u8], offset: usize, word: u64) {
    bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
}

/// A segment of 2.0.9 or 2.3.2 whose slices of the second page on are given as (slices, block size, used, free).
fn segment(is_old: bool, pages: &[(u64, u64, u64, u64)]) -> Vec<u8> {
    let (offset, stride) = if is_old { (264, 80) } else { (288, 96) };
    let mut bytes = vec![0; SLICE_BYTES as usize];
    for (before, word) in [(40, 512), (32, 1), (24, 0), (16, 512)] {
        put(&mut bytes, offset - before, word);
    }
    put(&mut bytes, offset, 1);
    let mut index = 1;
    let rest = 511 - pages.iter().map(|page| page.0).sum::<u64>();
    for (slices, block_bytes, used, first_free) in pages.iter().copied().chain([(rest, 0, 0, 0)]) {
        let place = offset + index as usize * stride;
        put(&mut bytes, place, slices);
        let reserved = (slices * SLICE_BYTES).checked_div(block_bytes).unwrap_or(0);
        put(&mut bytes, place + 8, reserved.min(16) << 16 | reserved << 32);
        put(&mut bytes, place + 16, first_free);
        if is_old {
            put(&mut bytes, place + 24, used | block_bytes << 32);
        } else {
            put(&mut bytes, place + 32, used);
            put(&mut bytes, place + 40, block_bytes);
        }
        index += slices;
    }
    bytes
}

fn free_memory() -> AnonymousMemory {
    let regions = [
        region(SEGMENT_ADDR, SEGMENT_ADDR + (32 << 20), "rw-p", ""),
        region(MAP_ADDR, MAP_ADDR + (4 << 20), "rw-p", ""),
    ];
    AnonymousMemory::new(&regions, &[])
}

/// (first page of the segment, pages, free) of each claim.
fn pages(findings: &Findings) -> Vec<(u64, u64, bool)> {
    let shown = |claim: &crate::claim::Claim| {
        let first = (claim.range.start_addr - SEGMENT_ADDR) / PAGE_BYTES;
        (first, claim.range.len_bytes() / PAGE_BYTES, claim.component == Component::CHeapFree)
    };
    findings.claims.iter().map(shown).collect()
}

#[test]
fn blocks_on_a_list_are_free_and_pages_of_them_too() {
    for is_old in [true, false] {
        // One page of 16 blocks of 4 KiB, of which the third is free, and a page of one large block.
        let first_free = SEGMENT_ADDR + SLICE_BYTES + 2 * PAGE_BYTES;
        let header = segment(is_old, &[(1, PAGE_BYTES, 15, first_free), (8, 8 * SLICE_BYTES, 1, 0)]);
        let memory =
            Pieces(vec![(SEGMENT_ADDR, header), (SEGMENT_ADDR + SLICE_BYTES, vec![0; SLICE_BYTES as usize])]);
        let (findings, census) = read(&memory, &[], &free_memory());
        assert_eq!(pages(&findings), [(0, 18, false), (18, 1, true), (19, 141, false), (160, 8032, true)]);
        let census = census.unwrap();
        assert_eq!((census.live.chunks, census.binned.chunks), (16, 1), "is_old: {is_old}");
        assert_eq!(census.live.bytes, 15 * PAGE_BYTES + 8 * SLICE_BYTES);
        assert!(findings.gaps.is_empty());
    }
}

#[test]
fn a_list_that_leads_away_leaves_its_page_in_use_and_is_told() {
    let header = segment(true, &[(1, 64, 15, 0xdead_0000)]);
    let memory = Pieces(vec![(SEGMENT_ADDR, header), (SEGMENT_ADDR + SLICE_BYTES, vec![0; 1 << 16])]);
    let (findings, census) = read(&memory, &[], &free_memory());
    assert_eq!((findings.gaps.len(), census.unwrap().live.chunks), (1, 15));
}

#[test]
fn memory_that_only_looks_aligned_is_no_segment() {
    let memory = Pieces(vec![(SEGMENT_ADDR, vec![0x11; 1 << 16])]);
    assert_eq!(read(&memory, &[], &free_memory()), (Findings::default(), None));
}

const MAP_ADDR: u64 = 0x490_8000_0000;
const PART_ADDR: u64 = MAP_ADDR + (2 << 20);
const PAGE_ADDR: u64 = MAP_ADDR + (3 << 20);

/// What leads to the page that is described by `words`, in the slice after the segment's first.
fn mapped(words: &[u64]) -> Pieces {
    let slice = SEGMENT_ADDR / SLICE_BYTES + 1;
    let (mut map, mut part) = (vec![0; 2 << 20], vec![0; 1 << 16]);
    put(&mut map, (slice >> 13) as usize * 8, PART_ADDR);
    put(&mut part, (slice & 0x1fff) as usize * 8, PAGE_ADDR);
    let page = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut arena = vec![0; 64];
    put(&mut arena, 40, 512);
    put(&mut arena, 48, 1);
    Pieces(vec![
        (VARIABLES_ADDR, MAP_ADDR.to_le_bytes().to_vec()),
        (MAP_ADDR, map),
        (PART_ADDR, part),
        (PAGE_ADDR, page),
        (SEGMENT_ADDR, arena),
        (SEGMENT_ADDR + SLICE_BYTES, vec![0; 1 << 16]),
    ])
}

fn variables() -> [AddrRange; 1] {
    [AddrRange::with_len(VARIABLES_ADDR, 8).unwrap()]
}

#[test]
fn a_page_of_version_3_is_found_by_the_map_and_its_arena_by_the_page() {
    let start_addr = SEGMENT_ADDR + SLICE_BYTES;
    // 16 blocks of 4 KiB, of which the third is free; from slice 1 of the arena.
    let counts = 15 | 16 << 16 | 16 << 32;
    let free = start_addr + 2 * PAGE_BYTES;
    let words = [1, free, counts, 0, 1, PAGE_BYTES, start_addr, 0, 0, 0, 0, 0, SEGMENT_ADDR, 1, 7];
    let (findings, census) = read(&mapped(&words), &variables(), &free_memory());
    assert_eq!(pages(&findings), [(0, 18, false), (18, 1, true), (19, 13, false), (32, 8160, true)]);
    assert_eq!(census.unwrap().live.chunks, 15);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_descriptions_are_read_within_bounds(
        slices in prop::collection::vec((1u64..60, any::<u32>(), any::<u64>(), any::<u64>()), 0..8),
        words in prop::collection::vec(any::<u64>(), 15),
        start: u16,
    ) {
        let slices: Vec<_> = slices.iter().map(|&(count, size, used, list)| (count, u64::from(size), used, list)).collect();
        let free = free_memory();
        for is_old in [true, false] {
            let memory = Pieces(vec![(SEGMENT_ADDR, segment(is_old, &slices))]);
            for claim in read(&memory, &[], &free).0.claims {
                prop_assert!(free.covers(claim.range));
            }
        }
        let mut words = words;
        words[6] = SEGMENT_ADDR + SLICE_BYTES + u64::from(start);
        words[5] &= 0xffff;
        for claim in read(&mapped(&words), &variables(), &free).0.claims {
            prop_assert!(free.covers(claim.range));
        }
    }
}
