//! Who makes it grow: call sites by bytes, each told in three lines at most.
//!
//! Stacks that fold to the same lines are one entry, or the race detector's ten ways to allocate would hide
//! that one `go` statement is behind them all; with full stacks nothing is folded or merged. The surprise:
//! bytes that grew without a stack are entries too, and count against the share that has one.

use std::cmp::Reverse;
use std::io;

use super::frames::{Fold, fold, without_directories};
use super::headline::RATE_MIN_BYTES;
use super::layout::{Page, Paint, Span, cut, cut_start, width};
use super::owners::{Owner, SHORT_COLUMNS};
use super::units::{counted, share, size_cell};
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::escape::printable;
use crate::report::{Frame, Report, SMALLER_SITES};

/// Entries shown; JSON has all of them.
const SITES_MAX: usize = 10;

/// Columns of the bytes, with a space on either side.
const BYTES_COLUMNS: usize = 9;

/// Where the third column starts.
const STACK_COLUMN: usize = BYTES_COLUMNS + 2 + SHORT_COLUMNS + 2;

/// Lines of callers under an entry.
const CALLER_LINES_MAX: usize = 2;

/// From this width on, files are shown with their directory.
const WIDE_COLUMNS: usize = 100;

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

struct Entry<'a> {
    owner: Owner,
    bytes: u64,
    /// "go statement", and the function; either may be missing.
    verb: Option<&'static str>,
    function: Option<String>,
    /// Where in the function, then the callers with their places.
    trail: Vec<Step>,
    frames: &'a [Frame],
    note: Option<&'static str>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    function: Option<String>,
    place: Place,
}

/// Where in the sources, or at least in which module.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Path, or empty.
    file: String,
    /// ":1782", or empty.
    line: String,
    /// "[libfoo.so]", or empty.
    module: String,
}

impl<'a> Sites<'a> {
    /// The report's call sites, the biggest first.
    pub fn of(report: &'a Report, grouping: Grouping) -> Self {
        let mut sites =
            Self { entries: Vec::new(), grouping, total_bytes: 0, with_stack_bytes: 0, unlisted_bytes: 0 };
        for site in &report.call_sites {
            sites.total_bytes = sites.total_bytes.saturating_add(site.bytes);
            if site.note == Some(SMALLER_SITES) {
                sites.with_stack_bytes = sites.with_stack_bytes.saturating_add(site.bytes);
                sites.unlisted_bytes = sites.unlisted_bytes.saturating_add(site.bytes);
                continue;
            }
            if !site.frames.is_empty() {
                sites.with_stack_bytes = sites.with_stack_bytes.saturating_add(site.bytes);
            }
            sites.entries.push(Entry::of(site, &report.target.exe));
        }
        if grouping == Grouping::ByReading {
            // There may be thousands: sorting brings together what reads alike.
            sites.entries.sort_by(|one, other| one.reading().cmp(&other.reading()));
            sites.entries.dedup_by(|next, kept| {
                let is_same = next.reading() == kept.reading();
                if is_same {
                    kept.bytes = kept.bytes.saturating_add(next.bytes);
                }
                is_same
            });
        }
        sites.entries.sort_by_key(|entry| Reverse(entry.bytes));
        sites
    }

    /// A line for the top of the report in several wordings: the owner's biggest call site. Empty where
    /// there is none that matters.
    pub fn headline(&self, owner: Option<Owner>) -> Vec<String> {
        let is_meant = |entry: &&Entry<'_>| Some(entry.owner) == owner && entry.function.is_some();
        let Some(entry) = self.entries.iter().find(is_meant).filter(|_| self.total_bytes >= RATE_MIN_BYTES)
        else {
            return Vec::new();
        };
        let function = entry.function.as_deref().unwrap_or("");
        let share = share(entry.bytes, self.total_bytes);
        let place =
            entry.trail.first().map(|step| step.place.worded(false)).filter(|place| !place.is_empty());
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let sentence = |function: &str, place: &str| {
            format!("Biggest call site, {share}: {}{place}.", entry.worded(function))
        };
        let short = without_directories(function);
        [(function, &*place), (function, ""), (short, &place), (short, "")]
            .map(|(function, place)| sentence(function, place))
            .into_iter()
            .chain([sentence(&cut(short, 40), "")])
            .collect()
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
        for (index, entry) in self.entries.iter().take(SITES_MAX).enumerate() {
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
        let rest = self.entries.get(SITES_MAX..).unwrap_or_default();
        let bytes = rest.iter().map(|entry| entry.bytes).fold(self.unlisted_bytes, u64::saturating_add);
        if bytes == 0 {
            return Ok(());
        }
        let many = match self.unlisted_bytes {
            0 => counted(rest.len() as u64, "smaller call site", "smaller call sites"),
            _ => SMALLER_SITES.to_owned(),
        };
        page.line(&[
            Span::right(Paint::Plain, &size_cell(bytes), BYTES_COLUMNS),
            Span::new(Paint::Dim, &format!("  {many}")),
        ])
    }
}

impl<'a> Entry<'a> {
    fn of(site: &'a crate::report::CallSite, exe: &str) -> Self {
        let Fold { verb, shown, callers } = fold(&site.frames);
        let place = |frame: &Frame| Place::of(frame, exe);
        let own = shown.map(|at| Step { function: None, place: place(&site.frames[at]) });
        let outer = callers.iter().map(|at| {
            let frame = &site.frames[*at];
            Step { function: Some(function(frame)), place: place(frame) }
        });
        Self {
            owner: Owner::of(site.component),
            bytes: site.bytes,
            verb,
            function: shown.map(|at| function(&site.frames[at])),
            trail: own.into_iter().chain(outer).collect(),
            frames: &site.frames,
            note: site.note,
        }
    }

