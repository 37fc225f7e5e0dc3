//! A runtime made by hand with every structure in it, and what damage does to each.

use proptest::prelude::*;

use super::super::find::Global;
use super::super::image::Arch;
use super::*;
use crate::target::memory::canned::Pieces;

const MHEAP_ADDR: u64 = 0xaa_0000;
const GLOBALS_ADDR: u64 = 0xbb_0000;
const HEAP_ADDR: u64 = 0xc0_0000_0000;
const SUMMARY_ADDRS: [u64; 5] =
    [0x7f00_0000_0000, 0x7f01_0000_0000, 0x7f02_0000_0000, 0x7f03_0000_0000, 0x7f04_0000_0000];
const BITMAPS_ADDR: u64 = 0x7f05_0000_0000;
const SCAVENGE_ADDR: u64 = 0x7f06_0000_0000;
const ARENA_INDEX_ADDR: u64 = 0x7f07_0000_0000;
const ARENA_LIST_ADDR: u64 = 0x7f08_0000_0000;
const ARENA_ADDR: u64 = 0x7f09_0000_0000;
const SPANS_ADDR: u64 = 0x7f0a_0000_0000;
const BUCKETS_ADDR: u64 = 0x7f0b_0000_0000;
const CHUNK_ADDRS: [u64; 2] = [0x7f0c_0000_0000, 0x7f0c_0100_0000];
const MARK_ADDRS: [u64; 3] = [0x7f0d_0000_0000, 0x7f0d_0100_0000, 0x7f0d_0200_0000];
const QUEUE_ADDR: u64 = CHUNK_ADDRS[0] + 0x100;
const RING_ADDR: u64 = 0x7f0e_0000_0000;
const STATE_LIST_ADDR: u64 = HEAP_ADDR + 0x1000;
const STATES_ADDR: u64 = 0x7f0f_0000_0000;
const THREAD_ADDR: u64 = 0xcc_0000;

/// The number of the arena that starts at [`HEAP_ADDR`].
const ARENA_NUMBER: u64 = (HEAP_ADDR + 0x8000_0000_0000) >> 26;

fn layout() -> Layout {
    Layout::for_version(27, Arch::Amd64).unwrap()
}

/// A piece of zeros with words in it.
fn piece(addr: u64, len_bytes: usize, words: &[(u64, u64)]) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; len_bytes];
    for &(offset, word) in words {
        let offset = usize::try_from(offset).unwrap();
        bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
    }
    (addr, bytes)
}

/// The words of a slice header at `offset`.
fn slice(offset: u64, data_addr: u64, len: u64, capacity: u64) -> [(u64, u64); 3] {
    [(offset, data_addr), (offset + 8, len), (offset + 16, capacity)]
}

fn mheap() -> (u64, Vec<u8>) {
    let layout = layout();
    let pages = layout.pages_offset;
    let summaries = (0_u64..).zip(SUMMARY_ADDRS).flat_map(|(level, addr)| {
        slice(pages + layout.page_summary_offset + 24 * level, addr, 0, 1 << (14 + 3 * level))
    });
    let mut words: Vec<(u64, u64)> = summaries.collect();
    words.push((pages + layout.page_chunks_offset + 8 * 77, BITMAPS_ADDR));
    words.extend(slice(pages + layout.scavenge_chunks_offset, SCAVENGE_ADDR, 1 << 26, 1 << 26));
    words.extend(slice(layout.allspans_offset, SPANS_ADDR, 100, 8192));
    words.push((layout.arenas_offset, ARENA_INDEX_ADDR));
    words.extend(slice(layout.heap_arenas_offset, ARENA_LIST_ADDR, 1, 512));
    piece(MHEAP_ADDR, 93464, &words)
}

const GLOBALS: [(Global, u64); 6] = [
    (Global::PersistentChunks, GLOBALS_ADDR),
    (Global::GcBitsArenas, GLOBALS_ADDR + 0x100),
    (Global::Buckhash, GLOBALS_ADDR + 0x200),
    (Global::Allm, GLOBALS_ADDR + 0x300),
    (Global::VgetrandomAlloc, GLOBALS_ADDR + 0x400),
    (Global::Work, GLOBALS_ADDR + 0x500),
];

