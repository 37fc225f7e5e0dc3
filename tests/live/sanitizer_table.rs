//! The table of all sanitizers.

use std::fmt::Write as _;

use crate::sanitizers_everywhere::Cell;

const COLUMNS: [&str; 5] = ["heap", "quarantine", "shadow", "origins, meta", "variables"];

pub(crate) fn table(cells: &[Cell]) -> String {
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
