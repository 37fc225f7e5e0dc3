//! Stacks reach from the function that touched the memory to the one where the program's own calls began: in C, C++ and
//! Rust, out of signal handlers, between Go and C in both directions, and out of the race detector.
//!
//! Ordinarily the corners. With LEAKPROBE_VERSIONS=all it is every build, and the table goes into the file that
//! LEAKPROBE_TABLE names; `cargo xtask test --all` sets both.

use std::fmt;
use std::process::Command;

use anyhow::{Context as _, Result};
use leakprobe_tests::compile::native::{Language, Link, NativeBuild, native_chain};
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::{self, GO_VERSIONS, NEWEST_GO, OLDEST_GO};
use leakprobe_tests::{Deadline, Workload, expect};
use serde_json::Value;

use crate::chain::{Chain, End, Followed, follow};
use crate::{matrix, stacks_table};

/// A program of the matrix.
#[derive(Clone, Copy)]
pub(crate) enum Build {
    Native(NativeBuild),
    Go(GoBuild),
}

impl fmt::Display for Build {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(build) => build.fmt(formatter),
            Self::Go(build) => build.fmt(formatter),
        }
    }
}

/// What was measured of one program.
pub(crate) struct Cell {
    pub(crate) build: Build,
    pub(crate) followed: Followed,
    /// Of what the race detector took for itself, all and that with a Go function of the program or of its libraries.
    pub(crate) race_bytes: Option<[i64; 2]>,
}

#[test]
fn stacks_are_whole() -> Result<()> {
    let builds = if places::all_versions() { every_build() } else { corners() };
    matrix::check(builds, measure, stacks_table::tables)
}

fn corners() -> Vec<Build> {
    let native = |language, link, is_stripped| {
        Build::Native(NativeBuild { language, link, is_stripped, keeps_frame_pointers: false })
    };
    let go = |version, kind| Build::Go(GoBuild { version, kind, symbols: Symbols::Stripped });
    vec![
        native(Language::C, Link::Pie, false),
        native(Language::C, Link::Static, false),
        native(Language::Cpp, Link::Pie, false),
        native(Language::Cpp, Link::Static, true),
        native(Language::Rust, Link::Pie, true),
        go(OLDEST_GO, Kind::Cgo),
        go(NEWEST_GO, Kind::Cgo),
        go(NEWEST_GO, Kind::Race),
    ]
}

fn every_build() -> Vec<Build> {
    let mut builds: Vec<Build> = NativeBuild::all().into_iter().map(Build::Native).collect();
    for version in GO_VERSIONS {
        for kind in [Kind::Plain, Kind::Pie, Kind::Cgo, Kind::CgoFrames, Kind::Race] {
            for symbols in [Symbols::Dwarf, Symbols::Stripped] {
                builds.push(Build::Go(GoBuild { version, kind, symbols }));
            }
        }
    }
    builds
}

/// The chains of a program, and what else it is asked for.
fn chains(build: Build) -> (Vec<Chain>, &'static [&'static str]) {
    let of = |verb, innermost, outermost| Chain { verb, innermost, outermost };
    let (inner, outer) = (End::INNERMOST, End::OUTERMOST);
    let whole_native = of("grow", inner, outer);
    let in_go = [
        of("mmap", End::Named("main.mmapInnermost"), End::Named("main.mmapOutermost")),
        of("heap", End::Named("main.heapInnermost"), End::Named("main.heapOutermost")),
    ];
    match build {
        Build::Native(NativeBuild { language: Language::C, .. }) => {
            (vec![whole_native, of("signal", inner, outer), of("onstack", inner, outer)], &[])
        }
        Build::Native(_) => (vec![whole_native], &[]),
        Build::Go(GoBuild { kind: Kind::Cgo | Kind::CgoFrames, .. }) => {
            let across = [
                of("cgo", inner, End::Named("main.cgoOutermost")),
                of("callback", inner, End::Named("main.callbackOutermost")),
                of("thread", End::Named("main.mmapInnermost"), outer),
            ];
            ([&in_go[..], &across].concat(), &[])
        }
        Build::Go(GoBuild { kind: Kind::Race, .. }) => (in_go.to_vec(), &["spawn"]),
        Build::Go(_) => (in_go.to_vec(), &[]),
    }
}

fn measure(build: Build) -> Result<(Cell, Vec<String>)> {
    let workload = match build {
        Build::Native(native) => {
            let program = native_chain(native)?;
            Workload::start_program(Command::new(program), &build.to_string(), Deadline::usual())?
        }
        Build::Go(go) => Workload::start_built("go/stacks", go)?,
    };
    let (chains, others) = chains(build);
    let (followed, report) = follow(workload, &chains, others)?;
    let mut complaints = followed.complaints();
    let is_race = matches!(build, Build::Go(GoBuild { kind: Kind::Race, .. }));
    let race_bytes = is_race.then(|| race_bytes(&report)).transpose()?;
    if let Some([all, told]) = race_bytes.filter(|[all, told]| told * 100 < all * 90) {
        complaints
            .push(format!("{told} of the race detector's {all} bytes have a Go function of the program"));
    }
    Ok((Cell { build, followed, race_bytes }, complaints))
}

fn race_bytes(report: &Value) -> Result<[i64; 2]> {
    let sites = report["call_sites"].as_array().context("call sites are a list")?;
    let mut bytes = [0, 0];
    for site in
        sites.iter().filter(|site| site["component"].as_str().is_some_and(|id| id.starts_with("tsan.")))
    {
        let mut frames = site["frames"].as_array().into_iter().flatten();
        bytes[0] += expect::number(site, "/bytes")?;
        bytes[1] += if frames.any(is_programs) { expect::number(site, "/bytes")? } else { 0 };
    }
    Ok(bytes)
}

/// Whether it is Go code, and not the runtime's.
fn is_programs(frame: &Value) -> bool {
    let is_go = frame["file"].as_str().is_some_and(|file| file.ends_with(".go"));
    let runtimes = ["runtime.", "runtime/", "internal/runtime/", "internal/race."];
    let is_runtimes = |name: &str| runtimes.iter().any(|start| name.starts_with(start));
    is_go && frame["function"].as_str().is_some_and(|name| !is_runtimes(name))
}
