//! What the Go heap holds, by the stacks that allocated it, where the heap matters.
//!
//! The figures are the heap profile's: samples, scaled up. The surprise: they are less than the row of the
//! owners' table, which also has garbage, and room where no object is; that is told where it is much.

use std::cmp::Reverse;
use std::io;

use super::entry::Entry;
use super::layout::{Page, Paint, Span, width};
use super::sites::{Grouping, arranged, write_rest};
use super::units::{count, counted, share, size};
use crate::claim::Component;
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::{ComponentRow, HeapClass, Report, SMALLER_SITES};

/// Entries shown; JSON has more.
const SITES_MAX: usize = 5;
/// With one part in so many of what the process holds, or of what it gained, the heap is worth a section.
const PARTS: u64 = 5;
/// A profile of less rests on a few samples.
const IN_USE_MIN_BYTES: u64 = 4 << 20;

/// Room without objects is told from so many bytes on, and so large a part of the spans.
const SLACK_MIN_BYTES: u64 = 16 << 20;
const SLACK_MIN_PERCENT: u64 = 30;
/// The profile is scaled up from samples: less than this above what is resident says nothing.
const UNTOUCHED_MIN_BYTES: u64 = 4 << 20;

/// Sizes of objects that are named then.
const CLASSES_MAX: usize = 3;

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
        if report.heap_profile.sites.is_empty() || !matters(report) {
            return None;
        }
        let (unlisted, listed): (Vec<_>, Vec<_>) =
            report.heap_profile.sites.iter().partition(|site| site.note.as_deref() == Some(SMALLER_SITES));
        let entries = listed.into_iter().map(|site| Entry::of_held(site, &report.target.exe)).collect();
        let unlisted_bytes = unlisted.iter().map(|site| site.bytes).fold(0, u64::saturating_add);
        Some(Self { entries: arranged(entries, grouping), grouping, in_use_bytes, unlisted_bytes })
    }

    /// A line for the top of the report in several wordings: who holds most.
    pub fn headline(&self) -> Vec<String> {
        let entry = self.entries.iter().find(|entry| entry.function.is_some());
        entry.map_or_else(Vec::new, |entry| {
            entry.told(&format!("Biggest holder in the Go heap, {}", share(entry.bytes, self.in_use_bytes)))
        })
    }

    /// "257,810 objects, 65 MiB, as of the last GC": the profile is as old as that.
    fn sum(&self, report: &Report) -> String {
        let objects =
            report.heap_profile.in_use_objects.map(|objects| format!("{} objects, ", count(objects)));
        format!("{}{}, as of the last GC", objects.unwrap_or_default(), size(self.in_use_bytes))
    }

    fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let most = page.most(SITES_MAX);
        for entry in self.entries.iter().take(most) {
            entry.write_head(page, Paint::Plain)?;
            match self.grouping {
                Grouping::ByReading => entry.write_trail(page)?,
                Grouping::ByStack => entry.write_frames(page)?,
            }
        }
        write_rest(page, self.entries.get(most..).unwrap_or_default(), self.unlisted_bytes)
    }
}

/// Writes the section; nothing without holders and without much room.
pub fn write(page: &mut Page<'_>, report: &Report, held: Option<&Held<'_>>) -> io::Result<()> {
    let room = room(report);
    if held.is_none() && room.is_none() {
        return Ok(());
    }
    page.blank()?;
    let title = "WHAT THE GO HEAP HOLDS";
    let sum = held.map(|held| held.sum(report)).unwrap_or_default();
    let columns = page.prose_columns() - width(title);
    page.line(&[Span::new(Paint::Bold, title), Span::right(Paint::Dim, &sum, columns)])?;
    held.map_or(Ok(()), |held| held.write(page))?;
    untouched(report).map_or(Ok(()), |text| page.prose(Paint::Plain, "  ", &text))?;
    room.map_or(Ok(()), |text| page.prose(Paint::Plain, "  ", &text))
}

/// Where the profile counts clearly more than is resident: why that is no contradiction.
fn untouched(report: &Report) -> Option<String> {
    let resident_bytes = heap_row(report)?.rss;
    let more_bytes = report.heap_profile.in_use?.checked_sub(resident_bytes)?;
    let is_clear = more_bytes >= UNTOUCHED_MIN_BYTES && more_bytes >= resident_bytes / 10;
    is_clear.then(|| {
        let resident = size(resident_bytes);
        format!("Of these {resident} are resident: the profile counts whole objects, touched or not.")
    })
}

/// "40 MiB (49 %) of its pages in use hold no object: …", where that is much.
fn room(report: &Report) -> Option<String> {
    let row = heap_row(report)?;
    let slack_bytes = row.slack.filter(|bytes| *bytes >= SLACK_MIN_BYTES)?;
    if u128::from(slack_bytes) * 100 < u128::from(row.rss) * u128::from(SLACK_MIN_PERCENT) {
        return None;
    }
    let mut classes: Vec<&HeapClass> = report.heap_classes.iter().filter(|class| class.slack > 0).collect();
    classes.sort_by_key(|class| Reverse(class.slack));
    let worded = |class: &&HeapClass| {
        let what = match class.object_bytes {
            Some(bytes) => format!("objects of {}", size(bytes)),
            None => "large objects".to_owned(),
        };
        format!("{} {what} in {}", count(class.objects), counted(class.spans, "span", "spans"))
    };
    let most: Vec<String> = classes.iter().take(CLASSES_MAX).map(worded).collect();
    let most = if most.is_empty() { String::new() } else { format!(" Most of it: {}.", most.join("; ")) };
    Some(format!(
        "{} of its resident pages, {}, hold no object: a page is free only when all objects on it are.{most}",
        size(slack_bytes),
        share(slack_bytes, row.rss)
    ))
}

fn heap_row(report: &Report) -> Option<&ComponentRow> {
    report.components.iter().find(|row| row.id == Component::GoHeapInUse)
}

/// Whether the objects of the Go heap are a sizeable part of what the process holds or gained.
fn matters(report: &Report) -> bool {
    let Some(row) = heap_row(report) else { return false };
    let grown_bytes = |growth: Option<i64>| growth.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let grown = grown_bytes(row.growth);
    row.rss >= report.rss.end / PARTS
        || (grown >= GROWTH_MIN_BYTES && grown >= grown_bytes(report.rss.growth) / PARTS)
}
