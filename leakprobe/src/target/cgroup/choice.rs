//! A cgroup as a person names it: by its folder, by its path, or by the container it stands for.

use std::fs;
use std::path::{Path, PathBuf};

use super::hierarchy::Mount;
use super::{Cgroup, container_id, members};

/// Folders looked through for a container.
const MAX_FOLDERS: usize = 65_536;
/// A shorter beginning of a container's id is hardly one.
const SHORTEST_ID: usize = 4;

/// Why a name stands for no cgroup.
#[derive(Debug, thiserror::Error)]
pub enum ChoiceError {
    /// No such folder in any hierarchy.
    #[error(
        "no cgroup {path} is mounted here: give its folder below /sys/fs/cgroup, or its path as in /proc/PID/cgroup"
    )]
    NoSuchCgroup {
        /// As typed.
        path: String,
    },
    /// No cgroup's name has the container's id.
    #[error("no cgroup is of a container {id}: `ls -R /sys/fs/cgroup` lists the cgroups there are")]
    NoSuchContainer {
        /// As typed.
        id: String,
    },
    /// There is no process in it.
    #[error("cgroup {path} has no process, or none that is visible from here")]
    Empty {
        /// Its path.
        path: String,
    },
    /// Several containers' ids begin like that.
    #[error("{} containers' ids begin with {id}: give more of it\n{}", found.len(), found.join("\n"))]
    NotUnique {
        /// As typed.
        id: String,
        /// The ids.
        found: Vec<String>,
    },
}

/// A cgroup, and its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which one.
    pub cgroup: Cgroup,
    folder: PathBuf,
}

impl Group {
    /// The cgroup of that folder, or of that path in a hierarchy.
    ///
    /// # Errors
    /// [`ChoiceError::NoSuchCgroup`].
    pub fn at(path: &Path) -> Result<Self, ChoiceError> {
        let mounts = Mount::all();
        let of_folder = mounts.iter().find_map(|(mount, unified)| {
            let path = mount.path_of(path)?;
            Some(Cgroup { path, unified: *unified })
        });
        let of_path = || {
            mounts.iter().find_map(|(mount, unified)| {
                let cgroup = Cgroup { path: path.to_str()?.to_owned(), unified: *unified };
                mount.folder(&cgroup).filter(|folder| is_cgroup(folder)).map(|_| cgroup)
            })
        };
        let cgroup = of_folder.or_else(of_path);
        let found = cgroup.and_then(|cgroup| Self::of(&mounts, cgroup));
        found.ok_or_else(|| ChoiceError::NoSuchCgroup { path: path.display().to_string() })
    }

    /// The cgroup of the container whose id begins like that.
    ///
    /// # Errors
    /// [`ChoiceError`] where there is none, or are several.
    pub fn of_container(id: &str) -> Result<Self, ChoiceError> {
        let mounts = Mount::all();
        let mut found: Vec<(String, Self)> = Vec::new();
        for (mount, unified) in mounts.iter().filter(|_| id.len() >= SHORTEST_ID) {
            for folder in mount.folders(MAX_FOLDERS) {
                let Some(path) = mount.path_of(&folder) else { continue };
                // A container's own cgroup, and not those below it.
                let is_own = path.rsplit('/').next().is_some_and(|name| container_id(name).is_some());
                let Some(whole) = container_id(&path).filter(|whole| is_own && whole.starts_with(id)) else {
                    continue;
                };
                if found.iter().all(|(known, _)| known != whole) {
                    found.push((
                        whole.to_owned(),
                        Self { cgroup: Cgroup { path, unified: *unified }, folder },
                    ));
                }
            }
        }
        match found.len() {
            0 => Err(ChoiceError::NoSuchContainer { id: id.to_owned() }),
            1 => Ok(found.remove(0).1),
            _ => Err(ChoiceError::NotUnique {
                id: id.to_owned(),
                found: found.into_iter().map(|(id, _)| id).collect(),
            }),
        }
    }

    /// The processes in it and in those below it.
    pub fn pids(&self) -> Vec<i32> {
        members::pids(&self.folder)
    }

    fn of(mounts: &[(Mount, bool)], cgroup: Cgroup) -> Option<Self> {
        let mut folders = mounts.iter().filter(|(_, unified)| *unified == cgroup.unified);
        let folder = folders.find_map(|(mount, _)| mount.folder(&cgroup))?;
        is_cgroup(&folder).then_some(Self { cgroup, folder })
    }
}

fn is_cgroup(folder: &Path) -> bool {
    fs::metadata(folder.join("cgroup.procs")).is_ok_and(|meta| meta.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_is_said_to_be_none() {
        assert!(matches!(Group::at(Path::new("/etc")), Err(ChoiceError::NoSuchCgroup { .. })));
        assert!(matches!(Group::at(Path::new("../..")), Err(ChoiceError::NoSuchCgroup { .. })));
        assert!(matches!(Group::of_container("no id"), Err(ChoiceError::NoSuchContainer { .. })));
        assert!(matches!(Group::of_container(""), Err(ChoiceError::NoSuchContainer { .. })));
    }
}
