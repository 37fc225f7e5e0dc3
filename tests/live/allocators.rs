//! Allocators preloaded in malloc's place: named, and divided where their structures are known.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Deadline, Probe, Workload, compile, expect};
use serde_json::Value;

/// What an allocator keeps of its own, and in its threads' caches.
const OWN_BYTES: i64 = 4 << 20;
const PORTIONS: [u64; 2] = [20, 33];

fn start(name: &str, library: &str) -> Result<Workload> {
    let mut command = Command::new(compile::workload(name)?);
    // What jemalloc was given back it keeps, so that there is something to find.
    command.env("LD_PRELOAD", library).env("MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1");
    Workload::start_program(command, name, Deadline::usual())
}

fn grows(library: &str, allocator: &str) -> Result<Value> {
    let mut workload = start("c/large_blocks", library)?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let mut truth = 0;
    for steps in PORTIONS {
        truth += workload.grow(steps)?;
    }
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let row = expect::component(&report, "c.heap.inuse")?;
    let grown_bytes = expect::number(row, "/growth")?;
    ensure!(
        grown_bytes.unsigned_abs().abs_diff(truth) <= expect::tolerance_bytes(truth),
        "the C heap grew by {grown_bytes}, the program by {truth}: {row}"
    );
    ensure!(row["allocator"] == allocator, "the allocator is {allocator}: {row}");
    Ok(report)
}

fn says_that_it_is_not_divided(report: &Value, allocator: &str) -> Result<()> {
    let mut gaps = report["gaps"].as_array().into_iter().flatten();
    let names_it = |gap: &Value| gap["what"].as_str().is_some_and(|what| what.contains(allocator));
    ensure!(gaps.any(names_it), "nothing says that {allocator}'s heap is not divided: {}", report["gaps"]);
    Ok(())
}

#[test]
fn a_leak_through_jemalloc_is_the_c_heap() -> Result<()> {
    let report = grows("libjemalloc.so.2", "jemalloc")?;
    ensure!(report["gaps"].as_array().is_some_and(Vec::is_empty), "{}", report["gaps"]);
    Ok(())
}

#[test]
fn what_jemalloc_keeps_is_told_from_what_is_live() -> Result<()> {
    let workload = start("c/malloc_retained", "libjemalloc.so.2")?;
    let live_bytes = expect::number(&workload.hello, "/live_bytes")?;
    let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let in_use = expect::component(&report, "c.heap.inuse")?;
    let held_bytes = expect::number(in_use, "/rss")? - expect::number(in_use, "/slack")?;
    ensure!(
        (live_bytes..=live_bytes + OWN_BYTES).contains(&held_bytes),
        "{held_bytes} bytes are held, {live_bytes} in truth: {in_use}"
    );
    let kept_bytes = expect::number(expect::component(&report, "c.heap.free")?, "/rss")?;
    let rss_bytes = expect::number(&report, "/rss/end")?;
    let rows = report["components"].as_array().context("rows")?;
    ensure!(kept_bytes > 300_000_000, "of 300 MB of freed blocks {kept_bytes} bytes were found: {rows:?}");
    let unknown = rows.iter().find(|row| row["id"] == "anon.unknown").and_then(|row| row["rss"].as_i64());
    ensure!(unknown.unwrap_or(0) <= rss_bytes / 100, "{unknown:?} bytes are unknown: {rows:?}");
    Ok(())
}

#[test]
fn tcmalloc_and_mimalloc_are_named_and_not_divided() -> Result<()> {
    for (library, allocator) in [("libtcmalloc_minimal.so.4", "tcmalloc"), ("libmimalloc.so.2", "mimalloc")] {
        says_that_it_is_not_divided(&grows(library, allocator)?, allocator)?;
    }
    Ok(())
}
