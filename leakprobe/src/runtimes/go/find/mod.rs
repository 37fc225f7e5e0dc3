//! Where the Go runtime's global variables are in a process.
//!
//! Symbols say it where there are any. In a stripped program `mheap_` is found by content, because the page
//! allocator inside holds a pointer to the whole: a word of the program's data that equals its own address less
//! a constant. The others are found by what the code of a few functions names. Refuses a heap whose span
//! allocator does not point back at it, and any other variable that does not look like itself. The surprise:
//! scanning is cheap, and reading .noptrbss is not: every page read there gets a page table entry in the
//! target, so .bss, where the heap's variable lies, comes first.

mod arm64;
mod check;
mod operands;
mod rules;

use anyhow::{Context as _, Result, bail};

use super::layout::{GoroutineLayout, Layout};
use super::pclntab::Pclntab;
use crate::address::AddrRange;
use crate::target::elf::{ElfFile, Segment};
use crate::target::memory::Memory;

/// How much is read at a time; a piece that cannot be read is left out.
const PIECE_BYTES: u64 = 1 << 18;
/// How much data is searched, for all layouts that are tried.
const MAX_SCANNED_BYTES: u64 = 1 << 30;
/// How many words that could be a heap's are looked at more closely. In programs there is one, or two.
const MAX_LIKELY: u32 = 1 << 12;

/// A variable of package `runtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Global {
    /// `mheap_`, the heap.
    Mheap,
    /// `memstats`.
    Memstats,
    /// `persistentChunks`, the list of 256 KiB pieces of never freed memory.
    PersistentChunks,
    /// `gcBitsArenas`, the lists of mark and allocation bits.
    GcBitsArenas,
    /// `allp`, the list of processors.
    Allp,
    /// `allgs`, the list of goroutines.
    Allgs,
    /// `allm`, the list of threads.
    Allm,
    /// `work`, the collector's state.
    Work,
    /// `buckhash`, the hash table of profiling buckets.
    Buckhash,
    /// `mbuckets`, the list of the heap profile's buckets.
    Mbuckets,
    /// `mProfCycle`, the number of the heap profile's current cycle.
    MemProfileCycle,
    /// `MemProfileRate`, the mean number of bytes between two samples.
    MemProfileRate,
    /// `vgetrandomAlloc`, the states of the vdso's random number generator.
    VgetrandomAlloc,
    /// `waitReasonStrings`, what goroutines wait for.
    WaitReasonStrings,
    /// `gcController`, the collector's settings and pace.
    GcController,
}

impl Global {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Mheap,
        Self::Memstats,
        Self::PersistentChunks,
        Self::GcBitsArenas,
        Self::Allp,
        Self::Allgs,
        Self::Allm,
        Self::Work,
        Self::Buckhash,
        Self::Mbuckets,
        Self::MemProfileCycle,
        Self::MemProfileRate,
        Self::VgetrandomAlloc,
        Self::WaitReasonStrings,
        Self::GcController,
    ];

    /// Its name in the symbol table.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Mheap => "runtime.mheap_",
            Self::Memstats => "runtime.memstats",
            Self::PersistentChunks => "runtime.persistentChunks",
            Self::GcBitsArenas => "runtime.gcBitsArenas",
            Self::Allp => "runtime.allp",
            Self::Allgs => "runtime.allgs",
            Self::Allm => "runtime.allm",
            Self::Work => "runtime.work",
            Self::Buckhash => "runtime.buckhash",
            Self::Mbuckets => "runtime.mbuckets",
            Self::MemProfileCycle => "runtime.mProfCycle",
            Self::MemProfileRate => "runtime.MemProfileRate",
            Self::VgetrandomAlloc => "runtime.vgetrandomAlloc",
            Self::WaitReasonStrings => "runtime.waitReasonStrings",
            Self::GcController => "runtime.gcController",
        }
    }
}

/// Addresses of the variables that were found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    mheap_addr: u64,
    others: Vec<(Global, u64)>,
}

/// How much may still be searched for the heap: the data, and with it how often something looks likely, is the
/// target's to choose.
#[derive(Debug)]
pub struct Budget {
    bytes: u64,
    likely: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { bytes: MAX_SCANNED_BYTES, likely: MAX_LIKELY }
    }
}

/// The program whose variables are looked for.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// Its file.
    pub elf: &'a ElfFile,
    /// What is added to the file's addresses in the process.
    pub load_bias: u64,
    /// Its function table, where it was found.
    pub pclntab: Option<&'a Pclntab>,
    /// How its structures are laid out.
    pub layout: &'a Layout,
    /// Likewise, of its goroutines.
    pub goroutine_layout: &'a GoroutineLayout,
}

