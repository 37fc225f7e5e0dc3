//! Reports that come back from a file: whole ones say what they said, damaged ones are refused with a sentence.

use leakprobe::report::saved::Unreadable;
use leakprobe::report::{Format, Report};
use serde_json::{Value, json};

use crate::{goroutines, plain, rendered, reports};

fn saved(report: &Report) -> Value {
    serde_json::from_str(&rendered(report, Format::Json, &plain(80))).expect("the JSON parses")
}

fn read(value: &Value) -> Result<Report, Unreadable> {
    Report::from_json(value.to_string().as_bytes())
}

#[track_caller]
fn refused(json: &[u8], words: &str) {
    let error = Report::from_json(json).expect_err("this is no report").to_string();
    assert!(error.contains(words) && error.len() < 400, "{error}");
}

#[test]
fn what_was_saved_says_the_same() {
    for report in reports::all() {
        let json = rendered(&report, Format::Json, &plain(80));
        let read = Report::from_json(json.as_bytes()).expect("leakprobe reads what it wrote");
        assert_eq!(rendered(&read, Format::Json, &plain(80)), json);
        let text = |report| rendered(report, Format::Text, &plain(80));
        assert_eq!(text(&read), text(&report));
    }
}

#[test]
fn fields_of_a_newer_leakprobe_are_passed_over() {
    let mut value = saved(&reports::race_leak());
    value["novelty"] = json!({ "deep": [1, 2, { "er": null }] });
    value["components"][0]["colour"] = json!("red");
    assert!(read(&value).is_ok());
}

#[test]
fn another_schema_is_refused_by_name() {
    let mut value = saved(&reports::race_leak());
    value["schema"] = json!("leakprobe.report/2");
    refused(value.to_string().as_bytes(), "\"leakprobe.report/2\"");
    value["schema"] = json!("x".repeat(100_000));
    refused(value.to_string().as_bytes(), "its schema is");
    value["schema"] = json!("\u{1b}[2J");
    refused(value.to_string().as_bytes(), "\\u{1b}[2J");
}

#[test]
fn a_report_cut_anywhere_is_refused() {
    let json = saved(&goroutines::goroutine_leak()).to_string();
    for length in (0..json.len()).step_by(7) {
        refused(&json.as_bytes()[..length], "it is not what");
    }
}

#[test]
fn other_types_and_garbage_are_refused() {
    let whole = saved(&reports::race_leak());
    for (place, wrong) in [
        ("/rss/end", json!("much")),
        ("/rss/end", json!(-1)),
        ("/rss/end", json!(1e300)),
        ("/components", json!({})),
        ("/components/0/id", json!("no.such.owner")),
        ("/components/0/evidence", json!("hearsay")),
        ("/call_sites/0/frames/0", json!([])),
        ("/window/seconds", json!(null)),
        ("/target", json!(7)),
    ] {
        let mut value = whole.clone();
        *value.pointer_mut(place).expect("the report has it") = wrong;
        refused(value.to_string().as_bytes(), "it is not what");
    }
    refused(b"\xff\xfe\0\0", "it is not what");
    refused(b"[]", "it is not what");
    refused(br#"{"schema": "leakprobe.report/1"}"#, "missing field");
    let deep = "[".repeat(1_000_000);
    refused(deep.as_bytes(), "it is not what");
    refused(format!(r#"{{"schema": "leakprobe.report/1", "tool": {deep}"#).as_bytes(), "it is not what");
}

#[test]
fn figures_that_overflow_a_sum_are_refused() {
    let whole = saved(&reports::race_leak());
    for place in ["/rss/swap", "/components/0/virtual", "/call_sites/0/bytes", "/tracing/events/faults"] {
        let mut value = whole.clone();
        *value.pointer_mut(place).expect("the report has it") = json!(u64::MAX);
        refused(value.to_string().as_bytes(), "larger than any process's");
    }
    let mut value = whole.clone();
    value["residual"] = json!(i64::MIN);
    refused(value.to_string().as_bytes(), "larger than any process's");
    let mut value = whole;
    value["call_sites"][0]["frames"][0]["address"] = json!(u64::MAX);
    assert!(read(&value).is_ok(), "addresses may be as large as they like");
}

#[test]
fn a_ledger_that_was_changed_is_refused() {
    let mut value = saved(&reports::race_leak());
    value["components"][0]["rss"] = json!(1);
    refused(value.to_string().as_bytes(), "do not add up");
}

#[test]
fn a_row_that_is_there_twice_is_refused() {
    let mut value = saved(&reports::race_leak());
    let mut again = value["components"][0].clone();
    again["rss"] = json!(0);
    value["components"].as_array_mut().expect("rows are a list").push(again);
    refused(value.to_string().as_bytes(), "more than once");
}
