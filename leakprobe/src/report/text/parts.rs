//! The lines below a row of files, shared memory or thread stacks, where that row is a sizeable part of what the
//! process holds or gained: what it is made of, and by which names.
//!
//! Nothing below the row is worth a line if it is small beside it; JSON has all of it.

use super::layout::cut_start;
use crate::attribute::mappings::Backing;
use crate::claim::Component;
use crate::diagnose::GROWTH_MIN_BYTES;
use crate::report::{ComponentRow, FileRow, PartRow, Report, VariableRow};

/// With one part in so many of what the process holds, or of what it gained, a row is worth more lines.
const PARTS: u64 = 5;
/// Less than this is worth none, however small the process.
const RSS_MIN_BYTES: u64 = 4 << 20;
/// Lines for one row, parts and names each.
const NAMES_MAX: usize = 3;
/// With one part in so many of the row a name is worth a line.
const NAME_PARTS: u64 = 10;
/// Columns for a name: what the table's label has at 80 columns.
const NAME_COLUMNS: usize = 34;

/// A line below a row.
pub struct Line {
    /// Indented.
    pub label: String,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Growth in the window.
    pub growth_bytes: Option<i64>,
}

/// The lines below `row`; none where it is small.
pub fn lines(report: &Report, row: &ComponentRow) -> Vec<Line> {
    if !matters(report, row) {
        return Vec::new();
    }
    match row.id {
        Component::FileExe | Component::FileLibs => {
            let mut lines: Vec<Line> = Vec::new();
            for part in row.parts.iter().filter(|part| is_worth_a_line(part.rss, part.growth, row)) {
                lines.push(of_part(part));
                if part.what == "bss" {
                    let large = row.variables.iter().filter(|it| it.rss >= row.rss / NAME_PARTS);
                    lines.extend(large.take(NAMES_MAX).map(of_variable));
                }
            }
            lines
        }
        Component::ThreadStacks => {
            let exited = row.parts.iter().filter(|part| part.what == "exited");
            exited.filter(|part| is_worth_a_line(part.rss, part.growth, row)).map(of_part).collect()
        }
        _ => {
            let files = row.files.iter().filter(|file| is_worth_a_line(file.rss, file.growth, row));
            files.take(NAMES_MAX).filter_map(of_file).collect()
        }
    }
}

/// Whether the row is a sizeable part of what the process holds or gained.
fn matters(report: &Report, row: &ComponentRow) -> bool {
    let grown_bytes = |growth: Option<i64>| growth.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    let grown = grown_bytes(row.growth);
    (row.rss >= RSS_MIN_BYTES && row.rss >= report.rss.end / PARTS)
        || (grown >= GROWTH_MIN_BYTES && grown >= grown_bytes(report.rss.growth) / PARTS)
}

fn is_worth_a_line(rss_bytes: u64, growth_bytes: Option<i64>, row: &ComponentRow) -> bool {
    let is_large = |part: u64, whole: u64| part > 0 && part >= whole / NAME_PARTS;
    let changed = growth_bytes.unwrap_or(0).unsigned_abs();
    is_large(rss_bytes, row.rss)
        || (changed >= GROWTH_MIN_BYTES && is_large(changed, row.growth.unwrap_or(0).unsigned_abs()))
}

fn of_part(part: &PartRow) -> Line {
    let label = match part.what.as_ref() {
        "text" => "  text and constants",
        "data" => "  data, written to",
        "bss" => "  variables (.bss)",
        "exited" => "  of threads that exited",
        other => other,
    };
    Line { label: label.to_owned(), rss_bytes: part.rss, growth_bytes: part.growth }
}

fn of_variable(variable: &VariableRow) -> Line {
    let name = variable.name.as_deref().unwrap_or("stripped: no names");
    let label = format!("    {}", cut_start(name, NAME_COLUMNS - 4));
    Line { label, rss_bytes: variable.rss, growth_bytes: None }
}

fn of_file(file: &FileRow) -> Option<Line> {
    let is_nameless = file.kind == Some(Backing::Anonymous);
    let path = if is_nameless { "anonymous, shared" } else { file.path.as_deref()? };
    // Memory without a file is always marked so: only of files it is news.
    let has_file = path.starts_with('/') && !path.starts_with("/memfd:") && !path.starts_with("/SYSV");
    let deleted = if file.deleted && has_file { " (deleted)" } else { "" };
    let shown = cut_start(path, NAME_COLUMNS - 2 - deleted.len());
    Some(Line { label: format!("  {shown}{deleted}"), rss_bytes: file.rss, growth_bytes: file.growth })
}
