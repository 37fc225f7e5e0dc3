//! Memory of sanitizers: ThreadSanitizer as Go's race detector carries it (`go build -race`), and in [`native`]
//! those of programs in C and C++.
//!
//! Answers which addresses hold the shadow, the metadata and the race runtime's own structures. The surprise:
//! in a race build the runtime itself is the usual leak. It keeps a context of 240 bytes for every goroutine
//! ever started and gives none back (golang/go#63276), all outside Go's heap and its profile.
//!
//! Facts: LLVM `compiler-rt/lib/tsan` and `lib/sanitizer_common` as Go ships them, linux/amd64, tried on Go
//! 1.19.8, 1.21.13, 1.23.9 and 1.27.3. Go 1.18 and before carry TSan v2: a shadow four times as long as the
//! memory, and traces at 0x6000_0000_0000; of those only what lies in fixed ranges is claimed (tried by hand on 1.15.15).

mod allocator;
mod context;
pub mod native;
mod reach;
mod remainder;
mod statics;
mod text;
mod traces;

use self::allocator::RegionMap;
use self::context::Context;
pub use self::remainder::remainder;
use self::statics::Statics;
pub use self::text::{race_text_of_symbols, race_text_ranges};
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::target::elf::ElfFile;
use crate::target::maps::Region;
use crate::target::memory::Memory;

/// Go's shadow (tsan_platform.h, MappingGo48): 0x2000_0000_0000 + 2 * address.
const SHADOW: AddrRange = AddrRange { start_addr: 0x2000_0000_0000, end_addr: 0x21c0_0000_0000 };

/// The same of TSan v2, up to Go 1.18: 0x2000_0000_0000 + 4 * address.
const SHADOW_V2: AddrRange = AddrRange { start_addr: 0x21c0_0000_0000, end_addr: 0x2380_0000_0000 };

/// Go's metadata: 0x3000_0000_0000 + address / 2, the same with v2.
const META: AddrRange = AddrRange { start_addr: 0x3000_0000_0000, end_addr: 0x4000_0000_0000 };

/// Traces of TSan v2, up to Go 1.18; nothing of v3 is here.
const TRACES_V2: AddrRange = AddrRange { start_addr: 0x6000_0000_0000, end_addr: 0x6200_0000_0000 };

/// What the race runtime counts of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaceCounts {
    /// Goroutines ever started: each leaves a context behind (`ThreadRegistry::threads_`).
    pub goroutines_started: u64,
    /// Bytes of one context, as the internal allocator rounds them.
    pub context_bytes: u64,
    /// Trace parts of 128 KiB ever mapped; none is given back.
    pub trace_parts: u64,
}

/// What [`race_runtime`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaceRuntime {
    /// Shadow and meta by layout, everything else by structure.
    pub findings: Findings,
    /// `None` where the runtime's context was not found.
    pub counts: Option<RaceCounts>,
}

/// Claims the memory of the race runtime in a Go program built with `-race`; `exe` is its executable,
/// loaded with `load_bias`.
pub fn race_runtime(memory: &dyn Memory, regions: &[Region], exe: &ElfFile, load_bias: u64) -> RaceRuntime {
    let anonymous = AnonymousMemory::new(regions, &[]);
    let statics = Statics::from_symbols(exe, load_bias)
        .unwrap_or_else(|| Statics::from_content(memory, &anonymous, &exe.bss_ranges(load_bias)));
    race_runtime_with(memory, regions, &anonymous, &statics)
}

fn race_runtime_with(
    memory: &dyn Memory,
    regions: &[Region],
    anonymous: &AnonymousMemory,
    statics: &Statics,
) -> RaceRuntime {
    let mut found = RaceRuntime { findings: shadow_and_meta(regions), counts: None };
    let findings = &mut found.findings;
    claim(findings, statics.pages());
    let Some(context) = statics.context.and_then(|range| Context::read(memory, anonymous, range)) else {
        findings.gaps.push(gap("the race runtime's own allocations", "its context was not found"));
        return found;
    };
    claim(findings, context.mappings.iter().copied());
    claim(findings, statics::depots(memory, anonymous, statics));
    findings.gaps.extend(context.gap());

    let region_map = statics.region_map.and_then(|range| RegionMap::read(memory, anonymous, range));
    match &region_map {
        Some(map) => claim(findings, map.ranges()),
        None => {
            findings.gaps.push(gap("the race runtime's internal allocator", "its region map was not found"))
        }
    }
    let traces = traces::parts(memory, anonymous, &context, region_map.as_ref());
    claim(findings, traces.parts);
    findings.gaps.extend(traces.gap);
    found.counts = context.threads.map(|threads| RaceCounts {
        goroutines_started: threads.count,
        context_bytes: region_map
            .and_then(|map| map.class_at(threads.first_context_addr))
            .map_or(context::CONTEXT_BYTES, allocator::class_bytes),
        trace_parts: context.trace_parts,
    });
    found
}

