//! Where fields lie, as a Go program's own debug information says.
//!
//! Go's linker puts the types of the whole program into a unit called `runtime`. Units before it are passed over while
//! the section is decompressed, nothing of them is kept, and reading ends with the last type that is wanted. Refuses
//! 64-bit DWARF, split DWARF and strings outside of the section: no Go linker writes them. Read are Go's versions 4 and
//! 5 (since Go 1.25), compressed or not. The surprise: there are several units of that name, one for each of its
//! assembly files.

use std::collections::BTreeMap;
use std::io::{self, Read as _};

use anyhow::{Context as _, Result, bail};
use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, DebugInfoOffset, EndianSlice, EntriesRaw,
    LittleEndian, UnitHeader, UnitOffset, constants,
};

use super::fields::{Places, type_name};
use crate::target::elf::ElfFile;

/// What is decompressed in search of the unit: Go programs of 100 MB have some 60 MiB.
const MAX_INFO_BYTES: u64 = 1 << 30;
/// The unit itself.
const MAX_UNIT_BYTES: usize = 256 << 20;
/// Go has one table of abbreviations for all units, of some 4 KiB; C compilers one for each.
const MAX_ABBREVIATIONS_BYTES: u64 = 16 << 20;
/// How much of a unit is read to learn its name, which Go puts first.
const UNIT_START_BYTES: usize = 256;
/// Of a structure.
const MAX_MEMBERS: usize = 1024;
/// From a name of a type to the type.
const MAX_ALIASES: usize = 4;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The wanted types of package `runtime`.
pub struct Types {
    units: Vec<Unit>,
    structures: BTreeMap<String, Structure>,
}

/// A unit of package `runtime`.
struct Unit {
    /// Where it starts in the section.
    start_offset: usize,
    bytes: Vec<u8>,
    abbreviations: Abbreviations,
}

#[derive(Clone, Debug, Default)]
struct Structure {
    size_bytes: Option<u64>,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    offset: u64,
    /// Where its type is in the section.
    type_offset: usize,
}

impl Types {
    /// Reads the types that `paths` start with; `None` where the program has no debug information.
    ///
    /// # Errors
    /// Where there is some that cannot be read, or package `runtime` is not in it.
    pub fn read(elf: &ElfFile, paths: &[&str]) -> Result<Option<Self>> {
        let Some(info) = elf.section_stream(".debug_info")? else { return Ok(None) };
        let mut abbreviations = Vec::new();
        let stream =
            elf.section_stream(".debug_abbrev")?.context("debug information without abbreviations")?;
        stream.take(MAX_ABBREVIATIONS_BYTES).read_to_end(&mut abbreviations).context("read .debug_abbrev")?;
        let wanted = paths.iter().flat_map(|path| path.split(" | ")).map(type_name).collect();
        let types =
            Self::scan(info.take(MAX_INFO_BYTES), &abbreviations, wanted).context("read .debug_info")?;
        if types.structures.is_empty() {
            bail!("the debug information does not have package runtime");
        }
        Ok(Some(types))
    }

    fn scan(mut info: impl io::BufRead, abbreviations: &[u8], mut wanted: Vec<&str>) -> Result<Self> {
        wanted.sort_unstable();
        wanted.dedup();
        let mut types = Self { units: Vec::new(), structures: BTreeMap::new() };
        let mut start_offset = 0;
        while !wanted.is_empty() && !info.fill_buf()?.is_empty() {
            let mut bytes = unit_start(&mut info)?;
            let len_bytes = unit_len_bytes(&bytes)?;
            let left_bytes = len_bytes.saturating_sub(bytes.len());
            if let Some(abbreviations) = runtime_abbreviations(&bytes, len_bytes, abbreviations) {
                if len_bytes > MAX_UNIT_BYTES {
                    bail!("a unit of {len_bytes} bytes");
                }
                info.by_ref().take(left_bytes as u64).read_to_end(&mut bytes)?;
                types.add(Unit { start_offset, bytes, abbreviations }, &mut wanted)?;
            } else {
                skip(&mut info, left_bytes)?;
            }
            start_offset = start_offset.checked_add(len_bytes).context("a section without end")?;
        }
        Ok(types)
    }

