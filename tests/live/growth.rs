//! Growth that means something: a leak has a slope, a saw-tooth has none, and a script learns it by the exit code.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::probe::Outcome;
use leakprobe_tests::{Probe, Workload, expect, places};

const MIB: f64 = (1 << 20) as f64;

/// Watches a program that goes on by itself.
fn looked_at(mode: &str, arguments: &[&str]) -> Result<Outcome> {
    let mut workload = Workload::start("c/breathes")?;
    workload.ask(mode)?;
    Probe::start(&workload, arguments)?.finish()
}

#[test]
fn a_steady_leak_has_a_slope_with_its_uncertainty() -> Result<()> {
    let mut workload = Workload::start("c/breathes")?;
    workload.ask("leak")?;
    let report = Probe::start(&workload, &["--duration", "4s"])?.finish()?.report()?;
    let growth = &report["growth"];
    ensure!(growth["verdict"] == "grows", "a leak of one page after the other is {growth}");
    let slope = growth["per_second"].as_f64().context("a slope")?;
    let off = growth["uncertainty"].as_f64().context("an uncertainty")?;
    // What it grew by, seen by other means: whatever the machine's load made of its pace.
    let seconds = report["window"]["seconds"].as_f64().context("window.seconds")?;
    let mean = expect::number(&report, "/rss/growth")? as f64 / seconds;
    ensure!(off < slope, "{slope} ± {off} is no slope");
    ensure!((slope - mean).abs() < off.max(mean / 4.0), "slope {slope} ± {off}, and {mean} on average");
    let timeline = report["timeline"].as_array().context("a timeline")?;
    ensure!(timeline.len() >= 10, "{} looks in 4 s", timeline.len());
    Ok(())
}

#[test]
fn a_saw_tooth_is_no_leak_and_no_failure() -> Result<()> {
    let outcome = looked_at("saw", &["--duration", "4s", "--fail-on-growth", "1"])?;
    ensure!(outcome.ended.code == Some(0), "{:?}: {}", outcome.ended, outcome.stderr);
    let report = outcome.report()?;
    ensure!(report["growth"]["verdict"] == "rises_and_falls", "{}", report["growth"]);
    let fall = expect::number(&report["growth"], "/largest_fall")? as f64;
    ensure!(fall > 4.0 * MIB, "the largest fall is {fall} bytes");
    let grows = report["findings"].as_array().context("findings")?;
    ensure!(grows.is_empty(), "what is given back is no finding: {grows:?}");
    Ok(())
}

#[test]
fn growth_is_an_exit_code_for_those_who_ask() -> Result<()> {
    let leak = looked_at("leak", &["--duration", "2s", "--fail-on-growth", "64k"])?;
    ensure!(leak.ended.code == Some(1), "{:?}: {}", leak.ended, leak.stderr);
    ensure!(leak.stdout.contains("\"growth\""), "the report is written all the same");
    let idle = looked_at("rest", &["--duration", "1s", "--fail-on-growth", "64KiB"])?;
    ensure!(idle.ended.code == Some(0), "{:?}: {}", idle.ended, idle.stderr);
    let mut wrong = Command::new(places::leakprobe()?);
    wrong.args(["--pid", "1", "--fail-on-growth", "much"]);
    let wrong = Probe::spawn(wrong)?.finish()?;
    ensure!(wrong.ended.code == Some(2) && wrong.stderr.contains("10MiB"), "{}", wrong.stderr);
    Ok(())
}
