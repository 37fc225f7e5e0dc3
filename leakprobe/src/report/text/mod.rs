//! The report on a terminal: the answer in three lines, then the table of owners, who makes it grow, what
//! to do, and how far all this can be trusted.
//!
//! One file a section, in the order of the page. Nothing is measured or judged here. The surprise: no line
//! is ever wider than the style says (from 72 columns on), whatever the target's names look like.

mod advice;
mod blocks;
mod cgroup;
mod entry;
mod frames;
mod goroutines;
mod headline;
mod held;
mod honesty;
mod layout;
mod ledger;
mod owners;
mod parts;
mod sites;
mod units;

use std::io::{self, Write};

use self::held::Held;
use self::layout::Page;
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