/// What lies in the shadow's and the metadata's address ranges, which nothing else uses in a race build.
fn shadow_and_meta(regions: &[Region]) -> Findings {
    let mut findings = Findings::default();
    for (range, component) in [
        (SHADOW, Component::TsanShadow),
        (SHADOW_V2, Component::TsanShadow),
        (META, Component::TsanMeta),
        (TRACES_V2, Component::TsanRuntime),
    ] {
        let parts = regions.iter().filter_map(|region| region.range.intersection(&range));
        findings.claims.extend(parts.map(|range| Claim { range, component, evidence: Evidence::Layout }));
    }
    findings
}

fn claim(findings: &mut Findings, ranges: impl IntoIterator<Item = AddrRange>) {
    let claim = |range| Claim { range, component: Component::TsanRuntime, evidence: Evidence::Structure };
    findings.claims.extend(ranges.into_iter().map(claim));
}

fn gap(what: &str, why: &str) -> Gap {
    Gap { what: what.to_owned(), why: why.to_owned(), bytes: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    // Addresses of the canned race runtime: variables, allocator regions, their table, mappings.
    const CONTEXT_ADDR: u64 = 0x0100_0000;
    const MAP_ADDR: u64 = 0x00f0_0000;
    const CONTEXTS_ADDR: u64 = 0x7f00_0010_0000;
    const STATES_ADDR: u64 = 0x7f00_0030_0000;
    const TABLE_ADDR: u64 = 0x7f00_0050_0000;
    const THREADS_ADDR: u64 = 0x7f00_0060_0000;
    const SYNC_ADDR: u64 = 0x7f00_0070_0000;
    const LIVE_PART_ADDR: u64 = 0x7f00_0080_0000;
    const OLD_PART_ADDR: u64 = 0x7f00_0090_1000;
    const STATE_ADDR: u64 = STATES_ADDR + 3 * 768;

    fn range(start_addr: u64, len_bytes: u64) -> AddrRange {
        AddrRange::with_len(start_addr, len_bytes).unwrap()
    }

    fn words(addr: u64, words: &[u64]) -> (u64, Vec<u8>) {
        (addr, words.iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    /// Memory that is zero but for some words, given with their offsets.
    fn block(addr: u64, len_bytes: u64, fields: &[(u64, u64)]) -> (u64, Vec<u8>) {
        let mut bytes = vec![0; len_bytes as usize];
        for (offset, word) in fields {
            bytes[*offset as usize..][..8].copy_from_slice(&word.to_le_bytes());
        }
        (addr, bytes)
    }

    /// A race runtime of Go 1.21 or later with one goroutine, one part that it writes and one to reuse.
    fn canned() -> (Pieces, Vec<Region>, Statics) {
        let list_addr = CONTEXT_ADDR + context::RECYCLE_OFFSET;
        let live_list_addr = CONTEXTS_ADDR + 192;
        let old_node_addr = OLD_PART_ADDR + 24;
        let live_node_addr = LIVE_PART_ADDR + 8;
        let mut table = vec![0; 4096];
        (table[1], table[3]) = (15, 22);
        let pieces = vec![
            // Slabs: no blocks, one of synchronisation objects.
            words(CONTEXT_ADDR + 8, &[0]),
            words(CONTEXT_ADDR + 0x20_0020, &[0]),
            words(CONTEXT_ADDR + 0x20_0030, &[SYNC_ADDR, 0]),
            words(CONTEXT_ADDR + 0xa0_0048, &[1]),
            // The vector of threads.
            block(CONTEXT_ADDR + 0xa0_0050, 0x2b0, &[(0x80, THREADS_ADDR), (0x88, 0x1000), (0x90, 1)]),
            words(THREADS_ADDR, &[CONTEXTS_ADDR]),
            // The list of parts, its counters, the mapped shadow.
            words(
                list_addr,
                &[old_node_addr, old_node_addr, 1, 2, 0, 0, 0x2180_0000_0000, 0x2180_0800_0000, 0],
            ),
            words(MAP_ADDR + 8 + 8 * 0x7f00, &[TABLE_ADDR]),
            (TABLE_ADDR, table),
            block(
                CONTEXTS_ADDR,
                240,
                &[(0, 0xc0_8478), (144, STATE_ADDR), (192, live_node_addr), (200, live_node_addr), (208, 1)],
            ),
            block(STATES_ADDR, 1 << 20, &[(3 * 768 + 256, CONTEXTS_ADDR)]),
            words(LIVE_PART_ADDR, &[CONTEXTS_ADDR + 176, live_list_addr, live_list_addr, 0, 0]),
            words(OLD_PART_ADDR, &[0, 0, 0, list_addr, list_addr]),
        ];
        let regions = vec![
            region(MAP_ADDR, CONTEXT_ADDR + 0x100_0000, "rw-p", ""),
            region(0x2180_0000_0000, 0x2180_0800_0000, "rw-p", ""),
            region(0x3060_0000_0000, 0x3060_0200_0000, "rw-p", ""),
            region(CONTEXTS_ADDR, 0x7f00_0100_0000, "rw-p", ""),
        ];
        let mut statics = Statics::default();
        statics.context = Some(range(CONTEXT_ADDR, context::CONTEXT_LEN_BYTES));
        statics.region_map = Some(range(MAP_ADDR, 0x8_1040));
        (Pieces(pieces), regions, statics)
    }

    fn read_canned(memory: &dyn Memory, regions: &[Region], statics: &Statics) -> RaceRuntime {
        race_runtime_with(memory, regions, &AnonymousMemory::new(regions, &[]), statics)
    }

    #[test]
    fn everything_reachable_from_the_context_is_claimed() {
        let (memory, regions, statics) = canned();
        let found = read_canned(&memory, &regions, &statics);
        assert_eq!(found.findings.gaps, []);
        let counts = RaceCounts { goroutines_started: 1, context_bytes: 240, trace_parts: 2 };
        assert_eq!(found.counts, Some(counts));
        let by = |component| {
            let claims = found.findings.claims.iter().filter(move |claim| claim.component == component);
            claims.map(|claim| claim.range).collect::<Vec<_>>()
        };
        assert_eq!(by(Component::TsanShadow), [regions[1].range]);
        assert_eq!(by(Component::TsanMeta), [regions[2].range]);
        let mut runtime = by(Component::TsanRuntime);
        runtime.sort_unstable();
        let wanted = [
            range(CONTEXTS_ADDR, 1 << 20),
            range(STATES_ADDR, 1 << 20),
            range(TABLE_ADDR, 4096),
            range(THREADS_ADDR, 4096),
            range(SYNC_ADDR, 1024 * 88),
            range(LIVE_PART_ADDR, 128 << 10),
            range(OLD_PART_ADDR, 128 << 10),
        ];
        assert_eq!(runtime, wanted);
    }

    #[test]
    fn a_stripped_file_is_recognised_by_its_content() {
        let (memory, regions, _) = canned();
        let anonymous = AnonymousMemory::new(&regions, &[]);
        let bss = [range(MAP_ADDR, CONTEXT_ADDR + 0x100_0000 - MAP_ADDR)];
        // Reads do not cross from one canned piece to the next, so .bss has to be one piece.
        let mut whole = vec![0; bss[0].len_bytes() as usize];
        for (addr, bytes) in memory.0.iter().filter(|(addr, _)| bss[0].contains(*addr)) {
            whole[(addr - MAP_ADDR) as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        let mut pieces = memory.0;
        pieces.insert(0, (MAP_ADDR, whole));
        let statics = Statics::from_content(&Pieces(pieces), &anonymous, &bss);
        assert_eq!(statics.context, Some(range(CONTEXT_ADDR, context::CONTEXT_LEN_BYTES)));
        assert_eq!(statics.region_map, Some(range(MAP_ADDR, 0x8_1040)));
    }

    #[test]
    fn a_part_that_no_list_leads_to_is_a_gap() {
        let (mut memory, regions, statics) = canned();
        for (_, bytes) in memory.0.iter_mut().filter(|(addr, _)| *addr == OLD_PART_ADDR) {
            bytes.fill(0);
        }
        let findings = read_canned(&memory, &regions, &statics).findings;
        assert!(findings.gaps[0].what.starts_with("1 of 2 trace parts"), "{:?}", findings.gaps);
        assert!(!findings.claims.iter().any(|claim| claim.range.start_addr == OLD_PART_ADDR));
    }

    #[test]
    fn without_a_context_only_the_layout_is_claimed_and_a_gap_says_so() {
        let (memory, regions, _) = canned();
        let found = read_canned(&memory, &regions, &Statics::default());
        assert!(found.findings.claims.iter().all(|claim| claim.evidence == Evidence::Layout));
        assert_eq!((found.findings.claims.len(), found.findings.gaps.len(), found.counts), (2, 1, None));
    }

    #[test]
    fn code_of_the_runtime_is_one_range_with_its_memcpy_and_without_go_functions() {
        let functions = [
            ("main.main", range(0x50_0000, 0x100)),
            ("_ZN6__tsan10InitializeEPNS_11ThreadStateE", range(0x40_2000, 0x1000)),
            ("memcpy", range(0x40_3000, 0x137)),
            ("__tsan_read", range(0x40_3200, 0x100)),
            ("_ZN11__sanitizer13internal_mmapEPvmiiiy", range(0x40_1000, 0x1000)),
        ];
        assert_eq!(race_text_ranges(functions), [range(0x40_1000, 0x2300)]);
        assert!(race_text_ranges([("main.main", range(0x50_0000, 0x100))]).is_empty());
    }

    #[test]
    fn only_what_has_the_runtimes_shape_is_claimed_as_remainder() {
        let at = 0x7f00_0000_0000;
        let regions = [
            region(at, at + 0x10_0000, "rw-p", ""),
            region(at + 0x100_0000, at + 0x110_1000, "rw-p", ""),
            region(at + 0x200_0000, at + 0x204_0000, "rw-p", ""),
            region(at + 0x300_0000, at + 0x306_0000, "rw-p", ""),
        ];
        let claim = |start_addr, component| Claim {
            range: range(start_addr, 0x2_0000),
            component,
            evidence: Evidence::Structure,
        };
        let claims = [
            claim(at + 0x200_0000, Component::GoRuntime),
            claim(at + 0x300_0000, Component::TsanRuntime),
            claim(at + 0x304_0000, Component::TsanRuntime),
        ];
        let left = remainder(&regions, &claims);
        let ranges: Vec<AddrRange> = left.iter().map(|claim| claim.range).collect();
        assert_eq!(ranges, [range(at, 0x10_0000), range(at + 0x302_0000, 0x2_0000)]);
        assert!(left.iter().all(|claim| claim.evidence == Evidence::Neighbour));
    }

    /// Whether `claims` stay within what is mapped.
    fn within(claims: &[Claim], regions: &[Region]) -> bool {
        let anonymous = AnonymousMemory::new(regions, &[]);
        claims.iter().all(|claim| anonymous.covers(claim.range))
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_claims_what_is_not_mapped(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..8),
        ) {
            let (_, regions, statics) = canned();
            let likely = [0, 1, 15, CONTEXTS_ADDR, OLD_PART_ADDR + 24, THREADS_ADDR, u64::MAX - 8];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            prop_assert!(within(&read_canned(&memory, &regions, &statics).findings.claims, &regions));
        }

        #[test]
        fn garbage_in_bss_never_panics(seed: u64, pool in prop::collection::vec(any::<u64>(), 0..8)) {
            let (_, regions, _) = canned();
            let likely = [0, 0, 0, OLD_PART_ADDR + 24, CONTEXTS_ADDR, u64::MAX - 0xfe7];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            let anonymous = AnonymousMemory::new(&regions, &[]);
            let _ = Statics::from_content(&memory, &anonymous, &[range(MAP_ADDR, 0x1_0000)]);
        }

        /// Plain garbage rarely gets past the first test; here one word of a sound runtime is wrong.
        #[test]
        fn one_wrong_word_never_panics(
            piece in 0usize..13,
            at in 0usize..40,
            word in prop_oneof![
                any::<u64>(),
                Just(u64::MAX),
                Just(u64::MAX - 0xff7),
                Just(CONTEXTS_ADDR),
                Just(OLD_PART_ADDR + 24),
            ],
        ) {
            let (mut memory, regions, statics) = canned();
            let bytes = &mut memory.0[piece].1;
            let at = 8 * at % bytes.len();
            bytes[at..][..8].copy_from_slice(&word.to_le_bytes());
            prop_assert!(within(&read_canned(&memory, &regions, &statics).findings.claims, &regions));
        }
    }
}
