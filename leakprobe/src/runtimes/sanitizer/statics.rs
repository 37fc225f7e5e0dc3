//! The race runtime's variables in .bss: found by their symbols, or by their contents in a stripped file.
//!
//! They are 16 MiB, of which some 11 are resident: the context clears the tables of its slabs when it starts.
//! Refuses, in a stripped file, to claim more than the context and the allocator's table, which prove
//! themselves; the stack depot has no mark of its own.

use super::SHADOW;
use super::allocator::{self, RegionMap};
use super::context::{CONTEXT_LEN_BYTES, Context, MAPPED_SHADOW_OFFSET, RECYCLE_OFFSET, recycle_list_agrees};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::runtimes::malloc::anonymous::{AnonymousMemory, read_or_zero, words_of};
use crate::target::elf::{ElfFile, Symbol};
use crate::target::memory::Memory;

/// Symbols of the race runtime: mangled names in its two namespaces, their functions' statics, C names.
const PREFIXES: [&str; 8] = [
    "_ZN6__tsan",
    "_ZN11__sanitizer",
    "_ZZN6__tsan",
    "_ZZN11__sanitizer",
    "_ZN7__ubsan",
    "_ZN14__interception",
    "__tsan_",
    "__sanitizer_",
];

/// `sizeof(InternalAllocator)` on x86_64: a word, 32,768 pointers, and what else there is.
const ALLOCATOR_LEN_BYTES: u64 = 0x8_1040;

/// .bss that is searched in a stripped file: Go's own is 35 MiB since 1.26 and not resident.
const MAX_SEARCHED_BYTES: u64 = 256 << 20;
const PIECE_BYTES: u64 = 1 << 20;

/// Words of .bss that look like a table of the allocator; the context's slabs are some hundreds.
const MAX_POINTERS: usize = 1 << 16;

/// Stack depot: 2^20 hashes of 4 bytes, a counter and a lock, then pointers to 2^16 nodes of 16 bytes each.
const DEPOT_POINTERS_OFFSET: u64 = 0x40_0010;
const DEPOT_NODES_BYTES: u64 = 1 << 20;

/// Use counts of stacks: a lock, then pointers to 2^16 counters of 4 bytes each.
const USE_COUNTS_POINTERS_OFFSET: u64 = 8;
const USE_COUNTS_BYTES: u64 = 256 << 10;

/// Stack store: two counters, then {pointer, state} for each block of 2^20 frames of 8 bytes.
const STORE_POINTERS_OFFSET: u64 = 16;
const STORE_BLOCK_BYTES: u64 = 8 << 20;

/// Pointers read of each of the three; all are filled from the front.
const MAX_DEPOT_POINTERS: u64 = 4096;

/// Whether a symbol of this name belongs to the race runtime.
pub(super) fn is_race_symbol(name: &str) -> bool {
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Where the runtime's variables lie.
#[derive(Default)]
pub(super) struct Statics {
    /// `__tsan::ctx_placeholder`.
    pub(super) context: Option<AddrRange>,
    /// `__sanitizer::internal_alloc_placeholder`.
    pub(super) region_map: Option<AddrRange>,
    stack_depot: Option<AddrRange>,
    use_counts: Option<AddrRange>,
    stack_store: Option<AddrRange>,
    /// All variables.
    all: Vec<AddrRange>,
}

impl Statics {
    /// By the symbols of `exe`; `None` where it is stripped.
    pub(super) fn from_symbols(exe: &ElfFile, load_bias: u64) -> Option<Self> {
        let bss = exe.bss_ranges(load_bias);
        let symbols = exe.symbols(is_race_symbol).ok()?;
        let in_bss = symbols.iter().filter_map(|symbol| {
            let range = AddrRange::with_len(load_bias.wrapping_add(symbol.svma), symbol.len_bytes)?;
            bss.iter().any(|bss| bss.intersection(&range) == Some(range)).then_some((symbol, range))
        });
        Self::from_variables(in_bss)
    }

    fn from_variables<'a>(variables: impl Iterator<Item = (&'a Symbol, AddrRange)>) -> Option<Self> {
        let mut statics = Self::default();
        for (symbol, range) in variables {
            statics.all.push(range);
            match symbol.name.as_str() {
                "_ZN6__tsanL15ctx_placeholderE" => statics.context = Some(range),
                "_ZN11__sanitizerL26internal_alloc_placeholderE" => statics.region_map = Some(range),
                "_ZN11__sanitizerL8theDepotE" => statics.stack_depot = Some(range),
                "_ZN11__sanitizerL9useCountsE" => statics.use_counts = Some(range),
                "_ZN11__sanitizerL10stackStoreE" => statics.stack_store = Some(range),
                _ => {}
            }
        }
        statics.context.is_some().then_some(statics)
    }

    /// By what `bss` contains.
    pub(super) fn from_content(memory: &dyn Memory, anonymous: &AnonymousMemory, bss: &[AddrRange]) -> Self {
        let mut search = ContentSearch { memory, anonymous, context: None, pointers: Vec::new() };
        let mut left_bytes = MAX_SEARCHED_BYTES;
        for range in bss {
            let searched = AddrRange::with_len(range.start_addr, range.len_bytes().min(left_bytes));
            left_bytes -= searched.map_or(0, |range| range.len_bytes());
            searched.into_iter().for_each(|range| search.search(range));
        }
        let context = search.context;
        let block_addr = context
            .and_then(|range| Context::read(memory, anonymous, range))
            .and_then(|context| context.threads)
            .map(|threads| threads.first_context_addr);
        let region_map = block_addr
            .and_then(|addr| allocator::find_allocator(memory, anonymous, &search.pointers, addr))
            .and_then(|addr| AddrRange::with_len(addr, ALLOCATOR_LEN_BYTES))
            .filter(|range| RegionMap::read(memory, anonymous, *range).is_some());
        let all = context.into_iter().chain(region_map).collect();
        Self { context, region_map, all, ..Self::default() }
    }

    /// The whole pages they fill; variables that follow each other within a page count as one.
    pub(super) fn pages(&self) -> Vec<AddrRange> {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let mut joined: Vec<AddrRange> = Vec::new();
        for range in sorted {
            match joined.last_mut() {
                // Alignment leaves less than a cache line between two variables.
                Some(last) if range.start_addr <= last.end_addr.saturating_add(64) => {
                    last.end_addr = last.end_addr.max(range.end_addr);
                }
                _ => joined.push(range),
            }
        }
        joined.iter().filter_map(AddrRange::whole_pages).collect()
    }
}

