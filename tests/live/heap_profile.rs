//! The Go heap by who allocated it, against what the program's own runtime/pprof writes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::{Probe, Workload, expect, places};
use serde_json::Value;

const MIB: i64 = 1 << 20;

/// Objects and bytes, and the sizes that were put together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct InUse {
    objects: i64,
    bytes: i64,
    samples: i64,
}

type ByStack = BTreeMap<Vec<String>, InUse>;

/// What the program's own profile shows.
fn told(truth: &Value) -> Result<ByStack> {
    let mut told = ByStack::new();
    for site in truth["sites"].as_array().context("the truth has a list of sites")? {
        let calls = site["calls"].as_array().into_iter().flatten();
        let calls = calls.map(|call| call.as_str().map(str::to_owned)).collect::<Option<Vec<String>>>();
        let number = |pointer| expect::number(site, pointer);
        let in_use =
            InUse { objects: number("/objects")?, bytes: number("/bytes")?, samples: number("/samples")? };
        told.insert(calls.context("calls are text")?, in_use);
    }
    Ok(told)
}

/// What the report shows, as pprof would: without the end of each goroutine, and without the runtime's own
/// calls at the start where others follow.
fn found(report: &Value) -> Result<ByStack> {
    let mut found = ByStack::new();
    for site in report["heap_profile"]["sites"].as_array().context("the report has a list of sites")? {
        let frames = site["frames"].as_array().into_iter().flatten();
        let call = |frame: &Value| Some(format!("{}:{}", frame["function"].as_str()?, frame["line"]));
        let calls = frames.map(call).collect::<Option<Vec<String>>>();
        let mut calls = calls.with_context(|| format!("a call without a name in {site}"))?;
        calls.retain(|call| !call.starts_with("runtime.goexit:"));
        let is_runtime =
            |call: &&String| call.starts_with("runtime.") || call.starts_with("internal/runtime/");
        let inner = calls.iter().take_while(is_runtime).count();
        if inner < calls.len() {
            calls.drain(..inner);
        }
        let sum: &mut InUse = found.entry(calls).or_default();
        sum.objects += expect::number(site, "/objects")?;
        sum.bytes += expect::number(site, "/bytes")?;
    }
    Ok(found)
}

/// The same stacks, call by call, with the same objects and bytes: each sample is rounded down once.
fn are_equal(report: &Value, truth: &Value) -> Result<ByStack> {
    let (found, told) = (found(report)?, told(truth)?);
    for (calls, told) in &told {
        let found =
            found.get(calls).with_context(|| format!("pprof has {told:?} of {calls:?}, the report not"))?;
        ensure!(
            found.objects.abs_diff(told.objects) <= told.samples.unsigned_abs()
                && found.bytes.abs_diff(told.bytes) <= told.samples.unsigned_abs(),
            "{found:?} in the report, {told:?} in pprof's, of {calls:?}"
        );
    }
    for calls in found.keys() {
        ensure!(told.contains_key(calls), "the report has a stack that pprof has not: {calls:?}");
    }
    let sum: i64 = found.values().map(|in_use| in_use.bytes).sum();
    ensure!(sum == expect::number(report, "/heap_profile/in_use")?, "sites and sum differ: {sum}");
    Ok(told)
}

fn snapshot(workload: &Workload) -> Result<Value> {
    Probe::start(workload, &["--duration", "0"])?.finish()?.report()
}

fn has(stacks: &ByStack, function: &str) -> bool {
    stacks.keys().any(|calls| calls.iter().any(|call| call.starts_with(function)))
}

#[test]
fn the_profile_by_stack_is_pprofs() -> Result<()> {
    let mut workload = Workload::start("go/heap_profile")?;
    workload.ask("fill 3")?;
    let report = snapshot(&workload)?;
    let stacks = are_equal(&report, &workload.ask("profile")?)?;
    ensure!(report["heap_profile"]["rate"] == 512 << 10, "{}", report["heap_profile"]["rate"]);
    // Large objects are sampled for sure: in a closure, in a goroutine, beyond the depth that is kept.
    for function in ["main.keep:", "main.fill.func3:", "main.keepDeep:"] {
        ensure!(has(&stacks, function), "nothing was sampled in {function}");
    }
    Ok(())
}

#[test]
fn the_profile_by_stack_is_pprofs_in_every_release() -> Result<()> {
    for &version in places::go_versions() {
        let build = GoBuild { version, kind: Kind::Plain, symbols: Symbols::Dwarf };
        let mut workload = Workload::start_built("go/heap_profile", build)?;
        workload.ask("fill 1")?;
        let report = snapshot(&workload)?;
        let stacks = are_equal(&report, &workload.ask("profile")?).with_context(|| build.to_string())?;
        ensure!(has(&stacks, "main.keep:"), "{build}: nothing was sampled in main.keep");
    }
    Ok(())
}

