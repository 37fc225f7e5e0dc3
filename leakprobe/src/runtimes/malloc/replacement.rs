//! Allocators that take the place of the C library's: linked, preloaded, or static, told by symbols or, where those
//! were stripped, by their messages. jemalloc, mimalloc, gperftools' tcmalloc and Chromium's PartitionAlloc are divided; of
//! Google's it is said that it is not.
//!
//! The surprise: without a look into its structures nothing proves whose a mapping is, so what is claimed for an
//! allocator that is not divided is a guess by place and size, marked as one, and weaker than any stack.

use memchr::memmem;

use super::anonymous::AnonymousMemory;
use super::census::Census;
use super::{jemalloc, mimalloc, partition_alloc, tcmalloc};
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// Which allocator it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// jemalloc, also with the prefixes of Rust and others.
    Jemalloc,
    /// gperftools' tcmalloc.
    Tcmalloc,
    /// Google's newer tcmalloc.
    GoogleTcmalloc,
    /// mimalloc.
    Mimalloc,
    /// Chromium's.
    PartitionAlloc,
}

/// An allocator in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    kind: Kind,
    /// Where its variables may lie.
    variables: Vec<AddrRange>,
    /// By a symbol; else by a message in the file, which may be about it, and no part of it.
    is_certain: bool,
}

/// What an allocator holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Claims and gaps.
    pub findings: Findings,
    /// What its blocks add up to, where they were counted.
    pub census: Option<Census>,
    /// Whether it is there after all.
    pub is_there: bool,
}

/// Names of functions, and whose they are.
const SYMBOLS: [(&str, Kind); 9] = [
    ("mallctl", Kind::Jemalloc),
    ("je_mallctl", Kind::Jemalloc),
    ("_rjem_mallctl", Kind::Jemalloc),
    ("_rjem_malloc", Kind::Jemalloc),
    // Google's has it too, beside its own.
    ("MallocExtension_Internal_GetNumericProperty", Kind::GoogleTcmalloc),
    ("tc_version", Kind::Tcmalloc),
    ("mi_version", Kind::Mimalloc),
    ("mi_malloc_aligned", Kind::Mimalloc),
    ("_mi_malloc_generic", Kind::Mimalloc),
];
/// How messages begin.
const MESSAGES: [(&[u8], Kind); 3] = [
    (b"<jemalloc>: ", Kind::Jemalloc),
    (b"mimalloc: ", Kind::Mimalloc),
    (b"tcmalloc: large alloc ", Kind::Tcmalloc),
];
/// What an executable exports that has a malloc of its own; Chromium leaves no other name.
const OWN_MALLOC: [&str; 2] = ["malloc", "malloc_usable_size"];
/// An executable's constants that are searched for messages.
const MAX_RODATA_BYTES: u64 = 64 << 20;

/// mimalloc asks for addresses between 2 and 32 TiB (mimalloc `os.c`, `mi_os_get_aligned_hint`).
const MIMALLOC_HINTS: AddrRange = AddrRange { start_addr: 2 << 40, end_addr: 32 << 40 };
/// tcmalloc grows by no less than this (gperftools `page_heap.cc`, `kMinSystemAlloc`).
const TCMALLOC_GROWTH_BYTES: u64 = 1 << 20;
/// What Google's takes from the kernel is aligned like this; where the kernel keeps names, it has one.
const GOOGLE_ALIGNMENT_BYTES: u64 = 2 << 20;
const GOOGLE_NAME: &str = "[anon:tcmalloc_region_";

impl Replacement {
    /// The first that one of `modules` has.
    pub fn find(modules: &[Module]) -> Option<Self> {
        let by_symbol = modules.iter().find_map(|module| Some((module, of_symbols(module)?, true)));
        let by_message = || {
            let exe = modules.iter().find(|module| module.is_exe && !module.elf.has_symbol_table())?;
            Some((exe, of_messages(exe)?, false))
        };
        let nameless = || {
            let exe = modules.iter().find(|module| module.is_exe && has_own_malloc(module))?;
            Some((exe, Kind::PartitionAlloc, false))
        };
        let (carrier, kind, is_certain) = by_symbol.or_else(by_message).or_else(nameless)?;
        Some(Self { kind, variables: carrier.elf.bss_ranges(carrier.load_bias), is_certain })
    }

