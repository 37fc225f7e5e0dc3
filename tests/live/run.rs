//! `leakprobe run`: what a program did from its first instruction to its last, and that it notices nothing of it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Deadline, Folder, Probe, Workload, compile, expect, places};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// As tests/workloads/c/contract.h has it.
const STEP_BYTES: u64 = MIB;

/// `leakprobe run ARGUMENTS -- PROGRAM`.
fn command(arguments: &[&str], program: &[&str]) -> Result<Command> {
    let mut command = Command::new(places::leakprobe()?);
    command.arg("run").args(arguments).arg("--").args(program);
    Ok(command)
}

/// Starts a workload by leakprobe: its pipes are the program's.
fn start(name: &str, report: &str) -> Result<Workload> {
    let program = compile::workload(name)?;
    let program = program.to_str().context("a path in UTF-8")?;
    let command = command(&["--json", "--output", report], &[program])?;
    Workload::start_program(command, &format!("leakprobe run -- {name}"), Deadline::usual())
}

fn read(path: &str) -> Result<Value> {
    serde_json::from_str(&fs::read_to_string(path)?).with_context(|| format!("read {path} as JSON"))
}

fn names(report: &Value, site: usize) -> Vec<&str> {
    let frames = report["call_sites"][site]["frames"].as_array();
    frames.into_iter().flatten().filter_map(|frame| frame["function"].as_str()).collect()
}

#[test]
fn a_program_is_watched_from_its_first_instruction_to_its_end() -> Result<()> {
    let folder = Folder::new("run")?;
    let path = folder.file("report.json")?;
    let mut workload = start("c/malloc_leak", &path)?;
    workload.grow(20)?;
    let ended = workload.end()?;
    ensure!(ended.code == Some(0), "it ended with {ended:?}");
    let report = read(&path)?;
    ensure!(report["target"]["ended"] == "exited" && report["target"]["comm"] == "malloc_leak", "{report}");
    expect::ledger_balances(&report)?;
    // The blocks of its hello and those of grow, all of them new, and read from malloc's own chunks at the end.
    let leaked_bytes = (3 + 20) * STEP_BYTES;
    expect::holds(&report, "c.heap.inuse", leaked_bytes)?;
    expect::grew_most(&report, "c.heap.inuse", leaked_bytes)?;
    let start_bytes = report["rss"]["start"].as_u64().context("rss.start")?;
    ensure!(start_bytes < MIB, "{start_bytes} bytes were there before its first instruction");
    // Through libc, which was mapped after the probes were there.
    ensure!(names(&report, 0).contains(&"forget_block"), "{}", report["call_sites"][0]);
    let loader = report["call_sites"].as_array().into_iter().flatten();
    let loader = loader.flat_map(|site| site["frames"].as_array().into_iter().flatten());
    ensure!(loader.clone().any(|frame| frame["function"] == "dl_main"), "nothing of the loader was seen");
    Ok(())
}

#[test]
fn a_go_program_is_known_once_its_runtime_is_up() -> Result<()> {
    let folder = Folder::new("run-go")?;
    let path = folder.file("report.json")?;
    let mut workload = start("go/heap_leak", &path)?;
    let grown_bytes = workload.grow(20)?;
    workload.end()?;
    let report = read(&path)?;
    expect::ledger_balances(&report)?;
    let leaked_bytes = grown_bytes + 3 * STEP_BYTES;
    expect::grew_most(&report, "go.heap.inuse", leaked_bytes)?;
    ensure!(names(&report, 0).contains(&"main.retainSlices"), "{}", report["call_sites"][0]);
    Ok(())
}

#[test]
fn what_it_executes_is_followed() -> Result<()> {
    let program = compile::workload("c/idle")?;
    let script = format!("exec {}", program.display());
    let outcome = Probe::spawn(command(&["--json"], &["sh", "-c", &script])?)?.finish()?;
    ensure!(outcome.ended.code == Some(0), "it ended with {:?}: {}", outcome.ended, outcome.stderr);
    let json = outcome.stderr.lines().filter(|line| !line.starts_with("leakprobe: ")).collect::<String>();
    let report: Value = serde_json::from_str(&json).context("the report on stderr")?;
    ensure!(report["target"]["comm"] == "idle", "{}", report["target"]);
    expect::ledger_balances(&report)?;
    ensure!(outcome.stdout.contains("c/idle"), "its stdout is its own: {}", outcome.stdout);
    Ok(())
}

#[test]
fn signals_and_the_exit_code_are_passed_on() -> Result<()> {
    let code = |script: &str| -> Result<Option<i32>> {
        Ok(Probe::spawn(command(&["-q"], &["sh", "-c", script])?)?.finish()?.ended.code)
    };
    ensure!(code("exit 7")? == Some(7));
    ensure!(code("kill -SEGV $$")? == Some(128 + 11));
    // To leakprobe alone, as a supervisor sends it. The window ends, the program as it wants to.
    let script = "trap 'echo caught; exit 9' TERM; echo '{}'; while :; do read -r line; done";
    let folder = Folder::new("run-signal")?;
    let path = folder.file("report.json")?;
    let waiting = command(&["--json", "-o", &path], &["sh", "-c", script])?;
    let workload = Workload::start_program(waiting, "a shell that waits", Deadline::usual())?;
    let leakprobe = Pid::from_raw(workload.pid().cast_signed()).context("a process id")?;
    kill_process(leakprobe, Signal::TERM)?;
    let ended = workload.end()?;
    ensure!(ended.code == Some(9), "it ended with {ended:?}");
    expect::ledger_balances(&read(&path)?)
}

#[test]
fn after_the_window_it_runs_on() -> Result<()> {
    let program = compile::workload("c/mmap_leak")?;
    let program = program.to_str().context("a path in UTF-8")?;
    let folder = Folder::new("run-on")?;
    let path = folder.file("report.json")?;
    let limited = command(&["--json", "-o", &path, "-d", "1s", "--fail-on-growth", "1MiB"], &[program])?;
    let mut workload = Workload::start_program(limited, "mmap_leak", Deadline::usual())?;
    workload.run_for(Duration::from_secs(3))?;
    let report = read(&path)?;
    ensure!(report["target"]["ended"].is_null(), "target.ended is {}", report["target"]["ended"]);
    let pid = report["target"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    test_kill_process(pid.and_then(Pid::from_raw).context("target.pid")?).context("it has ended")?;
    workload.grow(1)?;
    ensure!(workload.end()?.code == Some(1), "it grew, and --fail-on-growth says so where it ended well");
    Ok(())
}

#[test]
fn what_cannot_be_started_is_told() -> Result<()> {
    let outcome = Probe::spawn(command(&[], &["/nonexistent"])?)?.finish()?;
    ensure!(
        outcome.ended.code == Some(127) && outcome.stderr.contains("/nonexistent: No such file"),
        "{outcome:?}"
    );
    let outcome = Probe::spawn(command(&["--backend", "banana"], &["true"])?)?.finish()?;
    ensure!(outcome.ended.code == Some(2), "{outcome:?}");
    Ok(())
}
