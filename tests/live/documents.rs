//! What the documents tell readers to type does what they say, on a real process and on saved reports.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::command_lines::{self, CommandLine};
use leakprobe_tests::{Deadline, Folder, Probe, Workload, compile, places};

use crate::cgroup::Group;

/// What the documents call the process by name.
const NAME: &str = "api-server";
/// And its container.
const CONTAINER: &str = "4f5e6d7c";
/// Where they put metrics.
const COLLECTED: &str = "/var/lib/prometheus/node-exporter/";

/// Whether the command watches until it is interrupted, or for longer than a test may last.
fn is_long(words: &[String]) -> bool {
    let is_snapshot = words.windows(2).any(|pair| pair == ["--duration", "0"]);
    let looks = words.get(1).is_some_and(|word| word == "PID" || word.starts_with('-'));
    let is_group = words.get(1).is_some_and(|word| word == "--container" || word == "--cgroup");
    let asks = words.iter().any(|word| word == "--help" || word == "--version");
    looks && !is_snapshot && !is_group && !asks
}

/// The command as it is typed here: on this process, in this folder.
fn typed(words: &[String], pid: u32, folder: &str) -> Vec<String> {
    let here = |word: &String| match word.as_str() {
        "PID" => pid.to_string(),
        word => word.replace(COLLECTED, &format!("{folder}/")),
    };
    words.iter().skip(1).map(here).collect()
}

fn run(command: &CommandLine, pid: u32, folder: &Folder) -> Result<()> {
    let path = folder.path().to_str().context("the folder's path is UTF-8")?;
    let mut process = Command::new(places::leakprobe()?);
    process.args(typed(&command.words, pid, path)).current_dir(folder.path());
    let mut probe = Probe::spawn(process)?;
    if is_long(&command.words) {
        probe.wait_until_watching()?;
        probe.interrupt()?;
    }
    let outcome = probe.finish()?;
    ensure!(outcome.ended.code == Some(0), "it ended with {:?}: {}", outcome.ended, outcome.stderr);
    Ok(())
}

#[test]
fn every_command_in_the_documents_works() -> Result<()> {
    let folder = Folder::new("documents")?;
    // Before the process that will be in it, so that it is dropped after.
    let group = Group::create(&format!("docker-{CONTAINER}{:056x}.scope", std::process::id()))?;
    let program = folder.path().join(NAME);
    fs::copy(compile::workload("c/idle")?, &program).context("copy a workload")?;
    let workload = Workload::start_program(Command::new(&program), NAME, Deadline::usual())?;
    group.take_in(&workload)?;
    let server = folder.file("server")?;
    fs::write(&server, "#!/bin/sh\nexit 0\n").context("write a script")?;
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).context("let it be run")?;
    // What a reader has saved before.
    let snapshot = Command::new(places::leakprobe()?)
        .args([&workload.pid().to_string(), "--duration", "0", "--json", "--output"])
        .arg(folder.file("report.json")?)
        .status()
        .context("take a snapshot")?;
    ensure!(snapshot.success(), "no snapshot: {snapshot}");
    for name in ["before.json", "after.json"] {
        fs::copy(folder.file("report.json")?, folder.file(name)?).context("copy a report")?;
    }
    let mut done = BTreeSet::new();
    for command in command_lines::commands(&["leakprobe"])? {
        let told = || format!("{}: {}", command.place, command.words.join(" "));
        if done.insert(command.words.clone()) {
            run(&command, workload.pid(), &folder).with_context(told)?;
        }
    }
    Ok(())
}
