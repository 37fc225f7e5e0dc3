//! Builds the workloads: `c/NAME` with gcc, `cpp/NAME` with g++, `go/NAME` with a Go in the user's cache, `rust/NAME`
//! with cargo ([`crate::rust`]).
//!
//! The surprise: a name says how it is built. `go/race_*` has the race detector; `c/asan_NAME`, `c/tsan_NAME` and
//! `c/lsan_NAME` are `c/NAME` with that sanitizer, `c/static_NAME` is `c/NAME` linked statically, `c/musl_NAME` with musl as
//! its C library; `c/clang14_NAME` and `cpp/clang14_NAME` are built by clang 14. What other compilers make with sanitizers,
//! [`sanitized`] builds, and [`native`] chains of calls in every way.

pub mod native;
pub mod sanitized;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use crate::places;

/// One build at a time, so that two tests never build the same program twice.
static BUILDING: Mutex<()> = Mutex::new(());

/// How a Go workload is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoBuild {
    /// One of [`places::GO_VERSIONS`].
    pub version: &'static str,
    /// What it is linked into.
    pub kind: Kind,
    /// What is left of its names.
    pub symbols: Symbols,
}

/// What a Go program is linked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Go alone, at fixed addresses: CGO_ENABLED=0.
    Plain,
    /// Go alone, at addresses the kernel chooses.
    Pie,
    /// With the race detector.
    Race,
    /// With C where the program has any, linked by gcc then. Sets the build tag `with_cgo`.
    Cgo,
    /// The same, with C that keeps the frame pointer.
    CgoFrames,
    /// A shared library for a C program, with C where the package has any. Sets the build tag `with_cgo`.
    Shared,
    /// A plug-in for a program that is built as [`Self::Cgo`].
    Plugin,
    /// Go alone, for another processor: it cannot run here.
    Arm64,
}

/// What the linker leaves of a program's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbols {
    /// DWARF and the symbol table.
    Dwarf,
    /// The symbol table only: `-w`.
    Table,
    /// Neither: `-s -w`.
    Stripped,
}

impl GoBuild {
    /// How the tests that do not care about it build a workload of this name.
    pub fn usual(program: &str) -> Self {
        let kind = if program.starts_with("race_") { Kind::Race } else { Kind::Cgo };
        Self { version: places::NEWEST_GO, kind, symbols: Symbols::Dwarf }
    }

    fn arguments(self) -> Vec<&'static str> {
        let mut arguments = match self.kind {
            Kind::Plain => vec![],
            Kind::Pie => vec!["-buildmode=pie"],
            Kind::Race => vec!["-race"],
            Kind::Cgo | Kind::CgoFrames => vec!["-tags=with_cgo"],
            Kind::Shared => vec!["-tags=with_cgo", "-buildmode=c-shared"],
            Kind::Plugin => vec!["-tags=with_cgo", "-buildmode=plugin"],
            Kind::Arm64 => vec![],
        };
        match self.symbols {
            Symbols::Dwarf => {}
            Symbols::Table => arguments.push("-ldflags=-w"),
            Symbols::Stripped => arguments.push("-ldflags=-s -w"),
        }
        arguments
    }
}

impl fmt::Display for GoBuild {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "go{} {} {}", self.version, self.kind, self.symbols)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Plain => "plain",
            Self::Pie => "PIE",
            Self::Race => "-race",
            Self::Cgo => "cgo",
            Self::CgoFrames => "cgo with frame pointers",
            Self::Shared => "c-shared",
            Self::Plugin => "plug-in",
            Self::Arm64 => "arm64",
        })
    }
}

impl fmt::Display for Symbols {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dwarf => "DWARF",
            Self::Table => "-w",
            Self::Stripped => "-s -w",
        })
    }
}

/// Builds the workload where its sources are newer than its program; says where the program is.
pub fn workload(name: &str) -> Result<PathBuf> {
    let (language, program) = split(name)?;
    match language {
        "c" => up_to_date(Recipe::c(program)),
        "cpp" => up_to_date(Recipe::cpp(program)),
        "go" => up_to_date(Recipe::go(program, GoBuild::usual(program), "go")?),
        "rust" => crate::rust::build(program),
        _ => bail!("workload {name}: no compiler is known for {language}"),
    }
}

