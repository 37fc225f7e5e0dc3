//! Addresses → functions, files and lines, inlined frames included.
//!
//! Go code is named by its own pclntab, which stripped binaries keep; everything else by blazesym, from
//! files that were opened while they were mapped. What has no name stays an address with its module. The
//! surprise: where Go's own linker took C++ in, Go's table is the last to know its names.

pub mod variables;

use std::collections::HashMap;
use std::fmt;

use blazesym::symbolize::source::{Elf, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer as Blazesym};
use cpp_demangle::DemangleOptions;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runtimes::go::code::GoCode;
use crate::target::elf::Symbol;
use crate::target::modules::{FileId, Module};

/// A frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Demangled; null where nothing names the address.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// File the code was mapped from.
    pub module: Option<String>,
    /// In the process.
    pub address: u64,
    /// Inlined into the next frame outwards.
    pub inlined: bool,
}

/// Sections by which a file names another one with its debug information.
const DEBUG_LINKS: [&str; 2] = [".gnu_debuglink", ".gnu_debugaltlink"];

/// Names the code of one process.
pub struct Symbolizer<'a> {
    modules: &'a [Module],
    go: Vec<GoCode<'a>>,
    blazesym: Blazesym,
    named: HashMap<u64, Vec<Frame>>,
    /// Functions of the files that blazesym names nothing in, by address.
    exported: HashMap<FileId, Vec<Symbol>>,
}

impl<'a> Symbolizer<'a> {
    /// Nothing is read before it is asked for.
    pub fn new(modules: &'a [Module], go: Vec<GoCode<'a>>) -> Self {
        let blazesym = Blazesym::builder().enable_auto_reload(false).enable_inlined_fns(true).build();
        Self { modules, go, blazesym, named: HashMap::new(), exported: HashMap::new() }
    }

    /// The frames of a stack, innermost first. `addrs` are addresses inside the instructions.
    pub fn frames(&mut self, addrs: impl Iterator<Item = u64>) -> Vec<Frame> {
        let mut frames = Vec::new();
        for addr in addrs {
            if !self.named.contains_key(&addr) {
                let named = self.name(addr);
                self.named.insert(addr, named);
            }
            frames.extend(self.named[&addr].iter().cloned());
        }
        frames
    }

    fn name(&mut self, addr: u64) -> Vec<Frame> {
        let module = self.modules.iter().find(|module| module.has_code_at(addr));
        let bare =
            Frame { module: module.map(|module| module.path.clone()), address: addr, ..Frame::default() };
        let Some(module) = module else { return vec![bare] };
        let go = self.go.iter().find(|go| go.text.contains(addr)).copied();
        let by_go = go.map(|go| name_go(&go, &bare));
        if let Some(frames) = by_go.filter(|frames| !frames.is_empty()) {
            return frames;
        }
        if let Some(frames) = self.name_native(module, &bare) {
            return frames;
        }
        let linked = go.and_then(|go| name_linked(&go, &bare));
        vec![linked.unwrap_or_else(|| self.name_exported(module, bare))]
    }

    /// By the function that a stripped library exports there: a name without a line is better than none.
    fn name_exported(&mut self, module: &'a Module, bare: Frame) -> Frame {
        let exported = self.exported.entry(module.file_id).or_insert_with(|| {
            let mut symbols = module.elf.symbols(|_| true).unwrap_or_default();
            symbols.retain(|symbol| symbol.len_bytes > 0);
            symbols.sort_by_key(|symbol| symbol.svma);
            symbols
        });
        let svma = bare.address.wrapping_sub(module.load_bias);
        let before = exported.partition_point(|symbol| symbol.svma <= svma);
        let found = before.checked_sub(1).map(|last| &exported[last]);
        let found = found.filter(|symbol| svma - symbol.svma < symbol.len_bytes);
        Frame { function: found.map(|symbol| symbol.name.clone()), ..bare }
    }

    fn name_native(&self, module: &Module, bare: &Frame) -> Option<Vec<Frame>> {
        // Go's linker drops the debug information of the C++ it links: only the symbol table helps there,
        // and reading all of Go's debug information to learn that would cost more than the rest.
        let has_go = self.go.iter().any(|go| module.span.contains(go.text.start_addr));
        let is_go = has_go && module.elf.section(".eh_frame").is_none();
        let is_linked = DEBUG_LINKS.iter().any(|section| module.elf.section(section).is_some());
        // A link may name anything, and we open it as root: followed only from the host's own files.
        let debug_syms = !is_go && (!is_linked || module.is_the_hosts());
        let source = Source::Elf(Elf { debug_syms, ..Elf::new(module.open_path()) });
        let svma = bare.address.wrapping_sub(module.load_bias);
        match self.blazesym.symbolize_single(&source, Input::VirtOffset(svma)).ok()? {
            Symbolized::Sym(symbol) => Some(frames_of(&symbol, bare)),
            Symbolized::Unknown(_) => None,
        }
    }
}