impl Globals {
    /// Finds the variables of `program`: by its symbols, else by its code. What is searched comes off `budget`.
    ///
    /// # Errors
    /// Where there is no heap that looks like one of the layout: the program may not have got so far yet.
    pub fn find(memory: &dyn Memory, program: &Program<'_>, budget: &mut Budget) -> Result<Self> {
        let layout = program.layout;
        let mut others = in_process(symbols(program.elf)?, program.load_bias);
        let symbol = others.iter().find(|(global, _)| *global == Global::Mheap).map(|&(_, addr)| addr);
        let mheap_addr = match symbol {
            Some(addr) => addr,
            None => scan(memory, program, budget).context("runtime.mheap_ is nowhere in the data")?,
        };
        check_mheap(memory, layout, mheap_addr)?;
        if symbol.is_none() {
            let reader =
                check::Reader { memory, layout, goroutine_layout: program.goroutine_layout, mheap_addr };
            others = in_process(by_code(program), program.load_bias);
            others.retain(|&(global, addr)| reader.check(global, addr).is_ok());
        }
        Ok(Self { mheap_addr, others })
    }

    /// Variables at addresses that a test made up.
    #[cfg(test)]
    pub fn at(mheap_addr: u64, others: Vec<(Global, u64)>) -> Self {
        Self { mheap_addr, others }
    }

    /// Address of `runtime.mheap_`.
    pub fn mheap_addr(&self) -> u64 {
        self.mheap_addr
    }

    /// Address of `global`.
    ///
    /// # Errors
    /// Where the program has no symbol for it, and its code does not show it.
    pub fn addr(&self, global: Global) -> Result<u64> {
        let found = self.others.iter().find(|(known, _)| *known == global);
        let name = global.symbol();
        found.map(|&(_, addr)| addr).with_context(|| format!("{name} is neither in symbols nor seen in code"))
    }
}

/// The variables that the program's code names, at the addresses its file states; empty without a function
/// table. Unlike those of [`Globals::find`] nothing has vouched for them yet.
pub fn by_code(program: &Program<'_>) -> Vec<(Global, u64)> {
    let table = program.pclntab;
    table.map_or_else(Vec::new, |table| rules::find(program.elf, table, program.layout))
}

fn in_process(svmas: Vec<(Global, u64)>, load_bias: u64) -> Vec<(Global, u64)> {
    svmas.into_iter().map(|(global, svma)| (global, load_bias.wrapping_add(svma))).collect()
}

/// The variables that the symbol table of `elf` names, at the addresses stated there.
///
/// # Errors
/// Where the table cannot be read.
pub fn symbols(elf: &ElfFile) -> Result<Vec<(Global, u64)>> {
    let global = |name: &str| Global::ALL.into_iter().find(|global| global.symbol() == name);
    let found = elf.symbols(|name| global(name).is_some())?;
    let in_data = |svma: u64| elf.segments().iter().any(|segment| writable_svma(segment, svma));
    Ok(found
        .into_iter()
        .filter(|symbol| in_data(symbol.svma))
        .filter_map(|symbol| Some((global(&symbol.name)?, symbol.svma)))
        .collect())
}

fn writable_svma(segment: &Segment, svma: u64) -> bool {
    let memory = AddrRange::with_len(segment.svma, segment.memory_bytes);
    segment.writable && memory.is_some_and(|memory| memory.contains(svma))
}

/// Searches the program's data for a heap of its layout.
fn scan(memory: &dyn Memory, program: &Program<'_>, budget: &mut Budget) -> Option<u64> {
    let elf = program.elf;
    let bss = elf.section(".bss").map(|section| (section.svma, section.len_bytes));
    let segments = elf.segments().iter().filter(|segment| segment.writable);
    let stretches = segments.map(|segment| (segment.svma, segment.memory_bytes));
    let ranges = bss.into_iter().chain(stretches).filter_map(|(svma, len_bytes)| {
        AddrRange::with_len(program.load_bias.wrapping_add(svma), len_bytes.min(MAX_SCANNED_BYTES))
    });
    ranges.into_iter().find_map(|range| scan_range(memory, range, program.layout, budget))
}

fn scan_range(memory: &dyn Memory, range: AddrRange, layout: &Layout, budget: &mut Budget) -> Option<u64> {
    // mheap_.pages.mheapLock holds the address of mheap_.
    let distance_bytes = layout.pages_offset + layout.mheap_lock_offset;
    let mut piece_addr = range.start_addr.checked_next_multiple_of(8)?;
    while piece_addr < range.end_addr {
        let len_bytes = PIECE_BYTES.min(range.end_addr - piece_addr);
        budget.bytes = budget.bytes.checked_sub(len_bytes)?;
        let piece = memory.read_vec(piece_addr, usize::try_from(len_bytes).ok()?).unwrap_or_default();
        for (addr, word) in (piece_addr..).step_by(8).zip(piece.chunks_exact(8)) {
            let mheap_addr = addr.wrapping_sub(distance_bytes);
            if *word == mheap_addr.to_le_bytes() {
                budget.likely = budget.likely.checked_sub(1)?;
                if check_mheap(memory, layout, mheap_addr).is_ok() {
                    return Some(mheap_addr);
                }
            }
        }
        piece_addr = piece_addr.checked_add(len_bytes)?;
    }
    None
}

