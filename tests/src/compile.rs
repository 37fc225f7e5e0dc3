//! Builds the workloads: `c/NAME` with gcc, `go/NAME` with the Go in the user's cache.
//!
//! The surprise: a name that starts with `race_` is built with `-race`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use crate::places;

/// One build at a time, so that two tests never build the same program twice.
static BUILDING: Mutex<()> = Mutex::new(());

/// Builds the workload where its sources are newer than its program; says where the program is.
pub fn workload(name: &str) -> Result<PathBuf> {
    let building = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut recipe = Recipe::of(name)?;
    let newest_source = newest(&recipe.sources)?;
    let is_current = modified(&recipe.program).is_ok_and(|built| built >= newest_source);
    if !is_current {
        recipe.build(name)?;
    }
    drop(building);
    Ok(recipe.program)
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
    fn of(name: &str) -> Result<Self> {
        let (language, program) =
            name.split_once('/').with_context(|| format!("workload {name}: the name is LANGUAGE/PROGRAM"))?;
        let folder = places::repository().join("tests/workloads").join(language);
        let source = folder.join(program);
        ensure!(source.is_dir(), "workload {name}: there is no folder {}", source.display());
        let (compiler, input, mut sources) = match language {
            "c" => (gcc(&folder), format!("{program}/main.c"), vec![folder.join("contract.h")]),
            "go" => {
                let sources = vec![folder.join("contract"), places::go_root()?.join("VERSION")];
                (go(&folder, program)?, format!("./{program}"), sources)
            }
            _ => bail!("workload {name}: no compiler is known for {language}"),
        };
        sources.push(source);
        let program = places::target().join("workloads").join(language).join(program);
        Ok(Self { sources, program, compiler, input })
    }

    fn build(&mut self, name: &str) -> Result<()> {
        let folder = self.program.parent().context("the program lies in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        // Renamed into place: another test process may be starting the old program right now.
        let unfinished = self.program.with_extension(process::id().to_string());
        let output = self.compiler.arg("-o").arg(&unfinished).arg(&self.input).output();
        let output = output.with_context(|| format!("run {:?} for {name}", self.compiler.get_program()))?;
        ensure!(
            output.status.success(),
            "build workload {name}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&unfinished, &self.program)
            .with_context(|| format!("rename {} to {}", unfinished.display(), self.program.display()))
    }
}

fn gcc(folder: &Path) -> Command {
    let mut gcc = Command::new("gcc");
    gcc.current_dir(folder).args(["-O2", "-g", "-Wall", "-Wextra", "-pthread", "-I."]);
    gcc
}

fn go(folder: &Path, program: &str) -> Result<Command> {
    let root = places::go_root()?;
    ensure!(
        root.join("bin/go").is_file(),
        "build {program} with Go {}: it is not in {}; run `cargo xtask setup`",
        places::GO_VERSION,
        root.display()
    );
    let cache = places::cache()?;
    let mut go = Command::new(root.join("bin/go"));
    // Nothing of the user's own Go may leak in, and nothing may be fetched.
    go.env("GOROOT", &root).env("GOTOOLCHAIN", "local").env("GOENV", "off").env("GOPROXY", "off");
    go.env("GOFLAGS", "-mod=mod").env("CGO_ENABLED", "1").env("GOWORK", "off");
    go.env("GOCACHE", cache.join("go-build")).env("GOPATH", cache.join("go-path"));
    go.current_dir(folder).arg("build");
    if program.starts_with("race_") {
        go.arg("-race");
    }
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
