//! On a kernel that is locked down for confidentiality nobody's programs may read memory. There are snapshots, and the
//! reason is said.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use leakprobe_tests::kernels::{Feature, is_here};
use leakprobe_tests::{Probe, Workload, expect, places};

#[test]
fn a_locked_kernel_is_named_and_leaves_snapshots() -> Result<()> {
    let mode = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_else(|error| error.to_string());
    let is_confidential = mode.contains("[confidentiality]");
    if !is_here(Feature::Confidentiality, if is_confidential { Ok(()) } else { Err(mode) })? {
        return Ok(());
    }
    let workload = Workload::start("c/idle")?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(places::leakprobe()?);
        command.args(arguments);
        Probe::spawn(command)?.finish()
    };
    let pid = workload.pid().to_string();
    let outcome = run(&[&pid, "--duration", "1s"])?;
    let named = outcome.stderr.contains("Lockdown: lockdown=confidentiality");
    ensure!(named && matches!(outcome.ended.code, Some(4 | 5)), "{:?}: {}", outcome.ended, outcome.stderr);
    expect::ledger_balances(&run(&[&pid, "--duration", "0", "--json"])?.report()?)?;
    let checkup = run(&["doctor", &pid, "--json"])?.json()?;
    ensure!(checkup["ability"] == "snapshot", "{checkup:#}");
    Ok(())
}
