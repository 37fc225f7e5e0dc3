//! What each backend costs who is watched, and who is not: some of the places where system calls can be seen slow down
//! those of the whole machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload};

use super::{Samples, flush};

/// As `--backend` names them, best first.
const BACKENDS: [&str; 4] = ["fentry", "kprobe", "tracepoint", "syscalls"];

/// Pairs of mmap and munmap of the process that is watched, and calls of getpid of one that is not: each some tenths of
/// a second.
const PAIRS: u32 = 200_000;
const CALLS: u32 = 2_000_000;

struct Row {
    backend: &'static str,
    pairs: Samples,
    calls: Samples,
}

/// A process that is watched and another, with what a call of each takes.
struct Pair {
    watched: Workload,
    other: Workload,
}

/// Nanoseconds.
#[derive(Clone, Copy)]
struct Times {
    pair_ns: f64,
    call_ns: f64,
}

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    let mut processes = Pair { watched: Workload::start("c/calls")?, other: Workload::start("c/calls")? };
    // The first calls of a process find cold caches.
    processes.measure()?;
    let mut rows = Vec::new();
    for backend in BACKENDS {
        match attached(leakprobe, backend, &processes.watched)? {
            Ok(probe) => {
                probe.report_now()?;
                rows.push(Row { backend, pairs: Samples::default(), calls: Samples::default() });
            }
            Err(refusal) => println!("{backend}: {refusal}"),
        }
    }
    ensure!(!rows.is_empty(), "measure what backends cost: none of them works here");
    println!("BACKENDS, time a call, watched ÷ alone, {rounds} rounds");
    let (mut alone_pair_ns, mut alone_call_ns) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        let mut before = processes.measure()?;
        print!("  round {}:", round + 1);
        for row in &mut rows {
            let probe = attached(leakprobe, row.backend, &processes.watched)?.map_err(anyhow::Error::msg)?;
            let during = processes.measure()?;
            probe.report_now()?;
            let after = processes.measure()?;
            let pair_ns = f64::midpoint(before.pair_ns, after.pair_ns);
            let call_ns = f64::midpoint(before.call_ns, after.call_ns);
            row.pairs.push(during.pair_ns / pair_ns);
            row.calls.push(during.call_ns / call_ns);
            alone_pair_ns.push(pair_ns);
            alone_call_ns.push(call_ns);
            print!(" {} {:.2} {:.2}", row.backend, during.pair_ns / pair_ns, during.call_ns / call_ns);
            flush()?;
            before = after;
        }
        println!();
        // The next round begins with another backend.
        rows.rotate_left(1);
    }
    rows.sort_by_key(|row| BACKENDS.iter().position(|backend| *backend == row.backend));
    println!("              mmap and munmap of who is watched   getpid of who is not");
    println!("                     min median    max           min median    max");
    for row in &rows {
        println!("  {:12} {}        {}", row.backend, row.pairs.shown(), row.calls.shown());
    }
    let (pair_ns, call_ns) = (alone_pair_ns.median(), alone_call_ns.median());
    println!("  alone: {:.0} pairs a second, {:.0} calls of getpid a second", 1e9 / pair_ns, 1e9 / call_ns);
    Ok(())
}

/// A leakprobe that watches with this backend, or why it says that it cannot.
fn attached(leakprobe: &Path, backend: &str, workload: &Workload) -> Result<Result<Probe, String>> {
    let mut command = Command::new(leakprobe);
    command.args(["--pid", &workload.pid().to_string(), "--format", "json", "--duration", "3600s"]);
    command.args(["--backend", backend]);
    let mut probe = Probe::spawn(command)?;
    match probe.wait_until_watching() {
        Ok(()) => Ok(Ok(probe)),
        Err(error) => {
            let error = format!("{error:#}");
            let refusal = error.lines().find(|line| line.contains("does not work here"));
            Ok(Err(refusal.with_context(|| error.clone())?.to_owned()))
        }
    }
}

impl Pair {
    fn measure(&mut self) -> Result<Times> {
        Ok(Times {
            pair_ns: ns_each(&mut self.watched, "map", PAIRS)?,
            call_ns: ns_each(&mut self.other, "ask", CALLS)?,
        })
    }
}

fn ns_each(workload: &mut Workload, verb: &str, count: u32) -> Result<f64> {
    let answer = workload.ask(&format!("{verb} {count}"))?;
    let elapsed_ns = answer["elapsed_ns"].as_f64().with_context(|| format!("no elapsed_ns in {answer}"))?;
    Ok(elapsed_ns / f64::from(count))
}