/// The same for `go/NAME`, built in a certain way.
pub fn go_workload(name: &str, build: GoBuild) -> Result<PathBuf> {
    let (language, program) = split(name)?;
    ensure!(language == "go", "workload {name} is not written in Go");
    let folder = build.to_string().replace(' ', "").replace('-', "_");
    up_to_date(Recipe::go(program, build, &folder)?)
}

fn split(name: &str) -> Result<(&str, &str)> {
    name.split_once('/').with_context(|| format!("workload {name}: the name is LANGUAGE/PROGRAM"))
}

fn up_to_date(mut recipe: Recipe) -> Result<PathBuf> {
    if places::is_prebuilt() {
        return prebuilt(recipe.program);
    }
    let building = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let newest_source = newest(&recipe.sources)?;
    let is_current = modified(&recipe.program).is_ok_and(|built| built >= newest_source);
    if !is_current {
        recipe.build()?;
    }
    drop(building);
    Ok(recipe.program)
}

/// A program that was built on another machine, with this one in mind.
pub(crate) fn prebuilt(program: PathBuf) -> Result<PathBuf> {
    ensure!(
        program.is_file(),
        "{} was not built on the host, and here is no compiler: run this test there first",
        program.display()
    );
    Ok(program)
}

struct Recipe {
    /// Files and folders: a change in any of them makes the program stale.
    sources: Vec<PathBuf>,
    program: PathBuf,
    compiler: Command,
    /// The last argument: what to compile.
    input: String,
}

impl Recipe {
    fn c(program: &str) -> Self {
        let folder = sources().join("c");
        let clang = clang(program);
        let named = clang.map_or("gcc", |(version, _)| version.c);
        let mut compiler = gcc(&folder, if program.contains(MUSL) { "musl-gcc" } else { named });
        let source = clang.map_or(program, |(_, source)| source);
        let variant = VARIANTS.iter().find_map(|(prefix, flag)| {
            let source = source.strip_prefix(prefix)?;
            compiler.arg(flag);
            Some(source)
        });
        let source = variant.unwrap_or(source);
        let source = source.strip_prefix(MUSL).unwrap_or(source);
        Self {
            sources: vec![folder.join("contract.h"), folder.join(source)],
            program: programs().join("c").join(program),
            compiler,
            input: format!("{source}/main.c"),
        }
    }

    fn cpp(program: &str) -> Self {
        let folder = sources().join("cpp");
        let clang = clang(program);
        let mut compiler = gcc(&folder, clang.map_or("g++", |(version, _)| version.cpp));
        compiler.arg("-I../c");
        let mut source = clang.map_or(program, |(_, source)| source);
        while let Some((flag, rest)) =
            CPP_VARIANTS.iter().find_map(|(prefix, flag)| Some((flag, source.strip_prefix(prefix)?)))
        {
            compiler.arg(flag);
            source = rest;
        }
        Self {
            sources: vec![sources().join("c/contract.h"), folder.join(source)],
            program: programs().join("cpp").join(program),
            compiler,
            input: format!("{source}/main.cc"),
        }
    }

    fn go(program: &str, build: GoBuild, built_in: &str) -> Result<Self> {
        let folder = sources().join("go");
        let toolchain = places::go_root(build.version)?.join("VERSION");
        Ok(Self {
            sources: vec![folder.join("contract"), folder.join(program), toolchain],
            program: programs().join(built_in).join(program),
            compiler: go(&folder, program, build)?,
            input: format!("./{program}"),
        })
    }

