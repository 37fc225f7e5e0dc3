//! One program, every Go, every way to build it: what leakprobe reads from outside beside what the program's
//! own runtime counts.
//!
//! Ordinarily the corners: the oldest and the newest Go, stripped and with the race detector. With
//! LEAKPROBE_VERSIONS=all it is every cell, and the table goes into the file that LEAKPROBE_TABLE names;
//! `cargo xtask test --all` sets both. A cell that fails does not keep the others from being measured.

use anyhow::{Context, Result, bail};
use leakprobe::claim::Component;
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::{self, GO_VERSIONS, NEWEST_GO, OLDEST_GO};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

use crate::inside::{Inside, mapped_bytes};
use crate::matrix;
use crate::versions_table as table;

const KIB: u64 = 1024;

/// The second level of `mheap.arenas`, which no counter of the runtime has: 4 Mi pointers (Go
/// `src/runtime/malloc.go`, `arenaL2Bits`, linux on 64 bits; `(*mheap).sysAlloc` maps it past the statistics).
const ARENA_INDEX_BYTES: u64 = 32 << 20;

/// What is compared, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    HeapInUse,
    IdleResident,
    Stacks,
    Metadata,
    Goroutines,
    Profile,
}

impl Quantity {
    pub(crate) const ALL: [Self; 6] =
        [Self::HeapInUse, Self::IdleResident, Self::Stacks, Self::Metadata, Self::Goroutines, Self::Profile];

    /// How far it may lie from the program's own truth.
    fn tolerance(self, truth: u64) -> u64 {
        match self {
            Self::Goroutines => 0,
            // Each of the profile's buckets is rounded down.
            Self::Profile => 4 * KIB,
            // The program allocates a little to tell its truth.
            _ => (truth / 100).max(128 * KIB),
        }
    }
}

/// What was measured of one program.
pub(crate) struct Cell {
    pub(crate) build: GoBuild,
    pub(crate) pairs: Vec<Pair>,
    /// What leakprobe says it could not read.
    pub(crate) gaps: Vec<String>,
}

/// A figure of the report and the program's own.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) quantity: Quantity,
    /// `None` where leakprobe says that it does not know.
    pub(crate) found: Option<u64>,
    /// Before leakprobe looked and after: the runtime returns idle pages in the background, as it likes.
    pub(crate) truths: [u64; 2],
}

impl Pair {
    pub(crate) fn is_near(&self) -> bool {
        let tolerance = self.quantity.tolerance(self.truths[0]);
        self.difference().is_some_and(|difference| difference.unsigned_abs() <= tolerance)
    }

    /// What leakprobe says more than the program counted at some time in between.
    pub(crate) fn difference(&self) -> Option<i64> {
        let found = self.found?;
        let (least, most) = (self.truths[0].min(self.truths[1]), self.truths[0].max(self.truths[1]));
        Some(found.cast_signed() - found.clamp(least, most).cast_signed())
    }
}

#[test]
fn go_is_read_as_its_runtime_counts() -> Result<()> {
    let builds = if places::all_versions() { every_build() } else { corners() };
    let measured = |build| {
        let cell = measure(build)?;
        let complaints = complaints(&cell);
        Ok((cell, complaints))
    };
    matrix::check(builds, measured, table::tables)
}

fn corners() -> Vec<GoBuild> {
    let of = |version| {
        [(Kind::Plain, Symbols::Stripped), (Kind::Race, Symbols::Dwarf)].map(|(kind, symbols)| GoBuild {
            version,
            kind,
            symbols,
        })
    };
    [of(OLDEST_GO), of(NEWEST_GO)].concat()
}

fn every_build() -> Vec<GoBuild> {
    let mut builds = Vec::new();
    for version in GO_VERSIONS {
        for kind in [Kind::Plain, Kind::Pie, Kind::Cgo, Kind::Race] {
            for symbols in [Symbols::Dwarf, Symbols::Table, Symbols::Stripped] {
                builds.push(GoBuild { version, kind, symbols });
            }
        }
    }
    builds
}

fn measure(build: GoBuild) -> Result<Cell> {
    let mut workload = Workload::start_built("go/heap_truth", build)?;
    // The first answers make the runtime take spans for what an answer needs.
    workload.ask("counts")?;
    let before = workload.ask("counts")?;
    let report = Probe::start(&workload, &["--duration", "0"])?.finish()?.report()?;
    expect::ledger_balances(&report)?;
    let inside = Inside::of(&workload)?.look()?;
    let after = workload.ask("counts")?;
    let profile = number(&workload.ask("truth")?, "/profile_bytes")?;

    let listed = report["gaps"].as_array().context("gaps are a list")?;
    let gaps: Vec<String> = listed.iter().filter_map(|gap| gap["what"].as_str().map(str::to_owned)).collect();
    let metadata = mapped_bytes(&inside, Component::GoRuntime).checked_sub(ARENA_INDEX_BYTES);
    let virtual_of = |id: &str| number(expect::component(&report, id)?, "/virtual");
    let pair = |quantity, found, truth: &dyn Fn(&Value) -> Result<u64>| -> Result<Pair> {
        Ok(Pair { quantity, found, truths: [truth(&before)?, truth(&after)?] })
    };
    let pairs = vec![
        pair(Quantity::HeapInUse, Some(virtual_of("go.heap.inuse")?), &|truth| number(truth, "/heap_inuse"))?,
        pair(
            Quantity::IdleResident,
            Some(number(expect::component(&report, "go.heap.idle")?, "/rss")?),
            &|truth| Ok(number(truth, "/heap_idle")?.saturating_sub(number(truth, "/heap_released")?)),
        )?,
        pair(Quantity::Stacks, Some(virtual_of("go.stacks")?), &|truth| number(truth, "/stack_inuse"))?,
        pair(Quantity::Metadata, metadata, &metadata_truth)?,
        pair(Quantity::Goroutines, number(&report, "/goroutine_totals/count").ok(), &|truth| {
            number(truth, "/goroutines")
        })?,
        Pair {
            quantity: Quantity::Profile,
            found: number(&report, "/heap_profile/in_use").ok(),
            truths: [profile, profile],
        },
    ];
    Ok(Cell { build, pairs, gaps })
}

/// All that the runtime took from the kernel and is no heap.
fn metadata_truth(truth: &Value) -> Result<u64> {
    let classes = ["/mspan_sys", "/mcache_sys", "/buck_hash_sys", "/gc_sys", "/other_sys", "/outside_stacks"];
    let mut sum = 0;
    for class in classes {
        sum += number(truth, class)?;
    }
    Ok(sum)
}

fn number(value: &Value, pointer: &str) -> Result<u64> {
    let Ok(number) = u64::try_from(expect::number(value, pointer)?) else {
        bail!("{pointer} is negative in {value}");
    };
    Ok(number)
}

fn complaints(cell: &Cell) -> Vec<String> {
    let mut complaints = Vec::new();
    for gap in &cell.gaps {
        complaints.push(format!("a gap that nobody expects: {gap}"));
    }
    for pair in cell.pairs.iter().filter(|pair| !pair.is_near()) {
        complaints.push(format!(
            "{:?} is {:?} in the report, in truth {} and then {}",
            pair.quantity, pair.found, pair.truths[0], pair.truths[1]
        ));
    }
    complaints
}
