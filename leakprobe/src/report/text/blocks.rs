//! What the C heap holds: blocks by size, and C++ objects by class, where the C heap matters.
//!
//! Beside the call sites, which see the first touches of fresh pages: a block that takes a freed one's place touches
//! none, and is counted here all the same. The surprise: a block of an object is in both lists, by its size and by
//! its class.

use std::cmp::Reverse;
use std::io;

use super::entry::BYTES_COLUMNS;
use super::layout::{Page, Paint, Span, width};
use super::units::{change, change_cell, count, counted, size, size_cell};
use crate::claim::Component;
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::{BlocksGrowth, Malloc, Report};

/// Sizes and classes shown; JSON has all of them.
const SIZES_MAX: usize = 3;
const CLASSES_MAX: usize = 5;
/// With one part in so many of what the process holds, or of what it gained, the C heap is worth a section.
const PARTS: u64 = 5;
/// Less in blocks is not worth one.
const IN_USE_MIN_BYTES: u64 = 4 << 20;
/// Reuse is told from so many bytes on, and so large a part of the blocks' growth.
const REUSED_MIN_BYTES: u64 = 1 << 20;
const REUSED_PARTS: u64 = 10;
/// Larger blocks share a size with others.
const EXACT_MAX_BYTES: u64 = 1024;
/// Columns of a change, with a space before it.
const CHANGE_COLUMNS: usize = 12;

/// A line of either list.
struct Row {
    bytes: u64,
    growth: Option<BlocksGrowth>,
    blocks: u64,
    what: String,
}

/// Writes the section; nothing where the C heap is not what matters, or not known.
pub fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let Some(malloc) = report.malloc.as_ref().filter(|malloc| matters(report, malloc)) else { return Ok(()) };
    page.blank()?;
    let title = "WHAT THE C HEAP HOLDS";
    let grown = malloc.in_use_growth.filter(|growth| growth.bytes != 0);
    let grown = grown.map_or_else(String::new, |growth| format!(", {}", change(growth.bytes)));
    let sum =
        format!("{}, {}{grown}", counted(blocks(malloc), "block", "blocks"), size(in_use_bytes(malloc)));
    let columns = page.prose_columns() - width(title);
    page.line(&[Span::new(Paint::Bold, title), Span::right(Paint::Dim, &sum, columns)])?;
    write_rows(page, sizes(malloc), SIZES_MAX, ("other size", "other sizes"))?;
    let classes = classes(malloc);
    if !classes.is_empty() {
        page.line(&[Span::new(Paint::Dim, "  of them C++ objects, by the vtable they begin with:")])?;
        write_rows(page, classes, CLASSES_MAX, ("more class", "more classes"))?;
    }
    if malloc.unclassed.blocks > 0 {
        let number = count(malloc.unclassed.blocks);
        page.prose(Paint::Notice, "  ", &format!("{number} more blocks may be objects: too many to tell."))?;
    }
    reused(malloc).map_or(Ok(()), |text| page.prose(Paint::Plain, "  ", &text))
}

/// The first rows, and the others in one line.
fn write_rows(page: &mut Page<'_>, rows: Vec<Row>, most: usize, others: (&str, &str)) -> io::Result<()> {
    let (shown, rest) = rows.split_at(rows.len().min(most));
    for row in shown {
        row.write(page)?;
    }
    let sum = |field: fn(&Row) -> u64| rest.iter().map(field).fold(0, u64::saturating_add);
    let (bytes, blocks) = (sum(|row| row.bytes), sum(|row| row.blocks));
    let growth = rest.iter().map(|row| row.growth).reduce(together).flatten();
    if bytes == 0 && growth.is_none_or(|growth| growth.bytes == 0) {
        return Ok(());
    }
    let kinds = counted(rest.len() as u64, others.0, others.1);
    Row { bytes, growth, blocks, what: format!("in {kinds}") }.write(page)
}

impl Row {
    /// "49 MiB   +20.0 MiB  290,400 (+119,156) blocks of 176 B".
    fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let (cell, gained) = match self.growth {
            Some(growth) => (change_cell(Some(growth.bytes)), growth.blocks),
            None => (String::new(), 0),
        };
        let columns = if self.growth.is_some() { CHANGE_COLUMNS } else { 0 };
        let sign = if gained > 0 { "+" } else { "-" };
        let gained = match gained {
            0 => String::new(),
            _ => format!(" ({sign}{})", count(gained.unsigned_abs())),
        };
        page.line(&[
            Span::right(Paint::Plain, &size_cell(self.bytes), BYTES_COLUMNS),
            Span::right(Paint::Plain, &cell, columns),
            Span::new(Paint::Plain, &format!("  {}{gained} {}", count(self.blocks), self.what)),
        ])
    }
}

fn sizes(malloc: &Malloc) -> Vec<Row> {
    let rows = malloc.sizes.iter().map(|class| Row {
        bytes: class.bytes,
        growth: class.growth,
        blocks: class.blocks,
        what: match class.size {
            ..=EXACT_MAX_BYTES => format!("blocks of {}", size(class.size)),
            _ => format!("blocks up to {}", size(class.size)),
        },
    });
    ranked(rows.collect())
}

fn classes(malloc: &Malloc) -> Vec<Row> {
    let rows = malloc.classes.iter().map(|row| Row {
        bytes: row.bytes,
        growth: row.growth,
        blocks: row.blocks,
        what: row.class.clone().unwrap_or_else(|| "in many smaller classes".to_owned()),
    });
    ranked(rows.collect())
}

/// Most growth first, then most bytes.
fn ranked(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| (Reverse(row.growth.map_or(0, |growth| growth.bytes)), Reverse(row.bytes)));
    rows
}

fn together(one: Option<BlocksGrowth>, other: Option<BlocksGrowth>) -> Option<BlocksGrowth> {
    let (one, other) = one.zip(other)?;
    let (blocks, bytes) = (one.blocks.saturating_add(other.blocks), one.bytes.saturating_add(other.bytes));
    Some(BlocksGrowth { blocks, bytes })
}

/// How much of the growth the call sites cannot show.
fn reused(malloc: &Malloc) -> Option<String> {
    let grown_bytes = u64::try_from(malloc.in_use_growth?.bytes).ok()?;
    let bytes =
        malloc.reused.filter(|bytes| *bytes >= REUSED_MIN_BYTES && *bytes >= grown_bytes / REUSED_PARTS)?;
    Some(format!(
        "{} of the blocks' growth reused memory that was resident already: no call site saw it.",
        size(bytes)
    ))
}

fn in_use_bytes(malloc: &Malloc) -> u64 {
    malloc.in_use.bytes.saturating_add(malloc.mapped.bytes)
}

fn blocks(malloc: &Malloc) -> u64 {
    malloc.in_use.blocks.saturating_add(malloc.mapped.blocks)
}

/// Whether malloc's blocks are a sizeable part of what the process holds or gained.
fn matters(report: &Report, malloc: &Malloc) -> bool {
    let row = report.components.iter().find(|row| row.id == Component::CHeapInUse);
    let grown_bytes = |growth: Option<i64>| growth.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let grown = malloc.in_use_growth.map(|growth| growth.bytes);
    let grown = grown_bytes(grown).max(grown_bytes(row.and_then(|row| row.growth)));
    let is_held = row.is_some_and(|row| row.rss >= report.rss.end / PARTS);
    (is_held && in_use_bytes(malloc) >= IN_USE_MIN_BYTES)
        || (grown >= GROWTH_MIN_BYTES && grown >= grown_bytes(report.rss.growth) / PARTS)
}
