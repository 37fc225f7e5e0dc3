//! V8's cages: with compressed pointers its heap lies in an area of 4 GiB at a multiple of that, and so does the heap of
//! Oilpan, the collector of C++ objects that comes with it (cppgc, Blink's). No symbol is needed to find them.
//!
//! A chunk of V8's has its own number in its header: the low bits of the second word are which 256 KiB of the cage it
//! is (V8 `src/heap/memory-chunk.h`, `metadata_index_`, where V8 is built with its sandbox; tried on Chromium 156). A
//! page of Oilpan's begins with the address of its heap, the same in all (`src/heap/cppgc/heap-page.h`, `BasePage`).

use std::collections::BTreeMap;

use super::super::Reader;
use super::CHUNK_BYTES;
use crate::address::AddrRange;
use crate::target::maps::Region;

/// `kPtrComprCageReservationSize`.
const CAGE_BYTES: u64 = 4 << 30;
/// Chunks have numbers of so many bits; above them stands which cage it is.
const NUMBER_MASK: u64 = CAGE_BYTES / CHUNK_BYTES - 1;
/// A chunk's flags are in the lower half of the first word.
const MAX_FLAGS: u64 = u32::MAX as u64;
/// So many chunks have to know their number before a cage is one.
const MIN_CHUNKS: u64 = 2;
/// Headers that are read.
const MAX_HEADERS: usize = 1 << 16;
/// `cppgc::internal::kPageSize`.
const OILPAN_PAGE_BYTES: u64 = 128 << 10;
/// Pages that have to name the same heap.
const MIN_OILPAN_PAGES: usize = 3;

/// What of the regions lies in V8's cages; empty where there is no cage.
pub(super) fn heap(reader: &Reader<'_>) -> Vec<AddrRange> {
    let mut chunks: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let aligned = reader.regions.iter().filter(|region| is_heap(region, CHUNK_BYTES));
    for region in aligned.take(MAX_HEADERS) {
        let addr = region.range.start_addr;
        // The first page of a cage may be anything's.
        let number = (addr / CHUNK_BYTES) & NUMBER_MASK;
        let Some([flags, stated]) = header(reader, addr).filter(|_| number > 0) else { continue };
        let (right, wrong) = chunks.entry(cage_of(addr)).or_default();
        *if flags <= MAX_FLAGS && stated & NUMBER_MASK == number { right } else { wrong } += 1;
    }
    let is_cage =
        |least: u64| move |(_, (right, wrong)): &(&u64, &(u64, u64))| *right >= least && *right > *wrong;
    if !chunks.iter().any(|chunk| is_cage(MIN_CHUNKS)(&chunk)) {
        return Vec::new();
    }
    // There are others beside the main one, with fewer chunks: for what the sandbox must not reach, for code.
    let cages: Vec<u64> = chunks.iter().filter(is_cage(1)).map(|(cage, _)| *cage).collect();
    let inside =
        |region: &&Region| region.is_private_anonymous() && cages.contains(&cage_of(region.range.start_addr));
    reader.regions.iter().filter(inside).filter(|region| region.readable).map(|region| region.range).collect()
}

/// Oilpan's pages: regions behind reserved memory, in which every resident page names the same heap.
pub(super) fn oilpan(reader: &Reader<'_>) -> Vec<AddrRange> {
    let mut found = Vec::new();
    let mut headers_left = MAX_HEADERS;
    for pair in reader.regions.windows(2) {
        let [below, region] = pair else { continue };
        let is_reserved = !below.readable && below.range.end_addr == region.range.start_addr;
        if !is_reserved || !is_heap(region, OILPAN_PAGE_BYTES) {
            continue;
        }
        let addrs = (region.range.start_addr..region.range.end_addr).step_by(OILPAN_PAGE_BYTES as usize);
        let heaps: Vec<u64> = addrs
            .take(headers_left)
            .filter_map(|addr| header(reader, addr))
            .map(|[heap_addr, _]| heap_addr)
            .collect();
        headers_left -= heaps.len();
        let Some(first) = heaps.first().filter(|heap_addr| is_pointer(reader, **heap_addr)) else { continue };
        // A large object goes over the places where pages would begin.
        let alike = heaps.iter().filter(|heap_addr| *heap_addr == first).count();
        if alike >= MIN_OILPAN_PAGES && alike * 2 > heaps.len() {
            found.push(region.range);
        }
    }
    found
}

