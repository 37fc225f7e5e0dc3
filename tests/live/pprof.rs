//! The profile of a real process, opened by Go's own pprof.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Folder, Probe, Workload, places};
use serde_json::Value;

/// Total and components' sums of each sample type.
type Sums = BTreeMap<String, BTreeMap<String, i64>>;

/// What `go tool pprof` says of a profile. The oldest Go has it ready made; a newer one builds it first.
fn pprof(arguments: &[&str], profile: &str) -> Result<String> {
    let go = places::go_root(places::OLDEST_GO)?.join("bin/go");
    let output = Command::new(go).args(["tool", "pprof"]).args(arguments).arg(profile).output();
    let output = output.context("run go tool pprof")?;
    ensure!(
        output.status.success(),
        "go tool pprof {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("read what pprof says")
}

/// Adds up what `-raw` lists: a line of types, then two lines a sample, values and labels.
fn sums(raw: &str) -> Result<Sums> {
    let samples = raw.split_once("Samples:\n").context("pprof lists samples")?.1;
    let samples = samples.split_once("Locations\n").context("pprof lists locations")?.0;
    let mut lines = samples.lines();
    let kinds = lines.next().context("pprof lists sample types")?.split_whitespace();
    let kinds: Vec<&str> = kinds.map(|kind| kind.split('/').next().unwrap_or(kind)).collect();
    let mut sums = Sums::new();
    while let (Some(values), Some(label)) = (lines.next(), lines.next()) {
        let values = values.split_once(':').context("a sample has values")?.0.split_whitespace();
        let owner = label.trim().strip_prefix("component:[").and_then(|label| label.strip_suffix(']'));
        let owner = owner.with_context(|| format!("find the component in {label:?}"))?;
        for (kind, value) in kinds.iter().zip(values) {
            let by_owner = sums.entry((*kind).to_owned()).or_default();
            let value: i64 = value.parse().with_context(|| format!("{value:?} is no number"))?;
            *by_owner.entry(owner.to_owned()).or_default() += value;
            *by_owner.entry("all".to_owned()).or_default() += value;
        }
    }
    Ok(sums)
}

fn agrees(report: &Value, sums: &Sums) -> Result<()> {
    let rss = report["rss"]["end"].as_i64().context("rss.end")?;
    let residual = report["residual"].as_i64().context("residual")?;
    let held = &sums["inuse_space"];
    ensure!(held["all"] == rss - residual.min(0), "pprof adds up to {}, the RSS is {rss}", held["all"]);
    for row in report["components"].as_array().context("components")? {
        let (id, rss) = (row["id"].as_str().context("id")?, row["rss"].as_i64().context("rss")?);
        let told = held.get(id).copied().unwrap_or(0);
        ensure!(told == rss, "{id} is {told} in pprof and {rss} in the JSON");
        let growth = row["growth"].as_i64().context("growth")?;
        let sites = report["call_sites"].as_array().context("call_sites")?.iter();
        let sites: i64 =
            sites.filter(|site| site["component"] == id).filter_map(|site| site["bytes"].as_i64()).sum();
        let told = sums["growth_space"].get(id).copied().unwrap_or(0);
        ensure!(
            told == sites.max(growth),
            "{id} grew by {told} in pprof; sites {sites}, net {growth} in the JSON"
        );
    }
    let objects = report["heap_profile"]["in_use_objects"].as_i64().context("in_use_objects")?;
    let told = sums["inuse_objects"].get("go.heap.inuse").copied().unwrap_or(0);
    ensure!(told == objects, "{told} objects in pprof, {objects} in the JSON");
    Ok(())
}

#[test]
fn gos_own_pprof_adds_up_to_the_same() -> Result<()> {
    let mut workload = Workload::start("go/heap_profile")?;
    workload.ask("fill 2")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    workload.ask("fill 2")?;
    let report = probe.report_now()?;
    let folder = Folder::new("pprof")?;
    let (json, profile) = (folder.file("report.json")?, folder.file("memory.pb.gz")?);
    fs::write(&json, report.to_string())?;
    let mut render = Command::new(places::leakprobe()?);
    render.args(["render", &json, "--format", "pprof", "--output", &profile]);
    let rendered = Probe::spawn(render)?.finish()?;
    ensure!(rendered.ended.code == Some(0), "render: {}", rendered.stderr);

    agrees(&report, &sums(&pprof(&["-raw"], &profile)?)?)?;
    let top = pprof(&["-top", "-unit=bytes", "-nodecount=0"], &profile)?;
    let rss = report["rss"]["end"].as_i64().context("rss.end")?;
    ensure!(top.contains("Type: inuse_space") && top.contains(&format!("of {rss}B total")), "{top}");
    let held = pprof(&["-traces", "-unit=bytes", "-tagfocus=component=go.heap.inuse"], &profile)?;
    ensure!(held.contains("main.") && !held.contains("file.libs"), "{held}");
    Ok(())
}