    /// Adds the wanted structures that `unit` defines, and takes them from the list.
    fn add(&mut self, unit: Unit, wanted: &mut Vec<&str>) -> Result<()> {
        let header = unit.header()?;
        let mut entries = header.entries_raw(&unit.abbreviations, None)?;
        let mut offsets = Vec::new();
        while !entries.is_empty() && !wanted.is_empty() {
            let (offset, depth) = (entries.next_offset(), entries.next_depth());
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            if depth != 1 || abbreviation.tag() != constants::DW_TAG_structure_type {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut name = None;
            for &specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(specification)?;
                if attribute.name() == constants::DW_AT_name {
                    name = inline_string(&attribute.value());
                }
            }
            let name = name.and_then(|name| name.strip_prefix("runtime."));
            if let Some(index) = wanted.iter().position(|wanted| Some(*wanted) == name) {
                offsets.push((wanted.swap_remove(index).to_owned(), offset));
            }
        }
        for (name, offset) in offsets {
            self.structures.insert(name, unit.structure(offset)?);
        }
        self.units.push(unit);
        Ok(())
    }

    /// The offset of the last of `members` in `type_name`, and that member's own size.
    fn find(&self, type_name: &str, members: &str) -> Option<(u64, Option<u64>)> {
        let mut structure = self.structures.get(type_name)?.clone();
        let mut offset = 0_u64;
        for name in members.split('.').filter(|name| !name.is_empty()) {
            let member = structure.members.iter().find(|member| member.name == name)?;
            offset = offset.checked_add(member.offset)?;
            structure = self.type_at(member.type_offset)?;
        }
        Some((offset, structure.size_bytes))
    }

    fn type_at(&self, type_offset: usize) -> Option<Structure> {
        let after = self.units.partition_point(|unit| unit.start_offset <= type_offset);
        let unit = self.units.get(after.checked_sub(1)?)?;
        unit.structure(UnitOffset(type_offset - unit.start_offset)).ok()
    }
}

impl Places for Types {
    fn place(&self, path: &str) -> Option<u32> {
        path.split(" | ").find_map(|path| {
            let sized = path.strip_prefix("sizeof(").and_then(|rest| rest.strip_suffix(')'));
            let inner = sized.unwrap_or(path);
            let (type_name, members) = inner.split_once('.').unwrap_or((inner, ""));
            let (offset, size_bytes) = self.find(type_name, members)?;
            u32::try_from(if sized.is_some() { size_bytes? } else { offset }).ok()
        })
    }
}

