//! A target that does not hold still: two hundred looks at a program that allocates, frees, maps and unmaps
//! on all cores. What is asserted is what no look may say, and that its account comes out: while memory comes and
//! goes in the middle of a look, the residual stays small.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use leakprobe::account;
use leakprobe::attribute::ledger::Ledger;
use leakprobe::claim::{Component, Gap};
use leakprobe::runtimes::go::goroutines::StackPages;
use leakprobe::snapshot::Snapshot;
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::NEWEST_GO;
use leakprobe_tests::{Workload, expect};

use crate::inside::{Inside, mapped_bytes};

const LOOKS: u64 = 200;
const GIB: u64 = 1 << 30;
/// No residual is a larger part of the RSS.
const RESIDUAL_PART: u64 = 100;

/// How often something could not be read, and how much that was.
#[derive(Default)]
struct Tally {
    looks: u64,
    most_bytes: Option<u64>,
}

fn looked_at_two_hundred_times(kind: Kind) -> Result<()> {
    let build = GoBuild { version: NEWEST_GO, kind, symbols: Symbols::Dwarf };
    let mut workload = Workload::start_built("go/turmoil", build)?;
    let most_goroutines = expect::number(&workload.hello, "/most_goroutines")?.unsigned_abs();
    let inside = Inside::of(&workload)?;
    let roles = inside.runtimes.code_roles(&inside.modules, &inside.runtimes.race_text(&inside.modules));
    let rounds_before = expect::number(&workload.ask("rounds")?, "/rounds")?;
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut looks_with_gaps = 0;
    let mut largest_residual = 0;
    let mut most_moved = 0;
    for number in 0..LOOKS {
        let look = inside.look().with_context(|| format!("look {number}"))?;
        is_in_order(&look.snapshot).with_context(|| format!("look {number}"))?;
        let ledger = account::draw_up(None, &look, None, &roles, &inside.modules).end;
        is_balanced(&ledger).with_context(|| format!("look {number}"))?;
        let residual_bytes = ledger.residual_bytes().unsigned_abs();
        largest_residual = largest_residual.max(residual_bytes);
        most_moved = most_moved.max(look.snapshot.moved_bytes);
        ensure!(
            residual_bytes * RESIDUAL_PART <= ledger.rss_bytes,
            "look {number}: residual {residual_bytes} of {} bytes",
            ledger.rss_bytes
        );
        components_are_sane(&ledger)?;
        ensure!(mapped_bytes(&look, Component::GoHeapInUse) < GIB, "look {number}: a heap of a gigabyte");
        let go = inside.runtimes.go.first().context("the Go runtime was found")?;
        let goroutines = go.goroutines(&inside.target, &[], &StackPages::default(), 1 << 62)?;
        // One that ends and whose structure is used again at once may be met twice.
        ensure!(
            goroutines.count <= 2 * most_goroutines,
            "look {number}: {} goroutines, at most {most_goroutines} are alive",
            goroutines.count
        );
        let gaps: Vec<Gap> = look.gaps.iter().cloned().chain(goroutines.gaps()).collect();
        looks_with_gaps += u64::from(!gaps.is_empty());
        tally(&gaps, &mut tallies);
    }
    let rounds = expect::number(&workload.ask("rounds")?, "/rounds")? - rounds_before;
    ensure!(rounds > 0, "the program stood still");
    // For whoever reads the log: how near one comes to a program that moves.
    eprintln!("{kind}: {looks_with_gaps} of {LOOKS} looks had a gap; {rounds} rounds of the program;");
    eprintln!("  residual at most {largest_residual} bytes; at most {most_moved} came or went in a look");
    for (what, tally) in tallies {
        eprintln!("  {what}: {} looks, at most {:?} bytes", tally.looks, tally.most_bytes);
    }
    Ok(())
}

/// VMAs and pages by address, none twice, whatever moved while they were read.
fn is_in_order(snapshot: &Snapshot) -> Result<()> {
    for pair in snapshot.usages.windows(2) {
        let (first, second) = (pair[0].region.range, pair[1].region.range);
        ensure!(first.end_addr <= second.start_addr, "{first:?} overlaps {second:?}");
    }
    for pair in snapshot.runs.windows(2) {
        let (first, second) = (pair[0].range, pair[1].range);
        ensure!(first.end_addr <= second.start_addr, "pages {first:?} overlap {second:?}");
    }
    Ok(())
}

fn is_balanced(ledger: &Ledger) -> Result<()> {
    let rows: u64 = ledger.entries.values().map(|entry| entry.rss_bytes).sum();
    let residual = ledger.residual_bytes();
    ensure!(
        rows.checked_add_signed(residual) == Some(ledger.rss_bytes),
        "rows {rows} + residual {residual} ≠ RSS {}",
        ledger.rss_bytes
    );
    Ok(())
}

fn components_are_sane(ledger: &Ledger) -> Result<()> {
    for (component, entry) in &ledger.entries {
        ensure!(
            entry.rss_bytes <= entry.virtual_bytes,
            "{} has {} bytes resident of {}",
            component.id(),
            entry.rss_bytes,
            entry.virtual_bytes
        );
    }
    Ok(())
}

fn tally(gaps: &[Gap], tallies: &mut BTreeMap<String, Tally>) {
    for gap in gaps {
        // Numbers in the name, as of goroutines, are of one look only.
        let what: String = gap.what.chars().filter(|character| !character.is_ascii_digit()).collect();
        let tally = tallies.entry(what).or_default();
        tally.looks += 1;
        tally.most_bytes = tally.most_bytes.max(gap.bytes);
    }
}

#[test]
fn a_moving_program_is_looked_at_two_hundred_times() -> Result<()> {
    looked_at_two_hundred_times(Kind::Plain)
}

#[test]
fn a_moving_program_with_the_race_detector_is_looked_at_two_hundred_times() -> Result<()> {
    looked_at_two_hundred_times(Kind::Race)
}
