//! Versions of Go that leakprobe does not know, and programs that lie about theirs: right numbers and a note, or a gap,
//! and never a wrong number.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{self, GoBuild, Kind, Symbols};
use leakprobe_tests::{Deadline, Probe, Workload, expect, places};
use serde_json::Value;

/// What comes before the version in an executable: magic, pointer size and flags, two empty pointers, a length.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const VERSION_OFFSET: usize = 33;

/// `go/heap_truth`, built by the newest Go, with `version` in its build record.
fn said_to_be(version: &str, symbols: Symbols) -> Result<Workload> {
    let build = GoBuild { version: places::NEWEST_GO, kind: Kind::Plain, symbols };
    let honest = compile::go_workload("go/heap_truth", build)?;
    let mut bytes = fs::read(&honest).with_context(|| format!("read {}", honest.display()))?;
    let record = bytes.windows(MAGIC.len()).position(|window| window == MAGIC).context("a build record")?;
    let place = record + VERSION_OFFSET..record + VERSION_OFFSET + version.len();
    let written = bytes.get_mut(place).context("a version")?;
    ensure!(written.len() == places::NEWEST_GO.len() + 2, "{version} has another length");
    written.copy_from_slice(version.as_bytes());
    let program = honest.with_file_name(format!("heap_truth_{version}"));
    // A program that still runs cannot be written to.
    fs::remove_file(&program).ok();
    fs::copy(&honest, &program).with_context(|| format!("copy to {}", program.display()))?;
    fs::write(&program, bytes).with_context(|| format!("write {}", program.display()))?;
    Workload::start_program(Command::new(program), &format!("go/heap_truth as {version}"), Deadline::usual())
}

fn snapshot(workload: &Workload) -> Result<Value> {
    let report = Probe::start(workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    Ok(report)
}

fn gaps(report: &Value) -> Result<Vec<String>> {
    let gaps = report["gaps"].as_array().context("gaps are a list")?;
    Ok(gaps.iter().map(|gap| format!("{}: {}", gap["what"], gap["why"])).collect())
}

fn has_gap(report: &Value, words: &[&str]) -> Result<()> {
    let gaps = gaps(report)?;
    let is_there = gaps.iter().any(|gap| words.iter().all(|word| gap.contains(word)));
    ensure!(is_there, "no gap says {words:?}: {gaps:?}");
    Ok(())
}

fn heap_is_right(workload: &mut Workload, report: &Value) -> Result<()> {
    let truth = workload.ask("truth")?;
    for (component, counted) in
        [("go.heap.inuse", "heap_inuse"), ("go.heap.idle", "heap_idle"), ("go.stacks", "stack_inuse")]
    {
        let found = expect::component(report, component)?["virtual"].as_u64().context("bytes")?;
        let truth_bytes = truth[counted].as_u64().context("bytes")?;
        // The runtime allocates a little to tell its truth.
        let tolerance_bytes = (truth_bytes / 100).max(128 << 10);
        ensure!(
            found.abs_diff(truth_bytes) <= tolerance_bytes,
            "{component}: {found}, in truth {truth_bytes}"
        );
    }
    Ok(())
}

#[test]
fn a_newer_go_is_read_by_its_debug_information() -> Result<()> {
    let mut workload = said_to_be("go1.99.3", Symbols::Dwarf)?;
    let report = snapshot(&workload)?;
    has_gap(&report, &["Go 1.99", "newer than what leakprobe knows", "debug information"])?;
    heap_is_right(&mut workload, &report)
}

#[test]
fn a_newer_go_that_looks_like_the_newest_known_is_read_like_it() -> Result<()> {
    for symbols in [Symbols::Table, Symbols::Stripped] {
        let mut workload = said_to_be("go1.99.3", symbols)?;
        let report = snapshot(&workload)?;
        has_gap(&report, &["Go 1.99", "newer than what leakprobe knows", "looks like that of Go 1.27"])?;
        heap_is_right(&mut workload, &report)?;
    }
    Ok(())
}

#[test]
fn structures_that_are_not_those_of_the_version_are_a_gap() -> Result<()> {
    // 1.25 has its threads linked elsewhere, and nothing but that tells.
    for (version, symbols) in
        [("go1.21.9", Symbols::Table), ("go1.21.9", Symbols::Stripped), ("go1.25.3", Symbols::Table)]
    {
        let workload = said_to_be(version, symbols)?;
        let report = snapshot(&workload)?;
        has_gap(&report, &["the Go heap and runtime"]).with_context(|| version.to_owned())?;
        let rows = report["components"].as_array().context("components are a list")?;
        let is_heap = |row: &&Value| row["id"].as_str().is_some_and(|id| id.starts_with("go.heap"));
        let sized =
            rows.iter().filter(is_heap).find(|row| row["rss"].as_u64().is_some_and(|bytes| bytes > 0));
        ensure!(sized.is_none(), "{version}: a heap that nobody read: {sized:?}");
    }
    Ok(())
}