fn globals() -> (u64, Vec<u8>) {
    let mut words = vec![(0, CHUNK_ADDRS[1]), (0x200, BUCKETS_ADDR), (0x300, THREAD_ADDR)];
    // The list of free arenas has two, that of current ones has one.
    words.extend([(0x108, MARK_ADDRS[1]), (0x118, MARK_ADDRS[2])]);
    words.extend(slice(0x400, STATE_LIST_ADDR, 1, 28));
    words.push((0x420, 144));
    words.push((0x500 + layout().span_queues_offset.unwrap() + 8, QUEUE_ADDR));
    piece(GLOBALS_ADDR, 0x1000, &words)
}

fn runtime() -> Pieces {
    let layout = layout();
    Pieces(vec![
        mheap(),
        globals(),
        piece(ARENA_INDEX_ADDR, 32 << 20, &[(ARENA_NUMBER * 8, ARENA_ADDR)]),
        piece(ARENA_LIST_ADDR, 4096, &[(0, ARENA_NUMBER)]),
        // The first chunk is the older one, and the queue lies in it.
        piece(CHUNK_ADDRS[0], 4096, &[(0x108, 0), (0x128, 512), (0x130, RING_ADDR)]),
        piece(CHUNK_ADDRS[1], 4096, &[(0, CHUNK_ADDRS[0])]),
        piece(MARK_ADDRS[0], 4096, &[]),
        piece(MARK_ADDRS[1], 4096, &[(8, MARK_ADDRS[0])]),
        piece(MARK_ADDRS[2], 4096, &[]),
        piece(STATE_LIST_ADDR, 4096, &[(0, STATES_ADDR + 144)]),
        piece(THREAD_ADDR, 4096, &[(layout.vgetrandom_offset.unwrap(), STATES_ADDR + 0x1000)]),
    ])
}

fn read(memory: &Pieces, known: &[(Global, u64)]) -> Findings {
    let heap = [AddrRange::with_len(HEAP_ADDR, 4 << 20).unwrap()];
    let globals = Globals::at(MHEAP_ADDR, known.to_vec());
    findings(&Reader { memory, layout: &layout(), globals: &globals }, &heap)
}

/// The runtime with one word changed, wherever it is.
fn damaged(addr: u64, word: u64) -> Pieces {
    let mut memory = runtime();
    let (start_addr, bytes) = memory
        .0
        .iter_mut()
        .find(|(start_addr, bytes)| {
            addr.checked_sub(*start_addr).is_some_and(|offset| offset < bytes.len().try_into().unwrap())
        })
        .unwrap();
    let offset = usize::try_from(addr - *start_addr).unwrap();
    bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
    memory
}

#[test]
fn every_structure_is_claimed() {
    let found = read(&runtime(), &GLOBALS);
    assert_eq!(found.gaps, []);
    let ranges: Vec<(u64, u64)> =
        found.claims.iter().map(|claim| (claim.range.start_addr, claim.range.len_bytes())).collect();
    let mut expected: Vec<(u64, u64)> =
        (0_u32..).zip(SUMMARY_ADDRS).map(|(l, addr)| (addr, (128 << 10) << (3 * l))).collect();
    expected.extend([
        (BITMAPS_ADDR, 1 << 20),
        (SCAVENGE_ADDR, 512 << 20),
        (ARENA_INDEX_ADDR, 32 << 20),
        (ARENA_ADDR, 18 * 4096),
        (SPANS_ADDR, 64 << 10),
        (BUCKETS_ADDR, 352 * 4096),
    ]);
    expected.extend(CHUNK_ADDRS.map(|addr| (addr, 256 << 10)));
    expected.extend(MARK_ADDRS.map(|addr| (addr, 64 << 10)));
    expected.extend([(RING_ADDR, 4096), (STATES_ADDR, 2 * 4096)]);
    assert_eq!(ranges, expected);
    assert!(found.claims.iter().all(|claim| claim.component == Component::GoRuntime));
}

