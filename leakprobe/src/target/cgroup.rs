//! The target's cgroup: its path, the container it stands for, and what its memory controller charges.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A limit this high is none: v1 writes `PAGE_COUNTER_MAX` pages (Linux `mm/memcontrol-v1.c`).
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// The cgroup that charges the target's memory: path, and whether it is of the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// As in /proc/PID/cgroup.
    pub path: String,
    /// cgroup v2.
    pub unified: bool,
}

/// The memory controller's figures of the target's cgroup, in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CgroupMemory {
    /// Charged now.
    pub current: Option<u64>,
    /// The lowest limit of it and of the cgroups above it; null where there is none.
    pub limit: Option<u64>,
    /// Page cache.
    pub file: Option<u64>,
    /// Kernel memory.
    pub kernel: Option<u64>,
}

/// Finds the memory controller's line in /proc/PID/cgroup (cgroups(7)), else v2's.
pub fn parse(text: &str) -> Option<Cgroup> {
    let mut unified = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        if controllers.split(',').any(|controller| controller == "memory") {
            return Some(Cgroup { path: path.to_owned(), unified: false });
        }
        if controllers.is_empty() {
            unified = Some(Cgroup { path: path.to_owned(), unified: true });
        }
    }
    unified
}

/// The container's id: the 64 hexadecimal digits that container runtimes put into the cgroup's path.
pub fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let name = name.rsplit(['-', ':']).next().unwrap_or(name);
        (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
    })
}

/// What the memory controller charges now; `None` where the cgroup has none, or it is not mounted here.
pub fn memory(cgroup: &Cgroup) -> Option<CgroupMemory> {
    let root = if cgroup.unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    let directory = PathBuf::from(root).join(cgroup.path.trim_start_matches('/'));
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (current, limit, kernel) = if cgroup.unified {
        ("memory.current", "memory.max", "kernel")
    } else {
        ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_kernel")
    };
    // What binds is the lowest limit on the way up: a pod's is on its parent.
    let above = directory.ancestors().take_while(|place| *place != Path::new("/sys/fs/cgroup"));
    let limits =
        above.filter_map(|place| fs::read_to_string(place.join(limit)).ok()?.trim().parse::<u64>().ok());
    let stat = read("memory.stat").unwrap_or_default();
    let file = if cgroup.unified { "file" } else { "total_cache" };
    Some(CgroupMemory {
        current: Some(number(current)?),
        limit: limits.filter(|limit| *limit < NO_LIMIT_BYTES).min(),
        file: stat_value(&stat, file),
        kernel: stat_value(&stat, kernel),
    })
}

fn stat_value(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies() {
        assert_eq!(parse("0::/user.slice\n"), Some(Cgroup { path: "/user.slice".into(), unified: true }));
        let mixed = "5:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/b\n";
        assert_eq!(parse(mixed), Some(Cgroup { path: "/docker/x".into(), unified: false }));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn ids_of_container_runtimes() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
            format!("/kubepods/besteffort/pod1/{id}/child"),
        ] {
            assert_eq!(container_id(&path), Some(id.as_str()), "{path}");
        }
        assert_eq!(container_id("/user.slice/session-1.scope"), None);
    }
}
