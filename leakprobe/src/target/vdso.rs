//! The code that the kernel maps into every process: an ELF file that exists in memory only.
//!
//! It is copied into a file of ours, and then is a module like any other: the clock's functions unwind and have names.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{MemfdFlags, memfd_create};

use super::elf::ElfFile;
use super::maps::Region;
use super::memory::Memory;
use super::modules::Module;

/// As /proc/PID/maps calls it.
pub const NAME: &str = "[vdso]";
/// It takes two to four pages (Linux `arch/x86/entry/vdso`).
const MAX_BYTES: u64 = 64 << 10;

/// The vdso of the process; `None` where it has none, or what is mapped there is no ELF file.
pub fn read(memory: &dyn Memory, regions: &[Region]) -> Option<Module> {
    let region = regions.iter().find(|region| region.name == NAME && region.executable)?;
    let len_bytes = region.range.len_bytes();
    if len_bytes > MAX_BYTES {
        return None;
    }
    let image = memory.read_vec(region.range.start_addr, usize::try_from(len_bytes).ok()?).ok()?;
    let mut file = File::from(memfd_create("vdso", MemfdFlags::CLOEXEC).ok()?);
    file.write_all(&image).ok()?;
    let metadata = file.metadata().ok()?;
    let elf = ElfFile::parse(file.try_clone().ok()?).ok()?;
    let load_bias = elf.load_bias(region.range.start_addr, 0)?;
    let device = metadata.dev();
    let file_id = ((rustix::fs::major(device), rustix::fs::minor(device)), metadata.ino());
    Some(Module::new(NAME.to_owned(), file_id, elf, load_bias, region.range, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::AddrRange;
    use crate::target::memory::canned::Pieces;

    fn region(range: AddrRange) -> Region {
        let line = format!("{:x}-{:x} r-xp 00000000 00:00 0 [vdso]", range.start_addr, range.end_addr);
        crate::target::maps::parse_line(&line).unwrap()
    }

    #[test]
    fn our_own_is_a_module() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let region =
            maps.lines().filter_map(crate::target::maps::parse_line).find(|it| it.name == NAME).unwrap();
        let len = usize::try_from(region.range.len_bytes()).unwrap();
        // SAFETY: the kernel maps it readable for as long as we run.
        let image = unsafe { std::slice::from_raw_parts(region.range.start_addr as *const u8, len) }.to_vec();
        let memory = Pieces(vec![(region.range.start_addr, image)]);
        let vdso = read(&memory, std::slice::from_ref(&region)).unwrap();
        assert!(vdso.elf.section(".eh_frame").is_some() && vdso.has_code_at(region.range.start_addr + 0x800));
    }

    #[test]
    fn garbage_is_none() {
        let range = AddrRange::new(0x7000_0000, 0x7000_2000).unwrap();
        assert!(read(&Pieces(vec![(range.start_addr, vec![0x7f; 0x2000])]), &[region(range)]).is_none());
        assert!(read(&Pieces::default(), &[region(range)]).is_none());
    }
}
