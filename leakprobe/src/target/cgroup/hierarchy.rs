//! Where the memory controller's files of a cgroup are: found through leakprobe's own mounts, since systems
//! mount the hierarchies in different places, and containers only a part of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cgroup, members};

/// A mounted hierarchy with the memory controller in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The cgroup that is the root of what is mounted.
    root: PathBuf,
    /// Where it is mounted.
    place: PathBuf,
}

impl Mount {
    /// All that are mounted here, those with the memory controller first; and whether they are of the unified hierarchy.
    pub fn all() -> Vec<(Self, bool)> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let of =
            |unified| mountinfo.lines().filter_map(move |line| Some((Self::parse(line, unified)?, unified)));
        of(false).chain(of(true)).collect()
    }

    /// The path of the cgroup whose folder that is.
    pub fn path_of(&self, folder: &Path) -> Option<String> {
        let below = folder.strip_prefix(&self.place).ok()?;
        let path = if below.as_os_str().is_empty() { self.root.clone() } else { self.root.join(below) };
        path.into_os_string().into_string().ok()
    }

    /// The folders of its cgroups, at most so many.
    pub fn folders(&self, most: usize) -> Vec<PathBuf> {
        let mut folders = vec![self.place.clone()];
        let mut next = 0;
        while next < folders.len() && folders.len() < most {
            folders.extend(members::below(&folders[next]));
            next += 1;
        }
        folders.truncate(most);
        folders
    }

    /// The one that holds `cgroup`, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
    pub fn find(mountinfo: &str, cgroup: &Cgroup) -> Option<Self> {
        let mounts = mountinfo.lines().filter_map(|line| Self::parse(line, cgroup.unified));
        // Several may be mounted; the one that shows this cgroup is wanted.
        mounts
            .filter(|mount| cgroup.relative_to(&mount.root).is_some())
            .max_by_key(|mount| mount.root.clone())
    }

    fn parse(line: &str, unified: bool) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let is_wanted = match unified {
            true => kind == "cgroup2",
            false => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        };
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (PathBuf::from(fields.next()?), PathBuf::from(fields.next()?));
        is_wanted.then_some(Self { root, place })
    }

    /// The folder of `cgroup`.
    pub fn folder(&self, cgroup: &Cgroup) -> Option<PathBuf> {
        Some(self.place.join(cgroup.relative_to(&self.root)?))
    }

    /// The folder of `cgroup` and those of the cgroups above it, as far as they are mounted.
    pub fn folders_up<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = &'a Path> {
        folder.ancestors().take_while(|place| place.starts_with(&self.place))
    }
}

impl Cgroup {
    /// Its path below `root`; a path that climbs out of leakprobe's namespace has none.
    fn relative_to(&self, root: &Path) -> Option<PathBuf> {
        let path = Path::new(&self.path);
        let has_only_names = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
        has_only_names.then(|| path.strip_prefix(root).ok().map(Path::to_owned))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEPARATE: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
42 31 0:39 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn folder(mountinfo: &str, path: &str, unified: bool) -> Option<PathBuf> {
        let cgroup = Cgroup { path: path.to_owned(), unified };
        Mount::find(mountinfo, &cgroup)?.folder(&cgroup)
    }

    #[test]
    fn hierarchies_are_where_they_are_mounted() {
        let found = |path, unified| folder(SEPARATE, path, unified);
        assert_eq!(found("/docker/x", false), Some("/sys/fs/cgroup/memory/docker/x".into()));
        assert_eq!(found("/a", true), Some("/sys/fs/cgroup/unified/a".into()));
        assert_eq!(folder("", "/a", true), None);
    }

    #[test]
    fn a_container_mounts_a_part() {
        let part = "9 8 0:5 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw,nsdelegate";
        assert_eq!(folder(part, "/kubepods/pod1/c", true), Some("/sys/fs/cgroup/c".into()));
        assert_eq!(folder(part, "/kubepods/pod2", true), None, "another pod is not mounted");
        assert_eq!(folder(part, "/../../pod2", true), None, "above the namespace's root");
    }

    #[test]
    fn limits_are_looked_up_to_the_mount_and_no_further() {
        let cgroup = Cgroup { path: "/a/b".to_owned(), unified: false };
        let mount = Mount::find(SEPARATE, &cgroup).unwrap();
        let folder = mount.folder(&cgroup).unwrap();
        let up: Vec<&Path> = mount.folders_up(&folder).collect();
        assert_eq!(up.len(), 3);
        assert_eq!(up.last().copied(), Some(Path::new("/sys/fs/cgroup/memory")));
    }
}