/// The search of a stripped file's .bss, in one pass: for the context, and for words that may point at a
/// table of the allocator.
struct ContentSearch<'a> {
    memory: &'a dyn Memory,
    anonymous: &'a AnonymousMemory,
    context: Option<AddrRange>,
    pointers: Vec<(u64, u64)>,
}

impl ContentSearch<'_> {
    fn search(&mut self, range: AddrRange) {
        let Some(mut addr) = range.start_addr.checked_next_multiple_of(8) else { return };
        while addr < range.end_addr {
            // The list and the mapped shadow behind it may cross from one piece to the next.
            let len_bytes = (range.end_addr - addr).min(PIECE_BYTES + CONTEXT_LEN_BYTES - RECYCLE_OFFSET);
            self.search_piece(addr, &words_of(&read_or_zero(self.memory, addr, len_bytes as usize)));
            addr = addr.saturating_add(PIECE_BYTES);
        }
    }

    fn search_piece(&mut self, piece_addr: u64, words: &[u64]) {
        for (index, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let addr = piece_addr + 8 * index as u64;
            if word.is_multiple_of(PAGE_BYTES)
                && index < PIECE_BYTES as usize / 8
                && self.pointers.len() < MAX_POINTERS
                && self.anonymous.covers_len(*word, PAGE_BYTES)
            {
                self.pointers.push((addr, *word));
            }
            if self.context.is_none() && self.is_recycle_list(&words[index..], addr) {
                self.context = addr
                    .checked_sub(RECYCLE_OFFSET)
                    .and_then(|start_addr| AddrRange::with_len(start_addr, CONTEXT_LEN_BYTES));
            }
        }
    }

    /// Whether the context's list is at `addr`. Behind it is the shadow's mapped range; Go 1.19 has none, and
    /// there the first part in the list must point back.
    fn is_recycle_list(&self, words: &[u64], addr: u64) -> bool {
        if !recycle_list_agrees(words, addr) {
            return false;
        }
        let index = ((MAPPED_SHADOW_OFFSET - RECYCLE_OFFSET) / 8) as usize;
        match words.get(index..index + 2) {
            Some(&[0, 0]) => {
                let prev_addr = words[0].checked_add(8).filter(|_| words[0] != addr);
                prev_addr.is_some_and(|at| self.memory.read_u64(at).is_ok_and(|prev| prev == addr))
            }
            Some(&[begin_addr, end_addr]) => AddrRange::new(begin_addr, end_addr)
                .is_some_and(|range| SHADOW.intersection(&range) == Some(range)),
            _ => false,
        }
    }
}

/// The mappings of the depot of stacks.
pub(super) fn depots(memory: &dyn Memory, anonymous: &AnonymousMemory, statics: &Statics) -> Vec<AddrRange> {
    let tables = [
        (statics.stack_depot, DEPOT_POINTERS_OFFSET, 8, DEPOT_NODES_BYTES),
        (statics.use_counts, USE_COUNTS_POINTERS_OFFSET, 8, USE_COUNTS_BYTES),
        (statics.stack_store, STORE_POINTERS_OFFSET, 16, STORE_BLOCK_BYTES),
    ];
    let mut mappings = Vec::new();
    for (table, first_offset, step_bytes, len_bytes) in tables {
        let Some(table) = table else { continue };
        let pointer_addrs = (table.start_addr.saturating_add(first_offset)..table.end_addr.saturating_sub(7))
            .step_by(step_bytes)
            .take(MAX_DEPOT_POINTERS as usize);
        let pointers =
            pointer_addrs.map_while(|addr| memory.read_u64(addr).ok().filter(|pointer| *pointer != 0));
        mappings.extend(
            pointers
                .filter(|addr| addr.is_multiple_of(PAGE_BYTES) && anonymous.covers_len(*addr, len_bytes))
                .filter_map(|addr| AddrRange::with_len(addr, len_bytes)),
        );
    }
    mappings
}
