//! Packages that are unpacked into a folder of ours, and that nobody installs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{command, quietly};

/// Unpacks every Debian package of a folder.
pub(crate) fn unpack_packages(packages: &Path, into: &Path) -> Result<()> {
    for package in files_in(packages)? {
        let mut extract = command("dpkg-deb", &["--extract"]);
        extract.arg(&package).arg(into);
        quietly(extract)?;
    }
    Ok(())
}

/// What lies in a folder.
pub(crate) fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || format!("list {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(list)? {
        files.push(entry.with_context(list)?.path());
    }
    Ok(files)
}

/// A folder that is removed with everything in it, however the fetching ends.
pub(crate) struct Unfinished {
    pub(crate) folder: PathBuf,
}

impl Unfinished {
    /// Makes it in a folder, under a name that is this process's alone.
    pub(crate) fn create(beside: &Path, name: &str) -> Result<Self> {
        let folder = beside.join(format!("unfinished-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { folder })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It may be half gone already, and the error that matters is on its way up.
        fs::remove_dir_all(&self.folder).ok();
    }
}
