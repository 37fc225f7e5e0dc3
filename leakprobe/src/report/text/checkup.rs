//! A checkup on a terminal: what leakprobe can do here, then what was looked at.

use std::io::{self, Write};

use super::layout::{Page, Paint};
use crate::report::Style;
use crate::report::checkup::{Check, Checkup, State};

const STATE_COLUMNS: usize = 6;
const NAME_COLUMNS: usize = 17;

/// Writes the checkup.
pub fn write(checkup: &Checkup, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let page = &mut Page::new(out, style);
    let Checkup { version, kernel, arch, .. } = checkup;
    page.prose(Paint::Dim, "", &format!("leakprobe {version} on Linux {kernel}, {arch}"))?;
    page.prose(Paint::Bold, "", &checkup.verdict)?;
    page.blank()?;
    checks(page, &checkup.checks, ("NO", Paint::Alarm))?;
    page.blank()?;
    page.prose(Paint::Bold, "", "WHERE SYSTEM CALLS CAN BE SEEN, best first")?;
    // One that serves is enough.
    checks(page, &checkup.backends, ("no", Paint::Dim))
}

fn checks(page: &mut Page<'_>, checks: &[Check], missing: (&str, Paint)) -> io::Result<()> {
    let margin = " ".repeat(1 + STATE_COLUMNS + NAME_COLUMNS);
    for check in checks {
        let (word, paint) = match check.state {
            State::Fine => ("ok", Paint::Plain),
            State::Limited => ("less", Paint::Notice),
            State::Missing => missing,
            State::Unknown => ("?", Paint::Notice),
        };
        let first = format!(" {word:STATE_COLUMNS$}{:NAME_COLUMNS$}", check.name);
        page.prose(paint, &first, &check.found)?;
        for text in [&check.costs, &check.remedy].into_iter().flatten() {
            page.prose(Paint::Dim, &margin, text)?;
        }
    }
    Ok(())
}
