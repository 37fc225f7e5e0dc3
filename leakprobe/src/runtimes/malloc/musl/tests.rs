//! Groups made by hand, one within another, and by chance.

use proptest::prelude::*;

use super::*;
use crate::address::PAGE_BYTES;
use crate::claim::Evidence;
use crate::runtimes::malloc::anonymous::tests::{Noise, region};
use crate::target::memory::canned::Pieces;

const BSS_ADDR: u64 = 0x5600_0000_1000;
const AREA_ADDR: u64 = 0x5600_0010_0000;
const META_ADDR: u64 = AREA_ADDR + 24;
const HEAP_ADDR: u64 = 0x7f00_0000_0000;
const SECRET: u64 = 0x1234_5678_9abc_def1;

fn bytes_of(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn variables() -> Vec<u8> {
    let mut words = vec![0; 64];
    (words[20], words[21], words[27], words[28]) = (SECRET, 1, AREA_ADDR, AREA_ADDR);
    bytes_of(&words)
}

/// A description: where the group is, which slots hold nothing, how many there are, their class, its mapping.
struct Meta(u64, u32, u64, u64, u64);

fn area(metas: &[Meta]) -> Vec<u8> {
    let mut words = vec![SECRET, 0, metas.len() as u64];
    for Meta(addr, unused, slots, class, map_pages) in metas {
        words.extend([0, 0, *addr, u64::from(*unused), (slots - 1) | 1 << 5 | class << 6 | map_pages << 12]);
    }
    let mut bytes = bytes_of(&words);
    bytes.resize(4096, 0);
    bytes
}

fn read(metas: &[Meta]) -> (Findings, Option<Census>) {
    let mut pieces = vec![(BSS_ADDR, variables()), (AREA_ADDR, area(metas))];
    let headers = (META_ADDR..).step_by(40).zip(metas);
    pieces.extend(headers.map(|(meta_addr, meta)| (meta.0, bytes_of(&[meta_addr]))));
    let regions = [
        region(AREA_ADDR, AREA_ADDR + 0x1000, "rw-p", "[heap]"),
        region(HEAP_ADDR, HEAP_ADDR + 0x10_0000, "rw-p", ""),
    ];
    let musl = Musl { variables: AddrRange::with_len(BSS_ADDR, 512).into_iter().collect(), is_certain: true };
    musl.read(&Pieces(pieces), &AnonymousMemory::new(&regions, &[]), None)
}

/// (page of the heap, pages, free) of each claim on the heap.
fn pages(findings: &Findings) -> Vec<(u64, u64, bool)> {
    let on_heap = findings.claims.iter().filter(|claim| claim.range.start_addr >= HEAP_ADDR);
    on_heap
        .map(|claim| {
            assert_eq!(claim.evidence, Evidence::Structure);
            let first = (claim.range.start_addr - HEAP_ADDR) / PAGE_BYTES;
            (first, claim.range.len_bytes() / PAGE_BYTES, claim.component == Component::CHeapFree)
        })
        .collect()
}

#[test]
fn a_page_of_unused_slots_is_free() {
    // 16 slots of 8,176 bytes in 32 pages, of which the third to the tenth are unused.
    let (findings, census) = read(&[Meta(HEAP_ADDR, 0b11_1111_1100, 16, 31, 32)]);
    assert_eq!(pages(&findings), [(0, 4, false), (4, 15, true), (19, 13, false)]);
    let census = census.unwrap();
    assert_eq!((census.live.chunks, census.live.bytes), (8, 8 * 8176));
    assert_eq!((census.binned.chunks, census.system_bytes), (8, 32 * 4096));
    let dead_bytes: u64 = findings.slack.iter().map(|slack| slack.dead_bytes).sum();
    assert_eq!(dead_bytes, 17 * PAGE_BYTES - 16 - 8 * 8176, "{:?}", findings.slack);
}

#[test]
fn a_group_within_a_slot_is_what_the_slot_holds() {
    // Two slots of 32,752 bytes; in the first, at its begin, two of 5,440 bytes of which one is unused.
    let metas = [Meta(HEAP_ADDR, 0, 2, 39, 16), Meta(HEAP_ADDR + 16, 0b01, 2, 29, 0)];
    let (findings, census) = read(&metas);
    let census = census.unwrap();
    assert_eq!(census.live.chunks, 2, "the slot around is not one more: {census:?}");
    assert_eq!(census.live.bytes, 2047 * 16 + 340 * 16);
    assert_eq!(pages(&findings), [(0, 3, false), (3, 5, true), (8, 8, false)]);
}

#[test]
fn a_block_with_a_mapping_of_its_own_is_in_use_whole() {
    let (findings, census) = read(&[Meta(HEAP_ADDR, 0, 1, 63, 50)]);
    assert_eq!(pages(&findings), [(0, 50, false)]);
    assert_eq!(census.unwrap().mapped.chunks, 1);
}

#[test]
fn without_mallocng_the_brk_heap_is_in_use_and_that_is_said() {
    let brk = AddrRange::with_len(AREA_ADDR, 0x1000);
    let memory = Pieces::default();
    let musl = |is_certain| Musl { variables: Vec::new(), is_certain };
    let (findings, census) = musl(true).read(&memory, &AnonymousMemory::default(), brk);
    assert_eq!((findings.claims.len(), findings.gaps.len(), census), (1, 1, None));
    let (findings, _) = musl(false).read(&memory, &AnonymousMemory::default(), brk);
    assert_eq!(findings, Findings::default(), "a static program without musl is not musl's");
}

proptest! {
    #[test]
    fn garbage_never_panics_and_never_claims_what_is_not_there(
        seed: u64,
        pool in prop::collection::vec(any::<u64>(), 0..8),
    ) {
        let likely = [1, SECRET, AREA_ADDR, HEAP_ADDR, 101, META_ADDR, 0x20_07df, u64::MAX, (1 << 40) | 0xfc0];
        let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
        let regions = [
            region(AREA_ADDR, AREA_ADDR + 0x4000, "rw-p", "[heap]"),
            region(HEAP_ADDR, HEAP_ADDR + 0x10_0000, "rw-p", ""),
        ];
        let free = AnonymousMemory::new(&regions, &[]);
        let musl = Musl { variables: AddrRange::with_len(BSS_ADDR, 0x4000).into_iter().collect(), is_certain: true };
        let (findings, _) = musl.read(&memory, &free, None);
        for claim in findings.claims {
            prop_assert!(free.covers(claim.range));
        }
    }

    #[test]
    fn any_description_is_read_within_bounds(words: [u64; 5], small in 0u64..1 << 20) {
        let words = [words[0], words[1], words[2] & 0x7fff_ffff_fff0, words[3], (words[4] & 0xfff) | small << 12];
        if let Some(group) = groups::Group::parse(&bytes_of(&words), META_ADDR) {
            let (mut findings, free) = (Findings::default(), AnonymousMemory::default());
            groups::survey(vec![group], &free, &mut findings);
            prop_assert!(findings.claims.is_empty());
        }
    }
}
