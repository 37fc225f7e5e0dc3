//! What the maps alone say: files, shared memory, the vdso, the main stack, and the .bss of each file.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim::{Claim, Component, Evidence};
use crate::target::maps::Region;
use crate::target::modules::Module;

/// What keeps the pages of a mapping that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// A file on a disk: pages that were not changed can be dropped and read again.
    File,
    /// A file in a file system that is memory itself.
    Tmpfs,
    /// `memfd_create`.
    Memfd,
    /// `shmget`: System V.
    Sysv,
    /// Anonymous memory mapped shared.
    Anonymous,
    /// Huge pages set aside, which no RSS counts.
    Hugetlb,
    /// A device, or a ring that the kernel shares with the process: io_uring's, a packet socket's.
    Device,
}

impl Backing {
    /// Of a mapping with an inode. `in_memory` are the devices of file systems that are memory.
    ///
    /// The name decides before the device does: the kernel's own shared memory is in no mount table.
    pub fn of(region: &Region, in_memory: &BTreeSet<(u32, u32)>) -> Self {
        let starts = |start: &str| region.name.starts_with(start);
        match () {
            () if starts("/memfd:") => Self::Memfd,
            () if starts("/SYSV") => Self::Sysv,
            () if starts("/dev/zero") || starts("[anon_shmem") || region.inode == 0 => Self::Anonymous,
            () if starts("/anon_hugepage") => Self::Hugetlb,
            () if starts("/dev/shm/") => Self::Tmpfs,
            () if starts("/dev/") || starts("anon_inode:") || starts("socket:") => Self::Device,
            () if in_memory.contains(&region.device) => Self::Tmpfs,
            () => Self::File,
        }
    }

    /// Whether its pages are memory that nothing but swap can take over.
    pub const fn is_shared_memory(self) -> bool {
        matches!(self, Self::Tmpfs | Self::Memfd | Self::Sysv | Self::Anonymous)
    }
}

/// A claim for every region the maps explain; nameless private memory gets none.
pub fn claims(regions: &[Region], modules: &[Module], in_memory: &BTreeSet<(u32, u32)>) -> Vec<Claim> {
    let named = regions.iter().filter_map(|region| {
        let component = component(region, modules, in_memory)?;
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

fn component(region: &Region, modules: &[Module], in_memory: &BTreeSet<(u32, u32)>) -> Option<Component> {
    if region.is_kernel_special() {
        return Some(Component::KernelSpecial);
    }
    if region.name == "[stack]" {
        return Some(Component::ThreadStacks);
    }
    if region.is_private_anonymous() {
        return None;
    }
    let module = modules.iter().find(|module| module.file_id == (region.device, region.inode));
    Some(match module {
        Some(module) if module.is_exe => Component::FileExe,
        Some(_) => Component::FileLibs,
        None if Backing::of(region, in_memory).is_shared_memory() => Component::Shmem,
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
            ("7f0000000000-7f0000001000 rw-s 00000000 00:1a 5 /run/data", Some(Component::Shmem)),
            ("7f0000000000-7f0000001000 rw-p 00000000 00:1a 5 /run/data", Some(Component::Shmem)),
            (
                "7f0000000000-7f0000001000 rw-s 00000000 00:01 5 /SYSV00000000 (deleted)",
                Some(Component::Shmem),
            ),
            ("7f0000000000-7f0000001000 rw-s 00000000 00:1b 5 /dev/shm/x", Some(Component::Shmem)),
            ("7f0000000000-7f0000001000 rw-s 00000000 00:05 5 /dev/gpu0", Some(Component::FileMapped)),
            ("7f0000000000-7f0000001000 rw-s 00000000 00:0a 5 socket:[81]", Some(Component::FileMapped)),
            ("7f0000000000-7f0000001000 rw-p 00000000 00:05 5 /dev/zero", None),
            ("7ffd00000000-7ffd00001000 rw-p 00000000 00:00 0 [stack]", Some(Component::ThreadStacks)),
            ("7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0 [vdso]", Some(Component::KernelSpecial)),
            ("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ", None),
            ("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 [heap]", None),
        ] {
            let in_memory = BTreeSet::from([(0, 0x1a), (0, 5)]);
            assert_eq!(component(&parse_line(line).unwrap(), &[], &in_memory), expected, "{line}");
        }
    }
}
