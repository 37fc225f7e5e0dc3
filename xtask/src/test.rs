//! `cargo xtask test`: everything that must hold, from the formatting to leakprobe on real processes.
//!
//! A machine that cannot run the live tests fails them: a test that was not run proves nothing.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use leakprobe_tests::places;

use crate::bless::GOLDEN;
use crate::command::{build_leakprobe, cargo, ensure_root, in_the_open};
use crate::setup::Releases;
use crate::{codegen, setup, tidy, vm};

type Step = (&'static str, fn() -> Result<()>);

/// Cheap before dear.
const STEPS: [Step; 11] = [
    ("set-up", || setup::run(Releases::Corners)),
    ("format", format),
    ("clippy", clippy),
    ("tidy", tidy::run),
    ("unit tests", unit_tests),
    ("harness", harness),
    ("golden tests", golden),
    ("Go layouts", codegen::check),
    ("Go's variables", globals),
    ("live tests", live),
    ("other kernels", vm::corners),
];

enum Verdict {
    Passed(f64),
    Failed(f64),
    NotRun,
}

/// What `--all` does besides: every version of what the ordinary run tries at the corners.
const WIDE_STEPS: [Step; 6] = [
    ("wide set-up", || setup::run(Releases::All)),
    ("versions of Go", versions_of_go),
    ("compilers", compilers),
    ("stacks", stacks),
    ("the page in Chromium", browser),
    ("ordinary programs", ordinary),
];

pub(crate) fn run(all: bool, keep_going: bool) -> Result<()> {
    let mut verdicts = Vec::new();
    let mut failures = 0;
    let wide: &[Step] = if all { &WIDE_STEPS } else { &[] };
    for (name, step) in STEPS.iter().chain(wide) {
        if failures > 0 && !keep_going {
            verdicts.push((*name, Verdict::NotRun));
            continue;
        }
        println!("── {name}");
        let started = Instant::now();
        let result = step();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => verdicts.push((*name, Verdict::Passed(seconds))),
            Err(error) => {
                println!("{error:#}");
                failures += 1;
                verdicts.push((*name, Verdict::Failed(seconds)));
            }
        }
    }
    summarize(&verdicts);
    if failures > 0 {
        bail!("{failures} of {} steps failed", verdicts.len());
    }
    Ok(())
}

fn summarize(verdicts: &[(&str, Verdict)]) {
    println!();
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Passed(seconds) => println!("{name:14} passed {seconds:7.1} s"),
            Verdict::Failed(seconds) => println!("{name:14} FAILED {seconds:7.1} s"),
            Verdict::NotRun => println!("{name:14} not run"),
        }
    }
}

fn format() -> Result<()> {
    in_the_open(cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    in_the_open(cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn unit_tests() -> Result<()> {
    in_the_open(cargo(&["test", "--quiet", "--package", "leakprobe", "--package", "xtask"]))
}

fn harness() -> Result<()> {
    in_the_open(cargo(&["test", "--quiet", "--package", "leakprobe-tests", "--lib"]))
}

fn golden() -> Result<()> {
    in_the_open(cargo(&GOLDEN))
}

fn globals() -> Result<()> {
    in_the_open(cargo(&["test", "--quiet", "--package", "leakprobe-tests", "--test", "globals"]))
}

fn live() -> Result<()> {
    in_the_open(live_tests(&[])?)
}

/// Writes the table into the document that explains it.
fn versions_of_go() -> Result<()> {
    let mut globals = cargo(&["test", "--quiet", "--package", "leakprobe-tests", "--test", "globals"]);
    globals.env("LEAKPROBE_VERSIONS", "all");
    in_the_open(globals)?;
    let mut versions = live_tests(&["versions::", "heap_profile::", "heap_slack::"])?;
    versions.env("LEAKPROBE_VERSIONS", "all");
    versions.env("LEAKPROBE_TABLE", places::repository().join("docs/go-runtime.md"));
    in_the_open(versions)
}

/// Sanitizers of every compiler, and what clang makes without any.
fn compilers() -> Result<()> {
    let mut sanitizers = live_tests(&["sanitizers_everywhere::", "programs_of_clang"])?;
    sanitizers.env("LEAKPROBE_VERSIONS", "all");
    sanitizers.env("LEAKPROBE_TABLE", places::repository().join("docs/sanitizers.md"));
    in_the_open(sanitizers)
}

fn stacks() -> Result<()> {
    let mut stacks = live_tests(&["stacks::"])?;
    stacks.env("LEAKPROBE_VERSIONS", "all");
    stacks.env("LEAKPROBE_TABLE", places::repository().join("docs/stacks.md"));
    in_the_open(stacks)
}

fn browser() -> Result<()> {
    in_the_open(cargo(&["test", "--quiet", "--package", "leakprobe-tests", "--test", "browser"]))
}

/// `cargo xtask ordinary`: what is said of programs that nobody here wrote, and the table of it.
pub(crate) fn ordinary() -> Result<()> {
    setup::ordinary_programs()?;
    let mut ordinary = live_tests(&["ordinary::"])?;
    ordinary.env("LEAKPROBE_VERSIONS", "all");
    ordinary.env("LEAKPROBE_TABLE", places::repository().join("docs/ordinary-programs.md"));
    in_the_open(ordinary)
}

fn live_tests(filter: &[&str]) -> Result<Command> {
    ensure_root("test", "the live tests read other processes' memory and load BPF programs")?;
    let leakprobe = build_leakprobe()?;
    let live = ["test", "--package", "leakprobe-tests", "--test", "live", "--", "--test-threads=1"];
    let mut command = cargo(&[live.as_slice(), filter].concat());
    // Their errors say what was attempted; where in the harness is of no interest.
    command.env("LEAKPROBE_BIN", leakprobe).env("RUST_LIB_BACKTRACE", "0");
    Ok(command)
}
