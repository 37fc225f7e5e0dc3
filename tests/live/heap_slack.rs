//! How much of the Go heap holds no object, against what the program's own runtime counts.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::{Probe, Workload, expect, places};
use serde_json::Value;

/// The runtime allocates a little to tell its truth, in objects of any size.
const TELLING_OBJECTS: u64 = 64;
const TELLING_BYTES: u64 = 64 << 10;

fn number(value: &Value, pointer: &str) -> Result<u64> {
    u64::try_from(expect::number(value, pointer)?).with_context(|| format!("{pointer} is negative"))
}

#[test]
fn what_holds_no_object_is_the_difference_of_what_the_runtime_counts() -> Result<()> {
    for &version in places::go_versions() {
        let build = GoBuild { version, kind: Kind::Plain, symbols: Symbols::Dwarf };
        check(Workload::start_built("go/heap_slack", build)?).with_context(|| build.to_string())?;
    }
    Ok(())
}

fn check(mut workload: Workload) -> Result<()> {
    let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
    let truth = workload.ask("truth")?;
    expect::ledger_balances(&report)?;
    let row = expect::component(&report, "go.heap.inuse")?;
    let (slack, rss) = (number(row, "/slack")?, number(row, "/rss")?);
    let (in_use, live) = (number(&truth, "/heap_inuse")?, number(&truth, "/heap_alloc")?);
    // All but the last page of large objects is resident.
    let told = in_use - live;
    ensure!(slack.abs_diff(told) <= told / 50, "{slack} bytes of slack in {rss}, {told} in truth");

    let classes = report["heap_classes"].as_array().context("size classes are a list")?;
    let sum = |pointer| classes.iter().map(|class| number(class, pointer)).sum::<Result<u64>>();
    ensure!(sum("/bytes")?.abs_diff(live) <= TELLING_BYTES, "{} live bytes, {live} in truth", sum("/bytes")?);
    let objects = number(&truth, "/heap_objects")?;
    ensure!(
        sum("/objects")?.abs_diff(objects) <= TELLING_OBJECTS,
        "{} objects, {objects} in truth",
        sum("/objects")?
    );
    for (size, told) in truth["objects"].as_object().context("objects by size")? {
        let object_bytes: u64 = size.parse().context("sizes are numbers")?;
        let class = classes.iter().find(|class| class["object_bytes"] == object_bytes);
        let found = class.map_or(Ok(0), |class| number(class, "/objects"))?;
        let told = told.as_u64().context("a number of objects")?;
        ensure!(found.abs_diff(told) <= TELLING_OBJECTS, "{found} objects of {size} bytes, {told} in truth");
    }
    Ok(())
}
