//! What the maps alone say: files, shared memory, the vdso, the main stack, and the .bss of each file.

use crate::claim::{Claim, Component, Evidence};
use crate::target::maps::Region;
use crate::target::modules::Module;

/// Names of shared memory that belongs to no file system a person looks into.
const SHARED_MEMORY: [&str; 5] = ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero", "[anon_shmem"];

/// A claim for every region the maps explain; nameless private memory gets none.
pub fn claims(regions: &[Region], modules: &[Module]) -> Vec<Claim> {
    let named = regions.iter().filter_map(|region| {
        let component = component(region, modules)?;
        Some(Claim { range: region.range, component, evidence: Evidence::Mapping })
    });
    let bss = modules.iter().flat_map(|module| {
        let component = if module.is_exe { Component::FileExe } else { Component::FileLibs };
        let ranges = module.elf.bss_ranges(module.load_bias);
        ranges.into_iter().map(move |range| Claim { range, component, evidence: Evidence::Mapping })
    });
    // .bss is claimed only where the memory is private and nameless: a hostile file may state any size.
    let bss = bss.flat_map(|claim| {
        let inside = regions.iter().filter(|region| region.is_private_anonymous() && region.name.is_empty());
        inside.filter_map(move |region| {
            Some(Claim { range: region.range.intersection(&claim.range)?, ..claim })
        })
    });
    named.chain(bss).collect()
}

fn component(region: &Region, modules: &[Module]) -> Option<Component> {
    if region.is_kernel_special() {
        return Some(Component::KernelSpecial);
    }
    if SHARED_MEMORY.iter().any(|name| region.name.starts_with(name)) || (region.shared && region.inode == 0)
    {
        return Some(Component::Shmem);
    }
    if region.name == "[stack]" {
        return Some(Component::ThreadStacks);
    }
    if region.inode == 0 {
        return None;
    }
    let module = modules.iter().find(|module| module.file_id == (region.device, region.inode));
    Some(match module {
        Some(module) if module.is_exe => Component::FileExe,
        Some(_) => Component::FileLibs,
        None => Component::FileMapped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::parse_line;

    #[test]
    fn names_tell_what_is_mapped() {
        for (line, expected) in [
            ("7f0000000000-7f0000001000 rw-s 00000000 00:01 5 /memfd:x (deleted)", Some(Component::Shmem)),
            ("7f0000000000-7f0000001000 rw-s 00000000 00:01 5 /dev/zero (deleted)", Some(Component::Shmem)),
            ("7f0000000000-7f0000001000 r--s 00000000 fe:01 5 /var/data", Some(Component::FileMapped)),
            ("7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0 [stack]", Some(Component::ThreadStacks)),
            ("7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]", Some(Component::KernelSpecial)),
            ("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ", None),
            ("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 [heap]", None),
        ] {
            assert_eq!(component(&parse_line(line).unwrap(), &[]), expected, "{line}");
        }
    }
}