impl Unit {
    fn header(&self) -> Result<UnitHeader<Slice<'_>>> {
        let info = DebugInfo::new(&self.bytes, LittleEndian);
        Ok(info.header_from_offset(DebugInfoOffset(0))?)
    }

    /// The structure at `offset`, or what it is another name for; any other type has a size and no members.
    fn structure(&self, mut offset: UnitOffset) -> Result<Structure> {
        let header = self.header()?;
        for _ in 0..MAX_ALIASES {
            let mut entries = header.entries_raw(&self.abbreviations, Some(offset))?;
            let abbreviation = entries.read_abbreviation()?.context("a type that is none")?;
            let (tag, has_members) = (abbreviation.tag(), abbreviation.has_children());
            let entry = self.attributes(&mut entries, abbreviation.attributes())?;
            if tag == constants::DW_TAG_typedef {
                let aliased = entry.type_offset.and_then(|target| target.checked_sub(self.start_offset));
                offset = UnitOffset(aliased.context("a name without a type")?);
                continue;
            }
            let mut structure = Structure { size_bytes: entry.size_bytes, members: Vec::new() };
            if tag == constants::DW_TAG_structure_type && has_members {
                structure.members = self.members(&mut entries)?;
            }
            return Ok(structure);
        }
        bail!("names of types that run in circles");
    }

    fn members(&self, entries: &mut EntriesRaw<'_, Slice<'_>>) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        while let Some(abbreviation) = entries.read_abbreviation()? {
            if abbreviation.has_children() || members.len() > MAX_MEMBERS {
                bail!("a structure that Go would not have");
            }
            let entry = self.attributes(entries, abbreviation.attributes())?;
            if let (Some(name), Some(offset), Some(type_offset)) =
                (entry.name, entry.offset, entry.type_offset)
            {
                members.push(Member { name, offset, type_offset });
            }
        }
        Ok(members)
    }

    fn attributes(
        &self,
        entries: &mut EntriesRaw<'_, Slice<'_>>,
        specifications: &[gimli::AttributeSpecification],
    ) -> Result<Entry> {
        let mut entry = Entry::default();
        for &specification in specifications {
            let attribute = entries.read_attribute(specification)?;
            let value = attribute.value();
            match attribute.name() {
                constants::DW_AT_name => entry.name = inline_string(&value).map(str::to_owned),
                constants::DW_AT_byte_size => entry.size_bytes = value.udata_value(),
                constants::DW_AT_data_member_location => entry.offset = value.udata_value(),
                constants::DW_AT_type => {
                    entry.type_offset = match value {
                        AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => Some(offset),
                        AttributeValue::UnitRef(UnitOffset(offset)) => self.start_offset.checked_add(offset),
                        _ => None,
                    };
                }
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// What is of use of one entry.
#[derive(Default)]
struct Entry {
    name: Option<String>,
    size_bytes: Option<u64>,
    offset: Option<u64>,
    type_offset: Option<usize>,
}

/// The first bytes of the next unit, its length in front.
fn unit_start(info: &mut impl io::BufRead) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(UNIT_START_BYTES);
    info.by_ref().take(4).read_to_end(&mut bytes)?;
    let wanted_bytes = unit_len_bytes(&bytes)?.min(UNIT_START_BYTES) - 4;
    info.by_ref().take(wanted_bytes as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The length of a unit, that of its own length included.
fn unit_len_bytes(start: &[u8]) -> Result<usize> {
    let len_bytes = u32::from_le_bytes(*start.first_chunk().context("cut short")?);
    // The values above are for 64-bit DWARF.
    if len_bytes >= 0xffff_fff0 {
        bail!("a unit of 64-bit DWARF");
    }
    Ok(usize::try_from(len_bytes)? + 4)
}

fn skip(info: &mut impl io::BufRead, len_bytes: usize) -> Result<()> {
    io::copy(&mut info.by_ref().take(len_bytes as u64), &mut io::sink())?;
    Ok(())
}

/// How to read the unit of `len_bytes` that starts with `start`, if it is of package `runtime`.
fn runtime_abbreviations(start: &[u8], len_bytes: usize, abbreviations: &[u8]) -> Option<Abbreviations> {
    // The header wants a whole unit.
    let mut bytes = start.to_vec();
    bytes.truncate(len_bytes);
    let start_bytes = u32::try_from(bytes.len().checked_sub(4)?).ok()?;
    bytes.get_mut(..4)?.copy_from_slice(&start_bytes.to_le_bytes());
    let header = DebugInfo::new(&bytes, LittleEndian).header_from_offset(DebugInfoOffset(0)).ok()?;
    let table = DebugAbbrev::new(abbreviations, LittleEndian);
    let abbreviations = table.abbreviations(header.debug_abbrev_offset()).ok()?;
    let mut entries = header.entries_raw(&abbreviations, None).ok()?;
    let root = entries.read_abbreviation().ok()??;
    for &specification in root.attributes() {
        let attribute = entries.read_attribute(specification).ok()?;
        if attribute.name() == constants::DW_AT_name {
            return (inline_string(&attribute.value()) == Some("runtime")).then_some(abbreviations);
        }
    }
    None
}

/// A string that stands where it is used.
fn inline_string<'a>(value: &AttributeValue<Slice<'a>>) -> Option<&'a str> {
    match value {
        AttributeValue::String(text) => str::from_utf8(text.slice()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