    fn build(&mut self) -> Result<()> {
        let folder = self.program.parent().context("the program lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // Renamed into place: another test process may be starting the old program right now.
        let unfinished = self.program.with_extension(process::id().to_string());
        let output = self.compiler.arg("-o").arg(&unfinished).arg(&self.input).output();
        let output =
            output.with_context(|| format!("run {:?} for {}", self.compiler.get_program(), self.input))?;
        ensure!(
            output.status.success(),
            "build workload {}: {}\n{}",
            self.input,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&unfinished, &self.program)
            .with_context(|| format!("rename {} to {}", unfinished.display(), self.program.display()))
    }
}

fn sources() -> PathBuf {
    places::repository().join("tests/workloads")
}

fn programs() -> PathBuf {
    places::target().join("workloads")
}

/// Prefixes of names, and what gcc is told then.
const VARIANTS: [(&str, &str); 4] = [
    ("asan_", "-fsanitize=address"),
    ("tsan_", "-fsanitize=thread"),
    ("lsan_", "-fsanitize=leak"),
    ("static_", "-static"),
];

/// The same for g++; a name may have several.
const CPP_VARIANTS: [(&str, &str); 4] =
    [("stripped_", "-s"), ("nortti_", "-fno-rtti"), ("nopie_", "-no-pie"), ("static_", "-static")];

/// A release of clang: how names begin that are built by it, and its compilers of C and C++.
struct Clang {
    prefix: &'static str,
    c: &'static str,
    cpp: &'static str,
}

/// The oldest and the newest of [`sanitized`].
const CLANGS: [Clang; 2] = [
    Clang { prefix: "clang14_", c: "clang-14", cpp: "clang++-14" },
    Clang { prefix: "clang22_", c: "clang-22", cpp: "clang++-22" },
];

/// The clang that a name asks for, and the rest of the name.
fn clang(program: &str) -> Option<(&'static Clang, &str)> {
    CLANGS.iter().find_map(|clang| Some((clang, program.strip_prefix(clang.prefix)?)))
}

/// What of a name says that the C library is musl.
const MUSL: &str = "musl_";

fn gcc(folder: &Path, program: &str) -> Command {
    let mut gcc = Command::new(program);
    gcc.current_dir(folder).args(["-O2", "-g", "-Wall", "-Wextra", "-pthread", "-I."]);
    gcc
}

fn go(folder: &Path, program: &str, build: GoBuild) -> Result<Command> {
    let root = places::go_root(build.version)?;
    ensure!(
        places::is_prebuilt() || root.join("bin/go").is_file(),
        "build {program} with Go {}: it is not in {}; run `cargo xtask setup --all`",
        build.version,
        root.display()
    );
    let cache = places::cache()?;
    let mut go = Command::new(root.join("bin/go"));
    // Nothing of the user's own Go may leak in, and nothing may be fetched.
    go.env("GOROOT", &root).env("GOTOOLCHAIN", "local").env("GOENV", "off").env("GOPROXY", "off");
    go.env("GOFLAGS", "-mod=mod").env("GOWORK", "off");
    let is_go_alone = matches!(build.kind, Kind::Plain | Kind::Pie | Kind::Arm64);
    go.env("CGO_ENABLED", if is_go_alone { "0" } else { "1" });
    go.env("GOARCH", if build.kind == Kind::Arm64 { "arm64" } else { "amd64" });
    let frames =
        if build.kind == Kind::CgoFrames { "-fno-omit-frame-pointer" } else { "-fomit-frame-pointer" };
    go.env("CGO_CFLAGS", format!("-O2 -g {frames}"));
    go.env("GOCACHE", cache.join("go-build")).env("GOPATH", cache.join("go-path"));
    go.current_dir(folder).arg("build").args(build.arguments());
    Ok(go)
}

fn newest(sources: &[PathBuf]) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in sources {
        newest = newest.max(modified(source)?);
        if source.is_dir() {
            for entry in fs::read_dir(source).with_context(|| format!("list {}", source.display()))? {
                newest = newest.max(modified(&entry?.path())?);
            }
        }
    }
    Ok(newest)
}

fn modified(path: &Path) -> Result<SystemTime> {
    let metadata = fs::metadata(path).with_context(|| format!("read the date of {}", path.display()))?;
    metadata.modified().with_context(|| format!("read the date of {}", path.display()))
}