#[test]
fn every_allocation_is_told_where_all_are_sampled() -> Result<()> {
    let mut workload = Workload::start("go/heap_profile")?;
    workload.ask("rate 1")?;
    workload.ask("fill 1")?;
    let report = snapshot(&workload)?;
    let stacks = are_equal(&report, &workload.ask("profile")?)?;
    for function in ["main.newNode:", "main.prepend:", "main.(*stack[go.shape", "main.fill.func1:"] {
        ensure!(has(&stacks, function), "nothing was sampled in {function}");
    }
    Ok(())
}

#[test]
fn a_profile_that_the_program_switched_off_is_told() -> Result<()> {
    let mut workload = Workload::start("go/heap_profile")?;
    workload.ask("rate 0")?;
    let report = snapshot(&workload)?;
    let profile = &report["heap_profile"];
    ensure!(profile["rate"] == 0 && profile["in_use"].is_null() && profile["note"].is_string(), "{profile}");
    Ok(())
}

#[test]
fn growth_of_the_heap_is_by_who_allocated_it() -> Result<()> {
    let mut workload = Workload::start("go/heap_profile")?;
    workload.ask("fill 1")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    workload.ask("fill 1")?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let sites = report["call_sites"].as_array().context("call sites are a list")?;
    let objects: Vec<&Value> = sites.iter().filter(|site| site["component"] == "go.heap.inuse").collect();
    ensure!(objects.iter().all(|site| site["source"] == "heap_profile"), "{objects:?}");
    let is_kept = |site: &Value| {
        let mut frames = site["frames"].as_array().into_iter().flatten();
        frames.any(|frame| frame["function"] == "main.keep")
    };
    let kept = objects.iter().filter(|site| is_kept(site));
    let kept_bytes = kept.map(|site| expect::number(site, "/bytes")).sum::<Result<i64>>()?;
    // 15 MiB, 5 MiB and 16 MiB in large objects, which are sampled nearly for sure, scaled by little; and 1.4 MB.
    ensure!((35 * MIB..=41 * MIB).contains(&kept_bytes), "main.keep gained {kept_bytes} bytes");
    let change = expect::number(&report, "/heap_profile/growth")?;
    let by_site = report["heap_profile"]["sites"].as_array().into_iter().flatten();
    let sum = by_site.map(|site| expect::number(site, "/growth")).sum::<Result<i64>>()?;
    ensure!(change == sum, "the profile grew by {change}, its sites by {sum}");
    Ok(())
}

fn is_on(site: &Value, function: &str) -> bool {
    site["frames"].as_array().into_iter().flatten().any(|frame| frame["function"] == function)
}

#[test]
fn what_was_in_place_before_the_window_does_not_grow() -> Result<()> {
    let mut workload = Workload::start("go/heap_caches")?;
    workload.ask("load 100")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    workload.ask("leak 36")?;
    workload.ask("collect")?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let sites = report["call_sites"].as_array().context("call sites are a list")?;
    let cache = sites.iter().find(|site| is_on(site, "main.loadCache"));
    ensure!(cache.is_none(), "the cache was there before: {cache:?}");
    let first = sites.first().context("something grew")?;
    ensure!(is_on(first, "main.leakABit") && first["source"] == "heap_profile", "{first}");
    let bytes = expect::number(first, "/bytes")?;
    ensure!((35 * MIB..=37 * MIB).contains(&bytes), "main.leakABit gained {bytes} bytes");
    Ok(())
}

#[test]
fn a_cache_that_took_the_place_of_another_is_told_with_it() -> Result<()> {
    let mut workload = Workload::start("go/heap_caches")?;
    for command in ["load 64", "collect"] {
        workload.ask(command)?;
    }
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    for command in ["drop", "collect", "other 64", "collect"] {
        workload.ask(command)?;
    }
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let profile = &report["heap_profile"];
    let sites = profile["sites"].as_array().context("sites are a list")?;
    let sum = sites.iter().map(|site| expect::number(site, "/growth")).sum::<Result<i64>>()?;
    ensure!(profile["growth"] == sum, "the profile grew by {}, its sites by {sum}", profile["growth"]);
    let gone = sites.iter().find(|site| is_on(site, "main.loadCache")).context("the first cache is told")?;
    ensure!(gone["bytes"] == 0 && gone["objects"] == 0, "{gone}");
    let lost = -expect::number(gone, "/growth")?;
    ensure!((63 * MIB..=65 * MIB).contains(&lost), "main.loadCache lost {lost} bytes");
    // The second cache lies where the first one lay.
    let grown = report["call_sites"].as_array().into_iter().flatten();
    let is_told = |site: &Value| site["source"] == "heap_profile";
    ensure!(!grown.clone().any(is_told), "nothing became resident: {:?}", grown.collect::<Vec<_>>());
    Ok(())
}