#[test]
fn what_has_no_symbol_is_a_gap_that_names_it() {
    let found = read(&runtime(), &[]);
    let whats: Vec<&str> = found.gaps.iter().map(|gap| gap.what.as_str()).collect();
    let expected = [
        "Go profiling hash table",
        "Go persistent allocations",
        "Go mark bits",
        "Go span queues",
        "Go random states",
    ];
    assert_eq!(whats, expected);
    assert!(found.gaps[1].why.contains("runtime.persistentChunks"), "{}", found.gaps[1].why);
    assert_eq!(found.claims.len(), 10);
}

#[test]
fn damage_costs_one_structure() {
    let layout = layout();
    let pages_addr = MHEAP_ADDR + layout.pages_offset;
    for (addr, word, what) in [
        (pages_addr + 16, 1 << 13, "Go page summaries"),
        (pages_addr + layout.page_chunks_offset, BITMAPS_ADDR + 8, "Go page bitmaps"),
        (pages_addr + layout.scavenge_chunks_offset + 16, 77, "Go scavenge index"),
        (ARENA_LIST_ADDR, 1 << 30, "Go heap arenas' metadata"),
        (ARENA_INDEX_ADDR + ARENA_NUMBER * 8, 0, "Go heap arenas' metadata"),
        (MHEAP_ADDR + layout.allspans_offset + 8, 9000, "Go list of spans"),
        (MHEAP_ADDR + layout.allspans_offset, HEAP_ADDR, "Go list of spans"),
        (GLOBALS_ADDR + 0x200, u64::MAX - 4095, "Go profiling hash table"),
        (CHUNK_ADDRS[0], CHUNK_ADDRS[1], "Go persistent allocations"),
        (MARK_ADDRS[0] + 8, 0x10, "Go mark bits"),
        (QUEUE_ADDR + 40, 513, "Go span queues"),
        (QUEUE_ADDR + 8, QUEUE_ADDR, "Go span queues"),
        (GLOBALS_ADDR + 0x420, 1 << 20, "Go random states"),
    ] {
        let found = read(&damaged(addr, word), &GLOBALS);
        let whats: Vec<&str> = found.gaps.iter().map(|gap| gap.what.as_str()).collect();
        assert_eq!(whats, [what], "{:?}", found.gaps);
        assert!(found.claims.iter().all(|claim| claim.range.start_addr >= SUMMARY_ADDRS[0]));
    }
}

#[test]
fn a_list_cut_short_gives_what_came_before() {
    let found = read(&damaged(CHUNK_ADDRS[0], 0x1234_5000), &GLOBALS);
    assert_eq!(found.gaps.len(), 1);
    assert!(CHUNK_ADDRS.iter().all(|&addr| found.claims.iter().any(|claim| claim.range.contains(addr))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_never_panics(places in proptest::collection::vec((0_usize..400, any::<u64>(), 0_u32..64), 1..20)) {
        let mut memory = runtime();
        let mut used: Vec<(usize, usize)> = Vec::new();
        for (index, (_, bytes)) in memory.0.iter().enumerate().filter(|(_, (addr, _))| *addr != ARENA_INDEX_ADDR) {
            let words = bytes.as_chunks::<8>().0.iter().enumerate();
            used.extend(words.filter(|(_, word)| **word != [0; 8]).map(|(place, _)| (index, place * 8)));
        }
        for (place, word, shift) in places {
            let (index, offset) = used[place % used.len()];
            memory.0[index].1[offset..offset + 8].copy_from_slice(&(word >> shift).to_le_bytes());
        }
        let found = read(&memory, &GLOBALS);
        prop_assert!(found.claims.windows(2).all(|pair| pair[0].range.end_addr < pair[1].range.start_addr));
    }
}
