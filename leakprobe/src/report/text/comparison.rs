//! Two reports on a terminal: who holds more than before, in which code, and what is new.
//!
//! It says first whether this is one process or two. The surprise: call sites are compared by their bytes a second,
//! since the two windows need not be as long.

use std::io::{self, Write};

use super::frames::{in_short, without_directories};
use super::layout::{Page, Paint, Span, cut};
use super::units::{change, change_cell, count, rate, size, size_cell, time};
use crate::report::comparison::{Comparison, Presence, RowChange, StackChange};
use crate::report::stacks::name;
use crate::report::{FAULTS, Frame, GOROUTINES, Style};

/// Entries shown of each list; JSON has more.
const ENTRIES_MAX: usize = 10;
const LABEL_COLUMNS: usize = 30;
const NUMBER_COLUMNS: usize = 13;
/// Smaller changes of code are noise beside the others.
const STACK_MIN_BYTES: u64 = 64 << 10;

/// Writes the comparison.
pub fn write(comparison: &Comparison, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let page = &mut Page::new(out, style);
    page.prose(Paint::Bold, "", &answer(comparison))?;
    page.prose(Paint::Plain, "", &which(comparison))?;
    page.blank()?;
    rows(page, comparison)?;
    heap_sites(page, &comparison.heap_sites)?;
    call_sites(page, comparison)?;
    goroutines(page, comparison)?;
    findings(page, comparison)
}

/// "api (pid 12345) holds 343 MiB, +20 MiB against 2.0 h before (+10 MiB an hour)."
fn answer(comparison: &Comparison) -> String {
    let after = &comparison.after;
    let span = comparison.seconds_between.filter(|seconds| *seconds > 0.0);
    let changed = match comparison.rss_change {
        0 => "as much as".to_owned(),
        bytes => format!("{} against", change(bytes)),
    };
    let before = span.map_or("the first report".to_owned(), |seconds| format!("{} before", time(seconds)));
    // Two processes have no rate in common.
    let pace =
        span.filter(|seconds| comparison.same_process && *seconds >= 1.0 && comparison.rss_change != 0);
    let pace = pace.map(|seconds| format!(" ({})", rate(comparison.rss_change, seconds))).unwrap_or_default();
    format!("{} (pid {}) holds {}, {changed} {before}{pace}.", after.comm, after.pid, size(after.rss))
}

fn which(comparison: &Comparison) -> String {
    let (before, after) = (&comparison.before, &comparison.after);
    if comparison.same_process {
        return format!("It is the same process, started {}.", after.started_at);
    }
    let other =
        if before.exe == after.exe { "another process of the same program" } else { "another program" };
    format!(
        "The first report is of {other}: {} (pid {}), started {}. Stacks are compared by their functions.",
        before.comm, before.pid, before.started_at
    )
}

fn rows(page: &mut Page<'_>, comparison: &Comparison) -> io::Result<()> {
    let cells = |page: &mut Page<'_>, paint, label: &str, numbers: [&str; 3]| {
        let mut spans = vec![Span::left(paint, label, LABEL_COLUMNS)];
        spans.extend(numbers.map(|number| Span::right(paint, number, NUMBER_COLUMNS)));
        page.line(&spans)
    };
    cells(page, Paint::Bold, "OWNER", ["BEFORE", "AFTER", "CHANGE"])?;
    let is_nothing = |row: &&RowChange| row.before == 0 && row.after == 0;
    for row in comparison.components.iter().filter(|row| !is_nothing(row)) {
        let (before, after) = (size_cell(row.before), size_cell(row.after));
        cells(page, Paint::Plain, &row.label, [&before, &after, &change_cell(Some(row.change))])?;
    }
    let (before, after) = (size_cell(comparison.before.rss), size_cell(comparison.after.rss));
    cells(page, Paint::Bold, "RSS", [&before, &after, &change_cell(Some(comparison.rss_change))])
}

