//! C++ objects told by their class: an object with virtual functions begins with a pointer to its class's vtable.
//!
//! A vtable proves itself. The word before it leads to the class's `type_info`, which is an object too, of a
//! class of the C++ runtime (`__cxxabiv1::__si_class_type_info` and its like), and leads to the class's name: no
//! symbol is needed, stripped files have all this. Code built with -fno-rtti has no `type_info`; there the symbol
//! `_ZTV…` says it, where there are symbols. Refuses pointers to the vtable of a base that is not the first one:
//! those do not stand at an object's beginning. The surprise: Rust keeps vtables beside its pointers and never in
//! objects, so there is nothing to tell its objects by.
//!
//! Layout: the Itanium C++ ABI, "Virtual Table Layout" and "Run-Time Type Information"; tried with gcc 12.

use std::collections::HashMap;

use crate::address::{AddrRange, PAGE_BYTES};
use crate::runtimes::malloc::anonymous::joined;
use crate::target::elf::Symbol;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// What precedes the functions of a vtable: how far up the object begins, and its `type_info`.
const PREFIX_BYTES: u64 = 16;
/// Classes of `type_info` itself, whose names begin so: of the namespace `__cxxabiv1`.
const ABI_CLASS: &str = "N10__cxxabiv1";
/// Names of templates are long.
const MAX_NAME_BYTES: usize = 1024;
/// Pages of modules kept while names are looked up: 8 MiB of them.
const MAX_PAGES: usize = 2048;

/// The addresses of modules, where vtables may lie.
#[derive(Debug, Default)]
pub struct VtablePlaces {
    /// Ascending, apart.
    ranges: Vec<AddrRange>,
}

impl VtablePlaces {
    /// Those of `modules`. All of each: a linker may have put read-only data beside code, and the dynamic linker
    /// a library's vtable into the program's .bss.
    pub fn of(modules: &[Module]) -> Self {
        Self::new(modules.iter().map(|module| module.span).collect())
    }

    fn new(spans: Vec<AddrRange>) -> Self {
        Self { ranges: joined(&spans) }
    }

    /// Whether a vtable could be there. Asked of every block: most first words are no addresses at all.
    #[inline]
    pub fn may_hold(&self, addr: u64) -> bool {
        if !addr.is_multiple_of(8) || addr < PAGE_BYTES {
            return false;
        }
        let after = self.ranges.partition_point(|range| range.start_addr <= addr);
        self.ranges[..after].last().is_some_and(|range| range.contains(addr))
    }
}

/// A class with virtual functions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// As `type_info` has it: "N3net7SessionE".
    pub mangled: String,
    /// The file whose vtable it is, as the target sees it.
    pub module: String,
}

/// Says which class a vtable is of.
pub struct Classes<'a> {
    places: &'a VtablePlaces,
    modules: &'a [Module],
    pages: Pages<'a>,
    /// Vtables of the classes of `type_info`, and others that were taken for one.
    kinds: HashMap<u64, bool>,
    /// The `_ZTV` symbols of the modules that were asked for them, by their index.
    symbols: HashMap<usize, Vec<Symbol>>,
}

impl<'a> Classes<'a> {
    /// Reads nothing yet.
    pub fn new(memory: &'a dyn Memory, modules: &'a [Module], places: &'a VtablePlaces) -> Self {
        let pages = Pages { memory, modules, kept: HashMap::new() };
        Self { places, modules, pages, kinds: HashMap::new(), symbols: HashMap::new() }
    }

    /// The class of an object that begins with the word `addr`; `None` where that is no vtable, or has no name.
    pub fn at(&mut self, addr: u64) -> Option<Class> {
        if !self.places.may_hold(addr) {
            return None;
        }
        let prefix_addr = addr.checked_sub(PREFIX_BYTES)?;
        let to_top = self.pages.word(prefix_addr)?;
        let type_info_addr = self.pages.word(prefix_addr + 8)?;
        if to_top != 0 {
            return None;
        }
        let mangled = match type_info_addr {
            0 => self.named_by_symbol(addr)?,
            _ => self.proven_name(type_info_addr)?,
        };
        let module = self.modules.iter().find(|module| module.span.contains(addr));
        Some(Class { mangled, module: module.map(|module| module.path.clone()).unwrap_or_default() })
    }

