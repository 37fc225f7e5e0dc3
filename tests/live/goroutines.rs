//! Goroutines that are blocked in three places are counted in these three, however many there are.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

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
