//! The Go heap by what its pages are for, against what the program's own runtime counts.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

const KIB: u64 = 1024;

/// The runtime allocates a little to tell its truth.
fn tolerance_bytes(truth_bytes: u64) -> u64 {
    (truth_bytes / 100).max(128 * KIB)
}

fn is_near(what: &str, found: u64, truth: u64) -> Result<()> {
    let tolerance_bytes = tolerance_bytes(truth);
    ensure!(found.abs_diff(truth) <= tolerance_bytes, "{what}: {found} in the report, {truth} in truth");
    Ok(())
}

fn bytes(value: &Value, pointer: &str) -> Result<u64> {
    u64::try_from(expect::number(value, pointer)?)
        .with_context(|| format!("{pointer} is negative in {value}"))
}

fn snapshot(workload: &Workload) -> Result<Value> {
    let report = Probe::start(workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    Ok(report)
}

#[test]
fn the_heap_divides_as_the_runtime_counts_it() -> Result<()> {
    let mut workload = Workload::start("go/heap_truth")?;
    let before = workload.ask("truth")?;
    let report = snapshot(&workload)?;
    let after = workload.ask("truth")?;
    let objects = expect::component(&report, "go.heap.inuse")?;
    let idle = expect::component(&report, "go.heap.idle")?;
    let stacks = expect::component(&report, "go.stacks")?;

    is_near("spans in use", bytes(objects, "/virtual")?, bytes(&before, "/heap_inuse")?)?;
    is_near("idle pages", bytes(idle, "/virtual")?, bytes(&before, "/heap_idle")?)?;
    is_near("stacks", bytes(stacks, "/virtual")?, bytes(&before, "/stack_inuse")?)?;
    // Every object was touched, and of a stack what was used of it.
    is_near("resident objects", bytes(objects, "/rss")?, bytes(&before, "/heap_inuse")?)?;
    ensure!(bytes(stacks, "/rss")? <= bytes(stacks, "/virtual")?, "more stack than there is: {stacks}");
    // The runtime returns idle pages in the background, as it likes.
    let kept = |truth: &Value| -> Result<u64> {
        Ok(bytes(truth, "/heap_idle")?.saturating_sub(bytes(truth, "/heap_released")?))
    };
    let (most, least) = (kept(&before)?, kept(&after)?);
    let idle_bytes = bytes(idle, "/rss")?;
    ensure!(
        (least.saturating_sub(tolerance_bytes(least))..=most + tolerance_bytes(most)).contains(&idle_bytes),
        "{idle_bytes} idle bytes are resident, in truth {most} and later {least}"
    );
    let gaps = report["gaps"].as_array().context("gaps are a list")?;
    ensure!(gaps.is_empty(), "a quiet program was not read whole: {gaps:?}");
    Ok(())
}

#[test]
fn what_pprof_cannot_see_is_all_but_the_spans_in_use() -> Result<()> {
    let workload = Workload::start("go/heap_truth")?;
    let report = snapshot(&workload)?;
    let objects = bytes(expect::component(&report, "go.heap.inuse")?, "/rss")?;
    let outside = bytes(&report, "/rss/end")? - objects;
    ensure!(bytes(&report, "/unaccounted/bytes")? == outside, "{}", report["unaccounted"]);
    Ok(())
}

#[test]
fn the_heap_profile_is_what_pprof_would_write() -> Result<()> {
    let mut workload = Workload::start("go/heap_truth")?;
    let report = snapshot(&workload)?;
    let truth = workload.ask("truth")?;
    ensure!(report["heap_profile"]["source"] == "mbuckets", "{}", report["heap_profile"]);
    let (found, told) = (bytes(&report, "/heap_profile/in_use")?, bytes(&truth, "/profile_bytes")?);
    // No collection comes between the two; each bucket is rounded down.
    ensure!(found.abs_diff(told) <= 4 * KIB, "a profile of {found} bytes in the report, {told} in truth");
    Ok(())
}

#[test]
fn a_program_without_a_heap_profile_is_told() -> Result<()> {
    let workload = Workload::start("go/heap_leak")?;
    let report = snapshot(&workload)?;
    ensure!(report["heap_profile"]["source"] == "none", "{}", report["heap_profile"]);
    ensure!(report["heap_profile"]["in_use"].is_null(), "{}", report["heap_profile"]);
    ensure!(report["heap_profile"]["note"].is_string(), "nothing says why: {}", report["heap_profile"]);
    Ok(())
}
