//! The tables of stacks: native programs by how they are built, Go by release.

use std::fmt::Write as _;

use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::GO_VERSIONS;

use crate::stacks::{Build, Cell};

pub(crate) fn tables(cells: &[Cell]) -> String {
    let mut text = native(cells);
    let both = |cell: &Cell| Some((cell.followed.both_bytes, cell.followed.truth_bytes));
    let race = |cell: &Cell| cell.race_bytes.map(|[all, told]| (told, all));
    text.push_str(&go("Leaked bytes with both ends on their stacks, in %", cells, &KINDS, both));
    text.push_str(&go(
        "Of the race detector's own, with a Go function that is not the runtime's, in %",
        cells,
        &[Kind::Race],
        race,
    ));
    let sum = |of: fn(&Cell) -> usize| cells.iter().map(of).sum::<usize>();
    let stacks = sum(|cell| cell.followed.stacks);
    let (lost, early) = (sum(|cell| cell.followed.lost), sum(|cell| cell.followed.early));
    // A String takes all that is written to it.
    writeln!(
        text,
        "\n{} programs, {stacks} different stacks of what they leaked: {lost} end in an address without a module, {early} \
         end early and say why.\n",
        cells.len()
    )
    .ok();
    text
}

const KINDS: [Kind; 5] = [Kind::Plain, Kind::Pie, Kind::Cgo, Kind::CgoFrames, Kind::Race];

fn native(cells: &[Cell]) -> String {
    let mut text = String::from(
        "\n| | both ends, % | stacks | without a module | end early |\n|---|---:|---:|---:|---:|\n",
    );
    for cell in cells.iter().filter(|cell| matches!(cell.build, Build::Native(_))) {
        let followed = &cell.followed;
        let both = percent((followed.both_bytes, followed.truth_bytes));
        let (stacks, lost, early) = (followed.stacks, followed.lost, followed.early);
        writeln!(text, "| {} | {both} | {stacks} | {lost} | {early} |", cell.build).ok();
    }
    text
}

/// One row for each way to build, one column for each Go.
fn go(title: &str, cells: &[Cell], kinds: &[Kind], figure: impl Fn(&Cell) -> Option<(i64, i64)>) -> String {
    let mut text = format!("\n**{title}**\n\n| | {} |\n|---|", GO_VERSIONS.join(" | "));
    text.push_str(&"---:|".repeat(GO_VERSIONS.len()));
    text.push('\n');
    for &kind in kinds {
        for symbols in [Symbols::Dwarf, Symbols::Stripped] {
            let figures = GO_VERSIONS.map(|version| {
                let wanted = GoBuild { version, kind, symbols };
                let is_wanted = |cell: &&Cell| matches!(cell.build, Build::Go(build) if build == wanted);
                let pair = cells.iter().find(is_wanted).and_then(&figure);
                pair.map_or_else(|| "not measured".to_owned(), percent)
            });
            writeln!(text, "| {kind}, {symbols} | {} |", figures.join(" | ")).ok();
        }
    }
    text
}

fn percent((part, whole): (i64, i64)) -> String {
    format!("{:.1}", part as f64 * 100.0 / whole.max(1) as f64)
}
