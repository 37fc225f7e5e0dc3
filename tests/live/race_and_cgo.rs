//! The race detector's own memory beside C's and Go's, all of it made before leakprobe came: in programs that the
//! C linker linked, with names and without.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::{NEWEST_GO, OLDEST_GO};
use leakprobe_tests::{Probe, Workload, expect};

fn is_divided(version: &'static str, symbols: Symbols) -> Result<()> {
    let build = GoBuild { version, kind: Kind::Race, symbols };
    let workload = Workload::start_built("go/race_cgo", build)?;
    let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let truth = |key: &str| -> Result<u64> {
        workload.hello[key].as_u64().with_context(|| format!("{key} is not in {}", workload.hello))
    };
    let row = |id: &str| -> Result<u64> {
        let found = expect::rows(&report)?.iter().find(|row| row["id"] == id);
        found.map_or(Ok(0), |row| Ok(expect::number(row, "/rss")?.unsigned_abs()))
    };
    let near = |found: u64, truth: u64| found.abs_diff(truth) <= expect::tolerance_bytes(truth);
    let c_heap_bytes = row("c.heap.inuse")? + row("c.heap.free")?;
    ensure!(
        near(c_heap_bytes, truth("block_bytes")?),
        "C's heap holds {c_heap_bytes} bytes, {} in truth\n{}",
        truth("block_bytes")?,
        expect::ledger(&report)
    );
    // What C mapped itself before anybody watched is nobody's; least of all the race detector's.
    ensure!(
        near(row("anon.unknown")?, truth("mapped_bytes")?),
        "unknown is another length than what C mapped\n{}",
        expect::ledger(&report)
    );
    let goroutines = truth("goroutines_started")?;
    // 240 bytes of each for ever, and what those need that live.
    let own_bytes = row("tsan.runtime")?;
    ensure!(
        own_bytes >= 240 * goroutines,
        "the race detector's own is {own_bytes} bytes\n{}",
        expect::ledger(&report)
    );
    let gaps = &report["gaps"];
    ensure!(gaps.as_array().is_some_and(Vec::is_empty), "there are gaps: {gaps}");
    Ok(())
}

#[test]
fn a_stripped_race_build_with_c_code_is_divided() -> Result<()> {
    is_divided(NEWEST_GO, Symbols::Stripped)
}

#[test]
fn a_race_build_with_c_code_is_divided_by_its_symbols() -> Result<()> {
    is_divided(NEWEST_GO, Symbols::Dwarf)
}

#[test]
fn the_oldest_stripped_race_build_with_c_code_is_divided() -> Result<()> {
    is_divided(OLDEST_GO, Symbols::Stripped)
}
