//! The table of all versions side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use leakprobe_tests::compile::{Kind, Symbols};
use leakprobe_tests::places::GO_VERSIONS;

use crate::versions::{Cell, Pair, Quantity};

pub(crate) fn tables(cells: &[Cell]) -> String {
    let mut text = String::new();
    for quantity in Quantity::ALL {
        text.push_str(&table(quantity, cells));
    }
    text.push_str(&gaps(cells));
    text
}

fn title(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::HeapInUse => "Spans of objects − `HeapInuse`, bytes",
        Quantity::IdleResident => "Idle and resident − (`HeapIdle` − `HeapReleased`), bytes",
        Quantity::Stacks => "Goroutine stacks − `StackInuse`, bytes",
        Quantity::Metadata => "The runtime's own − Σ `…Sys`, bytes",
        Quantity::Goroutines => "Goroutines − `NumGoroutine`",
        Quantity::Profile => "Heap profile − what pprof would write, bytes",
    }
}

/// One row for each way to build, one column for each Go; the last row is the truth of the first.
fn table(quantity: Quantity, cells: &[Cell]) -> String {
    let mut text = format!("\n**{}**\n\n| | {} |\n|---|", title(quantity), GO_VERSIONS.join(" | "));
    text.push_str(&"---:|".repeat(GO_VERSIONS.len()));
    text.push('\n');
    for kind in [Kind::Plain, Kind::Pie, Kind::Cgo, Kind::Race] {
        for symbols in [Symbols::Dwarf, Symbols::Table, Symbols::Stripped] {
            let figures = row(quantity, cells, kind, symbols, difference);
            // A String takes all that is written to it.
            writeln!(text, "| {kind}, {symbols} | {figures} |").ok();
        }
    }
    let truth = row(quantity, cells, Kind::Plain, Symbols::Dwarf, |pair| pair.truths[0].to_string());
    writeln!(text, "| *truth of plain, DWARF* | {truth} |").ok();
    text
}

fn row(
    quantity: Quantity,
    cells: &[Cell],
    kind: Kind,
    symbols: Symbols,
    shown: impl Fn(&Pair) -> String,
) -> String {
    let figures = GO_VERSIONS.map(|version| {
        let wanted = |cell: &&Cell| {
            let build = cell.build;
            (build.version, build.kind, build.symbols) == (version, kind, symbols)
        };
        let cell = cells.iter().find(wanted);
        let pair = cell.and_then(|cell| cell.pairs.iter().find(|pair| pair.quantity == quantity));
        pair.map_or_else(|| "not measured".to_owned(), &shown)
    });
    figures.join(" | ")
}

fn difference(pair: &Pair) -> String {
    let Some(difference) = pair.difference() else { return "gap".to_owned() };
    if pair.is_near() { difference.to_string() } else { format!("**{difference}**") }
}

fn gaps(cells: &[Cell]) -> String {
    let mut text = String::from("\nGaps that leakprobe stated:");
    let with_gaps: Vec<&Cell> = cells.iter().filter(|cell| !cell.gaps.is_empty()).collect();
    if with_gaps.is_empty() {
        writeln!(text, " none in {} programs.\n", cells.len()).ok();
        return text;
    }
    text.push_str("\n\n");
    let mut programs: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for cell in with_gaps {
        for what in &cell.gaps {
            programs.entry(what).or_default().push(cell.build.to_string());
        }
    }
    for (what, programs) in programs {
        let last = programs.last().map_or("", String::as_str);
        writeln!(text, "- {what}: {} programs, from {} to {last}", programs.len(), programs[0]).ok();
    }
    text.push('\n');
    text
}
