//! Reports of real processes, saved, and what the commands that read them make of them.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Folder, Probe, Workload, expect, places};
use serde_json::Value;

/// What leakprobe writes to stdout when it is called like this.
fn said(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(places::leakprobe()?);
    command.args(arguments);
    let outcome = Probe::spawn(command)?.finish()?;
    ensure!(
        outcome.ended.code == Some(0),
        "{arguments:?} ended with {:?}: {}",
        outcome.ended,
        outcome.stderr
    );
    Ok(outcome.stdout)
}

#[test]
fn a_saved_report_is_rendered_without_its_process() -> Result<()> {
    let workload = Workload::start("c/malloc_leak")?;
    let pid = workload.pid().to_string();
    let folder = Folder::new("saved")?;
    let path = &folder.file("report.json")?;
    said(&[&pid, "--duration", "0", "--json", "--output", path])?;
    drop(workload);
    let json = fs::read_to_string(path)?;
    ensure!(said(&["render", path, "--json"])? == json, "rendered as JSON, it is another report");
    let text = said(&["render", path])?;
    ensure!(
        text.starts_with(&format!("malloc_leak (pid {pid}) holds ")) && text.contains("\nOWNER "),
        "{text}"
    );
    Ok(())
}

#[test]
fn two_reports_are_compared_and_the_later_one_is_a_page() -> Result<()> {
    let mut workload = Workload::start("c/malloc_leak")?;
    let pid = workload.pid().to_string();
    let folder = Folder::new("compared")?;
    let (before, after) = (&folder.file("before.json")?, &folder.file("after.json")?);
    said(&[&pid, "--duration", "0", "--json", "--output", before])?;
    let grown_bytes = workload.grow(16)?;
    said(&[&pid, "--duration", "0", "--json", "--output", after])?;
    let comparison: Value = serde_json::from_str(&said(&["diff", before, after, "--json"])?)?;
    let rows = comparison["components"].as_array().context("components")?;
    let heap = rows.iter().find(|row| row["id"] == "c.heap.inuse").context("the C heap")?;
    let off = expect::number(heap, "/change")?.unsigned_abs().abs_diff(grown_bytes);
    ensure!(off <= expect::tolerance_bytes(grown_bytes), "{off} bytes off: {heap}");
    let text = said(&["diff", before, after])?;
    ensure!(text.contains("C heap") && text.contains("\nRSS "), "{text}");
    let report: Value = serde_json::from_str(&fs::read_to_string(after)?)?;
    let page = said(&["render", after, "--format", "html"])?;
    ensure!(
        page.contains(&format!("title=\"{} bytes\"", report["rss"]["end"])),
        "its RSS is not on the page"
    );
    Ok(())
}

#[test]
fn metrics_take_their_files_place_in_one_step() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let pid = workload.pid().to_string();
    let folder = Folder::new("metrics")?;
    let path = folder.file("leakprobe.prom")?;
    fs::write(&path, "what was there before")?;
    let mut before = File::open(&path)?;
    said(&[&pid, "--duration", "0", "--format", "prometheus", "--output", &path])?;
    let metrics = fs::read_to_string(&path)?;
    let line = format!("leakprobe_resident_bytes{{pid=\"{pid}\",process=\"idle\"");
    ensure!(metrics.contains(&line) && !metrics.contains("before"), "{metrics}");
    // Whoever had begun to read goes on with the old file.
    let mut old = String::new();
    before.read_to_string(&mut old)?;
    ensure!(old == "what was there before", "the file was written to in place: {old}");
    let left: Vec<_> = fs::read_dir(folder.path())?.collect::<Result<_, _>>()?;
    ensure!(left.len() == 1, "something is left beside it: {left:?}");
    Ok(())
}
