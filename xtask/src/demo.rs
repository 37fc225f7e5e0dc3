//! `cargo xtask demo`: the question leakprobe was made for, on a real program, in one command.

use std::process::Command;

use anyhow::{Context, Result};
use leakprobe_tests::Workload;

use crate::command::{build_leakprobe, ensure_root, in_the_open};
use crate::setup;

pub(crate) fn run(keep: bool) -> Result<()> {
    ensure_root("demo", "leakprobe reads another process's memory and loads BPF programs")?;
    setup::run()?;
    println!("Building leakprobe, and a Go HTTP service with the race detector in it …");
    let leakprobe = build_leakprobe()?;
    let workload = Workload::start("go/race_http")?;
    let pid = workload.pid().to_string();
    println!("Process {pid} serves HTTP to itself; its RSS climbs while its Go heap stays at a few MiB.");
    println!("leakprobe --pid {pid} --duration 10s now watches it for ten seconds, and it never stops.\n");
    let mut command = Command::new(leakprobe);
    command.args(["--pid", &pid, "--duration", "10s"]);
    in_the_open(command)?;
    if keep {
        println!("\nProcess {pid} still runs; press Enter to end it.");
        std::io::stdin().read_line(&mut String::new()).context("wait for Enter")?;
    }
    workload.end()?;
    Ok(())
}
