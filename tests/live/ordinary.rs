//! Programs that nobody here wrote, as the distribution ships them: of none of them more than a little is nobody's, and
//! next to nothing in no row. One of them is tried in each run, all of them where everything is.

mod programs;

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use leakprobe_tests::{Probe, expect, places};
use serde_json::Value;

use self::programs::{Program, Running};
use crate::matrix;

/// Largest residual and largest part that is nobody's, in ten thousandths of RSS.
const RESIDUAL_MAX: u64 = 50;
const UNKNOWN_MAX: u64 = 200;
/// Rows that are named in the table.
const ROWS: usize = 3;

/// What a report says of a program.
struct Figures {
    rss_bytes: u64,
    residual_bytes: i64,
    unknown_bytes: u64,
    /// The largest, with its part of RSS in percent.
    rows: Vec<(String, u64)>,
}

/// A snapshot of a program, and a window of some seconds.
struct Cell {
    program: Program,
    version: String,
    snapshot: Figures,
    window: Figures,
}

#[test]
fn of_ordinary_programs_nearly_everything_has_an_owner() -> Result<()> {
    let programs = if places::all_versions() { Program::ALL.to_vec() } else { vec![Program::Bash] };
    matrix::check(programs, measure, table)
}

fn measure(program: Program) -> Result<(Cell, Vec<String>)> {
    let running = program.start()?;
    let snapshot = figures(&running, "0")?;
    let window = figures(&running, "5s")?;
    running.end()?;
    let mut complaints = Vec::new();
    for (figures, look) in [(&snapshot, "a snapshot"), (&window, "five seconds")] {
        complaints.extend(figures.complaints().into_iter().map(|complaint| format!("{look}: {complaint}")));
    }
    Ok((Cell { program, version: program.version()?, snapshot, window }, complaints))
}

fn figures(running: &Running, duration: &str) -> Result<Figures> {
    let report = Probe::of_pid(running.pid(), &["--duration", duration])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    Figures::of(&report)
}

impl Figures {
    fn of(report: &Value) -> Result<Self> {
        let rss_bytes = expect::number(report, "/rss/end")?.unsigned_abs();
        let mut rows = Vec::new();
        for row in expect::rows(report)?.iter().take(ROWS) {
            let id = row["id"].as_str().unwrap_or("?").to_owned();
            rows.push((id, expect::number(row, "/rss")?.unsigned_abs() * 100 / rss_bytes.max(1)));
        }
        Ok(Self {
            rss_bytes,
            residual_bytes: expect::number(report, "/residual")?,
            unknown_bytes: expect::resident(report, "anon.unknown").unsigned_abs(),
            rows,
        })
    }

    /// In ten thousandths of RSS.
    fn part(&self, bytes: u64) -> u64 {
        bytes * 10_000 / self.rss_bytes.max(1)
    }

    fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.part(self.residual_bytes.unsigned_abs()) >= RESIDUAL_MAX {
            complaints.push(format!("{} bytes of {} are in no row", self.residual_bytes, self.rss_bytes));
        }
        if self.part(self.unknown_bytes) >= UNKNOWN_MAX {
            complaints.push(format!("{} bytes of {} are nobody's", self.unknown_bytes, self.rss_bytes));
        }
        complaints
    }

    fn percent(&self, bytes: u64) -> String {
        let part = self.part(bytes);
        format!("{}.{:02} %", part / 100, part % 100)
    }
}

fn table(cells: &[Cell]) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "\nOn Linux {}:\n\n| program | doing | RSS, MiB | residual | unknown | in five seconds | largest rows |\n\
         |---|---|---:|---:|---:|---:|---|\n",
        release.split('-').next().unwrap_or_default().trim()
    );
    for Cell { program, version, snapshot, window } in cells {
        let rows: Vec<String> =
            snapshot.rows.iter().map(|(id, percent)| format!("{id} {percent} %")).collect();
        let both = |figures: &Figures| {
            let residual = figures.percent(figures.residual_bytes.unsigned_abs());
            (residual, figures.percent(figures.unknown_bytes))
        };
        let ((residual, unknown), (later_residual, later_unknown)) = (both(snapshot), both(window));
        // A String takes all that is written to it.
        writeln!(
            text,
            "| {program} {version} | {} | {} | {residual} | {unknown} | {later_residual}, {later_unknown} | {} |",
            program.doing(),
            snapshot.rss_bytes >> 20,
            rows.join(", ")
        )
        .ok();
    }
    text.push('\n');
    text
}
