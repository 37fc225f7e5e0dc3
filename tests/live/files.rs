//! Memory that has a name: which file, which part of a program, which shared memory, whose stack. Each program says
//! how much it made resident of what, and every row is held to that.

use std::fs;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

fn snapshot(workload: &Workload) -> Result<Value> {
    let report = Probe::start(workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    Ok(report)
}

/// Stricter than where memory moves meanwhile: 2 %, or 256 KiB.
fn is_near(value: &Value, pointer: &str, truth: u64) -> Result<()> {
    let bytes = expect::number(value, pointer)?.unsigned_abs();
    ensure!(
        bytes.abs_diff(truth) <= (truth / 50).max(256 << 10),
        "{pointer} is {bytes}, in truth {truth}: {value}"
    );
    Ok(())
}

/// What a program says of itself.
fn said(value: &Value, what: &str) -> Result<u64> {
    Ok(expect::number(value, &format!("/{what}"))?.unsigned_abs())
}

fn entry<'a>(rows: &'a Value, key: &str, ending: &str) -> Result<&'a Value> {
    let mut rows_of = rows.as_array().into_iter().flatten();
    let found = rows_of.find(|row| row[key].as_str().is_some_and(|name| name.ends_with(ending)));
    found.with_context(|| format!("there is no {ending} in {rows}"))
}

#[test]
fn files_and_shared_memory_are_told_by_name() -> Result<()> {
    let workload = Workload::start("c/files")?;
    let hello = &workload.hello;
    let report = snapshot(&workload)?;
    fs::remove_file(
        leakprobe_tests::places::target()
            .join("workloads/scratch")
            .join(hello["kept_path"].as_str().context("the program names its file")?),
    )
    .context("remove the file that the program keeps")?;

    let mapped = expect::component(&report, "file.mapped")?;
    let kept_path = hello["kept_path"].as_str().unwrap_or_default();
    for (name, what, deleted, shared) in [
        (kept_path, "kept", false, true),
        ("deleted", "deleted", true, false),
        ("copied", "copied", true, false),
    ] {
        let file = entry(&mapped["files"], "path", &format!("/{name}"))?;
        is_near(file, "/rss", said(hello, what)?)?;
        ensure!(file["deleted"] == deleted && file["shared"] == shared && file["kind"] == "file", "{file}");
    }
    let copied = said(hello, "copied")?;
    is_near(entry(&mapped["files"], "path", "/copied")?, "/copied", copied / 2)?;
    is_near(mapped, "/reclaimable", said(hello, "kept")? + said(hello, "deleted")? + copied / 2)?;
    is_near(mapped, "/rss", said(hello, "kept")? + said(hello, "deleted")? + copied)?;

    let shared = expect::component(&report, "shmem")?;
    let kinds = ["tmpfs", "memfd", "sysv", "anonymous"];
    for kind in kinds {
        is_near(entry(&shared["files"], "kind", kind)?, "/rss", said(hello, kind)?)?;
    }
    ensure!(entry(&shared["files"], "kind", "memfd")?["path"] == "/memfd:named", "{shared}");
    let total = kinds.iter().map(|kind| said(hello, kind)).sum::<Result<u64>>()?;
    is_near(shared, "/rss", total)?;
    ensure!(shared["reclaimable"] == 0, "shared memory can be swapped, not dropped: {shared}");
    nothing_unknown(&report)
}

#[test]
fn a_file_that_is_mapped_more_and_more_grows_by_name() -> Result<()> {
    let mut workload = Workload::start("c/files")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.grow(13)?;
    let report = probe.report_now()?;
    let kept_path = workload.hello["kept_path"].as_str().unwrap_or_default().to_owned();
    workload.end()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "file.mapped", truth)?;
    let mapped = expect::component(&report, "file.mapped")?;
    is_near(entry(&mapped["files"], "path", "/grown")?, "/growth", truth)?;
    let kept = entry(&mapped["files"], "path", &kept_path)?;
    ensure!(kept["growth"] == 0, "nothing was added to it: {kept}");
    Ok(())
}

#[test]
fn text_data_and_bss_are_told_apart_and_large_variables_named() -> Result<()> {
    let workload = Workload::start("c/big_bss")?;
    let hello = &workload.hello;
    let report = snapshot(&workload)?;
    let exe = expect::component(&report, "file.exe")?;
    let (touched, half) = (said(hello, "touched_table")?, said(hello, "half_touched")?);
    is_near(entry(&exe["parts"], "what", "bss")?, "/rss", touched + half)?;
    is_near(entry(&exe["parts"], "what", "data")?, "/rss", said(hello, "data")?)?;
    let parts = exe["parts"].as_array().into_iter().flatten();
    let sum = parts.map(|part| expect::number(part, "/rss")).sum::<Result<i64>>()?;
    ensure!(exe["rss"] == sum, "the parts do not add up to the row: {exe}");
    is_near(entry(&exe["variables"], "name", "touched_table")?, "/rss", touched)?;
    is_near(entry(&exe["variables"], "name", "half_touched")?, "/rss", half)?;
    ensure!(exe["variables"][0]["name"] == "touched_table", "the largest comes first: {exe}");
    nothing_unknown(&report)
}

