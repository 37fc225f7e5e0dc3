//! Programs of C built with a sanitizer: the heap is in the row that says so, the shadow in another.

use anyhow::{Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

const PORTIONS: [u64; 2] = [20, 33];

fn leaks_in(name: &str, heap: &str) -> Result<Value> {
    let mut workload = Workload::start(name)?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let mut truth = 0;
    for steps in PORTIONS {
        truth += workload.grow(steps)?;
    }
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let grown_bytes = expect::number(expect::component(&report, heap)?, "/growth")?;
    let tolerance_bytes = expect::tolerance_bytes(truth);
    ensure!(
        grown_bytes.unsigned_abs().abs_diff(truth) <= tolerance_bytes,
        "{heap} grew by {grown_bytes} bytes, the program by {truth}: {}",
        report["components"]
    );
    let unknown =
        report["components"].as_array().into_iter().flatten().find(|row| row["id"] == "anon.unknown");
    let unknown_bytes = unknown.and_then(|row| row["growth"].as_i64()).unwrap_or(0);
    ensure!(unknown_bytes.unsigned_abs() <= tolerance_bytes, "unknown memory grew: {}", report["components"]);
    Ok(report)
}

#[test]
fn a_leak_under_address_sanitizer_is_in_its_heap() -> Result<()> {
    let report = leaks_in("c/asan_large_blocks", "asan.heap")?;
    // An eighth of the memory, at least where red zones were painted.
    let shadow_bytes = expect::number(expect::component(&report, "asan.shadow")?, "/rss")?;
    ensure!(shadow_bytes > 0, "the shadow is nowhere: {}", report["components"]);
    Ok(())
}

#[test]
fn a_leak_under_thread_sanitizer_is_in_its_heap_and_its_shadow() -> Result<()> {
    let report = leaks_in("c/tsan_large_blocks", "tsan.heap")?;
    let heap_bytes = expect::number(expect::component(&report, "tsan.heap")?, "/growth")?;
    let shadow_bytes = expect::number(expect::component(&report, "tsan.shadow")?, "/growth")?;
    // Every byte written has shadow: two of it with TSan v3, four with v2.
    ensure!(
        (heap_bytes * 3 / 2..=heap_bytes * 5).contains(&shadow_bytes),
        "the shadow grew by {shadow_bytes} bytes, what it shadows by {heap_bytes}"
    );
    Ok(())
}

#[test]
fn a_leak_under_leak_sanitizer_is_in_its_heap() -> Result<()> {
    leaks_in("c/lsan_large_blocks", "lsan.heap").map(drop)
}
