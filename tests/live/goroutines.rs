//! Goroutines that are blocked in three places are counted in these three, however many there are.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

use crate::sites::{bytes_from, has_function};

/// Groups of the three places: the function, how it waits, and the program's word for how many.
const PLACES: [(&str, &str, &str); 3] = [
    ("main.receiveForEver", "chan receive", "receivers"),
    ("main.lockForEver", "sync.Mutex.Lock", "lockers"),
    ("main.readForEver", "IO wait", "readers"),
];

#[test]
fn all_goroutines_are_counted_where_they_wait() -> Result<()> {
    let mut workload = Workload::start("go/goroutines")?;
    let truth = workload.ask("start 20000")?;
    let report = Probe::start(&workload, &["--duration", "0s"])?.finish()?.report()?;
    let counted = expect::number(&report, "/goroutine_totals/count")?;
    let told = expect::number(&truth, "/goroutines")?;
    ensure!(counted == told, "{counted} goroutines were counted, there are {told}: {}", summary(&report));
    for (function, reason, word) in PLACES {
        let group = group_in(&report, function)?;
        let count = expect::number(group, "/count")?;
        ensure!(count == expect::number(&truth, &format!("/{word}"))?, "{count} {word} of {truth}: {group}");
        ensure!(group["state"] == "waiting" && group["wait_reason"] == reason, "{word} wait: {group}");
        ensure!(group["created_by"]["function"] == "main.startAll", "{word} come from: {group}");
        ensure!(expect::number(group, "/stack_bytes")? >= count * 2048, "{word} have stacks: {group}");
    }
    let gaps = report["gaps"].as_array().into_iter().flatten();
    let mut torn = gaps.filter(|gap| gap["what"].as_str().is_some_and(|what| what.contains("goroutine")));
    ensure!(torn.next().is_none(), "goroutines that wait were torn: {}", report["gaps"]);
    Ok(())
}

#[test]
fn new_stacks_are_the_goroutines_that_have_them() -> Result<()> {
    let mut workload = Workload::start("go/goroutines")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.ask("start 20000")?;
    let report = probe.report_now()?;
    let mut told_bytes = 0;
    for (function, _, word) in PLACES {
        let group = group_in(&report, function)?;
        let (held_bytes, new_bytes) =
            (expect::number(group, "/stack_rss")?, expect::number(group, "/stack_growth")?);
        ensure!(new_bytes <= held_bytes, "new is what is there: {group}");
        let bytes = bytes_from(&report, "goroutines", function).cast_signed();
        ensure!(bytes == new_bytes, "{function} has {bytes} and {new_bytes} bytes of new stacks");
        let least_bytes = expect::number(&truth, &format!("/{word}"))? * 2048;
        ensure!(bytes * 100 >= least_bytes * 95, "{bytes} of {least_bytes} bytes are in {function}");
        told_bytes += bytes;
    }
    let new_bytes = expect::number(&truth, "/new_stacks")?;
    ensure!(
        told_bytes.abs_diff(new_bytes) * 20 <= new_bytes.unsigned_abs(),
        "{told_bytes} bytes of new stacks are told, there are {new_bytes}"
    );
    let sites = report["call_sites"].as_array().into_iter().flatten();
    for site in sites.filter(|site| site["component"] == "go.stacks" && has_function(site, "runtime.gopark"))
    {
        let outermost = site["frames"].as_array().and_then(|frames| frames.last());
        ensure!(
            outermost.is_some_and(|frame| frame["function"] == "main.startAll"),
            "goroutines come from a go statement: {site}"
        );
    }
    Ok(())
}

fn group_in<'a>(report: &'a Value, function: &str) -> Result<&'a Value> {
    let mut groups = report["goroutines"].as_array().into_iter().flatten();
    let is_in = |group: &&Value| {
        let mut frames = group["frames"].as_array().into_iter().flatten();
        frames.any(|frame| frame["function"] == function)
    };
    groups.find(is_in).with_context(|| format!("no group is in {function}: {}", summary(report)))
}

fn summary(report: &Value) -> String {
    let groups = report["goroutines"].as_array().into_iter().flatten();
    let told = |group: &Value| {
        let outermost = group["frames"].as_array().and_then(|frames| frames.last());
        format!("{} {} {:?}", group["count"], group["state"], outermost.map(|frame| &frame["function"]))
    };
    groups.map(told).collect::<Vec<String>>().join(", ")
}
