//! Allocators in malloc's place, preloaded and static, and musl's: named, and divided as they count themselves.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Deadline, Probe, Workload, compile, expect, places};
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
    is_named(&report, allocator)?;
    Ok(report)
}

fn is_named(report: &Value, allocator: &str) -> Result<()> {
    let row = expect::component(report, "c.heap.inuse")?;
    ensure!(row["allocator"] == allocator, "the allocator is {allocator}: {row}");
    Ok(())
}

fn has_no_gap(report: &Value) -> Result<()> {
    ensure!(report["gaps"].as_array().is_some_and(Vec::is_empty), "{}", report["gaps"]);
    Ok(())
}

fn snapshot(workload: &Workload) -> Result<Value> {
    let report = Probe::start(workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let unknown = expect::resident(&report, "anon.unknown");
    let rss_bytes = expect::number(&report, "/rss/end")?;
    ensure!(unknown <= rss_bytes / 100, "{unknown} bytes are unknown\n{}", expect::ledger(&report));
    Ok(report)
}

/// Resident bytes of the C heap that hold something.
fn held_bytes(report: &Value) -> Result<i64> {
    let in_use = expect::component(report, "c.heap.inuse")?;
    Ok(expect::number(in_use, "/rss")? - expect::number(in_use, "/slack")?)
}

/// Within 1 %.
fn is_about(what: &str, found: i64, told: i64, report: &Value) -> Result<()> {
    let malloc = &report["malloc"];
    ensure!(found.abs_diff(told) * 100 <= told.unsigned_abs(), "{what}: {found}, in truth {told}: {malloc}");
    Ok(())
}

#[test]
fn a_leak_through_an_allocator_is_the_c_heap() -> Result<()> {
    has_no_gap(&grows("libjemalloc.so.2", "jemalloc")?)?;
    has_no_gap(&grows("libmimalloc.so.2", "mimalloc")?)?;
    grows("libtcmalloc_minimal.so.4", "tcmalloc")?;
    Ok(())
}

#[test]
fn what_jemalloc_keeps_is_told_from_what_is_live() -> Result<()> {
    let workload = start("c/malloc_retained", "libjemalloc.so.2")?;
    let live_bytes = expect::number(&workload.hello, "/live_bytes")?;
    let report = snapshot(&workload)?;
    let held_bytes = held_bytes(&report)?;
    ensure!(
        (live_bytes..=live_bytes + OWN_BYTES).contains(&held_bytes),
        "{held_bytes} bytes are held, {live_bytes} in truth\n{}",
        expect::ledger(&report)
    );
    let kept_bytes = expect::resident(&report, "c.heap.free");
    ensure!(
        kept_bytes > 300_000_000,
        "of 300 MB of freed blocks {kept_bytes} bytes were found\n{}",
        expect::ledger(&report)
    );
    Ok(())
}

/// Blocks as the program counts them, before the allocator is asked and collects what another thread freed; and bytes
/// as the program, or the allocator itself, counts them after that.
fn counts_blocks(mut workload: Workload, allocator: &str) -> Result<()> {
    let before = snapshot(&workload)?;
    is_named(&before, allocator)?;
    has_no_gap(&before)?;
    workload.ask("truth")?;
    let truth = workload.ask("truth")?;
    let report = snapshot(&workload)?;
    let counted = |report: &Value, what: &str| -> Result<i64> {
        let sum = |kind: &str| expect::number(report, &format!("/malloc/{kind}/{what}"));
        Ok(sum("in_use")? + sum("mapped")?)
    };
    for report in [&before, &report] {
        is_about("blocks", counted(report, "blocks")?, expect::number(&truth, "/blocks")?, report)?;
    }
    // musl's slots of these sizes have four bytes more than was asked for.
    let header_bytes = if allocator == "musl" { 4 } else { 0 };
    let told = expect::number(&truth, "/bytes")? + header_bytes * expect::number(&truth, "/blocks")?;
    is_about("bytes", counted(&report, "bytes")?, told, &report)?;
    // mimalloc counts what other threads freed and it has not collected as in use.
    let most = expect::number(&truth, "/told_bytes")?;
    ensure!(
        most == 0 || counted(&report, "bytes")? <= most + most / 100,
        "more than mimalloc's own {most}: {}",
        report["malloc"]
    );
    // The pages say the same: what is on them is blocks, and the allocator's own.
    let (held, counted) = (held_bytes(&report)?, counted(&report, "bytes")?);
    let most = counted + expect::number(&report, "/malloc/overhead")?;
    let tolerance = expect::tolerance_bytes(counted.unsigned_abs()).cast_signed();
    ensure!(
        (counted - tolerance..=most + tolerance).contains(&held),
        "{held} bytes on pages: {}",
        report["malloc"]
    );
    ensure!(expect::resident(&report, "c.heap.free") > 1 << 20, "{}", expect::ledger(&report));
    Ok(())
}

#[test]
fn blocks_of_musl_are_counted() -> Result<()> {
    for name in ["c/musl_blocks", "c/static_musl_blocks"] {
        counts_blocks(Workload::start(name)?, "musl").context(name)?;
    }
    Ok(())
}

#[test]
fn blocks_of_mimalloc_are_counted_as_mimalloc_counts_them() -> Result<()> {
    counts_blocks(start("c/blocks", "libmimalloc.so.2")?, "mimalloc")?;
    for name in ["rust/mimalloc_blocks", "rust/mimalloc2_blocks", "rust/stripped_mimalloc_blocks"] {
        counts_blocks(Workload::start(name)?, "mimalloc").context(name)?;
    }
    Ok(())
}

/// jemalloc counts the bytes of its blocks, and the pages they lie on.
fn pages_are_jemallocs(mut workload: Workload) -> Result<()> {
    let truth = workload.ask("truth")?;
    let report = snapshot(&workload)?;
    is_named(&report, "jemalloc")?;
    has_no_gap(&report)?;
    let (active, allocated) = (expect::number(&truth, "/active")?, expect::number(&truth, "/told_bytes")?);
    let in_use = expect::resident(&report, "c.heap.inuse");
    let own = in_use - active;
    // A large block need not be touched whole.
    ensure!((-active / 50..=OWN_BYTES).contains(&own), "{in_use} bytes in use, {active} active in truth");
    let held = held_bytes(&report)? - own.max(0);
    let tolerance = expect::tolerance_bytes(allocated.unsigned_abs());
    ensure!(held.abs_diff(allocated) <= tolerance, "{held} bytes held, {allocated} allocated in truth");
    Ok(())
}

#[test]
fn pages_of_jemalloc_are_counted_as_jemalloc_counts_them() -> Result<()> {
    pages_are_jemallocs(start("c/blocks", "libjemalloc.so.2")?)?;
    // Its compilation takes longer than the rest of these tests.
    if places::all_versions() {
        for name in ["rust/jemalloc_blocks", "rust/stripped_jemalloc_blocks"] {
            pages_are_jemallocs(Workload::start(name)?).context(name)?;
        }
    }
    Ok(())
}

#[test]
fn spans_of_tcmalloc_are_counted_as_tcmalloc_counts_them() -> Result<()> {
    let mut workload = start("c/blocks", "libtcmalloc_minimal.so.4")?;
    let truth = workload.ask("truth")?;
    let report = snapshot(&workload)?;
    is_named(&report, "tcmalloc")?;
    let told = |key: &str| expect::number(&truth, key);
    let (free, system) = (told("/free")?, told("/system")?);
    let kept = expect::resident(&report, "c.heap.free");
    ensure!(kept.abs_diff(free) <= 256 << 10, "{kept} bytes are kept, {free} in truth: {truth}");
    let in_use = expect::resident(&report, "c.heap.inuse");
    let own = in_use - (system - free);
    ensure!((-(256 << 10)..=OWN_BYTES).contains(&own), "{in_use} bytes in use, and {truth}");
    // What threads keep in their caches is not known to be free, and that is said.
    let held = held_bytes(&report)?;
    let least = told("/told_bytes")? + told("/cached")?;
    ensure!((least..=in_use - (3 << 20)).contains(&held), "{held} of {in_use} bytes are held: {truth}");
    let mut gaps = report["gaps"].as_array().into_iter().flatten();
    ensure!(gaps.any(|gap| gap["what"].as_str().is_some_and(|what| what.contains("tcmalloc"))), "no gap");
    Ok(())
}
