//! The demo's request rate, alone and watched: what a service feels of leakprobe.
//!
//! Each round has a process of its own, because the watched leak would otherwise make every round's
//! process larger than the last one's.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use leakprobe_tests::Workload;

use super::Samples;
use super::machine::CpuTime;
use super::watcher::{Bill, Kind, Watcher};

const MEASURED: Duration = Duration::from_secs(5);

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    println!(
        "REQUEST RATE of go/race_http, watched ÷ alone, {rounds} rounds of {} s each",
        MEASURED.as_secs()
    );
    let mut alone_rates = Samples::default();
    let mut ratios = Samples::default();
    let mut shares_of_others = Samples::default();
    let mut bills = Vec::new();
    for round in 0..rounds {
        let mut workload = Workload::start("go/race_http")?;
        let (before, others_before) = rate_and_others(&mut workload)?;
        let watcher = Watcher::start(Kind::Leakprobe, leakprobe, workload.pid())?;
        let watched = rate(&mut workload)?;
        bills.push(watcher.stop()?);
        let (after, others_after) = rate_and_others(&mut workload)?;
        shares_of_others.push(others_before.max(others_after) * 100.0);
        let alone = f64::midpoint(before, after);
        let ratio = watched / alone;
        println!("  round {}: alone {alone:.0} /s, watched {watched:.0} /s, ratio {ratio:.3}", round + 1);
        alone_rates.push(alone);
        ratios.push(ratio);
        workload.end()?;
    }
    println!("                          min median    max");
    println!(
        "  ratio                {}   (alone: {:.0} requests a second)",
        ratios.shown(),
        alone_rates.median()
    );
    println!(
        "  other processes took up to {:.0} % of the machine while it ran alone",
        shares_of_others.most()
    );
    print_bills(&bills);
    Ok(())
}

/// The rate of a program that nobody watches, and the part of the machine that others took meanwhile.
fn rate_and_others(workload: &mut Workload) -> Result<(f64, f64)> {
    let cpu_before = CpuTime::now(workload.pid())?;
    let rate = rate(workload)?;
    Ok((rate, CpuTime::now(workload.pid())?.share_of_others_since(&cpu_before)))
}

/// Requests a second over the measured time, by the program's own clock.
fn rate(workload: &mut Workload) -> Result<f64> {
    let (requests_before, ns_before) = count(workload)?;
    workload.run_for(MEASURED)?;
    let (requests, ns) = count(workload)?;
    Ok((requests - requests_before) / (ns - ns_before) * 1e9)
}

fn count(workload: &mut Workload) -> Result<(f64, f64)> {
    let answer = workload.ask("count")?;
    let number =
        |name: &str| answer[name].as_f64().with_context(|| format!("there is no {name} in {answer}"));
    Ok((number("requests")?, number("elapsed_ns")?))
}

/// What leakprobe itself used, and what it said it saw.
pub(super) fn print_bills(bills: &[Bill]) {
    let samples = |value: fn(&Bill) -> Option<f64>| Samples(bills.iter().filter_map(value).collect());
    let peak = samples(|bill| Some(bill.ended.peak_rss_bytes as f64 / f64::from(1 << 20)));
    let cpu = samples(|bill| Some(bill.ended.cpu_seconds));
    println!("  leakprobe's own peak RSS {:.1} MiB, CPU {:.2} s a window", peak.most(), cpu.median());
    let report = samples(|bill| bill.report_seconds);
    println!(
        "  from the window's end to the report {:.2} s, at most {:.2} s",
        report.median(),
        report.most()
    );
    let faults = samples(|bill| bill.report.as_ref().map(faults));
    let lost: f64 = bills.iter().filter_map(|bill| bill.report.as_ref()).map(lost).sum();
    println!("  faults it reports {:.0} a window, lost by all its counters {lost:.0}", faults.median());
}

fn faults(report: &serde_json::Value) -> f64 {
    report["tracing"]["events"]["faults"].as_f64().unwrap_or(f64::NAN)
}

/// The sum of every counter, so that a new one cannot be forgotten here.
fn lost(report: &serde_json::Value) -> f64 {
    let counters = report["tracing"]["lost"].as_array().into_iter().flatten();
    counters.filter_map(|row| row["count"].as_f64()).sum()
}
