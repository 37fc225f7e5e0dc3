//! A folder of a test's own, gone when the test is over.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};

use crate::places;

/// An empty folder in cargo's target folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it; `name` is the test's.
    pub fn new(name: &str) -> Result<Self> {
        Self::below(&places::target().join("folders"), name)
    }

    /// In the machine's folder for such, where every user can go.
    pub fn in_temporary(name: &str) -> Result<Self> {
        Self::below(&env::temp_dir(), &format!("leakprobe-{name}"))
    }

    fn below(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("{name}-{}", process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it, as a word of a command line.
    pub fn file(&self, name: &str) -> Result<String> {
        let path = self.path.join(name).into_os_string();
        path.into_string().ok().context("the path of the target folder is UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that fails has more to tell than a folder that cannot be removed.
        fs::remove_dir_all(&self.path).ok();
    }
}
