//! What libtest's output says of each test.

use std::collections::BTreeMap;

use leakprobe_tests::kernels::NOT_HERE;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    /// It passed and left something out; which features were missing.
    PartlyNotHere(Vec<String>),
    Failed(String),
}

/// Every test by its name, as libtest says it when it is given `--show-output`.
pub(super) fn parse(output: &str) -> BTreeMap<String, Verdict> {
    let mut verdicts = BTreeMap::new();
    for line in output.lines() {
        let Some((name, ending)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        else {
            continue;
        };
        let verdict = match ending {
            "ok" => Verdict::Passed,
            "FAILED" => Verdict::Failed(String::new()),
            _ => Verdict::Failed("it did not end".to_owned()),
        };
        verdicts.insert(name.to_owned(), verdict);
    }
    for (name, said) in said_by_each(output) {
        let Some(verdict) = verdicts.get_mut(name) else { continue };
        match verdict {
            Verdict::Failed(reason) if reason.is_empty() => *reason = said,
            Verdict::Passed => {
                let missing: Vec<String> = said
                    .lines()
                    .filter_map(|line| line.strip_prefix(NOT_HERE))
                    .map(|missing| missing.split(' ').next().unwrap_or(missing).to_owned())
                    .collect();
                if !missing.is_empty() {
                    *verdict = Verdict::PartlyNotHere(missing);
                }
            }
            _ => {}
        }
    }
    verdicts
}

/// Tests that said something, and what.
fn said_by_each(output: &str) -> Vec<(&str, String)> {
    let mut said: Vec<(&str, String)> = Vec::new();
    let mut is_inside = false;
    for line in output.lines() {
        let heading = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = heading {
            said.push((name, String::new()));
            is_inside = true;
        } else if line == "successes:" || line == "failures:" {
            is_inside = false;
        } else if let Some((_, text)) = said.last_mut().filter(|_| is_inside) {
            text.push_str(line);
            text.push('\n');
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test backends::all ... ok
test bad_luck::no_pid ... FAILED
test files::names ... ok
test storms::many ... 
successes:

---- backends::all stdout ----
not here: fentry (lockdown)
not here: kprobe (not built)

successes:
    backends::all
    files::names

failures:

---- bad_luck::no_pid stdout ----
Error: expected exit code 3
failures:
    bad_luck::no_pid

test result: FAILED. 2 passed; 1 failed
";

    #[test]
    fn each_test_has_its_verdict() {
        let verdicts = parse(OUTPUT);
        assert_eq!(verdicts.len(), 4);
        let missing = vec!["fentry".to_owned(), "kprobe".to_owned()];
        assert_eq!(verdicts["backends::all"], Verdict::PartlyNotHere(missing));
        assert_eq!(verdicts["files::names"], Verdict::Passed);
        let Verdict::Failed(reason) = &verdicts["bad_luck::no_pid"] else { panic!("it failed") };
        assert_eq!(reason, "Error: expected exit code 3\n");
        assert_eq!(verdicts["storms::many"], Verdict::Failed("it did not end".to_owned()));
    }

    #[test]
    fn output_that_breaks_off_is_no_pass() {
        assert_eq!(parse("test a::b ... "), parse("test a::b ... \n"));
        assert!(parse("").is_empty() && parse("Kernel panic").is_empty());
    }
}
