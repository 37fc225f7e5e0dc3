//! Allocators that take the place of the C library's: linked, preloaded, or static where the executable's
//! symbols tell. jemalloc is divided; of the others it is said that they are not.
//!
//! The surprise: without a look into its structures nothing proves whose a mapping
//! is, so what is claimed for those is a guess by place and size, marked as one, and weaker than any stack.

use super::anonymous::AnonymousMemory;
use super::jemalloc;
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// Which allocator it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// jemalloc, also with the prefixes of Rust and others.
    Jemalloc,
    /// gperftools' tcmalloc.
    Tcmalloc,
    /// mimalloc.
    Mimalloc,
}

/// Exported names, and whose they are.
const SYMBOLS: [(&str, Replacement); 5] = [
    ("mallctl", Replacement::Jemalloc),
    ("je_mallctl", Replacement::Jemalloc),
    ("_rjem_mallctl", Replacement::Jemalloc),
    ("tc_version", Replacement::Tcmalloc),
    ("mi_version", Replacement::Mimalloc),
];

/// mimalloc asks for addresses between 2 and 32 TiB (mimalloc `os.c`, `mi_os_get_aligned_hint`).
const MIMALLOC_HINTS: AddrRange = AddrRange { start_addr: 2 << 40, end_addr: 32 << 40 };
/// tcmalloc grows by no less than this (gperftools `page_heap.cc`, `kMinSystemAlloc`).
const TCMALLOC_GROWTH_BYTES: u64 = 1 << 20;

impl Replacement {
    /// The first that one of `modules` exports, and that module.
    pub fn find(modules: &[Module]) -> Option<Self> {
        modules.iter().find_map(Self::of)
    }

    fn of(module: &Module) -> Option<Self> {
        let is_known = |name: &str| SYMBOLS.iter().any(|(symbol, _)| *symbol == name);
        let mut names = module.elf.exported(is_known).unwrap_or_default();
        if module.is_exe {
            // Linked into the executable, it need not be exported.
            names.extend(module.elf.symbols(is_known).unwrap_or_default());
        }
        let found = SYMBOLS.iter().find(|(symbol, _)| names.iter().any(|other| other.name == *symbol));
        found.map(|(_, replacement)| *replacement)
    }

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jemalloc => "jemalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Mimalloc => "mimalloc",
        }
    }

    /// Claims what it holds of `free`, the memory that nobody else owns.
    pub fn claims(
        self,
        memory: &dyn Memory,
        modules: &[Module],
        regions: &[Region],
        free: &AnonymousMemory,
    ) -> Findings {
        let likely = |is_likely: &dyn Fn(&AddrRange) -> bool| {
            let ranges = free.ranges().iter().filter(|range| is_likely(range));
            self.undivided(ranges.copied())
        };
        match self {
            Self::Jemalloc => {
                let carrier = modules.iter().find(|module| Self::of(module) == Some(self));
                let bss = carrier.map(|carrier| carrier.elf.bss_ranges(carrier.load_bias));
                jemalloc::claims(memory, &bss.unwrap_or_default(), free)
            }
            Self::Tcmalloc => {
                let brk = regions.iter().find(|region| region.name == "[heap]").map(|region| region.range);
                likely(&|range| {
                    range.len_bytes() >= TCMALLOC_GROWTH_BYTES
                        || brk.is_some_and(|brk| brk.intersection(range).is_some())
                })
            }
            Self::Mimalloc => likely(&|range| MIMALLOC_HINTS.intersection(range) == Some(*range)),
        }
    }

    /// Claims `ranges` as in use, and says that this is not the whole truth.
    fn undivided(self, ranges: impl Iterator<Item = AddrRange>) -> Findings {
        let claim = |range| Claim { range, component: Component::CHeapInUse, evidence: Evidence::Neighbour };
        let what = format!("what of {}'s heap is free", self.name());
        let why = "its structures are not known here; all of it counts as in use".to_owned();
        let gaps = vec![Gap { what, why, bytes: None }];
        Findings { claims: ranges.map(claim).collect(), gaps, ..Findings::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::region;
    use crate::target::memory::canned::Pieces;

    fn claimed(replacement: Replacement) -> Vec<u64> {
        let regions = [
            region(0x5500_0000_0000, 0x5500_0001_0000, "rw-p", "[heap]"),
            region(0x0490_0000_0000, 0x0490_0400_0000, "rw-p", ""),
            region(0x7f00_0000_0000, 0x7f00_0000_2000, "rw-p", ""),
            region(0x7f10_0000_0000, 0x7f10_0020_0000, "rw-p", ""),
        ];
        let free = AnonymousMemory::new(&regions, &[]);
        let findings = replacement.claims(&Pieces::default(), &[], &regions, &free);
        assert_eq!(findings.gaps.len(), 1, "{replacement:?}");
        findings.claims.iter().map(|claim| claim.range.start_addr).collect()
    }

    #[test]
    fn what_is_not_divided_is_told_by_its_place() {
        assert_eq!(claimed(Replacement::Mimalloc), [0x0490_0000_0000]);
        assert_eq!(claimed(Replacement::Tcmalloc), [0x0490_0000_0000, 0x5500_0000_0000, 0x7f10_0000_0000]);
        assert!(claimed(Replacement::Jemalloc).is_empty(), "without its tree there is nothing to go by");
    }
}
