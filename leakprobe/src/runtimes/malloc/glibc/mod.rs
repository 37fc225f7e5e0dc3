//! glibc's malloc (ptmalloc): the brk heap, the arenas' heaps and the chunks with a mapping of their own.
//!
//! Answers which pages hold what the program has not freed, as [`Component::CHeapInUse`], and which hold nothing
//! but what malloc keeps, as [`Component::CHeapFree`]; and counts the chunks. Refuses heaps of another size than
//! 64 MiB (the tunable `glibc.malloc.hugetlb=2` makes some) and aligned chunks whose mapping was moved by
//! `mremap`. The surprise: no symbol is needed. `main_arena` and `mp_` are recognised by what they contain,
//! because libc's symbol table is nearly always stripped and neither is exported.
//!
//! Layouts: glibc `malloc/malloc.c` and `malloc/arena.c`, x86_64, 2.26 to 2.43; tried on Debian's 2.31, 2.36,
//! 2.41 and 2.43, where the sums equalled those of `mallinfo2`.

mod arena;
mod cached;
mod malloc_par;
mod mmapped;
mod survey;
mod tcache;
mod walk;
mod window;

use self::arena::MainArena;
use self::malloc_par::MallocPar;
use self::survey::Survey;
use self::walk::Bounds;
use super::census::Census;
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap, Slack};
use crate::runtimes::cpp::VtablePlaces;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, read_or_zero, words_of};
use crate::target::elf::ElfFile;
use crate::target::maps::Region;
use crate::target::memory::Memory;

/// A static executable's initialised data may be long; libc's own is 24 KiB.
const MAX_DATA_BYTES: u64 = 16 << 20;

/// No brk heap grows by more between two reads of a look.
const BRK_ROOM_BYTES: u64 = 4 << 30;

/// libc's .rodata is 150 KiB, a static executable's may be long.
const MAX_RODATA_BYTES: u64 = 64 << 20;

/// Claims what glibc's malloc holds, and counts it; no census where malloc was not found.
///
/// `taken` lists what other runtimes own for certain (Go's heap and metadata, thread stacks, sanitizers,
/// .bss), so that their contents are not taken for malloc's headers. `libc_data` are the addresses of the
/// initialised writable data of libc, or of a static executable: see [`data_ranges`]. Without them only
/// what proves itself is claimed. `version` is a hint, as "2.36". `places` are where C++ objects' vtables may lie.
pub fn read(
    memory: &dyn Memory,
    regions: &[Region],
    taken: &[AddrRange],
    libc_data: &[AddrRange],
    version: Option<&str>,
    places: &VtablePlaces,
) -> (Findings, Option<Census>) {
    let mapped = AnonymousMemory::new(&not_named_by_others(regions), &[]);
    let anonymous = mapped.without(taken);
    let data: Vec<DataWords> = libc_data.iter().map(|range| DataWords::read(memory, *range)).collect();
    let main_arena = data.iter().find_map(|data| arena::find_main(memory, data));
    let brk_start_addr = regions.iter().find(|region| region.name == "[heap]").map(|r| r.range.start_addr);
    let malloc_par = data.iter().find_map(|data| MallocPar::find(data, brk_start_addr));

    let mut survey = Survey::new(memory, places);
    let mut others = Findings::default();
    let mut owned = brk_heap(memory, regions, main_arena.as_ref(), malloc_par, &mut survey, &mut others);
    let heaps = arena::heaps(memory, &mapped, &anonymous, main_arena.as_ref());
    others.gaps.extend(main_arena.as_ref().and_then(|main| main.gap(&heaps)));
    owned.extend(heaps.iter().map(|heap| heap.range));
    for heap in &heaps {
        survey.heap(heap.range, heap.arena, &|| heap.bounds(memory));
    }
    survey.take_back_cached(version.is_some_and(stores_plain_pointers));

    let (chunks, gap) = mmapped::chunks(memory, &anonymous.without(&owned), malloc_par.as_ref());
    let (mut findings, mut census) = survey.finish();
    for range in &chunks {
        census.mapped.add(range.len_bytes());
        census.by_size.add(range.len_bytes());
        let mut word = [0; 8];
        memory.read_resident(range.start_addr + walk::HEADER_BYTES, &mut word);
        let word = u64::from_le_bytes(word);
        if places.may_hold(word) {
            census.first_words.add(word, range.len_bytes());
        }
        findings.slack.push(Slack { range: *range, dead_bytes: 0 });
    }
    findings.claims.extend(chunks.into_iter().map(|range| in_use(range, Evidence::Structure)));
    findings.claims.append(&mut others.claims);
    findings.gaps.append(&mut others.gaps);
    findings.gaps.extend(gap);
    let is_there = main_arena.is_some_and(|main| main.is_used()) || !heaps.is_empty();
    (findings, is_there.then_some(census))
}

