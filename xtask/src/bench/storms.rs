//! A storm of page faults and one of mmap and munmap at once, on both sides of leakprobe's looks: how many a second
//! the machine makes, and what of it is lost.

use std::path::Path;

use anyhow::{Context, Result};
use leakprobe_tests::Workload;

use super::Samples;
use super::requests::print_bills;
use super::watcher::{Kind, Watcher};

/// So long it goes on between the looks.
const MEASURED: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    println!("TWO STORMS at once, through both looks, {rounds} rounds of {} s and more", MEASURED.as_secs());
    let (mut faults, mut pairs) = (Samples::default(), Samples::default());
    let mut bills = Vec::new();
    for _ in 0..rounds {
        let mut workload = Workload::start("c/storms")?;
        workload.ask("start")?;
        let watcher = Watcher::start(Kind::Leakprobe, leakprobe, workload.pid())?;
        workload.run_for(MEASURED)?;
        let bill = watcher.stop()?;
        let answer = workload.ask("stop")?;
        let number =
            |name: &str| answer[name].as_f64().with_context(|| format!("there is no {name} in {answer}"));
        let seconds = number("elapsed_ns")? / 1e9;
        faults.push(number("pages")? / seconds);
        pairs.push(number("pairs")? / seconds);
        for row in bill.report.iter().flat_map(|report| report["tracing"]["lost"].as_array()).flatten() {
            if row["count"] != 0 {
                println!("  lost: {row}");
            }
        }
        bills.push(bill);
        workload.end()?;
    }
    println!("                          min median    max, thousands a second");
    for (name, samples) in [("faults", &faults), ("mmap and munmap", &pairs)] {
        let thousands = samples.each(|value| value / 1e3);
        println!("  {name:20} {}", thousands.shown());
    }
    print_bills(&bills);
    Ok(())
}