fn cage_of(addr: u64) -> u64 {
    addr / CAGE_BYTES
}

fn is_heap(region: &Region, alignment_bytes: u64) -> bool {
    region.is_private_anonymous()
        && region.readable
        && region.range.start_addr.is_multiple_of(alignment_bytes)
}

fn header(reader: &Reader<'_>, addr: u64) -> Option<[u64; 2]> {
    if !reader.is_resident(addr) {
        return None;
    }
    Some([reader.memory.read_u64(addr).ok()?, reader.memory.read_u64(addr + 8).ok()?])
}

/// Into writable memory.
fn is_pointer(reader: &Reader<'_>, addr: u64) -> bool {
    let after = reader.regions.partition_point(|region| region.range.end_addr <= addr);
    let region = reader.regions.get(after);
    addr.is_multiple_of(8) && region.is_some_and(|region| region.writable && region.range.contains(addr))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::PAGE_BYTES;
    use crate::runtimes::malloc::anonymous::AnonymousMemory;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::snapshot::{PageRun, Residency};
    use crate::target::memory::Memory;
    use crate::target::memory::canned::Pieces;

    const CAGE: u64 = 0x15b_0000_0000;
    const TRUSTED: u64 = 0x877_0000_0000;
    const OILPAN: u64 = 0x288c_0200_0000;
    const HEAP: u64 = 0x3d2c_000a_c008;

    fn regions() -> Vec<Region> {
        vec![
            region(CAGE, CAGE + 0x10000, "r--p", ""),
            region(CAGE + 0x100_0000, CAGE + 0x108_0000, "rw-p", ""),
            region(CAGE + 0x150_0000, CAGE + 0x154_0000, "rw-p", ""),
            region(CAGE + 0x155_0000, CAGE + 0x156_0000, "---p", ""),
            region(TRUSTED + 0x100_0000, TRUSTED + 0x104_0000, "rw-p", ""),
            region(OILPAN - 0x200_0000, OILPAN, "---p", ""),
            region(OILPAN, OILPAN + 0x8_0000, "rw-p", ""),
            region(HEAP & !0xfff, HEAP + 0x1000, "rw-p", ""),
        ]
    }

    fn words(words: [u64; 2]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn find<T>(memory: &dyn Memory, find: impl Fn(&Reader<'_>) -> T) -> T {
        let regions = regions();
        let runs: Vec<PageRun> = regions
            .iter()
            .map(|region| PageRun { range: region.range, residency: Residency::Resident })
            .collect();
        find(&Reader {
            memory,
            modules: &[],
            regions: &regions,
            free: AnonymousMemory::default(),
            runs: &runs,
        })
    }

    fn chunks(second: u64) -> Pieces {
        Pieces(vec![
            (CAGE + 0x100_0000, words([4, 0x40])),
            (CAGE + 0x150_0000, words([4, second])),
            (TRUSTED + 0x100_0000, words([4, 0x4040])),
        ])
    }

    #[test]
    fn chunks_know_their_number() {
        let starts: Vec<u64> = find(&chunks(0x54), heap).iter().map(|range| range.start_addr).collect();
        assert_eq!(starts, [CAGE, CAGE + 0x100_0000, CAGE + 0x150_0000, TRUSTED + 0x100_0000]);
        assert!(find(&chunks(0x55), heap).is_empty(), "one that is right proves nothing");
        assert!(find(&Pieces::default(), heap).is_empty());
    }

    #[test]
    fn pages_of_oilpan_name_one_heap() {
        let pages = |heap_addr: u64| {
            let page = |index: u64| (OILPAN + index * OILPAN_PAGE_BYTES, words([heap_addr, index * 8]));
            Pieces((0..4).map(page).collect())
        };
        assert_eq!(find(&pages(HEAP), oilpan), [AddrRange::new(OILPAN, OILPAN + 0x8_0000).unwrap()]);
        assert!(find(&pages(CAGE), oilpan).is_empty(), "a heap's address is in writable memory");
        assert!(find(&pages(0), oilpan).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(seed: u64, more: u64) {
            let pool = vec![0, 4, 0x40, 0x54, HEAP, CAGE, more];
            let memory = Noise { seed, pool };
            for range in find(&memory, heap).into_iter().chain(find(&memory, oilpan)) {
                prop_assert!(range.len_bytes() >= PAGE_BYTES);
            }
        }
    }
}
