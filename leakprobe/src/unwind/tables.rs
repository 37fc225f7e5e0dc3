//! The unwind tables of one file: `.eh_frame`, and where that says nothing, `.debug_frame`.
//!
//! Read when code of the file first turns up. A file may be made to keep us busy: entries that are longer than any
//! compiler makes are refused, and so are rules that need more room than there is.

use std::cell::OnceCell;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EhFrameHdr, EndianSlice,
    FrameDescriptionEntry, LittleEndian, ParsedEhFrameHdr, ReaderOffset, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindOffset, UnwindSection, UnwindTableRow,
};

use super::rule::FrameRule;
use crate::target::elf::ElfFile;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Instructions of one function, in bytes. The longest of libc, a switch of a thousand pushes apart, has 300.
const MAX_ENTRY_BYTES: usize = 64 << 10;
/// Functions of a file without an index. A browser has a million.
const MAX_ENTRIES: usize = 4 << 20;

/// Room for the rules of a frame that no table can exceed.
pub struct BoundedStorage;

impl<T: ReaderOffset> UnwindContextStorage<T> for BoundedStorage {
    type Rules = [(Register, RegisterRule<T>); 64];
    type Stack = Box<[UnwindTableRow<T, Self>; 8]>;
}

/// Working memory, kept from one look-up to the next.
pub type Context = Box<UnwindContext<usize, BoundedStorage>>;

/// The tables of one file.
#[derive(Default)]
pub struct Tables {
    sections: Sections,
    bases: BaseAddresses,
    /// Of `.eh_frame`, where the file has none of its own.
    eh_index: OnceCell<Vec<IndexEntry>>,
    debug_index: OnceCell<Vec<IndexEntry>>,
}

/// What is read of the file.
#[derive(Default)]
struct Sections {
    eh_frame: Vec<u8>,
    eh_frame_hdr: Vec<u8>,
    debug_frame: Vec<u8>,
}

/// Where a function starts, and where its entry is in the section.
type IndexEntry = (u64, usize);