/// Before safe-linking.
fn stores_plain_pointers(version: &str) -> bool {
    let minor = version.strip_prefix("2.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor < 32)
}

/// The addresses where `main_arena` and `mp_` may lie: the initialised part of the writable segments of
/// libc, or of a static executable, loaded with `load_bias`.
pub fn data_ranges(elf: &ElfFile, load_bias: u64) -> Vec<AddrRange> {
    elf.segments()
        .iter()
        .filter(|segment| segment.writable)
        .filter_map(|segment| {
            let len_bytes = segment.file_bytes.min(segment.memory_bytes);
            AddrRange::with_len(load_bias.wrapping_add(segment.svma), len_bytes)
        })
        .collect()
}

/// The version in the banner of libc, or of a static executable: "2.36".
///
/// The banner is the string that `libc.so.6` prints when it is run (glibc `csu/version.c`).
pub fn version(elf: &ElfFile) -> Option<String> {
    if elf.section(".rodata")?.len_bytes > MAX_RODATA_BYTES {
        return None;
    }
    version_in(&elf.section_data(".rodata").ok()??)
}

fn version_in(rodata: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"GNU C Library ";
    const BEFORE_VERSION: &[u8] = b"release version ";
    const MAX_BANNER_BYTES: usize = 256;
    let banner_offset = rodata.windows(BANNER.len()).position(|window| window == BANNER)?;
    let banner = &rodata[banner_offset..rodata.len().min(banner_offset + MAX_BANNER_BYTES)];
    let before = banner.windows(BEFORE_VERSION.len()).position(|window| window == BEFORE_VERSION)?;
    let version = banner[before + BEFORE_VERSION.len()..].iter();
    let version: String = version
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
        .map(|byte| *byte as char)
        .collect();
    let version = version.trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_owned())
}

/// Regions whose name, where the kernel keeps names, does not say that somebody else made them.
fn not_named_by_others(regions: &[Region]) -> Vec<Region> {
    let named_by_others = |region: &&Region| {
        region.name.starts_with("[anon:") && !region.name.starts_with("[anon: glibc: malloc")
    };
    regions.iter().filter(|region| !named_by_others(region)).cloned().collect()
}

fn in_use(range: AddrRange, evidence: Evidence) -> Claim {
    Claim { range, component: Component::CHeapInUse, evidence }
}

