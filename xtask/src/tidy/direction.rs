//! One direction: a stage of the pipeline knows those before it and none behind it, so that each can be
//! read, tested and replaced with the stages to its right covered up.

use super::Finding;
use super::rules::module_of;
use super::source::Source;

/// The stages, in the order the data goes.
const STAGES: [&str; 9] =
    ["target", "snapshot", "runtimes", "trace", "unwind", "attribute", "symbolize", "diagnose", "report"];

/// Words that all stages share; they know no stage.
const BASE: [&str; 2] = ["address", "claim"];

/// What puts the stages together, and so may know all of them; no stage may know these.
const OUTSIDE: [&str; 16] = [
    "account", "cli", "doctor", "explain", "host", "launch", "lib", "look", "main", "observe", "output",
    "progress", "saved", "scene", "watch", "window",
];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Some(module) = module_of(&source.path).filter(|module| !OUTSIDE.contains(module)) else {
        return Vec::new();
    };
    let find = |line, message| Finding { path: source.path.clone(), line, message };
    let Some(place) = place_of(module) else {
        return vec![find(
            1,
            format!(
                "`{module}` has no place in the pipeline yet: give it one in xtask/src/tidy/direction.rs"
            ),
        )];
    };
    let mut findings = Vec::new();
    for (line, used) in source.named_behind("crate") {
        let is_to_the_right =
            place_of(&used).is_some_and(|other| other > place) || OUTSIDE.contains(&used.as_str());
        if is_to_the_right {
            findings
                .push(find(line, format!("`{module}` uses `{used}`, which comes after it in the pipeline")));
        }
    }
    findings
}

/// Base modules are left of every stage.
fn place_of(module: &str) -> Option<usize> {
    if BASE.contains(&module) {
        return Some(0);
    }
    STAGES.iter().position(|stage| *stage == module).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path.to_owned(), text.to_owned());
        check(&source).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn what_lies_to_the_left_may_be_used() {
        assert_eq!(
            messages("leakprobe/src/attribute/mod.rs", "use crate::{claim, snapshot::Page, trace};"),
            [""; 0]
        );
        assert_eq!(messages("leakprobe/src/trace/ring.rs", "use crate::trace::Event;"), [""; 0]);
        assert_eq!(messages("leakprobe/src/report/mod.rs", "use crate::diagnose::Finding;"), [""; 0]);
        assert_eq!(messages("leakprobe/src/lib.rs", "use crate::report;"), [""; 0]);
    }

    #[test]
    fn what_lies_to_the_right_may_not() {
        assert_eq!(messages("leakprobe/src/trace/mod.rs", "use crate::report::Frame;").len(), 1);
        assert_eq!(messages("leakprobe/src/claim.rs", "use crate::target::Target;").len(), 1);
        assert_eq!(messages("leakprobe/src/report/text.rs", "fn f() { crate::cli::g() }").len(), 1);
    }

    #[test]
    fn a_new_module_needs_a_place() {
        assert!(messages("leakprobe/src/novelty.rs", "//! x")[0].contains("no place"));
    }
}