    /// The name in a `type_info` that is an object of one of the classes that are such.
    fn proven_name(&mut self, type_info_addr: u64) -> Option<String> {
        let name = self.name(type_info_addr)?;
        let kind_addr = self.pages.word(type_info_addr)?;
        let known = self.kinds.get(&kind_addr).copied();
        let is_kind = known.unwrap_or_else(|| {
            let is_kind = self.is_kind(kind_addr);
            self.kinds.insert(kind_addr, is_kind);
            is_kind
        });
        is_kind.then_some(name)
    }

    /// Whether the vtable at `addr` is that of a class of `type_info`.
    fn is_kind(&mut self, addr: u64) -> bool {
        let type_info_addr = addr.checked_sub(8).filter(|_| self.places.may_hold(addr));
        let type_info_addr = type_info_addr.and_then(|addr| self.pages.word(addr));
        let name = type_info_addr.and_then(|addr| self.name(addr));
        name.is_some_and(|name| name.starts_with(ABI_CLASS))
    }

    /// What the `type_info` at `addr` calls its class. Names that are not for the linker to compare begin with an
    /// asterisk.
    fn name(&mut self, addr: u64) -> Option<String> {
        if !self.places.may_hold(addr) {
            return None;
        }
        let name_addr = self.pages.word(addr.checked_add(8)?)?;
        let name = self.pages.text(name_addr)?;
        let name = name.strip_prefix('*').unwrap_or(&name);
        let is_sound = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.$".contains(&byte));
        is_sound.then(|| name.to_owned())
    }

    /// By the symbol of the vtable that `addr` lies in, behind its prefix.
    fn named_by_symbol(&mut self, addr: u64) -> Option<String> {
        const PREFIX: &str = "_ZTV";
        let index = self.modules.iter().position(|module| module.span.contains(addr))?;
        let module = &self.modules[index];
        let symbols = self.symbols.entry(index).or_insert_with(|| {
            let mut found = module.elf.symbols(|name| name.starts_with(PREFIX)).unwrap_or_default();
            found.sort_by_key(|symbol| symbol.svma);
            found
        });
        let svma = addr.wrapping_sub(module.load_bias);
        let before = symbols.partition_point(|symbol| symbol.svma < svma);
        let symbol = symbols[..before].last()?;
        let offset = svma - symbol.svma;
        let is_inside = (PREFIX_BYTES..symbol.len_bytes).contains(&offset);
        is_inside.then(|| symbol.name[PREFIX.len()..].to_owned())
    }
}

/// Pages of modules: as they are in memory, or, where they are not resident, as they are in the file. Reading such a
/// page would make it resident.
struct Pages<'a> {
    memory: &'a dyn Memory,
    modules: &'a [Module],
    kept: HashMap<u64, Option<Vec<u8>>>,
}

