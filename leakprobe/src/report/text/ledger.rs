//! The table of owners: what each holds, its share, what it gained, and how that is known.
//!
//! Rows add up to the last line, to the byte before rounding; what they miss is a row of its own, printed
//! even when ugly. The surprise: rows that hold nothing and changed nothing are left out, JSON has them.

use std::io;

use super::headline::is_snapshot;
use super::layout::{Page, Paint, Span, width};
use super::owners::{Account, Owner, top_grower};
use super::parts;
use super::units::{change_cell, counted, share, size, size_cell, time};
use crate::claim::{Component, Evidence};
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::{ComponentRow, Report};

/// RESIDENT, SHARE and GROWTH with the gaps before them.
const RESIDENT_COLUMNS: usize = 10;
const SHARE_COLUMNS: usize = 7;
const GROWTH_COLUMNS: usize = 13;

/// KNOWN BY with its gap; also "residual 0 B" in the last line.
const EVIDENCE_COLUMNS: usize = 14;

/// A line of the table before it is laid out.
struct Row {
    label: String,
    label_paint: Paint,
    resident: String,
    share: String,
    growth: String,
    growth_paint: Paint,
    known_by: String,
}

/// Writes the table.
pub fn write(page: &mut Page<'_>, report: &Report, accounts: &[Account<'_>]) -> io::Result<()> {
    // Red is for growth that is worth a look, or nobody looks any more.
    let top = top_grower(accounts).filter(|(top, _)| top.grown_bytes() >= Some(GROWTH_MIN_BYTES));
    let top = top.map(|(account, _)| account.owner);
    let shown: Vec<&Account<'_>> = accounts.iter().filter(|account| !is_empty(account)).collect();
    let (shown, others) = shown.split_at(page.most(shown.len()).min(shown.len()));
    let mut rows = Vec::new();
    for account in shown {
        let paint = if top == Some(account.owner) { Paint::Alarm } else { Paint::Plain };
        rows.extend(account_rows(report, account, paint));
    }
    rows.extend(others_row(report, others));
    rows.extend(residual_row(report));
    let totals = total_rows(report);

    let widest = rows.iter().chain(&totals).map(|row| width(&row.label)).max().unwrap_or(0);
    let fixed = RESIDENT_COLUMNS + SHARE_COLUMNS + GROWTH_COLUMNS + EVIDENCE_COLUMNS;
    let label_columns = widest.clamp(28, page.columns().saturating_sub(fixed).max(28));
    let table = Table { label_columns, has_growth: !is_snapshot(report) };

    table.write(page, &title(report))?;
    for row in &rows {
        table.write(page, row)?;
    }
    let rule = " ".repeat(label_columns + RESIDENT_COLUMNS - 7) + "-------";
    page.line(&[Span::new(Paint::Dim, &rule)])?;
    totals.iter().try_for_each(|row| table.write(page, row))
}

struct Table {
    label_columns: usize,
    has_growth: bool,
}

impl Table {
    fn write(&self, page: &mut Page<'_>, row: &Row) -> io::Result<()> {
        let is_title = row.label_paint == Paint::Bold;
        let plain = if is_title { Paint::Bold } else { Paint::Plain };
        let mut spans = vec![
            Span::left(row.label_paint, &row.label, self.label_columns),
            Span::right(plain, &row.resident, RESIDENT_COLUMNS),
            Span::right(plain, &row.share, SHARE_COLUMNS),
        ];
        if self.has_growth {
            spans.push(Span::right(row.growth_paint, &row.growth, GROWTH_COLUMNS));
        }
        spans
            .push(Span::new(if is_title { Paint::Bold } else { Paint::Dim }, &format!("  {}", row.known_by)));
        page.line(&spans)
    }
}

fn title(report: &Report) -> Row {
    Row {
        label: "OWNER".to_owned(),
        label_paint: Paint::Bold,
        resident: "RESIDENT".to_owned(),
        share: "SHARE".to_owned(),
        growth: Some(format!("GROWTH {}", time(report.window.seconds)))
            .filter(|title| width(title) < GROWTH_COLUMNS)
            .unwrap_or_else(|| "GROWTH".to_owned()),
        growth_paint: Paint::Bold,
        known_by: "KNOWN BY".to_owned(),
    }
}

