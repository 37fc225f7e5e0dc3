//! The case leakprobe was made for: a Go service built with `-race` whose RSS climbs while its heap stays
//! small. The race detector is named as the owner, and the program's own functions as the cause.

use anyhow::{Result, ensure};
use leakprobe_tests::process::Ended;
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

const MIB: i64 = 1 << 20;

#[test]
fn the_race_detector_owns_the_growth() -> Result<()> {
    let workload = Workload::start("go/race_http")?;
    let probe = Probe::start(&workload, &["--duration", "5s"])?;
    let outcome = probe.finish()?;
    let report = outcome.report()?;
    expect::ledger_balances(&report)?;
    owner_is_tsan(&report)?;
    go_heap_is_small(&report)?;
    program_is_on_the_top_call_sites(&report)?;
    stacks_are_whole(&report)?;
    runtime_is_known(&report)?;
    probe_is_small(outcome.ended)
}

fn owner_is_tsan(report: &Value) -> Result<()> {
    let total = expect::number(report, "/rss/growth")?;
    let mut tsan = 0;
    for row in expect::rows(report)?.iter().filter(|row| is_tsan(&row["id"])) {
        tsan += expect::number(row, "/growth")?;
    }
    ensure!(total > MIB, "the program grew by {total} bytes only\n{}", expect::ledger(report));
    ensure!(
        tsan * 100 >= total * 70,
        "TSan owns {tsan} of {total} bytes of growth\n{}",
        expect::ledger(report)
    );
    Ok(())
}

fn go_heap_is_small(report: &Value) -> Result<()> {
    let heap = expect::number(expect::component(report, "go.heap.inuse")?, "/rss")?;
    ensure!(heap < 24 * MIB, "the Go heap holds {heap} bytes\n{}", expect::ledger(report));
    Ok(())
}

fn program_is_on_the_top_call_sites(report: &Value) -> Result<()> {
    let sites = report["call_sites"].as_array().into_iter().flatten();
    let tsan: Vec<&Value> =
        sites.filter(|site| is_tsan(&site["component"]) && !is_a_remainder(site)).take(3).collect();
    ensure!(tsan.len() == 3, "there are only {} call sites of TSan: {}", tsan.len(), report["call_sites"]);
    for site in tsan {
        let mut frames = site["frames"].as_array().into_iter().flatten();
        ensure!(
            frames.any(|frame| is_of_the_program(&frame["function"])),
            "a top call site of TSan names no function of the program: {site:#}"
        );
    }
    Ok(())
}

/// Out of `morestack` too, which has the runtime tell the race detector of the new stack, on the thread's own.
fn stacks_are_whole(report: &Value) -> Result<()> {
    let sites = report["call_sites"].as_array().into_iter().flatten();
    let with_stacks = sites.filter(|site| site["frames"].as_array().is_some_and(|frames| !frames.is_empty()));
    let (mut all_bytes, mut early_bytes) = (0, 0);
    for site in with_stacks {
        let bytes = expect::number(site, "/bytes")?;
        all_bytes += bytes;
        early_bytes += if site["note"].is_null() { 0 } else { bytes };
    }
    ensure!(
        early_bytes * 100 <= all_bytes,
        "the stacks of {early_bytes} of {all_bytes} bytes end early: {}",
        report["tracing"]["stacks_truncated_by"]
    );
    Ok(())
}

fn runtime_is_known(report: &Value) -> Result<()> {
    let runtime = &report["target"]["runtime"];
    ensure!(
        runtime["kind"] == "go" && runtime["race"] == true,
        "the runtime is not Go with -race: {runtime}"
    );
    let version = format!("go{}", leakprobe_tests::places::NEWEST_GO);
    ensure!(runtime["version"] == version, "the version is not {version}: {runtime}");
    Ok(())
}

fn probe_is_small(ended: Ended) -> Result<()> {
    let peak = ended.peak_rss_bytes;
    ensure!(peak < 64 << 20, "leakprobe's own peak RSS is {peak} bytes, 64 MiB or more");
    Ok(())
}

fn is_tsan(id: &Value) -> bool {
    id.as_str().is_some_and(|id| id.starts_with("tsan."))
}

/// The sum of the sites too small to list is no call site, however large it is.
fn is_a_remainder(site: &Value) -> bool {
    site["note"] == "many smaller call sites"
}

fn is_of_the_program(function: &Value) -> bool {
    function.as_str().is_some_and(|name| name.starts_with("main.") || name.starts_with("net/http."))
}
