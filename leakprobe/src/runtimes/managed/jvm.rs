//! HotSpot: the Java heap, and what the virtual machine keeps for itself.
//!
//! `libjvm.so` exports a description of its own structures for debuggers (`vmStructs.hpp`, JDK 8 to 24):
//! type, field, offset, and addresses of static fields. The heap's reserved range is read through it, so no
//! version needs to be known. What else of anonymous memory nobody owns is the virtual machine's: metaspace,
//! generated code, card tables and mark bitmaps; what it takes from malloc is malloc's.

use super::{Reader, claim};
use crate::address::AddrRange;
use crate::claim::{Component, Evidence, Findings, Gap};

/// Fields described by one table.
const MAX_ENTRIES: u64 = 1 << 14;
/// Bytes of a name that is compared.
const NAME_BYTES: usize = 48;
/// No Java heap is larger.
const MAX_HEAP_BYTES: u64 = 1 << 46;

/// What is exported: the table, and how its entries are laid out.
const EXPORTS: [&str; 7] = [
    "gHotSpotVMStructs",
    "gHotSpotVMStructEntryTypeNameOffset",
    "gHotSpotVMStructEntryFieldNameOffset",
    "gHotSpotVMStructEntryIsStaticOffset",
    "gHotSpotVMStructEntryOffsetOffset",
    "gHotSpotVMStructEntryAddressOffset",
    "gHotSpotVMStructEntryArrayStride",
];

pub fn claims(reader: &Reader<'_>) -> Findings {
    let mut findings = Findings::default();
    let Some(exports) = reader.exporter(EXPORTS) else { return findings };
    let own =
        reader.free.ranges().iter().map(|range| claim(*range, Component::JvmRuntime, Evidence::Neighbour));
    findings.claims.extend(own);
    let code = reader.regions.iter().filter(|region| region.executable && region.is_private_anonymous());
    let code = code.filter(|region| !region.is_kernel_special());
    findings
        .claims
        .extend(code.map(|region| claim(region.range, Component::JvmRuntime, Evidence::Neighbour)));
    match heap(reader, exports) {
        Some(heap) => findings.claims.push(claim(heap, Component::JvmHeap, Evidence::Structure)),
        None => findings.gaps.push(Gap {
            what: "the Java heap".to_owned(),
            why: "its collector does not describe it as one range; it counts as the JVM's own".to_owned(),
            bytes: None,
        }),
    }
    findings
}

/// `Universe::_collectedHeap->_reserved`, a `MemRegion` of start and length in words.
fn heap(reader: &Reader<'_>, exports: [u64; EXPORTS.len()]) -> Option<AddrRange> {
    let table = Table::read(reader, exports)?;
    let heap_addr = table.word(table.find("Universe", "_collectedHeap")?.static_addr?)?;
    let region_addr = heap_addr.checked_add(table.find("CollectedHeap", "_reserved")?.offset)?;
    let start = region_addr.checked_add(table.find("MemRegion", "_start")?.offset)?;
    let words = region_addr.checked_add(table.find("MemRegion", "_word_size")?.offset)?;
    let len_bytes = table.word(words)?.checked_mul(8)?;
    AddrRange::with_len(table.word(start)?, len_bytes).filter(|range| range.len_bytes() <= MAX_HEAP_BYTES)
}

/// Where a field is.
struct Field {
    offset: u64,
    /// `None` of a field that is not static.
    static_addr: Option<u64>,
}

struct Table<'a> {
    reader: &'a Reader<'a>,
    addr: u64,
    type_name_offset: u64,
    field_name_offset: u64,
    is_static_offset: u64,
    offset_offset: u64,
    address_offset: u64,
    stride_bytes: u64,
}

impl<'a> Table<'a> {
    /// Every export is a word that holds what its name says.
    fn read(reader: &'a Reader<'a>, exports: [u64; EXPORTS.len()]) -> Option<Self> {
        let mut values = [0; EXPORTS.len()];
        for (value, addr) in values.iter_mut().zip(exports) {
            *value = reader.memory.read_u64(addr).ok()?;
        }
        let [
            addr,
            type_name_offset,
            field_name_offset,
            is_static_offset,
            offset_offset,
            address_offset,
            stride_bytes,
        ] = values;
        let offsets = [type_name_offset, field_name_offset, is_static_offset, offset_offset, address_offset];
        let is_sane =
            (8..=256).contains(&stride_bytes) && offsets.iter().all(|offset| *offset < stride_bytes);
        is_sane.then_some(Self {
            reader,
            addr,
            type_name_offset,
            field_name_offset,
            is_static_offset,
            offset_offset,
            address_offset,
            stride_bytes,
        })
    }

