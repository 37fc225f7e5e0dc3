//! Bytes, and not faults: what each way to make memory resident is credited to, and that what was given back is
//! forgotten. A program does just that, in a function of its own, and counts by its own page map what came of it.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

use crate::sites::{bytes_of, has_function, total_bytes};

/// Has the program do one thing while it is watched; the report, and the bytes resident in truth.
fn watched(command: &str) -> Result<(Value, u64)> {
    watched_at("auto", command)
}

fn watched_at(rate: &str, command: &str) -> Result<(Value, u64)> {
    let mut workload = Workload::start("c/retention")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s", "--stack-rate", rate])?;
    probe.wait_until_watching()?;
    let truth = expect::number(&workload.ask(command)?, "/resident_bytes")?.unsigned_abs();
    let report = probe.report_now()?;
    workload.end()?;
    expect::ledger_balances(&report)?;
    Ok((report, truth))
}

fn is_near(what: &str, bytes: u64, truth: u64, report: &Value) -> Result<()> {
    ensure!(
        bytes.abs_diff(truth) <= expect::tolerance_bytes(truth),
        "{what} holds {bytes} in the report, {truth} in truth: {}",
        report["call_sites"]
    );
    Ok(())
}

/// One function holds all of it, for this cause.
fn held_by(report: &Value, function: &str, cause: Option<&str>, truth: u64) -> Result<()> {
    is_near(function, bytes_of(report, function, cause), truth, report)
}

#[test]
fn a_huge_page_weighs_its_size() -> Result<()> {
    let (report, truth) = watched_at("all", "huge 32")?;
    held_by(&report, "touch_huge_pages", None, truth)
}

#[test]
fn a_fault_on_a_file_holds_what_was_mapped_around_it() -> Result<()> {
    let (report, truth) = watched_at("all", "around 12")?;
    // Linux 5.10 leaves out a few.
    ensure!(truth >= 11 << 20, "the kernel maps pages around a fault: {truth}");
    held_by(&report, "read_here_and_there", None, truth)
}

#[test]
fn a_private_file_page_is_who_wrote_to_it_first() -> Result<()> {
    let (report, truth) = watched_at("all", "copy 12")?;
    held_by(&report, "write_copies", None, truth / 2)?;
    held_by(&report, "read_every_page", None, truth / 2)
}

#[test]
fn what_a_parent_copies_after_a_fork_is_no_growth() -> Result<()> {
    let (report, truth) = watched_at("all", "fork 12")?;
    held_by(&report, "touch_first", None, truth)?;
    held_by(&report, "rewrite_after_fork", None, 0)
}

#[test]
fn what_the_kernel_touches_for_a_system_call_has_the_callers_stack() -> Result<()> {
    let (report, truth) = watched_at("all", "syscall 12")?;
    held_by(&report, "fill_by_read", None, truth)?;
    let sites = report["call_sites"].as_array().context("call_sites is an array")?;
    let site = sites.iter().find(|site| has_function(site, "fill_by_read")).context("it has a call site")?;
    ensure!(has_function(site, "main"), "the stack is the user's: {site}");
    Ok(())
}

#[test]
fn what_a_call_fills_without_a_fault_is_the_calls() -> Result<()> {
    for (command, function, cause) in [
        ("populate 12", "populate_mapping", "populate"),
        ("advise 12", "populate_by_advice", "populate"),
        ("lock 12", "lock_memory", "mlock"),
    ] {
        let (report, truth) = watched(command)?;
        ensure!(truth >= 12 << 20, "{command}: {truth}");
        held_by(&report, function, Some(cause), truth)?;
    }
    Ok(())
}

#[test]
fn what_a_collapse_fills_is_its_own() -> Result<()> {
    let (report, truth) = watched("collapse 12")?;
    ensure!(truth >= 12 << 20, "all of it is huge: {truth}");
    held_by(&report, "collapse_pages", Some("collapse"), truth)
}

#[test]
fn moved_pages_keep_their_holders_and_what_was_there_before_has_not_grown() -> Result<()> {
    let (report, truth) = watched_at("all", "move 12")?;
    held_by(&report, "touch_first", None, truth)?;
    held_by(&report, "move_memory", Some("mremap"), 0)?;
    let (report, truth) = watched("carry")?;
    ensure!(truth >= 24 << 20, "{truth}");
    is_near("all that grew", total_bytes(&report), 0, &report)
}

#[test]
fn what_was_freed_lazily_is_there_and_said_to_be_free() -> Result<()> {
    let (report, truth) = watched_at("all", "free 12")?;
    held_by(&report, "touch_first", None, truth)?;
    let sites = report["call_sites"].as_array().into_iter().flatten();
    let freed = sites.filter_map(|site| site["lazy_free"].as_u64()).sum();
    is_near("MADV_FREE", freed, truth / 2, &report)
}

#[test]
fn freed_memory_is_forgotten() -> Result<()> {
    let mut workload = Workload::start("c/retention")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    workload.ask("churn 4096")?;
    let mut truth = 0;
    for _ in 0..10 {
        truth += expect::number(&workload.ask("move 5")?, "/resident_bytes")?.unsigned_abs();
        truth += expect::number(&workload.ask("syscall 5")?, "/resident_bytes")?.unsigned_abs();
        workload.ask("churn 600")?;
    }
    let report = probe.report_now()?;
    workload.end()?;
    expect::ledger_balances(&report)?;
    is_near("all that grew", total_bytes(&report), truth, &report)?;
    held_by(&report, "churn", None, 0)?;
    let held = ["touch_first", "fill_by_read"].map(|function| bytes_of(&report, function, None));
    is_near("both sites", held.iter().sum(), truth, &report)
}
