//! Where fields lie, as a Go program's own debug information says.
//!
//! Go's linker puts the types of the whole program into a unit called `runtime`. Units before it are passed over while
//! the section is decompressed, nothing of them is kept, and reading ends with the last type that is wanted. Refuses
//! 64-bit DWARF, split DWARF and strings outside of the section: no Go linker writes them; and more units, bytes or
//! attributes than any program has, in sum, since the file may be made to cost time. Read are Go's versions 4 and 5
//! (since Go 1.25), compressed or not. The surprise: there are several units of that name, one for each of its assembly
//! files, so one is kept only if it has a wanted type.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugInfoOffset, EndianSlice,
    EntriesRaw, LittleEndian, Reader as _, UnitHeader, UnitOffset, constants,
};

use super::fields::{Places, type_name};
use crate::target::elf::ElfFile;

/// What is decompressed in search of the unit: Go programs of 100 MB have some 60 MiB.
const MAX_INFO_BYTES: u64 = 1 << 30;
/// The units called `runtime`, all together.
const MAX_RUNTIME_BYTES: usize = 64 << 20;
/// Units that are passed over or read: one for each package, and for each file in C or assembly.
const MAX_UNITS: usize = 1 << 16;
/// Go has one table of abbreviations for all units, of some 4 KiB; C compilers one for each.
const MAX_ABBREVIATIONS_BYTES: u64 = 16 << 20;
/// One of these tables.
const MAX_TABLE_BYTES: usize = 256 << 10;
/// Tables that are read as a whole: those of units called `runtime`, which is one.
const MAX_TABLES: usize = 16;
/// How much of a table is read to learn a unit's name, and how many declarations: that of the unit comes first.
const TABLE_START_BYTES: usize = 256;
const TABLE_START_DECLARATIONS: usize = 4;
/// Of an entry; Go has less than 10.
const MAX_ATTRIBUTES: usize = 64;
/// Of all entries that are passed over or read.
const MAX_ALL_ATTRIBUTES: usize = 1 << 26;
/// How much of a unit is read to learn its name, which Go puts first.
const UNIT_START_BYTES: usize = 256;
/// Of a structure.
const MAX_MEMBERS: usize = 1024;
/// From a name of a type to the type.
const MAX_ALIASES: usize = 4;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// The wanted types of package `runtime`.
pub struct Types {
    /// Those with a wanted type, ascending.
    units: Vec<Unit>,
    structures: BTreeMap<String, Structure>,
    /// How many more attributes may be read.
    attributes_left: usize,
}

