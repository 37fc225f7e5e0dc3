//! The target's cgroup: its path, the container it stands for, and what its memory controller charges.

mod bill;
mod choice;
mod hierarchy;
mod members;

pub use self::bill::{CgroupMemory, memory};
pub use self::choice::{ChoiceError, Group};
pub use self::members::{Member, Others, pss_bytes};

/// The cgroup that charges the target's memory: path, and whether it is of the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// As in /proc/PID/cgroup.
    pub path: String,
    /// cgroup v2.
    pub unified: bool,
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
