//! Who makes it grow: call sites by bytes, each told in three lines at most.
//!
//! Stacks that fold to the same lines are one entry, or the race detector's ten ways to allocate would hide
//! that one `go` statement is behind them all; with full stacks nothing is folded or merged. The surprise:
//! bytes that grew without a stack are entries too, and count against the share that has one.

use std::cmp::Reverse;
use std::io;

use super::entry::{BYTES_COLUMNS, Entry};
use super::headline::RATE_MIN_BYTES;
use super::layout::{Page, Paint, Span, width};
use super::owners::Owner;
use super::units::{counted, share, size, size_cell};
use crate::claim::Component;
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::{HEAP_PROFILE, Report, SMALLER_SITES};

/// Entries usually shown; JSON has all of them.
const SITES_MAX: usize = 10;

/// Which call sites are one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Those that read alike once folded.
    ByReading,
    /// Each stack is its own, and is shown whole.
    ByStack,
}

/// All call sites.
pub struct Sites<'a> {
    entries: Vec<Entry<'a>>,
    grouping: Grouping,
    total_bytes: u64,
    with_stack_bytes: u64,
    /// Of those the report itself left out.
    unlisted_bytes: u64,
}

impl<'a> Sites<'a> {
    /// The report's call sites, the biggest first.
    pub fn of(report: &'a Report, grouping: Grouping) -> Self {
        let mut sites =
            Self { entries: Vec::new(), grouping, total_bytes: 0, with_stack_bytes: 0, unlisted_bytes: 0 };
        for site in &report.call_sites {
            sites.total_bytes = sites.total_bytes.saturating_add(site.bytes);
            if site.note.as_deref() == Some(SMALLER_SITES) {
                sites.with_stack_bytes = sites.with_stack_bytes.saturating_add(site.bytes);
                sites.unlisted_bytes = sites.unlisted_bytes.saturating_add(site.bytes);
                continue;
            }
            if !site.frames.is_empty() {
                sites.with_stack_bytes = sites.with_stack_bytes.saturating_add(site.bytes);
            }
            sites.entries.push(Entry::of(site, &report.target.exe));
        }
        sites.entries = arranged(sites.entries, grouping);
        sites
    }

    /// A line for the top of the report in several wordings: the owner's biggest call site. Empty where
    /// there is none that matters.
    pub fn headline(&self, owner: Option<Owner>) -> Vec<String> {
        let is_meant =
            |entry: &&Entry<'_>| owner.is_some() && entry.owner == owner && entry.function.is_some();
        let entry = self.entries.iter().find(is_meant).filter(|_| self.total_bytes >= RATE_MIN_BYTES);
        entry.map_or_else(Vec::new, |entry| {
            entry.told(&format!("Biggest call site, {}", share(entry.bytes, self.total_bytes)))
        })
    }

    /// Writes the section; nothing where nothing grew.
    pub fn write(&self, page: &mut Page<'_>, report: &Report) -> io::Result<()> {
        let grown_bytes = report.rss.growth.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        if self.total_bytes.max(grown_bytes) < RATE_MIN_BYTES {
            return Ok(());
        }
        page.blank()?;
        // New pages may be more than the growth, as others went away; they cannot be less than all of it.
        let whole_bytes = self.total_bytes.max(grown_bytes);
        let what = if grown_bytes > 0 { "growth" } else { "new memory" };
        let known = format!("{} of the {what} has a stack", share(self.with_stack_bytes, whole_bytes));
        let title = "WHO MAKES IT GROW";
        let columns = page.prose_columns() - width(title);
        page.line(&[Span::new(Paint::Bold, title), Span::right(Paint::Dim, &known, columns)])?;
        let most = page.most(SITES_MAX);
        for (index, entry) in self.entries.iter().take(most).enumerate() {
            let is_alarming = index == 0 && entry.bytes >= GROWTH_MIN_BYTES;
            entry.write_head(page, if is_alarming { Paint::Alarm } else { Paint::Plain })?;
            match self.grouping {
                Grouping::ByReading => entry.write_trail(page)?,
                Grouping::ByStack => entry.write_frames(page)?,
            }
        }
        if self.entries.is_empty() {
            return page.prose(Paint::Plain, "  ", "No call site was recorded.");
        }
        let rest = self.entries.get(most..).unwrap_or_default();
        write_rest(page, rest, self.unlisted_bytes)?;
        heap_profile(report).map_or(Ok(()), |text| page.prose(Paint::Dim, "  ", &text))
    }
}

/// The entries, most bytes first; those that read alike as one where they are grouped so.
pub fn arranged(mut entries: Vec<Entry<'_>>, grouping: Grouping) -> Vec<Entry<'_>> {
    if grouping == Grouping::ByReading {
        // There may be thousands: sorting brings together what reads alike.
        entries.sort_by(|one, other| one.reading().cmp(&other.reading()));
        entries.dedup_by(|next, kept| {
            let is_same = next.reading() == kept.reading();
            if is_same {
                kept.merge(next);
            }
            is_same
        });
    }
    entries.sort_by_key(|entry| Reverse(entry.bytes));
    entries
}

/// The line for what is not shown, `unlisted_bytes` of it not even in the report; nothing without any.
pub fn write_rest(page: &mut Page<'_>, rest: &[Entry<'_>], unlisted_bytes: u64) -> io::Result<()> {
    let bytes = rest.iter().map(|entry| entry.bytes).fold(unlisted_bytes, u64::saturating_add);
    if bytes == 0 {
        return Ok(());
    }
    let many = match unlisted_bytes {
        0 => counted(rest.len() as u64, "smaller call site", "smaller call sites"),
        _ => SMALLER_SITES.to_owned(),
    };
    page.line(&[
        Span::right(Paint::Plain, &size_cell(bytes), BYTES_COLUMNS),
        Span::new(Paint::Dim, &format!("  {many}")),
    ])
}

/// How far the entries from the heap profile can be trusted; none without any.
fn heap_profile(report: &Report) -> Option<String> {
    let told = report.call_sites.iter().filter(|site| site.source == HEAP_PROFILE);
    let bytes = told.map(|site| site.bytes).fold(0, u64::saturating_add);
    if bytes == 0 {
        return None;
    }
    let row = report.components.iter().find(|row| row.id == Component::GoHeapInUse);
    let grown_bytes = row.and_then(|row| row.growth).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let sum = match bytes > grown_bytes {
        true => format!(", so {} here and {} in the table", size(bytes), size(grown_bytes)),
        false => String::new(),
    };
    Some(format!("The Go heap's are from its heap profile: samples, as of the last collection{sum}."))
}