    /// All that a reader sees of it, but for the bytes.
    fn reading(&self) -> impl Ord {
        (self.owner, self.verb, self.function.as_deref(), &self.trail, self.note, self.frames.is_empty())
    }

    /// "go statement in main.flood".
    fn worded(&self, function: &str) -> String {
        match self.verb {
            Some(verb) => format!("{verb} in {function}"),
            None => function.to_owned(),
        }
    }

    fn head(&self, columns: usize) -> String {
        match (&self.function, self.verb, self.note) {
            (None, None, Some(note)) => format!("no stack: {note}"),
            (None, None, None) => "no stack".to_owned(),
            (None, Some(verb), note) => format!("{verb}, {}", note.unwrap_or("caller unknown")),
            (Some(function), _, _) => {
                let full = self.worded(function);
                if width(&full) <= columns { full } else { self.worded(without_directories(function)) }
            }
        }
    }

    fn write_head(&self, page: &mut Page<'_>, bytes_paint: Paint) -> io::Result<()> {
        page.line(&[
            Span::right(bytes_paint, &size_cell(self.bytes), BYTES_COLUMNS),
            Span::new(Paint::Plain, "  "),
            Span::left(Paint::Plain, self.owner.short(), SHORT_COLUMNS + 2),
            Span::new(Paint::Plain, &self.head(page.columns() - STACK_COLUMN)),
        ])
    }

    fn write_trail(&self, page: &mut Page<'_>) -> io::Result<()> {
        let margin = " ".repeat(STACK_COLUMN + 2);
        for line in self.trail_lines(page.columns() - margin.len(), page.columns() >= WIDE_COLUMNS) {
            page.line(&[Span::new(Paint::Dim, &format!("{margin}{line}"))])?;
        }
        Ok(())
    }

    /// Every frame on a line of its own, innermost first.
    fn write_frames(&self, page: &mut Page<'_>) -> io::Result<()> {
        let columns = page.columns() - BYTES_COLUMNS - 2;
        for frame in self.frames {
            let place = cut_start(&Place::of(frame, "").worded(true), columns / 2);
            let name = fitting(&function(frame), columns - width(&place) - 2);
            let inlined = if frame.inlined { " (inlined)" } else { "" };
            let line = format!("{}{name}  {place}{inlined}", " ".repeat(BYTES_COLUMNS + 2));
            page.line(&[Span::new(Paint::Dim, &line)])?;
        }
        Ok(())
    }

    /// The place and the callers, in as few lines as they need and as many as are allowed.
    fn trail_lines(&self, columns: usize, is_wide: bool) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        // With a function in the head, the note has no other place.
        let note = self.note.filter(|_| self.function.is_some()).map(|note| format!("({note})"));
        let steps = self.trail.iter().map(|step| step.worded(columns, is_wide));
        for text in steps.chain(note) {
            if text.is_empty() {
                continue;
            }
            let is_full = lines.len() == CALLER_LINES_MAX;
            match lines.last_mut() {
                Some(line) if width(line) + 1 + width(&text) <= columns => {
                    line.push(' ');
                    line.push_str(&text);
                }
                _ if is_full => break,
                _ => lines.push(text),
            }
        }
        lines
    }
}

impl Step {
    /// "transport.go:1782", "< main.flood main.go:31", in so many columns.
    fn worded(&self, columns: usize, is_wide: bool) -> String {
        let place = self.place.worded(is_wide);
        let Some(function) = &self.function else {
            return cut_start(&place, columns);
        };
        let place = cut_start(&place, columns / 2);
        let free_columns = columns.saturating_sub(width(&place) + 3);
        format!("< {} {place}", fitting(function, free_columns)).trim_end().to_owned()
    }
}

impl Place {
    /// The frame's place; the module is left out where it is the program itself.
    pub(super) fn of(frame: &Frame, exe: &str) -> Self {
        let module = frame.module.as_deref().filter(|module| frame.file.is_none() && *module != exe);
        Self {
            file: frame.file.as_deref().map(|file| printable(file).into_owned()).unwrap_or_default(),
            line: frame.line.map(|line| format!(":{line}")).unwrap_or_default(),
            module: module.map(|path| format!("[{}]", printable(last_parts(path, 1)))).unwrap_or_default(),
        }
    }

    pub(super) fn worded(&self, is_wide: bool) -> String {
        if self.file.is_empty() {
            return self.module.clone();
        }
        format!("{}{}", last_parts(&self.file, if is_wide { 2 } else { 1 }), self.line)
    }
}

/// The function, without its directories or its end where there is no room for them.
fn fitting(function: &str, columns: usize) -> String {
    if width(function) <= columns { function.to_owned() } else { cut(without_directories(function), columns) }
}

/// The function's name, or the address where nothing names it.
pub(super) fn function(frame: &Frame) -> String {
    match &frame.function {
        Some(function) => printable(function).into_owned(),
        None => format!("{:#x}", frame.address),
    }
}

/// The last so many parts of a path.
fn last_parts(path: &str, parts: usize) -> &str {
    match path.rmatch_indices('/').nth(parts - 1) {
        Some((slash, _)) => &path[slash + 1..],
        None => path,
    }
}