/// Surveys the brk heap, and returns where it is. Another malloc may have used brk too (gperftools' tcmalloc
/// does): only the main arena's top inside proves that it is glibc's. Else it is claimed by its name alone.
fn brk_heap(
    memory: &dyn Memory,
    regions: &[Region],
    main_arena: Option<&MainArena>,
    malloc_par: Option<MallocPar>,
    survey: &mut Survey<'_>,
    others: &mut Findings,
) -> Vec<AddrRange> {
    let heap: Vec<AddrRange> =
        regions.iter().filter(|region| region.name == "[heap]").map(|region| region.range).collect();
    let glibcs = main_arena.filter(|main| heap.iter().any(|range| range.contains(main.top_addr)));
    let hull = heap.first().zip(heap.last());
    let hull = hull.and_then(|(first, last)| AddrRange::new(first.start_addr, last.end_addr));
    if let (Some(main), Some(hull)) = (glibcs, hull) {
        let base_addr = malloc_par.and_then(|par| par.sbrk_base_addr(memory));
        let base_addr = base_addr.filter(|addr| hull.contains(*addr)).unwrap_or(hull.start_addr);
        // The break may have moved on since the regions were listed.
        let room = AddrRange { end_addr: hull.end_addr.saturating_add(BRK_ROOM_BYTES), ..hull };
        survey.heap(hull, main.arena, &|| {
            let end_addr = main.arena.top_addr(memory).filter(|addr| room.contains(*addr))?;
            let first_addr = base_addr.next_multiple_of(16);
            (first_addr <= end_addr).then_some(Bounds {
                first_addr,
                end_addr,
                ends_in_top: true,
                is_main: true,
            })
        });
        return heap;
    }
    others.claims.extend(heap.iter().map(|range| in_use(*range, Evidence::Mapping)));
    if let Some(main) = main_arena.filter(|main| main.is_used()) {
        others.gaps.push(Gap {
            what: "the part of the C heap that malloc's main arena keeps outside the brk heap".to_owned(),
            why: format!("its top chunk is at {:#x}, outside [heap]", main.top_addr),
            bytes: Some(main.system_bytes),
        });
    }
    heap
}

/// The initialised data of libc, in 8-byte words.
struct DataWords {
    start_addr: u64,
    words: Vec<u64>,
}

impl DataWords {
    /// Reads `range`, at most [`MAX_DATA_BYTES`] of it; what cannot be read is zero.
    fn read(memory: &dyn Memory, range: AddrRange) -> Self {
        let start_addr = range.start_addr.checked_next_multiple_of(8).unwrap_or(range.end_addr);
        let len_bytes = range.end_addr.saturating_sub(start_addr).min(MAX_DATA_BYTES);
        let bytes = read_or_zero(memory, start_addr, usize::try_from(len_bytes).unwrap_or(0));
        Self { start_addr, words: words_of(&bytes) }
    }

