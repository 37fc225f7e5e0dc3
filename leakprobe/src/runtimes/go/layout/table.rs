//! The checked-in table of places, for programs without debug information: `table.txt`, which
//! `cargo xtask codegen` writes.
//!
//! A section of it begins with the versions of Go that it holds for, and lists what is elsewhere than in the section
//! before: a path, its place on amd64, its place on arm64. The surprise: what no section lists does not exist, so a
//! field that went away is listed with a dash.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::fields::Places;
use crate::runtimes::go::image::Arch;
use crate::target::build_info::GoVersion;

const TABLE: &str = include_str!("table.txt");

/// Where things lie in some versions of Go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The versions it was made from, ascending.
    pub versions: Vec<GoVersion>,
    /// On amd64 and on arm64, by path; those with several names by the whole list of them.
    pub places: BTreeMap<String, [Option<u32>; 2]>,
}

/// A row as one architecture sees it.
pub struct Column<'a> {
    row: &'a Row,
    arch: Arch,
}

impl Row {
    /// The row for `arch`.
    pub fn on(&self, arch: Arch) -> Column<'_> {
        Column { row: self, arch }
    }
}

impl Places for Column<'_> {
    fn place(&self, path: &str) -> Option<u32> {
        let [amd64, arm64] = *self.row.places.get(path)?;
        match self.arch {
            Arch::Amd64 => amd64,
            Arch::Arm64 => arm64,
        }
    }
}

/// All rows of the checked-in table, ascending by version.
pub fn rows() -> Vec<Row> {
    // A test parses it: it is part of the program.
    parse(TABLE).unwrap_or_default()
}

/// Parses a table.
///
/// # Errors
/// With the line that is none.
pub fn parse(table: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        parse_line(line, &mut rows).with_context(|| format!("the line {line:?}"))?;
    }
    Ok(rows)
}

fn parse_line(line: &str, rows: &mut Vec<Row>) -> Result<()> {
    if let Some(versions) = line.strip_prefix("go ") {
        let versions = versions.split(' ').map(|version| GoVersion::parse(&format!("go{version}")));
        let versions = versions.collect::<Option<Vec<GoVersion>>>().context("versions of Go")?;
        let places = rows.last().map(|row| row.places.clone()).unwrap_or_default();
        rows.push(Row { versions, places });
        return Ok(());
    }
    let (path, places) = line.trim_start().split_once("  ").context("a path and two places")?;
    let mut places = places.split_whitespace().map(|place| match place {
        "-" => Ok(None),
        number => number.parse().map(Some),
    });
    let mut next = || places.next().context("two places")?.context("a number");
    let pair = [next()?, next()?];
    rows.last_mut().context("a version in front")?.places.insert(path.to_owned(), pair);
    Ok(())
}

/// The table as text; `rows` ascend by version.
pub fn render(rows: &[Row]) -> String {
    let mut text = HEADER.to_owned();
    let mut before: Option<&Row> = None;
    for row in rows {
        if let Some(before) = before
            && before.places == row.places
        {
            continue;
        }
        let same =
            rows.iter().skip_while(|other| *other != row).take_while(|other| other.places == row.places);
        let versions: Vec<String> = same.flat_map(|row| &row.versions).map(ToString::to_string).collect();
        text.push_str(&format!("\ngo {}\n", versions.join(" ")));
        let paths = row.places.keys().chain(before.iter().flat_map(|before| before.places.keys()));
        let mut paths: Vec<&String> = paths.collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let places = row.places.get(path).copied().unwrap_or_default();
            let was = before.and_then(|before| before.places.get(path)).copied().unwrap_or_default();
            if places != was {
                let [amd64, arm64] =
                    places.map(|place| place.map_or("-".to_owned(), |place| place.to_string()));
                text.push_str(&format!("  {path:45}  {amd64:>8}  {arm64:>8}\n"));
            }
        }
        before = Some(row);
    }
    text
}

const HEADER: &str = "\
# Where the fields of the Go runtime's structures lie, and how long some of them are, in bytes.
# Written by `cargo xtask codegen` from the debug information of a program built with each of these versions of Go for
# linux/amd64 and linux/arm64. Each section lists what lies elsewhere than in the section before: on amd64, on arm64.
";