fn heap_sites(page: &mut Page<'_>, stacks: &[StackChange]) -> io::Result<()> {
    let stacks = stacks.iter().filter(|stack| stack.change.unsigned_abs() >= STACK_MIN_BYTES);
    let stacks: Vec<&StackChange> = stacks.take(page.most(ENTRIES_MAX)).collect();
    if stacks.is_empty() {
        return Ok(());
    }
    title(page, "WHAT THE GO HEAP HOLDS, BY WHO ALLOCATED IT")?;
    for stack in stacks {
        let sizes = format!("{} → {}", size(stack.before), size(stack.after));
        entry(page, &change(stack.change), &about(&stack.frames, FAULTS), &sizes)?;
    }
    Ok(())
}

fn call_sites(page: &mut Page<'_>, comparison: &Comparison) -> io::Result<()> {
    let stacks =
        comparison.call_sites.iter().filter(|stack| stack.before.max(stack.after) >= STACK_MIN_BYTES);
    let stacks: Vec<&StackChange> = stacks.take(page.most(ENTRIES_MAX)).collect();
    if stacks.is_empty() {
        return Ok(());
    }
    title(page, "WHO MADE IT GROW IN THE WINDOWS")?;
    for stack in stacks {
        let pace = |bytes: u64, seconds: f64| match bytes {
            0 => "nothing".to_owned(),
            _ => rate(i64::try_from(bytes).unwrap_or(i64::MAX), seconds),
        };
        let before = pace(stack.before, comparison.before.window_seconds);
        let after = pace(stack.after, comparison.after.window_seconds);
        entry(
            page,
            &after,
            &format!("{}: {}", stack.component.label(), about(&stack.frames, FAULTS)),
            &format!("before: {before}"),
        )?;
    }
    Ok(())
}

fn goroutines(page: &mut Page<'_>, comparison: &Comparison) -> io::Result<()> {
    if comparison.goroutines.is_empty() {
        return Ok(());
    }
    title(page, "GOROUTINES")?;
    for group in comparison.goroutines.iter().take(page.most(ENTRIES_MAX)) {
        let sign = if group.change < 0 { '-' } else { '+' };
        let number = format!("{sign}{}", count(group.change.unsigned_abs()));
        let state = group.wait_reason.as_deref().unwrap_or(&group.state);
        let counts = format!("{} → {}", count(group.before), count(group.after));
        entry(page, &number, &format!("{state}: {}", about(&group.frames, GOROUTINES)), &counts)?;
    }
    Ok(())
}

fn findings(page: &mut Page<'_>, comparison: &Comparison) -> io::Result<()> {
    if comparison.findings.is_empty() {
        return Ok(());
    }
    title(page, "FINDINGS")?;
    for change in &comparison.findings {
        let word = match change.change {
            Presence::New => "new    ",
            Presence::Stays => "still  ",
            Presence::Gone => "gone   ",
        };
        page.prose(
            Paint::Plain,
            &format!("  {word}"),
            &format!("{} ({})", change.finding.summary, change.finding.id),
        )?;
    }
    Ok(())
}

fn title(page: &mut Page<'_>, text: &str) -> io::Result<()> {
    page.blank()?;
    page.prose(Paint::Bold, "", text)
}

fn entry(page: &mut Page<'_>, number: &str, about: &str, detail: &str) -> io::Result<()> {
    let columns = page.columns().saturating_sub(NUMBER_COLUMNS + 2);
    let about = cut(about, columns);
    page.line(&[
        Span::right(Paint::Plain, number, NUMBER_COLUMNS),
        Span::new(Paint::Plain, &format!("  {about}")),
    ])?;
    page.line(&[Span::left(Paint::Dim, "", NUMBER_COLUMNS + 2), Span::new(Paint::Dim, detail)])
}

/// "make in catalog.(*Cache).put".
fn about(frames: &[Frame], source: &str) -> String {
    in_short(frames, source, |frame| without_directories(&name(frame)).to_owned())
        .unwrap_or_else(|| "no stack".to_owned())
}
