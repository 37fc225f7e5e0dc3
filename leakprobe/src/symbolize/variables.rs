//! Which variables lie in a stretch of a file's memory, by its symbol table.

use crate::address::AddrRange;
use crate::attribute::files::Variable;
use crate::target::modules::Module;

/// The variables of `module` in `ranges` of the process, in no order; `None` where the file has no symbol table.
/// What it exports is no substitute: a stripped file's large variables are rarely among it.
pub fn within(module: &Module, ranges: &[AddrRange]) -> Option<Vec<Variable>> {
    if !module.elf.has_symbol_table() {
        return None;
    }
    let inside = |svma: u64, len_bytes: u64| {
        let range = AddrRange::with_len(svma.wrapping_add(module.load_bias), len_bytes)?;
        ranges.iter().any(|other| other.intersection(&range).is_some()).then_some(range)
    };
    let symbols = module.elf.symbols(|_| true).ok()?;
    let variable = |symbol: crate::target::elf::Symbol| {
        let range = inside(symbol.svma, symbol.len_bytes)?;
        Some(Variable { name: symbol.name, range })
    };
    Some(symbols.into_iter().filter_map(variable).collect())
}
