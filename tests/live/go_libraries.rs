//! Go runtimes that are not the executable: libraries which a C program loads, each with a heap of its own; and
//! the same library without symbols.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{self, GoBuild, Kind, Symbols};
use leakprobe_tests::places::{NEWEST_GO, OLDEST_GO};
use leakprobe_tests::{Deadline, Probe, Workload, expect};
use serde_json::Value;

/// The runtimes allocate a little to tell their truth.
const TOLERANCE_BYTES: u64 = 256 << 10;

/// Starts a C program that loads the library, built by each of these versions.
fn host(versions: &[&'static str], symbols: Symbols) -> Result<Workload> {
    let mut command = Command::new(compile::workload("c/go_host")?);
    for &version in versions {
        command.arg(compile::go_workload("go/library", GoBuild { version, kind: Kind::Shared, symbols })?);
    }
    Workload::start_program(command, "c/go_host", Deadline::usual())
}

fn is_read_as_it_counts(workload: &Workload) -> Result<Value> {
    let report = Probe::start(workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let found = expect::number(expect::component(&report, "go.heap.inuse")?, "/virtual")?;
    let told = expect::number(&workload.hello, "/heap_inuse")?;
    ensure!(found.abs_diff(told) <= TOLERANCE_BYTES, "{found} bytes in use in the report, {told} in truth");
    let counted = expect::number(&report, "/goroutine_totals/count")?;
    let told = expect::number(&workload.hello, "/goroutines")?;
    // The thread of C that asks is counted as a goroutine while it is in Go, since Go 1.21 for ever.
    let runtimes = expect::number(&workload.hello, "/runtimes")?;
    ensure!(
        (told - runtimes..=told).contains(&counted),
        "{counted} goroutines in the report, {told} in truth"
    );
    let gaps = report["gaps"].as_array().context("gaps are a list")?;
    ensure!(gaps.is_empty(), "something was not read: {gaps:?}");
    Ok(report)
}

fn waiting_in(report: &Value, function: &str) -> i64 {
    let groups = report["goroutines"].as_array().into_iter().flatten();
    let is_in = |group: &&Value| {
        let mut frames = group["frames"].as_array().into_iter().flatten();
        frames.any(|frame| frame["function"] == function && frame["line"].is_number())
    };
    groups.filter(is_in).filter_map(|group| group["count"].as_i64()).sum()
}

#[test]
fn a_library_without_symbols_is_read_like_a_program() -> Result<()> {
    let workload = host(&[NEWEST_GO], Symbols::Stripped)?;
    let report = is_read_as_it_counts(&workload)?;
    let count = waiting_in(&report, "main.waitInTheLibrary");
    ensure!(count == 40, "{count} of 40 goroutines wait in the library: {}", report["goroutines"]);
    Ok(())
}

#[test]
fn two_runtimes_in_a_process_are_both_read() -> Result<()> {
    let workload = host(&[NEWEST_GO, OLDEST_GO], Symbols::Dwarf)?;
    let report = is_read_as_it_counts(&workload)?;
    let count = waiting_in(&report, "main.waitInTheLibrary");
    ensure!(count == 120, "{count} of 120 goroutines wait in the libraries: {}", report["goroutines"]);
    Ok(())
}

#[test]
fn a_plug_in_is_code_on_its_hosts_runtime() -> Result<()> {
    let built = |kind| GoBuild { version: NEWEST_GO, kind, symbols: Symbols::Dwarf };
    let mut command = Command::new(compile::go_workload("go/plugin_host", built(Kind::Cgo))?);
    command.arg(compile::go_workload("go/plugged", built(Kind::Plugin))?);
    let workload = Workload::start_program(command, "go/plugin_host", Deadline::usual())?;
    let report = is_read_as_it_counts(&workload)?;
    let count = waiting_in(&report, "leakprobe/workloads/plugged.waitInThePlugin");
    ensure!(count == 40, "{count} of 40 goroutines wait in the plug-in: {}", report["goroutines"]);
    Ok(())
}
