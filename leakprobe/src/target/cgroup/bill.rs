//! What the memory controller charges a cgroup with: what kills a pod is this bill and not the RSS.
//!
//! The surprise: the figures of cgroup v1 are the cgroup's alone under their plain names, and with those below
//! it under names with `total_`; its kernel memory is known as a sum only.

use std::fs;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cgroup;
use super::hierarchy::Mount;
use super::members::{self, Others};

/// A limit this high is none: v1 writes `PAGE_COUNTER_MAX` pages (Linux `mm/memcontrol-v1.c`).
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The memory controller's figures of the target's cgroup and all below it, in bytes. What a kernel does not
/// tell is `None`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CgroupMemory {
    /// Charged now.
    pub current: Option<u64>,
    /// The lowest limit of it and of the cgroups above it; null where there is none.
    pub limit: Option<u64>,
    /// Anonymous memory of all its processes.
    pub anon: Option<u64>,
    /// Page cache, shared memory included.
    pub file: Option<u64>,
    /// Of `file`, shared memory: tmpfs, memfd, System V. It cannot be dropped as other page cache can.
    pub shmem: Option<u64>,
    /// Kernel memory in all.
    pub kernel: Option<u64>,
    /// Of `kernel`, objects: inodes, dentries and the like.
    pub slab: Option<u64>,
    /// Of `slab`, what the kernel can drop.
    pub slab_reclaimable: Option<u64>,
    /// Of `kernel`, page tables.
    pub page_tables: Option<u64>,
    /// Of `kernel`, stacks of threads.
    pub kernel_stacks: Option<u64>,
    /// Buffers of sockets.
    pub sockets: Option<u64>,
    /// The other processes in it; null for the root, in which everything is.
    pub others: Option<Others>,
}

/// What the memory controller charges `cgroup` with now; `None` where it has none, or it is not mounted here.
/// `pid` is the process that is not another one.
pub fn memory(cgroup: &Cgroup, pid: i32) -> Option<CgroupMemory> {
    let mount = Mount::find(&fs::read_to_string("/proc/self/mountinfo").ok()?, cgroup)?;
    let folder = mount.folder(cgroup)?;
    let figures = Figures::read(&folder);
    let bill = if cgroup.unified { unified(&figures)? } else { separate(&figures)? };
    let name = if cgroup.unified { "memory.max" } else { "memory.limit_in_bytes" };
    // What binds is the lowest limit on the way up: a pod's is on its parent.
    let limits = mount.folders_up(&folder).filter_map(|place| number(&place.join(name)));
    Some(CgroupMemory {
        limit: limits.filter(|limit| *limit < NO_LIMIT_BYTES).min(),
        others: (cgroup.path != "/").then(|| members::others(&folder, pid)),
        ..bill
    })
}

/// The files of one cgroup.
struct Figures {
    folder: PathBuf,
    stat: String,
}

impl Figures {
    fn read(folder: &Path) -> Self {
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        Self { folder: folder.to_owned(), stat }
    }

    fn number(&self, name: &str) -> Option<u64> {
        number(&self.folder.join(name))
    }

    fn stat(&self, name: &str) -> Option<u64> {
        stat_value(&self.stat, name)
    }
}

/// cgroup v2 (Linux `Documentation/admin-guide/cgroup-v2.rst`; `kernel` since 5.18).
fn unified(figures: &Figures) -> Option<CgroupMemory> {
    Some(CgroupMemory {
        current: Some(figures.number("memory.current")?),
        anon: figures.stat("anon"),
        file: figures.stat("file"),
        shmem: figures.stat("shmem"),
        kernel: figures.stat("kernel"),
        slab: figures.stat("slab"),
        slab_reclaimable: figures.stat("slab_reclaimable"),
        page_tables: figures.stat("pagetables"),
        kernel_stacks: figures.stat("kernel_stack"),
        sockets: figures.stat("sock"),
        ..CgroupMemory::default()
    })
}

/// cgroup v1 (Linux `Documentation/admin-guide/cgroup-v1/memory.rst`).
fn separate(figures: &Figures) -> Option<CgroupMemory> {
    Some(CgroupMemory {
        current: Some(figures.number("memory.usage_in_bytes")?),
        anon: figures.stat("total_rss"),
        file: figures.stat("total_cache"),
        shmem: figures.stat("total_shmem"),
        kernel: figures.number("memory.kmem.usage_in_bytes"),
        sockets: figures.number("memory.kmem.tcp.usage_in_bytes"),
        ..CgroupMemory::default()
    })
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn stat_value(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_go_by_their_whole_names() {
        let stat = "anon 7\nanon_thp 2\nslab_reclaimable 5\nslab 9\nsock x\n";
        assert_eq!(stat_value(stat, "anon"), Some(7));
        assert_eq!(stat_value(stat, "slab"), Some(9));
        assert_eq!((stat_value(stat, "sock"), stat_value(stat, "file")), (None, None));
    }
}
