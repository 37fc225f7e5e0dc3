//! Faults and mappings as fast as a machine can: nothing is lost, or it is counted, and the ledger is exact.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

use crate::sites::{bytes_of, error_bytes_of};

/// Pages of stacks and libc, and calls to start threads, besides the storm's own.
const OTHERS: u64 = 2000;
/// docs/overhead.md: leakprobe's tables are bounded.
const OWN_PEAK_BYTES: i64 = 400 << 20;

fn lost(report: &Value, cause: &str) -> Result<u64> {
    let rows = report["tracing"]["lost"].as_array().context("lost is an array")?;
    let row = rows.iter().find(|row| row["cause"] == cause).with_context(|| format!("no {cause}"))?;
    row["count"].as_u64().context("a count is a whole number")
}

#[test]
fn in_a_storm_every_fault_and_mapping_is_recorded_or_counted_as_lost() -> Result<()> {
    let mut workload = Workload::start("c/storms")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    let answer = workload.ask("run 24")?;
    let said = |what: &str| expect::number(&answer, &format!("/{what}")).map(i64::unsigned_abs);
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let busy = lost(&report, "probes_busy")?;
    let faults = expect::number(&report, "/tracing/events/faults")?.unsigned_abs();
    let faults = faults + lost(&report, "faults_ring_full")?;
    let pages = said("pages")?;
    ensure!(faults + busy >= pages, "{faults} faults recorded or lost, {pages} made");
    ensure!(faults <= pages + OTHERS, "{faults} faults recorded or lost, {pages} made");
    let calls = expect::number(&report, "/tracing/events/mappings")?
        + expect::number(&report, "/tracing/events/unmappings")?;
    let causes = ["ring_full", "pending_full", "unpaired", "unreturned", "unreadable", "unplaced"];
    let missed = causes.map(|cause| lost(&report, &format!("calls_{cause}")));
    let missed = missed.into_iter().sum::<Result<u64>>()?;
    let calls = calls.unsigned_abs() + missed;
    let made = 2 * said("pairs")?;
    ensure!(calls + busy >= made && calls <= made + OTHERS, "{calls} calls recorded or lost, {made} made");
    let own = expect::number(&report, "/tracing/own_peak_rss")?;
    ensure!(own > 0 && own < OWN_PEAK_BYTES, "leakprobe itself took {own}");
    Ok(())
}

#[test]
fn a_storm_that_goes_on_through_both_looks_leaves_what_is_held() -> Result<()> {
    let mut workload = Workload::start("c/storms")?;
    workload.ask("start")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    let truth = expect::number(&workload.ask("hold 24")?, "/held_bytes")?.unsigned_abs();
    let report = probe.report_now()?;
    workload.ask("stop")?;
    let sum: i64 = expect::rows(&report)?.iter().filter_map(|row| row["rss"].as_i64()).sum();
    let (rss, residual) = (expect::number(&report, "/rss/end")?, expect::number(&report, "/residual")?);
    ensure!(sum + residual == rss, "{sum} + {residual} is not {rss}");
    let held = bytes_of(&report, "hold", None);
    let missed = 4096 * lost(&report, "faults_ring_full")?;
    let error = error_bytes_of(&report, "hold").unwrap_or(0);
    ensure!(
        held.abs_diff(truth) <= truth / 20 + 3 * error + missed,
        "{held} of {truth} found, {error} off by its own word, {missed} missed: {}",
        report["call_sites"]
    );
    Ok(())
}