/// Whether a heap of `layout` is at `mheap_addr`.
fn check_mheap(memory: &dyn Memory, layout: &Layout, mheap_addr: u64) -> Result<()> {
    let field = |offset: u64| -> Result<u64> { Ok(memory.read_u64(mheap_addr.wrapping_add(offset))?) };
    if mheap_addr == 0 || !mheap_addr.is_multiple_of(8) {
        bail!("runtime.mheap_ cannot be at {mheap_addr:#x}");
    }
    if field(layout.pages_offset + layout.mheap_lock_offset)? != mheap_addr {
        bail!("the page allocator of runtime.mheap_ does not point back at it");
    }
    let owner_addr = field(layout.spanalloc_offset + layout.fixalloc_arg_offset)?;
    let span_bytes = field(layout.spanalloc_offset + layout.fixalloc_size_offset)?;
    if owner_addr != mheap_addr || span_bytes != layout.mspan_bytes {
        bail!("the span allocator of runtime.mheap_ is not one of the known Go versions");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::image::Arch;
    use super::*;
    use crate::target::memory::canned::Pieces;

    const BSS_ADDR: u64 = 0x55_0000;
    const MHEAP_ADDR: u64 = BSS_ADDR + 0x5_0040;

    fn layout() -> Layout {
        Layout::for_version(27, Arch::Amd64).unwrap()
    }

    /// A .bss of 1 MiB with a heap in it, and a word that only looks like one.
    fn bss() -> Pieces {
        let layout = layout();
        let mut bytes = vec![0_u8; 1 << 20];
        let mut put = |addr: u64, word: u64| {
            let offset = usize::try_from(addr - BSS_ADDR).unwrap();
            bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        };
        let lock_offset = layout.pages_offset + layout.mheap_lock_offset;
        put(BSS_ADDR + 0x100 + lock_offset, BSS_ADDR + 0x100);
        put(MHEAP_ADDR + lock_offset, MHEAP_ADDR);
        put(MHEAP_ADDR + layout.spanalloc_offset + layout.fixalloc_size_offset, layout.mspan_bytes);
        put(MHEAP_ADDR + layout.spanalloc_offset + layout.fixalloc_arg_offset, MHEAP_ADDR);
        Pieces(vec![(BSS_ADDR, bytes)])
    }

    #[test]
    fn the_heap_points_at_itself() {
        let range = AddrRange::with_len(BSS_ADDR, 1 << 20).unwrap();
        assert_eq!(scan_range(&bss(), range, &layout(), &mut Budget::default()), Some(MHEAP_ADDR));
    }

    #[test]
    fn one_budget_for_all_that_is_searched() {
        let range = AddrRange::with_len(BSS_ADDR, 1 << 20).unwrap();
        let mut budget = Budget { bytes: 5 * PIECE_BYTES, likely: 9 };
        let scan = |budget: &mut Budget| scan_range(&bss(), range, &layout(), budget);
        assert_eq!(scan(&mut budget), Some(MHEAP_ADDR));
        assert_eq!(budget.likely, 7, "the word that only looks like one, and the one");
        budget.bytes = 0;
        assert_eq!(scan(&mut budget), None, "used up by what was searched before");
        assert_eq!(scan(&mut Budget { likely: 1, ..Budget::default() }), None);
    }

    #[test]
    fn a_heap_of_another_version_is_refused() {
        let range = AddrRange::with_len(BSS_ADDR, 1 << 20).unwrap();
        let older = Layout::for_version(21, Arch::Amd64).unwrap();
        assert_eq!(scan_range(&bss(), range, &older, &mut Budget::default()), None);
        assert!(check_mheap(&bss(), &layout(), MHEAP_ADDR).is_ok());
        assert!(check_mheap(&bss(), &layout(), MHEAP_ADDR + 4).is_err(), "unaligned");
        assert!(check_mheap(&bss(), &layout(), 0).is_err());
    }

    #[test]
    fn unreadable_memory_is_passed_over() {
        let range = AddrRange::with_len(BSS_ADDR - 4 * PIECE_BYTES, 16 * PIECE_BYTES).unwrap();
        assert_eq!(scan_range(&bss(), range, &layout(), &mut Budget::default()), Some(MHEAP_ADDR));
    }
}
