//! Ten million blocks of malloc over 64 arenas: what leakprobe counts of them beside malloc_info, how long that takes, and
//! what it needs for itself. The same with a tenth of the blocks, beside which a need that grows with them shows.
//!
//! The surprise: malloc_info takes a flag in the size of a free block for a byte of it (glibc 2.36 `malloc/malloc.c`,
//! `__malloc_info`), so it has a byte more for each block in a bin.

use std::path::Path;

use anyhow::{Context, Result};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

const MANY: u64 = 10_000_000;
/// As a part of malloc's own figure, leakprobe's may be off by so much.
const EXPECTED_PERCENT: f64 = 1.0;

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    println!("CHUNKS of malloc over 64 arenas, one in three freed: a snapshot, {rounds} rounds");
    println!("    chunks   seconds   own peak MiB   in use ÷ malloc_info   free ÷ malloc_info");
    for chunks in [MANY / 10, MANY] {
        let mut workload = Workload::start("c/malloc_arenas")?;
        let made = expect::number(&workload.ask(&format!("fill {chunks}"))?, "/chunks")?;
        for _ in 0..rounds {
            let truth = workload.ask("truth")?;
            let outcome = Probe::start_program(leakprobe, &workload, &["--duration", "0"])?.finish()?;
            let report = outcome.report()?;
            // What threads keep in their caches malloc_info counts as in use, and so malloc's own structures.
            let malloc = &report["malloc"];
            let in_use = sum(malloc, &["/in_use/bytes", "/thread_cached/bytes", "/overhead"])?;
            let free = sum(malloc, &["/binned/bytes", "/fast/bytes", "/top"])?;
            let ratios = [ratio(in_use, &truth, "in_use")?, ratio(free, &truth, "free")?];
            println!(
                "{made:10} {:9.2} {:14.1} {:22.4} {:20.4}",
                outcome.seconds,
                outcome.ended.peak_rss_bytes as f64 / f64::from(1 << 20),
                ratios[0],
                ratios[1]
            );
            if ratios.iter().any(|ratio| (ratio - 1.0).abs() * 100.0 > EXPECTED_PERCENT) {
                println!("  more than {EXPECTED_PERCENT} % off: {malloc}, and malloc_info {truth}");
            }
        }
        workload.end()?;
    }
    Ok(())
}

fn sum(malloc: &Value, pointers: &[&str]) -> Result<i64> {
    pointers.iter().map(|pointer| expect::number(malloc, pointer)).sum()
}

fn ratio(found: i64, truth: &Value, what: &str) -> Result<f64> {
    let told = truth[what].as_f64().with_context(|| format!("there is no {what} in {truth}"))?;
    Ok(found as f64 / told)
}