    /// Its name, for people.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Jemalloc => "jemalloc",
            Kind::Tcmalloc => "tcmalloc",
            Kind::GoogleTcmalloc => "Google's tcmalloc",
            Kind::Mimalloc => "mimalloc",
            Kind::PartitionAlloc => "PartitionAlloc",
        }
    }

    /// What it holds of `free`, the memory that nobody else owns.
    pub fn held(&self, memory: &dyn Memory, regions: &[Region], free: &AnonymousMemory) -> Held {
        let (findings, census) = match self.kind {
            Kind::Jemalloc => (jemalloc::claims(memory, &self.variables, free), None),
            Kind::Tcmalloc => (tcmalloc::read(memory, &self.variables, free), None),
            Kind::GoogleTcmalloc => (None, None),
            Kind::PartitionAlloc => (partition_alloc::read(memory, free), None),
            Kind::Mimalloc => {
                let (findings, census) = mimalloc::read(memory, &self.variables, free);
                (census.is_some().then_some(findings), census)
            }
        };
        let is_there = findings.is_some() || self.is_certain;
        let undivided = || if is_there { self.undivided(regions, free) } else { Findings::default() };
        Held { findings: findings.unwrap_or_else(undivided), census, is_there }
    }

    /// Claims what is likely its as in use, and says that this is not the whole truth.
    fn undivided(&self, regions: &[Region], free: &AnonymousMemory) -> Findings {
        let is_named = |name: &str, range: &AddrRange| {
            let mut named = regions.iter().filter(|region| region.name.starts_with(name));
            named.any(|region| region.range.intersection(range).is_some())
        };
        let is_likely = |range: &&AddrRange| match self.kind {
            Kind::Jemalloc | Kind::PartitionAlloc => false, // anywhere
            Kind::Tcmalloc => range.len_bytes() >= TCMALLOC_GROWTH_BYTES || is_named("[heap]", range),
            Kind::GoogleTcmalloc => {
                range.start_addr.is_multiple_of(GOOGLE_ALIGNMENT_BYTES) || is_named(GOOGLE_NAME, range)
            }
            Kind::Mimalloc => MIMALLOC_HINTS.intersection(range) == Some(**range),
        };
        let claim = |range: &AddrRange| Claim {
            range: *range,
            component: Component::CHeapInUse,
            evidence: Evidence::Neighbour,
        };
        let gap = Gap {
            what: format!("what of {}'s heap is free", self.name()),
            why: "its structures are not those that are known here; what is likely its counts as in use"
                .to_owned(),
            bytes: None,
        };
        let claims = free.ranges().iter().filter(is_likely).map(claim).collect();
        Findings { claims, gaps: vec![gap], ..Findings::default() }
    }
}

fn of_symbols(module: &Module) -> Option<Kind> {
    let is_known = |name: &str| SYMBOLS.iter().any(|(symbol, _)| *symbol == name);
    let mut names = module.elf.exported(is_known).unwrap_or_default();
    if module.is_exe {
        // Linked into the executable, it need not be exported.
        names.extend(module.elf.symbols(is_known).unwrap_or_default());
    }
    let found = SYMBOLS.iter().find(|(symbol, _)| names.iter().any(|other| other.name == *symbol));
    found.map(|(_, kind)| *kind)
}

fn has_own_malloc(module: &Module) -> bool {
    let exported = module.elf.exported(|name| OWN_MALLOC.contains(&name)).unwrap_or_default();
    OWN_MALLOC.iter().all(|name| exported.iter().any(|symbol| symbol.name == *name))
}

fn of_messages(module: &Module) -> Option<Kind> {
    if module.elf.section(".rodata")?.len_bytes > MAX_RODATA_BYTES {
        return None;
    }
    let constants = module.elf.section_data(".rodata").ok()??;
    let found = MESSAGES.iter().find(|(message, _)| memmem::find(&constants, message).is_some());
    found.map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::region;
    use crate::target::memory::canned::Pieces;

    fn held(kind: Kind, is_certain: bool) -> Held {
        let regions = [
            region(0x5500_0000_0000, 0x5500_0001_0000, "rw-p", "[heap]"),
            region(0x0490_0000_0000, 0x0490_0400_0000, "rw-p", ""),
            region(0x7f00_0000_1000, 0x7f00_0000_2000, "rw-p", "[anon:tcmalloc_region_NORMAL]"),
            region(0x7f10_0000_1000, 0x7f10_0020_0000, "rw-p", ""),
        ];
        let free = AnonymousMemory::new(&regions, &[]);
        Replacement { kind, variables: Vec::new(), is_certain }.held(&Pieces::default(), &regions, &free)
    }

    #[test]
    fn what_is_not_divided_is_told_by_its_place() {
        for (kind, expected) in [
            (Kind::Mimalloc, &[0x0490_0000_0000][..]),
            (Kind::Tcmalloc, &[0x0490_0000_0000, 0x5500_0000_0000, 0x7f10_0000_1000]),
            (Kind::GoogleTcmalloc, &[0x0490_0000_0000, 0x5500_0000_0000, 0x7f00_0000_1000]),
            (Kind::Jemalloc, &[]),
        ] {
            let held = held(kind, true);
            assert_eq!((held.findings.gaps.len(), held.is_there), (1, true), "{kind:?}");
            let claimed: Vec<u64> = held.findings.claims.iter().map(|claim| claim.range.start_addr).collect();
            assert_eq!(claimed, expected, "{kind:?}");
        }
    }

    #[test]
    fn a_message_alone_proves_nothing() {
        for kind in [Kind::Mimalloc, Kind::Tcmalloc, Kind::Jemalloc, Kind::PartitionAlloc] {
            let held = held(kind, false);
            assert!(!held.is_there && held.findings == Findings::default(), "{kind:?}");
        }
    }
}
