//! Malloc's blocks against what malloc itself counts of them, and freed memory against what it gives back.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

fn number(value: &Value, pointer: &str) -> Result<u64> {
    u64::try_from(expect::number(value, pointer)?)
        .with_context(|| format!("{pointer} is negative in {value}"))
}

fn snapshot(workload: &Workload) -> Result<Value> {
    Probe::start(workload, &["--duration", "0"])?.finish()?.report()
}

fn has_finding(report: &Value, id: &str) -> bool {
    report["findings"].as_array().into_iter().flatten().any(|finding| finding["id"] == id)
}

/// The program tells its truth before and after, and nothing happens in between.
fn counts_as_malloc_does(name: &str) -> Result<()> {
    let mut workload = Workload::start(name)?;
    let before = workload.ask("truth")?;
    let report = snapshot(&workload)?;
    let truth = workload.ask("truth")?;
    ensure!(before == truth, "the program was not quiet: {before}, later {truth}");
    expect::ledger_balances(&report)?;
    let malloc = &report["malloc"];
    ensure!(malloc.is_object(), "malloc was not found: {report}");
    let sum = |pointers: &[&str]| -> Result<u64> { pointers.iter().map(|at| number(malloc, at)).sum() };
    // mallinfo counts what threads keep in their caches, and malloc's own headers, as in use.
    let in_use = sum(&["/in_use/bytes", "/thread_cached/bytes", "/overhead"])?;
    let free = sum(&["/binned/bytes", "/fast/bytes", "/top"])?;
    for (what, found, told) in [
        ("taken from the kernel", number(malloc, "/system")?, "/system"),
        ("in use", in_use, "/in_use"),
        ("free", free, "/free"),
        ("in fast bins", number(malloc, "/fast/bytes")?, "/fast"),
        ("blocks in fast bins", number(malloc, "/fast/blocks")?, "/fast_blocks"),
        ("in blocks with a mapping", number(malloc, "/mapped/bytes")?, "/mapped"),
        ("blocks with a mapping", number(malloc, "/mapped/blocks")?, "/mapped_blocks"),
    ] {
        let told = number(&truth, told)?;
        ensure!(found == told, "{what}: {found} in the report, {told} in truth: {malloc}");
    }
    ensure!(number(malloc, "/thread_cached/blocks")? > 0, "no thread's cache was found: {malloc}");
    ensure!(number(malloc, "/unread")? == 0, "a quiet heap was not read whole: {}", report["gaps"]);
    // The blocks and what holds nothing make up the pages; a static program keeps its first thread's variables
    // on the brk heap too.
    let pages = number(expect::component(&report, "c.heap.inuse")?, "/rss")?;
    let slack = number(expect::component(&report, "c.heap.inuse")?, "/slack")?;
    let live = sum(&["/in_use/bytes", "/mapped/bytes", "/overhead"])?;
    ensure!(
        (live..live + 4096).contains(&(pages - slack)),
        "{pages} bytes of pages less {slack} are not {live} bytes in use"
    );
    Ok(())
}

#[test]
fn blocks_are_counted_as_malloc_counts_them() -> Result<()> {
    counts_as_malloc_does("c/malloc_truth")
}

#[test]
fn blocks_of_a_static_program_are_counted_as_malloc_counts_them() -> Result<()> {
    counts_as_malloc_does("c/static_malloc_truth")
}

#[test]
fn freed_blocks_that_malloc_keeps_are_retained_and_not_leaked() -> Result<()> {
    let mut workload = Workload::start("c/malloc_retained")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    ensure!(has_finding(&report, "c-heap-retention"), "not seen as retained: {}", report["findings"]);
    ensure!(!has_finding(&report, "c-heap-leak"), "mistaken for a leak: {}", report["findings"]);
    let live = number(&report, "/malloc/in_use/bytes")?;
    let truth = number(&workload.hello, "/live_bytes")?;
    ensure!(live.abs_diff(truth) * 100 <= truth, "{live} bytes in use in the report, {truth} in truth");
    let promised = number(&report, "/malloc/trimmable")?;
    let given_back = number(&workload.ask("trim")?, "/given_back_bytes")?;
    ensure!(
        promised.abs_diff(given_back) * 100 <= given_back,
        "malloc_trim gave back {given_back} bytes, {promised} were promised"
    );
    let after = snapshot(&workload)?;
    expect::ledger_balances(&after)?;
    ensure!(!has_finding(&after, "c-heap-retention"), "still retained: {}", after["findings"]);
    Ok(())
}