/// A unit of package `runtime`.
struct Unit {
    /// Where it starts in the section.
    start_offset: usize,
    bytes: Vec<u8>,
    abbreviations: Rc<Abbreviations>,
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
        let mut types =
            Self { units: Vec::new(), structures: BTreeMap::new(), attributes_left: MAX_ALL_ATTRIBUTES };
        let mut tables = Tables::new(abbreviations);
        let (mut start_offset, mut units, mut runtime_bytes) = (0_usize, 0, 0_usize);
        while !wanted.is_empty() && !info.fill_buf()?.is_empty() {
            let mut bytes = unit_start(&mut info)?;
            let len_bytes = unit_len_bytes(&bytes)?;
            let left_bytes = len_bytes.saturating_sub(bytes.len());
            units += 1;
            ensure!(units <= MAX_UNITS, "more than {MAX_UNITS} units");
            if let Some(table_offset) = runtime_table(&bytes, len_bytes, abbreviations) {
                runtime_bytes = runtime_bytes.saturating_add(len_bytes);
                ensure!(runtime_bytes <= MAX_RUNTIME_BYTES, "a package runtime of {runtime_bytes} bytes");
                info.by_ref().take(left_bytes as u64).read_to_end(&mut bytes)?;
                let abbreviations = tables.at(table_offset)?;
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
            let left = self.attributes_left.checked_sub(abbreviation.attributes().len());
            self.attributes_left = left.context("more attributes than a program has")?;
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
        let mut has_wanted = false;
        for (name, offset) in offsets {
            self.structures.insert(name, unit.structure(offset)?);
            has_wanted = true;
        }
        if has_wanted {
            self.units.push(unit);
        }
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
        ensure!(specifications.len() <= MAX_ATTRIBUTES, "an entry of {} attributes", specifications.len());
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

/// Where the abbreviations are of the unit of `len_bytes` that starts with `start`, if it is of package `runtime`.
fn runtime_table(start: &[u8], len_bytes: usize, abbreviations: &[u8]) -> Option<usize> {
    // The header wants a whole unit.
    let mut bytes = start.to_vec();
    bytes.truncate(len_bytes);
    let start_bytes = u32::try_from(bytes.len().checked_sub(4)?).ok()?;
    bytes.get_mut(..4)?.copy_from_slice(&start_bytes.to_le_bytes());
    let header = DebugInfo::new(&bytes, LittleEndian).header_from_offset(DebugInfoOffset(0)).ok()?;
    let DebugAbbrevOffset(table_offset) = header.debug_abbrev_offset();
    let table = table_start(abbreviations.get(table_offset..)?);
    let abbreviations = DebugAbbrev::new(&table, LittleEndian).abbreviations(DebugAbbrevOffset(0)).ok()?;
    let mut entries = header.entries_raw(&abbreviations, None).ok()?;
    let root = entries.read_abbreviation().ok()??;
    for &specification in root.attributes() {
        let attribute = entries.read_attribute(specification).ok()?;
        if attribute.name() == constants::DW_AT_name {
            return (inline_string(&attribute.value()) == Some("runtime")).then_some(table_offset);
        }
    }
    None
}

/// The first declarations of a table of abbreviations, as a table of their own: to read the whole of it for each unit
/// would take the time of all units times all declarations.
fn table_start(table: &[u8]) -> Vec<u8> {
    let table = &table[..table.len().min(TABLE_START_BYTES)];
    let mut rest = EndianSlice::new(table, LittleEndian);
    let mut len_bytes = 0;
    for _ in 0..TABLE_START_DECLARATIONS {
        if skip_declaration(&mut rest).is_none() {
            break;
        }
        len_bytes = table.len() - rest.len();
    }
    [&table[..len_bytes], &[0]].concat()
}

/// `None` where the table ends.
fn skip_declaration(rest: &mut Slice<'_>) -> Option<()> {
    if rest.read_uleb128().ok()? == 0 {
        return None;
    }
    rest.read_uleb128().ok()?;
    rest.read_u8().ok()?;
    loop {
        let (name, form) = (rest.read_uleb128().ok()?, rest.read_uleb128().ok()?);
        if form == u64::from(constants::DW_FORM_implicit_const.0) {
            rest.read_sleb128().ok()?;
        }
        if (name, form) == (0, 0) {
            return Some(());
        }
    }
}

/// The tables of abbreviations, of which the last one read is kept.
struct Tables<'a> {
    section: &'a [u8],
    last: Option<(usize, Rc<Abbreviations>)>,
    read: usize,
}

impl<'a> Tables<'a> {
    fn new(section: &'a [u8]) -> Self {
        Self { section, last: None, read: 0 }
    }

    /// The table at `offset`.
    fn at(&mut self, offset: usize) -> Result<Rc<Abbreviations>> {
        if let Some((last_offset, table)) = &self.last
            && *last_offset == offset
        {
            return Ok(Rc::clone(table));
        }
        self.read += 1;
        ensure!(self.read <= MAX_TABLES, "more than {MAX_TABLES} tables of abbreviations");
        let bytes = self.section.get(offset..).context("no abbreviations")?;
        let bytes = &bytes[..bytes.len().min(MAX_TABLE_BYTES)];
        let table = DebugAbbrev::new(bytes, LittleEndian).abbreviations(DebugAbbrevOffset(0))?;
        let table = Rc::new(table);
        self.last = Some((offset, Rc::clone(&table)));
        Ok(table)
    }
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
