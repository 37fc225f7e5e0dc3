//! Folded stacks, `owner;root;…;leaf bytes`: what flame graph tools read.
//!
//! The surprise: the format has no way to quote. A semicolon in a name would be a step more and a number at its end a
//! second column, so that both are written otherwise.

use std::io::{self, Write};

use super::Report;
use super::stacks::{Measure, Sample, samples};

/// Writes one line a stack.
pub fn write(report: &Report, measure: Measure, out: &mut dyn Write) -> io::Result<()> {
    for line in lines(report, measure) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// The lines, in the order of the rows.
pub fn lines(report: &Report, measure: Measure) -> impl Iterator<Item = String> {
    let samples = samples(report).into_iter().filter(move |sample| sample.bytes(measure) > 0);
    samples.map(move |sample| line(&sample, measure))
}

fn line(sample: &Sample<'_>, measure: Measure) -> String {
    let mut line = sample.owner().to_owned();
    for step in sample.steps.iter().rev() {
        line.push(';');
        line.push_str(&unambiguous(&step.name()));
    }
    format!("{line} {}", sample.bytes(measure))
}

/// The name without what has a meaning in the format.
fn unambiguous(name: &str) -> String {
    let name = name.replace(';', "\\x3b");
    match name.rsplit_once(' ') {
        Some((start, end)) if end.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            format!("{start}_{end}")
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_add_steps_or_columns() {
        assert_eq!(unambiguous("operator new(unsigned long)"), "operator new(unsigned long)");
        assert_eq!(unambiguous("a;b"), "a\\x3bb");
        assert_eq!(unambiguous("gc worker 17"), "gc worker_17");
        assert_eq!(unambiguous("trailing "), "trailing_");
        assert_eq!(unambiguous(""), "");
    }
}
