//! The JSON Schema in the documents: it is the types', and whatever calls itself a report keeps to it.

use std::fs;

use expect_test::expect_file;
use jsonschema::{Validator, validator_for};
use leakprobe::report::Format;
use leakprobe::report::schema::schema;
use leakprobe_tests::places;
use serde_json::{Value, json};

use crate::{plain, rendered, reports};

fn complaints(validator: &Validator, value: &Value) -> Vec<String> {
    let complaint = |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(value).map(complaint).collect()
}

/// The schema for parts of a report: whatever is there must be right, and nothing else may be there.
fn of_excerpts(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("required");
            if fields.contains_key("properties") {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(of_excerpts);
        }
        Value::Array(values) => values.iter_mut().for_each(of_excerpts),
        _ => {}
    }
}

/// The blocks of JSON in a document.
fn examples(document: &str) -> Vec<&str> {
    let blocks = document.split("\n```json\n").skip(1);
    blocks.map(|rest| rest.split_once("\n```").expect("a block ends").0).collect()
}

#[test]
fn the_schema_is_the_types() {
    let text = serde_json::to_string_pretty(&schema()).expect("the schema is JSON") + "\n";
    expect_file!["../../docs/report.schema.json"].assert_eq(&text);
}

#[test]
fn every_report_keeps_to_it() {
    let validator = validator_for(&schema()).expect("the schema is one");
    for report in reports::all() {
        let json = rendered(&report, Format::Json, &plain(80));
        let value: Value = serde_json::from_str(&json).expect("the JSON parses");
        assert_eq!(complaints(&validator, &value), [""; 0], "{}", report.target.comm);
        // What is not named there is nowhere.
        let mut whole = schema();
        of_excerpts(&mut whole);
        let excerpts = validator_for(&whole).expect("the schema is one");
        assert_eq!(complaints(&excerpts, &value), [""; 0], "{}", report.target.comm);
    }
}

#[test]
fn what_is_wrong_is_noticed() {
    let validator = validator_for(&schema()).expect("the schema is one");
    let json = rendered(&reports::race_leak(), Format::Json, &plain(80));
    let whole: Value = serde_json::from_str(&json).expect("the JSON parses");
    for (place, wrong) in [
        ("/schema", json!("leakprobe.report/2")),
        ("/rss/end", json!(null)),
        ("/rss/end", json!(-1)),
        ("/components/0/id", json!("no.such.owner")),
        ("/components/0/evidence", json!("hearsay")),
        ("/findings/0", json!({})),
    ] {
        let mut value = whole.clone();
        *value.pointer_mut(place).expect("the report has it") = wrong;
        assert_eq!(complaints(&validator, &value).len().min(1), 1, "{place}");
    }
}

#[test]
fn every_example_in_the_documents_keeps_to_it() {
    let mut excerpt = schema();
    of_excerpts(&mut excerpt);
    let excerpt = validator_for(&excerpt).expect("the schema is one");
    let docs = fs::read_dir(places::repository().join("docs")).expect("there is a folder of documents");
    let docs = docs.map(|entry| entry.expect("the folder can be listed").path());
    let documents = docs.chain(["README.md", "ARCHITECTURE.md"].map(|name| places::repository().join(name)));
    let mut found = 0;
    for path in documents.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let document = fs::read_to_string(&path).expect("documents can be read");
        for example in examples(&document) {
            let value: Value =
                serde_json::from_str(example).unwrap_or_else(|error| panic!("{example}: {error}"));
            assert_eq!(complaints(&excerpt, &value), [""; 0], "{}: {example}", path.display());
            found += 1;
        }
    }
    assert!(found > 0, "the documents have no example of JSON");
}