impl Pages<'_> {
    /// The page at `page_addr`; `None` where there is none.
    fn page(&mut self, page_addr: u64) -> Option<&[u8]> {
        if self.kept.len() >= MAX_PAGES {
            self.kept.clear();
        }
        let (memory, modules) = (self.memory, self.modules);
        let page = self.kept.entry(page_addr).or_insert_with(|| {
            let mut bytes = vec![0; PAGE_BYTES as usize];
            if memory.read_resident(page_addr, &mut bytes) {
                return Some(bytes);
            }
            let module = modules.iter().find(|module| module.span.contains(page_addr))?;
            let svma = page_addr.wrapping_sub(module.load_bias);
            module.elf.read_at_svma(svma, &mut bytes).then_some(bytes)
        });
        page.as_deref()
    }

    /// The word at `addr`, a multiple of 8.
    fn word(&mut self, addr: u64) -> Option<u64> {
        if !addr.is_multiple_of(8) {
            return None;
        }
        let offset = (addr % PAGE_BYTES) as usize;
        let bytes = self.page(addr - addr % PAGE_BYTES)?.get(offset..offset + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// The text at `addr`, to the zero byte that ends it.
    fn text(&mut self, addr: u64) -> Option<String> {
        let mut text = Vec::new();
        let mut addr = addr;
        while text.len() < MAX_NAME_BYTES {
            let offset = (addr % PAGE_BYTES) as usize;
            let rest = &self.page(addr - addr % PAGE_BYTES)?[offset..];
            if let Some(len) = rest.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&rest[..len]);
                return String::from_utf8(text).ok().filter(|text| text.len() <= MAX_NAME_BYTES);
            }
            text.extend_from_slice(rest);
            addr = addr.checked_add(rest.len() as u64)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::Noise;
    use crate::target::memory::canned::Pieces;

    const MODULE_ADDR: u64 = 0x5500_0000_0000;
    /// Of the class, and of the class of its `type_info`.
    const VTABLE_ADDR: u64 = MODULE_ADDR + 0x110;
    const KIND_ADDR: u64 = MODULE_ADDR + 0x210;
    const NAME_OFFSET: usize = 0xffa;

    fn places() -> VtablePlaces {
        VtablePlaces::new(vec![AddrRange::with_len(MODULE_ADDR, 0x2000).unwrap()])
    }

    /// Two pages of a module, with the class's name across them.
    fn module(name: &[u8], change: Option<(usize, u64)>) -> Pieces {
        let mut bytes = vec![0; 0x2000];
        let at = |offset: u64| MODULE_ADDR + offset;
        let words = [(0x108, at(0x300)), (0x110, at(0x8)), (0x208, at(0x320)), (0x210, at(0x8))];
        let infos = [(0x300, KIND_ADDR), (0x308, at(0xffa)), (0x320, KIND_ADDR), (0x328, at(0x400))];
        for (offset, word) in words.into_iter().chain(infos).chain(change) {
            bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
        let kind = b"N10__cxxabiv120__si_class_type_infoE\0";
        bytes[0x400..0x400 + kind.len()].copy_from_slice(kind);
        bytes[NAME_OFFSET..NAME_OFFSET + name.len()].copy_from_slice(name);
        let second = bytes.split_off(0x1000);
        Pieces(vec![(MODULE_ADDR, bytes), (MODULE_ADDR + 0x1000, second)])
    }

    fn class(memory: &dyn Memory, addr: u64) -> Option<String> {
        Classes::new(memory, &[], &places()).at(addr).map(|class| class.mangled)
    }

    #[test]
    fn a_vtable_leads_to_the_name_of_its_class() {
        let memory = module(b"*N3net7SessionE\0", None);
        assert_eq!(class(&memory, VTABLE_ADDR).as_deref(), Some("N3net7SessionE"));
        for addr in [VTABLE_ADDR + 8, VTABLE_ADDR - 8, VTABLE_ADDR + 4, MODULE_ADDR, MODULE_ADDR - 8, 0, !7] {
            assert_eq!(class(&memory, addr), None, "{addr:#x}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_vtable() {
        let sound = b"3Foo\0";
        for (what, offset, word) in [
            ("a base's vtable, inside the object", 0x100, 16_u64.wrapping_neg()),
            ("a type_info that is no object of such a class", 0x300, VTABLE_ADDR),
            ("a type_info without a class", 0x300, 0),
            ("a type_info outside all modules", 0x108, 0x7000_0000_0000),
            ("a name outside all memory", 0x308, 0x7000_0000_0000),
            ("no type_info, and no symbols", 0x108, 0),
        ] {
            assert_eq!(class(&module(sound, Some((offset, word))), VTABLE_ADDR), None, "{what}");
        }
        for name in [&b"\0"[..], b"*\0", b"3F\x1b[\0", b"3 Foo\0", b"\xff\xff\0"] {
            assert_eq!(class(&module(name, None), VTABLE_ADDR), None, "{name:?}");
        }
        let endless = [b'x'; 0x1000];
        assert_eq!(class(&module(&endless, None), VTABLE_ADDR), None, "a name without an end");
    }

    #[test]
    fn only_addresses_of_modules_may_hold_vtables() {
        let range = |start_addr, end_addr| AddrRange { start_addr, end_addr };
        let places =
            VtablePlaces::new(vec![range(0x9000, 0xa000), range(0x4000, 0x5000), range(0x4800, 0x6000)]);
        let found: Vec<u64> =
            (0..0x10).map(|page| page << 12).filter(|addr| places.may_hold(*addr)).collect();
        assert_eq!(found, [0x4000, 0x5000, 0x9000]);
        assert!(!places.may_hold(0x4004));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..6),
            offsets in prop::collection::vec(0u64..0x2000, 1..20),
        ) {
            let likely = [0, VTABLE_ADDR, KIND_ADDR, MODULE_ADDR + 0x1ff8, 0x4141_4141_4141_4141];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            let places = places();
            let mut classes = Classes::new(&memory, &[], &places);
            for offset in offsets {
                let found = classes.at(MODULE_ADDR + offset);
                prop_assert!(found.is_none_or(|class| class.mangled.len() <= MAX_NAME_BYTES));
            }
        }
    }
}
