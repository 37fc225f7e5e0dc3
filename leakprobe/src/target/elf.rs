//! ELF files of the target: segments, sections and symbols, read piece by piece.
//!
//! Files are read, never mapped: somebody may truncate one while we look, and a mapping would then
//! kill us with SIGBUS.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use flate2::bufread::ZlibDecoder;
use object::read::StringTable;
use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, Sym as _};
use object::{
    CompressionFormat, Endianness, Object as _, ObjectSection as _, ReadCache, ReadRef as _, elf, pod,
};

use crate::address::AddrRange;

/// No section or string table of a real program is longer; a longer one is hostile or broken.
const MAX_SECTION_BYTES: u64 = 256 << 20;

/// How much of a section is read at a time where it is read in passing.
const STREAM_BUFFER_BYTES: usize = 64 << 10;

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address stated in the file.
    pub svma: u64,
    /// Bytes in memory; what exceeds `file_bytes` is .bss.
    pub memory_bytes: u64,
    /// Where its content starts in the file.
    pub file_offset: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Mapped executable.
    pub executable: bool,
    /// Mapped writable.
    pub writable: bool,
}

/// A section's place in memory and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Address stated in the file; 0 where it is not loaded.
    pub svma: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// An entry of `.symtab`, or of `.dynsym` where that is all there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// As in the file, mangled.
    pub name: String,
    /// Address stated in the file.
    pub svma: u64,
    /// Length in bytes, 0 where the file does not say.
    pub len_bytes: u64,
}

/// An open 64-bit little-endian ELF file.
pub struct ElfFile {
    file: Arc<File>,
    cache: ReadCache<Arc<File>>,
    segments: Vec<Segment>,
}

impl ElfFile {
    /// Reads the headers of `file`.
    ///
    /// # Errors
    /// Where the file cannot be read or is no 64-bit little-endian ELF file.
    pub fn parse(file: File) -> Result<Self> {
        let file = Arc::new(file);
        let cache = ReadCache::new(Arc::clone(&file));
        let header = elf::FileHeader64::<Endianness>::parse(&cache).context("read the ELF header")?;
        let endian = header.endian().context("read the ELF header's byte order")?;
        if endian != Endianness::Little {
            bail!("a big-endian ELF file");
        }
        let segments = header
            .program_headers(endian, &cache)
            .context("read the ELF program headers")?
            .iter()
            .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
            .map(|segment| Segment {
                svma: segment.p_vaddr(endian),
                memory_bytes: segment.p_memsz(endian),
                file_offset: segment.p_offset(endian),
                file_bytes: segment.p_filesz(endian),
                executable: segment.p_flags(endian) & elf::PF_X != elf::ProgramFlags::default(),
                writable: segment.p_flags(endian) & elf::PF_W != elf::ProgramFlags::default(),
            })
            .collect();
        Ok(Self { file, cache, segments })
    }

    /// The loadable segments, in the file's order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where the section called `name` lies; `None` where there is none.
    pub fn section(&self, name: &str) -> Option<Section> {
        let object = self.object().ok()?;
        let section = object.section_by_name(name)?;
        Some(Section { svma: section.address(), len_bytes: section.size() })
    }

    /// The content of the section called `name`; `None` where there is none.
    ///
    /// # Errors
    /// Where the section reaches past the end of the file or is absurdly long.
    pub fn section_data(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let object = self.object()?;
        let Some(section) = object.section_by_name(name) else { return Ok(None) };
        if section.size() > MAX_SECTION_BYTES {
            bail!("section {name} claims {} bytes", section.size());
        }
        let data = section.uncompressed_data().with_context(|| format!("read section {name}"))?;
        Ok(Some(data.into_owned()))
    }

