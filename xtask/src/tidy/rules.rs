//! Rules on one file: its first line, its length, its name, what its tests must not do, and what a pure
//! module must not touch.

use super::Finding;
use super::source::Source;

/// Longer files hold more than one thing.
const MOST_LINES: usize = 400;

/// Names that say nothing, and so attract everything.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "shared", "misc"];

/// Modules that get values and give values, so that they can be tested with values.
const PURE: [&str; 3] = ["attribute", "diagnose", "report"];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find =
        |line, message: String| findings.push(Finding { path: source.path.clone(), line, message });
    if source.is_rust() && !source.text.starts_with("//!") {
        find(1, "a file opens with `//!`: what it answers, and the one surprise".to_owned());
    }
    if source.product_line_count() > MOST_LINES {
        let count = source.product_line_count();
        find(
            MOST_LINES,
            format!(
                "{count} lines without the tests, at most {MOST_LINES}: split the file by what it answers"
            ),
        );
    }
    for name in source.path.split(['/', '.']).filter(|name| EMPTY_NAMES.contains(name)) {
        find(1, format!("`{name}` says nothing: name the file after what it answers"));
    }
    for (line, text) in source.tests() {
        check_test_line(text, |message| find(line, message));
    }
    for (line, path) in impurities(source) {
        find(line, format!("a pure module does no I/O, and this names {path}"));
    }
    findings
}

fn check_test_line(text: &str, mut find: impl FnMut(String)) {
    if text.trim_start().starts_with("//") {
        return;
    }
    let text = text.to_lowercase();
    // The words are put together here so that this file does not break its own rules.
    if text.contains(concat!("sle", "ep(")) {
        find("a test waits for an event with a deadline, it does not sleep".to_owned());
    }
    if text.contains(concat!("#[ign", "ore")) {
        find("a test that is not run proves nothing: mend it or remove it".to_owned());
    }
}

fn impurities(source: &Source) -> Vec<(usize, String)> {
    let module = module_of(&source.path);
    if !module.is_some_and(|module| PURE.contains(&module)) {
        return Vec::new();
    }
    let std = source
        .named_behind("std")
        .into_iter()
        .filter(|(_, name)| ["fs", "net", "process"].contains(&name.as_str()));
    let rustix = source.named_behind("rustix").into_iter().filter(|(_, name)| name == "fs");
    let std = std.map(|(line, name)| (line, format!("std::{name}")));
    std.chain(rustix.map(|(line, name)| (line, format!("rustix::{name}")))).collect()
}

/// The module directly in leakprobe/src that a file belongs to.
pub(super) fn module_of(path: &str) -> Option<&str> {
    path.strip_prefix("leakprobe/src/")?.split(['/', '.']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path.to_owned(), text.to_owned());
        check(&source).into_iter().map(|finding| format!("{}: {}", finding.line, finding.message)).collect()
    }

    fn only(path: &str, text: &str, words: &str) {
        let messages = messages(path, text);
        assert!(messages.len() == 1 && messages[0].contains(words), "{messages:?}");
    }

    #[test]
    fn an_ordinary_file_is_fine() {
        assert_eq!(messages("leakprobe/src/report/text.rs", "//! Text.\nuse std::fmt;\n"), [""; 0]);
    }

    #[test]
    fn each_rule_is_noticed() {
        only("xtask/src/main.rs", "fn main() {}\n", "opens with");
        only("leakprobe/src/util.rs", "//! x\n", "says nothing");
        only("leakprobe/src/misc/a.rs", "//! x\n", "says nothing");
        only("leakprobe/src/trace/mod.rs", &format!("//! x\n{}", "\n".repeat(400)), "401 lines");
        only("tests/live/a.rs", concat!("//! x\nthread::sle", "ep(second);\n"), "2: a test waits");
        only("tests/workloads/go/a/main.go", concat!("time.Sle", "ep(1)\n"), "1: a test waits");
        only("tests/live/a.rs", concat!("//! x\n#[ign", "ore = \"later\"]\n"), "not run");
        only("leakprobe/src/report/text.rs", "//! x\nuse std::{fmt, fs};\n", "2: a pure module");
        only("leakprobe/src/diagnose.rs", "//! x\nfn f() { rustix::fs::open() }\n", "rustix::fs");
    }

    #[test]
    fn tests_at_the_foot_are_not_counted_but_watched() {
        let foot = format!("//! x\n#[cfg(test)]\n{}", "\n".repeat(500));
        assert_eq!(messages("leakprobe/src/claim.rs", &foot), [""; 0]);
        only("leakprobe/src/claim.rs", concat!("//! x\n#[cfg(test)]\nsle", "ep(1)\n"), "3: a test waits");
    }
}
