//! Where the function table of a Go executable lies, where its text starts, and where its inline trees are.
//!
//! The table's own section is missing from many position-independent executables, so it is then found by
//! its header; the header alone proves nothing until Go's module data is found pointing back at it. Refuses
//! a table without module data: since Go 1.26 only that knows where the text starts.

use anyhow::{Result, bail};

use super::super::image::Image;
use super::{Header, Pclntab, u64_at};
use crate::address::AddrRange;
use crate::target::elf::ElfFile;

/// The section's name, and the one Go's own linker gives it in position-independent executables.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Bytes of funcdata kept: the inline trees of the largest programs take some 30 MiB.
const MAX_FUNCDATA_BYTES: u64 = 512 << 20;
/// A table larger than this no program has; those of the largest take some 150 MiB.
const MAX_TABLE_BYTES: u64 = 1 << 30;

/// Headers that are followed up: a real file has one, and each costs a search of all data.
const MAX_CANDIDATES: usize = 8;

/// Offsets in `runtime.moduledata`, the same from Go 1.18 to 1.27 (Go `src/runtime/symtab.go`).
mod moduledata {
    /// `pcHeader *pcHeader`.
    pub const PC_HEADER: u64 = 0;
    /// `funcnametab []byte`.
    pub const FUNCNAMETAB: u64 = 8;
    /// `pclntable []byte`, the last part of the table.
    pub const PCLNTABLE: u64 = 104;
    /// `text, etext uintptr`.
    pub const TEXT: u64 = 176;
    pub const ETEXT: u64 = 184;
}

/// Offset of `moduledata.gofunc`, to which funcdata offsets are relative. Go 1.20 put the coverage
/// counters in front of it, 1.27 the lengths of the type tables.
fn gofunc_offset(go_minor: Option<u32>) -> u64 {
    match go_minor {
        Some(..=19) => 304,
        Some(20..=26) => 320,
        Some(27..) | None => 344,
    }
}

/// Finds and checks the table of `elf`; `None` where there is none.
pub fn locate(elf: &ElfFile, go_minor: Option<u32>) -> Result<Option<Pclntab>> {
    let image = Image::new(elf)?;
    let candidates = candidates(elf, &image);
    if candidates.is_empty() {
        return Ok(None);
    }
    for (table_svma, header) in candidates {
        for module_svma in module_places(elf, &image, table_svma) {
            if let Some(module) = Module::read(&image, module_svma, table_svma, &header) {
                return module.table(elf, &image, table_svma, go_minor).map(Some);
            }
        }
    }
    bail!("the Go function table has no module data that points at it");
}

/// Addresses of what looks like the table's header.
fn candidates(elf: &ElfFile, image: &Image) -> Vec<(u64, Header)> {
    let at = |svma: u64| Some((svma, Header::parse(image.bytes_at(svma, Header::LEN_BYTES)?)?));
    let section = SECTIONS.iter().find_map(|name| at(elf.section(name)?.svma));
    if let Some(candidate) = section {
        return vec![candidate];
    }
    let data = image.aligned_data(|segment| !segment.executable);
    let headers = data.into_iter().flat_map(|(start_svma, data)| {
        let places = (0_u64..).step_by(8).zip((0..data.len()).step_by(8));
        places.filter_map(move |(offset, index)| {
            Some((start_svma.wrapping_add(offset), Header::parse(&data[index..])?))
        })
    });
    headers.take(MAX_CANDIDATES).collect()
}

/// Where the module data may be: its section (since Go 1.26), or whatever points at the table.
fn module_places(elf: &ElfFile, image: &Image, table_svma: u64) -> Vec<u64> {
    match elf.section(".go.module") {
        Some(section) => vec![section.svma],
        None => image.places_of(table_svma),
    }
}

/// What `runtime.firstmoduledata` says.
struct Module {
    svma: u64,
    text_svma: AddrRange,
    table_end_svma: u64,
}

impl Module {
    /// Reads the module data at `svma`; `None` where it does not point back at the table.
    fn read(image: &Image, svma: u64, table_svma: u64, header: &Header) -> Option<Self> {
        let field = |offset: u64| image.word(svma.checked_add(offset)?);
        let names_svma = table_svma.checked_add(u64::try_from(header.names_offset).ok()?)?;
        let points_back =
            field(moduledata::PC_HEADER)? == table_svma && field(moduledata::FUNCNAMETAB)? == names_svma;
        let text_svma = AddrRange::new(field(moduledata::TEXT)?, field(moduledata::ETEXT)?)?;
        let pclntable_svma = field(moduledata::PCLNTABLE)?;
        let table_end_svma = pclntable_svma.checked_add(field(moduledata::PCLNTABLE + 8)?)?;
        let sane = pclntable_svma > table_svma && table_end_svma - table_svma <= MAX_TABLE_BYTES;
        (points_back && sane).then_some(Self { svma, text_svma, table_end_svma })
    }

    fn table(self, elf: &ElfFile, image: &Image, table_svma: u64, go_minor: Option<u32>) -> Result<Pclntab> {
        let in_text = elf.segments().iter().any(|segment| {
            let memory = AddrRange::with_len(segment.svma, segment.memory_bytes);
            segment.executable && memory.is_some_and(|memory| memory.contains(self.text_svma.start_addr))
        });
        if !in_text {
            bail!("Go's module data places the text outside the executable segments");
        }
        let len_bytes = self.table_end_svma - table_svma;
        let table = image.bytes_at(table_svma, len_bytes).unwrap_or_default().to_vec();
        if u64::try_from(table.len())? != len_bytes {
            bail!("the Go function table is cut short");
        }
        // Without funcdata functions keep their names and lines, and nothing is expanded.
        let funcdata = image
            .word(self.svma.saturating_add(gofunc_offset(go_minor)))
            .and_then(|gofunc_svma| image.bytes_at(gofunc_svma, MAX_FUNCDATA_BYTES))
            .unwrap_or_default();
        Pclntab::from_bytes(table, self.text_svma, funcdata.to_vec())
    }
}

impl Header {
    /// Reads the header at the start of `data` (Go `src/runtime/symtab.go`, `pcHeader`); `None` where
    /// there is none, or one of a version or byte order not read here.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let first: &[u8; 8] = data.first_chunk()?;
        // The magic number, two zeros, the instruction quantum and the pointer size.
        let (has_start_line, quantum_bytes) = match first {
            [0xf0, 0xff, 0xff, 0xff, 0, 0, quantum @ (1 | 4), 8] => (false, *quantum),
            [0xf1, 0xff, 0xff, 0xff, 0, 0, quantum @ (1 | 4), 8] => (true, *quantum),
            _ => return None,
        };
        let field = |offset: usize| usize::try_from(u64_at(data, offset)?).ok();
        let header = Self {
            has_start_line,
            quantum_bytes: u32::from(quantum_bytes),
            functions: field(8)?,
            names_offset: field(32)?,
            units_offset: field(40)?,
            files_offset: field(48)?,
            values_offset: field(56)?,
            functions_offset: field(64)?,
        };
        let offsets = [
            usize::try_from(Self::LEN_BYTES).ok()?,
            header.names_offset,
            header.units_offset,
            header.files_offset,
            header.values_offset,
            header.functions_offset,
        ];
        let plausible = header.functions > 0 && offsets.is_sorted();
        plausible.then_some(header)
    }
}
