//! Where things lie: in the repository, in its target folder, in the user's cache.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The releases of Go whose runtimes are read in the tests, oldest first: the last of each minor version
/// that PyPI or Debian 12 serves. Neither has a Go 1.20.
pub const GO_VERSIONS: [&str; 8] =
    ["1.19.8", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3"];

/// The oldest of them.
pub const OLDEST_GO: &str = GO_VERSIONS[0];

/// The Go that builds the Go workloads where none is named.
pub const NEWEST_GO: &str = GO_VERSIONS[GO_VERSIONS.len() - 1];

/// Whether the wide matrices are asked for, and not only their corners: LEAKPROBE_VERSIONS=all, as
/// `cargo xtask test --all` sets it.
pub fn all_versions() -> bool {
    env::var("LEAKPROBE_VERSIONS").is_ok_and(|which| which == "all")
}

/// The releases of Go to test with: the oldest and the newest, which every set-up has, or all of them.
pub fn go_versions() -> &'static [&'static str] {
    if all_versions() { &GO_VERSIONS } else { &[OLDEST_GO, NEWEST_GO] }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests package lies in a folder of the repository")
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    // A relative CARGO_TARGET_DIR is relative to where cargo was called: not known here, so the root.
    let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    repository().join(folder)
}

/// The program under test: LEAKPROBE_BIN, or the one built beside the running program.
pub fn leakprobe() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LEAKPROBE_BIN") {
        return Ok(PathBuf::from(path));
    }
    let this = env::current_exe().context("find the path of the running test program")?;
    // A test lies in target/PROFILE/deps, other programs in target/PROFILE.
    let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join("leakprobe"));
    beside.into_iter().find(|path| path.is_file()).with_context(|| {
        format!("find leakprobe beside {}: build it with `cargo build -p leakprobe`", this.display())
    })
}

/// LEAKPROBE_BACKEND: the backend with which the live tests are run, where it is not the usual one.
pub fn backend() -> Option<OsString> {
    env::var_os("LEAKPROBE_BACKEND")
}

/// LEAKPROBE_KERNEL: which kernel of `tests/kernels.toml` this is, in a test machine of `cargo xtask vm`; else the host's.
pub fn kernel() -> String {
    env::var("LEAKPROBE_KERNEL").unwrap_or_else(|_| crate::kernels::HOST.to_owned())
}

/// LEAKPROBE_PREBUILT: the programs are there and no compiler is, in a test machine.
pub fn is_prebuilt() -> bool {
    env::var_os("LEAKPROBE_PREBUILT").is_some()
}

/// LEAKPROBE_SLOWNESS: how many times longer than usual everything may take here, where the processor is emulated.
pub fn slowness() -> u32 {
    env::var("LEAKPROBE_SLOWNESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// What is fetched once for all clones of this repository.
pub fn cache() -> Result<PathBuf> {
    let caches = match env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = env::var_os("HOME").context("find the cache folder: set HOME or XDG_CACHE_HOME")?;
            PathBuf::from(home).join(".cache")
        }
    };
    Ok(caches.join("leakprobe"))
}

/// axe-core, which knows the rules of accessibility, whether it is there yet or not.
pub fn axe() -> Result<PathBuf> {
    Ok(cache()?.join("axe-core/package/axe.min.js"))
}

/// GOROOT of a release of Go, whether it is there yet or not.
pub fn go_root(version: &str) -> Result<PathBuf> {
    Ok(cache()?.join("go").join(version).join("go"))
}
