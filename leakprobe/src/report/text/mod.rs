//! The report on a terminal: the answer in three lines, then the table of owners, who makes it grow, what
//! to do, and how far all this can be trusted.
//!
//! One file a section, in the order of the page. Nothing is measured or judged here. The surprise: no line
//! is ever wider than the style says (from 72 columns on), whatever the target's names look like.

mod advice;
mod blocks;
mod cgroup;
pub(super) mod checkup;
pub(super) mod comparison;
mod entry;
pub(super) mod frames;
pub(super) mod goroutines;
mod headline;
mod held;
mod honesty;
mod layout;
pub(super) mod ledger;
pub(super) mod owners;
pub(super) mod parts;
mod sites;
pub(super) mod together;
pub(super) mod units;

use std::io::{self, Write};

use self::held::Held;
use self::layout::{Page, UNWRAPPED};
use self::sites::{Grouping, Sites};
use super::{Report, Style};

/// Writes the report.
pub fn write(report: &Report, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let page = &mut Page::new(out, style);
    let accounts = owners::accounts(&report.components);
    let sites = Sites::of(report, Grouping::ByReading);
    let held = Held::of(report, Grouping::ByReading);
    headline::write(page, report, &accounts, &sites, held.as_ref())?;
    page.blank()?;
    ledger::write(page, report, &accounts)?;
    let (sites, held) = match style.full_stacks {
        true => (Sites::of(report, Grouping::ByStack), Held::of(report, Grouping::ByStack)),
        false => (sites, held),
    };
    sites.write(page, report)?;
    held::write(page, report, held.as_ref())?;
    blocks::write(page, report)?;
    goroutines::write(page, report)?;
    advice::write(page, report)?;
    honesty::write(page, report)
}

/// The answer as sentences, for a form that wraps lines itself.
pub fn answer(report: &Report) -> Vec<String> {
    let accounts = owners::accounts(&report.components);
    let sites = Sites::of(report, Grouping::ByReading);
    let held = Held::of(report, Grouping::ByReading);
    lines(|page| headline::write(page, report, &accounts, &sites, held.as_ref()))
}

/// How far it can be trusted, likewise.
pub fn footing(report: &Report) -> Vec<String> {
    lines(|page| honesty::write(page, report))
}

fn lines(write: impl Fn(&mut Page<'_>) -> io::Result<()>) -> Vec<String> {
    let style = Style { width_columns: UNWRAPPED, color: false, full_stacks: false, top: None };
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let written = write(&mut Page::new(&mut text, &style));
    debug_assert!(written.is_ok());
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}