    fn addr(&self, index: usize) -> u64 {
        self.start_addr.wrapping_add(8 * index as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    const LIBC_ADDR: u64 = 0x7f00_0000_1000;
    const BRK_ADDR: u64 = 0x5500_0000_0000;
    const HEAP_ADDR: u64 = 0x7e00_0400_0000;

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    fn read(
        memory: &dyn Memory,
        regions: &[Region],
        taken: &[AddrRange],
        libc_data: &[AddrRange],
        version: Option<&str>,
    ) -> (Findings, Option<Census>) {
        super::read(memory, regions, taken, libc_data, version, &VtablePlaces::default())
    }

    fn bytes_of(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A `malloc_state` for `state_addr` with all bins empty but number 5, or all empty before the first use.
    fn state(
        state_addr: u64,
        bins_offset: u64,
        top_addr: u64,
        next_addr: u64,
        system_bytes: u64,
    ) -> Vec<u64> {
        let mut words = vec![0; (bins_offset / 8) as usize - 2];
        words.extend([top_addr, 0]);
        for bin in 0..127 {
            let header_addr = state_addr + bins_offset + 16 * bin - 16;
            let is_filled = bin == 5 && top_addr != state_addr + bins_offset - 16;
            words.extend(if is_filled { [top_addr - 0x40; 2] } else { [header_addr; 2] });
        }
        words.extend([0, 0, next_addr, 0, 1, system_bytes, system_bytes]);
        words
    }

    /// `mp_` of 2.36 with `count` mapped chunks of `bytes` bytes in all.
    fn malloc_par(count: u64, bytes: u64) -> Vec<u64> {
        let threshold = 128 << 10;
        let mut words = vec![threshold, threshold, threshold, 8, 0, 0, 0, count << 32, 65536 | 9 << 32];
        words.extend([0, bytes, 1 << 30, 0, 0]);
        words
    }

    fn libc_data(words: &[u64]) -> [AddrRange; 1] {
        [AddrRange::with_len(LIBC_ADDR, 8 * words.len() as u64).unwrap()]
    }

    fn claims(
        memory: &dyn Memory,
        regions: &[Region],
        taken: &[AddrRange],
        libc_data: &[AddrRange],
    ) -> Findings {
        read(memory, regions, taken, libc_data, None).0
    }

    /// What is claimed, neighbours made one.
    fn ranges(findings: &Findings) -> Vec<AddrRange> {
        let mut joined: Vec<AddrRange> = Vec::new();
        for claim in &findings.claims {
            match joined.last_mut() {
                Some(last) if last.end_addr == claim.range.start_addr => last.end_addr = claim.range.end_addr,
                _ => joined.push(claim.range),
            }
        }
        joined
    }

    /// `len_bytes` bytes with words at some places; at the others, zero.
    fn piece(start_addr: u64, len_bytes: usize, words: &[(u64, u64)]) -> (u64, Vec<u8>) {
        let mut bytes = vec![0; len_bytes];
        for (addr, word) in words {
            let offset = (addr - start_addr) as usize;
            bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
        (start_addr, bytes)
    }

    #[test]
    fn the_brk_heap_is_proved_by_the_top_of_the_main_arena_in_every_layout() {
        let heap = region(BRK_ADDR, BRK_ADDR + 0x2_1000, "rw-p", "[heap]");
        for bins_offset in [112, 104, 24] {
            let mut words = vec![1, 2, 3, 4];
            words.extend(state(LIBC_ADDR + 32, bins_offset, BRK_ADDR + 0x100, LIBC_ADDR + 32, 0x2_1000));
            let chunks = [(BRK_ADDR + 8, 0x101), (BRK_ADDR + 0x108, 0x2_0f01)];
            let memory = Pieces(vec![(LIBC_ADDR, bytes_of(&words)), piece(BRK_ADDR, 0x2_1000, &chunks)]);
            let (findings, census) =
                read(&memory, std::slice::from_ref(&heap), &[], &libc_data(&words), None);
            let claim = |start_addr, end_addr, component| Claim {
                range: range(BRK_ADDR + start_addr, BRK_ADDR + end_addr),
                component,
                evidence: Evidence::Structure,
            };
            let used = claim(0, 0x1000, Component::CHeapInUse);
            assert_eq!(findings.claims, [used, claim(0x1000, 0x2_1000, Component::CHeapFree)]);
            assert_eq!(findings.slack, [Slack { range: used.range, dead_bytes: 0xf00 }]);
            assert!(findings.gaps.is_empty());
            let census = census.unwrap();
            assert_eq!((census.live.chunks, census.live.bytes, census.top_bytes), (1, 0x100, 0x2_0f00));
            assert_eq!((census.system_bytes, census.arenas), (0x2_1000, 1));
        }
    }

    #[test]
    fn a_brk_heap_that_another_malloc_uses_is_known_by_its_name_alone() {
        let heap = region(BRK_ADDR, BRK_ADDR + 0x2_1000, "rw-p", "[heap]");
        // A main arena that was never used: top is the first bin's header.
        let unused = state(LIBC_ADDR, 112, LIBC_ADDR + 96, LIBC_ADDR, 0);
        let memory = Pieces(vec![(LIBC_ADDR, bytes_of(&unused))]);
        let (findings, census) = read(&memory, std::slice::from_ref(&heap), &[], &libc_data(&unused), None);
        assert_eq!(findings.claims[0].evidence, Evidence::Mapping);
        assert!(findings.gaps.is_empty() && findings.slack.is_empty() && census.is_none());
    }

    /// An arena whose first heap lies in the middle of a merged region, and a later heap elsewhere. Both hold
    /// one block in use.
    fn two_heaps(state_offset: u64) -> (Pieces, Vec<Region>, Vec<u64>) {
        let (first_addr, second_addr) = (HEAP_ADDR, HEAP_ADDR + (1 << 32));
        let arena_addr = first_addr + state_offset;
        let main = state(LIBC_ADDR, 112, BRK_ADDR + 0x100, arena_addr, 0x2_1000);
        let chunk_addr = (arena_addr + 2200).next_multiple_of(16);
        let close_addr = first_addr + 0x2_0000 - 16;
        let mut first =
            vec![(first_addr, arena_addr), (first_addr + 16, 0x2_0000), (first_addr + 24, 0x2_1000)];
        first.extend([(chunk_addr + 8, (close_addr - chunk_addr) | 5), (close_addr + 8, 1)]);
        let arena = state(arena_addr, 112, second_addr + 0x200, LIBC_ADDR, 0x4_2000);
        first
            .extend(arena.into_iter().enumerate().map(|(index, word)| (arena_addr + 8 * index as u64, word)));
        let second = [
            (second_addr, arena_addr),
            (second_addr + 8, first_addr),
            (second_addr + 16, 0x2_1000),
            (second_addr + 24, 0x2_1000),
            (second_addr + state_offset + 8, (0x200 - state_offset) | 5),
            (second_addr + 0x208, 0x2_0e01),
        ];
        let memory = Pieces(vec![
            (LIBC_ADDR, bytes_of(&main)),
            piece(first_addr, 0x2_1000, &first),
            piece(second_addr, 0x2_1000, &second),
        ]);
        let regions = vec![
            region(first_addr - 0x10_0000, first_addr + 0x2_1000, "rw-p", ""),
            region(second_addr, second_addr + 0x2_1000, "rw-p", ""),
        ];
        (memory, regions, main)
    }

    #[test]
    fn heaps_of_an_arena_are_found_in_both_forms_of_heap_info() {
        for state_offset in [48, 32] {
            let (memory, regions, main) = two_heaps(state_offset);
            let heaps = [range(HEAP_ADDR, HEAP_ADDR + 0x2_1000), regions[1].range];
            // With the main arena, and without: then the arena has to prove itself.
            for data in [&libc_data(&main)[..], &[]] {
                let (findings, census) = read(&memory, &regions, &[], data, None);
                assert_eq!(ranges(&findings), heaps);
                let census = census.unwrap();
                assert_eq!((census.live.chunks, census.unread_bytes), (2, 0), "{:?}", findings.gaps);
                let known_bytes = census.live.bytes + census.top_bytes + census.overhead_bytes;
                assert_eq!(known_bytes, 0x2_0000 + 0x2_1000);
            }
        }
    }

    /// A brk heap with a thread's cache of one chunk, a fast bin of one, a free chunk, and two blocks in use.
    /// `stored` says how a pointer looks at the address where it is stored.
    fn heap_with_caches(stored: impl Fn(u64, u64) -> u64) -> (Pieces, Vec<u64>) {
        let [cache, used, cached, fast, binned, last, top] =
            [0, 0x290, 0x2e0, 0x330, 0x370, 0x2370, 0x23a0].map(|offset| BRK_ADDR + offset);
        let mut main = state(LIBC_ADDR, 112, top, LIBC_ADDR, 0x5000);
        main[4] = fast; // of chunks of 64 bytes
        let words = [
            (cache + 8, 0x291),
            (cache + 16, 1 << 48), // one chunk of 80 bytes
            (cache + 16 + 128 + 24, cached + 16),
            (used + 8, 0x51),
            (cached + 8, 0x51),
            (cached + 16, stored(cached + 16, 0)),
            (fast + 8, 0x41),
            (fast + 16, stored(fast + 16, 0)),
            (binned + 8, 0x2001),
            (last, 0x2000),
            (last + 8, 0x30),
            (top + 8, (0x5000 - 0x23a0) | 1),
        ];
        (Pieces(vec![(LIBC_ADDR, bytes_of(&main)), piece(BRK_ADDR, 0x5000, &words)]), main)
    }

    #[test]
    fn chunks_in_caches_are_free_however_their_pointers_are_stored() {
        let heap = region(BRK_ADDR, BRK_ADDR + 0x5000, "rw-p", "[heap]");
        let protected = heap_with_caches(|at, pointer| pointer ^ (at >> 12));
        let plain = heap_with_caches(|_, pointer| pointer);
        for (version, (memory, main)) in [(None, &protected), (Some("2.36"), &plain), (Some("2.31"), &plain)]
        {
            let (findings, census) =
                read(memory, std::slice::from_ref(&heap), &[], &libc_data(main), version);
            let census = census.unwrap();
            let sums = [census.live, census.thread_cached, census.fast, census.binned];
            assert_eq!(sums.map(|sum| sum.bytes), [0x290 + 0x50 + 0x30, 0x50, 0x40, 0x2000], "{version:?}");
            assert_eq!(census.top_bytes, 0x5000 - 0x23a0);
            let free: Vec<AddrRange> = findings
                .claims
                .iter()
                .filter(|claim| claim.component == Component::CHeapFree)
                .map(|claim| claim.range)
                .collect();
            let expected =
                [range(BRK_ADDR + 0x1000, BRK_ADDR + 0x2000), range(BRK_ADDR + 0x3000, BRK_ADDR + 0x5000)];
            assert_eq!((&free[..], &census.trimmable.unwrap()[..]), (&expected[..], &expected[..]));
            assert!(findings.gaps.is_empty(), "{:?}", findings.gaps);
        }
    }

    #[test]
    fn where_chunks_cannot_be_followed_is_in_use_and_a_gap() {
        let heap = region(BRK_ADDR, BRK_ADDR + 0x5000, "rw-p", "[heap]");
        let (mut memory, main) = heap_with_caches(|at, pointer| pointer ^ (at >> 12));
        memory.0[1].1[0x298..0x2a0].copy_from_slice(&0x7777_u64.to_le_bytes());
        let (findings, census) = read(&memory, std::slice::from_ref(&heap), &[], &libc_data(&main), None);
        // The chunk before it is not believed either; the next one that is, is the one after it.
        assert_eq!(census.unwrap().unread_bytes, 0x2e0);
        assert_eq!(findings.gaps.iter().map(|gap| gap.bytes).collect::<Vec<_>>(), [Some(0x2e0)]);
        assert_eq!(findings.claims[0].range.end_addr, BRK_ADDR + 0x1000);
    }

    #[test]
    fn a_heap_that_grew_since_the_regions_were_listed_is_claimed_as_far_as_listed() {
        let (memory, mut regions, main) = two_heaps(48);
        regions[1].range.end_addr -= 0x2000;
        let heaps = [range(HEAP_ADDR, HEAP_ADDR + 0x2_1000), regions[1].range];
        assert_eq!(ranges(&claims(&memory, &regions, &[], &libc_data(&main))), heaps);
    }

    #[test]
    fn a_heap_that_is_not_mapped_or_belongs_to_others_is_a_gap_and_no_claim() {
        let (memory, regions, main) = two_heaps(48);
        let findings = claims(
            &memory,
            &regions[..1],
            &[range(HEAP_ADDR + 0x1000, HEAP_ADDR + 0x2000)],
            &libc_data(&main),
        );
        assert!(findings.claims.is_empty());
        assert!(
            findings.gaps.iter().any(|gap| gap.what.contains("1 of 1 malloc arenas")),
            "{:?}",
            findings.gaps
        );
    }

    const MAPPED_ADDR: u64 = 0x7f11_0000_0000;

    fn header(size_bytes: u64) -> Vec<u8> {
        bytes_of(&[0, size_bytes | 2])
    }

    #[test]
    fn mapped_chunks_that_fill_their_region_need_no_totals() {
        let memory = Pieces(vec![(MAPPED_ADDR, header(0x3000)), (MAPPED_ADDR + 0x3000, header(0x2000 - 16))]);
        let regions = [region(MAPPED_ADDR, MAPPED_ADDR + 0x5000, "rw-p", "")];
        let findings = claims(&memory, &regions, &[], &[]);
        assert_eq!(ranges(&findings), [regions[0].range]);
        assert!(findings.slack.iter().all(|slack| slack.dead_bytes == 0));
    }

    #[test]
    fn mapped_chunks_beside_strangers_need_the_totals() {
        // stranger, chunk, stranger; and a chunk before a stranger.
        let memory = |data: &[u64]| {
            Pieces(vec![
                (MAPPED_ADDR, vec![0xff; 16]),
                (MAPPED_ADDR + 0x1000, header(0x2000)),
                (MAPPED_ADDR + 0x3000, vec![0xff; 16]),
                (2 * MAPPED_ADDR, header(0x4000)),
                (LIBC_ADDR, bytes_of(data)),
            ])
        };
        let regions = [
            region(MAPPED_ADDR, MAPPED_ADDR + 0x4000, "rw-p", ""),
            region(2 * MAPPED_ADDR, 2 * MAPPED_ADDR + 0x6000, "rw-p", ""),
        ];
        assert!(claims(&memory(&[]), &regions, &[], &[]).claims.is_empty());
        let both = malloc_par(2, 0x6000);
        let findings = claims(&memory(&both), &regions, &[], &libc_data(&both));
        let chunks = [
            range(2 * MAPPED_ADDR, 2 * MAPPED_ADDR + 0x4000),
            range(MAPPED_ADDR + 0x1000, MAPPED_ADDR + 0x3000),
        ];
        assert_eq!((ranges(&findings), findings.gaps.len()), (chunks.to_vec(), 0));
        // Totals that do not add up with the hidden chunk: it is not believed, and what is missing is said.
        let other = malloc_par(2, 0x9000);
        let findings = claims(&memory(&other), &regions, &[], &libc_data(&other));
        assert_eq!((ranges(&findings), findings.gaps.len()), (chunks[..1].to_vec(), 1));
        // Totals that do not allow for either.
        let none = malloc_par(0, 0);
        assert_eq!(claims(&memory(&none), &regions, &[], &libc_data(&none)), Findings::default());
    }

    #[test]
    fn a_header_longer_than_its_region_or_than_memory_is_none() {
        for size_bytes in [0x6000, u64::MAX - 0xfff, !15, 0, 0x1008] {
            let memory = Pieces(vec![(MAPPED_ADDR, header(size_bytes & !2))]);
            let regions = [region(MAPPED_ADDR, MAPPED_ADDR + 0x5000, "rw-p", "")];
            assert_eq!(claims(&memory, &regions, &[], &[]), Findings::default(), "{size_bytes:#x}");
        }
    }

    #[test]
    fn parameters_that_mallopt_set_are_found_by_the_brk_heap() {
        let mut words = malloc_par(1, 0x2000);
        (words[0], words[1], words[2]) = (1, 2, 3);
        words[12] = BRK_ADDR;
        let data = DataWords { start_addr: LIBC_ADDR, words: words.clone() };
        assert_eq!(MallocPar::find(&data, None), None);
        let found = MallocPar::find(&data, Some(BRK_ADDR)).unwrap();
        let totals = found.totals(&Pieces(vec![(LIBC_ADDR, bytes_of(&words))])).unwrap();
        assert_eq!((totals.count, totals.bytes), (1, 0x2000));
    }

    #[test]
    fn the_banner_tells_the_version() {
        let debian =
            b"\0x\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright";
        assert_eq!(version_in(debian).as_deref(), Some("2.36"));
        assert_eq!(
            version_in(b"GNU C Library development release version 2.43.9000.").as_deref(),
            Some("2.43.9000")
        );
        assert_eq!(version_in(b"GNU C Library"), None);
        assert_eq!(version_in(b""), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_claims_what_is_not_mapped(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..8),
        ) {
            let regions = [
                region(BRK_ADDR, BRK_ADDR + 0x1000, "rw-p", "[heap]"),
                region(HEAP_ADDR - 0x1000, HEAP_ADDR + 0x8000, "rw-p", ""),
                region(MAPPED_ADDR, MAPPED_ADDR + 0x8000, "rw-p", ""),
            ];
            let likely = [
                0, 0x21, 0x20, 0x291, 0x35, 0x1002, 0x2002, HEAP_ADDR + 48, HEAP_ADDR, 0x1000, 0x2_0000, LIBC_ADDR,
                BRK_ADDR + 0x20, u64::MAX,
            ];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            let data = [range(LIBC_ADDR, LIBC_ADDR + 0x3000)];
            let taken = [range(MAPPED_ADDR + 0x4000, MAPPED_ADDR + 0x5000)];
            for claim in claims(&memory, &regions, &taken, &data).claims {
                prop_assert!(regions.iter().any(|region| region.range.intersection(&claim.range) == Some(claim.range)));
                prop_assert!(taken[0].intersection(&claim.range).is_none());
            }
        }
    }
}
