//! The ledger in Prometheus' text format, for a file that node exporter's textfile collector reads.
//!
//! Gauges in base units, with the process's id and name as labels; what is not known has no line. The surprise: node
//! exporter refuses files with times beside the values, so when it was looked is a metric of its own.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use super::escape::printable;
use super::{ComponentRow, Report};
use crate::claim::Component;

/// A metric and its lines.
struct Metric {
    name: &'static str,
    help: &'static str,
    lines: Vec<Line>,
}

/// Labels beside the process's, and the value.
struct Line {
    labels: Vec<(&'static str, String)>,
    value: String,
}

/// Writes all metrics that have a value.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let process = process_labels(report);
    let metrics = [whole(report), rows(report), inside(report), outlook(report)].into_iter().flatten();
    for Metric { name, help, lines } in metrics.filter(|metric| !metric.lines.is_empty()) {
        writeln!(out, "# HELP leakprobe_{name} {help}")?;
        writeln!(out, "# TYPE leakprobe_{name} gauge")?;
        // A saved report may say things twice, and a file that does is refused as a whole.
        let mut seen = BTreeSet::new();
        for line in lines {
            let labels: Vec<String> = process.iter().chain(&line.labels).map(label).collect();
            let labels = labels.join(",");
            if !seen.contains(&labels) {
                writeln!(out, "leakprobe_{name}{{{labels}}} {}", line.value)?;
                seen.insert(labels);
            }
        }
    }
    Ok(())
}

fn process_labels(report: &Report) -> Vec<(&'static str, String)> {
    let target = &report.target;
    let mut labels = vec![("pid", target.pid.to_string()), ("process", target.comm.clone())];
    labels.extend(target.container_id.clone().map(|id| ("container_id", id)));
    labels
}

/// As the format wants it: backslash, quote and line break are escaped, the last one here by [`printable`].
fn label((name, value): &(&'static str, String)) -> String {
    let value = printable(value).replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name}=\"{value}\"")
}

fn whole(report: &Report) -> Vec<Metric> {
    vec![
        one("resident_bytes", "Resident memory of the process.", Some(report.rss.end)),
        one("growth_bytes", "Resident memory gained in the window.", report.rss.growth),
        one(
            "window_seconds",
            "How long the process was watched; 0 for a snapshot.",
            Some(report.window.seconds),
        ),
        one(
            "looked_timestamp_seconds",
            "When it was looked, at the end of the window.",
            looked_seconds(report),
        ),
        one("residual_bytes", "Resident memory in no component.", Some(report.residual)),
        one("swap_bytes", "Swapped out.", Some(report.rss.swap)),
    ]
}

fn rows(report: &Report) -> Vec<Metric> {
    let by_row = |name, help, value: &dyn Fn(&ComponentRow) -> Option<String>| {
        let line = |row| Some(Line { labels: vec![("component", id(row))], value: value(row)? });
        Metric { name, help, lines: report.components.iter().filter_map(line).collect() }
    };
    let text = |value: Option<u64>| value.map(|value| value.to_string());
    vec![
        by_row("component_resident_bytes", "Resident memory by owner.", &|row| text(Some(row.rss))),
        by_row("component_growth_bytes", "Resident memory gained in the window, by owner.", &|row| {
            row.growth.map(|growth| growth.to_string())
        }),
        by_row("component_slack_bytes", "Resident memory that holds nothing live, by owner.", &|row| {
            text(row.slack)
        }),
        by_row("component_lazily_freed_bytes", "Resident memory freed with MADV_FREE, by owner.", &|row| {
            text(row.lazy_free)
        }),
        by_row("component_swap_bytes", "Swapped out, by owner.", &|row| text(row.swap)),
    ]
}

fn id(row: &ComponentRow) -> String {
    Component::id(row.id).to_owned()
}

fn inside(report: &Report) -> Vec<Metric> {
    let goroutines = report.goroutine_totals.map(|totals| totals.count);
    vec![
        one("go_heap_profile_bytes", "What Go's heap profile shows as in use.", report.heap_profile.in_use),
        one(
            "go_unaccounted_bytes",
            "Resident memory that Go's heap profile cannot see.",
            report.unaccounted.bytes,
        ),
        one("goroutines", "Goroutines of the program.", goroutines),
        one("threads", "Threads of the process.", report.target.threads),
    ]
}

fn outlook(report: &Report) -> Vec<Metric> {
    let cgroup = report.outside_rss.cgroup.as_ref();
    let finding = |finding: &super::Finding| Line {
        labels: vec![
            ("finding", finding.id.clone().into_owned()),
            ("component", finding.owner.id().to_owned()),
        ],
        value: finding.bytes.to_string(),
    };
    let lost = |row: &super::LostRow| Line {
        labels: vec![("cause", row.cause.clone().into_owned())],
        value: row.count.to_string(),
    };
    vec![
        one(
            "cgroup_bytes",
            "What the memory cgroup is charged with.",
            cgroup.and_then(|cgroup| cgroup.current),
        ),
        one(
            "cgroup_limit_bytes",
            "Where the kernel kills in the memory cgroup.",
            cgroup.and_then(|cgroup| cgroup.limit),
        ),
        Metric {
            name: "finding_bytes",
            help: "Resident memory that a finding concerns.",
            lines: report.findings.iter().map(finding).collect(),
        },
        Metric {
            name: "events_lost",
            help: "Events of the window that were lost, by cause.",
            lines: report.tracing.lost.iter().map(lost).collect(),
        },
    ]
}

fn one(name: &'static str, help: &'static str, value: Option<impl ToString>) -> Metric {
    let line = |value: &dyn ToString| Line { labels: Vec::new(), value: value.to_string() };
    Metric { name, help, lines: value.iter().map(|value| line(value)).collect() }
}

/// Since 1970; none where the report's time is none.
fn looked_seconds(report: &Report) -> Option<f64> {
    let started = humantime::parse_rfc3339_weak(&report.window.started_at).ok()?;
    let lasted = Duration::try_from_secs_f64(report.window.seconds).ok()?;
    Some(started.checked_add(lasted)?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label(&("process", "a\"b\\c\nd".to_owned())), r#"process="a\"b\\c\\nd""#);
    }
}
