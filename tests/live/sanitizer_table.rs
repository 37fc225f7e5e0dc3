//! The table of all sanitizers, between two marks of a document.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::sanitizers_everywhere::Cell;

const BEGIN: &str = "<!-- measured: written by `cargo xtask test --all`, not by hand -->\n";
const END: &str = "<!-- measured: end -->\n";
const COLUMNS: [&str; 5] = ["heap", "quarantine", "shadow", "origins, meta", "variables"];

/// Puts the table between the marks of the document.
pub(crate) fn write(document: &Path, cells: &[Cell]) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let missing = || format!("find the marks for the table in {}", document.display());
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    let text = format!("{before}{BEGIN}{}{END}{after}", table(cells));
    fs::write(document, text).with_context(|| format!("write {}", document.display()))
}

fn table(cells: &[Cell]) -> String {
    let mut text = format!("\n| | {} | its own | elsewhere | RSS |\n|---|", COLUMNS.join(" | "));
    text.push_str(&"---:|".repeat(COLUMNS.len() + 3));
    text.push('\n');
    for cell in cells {
        let figures = COLUMNS.map(|column| figure(cell, column)).join(" | ");
        let [own, elsewhere, rss] =
            [cell.runtime_bytes, cell.unexpected_bytes, cell.rss_bytes].map(|bytes| bytes >> 10);
        // A String takes all that is written to it.
        writeln!(text, "| {} | {figures} | {own} | {elsewhere} | {rss} |", cell.build).ok();
    }
    let nameless = cells.iter().filter(|cell| cell.is_nameless()).count();
    writeln!(text, "\n{} programs; {nameless} of them state a gap, all others none.\n", cells.len()).ok();
    text
}

/// What the report says more than the program, in KiB; of how much.
fn figure(cell: &Cell, column: &str) -> String {
    let Some(pair) = cell.pairs.iter().find(|pair| pair.what == column) else { return String::new() };
    let difference = (pair.found_bytes.cast_signed() - pair.truth_bytes.cast_signed()) >> 10;
    let figure = format!("{difference:+} of {}", pair.truth_bytes >> 10);
    if pair.is_near() { figure } else { format!("**{figure}**") }
}
