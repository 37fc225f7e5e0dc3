//! `cargo xtask demo`: the question leakprobe was made for, on a real program, in one command.

use std::process::Command;

use anyhow::{Context, Result};
use leakprobe_tests::Workload;

use crate::command::{build_leakprobe, ensure_root, in_the_open};
use crate::setup;

pub(crate) fn run(keep: bool) -> Result<()> {
    ensure_root("demo", "leakprobe reads another process's memory and loads BPF programs")?;
    setup::run(setup::Releases::Newest)?;
    println!("Building leakprobe, and a Go HTTP service with the race detector in it …");
    let leakprobe = build_leakprobe()?;
    let workload = Workload::start("go/race_http")?;
    let pid = workload.pid().to_string();
    println!("Process {pid} serves HTTP to itself; its RSS climbs while its Go heap stays at a few MiB.");
    println!("leakprobe --pid {pid} --duration 10s now watches it, without stopping it.\n");
    let mut command = Command::new(leakprobe);
    command.args(["--pid", &pid, "--duration", "10s"]);
    let interrupts = InterruptsGoToChildren::from_now_on();
    in_the_open(command)?;
    drop(interrupts);
    if keep {
        println!("\nProcess {pid} still runs; press Enter to end it.");
        std::io::stdin().read_line(&mut String::new()).context("wait for Enter")?;
    }
    workload.end()?;
    Ok(())
}

/// While this lives, ^C ends leakprobe's window and not the demo around it: the report still comes, and
/// the service is still ended.
struct InterruptsGoToChildren;

impl InterruptsGoToChildren {
    fn from_now_on() -> Self {
        extern "C" fn do_nothing(_signal: libc::c_int) {}
        // A handler and not SIG_IGN: a program that is executed inherits the latter.
        // SAFETY: the handler touches nothing, so it may run at any point of any thread.
        unsafe { libc::signal(libc::SIGINT, do_nothing as *const () as libc::sighandler_t) };
        Self
    }
}

impl Drop for InterruptsGoToChildren {
    fn drop(&mut self) {
        // SAFETY: restores what a program starts with; no handler of ours is left to be called.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    }
}
