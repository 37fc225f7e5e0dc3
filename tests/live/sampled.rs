//! Call sites of a program whose places have known shares: found again with all stacks, and within the stated bound
//! where only some are kept.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect};

use crate::sites::{bytes_of, error_bytes_of};

/// Thousands of pages that are touched; so many at a time.
const ROUNDS: u64 = 32;
const ROUNDS_AT_ONCE: u64 = 4;

/// What a place holds.
struct Place {
    truth_bytes: u64,
    bytes: u64,
    /// `None` where it is said to be exact.
    error_bytes: Option<u64>,
}

fn places(rate: &str) -> Result<(Vec<Place>, u64)> {
    let mut workload = Workload::start("c/shares")?;
    let shares = workload.hello["shares"].as_array().context("the program says its shares")?.clone();
    let mut probe = Probe::start(&workload, &["--duration", "600s", "--stack-rate", rate])?;
    probe.wait_until_watching()?;
    let mut total = 0;
    for _ in 0..ROUNDS / ROUNDS_AT_ONCE {
        total += workload.grow(ROUNDS_AT_ONCE)?;
    }
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    let mut places = Vec::new();
    for (number, share) in shares.iter().enumerate() {
        let share = share.as_u64().context("a share is a whole number")?;
        let function = format!("place_{number}");
        places.push(Place {
            truth_bytes: total * share / 1000,
            bytes: bytes_of(&report, &function, None),
            error_bytes: error_bytes_of(&report, &function),
        });
    }
    Ok((places, total))
}

#[test]
fn every_share_is_found_with_all_stacks() -> Result<()> {
    let (places, total) = places("all")?;
    for (number, place) in places.iter().enumerate() {
        ensure!(
            place.bytes.abs_diff(place.truth_bytes) * 100 <= total * 2,
            "place {number} holds {} in the report, {} in truth, of {total}",
            place.bytes,
            place.truth_bytes
        );
    }
    Ok(())
}

/// A bound that holds for 95 of 100 rows fails for one of 24 at times; that seven fail, or one by far, happens once
/// in some thousands of runs.
#[test]
fn one_stack_in_64_finds_every_share_within_its_bound() -> Result<()> {
    let (places, total) = places("1/64")?;
    let listed: Vec<_> = places.iter().filter(|place| place.bytes > 0).collect();
    ensure!(listed.len() >= 12, "only {} places are listed", listed.len());
    let mut within = 0;
    for place in &listed {
        let error = place.error_bytes.context("a sample says how far it may be off")?;
        let off = place.bytes.abs_diff(place.truth_bytes);
        within += usize::from(off <= error);
        ensure!(off * 2 <= error * 5, "{off} off, {error} stated, {} in truth", place.truth_bytes);
        ensure!(error * 10 <= total, "a bound of {error} says nothing of {total}");
    }
    ensure!(within + 6 >= listed.len(), "{within} of {} within their bounds", listed.len());
    Ok(())
}
