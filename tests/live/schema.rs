//! The JSON of real processes keeps to the schema in the documents.

use anyhow::{Context, Result, ensure};
use jsonschema::validator_for;
use leakprobe_tests::{Probe, Workload, places};
use serde_json::Value;

fn keeps_to_it(report: &Value) -> Result<()> {
    let schema = std::fs::read(places::repository().join("docs/report.schema.json"))?;
    let validator = validator_for(&serde_json::from_slice(&schema)?).context("read the schema")?;
    let complaints = validator.iter_errors(report).map(|error| format!("{}: {error}", error.instance_path()));
    let complaints: Vec<String> = complaints.collect();
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

#[test]
fn a_leak_and_a_snapshot_keep_to_the_schema() -> Result<()> {
    for name in ["go/goroutines", "go/cgo_malloc", "c/files"] {
        let workload = Workload::start(name)?;
        let report = Probe::start(&workload, &["--duration", "1s"])?.finish()?.report()?;
        keeps_to_it(&report).with_context(|| format!("{name}, watched"))?;
        let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
        keeps_to_it(&report).with_context(|| format!("{name}, looked at once"))?;
    }
    Ok(())
}
