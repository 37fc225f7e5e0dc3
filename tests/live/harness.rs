//! The harness fails when it should: a test that cannot fail proves nothing. These need neither root nor
//! leakprobe.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::process::Process;
use leakprobe_tests::{Deadline, Probe, Workload, expect};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn a_report() -> Value {
    json!({
        "rss": {"start": 20 * MIB, "end": 57 * MIB, "growth": 37 * MIB},
        "residual": 4096,
        "components": [
            {"id": "c.mmap", "rss": 40 * MIB, "growth": 37 * MIB},
            {"id": "file.libs", "rss": 17 * MIB - 4096, "growth": 0},
        ],
    })
}

fn fails_with(result: Result<()>, words: &str) -> Result<()> {
    let error = result.err().with_context(|| format!("this should have failed with {words:?}"))?;
    ensure!(format!("{error:#}").contains(words), "failed with another message than {words:?}: {error:#}");
    Ok(())
}

#[test]
fn a_true_report_passes() -> Result<()> {
    let report = a_report();
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", 37 * MIB)?;
    expect::others_stayed(&report, "c.mmap", 0)?;
    expect::holds(&report, "c.mmap", 40 * MIB + MIB / 2)
}

#[test]
fn a_wrong_owner_fails() -> Result<()> {
    fails_with(expect::grew_most(&a_report(), "file.libs", 37 * MIB), "c.mmap")?;
    fails_with(expect::grew_most(&a_report(), "go.heap.inuse", 37 * MIB), "no row go.heap.inuse")
}

#[test]
fn a_wrong_size_fails() -> Result<()> {
    fails_with(expect::grew_most(&a_report(), "c.mmap", 34 * MIB), "in truth")?;
    fails_with(expect::grew_most(&a_report(), "c.mmap", 40 * MIB), "in truth")?;
    fails_with(expect::holds(&a_report(), "c.mmap", 43 * MIB), "in truth")
}

#[test]
fn a_second_row_that_moves_fails() -> Result<()> {
    let mut report = a_report();
    report["components"][1]["growth"] = json!(-5000);
    fails_with(expect::others_stayed(&report, "c.mmap", 4096), "file.libs")
}

#[test]
fn a_ledger_one_byte_off_fails() -> Result<()> {
    let mut report = a_report();
    report["components"][0]["rss"] = json!(40 * MIB + 1);
    fails_with(expect::ledger_balances(&report), "does not balance")
}

#[test]
fn a_large_residual_fails() -> Result<()> {
    let mut report = a_report();
    report["components"][0]["rss"] = json!(39 * MIB);
    report["residual"] = json!(4096 + MIB);
    fails_with(expect::ledger_balances(&report), "residual")
}

#[test]
fn a_program_that_says_nothing_trips_the_deadline() -> Result<()> {
    // cat says nothing until it is told something, and stdin stays open.
    let silent = Workload::start_program(Command::new("cat"), "cat", Deadline::after(Duration::ZERO));
    fails_with(silent.map(drop), "the hello of cat did not come within")
}

#[test]
fn a_program_that_ends_at_once_is_told_from_a_slow_one() -> Result<()> {
    let dead = Workload::start_program(Command::new("false"), "false", Deadline::usual());
    fails_with(dead.map(drop), "it ended first, with code Some(1)")
}

#[test]
fn a_leakprobe_that_never_watches_is_quoted() -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "echo 'leakprobe: not today' >&2; exit 4"]);
    let mut probe = Probe::spawn(command)?;
    fails_with(probe.wait_until_watching(), "with code Some(4); it said:\nleakprobe: not today")
}

#[test]
fn a_process_is_gone_when_its_value_is() -> Result<()> {
    let workload = Workload::start_program(says_hello(), "hello", Deadline::usual())?;
    let folder = format!("/proc/{}", workload.pid());
    ensure!(std::fs::exists(&folder)?, "{folder} should be there while the program runs");
    drop(workload);
    ensure!(!std::fs::exists(&folder)?, "{folder} should be gone with the value");
    Ok(())
}

#[test]
fn a_process_has_its_price() -> Result<()> {
    let mut process = Process::spawn(Command::new("true"), "true")?;
    let ended = process.wait(Deadline::usual())?;
    ensure!(ended.code == Some(0) && ended.signal.is_none(), "true ended with {ended:?}");
    ensure!(ended.peak_rss_bytes > 0, "true used no memory: {ended:?}");
    Ok(())
}

fn says_hello() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo '{}'; read -r line"]);
    command
}
