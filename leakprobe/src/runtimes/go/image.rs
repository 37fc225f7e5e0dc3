//! The data of an executable as the dynamic linker leaves it when nothing is moved: the file's bytes at
//! their stated addresses, with relative relocations applied.
//!
//! Refuses symbol relocations: none of the Go structures read here has one. The surprise: in a
//! position-independent executable the pointers of Go's module data are zero in the file and exist
//! only as addends in the relocation table.

use anyhow::{Result, bail};

use crate::target::elf::{ElfFile, Segment};

/// `R_X86_64_RELATIVE` (System V ABI, AMD64 supplement) and `R_AARCH64_RELATIVE` (ELF for the Arm 64-bit
/// architecture). Only one of the two architectures is in a file, and the other's number is unused there.
const RELATIVE_TYPES: [u32; 2] = [8, 1027];
/// The system linker's name, and the one of Go's own linker.
const RELOCATION_SECTIONS: [&str; 2] = [".rela.dyn", ".rela"];
/// Length of an `Elf64_Rela`.
const RELOCATION_BYTES: usize = 24;
/// A relocation table longer than this is left out: those of the largest programs take some 30 MiB.
const MAX_RELOCATION_BYTES: u64 = 1 << 28;
/// What is searched of all segments together; a file that claims more is hostile.
const MAX_SEARCHED_BYTES: u64 = 1 << 30;
/// `e_machine` of AArch64, at offset 18 of every ELF file.
const EM_AARCH64: [u8; 2] = 183_u16.to_le_bytes();

/// The architectures whose Go runtime is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86_64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// What the file was built for: AArch64, or x86_64 for everything else.
    ///
    /// # Errors
    /// Where the header cannot be read.
    pub fn of(elf: &ElfFile) -> Result<Self> {
        Ok(if elf.file_bytes(18..20)? == EM_AARCH64 { Self::Arm64 } else { Self::Amd64 })
    }
}

/// The initialised data of an executable, by stated address.
pub struct Image<'a> {
    elf: &'a ElfFile,
    /// Where a relative relocation stores its addend, and the addend; sorted.
    relocations: Vec<(u64, u64)>,
}

impl<'a> Image<'a> {
    /// Reads the relocations of `elf`.
    ///
    /// # Errors
    /// Where the relocation table is stated to lie outside the file, or is absurdly long.
    pub fn new(elf: &'a ElfFile) -> Result<Self> {
        let mut relocations = Vec::new();
        for name in RELOCATION_SECTIONS {
            if elf.section(name).is_some_and(|section| section.len_bytes > MAX_RELOCATION_BYTES) {
                bail!("section {name} is too long to be read");
            }
            let table = elf.section_data(name)?.unwrap_or_default();
            relocations.extend(table.chunks_exact(RELOCATION_BYTES).filter_map(relative));
        }
        relocations.sort_unstable();
        Ok(Self { elf, relocations })
    }

    /// The file's bytes from `svma`: `max_bytes` of them, or fewer where the segment ends. Relocations are
    /// not applied.
    pub fn bytes_at(&self, svma: u64, max_bytes: u64) -> Option<&'a [u8]> {
        Self::file_bytes_at(self.elf, svma, max_bytes)
    }

    /// The same of an executable whose relocations do not matter: code has none.
    pub fn file_bytes_at(elf: &'a ElfFile, svma: u64, max_bytes: u64) -> Option<&'a [u8]> {
        let segment = elf.segments().iter().find(|segment| {
            svma.checked_sub(segment.svma).is_some_and(|offset| offset < segment.file_bytes)
        })?;
        let skipped_bytes = svma - segment.svma;
        let offset = segment.file_offset.checked_add(skipped_bytes)?;
        let len_bytes = max_bytes.min(segment.file_bytes - skipped_bytes);
        elf.file_bytes(offset..offset.checked_add(len_bytes)?).ok()
    }

    /// The 8-byte word at `svma`.
    pub fn word(&self, svma: u64) -> Option<u64> {
        if let Ok(index) = self.relocations.binary_search_by_key(&svma, |&(place_svma, _)| place_svma) {
            return Some(self.relocations[index].1);
        }
        self.bytes_at(svma, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The content of the segments that `wanted` picks, each from its first address that is a multiple of 8.
    pub fn aligned_data(&self, wanted: fn(&Segment) -> bool) -> Vec<(u64, &'a [u8])> {
        let mut left_bytes = MAX_SEARCHED_BYTES;
        let mut found = Vec::new();
        for segment in self.elf.segments().iter().filter(|segment| wanted(segment)) {
            let Some(svma) = segment.svma.checked_next_multiple_of(8) else { continue };
            if let Some(data) = self.bytes_at(svma, left_bytes) {
                left_bytes = left_bytes.saturating_sub(segment.file_bytes);
                found.push((svma, data));
            }
        }
        found
    }

    /// Addresses of the aligned words of writable data that hold `value`.
    pub fn places_of(&self, value: u64) -> Vec<u64> {
        let relocated = self.relocations.iter().filter(|&&(_, addend)| addend == value);
        let mut places: Vec<u64> = relocated.map(|&(place_svma, _)| place_svma).collect();
        for (start_svma, data) in self.aligned_data(|segment| segment.writable) {
            let words = (0_u64..).step_by(8).zip(data.as_chunks().0);
            let equal = words.filter(|(_, bytes)| **bytes == value.to_le_bytes());
            // A hostile segment may be stated to reach beyond the address space.
            places.extend(equal.map(|(offset, _)| start_svma.wrapping_add(offset)));
        }
        places
    }
}

/// Place and addend of an `Elf64_Rela`, where it is a relative relocation.
fn relative(entry: &[u8]) -> Option<(u64, u64)> {
    let place_svma = u64::from_le_bytes(*entry.first_chunk()?);
    let kind = u32::from_le_bytes(*entry.get(8..)?.first_chunk()?);
    let addend = u64::from_le_bytes(*entry.get(16..)?.first_chunk()?);
    RELATIVE_TYPES.contains(&kind).then_some((place_svma, addend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_relocated_data_reads_as_pointers() {
        // This test is position-independent: a table of references has its pointers in relocations only.
        static NAMES: [&str; 2] = ["first", "second"];
        let elf = ElfFile::parse(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        let image = Image::new(&elf).unwrap();
        let table_addr = NAMES.as_ptr() as u64;
        let name_addr = NAMES[0].as_ptr() as u64;
        let place = image.relocations.iter().find_map(|&(place_svma, addend)| {
            let bias = table_addr.wrapping_sub(place_svma);
            // Others may lie as far apart; few of them would put the program at a page's start.
            let is_ours = bias.is_multiple_of(4096) && addend.wrapping_add(bias) == name_addr;
            is_ours.then_some((place_svma, addend))
        });
        let (place_svma, addend) = place.unwrap();
        assert_eq!(image.word(place_svma), Some(addend));
        assert!(image.places_of(addend).contains(&place_svma));
        assert!(image.bytes_at(addend, 5).unwrap().starts_with(b"first"));
    }
}
