//! The table of kernels, backends and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::results::Verdict;

/// A column: all tests on one kernel with one backend.
pub(super) struct Column {
    pub kernel: String,
    /// "chosen", where leakprobe took the best one.
    pub backend: String,
    pub seconds: f64,
    pub verdicts: BTreeMap<String, Verdict>,
}

impl Column {
    fn count(&self, is_counted: impl Fn(&Verdict) -> bool) -> usize {
        self.verdicts.values().filter(|verdict| is_counted(verdict)).count()
    }

    /// One line for the terminal.
    pub(super) fn line(&self) -> String {
        let passed = self.count(|verdict| !matches!(verdict, Verdict::Failed(_)));
        let partly = self.count(|verdict| matches!(verdict, Verdict::PartlyNotHere(_)));
        let failed = self.count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let partly =
            if partly > 0 { format!(" ({partly} of them without what is not here)") } else { String::new() };
        format!(
            "{:5} {:10} {passed:4} passed{partly}, {failed} failed, {:.0} s",
            self.kernel, self.backend, self.seconds
        )
    }

    /// Tests that failed, and why.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.verdicts.iter().filter_map(|(name, verdict)| match verdict {
            Verdict::Failed(reason) => Some((name.as_str(), reason.trim())),
            _ => None,
        })
    }
}

/// Markdown: a row for each module of tests, and what was left out and what failed by name.
pub(super) fn markdown(columns: &[Column]) -> String {
    let mut text = String::from("\n| tests |");
    for column in columns {
        // A String takes all that is written to it.
        write!(text, " {}<br>{} |", column.kernel, column.backend).ok();
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    let names = columns.iter().flat_map(|column| column.verdicts.keys());
    let modules: BTreeSet<&str> = names.map(|name| module(name)).collect();
    for name in &modules {
        let cells: Vec<String> = columns.iter().map(|column| cell(column, name)).collect();
        writeln!(text, "| {name} | {} |", cells.join(" | ")).ok();
    }
    let totals: Vec<String> = columns.iter().map(|column| cell_of(column.verdicts.values())).collect();
    writeln!(text, "| *all* | {} |\n", totals.join(" | ")).ok();
    text.push_str(&left_out(columns));
    text.push_str(&failed(columns));
    text
}

fn module(test: &str) -> &str {
    test.split("::").next().unwrap_or(test)
}

fn cell(column: &Column, name: &str) -> String {
    cell_of(column.verdicts.iter().filter(|(test, _)| module(test) == name).map(|(_, verdict)| verdict))
}

/// "5", if all five passed; "4 of 5", if one failed; "–", if none was run. A star: something was left out.
fn cell_of<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> String {
    let verdicts: Vec<&Verdict> = verdicts.collect();
    let passed = verdicts.iter().filter(|verdict| !matches!(verdict, Verdict::Failed(_))).count();
    let star = verdicts.iter().any(|verdict| matches!(verdict, Verdict::PartlyNotHere(_)));
    let star = if star { "\\*" } else { "" };
    match verdicts.len() {
        0 => "–".to_owned(),
        all if all == passed => format!("{passed}{star}"),
        all => format!("**{passed} of {all}**{star}"),
    }
}

fn left_out(columns: &[Column]) -> String {
    let mut missing: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for column in columns {
        for (test, verdict) in &column.verdicts {
            let Verdict::PartlyNotHere(features) = verdict else { continue };
            for feature in features {
                missing.entry((test, feature)).or_default().insert(&column.kernel);
            }
        }
    }
    let mut text = String::new();
    for ((test, feature), kernels) in missing {
        let kernels: Vec<&str> = kernels.into_iter().collect();
        writeln!(text, "- \\* `{test}` without {feature}: {}", kernels.join(", ")).ok();
    }
    text
}

fn failed(columns: &[Column]) -> String {
    let mut text = String::new();
    for column in columns {
        for (test, reason) in column.failures() {
            let first = reason.lines().next().unwrap_or("").replace('|', "\\|");
            writeln!(text, "- {} {}: `{test}`: {first}", column.kernel, column.backend).ok();
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_and_what_was_left_out_stands_out() {
        let verdicts = [
            ("a::one".to_owned(), Verdict::Passed),
            ("a::two".to_owned(), Verdict::Failed("Error: no\nmore".to_owned())),
            ("b::one".to_owned(), Verdict::PartlyNotHere(vec!["ksm".to_owned()])),
        ];
        let column = Column {
            kernel: "6.1".to_owned(),
            backend: "kprobe".to_owned(),
            seconds: 9.0,
            verdicts: verdicts.into(),
        };
        let text = markdown(&[column]);
        assert!(text.contains("| a | **1 of 2** |\n| b | 1\\* |\n| *all* | **2 of 3**\\* |"), "{text}");
        assert!(text.contains("- \\* `b::one` without ksm: 6.1\n"), "{text}");
        assert!(text.contains("- 6.1 kprobe: `a::two`: Error: no\n"), "{text}");
    }
}
