//! The files whose code the target runs: each opened once, by the file itself and not by its path.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Target;
use super::elf::{ElfFile, Segment};
use super::maps::Region;
use super::vdso;
use crate::address::AddrRange;
use crate::claim::Gap;

/// No process maps more executable files than this; one that does gets the first ones symbolized.
const MAX_MODULES: usize = 4096;

/// Device (major, minor) and inode.
pub type FileId = ((u32, u32), u64);

/// An ELF file mapped into the target.
pub struct Module {
    /// The path as the target sees it, to show.
    pub path: String,
    /// Device and inode: what tells files apart.
    pub file_id: FileId,
    /// Its headers, sections and symbols.
    pub elf: ElfFile,
    /// What is added to its stated addresses in the process.
    pub load_bias: u64,
    /// From its first to its last mapped address.
    pub span: AddrRange,
    /// Whether this is the executable.
    pub is_exe: bool,
    file: File,
}

impl Module {
    /// A module that is not the executable.
    pub(super) fn new(
        path: String,
        file_id: FileId,
        elf: ElfFile,
        load_bias: u64,
        span: AddrRange,
        file: File,
    ) -> Self {
        Self { path, file_id, elf, load_bias, span, is_exe: false, file }
    }

    /// A path that leads to this very file for as long as the module lives, to open it again.
    pub fn open_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The same file, read independently of this one.
    ///
    /// # Errors
    /// Where there are no more file descriptors.
    pub fn open_again(&self) -> Result<ElfFile> {
        ElfFile::parse(self.file.try_clone().context("duplicate a file descriptor")?)
    }

    /// Where its executable segments are mapped.
    pub fn code_ranges(&self) -> Vec<AddrRange> {
        self.ranges(|segment| segment.executable)
    }

    /// Where its writable segments are mapped: its variables.
    pub fn data_ranges(&self) -> Vec<AddrRange> {
        self.ranges(|segment| segment.writable)
    }

    fn ranges(&self, is_meant: impl Fn(&Segment) -> bool) -> Vec<AddrRange> {
        let meant = self.elf.segments().iter().filter(|segment| is_meant(segment));
        meant
            .filter_map(|segment| {
                AddrRange::with_len(self.load_bias.wrapping_add(segment.svma), segment.memory_bytes)
            })
            .collect()
    }

    /// Whether one of its executable segments is mapped there.
    pub fn has_code_at(&self, addr: u64) -> bool {
        self.span.contains(addr) && self.code_ranges().iter().any(|range| range.contains(addr))
    }

    /// Whether it is the very file the host has under that path, and only the host's root could write it:
    /// not a container's, and not one that somebody prepared for us.
    pub fn is_the_hosts(&self) -> bool {
        let (Ok(ours), Ok(theirs)) = (std::fs::metadata(&self.path), self.file.metadata()) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
            && theirs.uid() == 0
            && theirs.mode() & 0o022 == 0
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// Opens every mapped file of which some part is executable, and the vdso. What cannot be opened is a gap.
pub fn open_all(target: &Target, regions: &[Region]) -> (Vec<Module>, Vec<Gap>) {
    let mut modules = Vec::new();
    let mut gaps = Vec::new();
    let mut seen = HashSet::new();
    for region in regions.iter().filter(|region| region.executable && region.inode != 0) {
        if modules.len() >= MAX_MODULES || !seen.insert((region.device, region.inode)) {
            continue;
        }
        match open(target, regions, region) {
            Ok(module) => modules.push(module),
            Err(error) => gaps.push(Gap {
                what: format!("symbols and headers of {}", region.name),
                why: format!("{error:#}"),
                bytes: None,
            }),
        }
    }
    modules.extend(vdso::read(target, regions));
    (modules, gaps)
}

fn open(target: &Target, regions: &[Region], region: &Region) -> Result<Module> {
    let file = target.open_mapped(region)?;
    let elf = ElfFile::parse(file.try_clone().context("duplicate a file descriptor")?)?;
    let load_bias = elf
        .load_bias(region.range.start_addr, region.file_offset)
        .with_context(|| format!("{} is mapped where no segment of it is", region.name))?;
    let same = |other: &&Region| (other.device, other.inode) == (region.device, region.inode);
    let start_addr = regions.iter().filter(same).map(|other| other.range.start_addr).min();
    let end_addr = regions.iter().filter(same).map(|other| other.range.end_addr).max();
    let mapped =
        AddrRange::new(start_addr.unwrap_or(0), end_addr.unwrap_or(0)).context("an empty mapping")?;
    // A program may map its own file a second time, as data, far from its code.
    let span =
        elf.span(load_bias).and_then(|span| span.intersection(&mapped)).context("no segment is mapped")?;
    Ok(Module {
        path: region.path().to_owned(),
        file_id: (region.device, region.inode),
        elf,
        load_bias,
        span,
        is_exe: region.path() == target.exe_path().trim_end_matches(" (deleted)"),
        file,
    })
}
