//! Sanitizers in programs of C, C++ and Rust: AddressSanitizer, ThreadSanitizer, MemorySanitizer,
//! HWAddressSanitizer and LeakSanitizer, as gcc and clang link them on x86_64.
//!
//! A sanitizer proves itself by the function that its instrumentation calls first; then its shadow and its
//! allocator lie where its ABI puts them, and large blocks carry a header. The surprise: the allocator's memory
//! is the program's own C heap, with what the sanitizer adds: red zones, and in AddressSanitizer's case the
//! quarantine, some 256 MiB of freed blocks by default.
//!
//! Facts: LLVM `compiler-rt/lib/{asan,tsan,msan,hwasan,lsan}`; tried with gcc 12's libasan 8, libtsan 2 (TSan
//! v2) and liblsan. Its internal allocations elsewhere are not found and stay unknown.

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence, Findings};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// A sanitizer and the address ranges of its ABI.
struct Sanitizer {
    /// What instrumented code calls first.
    symbol: &'static str,
    /// Start, end, and whose it is.
    layout: &'static [(u64, u64, Component)],
    /// Its allocator's blocks, wherever they are.
    heap: Component,
    /// Its own variables.
    runtime: Component,
}

/// The first that is found counts: AddressSanitizer carries LeakSanitizer within it.
const SANITIZERS: [Sanitizer; 5] = [
    Sanitizer {
        symbol: "__asan_init",
        layout: &[
            (0x7fff_8000, 0x1000_7fff_8000, Component::AsanShadow),
            // `kAllocatorSpace`: gcc, and LLVM before and after it moved.
            (0x5000_0000_0000, 0x5400_0000_0000, Component::AsanHeap),
            (0x6000_0000_0000, 0x6400_0000_0000, Component::AsanHeap),
        ],
        heap: Component::AsanHeap,
        runtime: Component::AsanRuntime,
    },
    Sanitizer {
        symbol: "__tsan_init",
        layout: &[
            // v2 (gcc 12): from 0x0100_0000_0000; v3: from 0x1000_0000_0000.
            (0x0100_0000_0000, 0x3000_0000_0000, Component::TsanShadow),
            (0x3000_0000_0000, 0x3800_0000_0000, Component::TsanMeta),
            // Traces of v2.
            (0x6000_0000_0000, 0x6200_0000_0000, Component::TsanRuntime),
            (0x7200_0000_0000, 0x7300_0000_0000, Component::TsanHeap),
            (0x7a00_0000_0000, 0x7c00_0000_0000, Component::TsanHeap),
        ],
        heap: Component::TsanHeap,
        runtime: Component::TsanRuntime,
    },
    Sanitizer {
        symbol: "__msan_init",
        layout: &[
            // Shadow and origins; the program's memory lies between them.
            (0x0100_0000_0000, 0x5100_0000_0000, Component::MsanShadow),
            (0x6000_0000_0000, 0x6100_0000_0000, Component::MsanShadow),
            (0x7000_0000_0000, 0x7080_0000_0000, Component::MsanHeap),
        ],
        heap: Component::MsanHeap,
        runtime: Component::MsanRuntime,
    },
    Sanitizer {
        symbol: "__hwasan_init",
        layout: &[],
        heap: Component::HwasanHeap,
        runtime: Component::HwasanRuntime,
    },
    Sanitizer {
        symbol: "__lsan_init",
        layout: &[
            (0x5000_0000_0000, 0x5400_0000_0000, Component::LsanHeap),
            (0x6000_0000_0000, 0x6400_0000_0000, Component::LsanHeap),
        ],
        heap: Component::LsanHeap,
        runtime: Component::LsanRuntime,
    },
];

/// Where HWAddressSanitizer keeps the start of its shadow, which covers 48 bits of addresses by 16.
const HWASAN_BASE: &str = "__hwasan_shadow_memory_dynamic_address";
const HWASAN_SHADOW_BYTES: u64 = 1 << 44;
/// A shared runtime is a library of this kind of name; a static one is in the executable.
const LIBRARY_NAMES: [&str; 2] = ["san.so", "libclang_rt."];

/// Claims the memory of the sanitizer that one of `modules` carries; nothing where there is none. Large blocks
/// are looked for in what is not `taken`.
pub fn claims(memory: &dyn Memory, modules: &[Module], regions: &[Region], taken: &[AddrRange]) -> Findings {
    let mut findings = Findings::default();
    let carried = SANITIZERS.iter().find_map(|sanitizer| {
        let carrier = modules.iter().find(|module| exports(module, sanitizer.symbol).is_some())?;
        Some((sanitizer, carrier))
    });
    let Some((sanitizer, carrier)) = carried else { return findings };
    let mut layout: Vec<(AddrRange, Component)> = Vec::new();
    for (start_addr, end_addr, component) in sanitizer.layout {
        layout.extend(AddrRange::new(*start_addr, *end_addr).map(|range| (range, *component)));
    }
    layout.extend(hwasan_shadow(memory, carrier));
    for (range, component) in &layout {
        let inside = regions.iter().filter_map(|region| region.range.intersection(range));
        let claim = |range| Claim { range, component: *component, evidence: Evidence::Layout };
        findings.claims.extend(inside.map(claim));
    }
    let fixed: Vec<AddrRange> = layout.iter().map(|(range, _)| *range).collect();
    let elsewhere = AnonymousMemory::new(regions, taken).without(&fixed);
    let heap = large_blocks(memory, &elsewhere).into_iter().map(|range| (range, sanitizer.heap));
    let own = own_variables(carrier).into_iter().map(|range| (range, sanitizer.runtime));
    let claim = |(range, component)| Claim { range, component, evidence: Evidence::Structure };
    findings.claims.extend(heap.chain(own).map(claim));
    findings
}

