//! The Go toolchains in the cache, and a program built by each of them.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command};

use anyhow::{Context as _, Result, ensure};
use leakprobe::target::build_info::GoVersion;
use leakprobe_tests::places;

/// A Go in the cache.
pub struct Toolchain {
    pub version: GoVersion,
    /// Its GOROOT.
    root: PathBuf,
}

/// Every Go in the cache, ascending by version.
///
/// # Errors
/// Where the one that builds the workloads is missing.
pub fn installed() -> Result<Vec<Toolchain>> {
    let folder = places::cache()?.join("go");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let root = entry?.path().join("go");
        // The folder is renamed when it is complete; others are being fetched.
        let Ok(file) = fs::read_to_string(root.join("VERSION")) else { continue };
        let version = file.lines().next().and_then(GoVersion::parse);
        let version = version.with_context(|| format!("the version of {}", root.display()))?;
        found.push(Toolchain { version, root });
    }
    let needed = GoVersion::parse(&format!("go{}", places::NEWEST_GO));
    ensure!(
        found.iter().any(|go| Some(go.version) == needed),
        "no Go {}: `cargo xtask setup`",
        places::NEWEST_GO
    );
    found.sort_unstable_by_key(|go| go.version);
    found.dedup_by_key(|go| go.version);
    Ok(found)
}

impl Toolchain {
    /// A program for `arch`, built once.
    pub fn program(&self, arch: &str) -> Result<PathBuf> {
        self.built(arch, arch, "")
    }

    /// The same with debug information as it is.
    pub fn program_uncompressed(&self, arch: &str) -> Result<PathBuf> {
        self.built(arch, &format!("{arch}-uncompressed"), "-compressdwarf=false")
    }

    fn built(&self, arch: &str, name: &str, linker_flags: &str) -> Result<PathBuf> {
        let folder = places::target().join("layouts");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let program = folder.join(format!("{}-{name}", self.version));
        let source = places::repository().join("tests/layouts/main.go");
        let is_current = modified(&program).ok() >= modified(&source).ok();
        if !is_current {
            // Renamed into place: a build that was stopped leaves nothing behind that looks whole.
            let unfinished = folder.join(format!("unfinished-{}", process::id()));
            let mut go = self.go(arch)?;
            go.current_dir(&folder)
                .args(["build", "-ldflags", linker_flags, "-o"])
                .arg(&unfinished)
                .arg(&source);
            let output = go.output().with_context(|| format!("run {:?}", go.get_program()))?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "Go {} for {arch}: {}\n{stderr}", self.version, output.status);
            fs::rename(&unfinished, &program).with_context(|| format!("rename to {}", program.display()))?;
        }
        Ok(program)
    }

    /// Without cgo, Go cross-compiles alone. Nothing of the user's own Go may leak in, and nothing may be fetched.
    fn go(&self, arch: &str) -> Result<Command> {
        let cache = places::cache()?;
        let mut go = Command::new(self.root.join("bin/go"));
        go.env("GOROOT", &self.root).env("GOTOOLCHAIN", "local").env("GOENV", "off").env("GOPROXY", "off");
        go.env("GOFLAGS", "").env("GO111MODULE", "off").env("GOWORK", "off").env("CGO_ENABLED", "0");
        go.env("GOCACHE", cache.join("go-build")).env("GOPATH", cache.join("go-path"));
        go.env("GOOS", "linux").env("GOARCH", arch);
        Ok(go)
    }
}

fn modified(path: &std::path::Path) -> Result<std::time::SystemTime> {
    fs::metadata(path)?.modified().with_context(|| format!("the date of {}", path.display()))
}
