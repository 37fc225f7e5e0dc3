//! A million malloc and free calls a second, one block in a thousand forgotten: alone, watched by leakprobe, under
//! heaptrack, and under a script that follows every block as memleak does.
//!
//! The surprise: heaptrack cannot be had beside a run without it in one process, since it comes with the loader. It
//! has a process of its own, and is compared with the runs of the other one before and after.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use leakprobe_tests::{Deadline, Workload, compile, places};
use serde_json::Value;

use super::requests::print_bills;
use super::watcher::{Bill, Kind, Watcher, start_bpftrace};
use super::{Samples, flush};
use crate::command::find_program;

const NAME: &str = "c/malloc_pairs";
/// About a second of it.
const PAIRS: u64 = 1_000_000;
/// Where every one costs ten times as much.
const FEW_PAIRS: u64 = 100_000;
/// Where Debian has what heaptrack preloads.
const HEAPTRACK: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";
/// What forgets them.
const CULPRIT: &str = "forget_one";

/// Times a pair, by the clock and of the processor, in nanoseconds.
#[derive(Clone, Copy)]
struct Pair {
    elapsed_ns: f64,
    cpu_ns: f64,
}

#[derive(Default)]
struct Row {
    elapsed: Samples,
    cpu: Samples,
}

impl Row {
    fn push(&mut self, watched: Pair, (before, after): (Pair, Pair)) {
        self.elapsed.push(watched.elapsed_ns / f64::midpoint(before.elapsed_ns, after.elapsed_ns));
        self.cpu.push(watched.cpu_ns / f64::midpoint(before.cpu_ns, after.cpu_ns));
    }

    fn print(&self, name: &str) {
        println!("  {name:24} {}   {}", self.elapsed.shown(), self.cpu.shown());
    }
}

pub(super) fn run(leakprobe: &Path, rounds: u32) -> Result<()> {
    println!("MALLOC AND FREE, one block in 1000 forgotten: time a pair, watched ÷ alone, {rounds} rounds");
    let mut workload = Workload::start(NAME)?;
    pair(&mut workload, PAIRS)?;
    let (mut own, mut heaptrack, mut script) = (Row::default(), Row::default(), Row::default());
    let (mut alone, mut shares) = (Samples::default(), Samples::default());
    let mut bills = Vec::new();
    for round in 0..rounds {
        print!("  round {}:", round + 1);
        let first = pair(&mut workload, PAIRS)?;
        let (watched, bill) = watched(&mut workload, leakprobe)?;
        let second = pair(&mut workload, PAIRS)?;
        own.push(watched, (first, second));
        alone.push(first.elapsed_ns);
        shares.push(bill.report.as_ref().map_or(0.0, share_of_culprit) * 100.0);
        bills.push(bill);
        if let Some(tracked) = under_heaptrack()? {
            heaptrack.push(tracked, (second, pair(&mut workload, PAIRS)?));
        }
        if find_program("bpftrace").is_some() {
            let before = pair(&mut workload, PAIRS)?;
            let watcher = start_bpftrace(&memleak(workload.pid())?)?;
            let traced = pair(&mut workload, FEW_PAIRS)?;
            watcher.stop()?;
            script.push(traced, (before, pair(&mut workload, PAIRS)?));
        }
        println!(" leakprobe {:.3}", watched.elapsed_ns / f64::midpoint(first.elapsed_ns, second.elapsed_ns));
        flush()?;
    }
    let mixed = share_where_sizes_mix(&mut workload, leakprobe)?;
    workload.end()?;
    println!("                           by the clock           of the processor");
    println!("                              min median    max      min median    max");
    own.print("leakprobe");
    heaptrack.print("heaptrack");
    script.print("bpftrace, as memleak");
    println!("  alone {:.0} ns a pair", alone.median());
    println!(
        "  of the C heap's growth that has a stack, {CULPRIT} has {:.0} % by leakprobe; {mixed:.0} % where others free \
         blocks of the sizes that it forgets",
        shares.median()
    );
    print_bills(&bills);
    Ok(())
}

