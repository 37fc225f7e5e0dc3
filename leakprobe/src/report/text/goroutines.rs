//! What a Go program's goroutines do, where there are many: the largest groups, a line or two each.
//!
//! Few goroutines are one short sentence among the facts at the end. The surprise: the sizes are those of
//! the stacks as the runtime made them; how much of them is resident is the owners' table's to say.

use std::io;

use super::entry::{Place, function};
use super::frames::{fold, without_directories};
use super::layout::{Page, Paint, Span, width};
use super::units::{count, counted, size, time};
use crate::report::{Frame, GoroutineGroup, Report};

/// Groups shown; JSON has more.
const GROUPS_MAX: usize = 5;
/// Fewer goroutines are of no interest, unless their stacks are large.
const COUNT_MIN: u64 = 1000;
/// Stacks this large are of interest, however few.
const STACK_MIN_BYTES: u64 = 16 << 20;
/// So are they with one part in so many of the process's memory.
const RSS_PARTS: u64 = 20;
/// So many more are news, and one part in so many of a group.
const MORE_MIN: u64 = 10;
const MORE_PARTS: u64 = 100;
/// Columns of the number, with a space on either side.
const COUNT_COLUMNS: usize = 11;

/// Writes the section; nothing where they are few.
pub fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let Some(totals) = report.goroutine_totals.filter(|_| are_many(report)) else { return Ok(()) };
    page.blank()?;
    let title = "GOROUTINES";
    let all = format!("{} with {} of stack", count(totals.count), size(totals.stack_bytes));
    let columns = page.prose_columns() - width(title);
    page.line(&[Span::new(Paint::Bold, title), Span::right(Paint::Dim, &all, columns)])?;
    let most = page.most(GROUPS_MAX);
    for group in report.goroutines.iter().take(most) {
        let number = count(group.count);
        let margin = " ".repeat(COUNT_COLUMNS.saturating_sub(number.len() + 2));
        page.prose(Paint::Plain, &format!("{margin}{number}  "), &worded(group, &report.target.exe))?;
    }
    let shown = report.goroutines.iter().take(most).map(|group| group.count);
    let rest = totals.count.saturating_sub(shown.fold(0, u64::saturating_add));
    if rest == 0 {
        return Ok(());
    }
    page.line(&[
        Span::right(Paint::Plain, &count(rest), COUNT_COLUMNS - 2),
        Span::new(Paint::Dim, "  in smaller groups"),
    ])
}

/// "12 goroutines.", where they have no section of their own.
pub fn sentence(report: &Report) -> Option<String> {
    let totals = report.goroutine_totals.filter(|_| !are_many(report))?;
    Some(format!("{}.", counted(totals.count, "goroutine", "goroutines")))
}

fn are_many(report: &Report) -> bool {
    report.goroutine_totals.is_some_and(|totals| {
        totals.count >= COUNT_MIN
            || totals.stack_bytes >= STACK_MIN_BYTES
            || totals.stack_bytes >= (report.rss.end / RSS_PARTS).max(1)
    })
}

/// "waiting on chan receive, 2.4 MiB of stack: main.worker worker.go:17 < created by main.start main.go:40".
fn worded(group: &GoroutineGroup, exe: &str) -> String {
    let mut text = format!("{}{}, {} of stack", doing(group), more(group), size(group.stack_bytes));
    let fold = fold(&group.frames);
    // That a lock is taken is told by the reason; the callers say which.
    let shown = fold.shown.filter(|at| fold.callers.is_empty() || !is_lock(&group.frames[*at]));
    let stack = shown.into_iter().chain(fold.callers.into_iter().take(1));
    let mut steps: Vec<String> = stack.map(|at| placed(&group.frames[at], exe)).collect();
    let creator = group.created_by.as_ref().filter(|frame| !starts_with(frame, "runtime."));
    steps.extend(creator.map(|frame| format!("created by {}", placed(frame, exe))));
    if !steps.is_empty() {
        text.push_str(": ");
        text.push_str(&steps.join(" < "));
    }
    text
}

/// ", 11,200 more than before"; nothing where few came.
fn more(group: &GoroutineGroup) -> String {
    let more = group.growth.and_then(|growth| u64::try_from(growth).ok()).unwrap_or(0);
    match more {
        _ if more < MORE_MIN.max(group.count / MORE_PARTS) => String::new(),
        _ => format!(", {} more than before", count(more)),
    }
}

/// "waiting on chan receive for up to 2.0 h".
pub fn doing(group: &GoroutineGroup) -> String {
    let what = match (group.state.as_ref(), group.wait_reason.as_deref()) {
        ("syscall", _) => "in system calls or C".to_owned(),
        ("waiting" | "preempted", Some(reason)) => format!("waiting on {reason}"),
        ("leaked", Some(reason)) => format!("waiting for ever on {reason}"),
        (state, _) => state.to_owned(),
    };
    match group.waiting_seconds {
        Some(seconds) if seconds >= 60.0 => format!("{what} for up to {}", time(seconds)),
        _ => what,
    }
}

fn is_lock(frame: &Frame) -> bool {
    starts_with(frame, "sync.") || starts_with(frame, "internal/sync.")
}

fn starts_with(frame: &Frame, start: &str) -> bool {
    frame.function.as_deref().is_some_and(|function| function.starts_with(start))
}

fn placed(frame: &Frame, exe: &str) -> String {
    let place = Place::of(frame, exe).worded(false);
    format!("{} {place}", without_directories(&function(frame))).trim_end().to_owned()
}