/// The address of an exported symbol of the module. A static runtime's symbols are exported too, for plug-ins.
fn exports(module: &Module, name: &str) -> Option<u64> {
    let found = module.elf.exported(|exported| exported == name).ok()?;
    found.first().map(|symbol| module.load_bias.wrapping_add(symbol.svma))
}

fn hwasan_shadow(memory: &dyn Memory, carrier: &Module) -> Option<(AddrRange, Component)> {
    let base_addr = memory.read_u64(exports(carrier, HWASAN_BASE)?).ok()?;
    Some((AddrRange::with_len(base_addr, HWASAN_SHADOW_BYTES)?, Component::HwasanShadow))
}

/// .bss of a runtime that is a library of its own.
fn own_variables(carrier: &Module) -> Vec<AddrRange> {
    let name = carrier.name();
    let is_library = LIBRARY_NAMES.iter().any(|part| name.contains(part));
    let bss = is_library.then(|| carrier.elf.bss_ranges(carrier.load_bias));
    bss.unwrap_or_default().iter().filter_map(AddrRange::whole_pages).collect()
}

/// Blocks with mappings of their own (sanitizer_allocator_secondary.h, `LargeMmapAllocator`): the mapping
/// begins with a page that holds its own address and its length. They follow each other without a gap where
/// the kernel put them side by side.
fn large_blocks(memory: &dyn Memory, free: &AnonymousMemory) -> Vec<AddrRange> {
    let mut blocks = Vec::new();
    for range in free.ranges() {
        let mut addr = range.start_addr;
        while let Some(block) = large_block(memory, addr).filter(|block| free.covers(*block)) {
            blocks.push(block);
            addr = block.end_addr;
            if addr >= range.end_addr {
                break;
            }
        }
    }
    blocks
}

/// `Header`: `map_beg`, `map_size`, `size`, all words.
fn large_block(memory: &dyn Memory, addr: u64) -> Option<AddrRange> {
    let header = memory.read_vec(addr, 24).ok()?;
    let word = |index: usize| header.as_chunks().0.get(index).map(|bytes| u64::from_le_bytes(*bytes));
    let (map_addr, map_bytes, size_bytes) = (word(0)?, word(1)?, word(2)?);
    let is_block = map_addr == addr && map_bytes.is_multiple_of(PAGE_BYTES) && size_bytes <= map_bytes;
    AddrRange::with_len(addr, map_bytes).filter(|_| is_block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::region;
    use crate::target::memory::canned::Pieces;

    const ADDR: u64 = 0x7f00_0000_0000;

    fn header(addr: u64, len_bytes: u64) -> (u64, Vec<u8>) {
        (addr, [addr, len_bytes, len_bytes - 4096].iter().flat_map(|word| word.to_le_bytes()).collect())
    }

    #[test]
    fn large_blocks_follow_each_other() {
        let second_addr = ADDR + 0x5000;
        let memory = Pieces(vec![header(ADDR, 0x5000), header(second_addr, 0x3000)]);
        let free = AnonymousMemory::new(&[region(ADDR, ADDR + 0xa000, "rw-p", "")], &[]);
        let expected =
            [AddrRange::with_len(ADDR, 0x5000).unwrap(), AddrRange::with_len(second_addr, 0x3000).unwrap()];
        assert_eq!(large_blocks(&memory, &free), expected);
    }

    #[test]
    fn a_block_that_reaches_out_of_the_memory_is_none() {
        let memory = Pieces(vec![header(ADDR, 0x5000)]);
        let free = AnonymousMemory::new(&[region(ADDR, ADDR + 0x4000, "rw-p", "")], &[]);
        assert_eq!(large_blocks(&memory, &free), []);
        assert_eq!(large_block(&Pieces(vec![(ADDR, vec![0; 24])]), ADDR), None);
    }

    #[test]
    fn layouts_are_ranges_that_do_not_overlap() {
        for sanitizer in &SANITIZERS {
            let mut ranges: Vec<(u64, u64)> =
                sanitizer.layout.iter().map(|(start_addr, end_addr, _)| (*start_addr, *end_addr)).collect();
            ranges.sort_unstable();
            assert!(
                ranges.iter().all(|(start_addr, end_addr)| start_addr < end_addr),
                "{}",
                sanitizer.symbol
            );
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{}", sanitizer.symbol);
        }
    }
}
