//! The processes of a cgroup on a terminal: the answer, who they are, and who owns what they hold together.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::headline;
use super::layout::{Page, Paint, Span};
use super::owners::Owner;
use super::units::{change_cell, counted, share, size, size_cell, size_or_unknown};
use crate::claim::Component;
use crate::report::Style;
use crate::report::together::{Share, Together};

/// Processes usually shown; JSON has all of them.
const PROCESSES_MAX: usize = 15;
const NAME_COLUMNS: usize = 31;
const NUMBER_COLUMNS: usize = 10;
const SHARE_COLUMNS: usize = 7;

/// Writes the sum.
pub fn write(together: &Together, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let page = &mut Page::new(out, style);
    let number = counted(together.processes.len() as u64, "process", "processes");
    page.prose(Paint::Bold, "", &format!("{number} of {}: {} of RSS.", together.cgroup, size(together.rss)))?;
    if let Some((owner, rss)) = largest(together.components.iter().map(|sum| (sum.id, sum.rss))) {
        let owns = headline::sentence(owner, "owns", "own");
        page.prose(Paint::Plain, "", &format!("{owns} {} of it.", share(rss, together.rss)))?;
    }
    if let Some(text) = bill(together) {
        page.prose(Paint::Plain, "", &text)?;
    }
    page.blank()?;
    processes(page, together)?;
    page.blank()?;
    owners(page, together)?;
    page.blank()?;
    page.prose(
        Paint::Plain,
        "",
        &format!(
            "Snapshots one after the other. What they share, with each other or with anybody else, is in the RSS of each; \
             divided among those who share it (PSS) it is {} in all.",
            size_or_unknown(together.pss)
        ),
    )?;
    for gap in &together.gaps {
        page.prose(Paint::Notice, " ", &format!("Not looked at: {}: {}", gap.what, gap.why))?;
    }
    Ok(())
}

/// What kills a container is this and no RSS.
fn bill(together: &Together) -> Option<String> {
    let memory = together.memory.as_ref()?;
    let current = size(memory.current?);
    let limit = memory.limit.map_or_else(|| "no limit".to_owned(), |limit| format!("of {}", size(limit)));
    let file = memory.file.map_or_else(String::new, |bytes| format!(", {} of it page cache", size(bytes)));
    Some(format!("The cgroup is charged {current}, {limit}{file}."))
}

fn processes(page: &mut Page<'_>, together: &Together) -> io::Result<()> {
    line(page, Paint::Bold, "PROCESS", ["RESIDENT", "PSS"], "SHARE", "MOST OF IT")?;
    let most = page.most(PROCESSES_MAX);
    for process in together.processes.iter().take(most) {
        let name = format!("{} ({})", process.comm, process.pid);
        let pss = process.pss.map_or_else(|| "?".to_owned(), size_cell);
        let part = share(process.rss, together.rss);
        line(page, Paint::Plain, &name, [&size_cell(process.rss), &pss], &part, &most_of(process))?;
    }
    let rest = together.processes.get(most..).unwrap_or_default();
    if rest.is_empty() {
        return Ok(());
    }
    let rss = rest.iter().map(|process| process.rss).fold(0, u64::saturating_add);
    let name = counted(rest.len() as u64, "smaller process", "smaller processes");
    line(page, Paint::Dim, &name, [&size_cell(rss), ""], &share(rss, together.rss), "")
}

/// "Go heap 84 %".
fn most_of(process: &Share) -> String {
    let most = largest(process.components.iter().map(|row| (row.id, row.rss)));
    most.map_or_else(String::new, |(owner, rss)| format!("{} {}", owner.short(), share(rss, process.rss)))
}

/// The owner of most of it, and how much that is.
fn largest(rows: impl Iterator<Item = (Component, u64)>) -> Option<(Owner, u64)> {
    let mut held: BTreeMap<Owner, u64> = BTreeMap::new();
    for (component, rss) in rows {
        let sum = held.entry(Owner::of(component)).or_default();
        *sum = sum.saturating_add(rss);
    }
    held.into_iter().max_by_key(|(_, rss)| *rss)
}

fn owners(page: &mut Page<'_>, together: &Together) -> io::Result<()> {
    line(page, Paint::Bold, "OWNER, in all of them", ["RESIDENT", ""], "SHARE", "")?;
    let most = page.most(together.components.len());
    for sum in together.components.iter().take(most) {
        line(page, Paint::Plain, &sum.label, [&size_cell(sum.rss), ""], &share(sum.rss, together.rss), "")?;
    }
    let rest = together.components.get(most..).unwrap_or_default();
    if !rest.is_empty() {
        let rss = rest.iter().map(|sum| sum.rss).fold(0, u64::saturating_add);
        let name = counted(rest.len() as u64, "other owner", "other owners");
        line(page, Paint::Dim, &name, [&size_cell(rss), ""], &share(rss, together.rss), "")?;
    }
    if together.residual != 0 {
        let residual = change_cell(Some(together.residual));
        line(page, Paint::Notice, "In no row (residual)", [&residual, ""], "", "")?;
    }
    line(page, Paint::Bold, "RSS", [&size_cell(together.rss), ""], "100 %", "")
}

fn line(
    page: &mut Page<'_>,
    paint: Paint,
    name: &str,
    numbers: [&str; 2],
    part: &str,
    note: &str,
) -> io::Result<()> {
    let mut spans = vec![Span::left(paint, name, NAME_COLUMNS)];
    spans.extend(numbers.map(|number| Span::right(paint, number, NUMBER_COLUMNS)));
    spans.push(Span::right(paint, part, SHARE_COLUMNS));
    let note_paint = if paint == Paint::Bold { Paint::Bold } else { Paint::Dim };
    spans.push(Span::new(note_paint, &format!("  {note}")));
    page.line(&spans)
}
