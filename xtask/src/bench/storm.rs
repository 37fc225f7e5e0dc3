//! A storm of page faults, alone and watched: the worst case of every page-fault probe.

use std::path::Path;

use anyhow::{Context, Result};
use leakprobe_tests::Workload;

use super::requests::print_bills;
use super::watcher::{Bill, Kind, Watcher};
use super::{Samples, flush};

/// Sixteen times 65,536 pages: a second or two of nothing but faults.
const STORM: &str = "storm 16";

/// The first storm of a process finds cold caches.
const WARM_UP: &str = "storm 2";

struct Row {
    kind: Kind,
    ratios: Samples,
    bills: Vec<Bill>,
}

/// What the program says of one storm.
struct Storm {
    pages: f64,
    ns_each: f64,
}

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    let mut workload = Workload::start("c/fault_storm")?;
    workload.ask(WARM_UP)?;
    let new_row = |kind| Row { kind, ratios: Samples::default(), bills: Vec::new() };
    let mut rows: Vec<Row> = Kind::available().into_iter().map(new_row).collect();
    let mut alone_ns = Samples::default();
    let mut pages = 0.0;
    println!("FAULT STORM, time a fault, watched ÷ alone, {rounds} rounds");
    for round in 0..rounds {
        let mut before = storm(&mut workload)?;
        pages = before.pages;
        print!("  round {}:", round + 1);
        for row in &mut rows {
            let watcher = Watcher::start(row.kind, leakprobe, workload.pid())?;
            let watched = storm(&mut workload)?;
            row.bills.push(watcher.stop()?);
            let after = storm(&mut workload)?;
            let alone = f64::midpoint(before.ns_each, after.ns_each);
            row.ratios.push(watched.ns_each / alone);
            alone_ns.push(alone);
            print!(" {} {:.3}", row.kind.name(), watched.ns_each / alone);
            flush()?;
            before = after;
        }
        println!();
        // The next round begins with another watcher.
        rows.rotate_left(1);
    }
    workload.end()?;
    rows.sort_by_key(|row| row.kind);
    print_rows(&rows);
    println!("  alone {:.0} ns a fault (median), {pages:.0} faults a window", alone_ns.median());
    let own = rows.iter().find(|row| row.kind == Kind::Leakprobe).context("leakprobe is always measured")?;
    print_bills(&own.bills);
    Ok(())
}

fn storm(workload: &mut Workload) -> Result<Storm> {
    let answer = workload.ask(STORM)?;
    let number =
        |name: &str| answer[name].as_f64().with_context(|| format!("there is no {name} in {answer}"));
    let pages = number("pages")?;
    Ok(Storm { pages, ns_each: number("elapsed_ns")? / pages })
}

fn print_rows(rows: &[Row]) {
    println!("                          min median    max   CPU s");
    for row in rows {
        let cpu = Samples(row.bills.iter().map(|bill| bill.ended.cpu_seconds).collect());
        println!("  {:20} {} {:7.2}", row.kind.name(), row.ratios.shown(), cpu.median());
    }
}
