//! What the Go heap holds, by the stacks that allocated it, where the heap matters.
//!
//! The figures are the heap profile's: samples, scaled up. The surprise: they are less than the row of the
//! owners' table, which also has garbage and room between objects.

use std::io;

use super::entry::Entry;
use super::layout::{Page, Paint, Span, width};
use super::sites::{Grouping, arranged, write_rest};
use super::units::{count, share, size};
use crate::claim::Component;
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::{Report, SMALLER_SITES};

/// Entries shown; JSON has more.
const SITES_MAX: usize = 5;
/// With one part in so many of what the process holds, or of what it gained, the heap is worth a section.
const PARTS: u64 = 5;
/// A profile of less rests on a few samples.
const IN_USE_MIN_BYTES: u64 = 4 << 20;

/// The stacks whose objects are alive.
pub struct Held<'a> {
    entries: Vec<Entry<'a>>,
    grouping: Grouping,
    in_use_bytes: u64,
    unlisted_bytes: u64,
}

impl<'a> Held<'a> {
    /// Those of the report; `None` where the Go heap is not what matters, or has no profile.
    pub fn of(report: &'a Report, grouping: Grouping) -> Option<Self> {
        let in_use_bytes = report.heap_profile.in_use.filter(|bytes| *bytes >= IN_USE_MIN_BYTES)?;
        if !matters(report) {
            return None;
        }
        let (unlisted, listed): (Vec<_>, Vec<_>) =
            report.heap_profile.sites.iter().partition(|site| site.note == Some(SMALLER_SITES));
        let entries = listed.into_iter().map(|site| Entry::of_held(site, &report.target.exe)).collect();
        let unlisted_bytes = unlisted.iter().map(|site| site.bytes).fold(0, u64::saturating_add);
        Some(Self { entries: arranged(entries, grouping), grouping, in_use_bytes, unlisted_bytes })
    }

    /// A line for the top of the report in several wordings: who holds most.
    pub fn headline(&self) -> Vec<String> {
        let entry = self.entries.iter().find(|entry| entry.function.is_some());
        entry.map_or_else(Vec::new, |entry| {
            entry.told(&format!("Holds most of it, {}", share(entry.bytes, self.in_use_bytes)))
        })
    }

    /// Writes the section.
    pub fn write(&self, page: &mut Page<'_>, report: &Report) -> io::Result<()> {
        page.blank()?;
        let title = "WHAT THE GO HEAP HOLDS";
        let objects = report.heap_profile.in_use_objects.map(|objects| format!("{} objects, ", count(objects)));
        let all = format!("{}{}, by its profile", objects.unwrap_or_default(), size(self.in_use_bytes));
        let columns = page.prose_columns() - width(title);
        page.line(&[Span::new(Paint::Bold, title), Span::right(Paint::Dim, &all, columns)])?;
        for entry in self.entries.iter().take(SITES_MAX) {
            entry.write_head(page, Paint::Plain)?;
            match self.grouping {
                Grouping::ByReading => entry.write_trail(page)?,
                Grouping::ByStack => entry.write_frames(page)?,
            }
        }
        write_rest(page, self.entries.get(SITES_MAX..).unwrap_or_default(), self.unlisted_bytes)
    }
}

/// Whether the objects of the Go heap are a sizeable part of what the process holds or gained.
fn matters(report: &Report) -> bool {
    let Some(row) = report.components.iter().find(|row| row.id == Component::GoHeapInUse) else { return false };
    let grown_bytes = |growth: Option<i64>| growth.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let grown = grown_bytes(row.growth);
    row.rss >= report.rss.end / PARTS
        || (grown >= GROWTH_MIN_BYTES && grown >= grown_bytes(report.rss.growth) / PARTS)
}
