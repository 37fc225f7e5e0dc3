//! C++ objects by class, from their vtables: against what the program says it holds, however it was linked.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

/// The library's own, and the control blocks of shared pointers.
const OTHERS: &str = "std::";

fn classes(report: &Value) -> Result<&Vec<Value>> {
    report["malloc"]["classes"].as_array().with_context(|| format!("no classes in {}", report["malloc"]))
}

fn row<'a>(report: &'a Value, class: &str) -> Result<&'a Value> {
    let row = classes(report)?.iter().find(|row| row["class"] == class);
    row.with_context(|| format!("{class} is missing in {:?}", report["malloc"]["classes"]))
}

fn snapshot(workload: &Workload) -> Result<Value> {
    Probe::start(workload, &["--duration", "0"])?.finish()?.report()
}

/// Every class with its number and its bytes, and no class that the program does not have.
fn counts_every_class(name: &str) -> Result<()> {
    let workload = Workload::start(name)?;
    let report = snapshot(&workload)?;
    expect::ledger_balances(&report)?;
    let truth = workload.hello["classes"].as_object().context("the program tells its classes")?;
    for (class, truth) in truth {
        let row = row(&report, class)?;
        for what in ["blocks", "bytes"] {
            ensure!(row[what] == truth[what], "{name}: {class} has {} in truth: {row}", truth[what]);
        }
        ensure!(row["growth"].is_null(), "a snapshot has no growth: {row}");
    }
    let known = |class: &str| truth.contains_key(class) || class.starts_with(OTHERS);
    for row in classes(&report)? {
        ensure!(row["class"].as_str().is_some_and(known), "{name} has no such class: {row}");
    }
    let shared = classes(&report)?.iter().find(|row| row["blocks"] == workload.hello["shared"]);
    let shared = shared.and_then(|row| row["class"].as_str()).context("shared pointers' blocks")?;
    ensure!(shared.contains("_Sp_counted_ptr_inplace<net::Session"), "{name}: {shared}");
    ensure!(report["malloc"]["unclassed"]["blocks"] == 0, "{}", report["malloc"]);
    Ok(())
}

#[test]
fn objects_are_counted_by_class() -> Result<()> {
    counts_every_class("cpp/objects")
}

#[test]
fn objects_of_a_stripped_program_are_counted_by_class() -> Result<()> {
    counts_every_class("cpp/stripped_objects")?;
    counts_every_class("cpp/stripped_nopie_objects")?;
    counts_every_class("cpp/stripped_static_objects")
}

#[test]
fn without_type_infos_the_symbols_tell_the_classes() -> Result<()> {
    counts_every_class("cpp/nortti_objects")?;
    let workload = Workload::start("cpp/stripped_nortti_objects")?;
    let report = snapshot(&workload)?;
    let own =
        classes(&report)?.iter().find(|row| row["class"].as_str().is_some_and(|it| !it.starts_with(OTHERS)));
    ensure!(own.is_none(), "nothing in a stripped program says so: {own:?}");
    Ok(())
}

#[test]
fn the_class_that_leaks_is_named_with_what_it_gained() -> Result<()> {
    let mut workload = Workload::start("cpp/stripped_objects")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.ask("grow 23")?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let first = classes(&report)?.first().context("classes")?;
    ensure!(first["class"] == "net::Session", "the one that grows is first: {first}");
    ensure!(first["growth"]["bytes"] == truth["grown_bytes"], "{truth} in truth: {first}");
    ensure!(first["growth"]["blocks"] == truth["grown_objects"], "{truth} in truth: {first}");
    for row in &classes(&report)?[1..] {
        ensure!(row["growth"]["bytes"] == 0, "nothing else grew: {row}");
    }
    Ok(())
}
