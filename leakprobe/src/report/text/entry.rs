//! One stack in three lines at most: bytes, whose, what was called, where and by whom.
//!
//! The surprise: entries know nothing of the list they are in, so two that read alike may be one there.

use std::io;

use super::frames::{Fold, fold, without_directories};
use super::layout::{Page, Paint, Span, cut, cut_start, width};
use super::owners::{Owner, SHORT_COLUMNS};
use super::units::{GLUE, size, size_cell};
use crate::report::escape::printable;
use crate::report::{CallSite, Frame, HEAP_PROFILE, HeldSite};

/// Columns of the bytes, with a space on either side.
pub const BYTES_COLUMNS: usize = 9;

/// Lines of callers under an entry.
const CALLER_LINES_MAX: usize = 2;

/// From this width on, files are shown with their directory.
const WIDE_COLUMNS: usize = 100;

/// An entry of a list of stacks.
pub struct Entry<'a> {
    /// Whose bytes; none where the whole list is one owner's.
    pub owner: Option<Owner>,
    /// How many.
    pub bytes: u64,
    /// By how much that may be off, where stacks were sampled.
    error_bytes: Option<u64>,
    /// Of `bytes`, freed and there still.
    lazy_free_bytes: u64,
    /// "go statement", and the function; either may be missing.
    verb: Option<&'static str>,
    /// The innermost function worth showing.
    pub function: Option<String>,
    /// Where in the function, then the callers with their places.
    trail: Vec<Step>,
    frames: &'a [Frame],
    note: Option<&'a str>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    function: Option<String>,
    place: Place,
}

/// Where in the sources, or at least in which module.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Path, or empty.
    file: String,
    /// ":1782", or empty.
    line: String,
    /// "[libfoo.so]", or empty.
    module: String,
}

impl<'a> Entry<'a> {
    /// A stack that made memory resident.
    pub fn of(site: &'a CallSite, exe: &str) -> Self {
        let owner = Some(Owner::of(site.component));
        let entry = Self { owner, ..Self::of_stack(&site.frames, &site.source, exe) };
        let (bytes, error_bytes, lazy_free_bytes) = (site.bytes, site.error_bytes, site.lazy_free);
        Self { bytes, error_bytes, lazy_free_bytes, note: site.note.as_deref(), ..entry }
    }

    /// A stack whose objects are alive.
    pub fn of_held(site: &'a HeldSite, exe: &str) -> Self {
        let entry = Self::of_stack(&site.frames, HEAP_PROFILE, exe);
        Self { bytes: site.bytes, note: site.note.as_deref(), ..entry }
    }

    fn of_stack(frames: &'a [Frame], source: &str, exe: &str) -> Self {
        let Fold { verb, shown, callers } = fold(frames).told_by(source);
        let place = |frame: &Frame| Place::of(frame, exe);
        let own = shown.map(|at| Step { function: None, place: place(&frames[at]) });
        let outer = callers.iter().map(|at| {
            let frame = &frames[*at];
            Step { function: Some(function(frame)), place: place(frame) }
        });
        Self {
            owner: None,
            bytes: 0,
            error_bytes: None,
            lazy_free_bytes: 0,
            verb,
            function: shown.map(|at| function(&frames[at])),
            trail: own.into_iter().chain(outer).collect(),
            frames,
            note: None,
        }
    }

    /// Takes in one that reads alike. Errors add up as those of samples do that know nothing of each other, which is
    /// more than they do.
    pub fn merge(&mut self, other: &Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.lazy_free_bytes = self.lazy_free_bytes.saturating_add(other.lazy_free_bytes);
        let squares =
            [self.error_bytes, other.error_bytes].map(|error| error.map(|bytes| (bytes as f64).powi(2)));
        let sum = squares.into_iter().flatten().reduce(|one, other| one + other);
        self.error_bytes = sum.map(|squares| squares.sqrt().ceil() as u64);
    }

    /// All that a reader sees of it, but for the bytes.
    pub fn reading(&self) -> impl Ord {
        (self.owner, self.verb, self.function.as_deref(), &self.trail, self.note, self.frames.is_empty())
    }

    /// "go statement in main.flood".
    fn worded(&self, function: &str) -> String {
        match self.verb {
            Some(verb) => format!("{verb} in {function}"),
            None => function.to_owned(),
        }
    }