    fn find(&self, type_name: &str, field_name: &str) -> Option<Field> {
        for index in 0..MAX_ENTRIES {
            let entry_addr = self.addr.checked_add(index * self.stride_bytes)?;
            let field = |offset: u64| self.word(entry_addr.checked_add(offset)?);
            let type_addr = field(self.type_name_offset)?;
            if type_addr == 0 {
                return None;
            }
            if !self.is_named(field(self.field_name_offset)?, field_name)
                || !self.is_named(type_addr, type_name)
            {
                continue;
            }
            let is_static =
                self.reader.memory.read_u32(entry_addr.checked_add(self.is_static_offset)?).ok()? != 0;
            let static_addr = if is_static { Some(field(self.address_offset)?) } else { None };
            return Some(Field { offset: field(self.offset_offset)?, static_addr });
        }
        None
    }

    fn word(&self, addr: u64) -> Option<u64> {
        self.reader.memory.read_u64(addr).ok()
    }

    /// Whether the text at `addr` is `name` and a zero.
    fn is_named(&self, addr: u64, name: &str) -> bool {
        let mut bytes = [0; NAME_BYTES];
        let Some(bytes) = bytes.get_mut(..=name.len()) else { return false };
        let is_read = self.reader.memory.read_exact(addr, bytes).is_ok();
        is_read && bytes.strip_suffix(&[0]).is_some_and(|text| text == name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::malloc::anonymous::AnonymousMemory;
    use crate::target::memory::canned::Pieces;

    const TABLE_ADDR: u64 = 0x7f10_0000_0000;
    const NAMES_ADDR: u64 = 0x7f20_0000_0000;
    const WORDS_ADDR: u64 = 0x7f30_0000_0000;
    const HEAP_ADDR: u64 = 0x7f40_0000_0000;

    /// Type, field, whether static, offset or address; as many as HotSpot would describe before ours.
    const FIELDS: [(&str, &str, u64, u64); 4] = [
        ("MemRegion", "_start", 0, 8),
        ("MemRegion", "_word_size", 0, 16),
        ("Universe", "_collectedHeap", 1, WORDS_ADDR + 64),
        ("CollectedHeap", "_reserved", 0, 32),
    ];

    fn canned(stride_bytes: u64) -> Pieces {
        let mut names = Vec::new();
        let mut table = Vec::new();
        let mut name_at = |text: &str| {
            let addr = NAMES_ADDR + names.len() as u64;
            names.extend(text.bytes().chain([0]));
            names.extend([0xff; 64]);
            addr
        };
        for (type_name, field_name, is_static, place) in FIELDS {
            let (offset, addr) = if is_static == 1 { (0, place) } else { (place, 0) };
            for word in [name_at(type_name), name_at(field_name), 0, is_static, offset, addr] {
                table.extend(word.to_le_bytes());
            }
        }
        table.extend([0; 48]);
        let words = [TABLE_ADDR, 0, 8, 24, 32, 40, stride_bytes, 0, HEAP_ADDR];
        let heap = [0, 0, 0, 0, 0xff, 0x8000_0000, (64 << 20) / 8];
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Pieces(vec![
            (TABLE_ADDR, table),
            (NAMES_ADDR, names),
            (WORDS_ADDR, bytes(&words)),
            (HEAP_ADDR, bytes(&heap)),
        ])
    }

    fn found(memory: &Pieces) -> Option<AddrRange> {
        let free = AnonymousMemory::default();
        let reader = Reader { memory, modules: &[], regions: &[], free, runs: &[] };
        heap(&reader, std::array::from_fn(|index| WORDS_ADDR + 8 * index as u64))
    }

    #[test]
    fn the_machine_describes_its_heap() {
        assert_eq!(found(&canned(48)), AddrRange::with_len(0x8000_0000, 64 << 20));
    }

    #[test]
    fn a_table_that_is_none_finds_nothing() {
        assert_eq!(found(&canned(0)), None);
        assert_eq!(found(&canned(40)), None);
        assert_eq!(found(&Pieces::default()), None);
    }
}