impl Tables {
    /// Reads them; a file without any has empty ones.
    pub fn read(elf: &ElfFile) -> Self {
        let data = |name: &str| elf.section_data(name).ok().flatten().unwrap_or_default();
        let start = |name: &str| elf.section(name).map_or(0, |section| section.svma);
        let sections = Sections {
            eh_frame: data(".eh_frame"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            debug_frame: data(".debug_frame"),
        };
        let bases = BaseAddresses::default()
            .set_eh_frame(start(".eh_frame"))
            .set_eh_frame_hdr(start(".eh_frame_hdr"))
            .set_text(start(".text"))
            .set_got(start(".got"));
        Self::new(sections, bases)
    }

    #[cfg(test)]
    pub fn of_sections(eh_frame: Vec<u8>, eh_frame_hdr: Vec<u8>, debug_frame: Vec<u8>) -> Self {
        Self::new(Sections { eh_frame, eh_frame_hdr, debug_frame }, BaseAddresses::default().set_eh_frame(0))
    }

    fn new(sections: Sections, bases: BaseAddresses) -> Self {
        Self { sections, bases, eh_index: OnceCell::new(), debug_index: OnceCell::new() }
    }

    /// How the frame at `svma` is left; `None` where the tables do not say.
    pub fn rule(&self, svma: u64, context: &mut Context) -> Option<FrameRule> {
        self.eh_rule(svma, context).or_else(|| self.debug_rule(svma, context))
    }

    fn eh_rule(&self, svma: u64, context: &mut Context) -> Option<FrameRule> {
        let mut section = EhFrame::from(slice(&self.sections.eh_frame));
        section.set_address_size(8);
        if self.sections.eh_frame.is_empty() {
            return None;
        }
        let bytes = &self.sections.eh_frame;
        if let Some(offset) = self.indexed(svma) {
            return self.rule_at((&section, bytes), offset, svma, context);
        }
        let index = self.eh_index.get_or_init(|| self.index((&section, bytes)));
        self.rule_at((&section, bytes), entry_before(index, svma)?, svma, context)
    }

    fn debug_rule(&self, svma: u64, context: &mut Context) -> Option<FrameRule> {
        let mut section = DebugFrame::from(slice(&self.sections.debug_frame));
        section.set_address_size(8);
        let bytes = &self.sections.debug_frame;
        let index = self.debug_index.get_or_init(|| self.index((&section, bytes)));
        self.rule_at((&section, bytes), entry_before(index, svma)?, svma, context)
    }

    /// By the file's own index: the entry that may have `svma` inside.
    fn indexed(&self, svma: u64) -> Option<usize> {
        let header: ParsedEhFrameHdr<Slice<'_>> =
            EhFrameHdr::new(&self.sections.eh_frame_hdr, LittleEndian).parse(&self.bases, 8).ok()?;
        let pointer = header.table()?.lookup(svma, &self.bases).ok()?.direct().ok()?;
        let start = header.eh_frame_ptr().direct().ok()?;
        usize::try_from(pointer.checked_sub(start)?).ok()
    }

    fn index<'a, S: UnwindSection<Slice<'a>>>(&self, (section, bytes): (&S, &[u8])) -> Vec<IndexEntry> {
        let mut index = Vec::new();
        // Entries of one header follow each other, and headers are short: together they are not longer than the section.
        let mut last: Option<(S::Offset, CommonInformationEntry<Slice<'a>>)> = None;
        let mut left_bytes = bytes.len();
        let mut header = |section: &S, bases: &BaseAddresses, offset: S::Offset| {
            if let Some((_, header)) = last.as_ref().filter(|(known, _)| *known == offset) {
                return Ok(header.clone());
            }
            let header = bounded_header(section, bytes, bases, offset)?;
            let is_too_much = gimli::Error::NoEntryAtGivenOffset(header.offset() as u64);
            left_bytes = left_bytes.checked_sub(header.entry_len()).ok_or(is_too_much)?;
            last = Some((offset, header.clone()));
            Ok(header)
        };
        let mut entries = section.entries(&self.bases);
        for _ in 0..MAX_ENTRIES {
            match entries.next() {
                Ok(Some(CieOrFde::Cie(_))) => {}
                Ok(Some(CieOrFde::Fde(partial))) => {
                    if let Ok(entry) = partial.parse(&mut header) {
                        index.push((entry.initial_address(), entry.offset()));
                    }
                }
                _ => break,
            }
        }
        index.sort_unstable();
        index
    }

    fn rule_at<'a, S: UnwindSection<Slice<'a>>>(
        &self,
        (section, bytes): (&S, &[u8]),
        offset: usize,
        svma: u64,
        context: &mut Context,
    ) -> Option<FrameRule> {
        let entry: FrameDescriptionEntry<Slice<'a>> = section
            .fde_from_offset(&self.bases, S::Offset::from(offset), |section: &S, bases: &_, offset| {
                bounded_header(section, bytes, bases, offset)
            })
            .ok()?;
        if !entry.contains(svma) || entry.entry_len() > MAX_ENTRY_BYTES {
            return None;
        }
        let row = entry.unwind_info_for_address(section, &self.bases, context, svma).ok()?;
        FrameRule::of(section, row, entry.is_signal_trampoline())
    }
}

/// What entries have in common: their header, which is not even parsed where it is too long, since that alone goes
/// through all of it.
fn bounded_header<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    bytes: &[u8],
    bases: &BaseAddresses,
    offset: S::Offset,
) -> gimli::Result<CommonInformationEntry<Slice<'a>>> {
    let at: usize = UnwindOffset::into(offset);
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|word| u32::from_le_bytes(*word));
    // In the format of 64 bits the word is all ones: no compiler writes that for so short an entry.
    if word.is_none_or(|len_bytes| len_bytes as usize > MAX_ENTRY_BYTES) {
        return Err(gimli::Error::NoEntryAtGivenOffset(at as u64));
    }
    section.cie_from_offset(bases, offset)
}

fn slice(bytes: &[u8]) -> Slice<'_> {
    EndianSlice::new(bytes, LittleEndian)
}

fn entry_before(index: &[IndexEntry], svma: u64) -> Option<usize> {
    let after = index.partition_point(|(start_svma, _)| *start_svma <= svma);
    after.checked_sub(1).map(|last| index[last].1)
}