/// One line for an owner, and one for each of its parts where it has several.
fn account_rows(report: &Report, account: &Account<'_>, growth_paint: Paint) -> Vec<Row> {
    let mut row = Row {
        label: String::new(),
        label_paint: Paint::Plain,
        resident: size_cell(account.rss_bytes),
        share: share(account.rss_bytes, report.rss.end),
        growth: change_cell(account.growth_bytes),
        growth_paint,
        known_by: String::new(),
    };
    match account.owner {
        Owner::RaceDetector => {
            row.label = "Race detector (TSan)".to_owned();
            let parts = account.rows.iter().filter(|part| !is_empty_row(part)).map(|part| part_row(part));
            std::iter::once(row).chain(parts).collect()
        }
        Owner::One(_) => {
            row.label = account.rows.first().map(|it| label(report, it)).unwrap_or_default();
            row.known_by = account.rows.first().map(|it| known_by(it.evidence)).unwrap_or_default();
            let lines = account.rows.iter().flat_map(|it| parts::lines(report, it)).map(line_row);
            std::iter::once(row).chain(lines).collect()
        }
    }
}

/// The owners that were not asked for, as one line: the table still adds up.
fn others_row(report: &Report, others: &[&Account<'_>]) -> Option<Row> {
    let rss_bytes = others.iter().map(|account| account.rss_bytes).fold(0, u64::saturating_add);
    let growth_bytes = others.iter().map(|account| account.growth_bytes).sum::<Option<i64>>();
    (!others.is_empty()).then(|| Row {
        label: counted(others.len() as u64, "other owner", "other owners"),
        label_paint: Paint::Dim,
        resident: size_cell(rss_bytes),
        share: share(rss_bytes, report.rss.end),
        growth: change_cell(growth_bytes),
        growth_paint: Paint::Plain,
        known_by: String::new(),
    })
}

fn part_row(part: &ComponentRow) -> Row {
    let label = match part.id {
        Component::TsanShadow => "  shadow",
        Component::TsanMeta => "  meta",
        _ => "  its own allocations",
    };
    Row {
        label: label.to_owned(),
        label_paint: Paint::Plain,
        resident: size_cell(part.rss),
        share: String::new(),
        growth: change_cell(part.growth),
        growth_paint: Paint::Plain,
        known_by: known_by(part.evidence),
    }
}

/// A line below a row: what it is made of. A variable's growth is in no reading.
fn line_row(line: parts::Line) -> Row {
    Row {
        label: line.label,
        label_paint: Paint::Plain,
        resident: size_cell(line.rss_bytes),
        share: String::new(),
        growth: line.growth_bytes.map(|bytes| change_cell(Some(bytes))).unwrap_or_default(),
        growth_paint: Paint::Plain,
        known_by: String::new(),
    }
}

/// The row's name, with the malloc that owns it; in a Go program C's heap is what cgo allocates.
pub fn label(report: &Report, row: &ComponentRow) -> String {
    let is_go = report.target.runtime.kind == "go";
    match row.allocator.as_ref().filter(|_| row.id == Component::CHeapInUse) {
        Some(allocator) if is_go => format!("C heap (cgo, {allocator})"),
        Some(allocator) => format!("C heap ({allocator})"),
        None => row.label.clone().into_owned(),
    }
}

fn known_by(evidence: Evidence) -> String {
    if evidence == Evidence::None { String::new() } else { evidence.word().to_owned() }
}

/// What the rows do not add up to, where they do not.
fn residual_row(report: &Report) -> Option<Row> {
    let rows_growth = report.components.iter().map(|row| row.growth).sum::<Option<i64>>();
    let growth = report.rss.growth.zip(rows_growth).map(|(whole, rows)| whole.saturating_sub(rows));
    (report.residual != 0 || growth.is_some_and(|bytes| bytes != 0)).then(|| Row {
        label: "In no row (residual)".to_owned(),
        label_paint: Paint::Notice,
        resident: change_cell(Some(report.residual)),
        share: share(report.residual.unsigned_abs(), report.rss.end),
        growth: change_cell(growth),
        growth_paint: Paint::Plain,
        known_by: String::new(),
    })
}

/// RSS, and how much of it no heap profile of Go can show.
fn total_rows(report: &Report) -> Vec<Row> {
    let residual = if report.residual == 0 { "residual 0 B".to_owned() } else { String::new() };
    let rss = Row {
        label: "RSS".to_owned(),
        label_paint: Paint::Plain,
        resident: size(report.rss.end),
        share: share(report.rss.end, report.rss.end),
        growth: change_cell(report.rss.growth),
        growth_paint: Paint::Plain,
        known_by: residual,
    };
    let outside = report.unaccounted.bytes.map(|bytes| Row {
        label: "  of it out of pprof's sight".to_owned(),
        label_paint: Paint::Plain,
        resident: size_cell(bytes),
        share: share(bytes, report.rss.end),
        growth: change_cell(report.unaccounted.growth),
        growth_paint: Paint::Plain,
        known_by: String::new(),
    });
    std::iter::once(rss).chain(outside).collect()
}

fn is_empty(account: &Account<'_>) -> bool {
    account.rows.iter().all(|row| is_empty_row(row))
}

fn is_empty_row(row: &ComponentRow) -> bool {
    row.rss == 0 && row.growth.unwrap_or(0) == 0
}