    /// "Biggest call site, 61 %: make in main.cache (cache.go:17).", from the fullest wording to the shortest.
    pub fn told(&self, what: &str) -> Vec<String> {
        let function = self.function.as_deref().unwrap_or("");
        let place = self.trail.first().map(|step| step.place.worded(false)).filter(|place| !place.is_empty());
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let sentence = |function: &str, place: &str| format!("{what}: {}{place}.", self.worded(function));
        let short = without_directories(function);
        [(function, &*place), (function, ""), (short, &place), (short, "")]
            .map(|(function, place)| sentence(function, place))
            .into_iter()
            .chain([sentence(&cut(short, 40), "")])
            .collect()
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

    /// "± 820 KiB", where it has room in the first line behind the whole name, or where it has none and stands below;
    /// none of what is exact.
    fn error(&self, head_columns: usize, in_head: bool) -> Option<String> {
        let error = format!("±{GLUE}{}", size(self.error_bytes?));
        let free_columns = head_columns.saturating_sub(width(&error) + 2);
        let has_room = width(&self.head(free_columns)) <= free_columns;
        (has_room == in_head).then_some(error)
    }

    /// Columns before the stack.
    fn margin_columns(&self) -> usize {
        BYTES_COLUMNS + 2 + if self.owner.is_some() { SHORT_COLUMNS + 2 } else { 0 }
    }

    /// Its first line: bytes, owner, what was called.
    pub fn write_head(&self, page: &mut Page<'_>, bytes_paint: Paint) -> io::Result<()> {
        let margin_columns = self.margin_columns();
        let owner = self.owner.map_or("", Owner::short);
        let columns = page.columns() - margin_columns;
        let error = self.error(columns, true).map(|error| format!("  {error}")).unwrap_or_default();
        let head = self.head(columns - width(&error));
        page.line(&[
            Span::right(bytes_paint, &size_cell(self.bytes), BYTES_COLUMNS),
            Span::new(Paint::Plain, "  "),
            Span::left(Paint::Plain, owner, margin_columns - BYTES_COLUMNS - 2),
            Span::new(Paint::Plain, &head),
            Span::new(Paint::Dim, &error),
        ])
    }

    /// Its place and its callers.
    pub fn write_trail(&self, page: &mut Page<'_>) -> io::Result<()> {
        let margin = " ".repeat(self.margin_columns() + 2);
        let error = self.error(page.columns() - self.margin_columns(), false);
        let columns = page.columns() - margin.len();
        for line in self.trail_lines(columns, page.columns() >= WIDE_COLUMNS, error) {
            page.line(&[Span::new(Paint::Dim, &format!("{margin}{line}"))])?;
        }
        Ok(())
    }

    /// Every frame on a line of its own, innermost first.
    pub fn write_frames(&self, page: &mut Page<'_>) -> io::Result<()> {
        let columns = page.columns() - BYTES_COLUMNS - 2;
        if let Some(error) = self.error(page.columns() - self.margin_columns(), false) {
            page.line(&[Span::new(Paint::Dim, &format!("{}{error}", " ".repeat(BYTES_COLUMNS + 2)))])?;
        }
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
    /// `error` is what found no room in the first line.
    fn trail_lines(&self, columns: usize, is_wide: bool, error: Option<String>) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        // With a function in the head, the note has no other place.
        let note = self.note.filter(|_| self.function.is_some()).map(|note| format!("({note})"));
        let freed = (self.lazy_free_bytes > 0)
            .then(|| format!("({} of it freed, MADV_FREE)", size(self.lazy_free_bytes)));
        let steps = self.trail.iter().map(|step| step.worded(columns, is_wide));
        // Before the callers, for whom there may be no room.
        let own = usize::from(self.trail.first().is_some_and(|step| step.function.is_none()));
        let (place, callers) = (steps.clone().take(own), steps.skip(own));
        for text in place.chain(error).chain(freed).chain(callers).chain(note) {
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
    pub fn of(frame: &Frame, exe: &str) -> Self {
        let module = frame.module.as_deref().filter(|module| frame.file.is_none() && *module != exe);
        Self {
            file: frame.file.as_deref().map(|file| printable(file).into_owned()).unwrap_or_default(),
            line: frame.line.map(|line| format!(":{line}")).unwrap_or_default(),
            module: module.map(|path| format!("[{}]", printable(last_parts(path, 1)))).unwrap_or_default(),
        }
    }

    /// "transport.go:1782", with its directory where there is room.
    pub fn worded(&self, is_wide: bool) -> String {
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
pub fn function(frame: &Frame) -> String {
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
