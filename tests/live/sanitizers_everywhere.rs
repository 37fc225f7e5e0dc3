//! One program in three languages, every sanitizer, every compiler that has it: what leakprobe reads from
//! outside beside what the program knows of its own blocks, variables and shadow.
//!
//! Ordinarily the corners. With LEAKPROBE_VERSIONS=all it is everything that exists, and the table goes into the
//! file that LEAKPROBE_TABLE names; `cargo xtask test --all` sets both. The surprise: a stripped program with
//! the runtime in it keeps what no name tells from its own variables, and leakprobe has to say so.

use std::process::Command;

use anyhow::{Context, Result};
use leakprobe_tests::compile::sanitized::{Runtime, SanitizedBuild, Sanitizer, sanitized_workload};
use leakprobe_tests::{Deadline, Probe, Workload, expect, places};
use serde_json::Value;

use crate::matrix;
use crate::sanitizer_table as table;

/// What was measured of one program.
pub(crate) struct Cell {
    pub(crate) build: SanitizedBuild,
    pub(crate) rss_bytes: u64,
    pub(crate) pairs: Vec<Pair>,
    /// The row of the sanitizer's own variables and allocations.
    pub(crate) runtime_bytes: u64,
    /// In rows that such a program should not have.
    pub(crate) unexpected_bytes: u64,
    /// What leakprobe says it could not tell.
    pub(crate) gaps: Vec<String>,
}

/// A figure of the report and the program's own.
pub(crate) struct Pair {
    /// The column: what of the program that is.
    pub(crate) what: &'static str,
    pub(crate) found_bytes: u64,
    pub(crate) truth_bytes: u64,
}

impl Pair {
    pub(crate) fn is_near(&self) -> bool {
        self.found_bytes.abs_diff(self.truth_bytes) <= expect::tolerance_bytes(self.truth_bytes)
    }
}

impl Cell {
    /// Whether the runtime's own cannot be told from the program's: neither by a library nor by a name.
    pub(crate) fn is_nameless(&self) -> bool {
        self.build.is_stripped && self.build.runtime == Runtime::Static
    }
}

#[test]
fn a_sanitized_program_is_divided_as_it_says_itself() -> Result<()> {
    let builds = if places::all_versions() { SanitizedBuild::all() } else { SanitizedBuild::corners() };
    let measured = |build| {
        let (cell, ledger) = measure(build)?;
        let complaints = complaints(&cell).into_iter().map(|it| format!("{it}\n{ledger}")).collect();
        Ok((cell, complaints))
    };
    matrix::check(builds, measured, table::table)
}

fn measure(build: SanitizedBuild) -> Result<(Cell, String)> {
    let program = sanitized_workload(build)?;
    let workload = Workload::start_program(Command::new(program), &build.to_string(), Deadline::usual())?;
    let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let truth = |key: &str| -> Result<u64> {
        workload.hello[key].as_u64().with_context(|| format!("{key} is not in {}", workload.hello))
    };
    let row = |id: &str| -> Result<u64> {
        let prefix = build.sanitizer.prefix();
        let row = expect::component(&report, &format!("{prefix}.{id}"))?;
        Ok(expect::number(row, "/rss")?.unsigned_abs())
    };
    let (kept, freed) = (truth("kept_bytes")?, truth("freed_bytes")?);
    let mut pairs = Vec::new();
    let mut compare = |what, found_bytes, truth_bytes| pairs.push(Pair { what, found_bytes, truth_bytes });
    if build.sanitizer == Sanitizer::Address {
        compare("heap", row("heap")?, kept);
        compare("quarantine", row("quarantine")?, freed);
    } else {
        // The other allocators hand freed blocks out again at once, and have no row for what waits.
        compare("heap", row("heap")?, kept + freed);
    }
    if build.sanitizer != Sanitizer::Leak {
        compare("shadow", row("shadow")?, truth("shadow_bytes")?);
    }
    match build.sanitizer {
        Sanitizer::MemoryOrigins => compare("origins, meta", row("origins")?, truth("second_shadow_bytes")?),
        Sanitizer::Thread => compare("origins, meta", row("meta")?, truth("second_shadow_bytes")?),
        _ => {}
    }
    if !(build.is_stripped && build.runtime == Runtime::Static) {
        compare("variables", own_variables(&report)?, truth("variable_bytes")?);
    }
    let gaps = report["gaps"].as_array().context("gaps are a list")?;
    let cell = Cell {
        build,
        rss_bytes: expect::number(&report, "/rss/end")?.unsigned_abs(),
        pairs,
        runtime_bytes: row("runtime").unwrap_or(0),
        unexpected_bytes: unexpected_bytes(&report, build.sanitizer.prefix())?,
        gaps: gaps.iter().filter_map(|gap| gap["what"].as_str().map(str::to_owned)).collect(),
    };
    Ok((cell, expect::ledger(&report)))
}

/// The part of the executable's row that is .bss.
fn own_variables(report: &Value) -> Result<u64> {
    let exe = expect::component(report, "file.exe")?;
    let mut parts = exe["parts"].as_array().into_iter().flatten();
    let bss = parts.find(|part| part["what"] == "bss");
    Ok(expect::number(bss.context("the executable has a part of .bss")?, "/rss")?.unsigned_abs())
}

fn unexpected_bytes(report: &Value, prefix: &str) -> Result<u64> {
    let mut bytes = 0;
    for row in expect::rows(report)? {
        let id = row["id"].as_str().unwrap_or_default();
        let is_expected = id.split('.').next() == Some(prefix)
            || ["file.exe", "file.libs", "thread.stacks", "kernel.special"].contains(&id);
        bytes += if is_expected { 0 } else { expect::number(row, "/rss")?.unsigned_abs() };
    }
    Ok(bytes)
}

fn complaints(cell: &Cell) -> Vec<String> {
    let mut complaints = Vec::new();
    for pair in cell.pairs.iter().filter(|pair| !pair.is_near()) {
        complaints.push(format!(
            "{} has {} bytes in the report, {} in truth",
            pair.what, pair.found_bytes, pair.truth_bytes
        ));
    }
    if cell.is_nameless() {
        if cell.gaps.len() != 1 {
            complaints.push(format!("one gap should say what has no name left, not {:?}", cell.gaps));
        }
        return complaints;
    }
    if cell.unexpected_bytes * 100 >= cell.rss_bytes {
        complaints.push(format!("{} bytes are in rows that do not belong there", cell.unexpected_bytes));
    }
    if !cell.gaps.is_empty() {
        complaints.push(format!("gaps that nobody expects: {:?}", cell.gaps));
    }
    complaints
}