fn name_go(go: &GoCode<'_>, bare: &Frame) -> Vec<Frame> {
    let svma = bare.address.wrapping_sub(go.load_bias);
    let is_go = go.pclntab.lookup(svma).is_some_and(|function| function.frame_bytes(svma).is_some());
    if !is_go {
        return Vec::new(); // C++ that Go linked in: its mangled name is for blazesym
    }
    let frames = go.pclntab.frames_at(svma);
    frames
        .into_iter()
        .map(|frame| Frame {
            function: Some(frame.function.to_owned()),
            file: frame.file.map(str::to_owned),
            line: frame.line,
            inlined: frame.inlined,
            ..bare.clone()
        })
        .collect()
}

/// C++ that Go's own linker put into the program, which is how the race detector gets there: its functions are
/// in Go's table too, by their mangled names. A stripped program has no other.
fn name_linked(go: &GoCode<'_>, bare: &Frame) -> Option<Frame> {
    let function = go.pclntab.lookup(bare.address.wrapping_sub(go.load_bias))?;
    Some(Frame { function: Some(demangled(function.name())), ..bare.clone() })
}

/// The name as the source has it, or as it is: C is not mangled. A few hundred letters can stand for megabytes,
/// and take seconds: what is longer than people read stays as it is.
fn demangled(name: &str) -> String {
    let written = || {
        let symbol = cpp_demangle::Symbol::new(name).ok()?;
        let mut text = BoundedText(String::new());
        symbol.structured_demangle(&mut text, &DemangleOptions::default()).ok()?;
        Some(text.0)
    };
    let is_short = name.len() <= MAX_MANGLED_BYTES;
    is_short.then(written).flatten().unwrap_or_else(|| name.to_owned())
}

/// A C++ type as the source has it, from how its `type_info` names it: "N3net7SessionE".
pub fn type_name(mangled: &str) -> String {
    const DEMANGLED_PREFIX: &str = "typeinfo name for ";
    let name = demangled(&format!("_ZTS{mangled}"));
    name.strip_prefix(DEMANGLED_PREFIX).unwrap_or(mangled).to_owned()
}

/// Mangled names of the race detector have some 120 letters at most.
const MAX_MANGLED_BYTES: usize = 256;
const MAX_DEMANGLED_BYTES: usize = 4096;

/// Text that refuses to grow beyond [`MAX_DEMANGLED_BYTES`].
struct BoundedText(String);

impl fmt::Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_DEMANGLED_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// blazesym lists inlined functions outermost first; we list innermost first.
fn frames_of(symbol: &Sym<'_>, bare: &Frame) -> Vec<Frame> {
    let frame = |name: &str, code: Option<&CodeInfo<'_>>, inlined| Frame {
        function: Some(name.to_owned()),
        file: code.map(|code| code.to_path().to_string_lossy().into_owned()),
        line: code.and_then(|code| code.line),
        inlined,
        ..bare.clone()
    };
    let inlined =
        symbol.inlined.iter().rev().map(|inlined| frame(&inlined.name, inlined.code_info.as_ref(), true));
    inlined.chain([frame(&symbol.name, symbol.code_info.as_deref(), false)]).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn mangled_names_are_told_from_plain_ones() {
        assert_eq!(
            demangled("_ZN11__sanitizer13internal_mmapEPvmiiiy"),
            "__sanitizer::internal_mmap(void*, unsigned long, int, int, int, unsigned long long)"
        );
        assert_eq!(demangled("__tsan_read"), "__tsan_read");
        assert_eq!(demangled("_Z"), "_Z");
    }

    #[test]
    fn types_are_named_as_the_source_has_them() {
        assert_eq!(type_name("3Foo"), "Foo");
        assert_eq!(type_name("N3net7SessionE"), "net::Session");
        assert_eq!(type_name("N12_GLOBAL__N_15LocalE"), "(anonymous namespace)::Local");
        assert_eq!(type_name("Z4mainE5Local"), "main::Local");
        assert_eq!(
            type_name("St23_Sp_counted_ptr_inplaceI3FooSaIvELN9__gnu_cxx12_Lock_policyE2EE"),
            "std::_Sp_counted_ptr_inplace<Foo, std::allocator<void>, (__gnu_cxx::_Lock_policy)2>"
        );
        assert_eq!(type_name("is no name"), "is no name");
    }

    #[test]
    fn a_name_that_unfolds_without_end_stays_as_it_is() {
        let name = format!("_Z1f{}", "St4pairIT_S0_E".repeat(300));
        assert_eq!(demangled(&name), name, "too long to begin with");
        let mut text = BoundedText("x".repeat(MAX_DEMANGLED_BYTES - 1));
        assert!(text.write_str("y").is_ok() && text.write_str("z").is_err());
        let doubled = (0..16).fold("_Z1fSt4pairIiiE".to_owned(), |name, index| {
            let last = if index == 0 { "S0_".to_owned() } else { format!("S{index}_") };
            format!("{name}S_I{last}{last}E")
        });
        let shown = demangled(&doubled);
        assert!(shown.len() <= MAX_DEMANGLED_BYTES, "{} letters of {doubled}", shown.len());
    }
}
