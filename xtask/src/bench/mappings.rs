//! Reading 60,000 mappings, beside `cat /proc/PID/smaps`: how long it takes, and how long a thread of the target that
//! maps and unmaps all the while is held up.
//!
//! What reads does so under the lock that mapping needs, so `cat` is the measure: leakprobe reads that, and the
//! page tables besides. The surprise: a thread is held up by being descheduled, too, so its longest call without
//! any reader belongs beside the others.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Workload, places};

use super::machine::CpuTime;
use super::{Samples, flush};
use crate::command::{cargo, in_the_open};

/// Of the time that `cat` takes, at most so much is expected of leakprobe.
const EXPECTED_RATIO: f64 = 1.5;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reader {
    Cat,
    Snapshot,
    Leakprobe,
}

impl Reader {
    fn name(self) -> &'static str {
        match self {
            Self::Cat => "cat smaps",
            Self::Snapshot => "snapshot alone",
            Self::Leakprobe => "leakprobe --duration 0",
        }
    }
}

struct Row {
    reader: Reader,
    seconds: Samples,
    ratios: Samples,
    calls: Calls,
}

/// What the mapping thread says of its calls while something read.
#[derive(Default)]
struct Calls {
    median_us: Samples,
    longest_ms: Samples,
}

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    let snapshot = build_snapshot()?;
    let mut workload = Workload::start("c/many_mappings")?;
    println!(
        "60,000 MAPPINGS, 4 GiB resident, a thread maps and unmaps: time to read, ÷ cat, {rounds} rounds"
    );
    let mut rows: Vec<Row> = [Reader::Snapshot, Reader::Leakprobe].into_iter().map(Row::new).collect();
    let mut cat = Row::new(Reader::Cat);
    let mut undisturbed = Calls::default();
    let mut shares_of_others = Samples::default();
    for round in 0..rounds {
        let cpu_before = CpuTime::now(workload.pid())?;
        undisturbed.rest(&mut workload)?;
        shares_of_others.push(CpuTime::now(workload.pid())?.share_of_others_since(&cpu_before) * 100.0);
        print!("  round {}:", round + 1);
        let mut before = cat.read(&mut workload, leakprobe, &snapshot)?;
        for row in &mut rows {
            let seconds = row.read(&mut workload, leakprobe, &snapshot)?;
            let after = cat.read(&mut workload, leakprobe, &snapshot)?;
            let ratio = seconds / f64::midpoint(before, after);
            row.ratios.push(ratio);
            print!(" {} {ratio:.3}", row.reader.name());
            flush()?;
            before = after;
        }
        println!();
        rows.rotate_left(1);
    }
    workload.end()?;
    rows.sort_by_key(|row| row.reader);
    rows.insert(0, cat);
    print_rows(&rows, &undisturbed);
    println!(
        "  other processes took up to {:.0} % of the machine while nothing read",
        shares_of_others.most()
    );
    Ok(())
}

impl Row {
    fn new(reader: Reader) -> Self {
        Self { reader, seconds: Samples::default(), ratios: Samples::default(), calls: Calls::default() }
    }

    /// From the reader's start to its end, in seconds.
    fn read(&mut self, workload: &mut Workload, leakprobe: &Path, snapshot: &Path) -> Result<f64> {
        let pid = workload.pid().to_string();
        let mut command = match self.reader {
            Reader::Cat => Command::new("cat"),
            Reader::Snapshot => Command::new(snapshot),
            Reader::Leakprobe => Command::new(leakprobe),
        };
        match self.reader {
            Reader::Cat => command.arg(format!("/proc/{pid}/smaps")),
            Reader::Snapshot => command.arg(&pid),
            Reader::Leakprobe => command.args(["--duration", "0", "--pid", &pid]),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        workload.ask("calls")?;
        let started = Instant::now();
        let status = command.status().with_context(|| format!("run {}", self.reader.name()))?;
        let seconds = started.elapsed().as_secs_f64();
        ensure!(status.success(), "{} failed: {status}", self.reader.name());
        self.seconds.push(seconds);
        self.calls.take(workload)?;
        Ok(seconds)
    }
}

impl Calls {
    /// Takes the calls of about as long a time as a reader takes, without one.
    fn rest(&mut self, workload: &mut Workload) -> Result<()> {
        workload.ask("calls")?;
        workload.run_for(std::time::Duration::from_secs(1))?;
        self.take(workload)
    }

    fn take(&mut self, workload: &mut Workload) -> Result<()> {
        let answer = workload.ask("calls")?;
        let number =
            |name: &str| answer[name].as_f64().with_context(|| format!("there is no {name} in {answer}"));
        self.median_us.push(number("median_ns")? / 1e3);
        self.longest_ms.push(number("longest_ns")? / 1e6);
        Ok(())
    }

    /// The middle of the medians, the middle and the largest of the longest.
    fn shown(&self) -> String {
        let (median, longest) = (self.median_us.median(), &self.longest_ms);
        format!("{median:8.1} {:9.1} {:9.1}", longest.median(), longest.most())
    }
}

fn print_rows(rows: &[Row], undisturbed: &Calls) {
    println!(
        "                           seconds      ÷ cat: min median    max   a call: median µs, longest ms: median, max"
    );
    for row in rows {
        let ratios = if row.reader == Reader::Cat { " ".repeat(20) } else { row.ratios.shown() };
        let (name, seconds) = (row.reader.name(), row.seconds.median());
        println!("  {name:24} {seconds:7.3}      {ratios} {}", row.calls.shown());
    }
    println!("  {:24} {:7}      {:20} {}", "nobody reads", "", "", undisturbed.shown());
    for row in rows.iter().filter(|row| row.reader != Reader::Cat && row.ratios.median() > EXPECTED_RATIO) {
        println!("  {} takes more than {EXPECTED_RATIO} times as long as cat", row.reader.name());
    }
}

/// The program that takes one snapshot, built for release.
fn build_snapshot() -> Result<PathBuf> {
    in_the_open(cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "leakprobe",
        "--example",
        "snapshot",
    ]))?;
    Ok(places::target().join("release/examples/snapshot"))
}
