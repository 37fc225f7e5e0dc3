//! The race runtime's machine code: an instruction pointer in it says that TSan mapped or touched memory.
//!
//! Internally linked programs name these functions in .symtab and in .gopclntab, externally linked ones in
//! .symtab alone; so the names come from the caller. Refuses to guess where there are none.

use super::statics::is_race_symbol;
use crate::address::AddrRange;
use crate::target::elf::ElfFile;

/// Between two functions of the race runtime lie memcpy, memset and the like of its own object file, and
/// padding. More than a page between them is somebody else's code.
const MAX_GAP_BYTES: u64 = 4096;

/// The addresses of the race runtime's code by the symbols of `exe`, loaded with `load_bias`; empty where the
/// file is stripped.
pub fn race_text_of_symbols(exe: &ElfFile, load_bias: u64) -> Vec<AddrRange> {
    let text: Vec<AddrRange> = exe
        .segments()
        .iter()
        .filter(|segment| segment.executable)
        .filter_map(|segment| AddrRange::with_len(segment.svma, segment.memory_bytes))
        .collect();
    let symbols = exe.symbols(is_race_symbol).unwrap_or_default();
    race_text_ranges(symbols.iter().filter_map(|symbol| {
        let svmas = AddrRange::with_len(symbol.svma, symbol.len_bytes)?;
        let addr = AddrRange::with_len(load_bias.wrapping_add(symbol.svma), symbol.len_bytes)?;
        text.iter()
            .any(|text| text.intersection(&svmas) == Some(svmas))
            .then_some((symbol.name.as_str(), addr))
    }))
}

/// The addresses of the race runtime's code, ascending, given the functions of the executable in any order.
pub fn race_text_ranges<'a>(functions: impl IntoIterator<Item = (&'a str, AddrRange)>) -> Vec<AddrRange> {
    let named = functions.into_iter().filter(|(name, _)| is_race_symbol(name));
    joined_code(named.map(|(_, range)| range).collect())
}

/// Functions of one runtime as stretches of code, ascending.
pub(super) fn joined_code(mut functions: Vec<AddrRange>) -> Vec<AddrRange> {
    functions.sort_unstable();
    let mut joined: Vec<AddrRange> = Vec::new();
    for range in functions {
        match joined.last_mut() {
            Some(last) if range.start_addr <= last.end_addr.saturating_add(MAX_GAP_BYTES) => {
                last.end_addr = last.end_addr.max(range.end_addr);
            }
            _ => joined.push(range),
        }
    }
    joined
}
