//! `cargo xtask test`: everything that must hold, from the formatting to leakprobe on real processes.
//!
//! A machine that cannot run the live tests fails them: a test that was not run proves nothing.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::bless::GOLDEN;
use crate::command::{build_leakprobe, cargo, ensure_root, in_the_open};
use crate::setup::Releases;
use crate::{codegen, setup, tidy};

type Step = (&'static str, fn() -> Result<()>);

/// Cheap before dear.
const STEPS: [Step; 9] = [
    ("set-up", || setup::run(Releases::Corners)),
    ("format", format),
    ("clippy", clippy),
    ("tidy", tidy::run),
    ("unit tests", unit_tests),
    ("harness", harness),
    ("golden tests", golden),
    ("Go layouts", codegen::check),
    ("live tests", live),
];

enum Verdict {
    Passed(f64),
    Failed(f64),
    NotRun,
}

pub(crate) fn run(_all: bool, keep_going: bool) -> Result<()> {
    let mut verdicts = Vec::new();
    let mut failures = 0;
    for (name, step) in STEPS {
        if failures > 0 && !keep_going {
            verdicts.push((name, Verdict::NotRun));
            continue;
        }
        println!("── {name}");
        let started = Instant::now();
        let result = step();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => verdicts.push((name, Verdict::Passed(seconds))),
            Err(error) => {
                println!("{error:#}");
                failures += 1;
                verdicts.push((name, Verdict::Failed(seconds)));
            }
        }
    }
    summarize(&verdicts);
    if failures > 0 {
        bail!("{failures} of {} steps failed", STEPS.len());
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

fn live() -> Result<()> {
    ensure_root("test", "the live tests read other processes' memory and load BPF programs")?;
    let leakprobe = build_leakprobe()?;
    let mut live =
        cargo(&["test", "--package", "leakprobe-tests", "--test", "live", "--", "--test-threads=1"]);
    // Their errors say what was attempted; where in the harness is of no interest.
    live.env("LEAKPROBE_BIN", leakprobe).env("RUST_LIB_BACKTRACE", "0");
    in_the_open(live)
}