/// In per cent.
fn share_where_sizes_mix(workload: &mut Workload, leakprobe: &Path) -> Result<f64> {
    let watcher = Watcher::start(Kind::Leakprobe, leakprobe, workload.pid())?;
    workload.ask(&format!("mixed {PAIRS}"))?;
    let bill = watcher.stop()?;
    Ok(bill.report.as_ref().map_or(0.0, share_of_culprit) * 100.0)
}

fn watched(workload: &mut Workload, leakprobe: &Path) -> Result<(Pair, Bill)> {
    let watcher = Watcher::start(Kind::Leakprobe, leakprobe, workload.pid())?;
    let watched = pair(workload, PAIRS)?;
    Ok((watched, watcher.stop()?))
}

/// A process of its own, from its second run on; none where heaptrack is not here.
fn under_heaptrack() -> Result<Option<Pair>> {
    if !Path::new(HEAPTRACK).is_file() {
        return Ok(None);
    }
    let data = Data(places::target().join(format!("bench-heaptrack-{}", std::process::id())));
    let mut command = Command::new(compile::workload(NAME)?);
    command.env("LD_PRELOAD", HEAPTRACK).env("DUMP_HEAPTRACK_OUTPUT", &data.0);
    let mut workload = Workload::start_program(command, NAME, Deadline::usual())?;
    pair(&mut workload, FEW_PAIRS)?;
    let tracked = pair(&mut workload, PAIRS)?;
    workload.end()?;
    Ok(Some(tracked))
}

/// A file that goes with the value.
struct Data(PathBuf);

impl Drop for Data {
    fn drop(&mut self) {
        // An error here would hide the one that led here.
        fs::remove_file(&self.0).ok();
    }
}

fn pair(workload: &mut Workload, pairs: u64) -> Result<Pair> {
    let answer = workload.ask(&format!("work {pairs}"))?;
    let number =
        |name: &str| answer[name].as_f64().with_context(|| format!("there is no {name} in {answer}"));
    let pairs = number("pairs")?;
    Ok(Pair { elapsed_ns: number("elapsed_ns")? / pairs, cpu_ns: number("cpu_ns")? / pairs })
}

/// What memleak of the BPF compiler collection does: the size and the stack of every block until it is freed.
fn memleak(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/maps");
    let maps = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let libc = files.find(|file| file.contains("/libc.so")).context("find the C library")?;
    Ok(format!(
        "uprobe:{libc}:malloc /pid == {pid}/ {{ @size[tid] = arg0; }} \
         uretprobe:{libc}:malloc /pid == {pid} && @size[tid]/ \
         {{ @bytes[retval] = @size[tid]; @stack[retval] = ustack; delete(@size[tid]); }} \
         uprobe:{libc}:free /pid == {pid}/ {{ delete(@bytes[arg0]); delete(@stack[arg0]); }}"
    ))
}

/// The part of the C heap's call sites with a stack that goes through the function that forgets the blocks.
fn share_of_culprit(report: &Value) -> f64 {
    let sites = report["call_sites"].as_array().into_iter().flatten();
    let (mut all, mut culprits) = (0.0, 0.0);
    for site in sites.filter(|site| site["component"] == "c.heap.inuse") {
        let mut frames = site["frames"].as_array().into_iter().flatten().peekable();
        let bytes = site["bytes"].as_f64().unwrap_or(0.0);
        if frames.peek().is_some() {
            all += bytes;
        }
        if frames.any(|frame| frame["function"] == CULPRIT) {
            culprits += bytes;
        }
    }
    if all > 0.0 { culprits / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_share_of_a_function_is_by_stacks_through_it() {
        let site = |component: &str, bytes: u64, functions: &[&str]| {
            let frames: Vec<Value> = functions.iter().map(|function| json!({"function": function})).collect();
            json!({"component": component, "bytes": bytes, "frames": frames})
        };
        let sites = [
            site("c.heap.inuse", 30, &["malloc", "take", CULPRIT, "main"]),
            site("c.heap.inuse", 10, &["malloc", "main"]),
            site("c.heap.inuse", 50, &[]),
            site("c.mmap", 70, &[CULPRIT]),
        ];
        assert_eq!(share_of_culprit(&json!({"call_sites": sites})), 0.75);
        assert_eq!(share_of_culprit(&json!({"call_sites": []})), 0.0);
    }
}
