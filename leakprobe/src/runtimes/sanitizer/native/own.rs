//! A sanitizer's own variables and code: of a shared runtime all that is in its library, of a static one what
//! its names tell apart from the program's.
//!
//! Refuses to tell them apart in an executable whose symbol table is gone: there they stay the executable's.

use crate::address::AddrRange;
use crate::claim::Component;
use crate::runtimes::code::{Role, is_allocator_name};
use crate::runtimes::sanitizer::text::joined_code;
use crate::target::elf::Symbol;
use crate::target::modules::Module;

/// A shared runtime is a library of this kind of name; a static one is in the executable.
const LIBRARY_NAMES: [&str; 2] = ["san.so", "libclang_rt."];

/// Parts of names that only sanitizers have: namespaces, and beginnings of C names.
const NAMESPACES: [&str; 10] = [
    "__asan",
    "__tsan",
    "__msan",
    "__hwasan",
    "__lsan",
    "__ubsan",
    "__sanitizer",
    "__interception",
    "__interceptor",
    "__sancov",
];

/// What a sanitizer has in files.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Its variables, initialised or not.
    pub(super) variables: Vec<AddrRange>,
    /// Those of them in .bss.
    pub(super) bss: Vec<AddrRange>,
    /// Its code.
    pub(super) code: Vec<AddrRange>,
    /// Functions that work for whoever calls them: what replaces the C library's, and what the compiler calls.
    called: Vec<AddrRange>,
    /// malloc and its kin.
    allocators: Vec<AddrRange>,
}

impl Own {
    pub(super) fn of(carrier: &Module) -> Self {
        let is_library = LIBRARY_NAMES.iter().any(|part| carrier.name().contains(part));
        let addrs = |symbol: &Symbol| {
            AddrRange::with_len(carrier.load_bias.wrapping_add(symbol.svma), symbol.len_bytes)
        };
        let code_segments = carrier.code_ranges();
        let is_code =
            |range: &AddrRange| code_segments.iter().any(|code| code.intersection(range) == Some(*range));
        let bss = carrier.elf.bss_ranges(carrier.load_bias);
        let mut own = Self::default();
        let named = carrier.elf.symbols(|name| is_library || is_ours(name)).unwrap_or_default();
        let mut functions = Vec::new();
        for symbol in &named {
            let Some(range) = addrs(symbol) else { continue };
            if is_code(&range) {
                functions.push(range);
            } else if !is_library {
                own.variables.push(range);
                own.bss.extend(bss.iter().filter_map(|bss| bss.intersection(&range)));
            }
        }
        if is_library {
            own.variables = carrier.data_ranges();
            own.bss = bss;
            own.code = code_segments.clone();
        } else if carrier.elf.has_symbol_table() {
            own.code = joined_code(functions);
        } else {
            // The names that are left are all over the runtime's code, which the linker keeps together.
            let ends = functions.iter().map(|range| range.end_addr).max();
            let hull = functions.iter().map(|range| range.start_addr).min().zip(ends);
            own.code = hull.and_then(|(start, end)| AddrRange::new(start, end)).into_iter().collect();
            own.variables.clear();
            own.bss.clear();
        }
        own.add_called(carrier, &addrs);
        own
    }

    fn add_called(&mut self, carrier: &Module, addrs: &dyn Fn(&Symbol) -> Option<AddrRange>) {
        let all = carrier.elf.symbols(|name| !name.starts_with("_Z") || is_allocator_name(name));
        for symbol in all.unwrap_or_default() {
            let Some(range) = addrs(&symbol) else { continue };
            if !self.code.iter().any(|code| code.intersection(&range) == Some(range)) {
                continue;
            }
            match is_allocator_name(&symbol.name) {
                true => self.allocators.push(range),
                false => self.called.push(range),
            }
        }
    }

    /// What the code is for; later ones count.
    pub(super) fn roles(&self, runtime: Component, heap: Component) -> Vec<(AddrRange, Role)> {
        let of = |ranges: &[AddrRange], role: Role| -> Vec<(AddrRange, Role)> {
            ranges.iter().map(|range| (*range, role)).collect()
        };
        let mut roles = of(&self.code, Role::Sanitizer(runtime));
        roles.extend(of(&self.called, Role::CLibrary));
        roles.extend(of(&self.allocators, Role::Sanitizer(heap)));
        roles
    }
}

/// Whether a symbol of this name belongs to a sanitizer.
fn is_ours(name: &str) -> bool {
    NAMESPACES.iter().any(|namespace| name.contains(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sanitizers_are_told_from_a_programs() {
        for name in ["_ZN11__sanitizerL8theDepotE", "__asan_init", "_ZZN6__msan10InitOptionsEvE1x"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["main", "__odr_asan_gen_table", "_ZN4main3asanE", "sanitizer_table"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
