//! Two reports side by side.

use expect_test::expect_file;
use leakprobe::report::comparison::{Comparison, compare};
use leakprobe::report::{self, Format, Report};
use serde_json::Value;

use crate::parts::MIB;
use crate::{goroutines, heap, plain, rendered, reports};

fn written(before: &Report, after: &Report, format: Format) -> String {
    let mut out = Vec::new();
    let comparison = compare(before, after);
    report::write_document(&comparison, format, &plain(80), &mut out)
        .expect("writing to memory does not fail");
    String::from_utf8(out).expect("comparisons are UTF-8")
}

/// Two hours later it holds more, and a second cause has come.
fn later(report: &Report) -> Report {
    let mut later = report.clone();
    later.window.started_at = "2026-08-21T14:00:00Z".to_owned();
    later.window.seconds *= 2.0;
    later.components[0].rss += 90 * MIB;
    later.rss.end += 90 * MIB;
    later.call_sites[0].bytes *= 3;
    for site in &mut later.heap_profile.sites {
        site.bytes += 20 * MIB;
    }
    later.findings.extend(goroutines::goroutine_leak().findings);
    later
}

#[test]
fn one_process_two_hours_later() {
    let before = heap::leak();
    let text = written(&before, &later(&before), Format::Text);
    expect_file!["expect/comparison_80.txt"].assert_eq(&text);
    let json = written(&before, &later(&before), Format::Json);
    expect_file!["expect/comparison.json"].assert_eq(&json);
}

#[test]
fn two_processes() {
    let (before, mut after) = (reports::race_leak(), reports::hostile());
    let text = written(&before, &after, Format::Text);
    expect_file!["expect/comparison_other_80.txt"].assert_eq(&text);
    assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text}");
    assert!(!compare(&before, &after).same_process || before.target.exe == after.target.exe);
    // Started anew: the same program, other addresses and lines.
    after = before.clone();
    after.target.pid = 777;
    after.target.started_at = "2026-08-21T13:00:00Z".to_owned();
    for frame in after.call_sites.iter_mut().flat_map(|site| &mut site.frames) {
        frame.address += 0x1_0000;
        frame.line = frame.line.map(|line| line + 3);
    }
    let comparison = compare(&before, &after);
    assert!(!comparison.same_process && comparison.call_sites.iter().all(|stack| stack.change == 0));
}

#[test]
fn a_report_against_itself_has_no_change() {
    for report in reports::all() {
        let Comparison { rss_change, components, heap_sites, call_sites, goroutines, .. } =
            compare(&report, &report);
        assert_eq!((rss_change, heap_sites.len(), goroutines.len()), (0, 0, 0), "{}", report.target.comm);
        assert!(
            components.iter().all(|row| row.change == 0) && call_sites.iter().all(|stack| stack.change == 0)
        );
    }
}

#[test]
fn rows_add_up_to_the_change_of_rss() {
    for (before, after) in
        [(reports::race_leak(), heap::leak()), (reports::snapshot(), reports::quiet_native())]
    {
        let comparison = compare(&before, &after);
        let rows: i64 = comparison.components.iter().map(|row| row.change).sum();
        assert_eq!(rows, comparison.rss_change);
    }
}

#[test]
fn its_json_names_its_schema() {
    let json = written(&heap::leak(), &heap::leak(), Format::Json);
    let value: Value = serde_json::from_str(&json).expect("the JSON parses");
    assert_eq!(value["schema"], "leakprobe.diff/1");
    assert!(rendered(&heap::leak(), Format::Json, &plain(80)) != json);
}