    /// The content of the section called `name`, decompressed while it is read; `None` where there is none.
    /// Nothing of it is kept. `.debug_info` finds `.zdebug_info` too.
    ///
    /// # Errors
    /// Where the section is compressed in a way that is not known.
    pub fn section_stream(&self, name: &str) -> Result<Option<Box<dyn io::BufRead + '_>>> {
        let object = self.object()?;
        let old_name = name.replacen(".debug_", ".zdebug_", 1);
        let section = object.section_by_name(name).or_else(|| object.section_by_name(&old_name));
        let Some(section) = section else { return Ok(None) };
        let range = section.compressed_file_range().with_context(|| format!("read section {name}"))?;
        let stretch = Stretch { file: &self.file, offset: range.offset, left_bytes: range.compressed_size };
        let raw = io::BufReader::with_capacity(STREAM_BUFFER_BYTES, stretch);
        match range.format {
            CompressionFormat::None => Ok(Some(Box::new(raw))),
            CompressionFormat::Zlib => {
                let inflated = ZlibDecoder::new(raw);
                Ok(Some(Box::new(io::BufReader::with_capacity(STREAM_BUFFER_BYTES, inflated))))
            }
            other => bail!("section {name} is compressed as {other:?}"),
        }
    }

    /// The bytes of the file at `range`.
    ///
    /// # Errors
    /// Where the range reaches past the end of the file.
    pub fn file_bytes(&self, range: Range<u64>) -> Result<&[u8]> {
        let len_bytes = range.end.saturating_sub(range.start);
        (&self.cache)
            .read_bytes_at(range.start, len_bytes)
            .map_err(|()| anyhow::anyhow!("file offsets {range:#x?} cannot be read"))
    }

    /// Fills `buf` with what the file has for the address `svma`, zero where it has nothing; says whether it has
    /// anything. Nothing of it is kept.
    pub fn read_at_svma(&self, svma: u64, buf: &mut [u8]) -> bool {
        buf.fill(0);
        let Some(wanted) = AddrRange::with_len(svma, buf.len() as u64) else { return false };
        let mut is_anything_there = false;
        for segment in &self.segments {
            let stated = AddrRange::with_len(segment.svma, segment.file_bytes);
            let Some(there) = stated.and_then(|range| range.intersection(&wanted)) else { continue };
            let file_offset = segment.file_offset.saturating_add(there.start_addr - segment.svma);
            let piece = &mut buf[(there.start_addr - svma) as usize..(there.end_addr - svma) as usize];
            match self.file.read_exact_at(piece, file_offset) {
                Ok(()) => is_anything_there = true,
                Err(_) => piece.fill(0),
            }
        }
        is_anything_there
    }

    /// Symbols that `wanted` picks by name; from `.symtab` where there is one, else from `.dynsym`.
    ///
    /// Both tables are read whole: name by name through the file would be a system call each.
    ///
    /// # Errors
    /// Where the symbol tables cannot be read.
    pub fn symbols(&self, wanted: impl FnMut(&str) -> bool) -> Result<Vec<Symbol>> {
        match self.has_symbol_table() {
            true => self.table_symbols(".symtab", ".strtab", wanted),
            false => self.exported(wanted),
        }
    }

    /// Symbols for the dynamic linker that `wanted` picks by name; stripping leaves them.
    ///
    /// # Errors
    /// Where the symbol table cannot be read.
    pub fn exported(&self, wanted: impl FnMut(&str) -> bool) -> Result<Vec<Symbol>> {
        self.table_symbols(".dynsym", ".dynstr", wanted)
    }

    fn table_symbols(
        &self,
        table: &str,
        names: &str,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<Symbol>> {
        let (Some(table), Some(names)) = (self.section_data(table)?, self.section_data(names)?) else {
            return Ok(Vec::new());
        };
        let endian = Endianness::Little;
        let count = table.len() / size_of::<elf::Sym64<Endianness>>();
        let entries = pod::slice_from_bytes::<elf::Sym64<Endianness>>(&table, count);
        let (entries, _) = entries.map_err(|()| anyhow::anyhow!("the symbol table cannot be parsed"))?;
        let names = StringTable::new(names.as_slice(), 0, names.len() as u64);
        Ok(entries
            .iter()
            .filter(|entry| entry.st_shndx(endian) != elf::SHN_UNDEF)
            .filter_map(|entry| {
                let name = str::from_utf8(names.get(entry.st_name(endian)).ok()?).ok()?;
                wanted(name).then(|| Symbol {
                    name: name.to_owned(),
                    svma: entry.st_value(endian),
                    len_bytes: entry.st_size(endian),
                })
            })
            .collect())
    }

    /// Whether there is a `.symtab`: a stripped file has none.
    pub fn has_symbol_table(&self) -> bool {
        self.section(".symtab").is_some()
    }

    /// What is added to the file's addresses when its page at `file_offset` is mapped executable at
    /// `start_addr`. `None` where no executable segment holds that offset.
    pub fn load_bias(&self, start_addr: u64, file_offset: u64) -> Option<u64> {
        // Linkers let a page of the file belong to two segments; the caller's region is executable.
        let segment = self.segments.iter().filter(|segment| segment.executable).find(|segment| {
            let first_page_offset = segment.file_offset & !(crate::address::PAGE_BYTES - 1);
            let end_offset = segment.file_offset.saturating_add(segment.file_bytes);
            (first_page_offset..end_offset).contains(&file_offset)
        })?;
        let page_svma = segment.svma.wrapping_sub(segment.file_offset).wrapping_add(file_offset);
        Some(start_addr.wrapping_sub(page_svma))
    }

    /// From the first to the last page of the segments when the file is loaded with `load_bias`.
    pub fn span(&self, load_bias: u64) -> Option<AddrRange> {
        let start_svma = self.segments.iter().map(|segment| segment.svma).min()?;
        let end_svma =
            self.segments.iter().map(|segment| segment.svma.saturating_add(segment.memory_bytes)).max()?;
        let start_addr = load_bias.wrapping_add(start_svma);
        AddrRange::with_len(start_addr, end_svma.checked_sub(start_svma)?)?.touched_pages()
    }

    /// The addresses of the segments' .bss when the file is loaded with `load_bias`.
    pub fn bss_ranges(&self, load_bias: u64) -> Vec<AddrRange> {
        self.segments
            .iter()
            .filter(|segment| segment.memory_bytes > segment.file_bytes)
            .filter_map(|segment| {
                let start_addr = load_bias.wrapping_add(segment.svma).checked_add(segment.file_bytes)?;
                AddrRange::with_len(start_addr, segment.memory_bytes - segment.file_bytes)
            })
            .collect()
    }

    fn object(&self) -> Result<ElfFile64<'_, Endianness, &ReadCache<Arc<File>>>> {
        ElfFile64::parse(&self.cache).context("parse the ELF file")
    }
}

/// A part of a file, read once and not kept.
struct Stretch<'a> {
    file: &'a File,
    offset: u64,
    left_bytes: u64,
}

impl io::Read for Stretch<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buf.len());
        let read = self.file.read_at(&mut buf[..left], self.offset)?;
        self.offset = self.offset.saturating_add(read as u64);
        self.left_bytes -= read as u64;
        Ok(read)
    }
}