#[test]
fn a_leak_is_told_from_what_malloc_keeps() -> Result<()> {
    let mut workload = Workload::start("c/malloc_leak")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.grow(29)?;
    let report = probe.report_now()?;
    ensure!(has_finding(&report, "c-heap-leak"), "not seen as a leak: {}", report["findings"]);
    ensure!(!has_finding(&report, "c-heap-retention"), "mistaken for retained: {}", report["findings"]);
    let grown = number(&report, "/malloc/in_use_growth/bytes")?;
    ensure!(grown == truth, "blocks in use grew by {grown} bytes in the report, by {truth} in truth");
    Ok(())
}

#[test]
fn a_heap_that_never_rests_is_bounded_and_its_gaps_have_bytes() -> Result<()> {
    let workload = Workload::start("c/malloc_churn")?;
    let report = snapshot(&workload)?;
    let malloc = &report["malloc"];
    let (blocks, least) = (number(malloc, "/in_use/blocks")?, number(&workload.hello, "/blocks")?);
    let most_bytes = number(&workload.hello, "/most_live_bytes")?;
    // Some are in flight, some in caches that changed while they were read.
    ensure!(
        blocks.abs_diff(least) * 20 <= least,
        "{blocks} blocks in the report, {least} in truth: {malloc}"
    );
    let bytes = number(malloc, "/in_use/bytes")? + number(malloc, "/mapped/bytes")?;
    ensure!(bytes <= most_bytes, "{bytes} bytes in use, {most_bytes} at most in truth");
    let (unread, system) = (number(malloc, "/unread")?, number(malloc, "/system")?);
    ensure!(unread * 10 <= system, "{unread} of {system} bytes could not be read");
    let gaps = report["gaps"].as_array().context("gaps are a list")?;
    let is_told = gaps.iter().any(|gap| gap["bytes"].as_u64() == Some(unread));
    ensure!(unread == 0 || is_told, "{unread} bytes were not read, and no gap says so: {gaps:?}");
    Ok(())
}

#[test]
fn blocks_in_the_place_of_freed_ones_are_told_though_no_call_site_saw_them() -> Result<()> {
    let mut workload = Workload::start("c/malloc_holes")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.grow(20)?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let grown = number(&report, "/malloc/in_use_growth/bytes")?;
    ensure!(grown == truth, "blocks in use grew by {grown} bytes in the report, by {truth} in truth");
    let reused = number(&report, "/malloc/reused")?;
    ensure!(reused <= truth, "{reused} bytes were reused, and blocks grew by {truth}");
    ensure!(truth - reused <= truth / 20, "{reused} bytes were reused, {truth} in truth");
    let seen: u64 =
        report["call_sites"].as_array().into_iter().flatten().filter_map(|it| it["bytes"].as_u64()).sum();
    ensure!(seen <= truth / 20, "call sites saw {seen} bytes of blocks that touched no new page");
    Ok(())
}

#[test]
fn blocks_on_new_pages_are_not_said_to_reuse_any() -> Result<()> {
    for (name, steps) in [("c/malloc_leak", 17), ("c/large_blocks", 40)] {
        let mut workload = Workload::start(name)?;
        let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
        probe.wait_until_watching()?;
        let truth = workload.grow(steps)?;
        let report = probe.report_now()?;
        let reused = number(&report, "/malloc/reused")?;
        ensure!(
            reused <= truth / 100,
            "{name}: {reused} of {truth} bytes reused, all of them are on new pages"
        );
    }
    Ok(())
}