#[test]
fn stacks_that_glibc_keeps_of_exited_threads_are_thread_stacks() -> Result<()> {
    let workload = Workload::start("c/exited_threads")?;
    let report = snapshot(&workload)?;
    let stacks = expect::component(&report, "thread.stacks")?;
    let (exited, staying) = (said(&workload.hello, "exited_bytes")?, said(&workload.hello, "staying_bytes")?);
    is_near(entry(&stacks["parts"], "what", "exited")?, "/rss", exited)?;
    is_near(entry(&stacks["parts"], "what", "living")?, "/rss", staying)?;
    is_near(stacks, "/rss", exited + staying)?;
    let threads = report["threads"].as_array().into_iter().flatten();
    let guarded = threads.filter(|thread| thread["guard_size"] == 4096).count() as u64;
    ensure!(guarded == said(&workload.hello, "staying")?, "guards: {}", report["threads"]);
    nothing_unknown(&report)
}

#[test]
fn adjacent_mappings_of_go_and_c_in_one_vma_are_told_apart() -> Result<()> {
    let mut workload = Workload::start("go/mmap_merged")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    workload.ask("map 4")?;
    let truth = workload.ask("touch")?;
    let report = probe.report_now()?;
    two_owners(&report, &truth, &["mapped_by"])?;
    let threads = &report["threads"];
    let in_c_only = entry(threads, "comm", "in-c-only")?;
    ensure!(in_c_only["runs"] == "native" && in_c_only["signal_stack_size"].is_null(), "{threads}");
    let main = entry(threads, "comm", "mmap_merged")?;
    ensure!(main["runs"] == "go" && main["signal_stack_size"] == 32 << 10, "{threads}");
    Ok(())
}

#[test]
fn adjacent_mappings_from_before_the_window_are_told_apart_by_who_touches_them() -> Result<()> {
    let mut workload = Workload::start("go/mmap_merged")?;
    workload.ask("map 4")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.ask("touch")?;
    let report = probe.report_now()?;
    two_owners(&report, &truth, &["touched_by", "neighbour"])
}

/// 37,000 faults at once, of which not every one gets a stack: what was mapped in the window is told apart all the
/// same.
#[test]
fn adjacent_mappings_touched_in_a_storm_are_told_apart() -> Result<()> {
    let mut workload = Workload::start("go/mmap_merged")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    workload.ask("map 48")?;
    let truth = workload.ask("touch")?;
    let report = probe.report_now()?;
    two_owners(&report, &truth, &["mapped_by"])
}

/// Of what was mapped before, those who touch it tell. Where no touch of a mapping has a stack it is nobody's, and never
/// another's.
#[test]
fn mappings_from_before_that_are_touched_in_a_storm_are_never_anothers() -> Result<()> {
    let mut workload = Workload::start("go/mmap_merged")?;
    workload.ask("map 48")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.ask("touch")?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let mut found = 0;
    for (id, what) in [("go.mmap", "go_bytes"), ("c.mmap", "c_bytes")] {
        let (rss, told) = (expect::resident(&report, id).unsigned_abs(), said(&truth, what)?);
        ensure!(
            rss <= told + expect::tolerance_bytes(told) && rss > told / 2,
            "{id} holds {rss} bytes, {told} in truth\n{}",
            expect::ledger(&report)
        );
        found += rss;
    }
    let all = said(&truth, "go_bytes")? + said(&truth, "c_bytes")?;
    let unknown = expect::resident(&report, "anon.unknown").unsigned_abs();
    ensure!(found + unknown + expect::tolerance_bytes(all) >= all, "{}", expect::ledger(&report));
    Ok(())
}

fn two_owners(report: &Value, truth: &Value, evidence: &[&str]) -> Result<()> {
    expect::ledger_balances(report)?;
    ensure!(said(truth, "vmas")? < 5, "the kernel should have merged the mappings: {truth}");
    for (id, what) in [("go.mmap", "go_bytes"), ("c.mmap", "c_bytes")] {
        let row = expect::component(report, id)?;
        is_near(row, "/rss", said(truth, what)?)?;
        is_near(row, "/growth", said(truth, what)?)?;
        ensure!(row["evidence"].as_str().is_some_and(|word| evidence.contains(&word)), "{row}");
    }
    Ok(())
}

/// Less than one part in a hundred is nobody's.
fn nothing_unknown(report: &Value) -> Result<()> {
    let rss = expect::number(report, "/rss/end")?;
    let unknown =
        expect::component(report, "anon.unknown").map_or(Ok(0), |row| expect::number(row, "/rss"))?;
    ensure!(unknown * 100 < rss, "{unknown} bytes of {rss} are unknown:\n{}", expect::ledger(report));
    Ok(())
}
