//! A program to be watched, under the contract of `tests/workloads`: it says hello when it is ready,
//! answers each line, and ends when its stdin does.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::compile::GoBuild;
use crate::lines::Lines;
use crate::process::{Ended, Process};
use crate::{Deadline, compile, places};

/// A running program; it is killed, by its PID, when the value is dropped.
#[derive(Debug)]
pub struct Workload {
    name: String,
    process: Process,
    watched_pid: u32,
    stdin: Option<ChildStdin>,
    answers: Lines,
    /// The program's first line.
    pub hello: Value,
}

impl Workload {
    /// Builds where needed, starts, and waits until the program is ready.
    pub fn start(name: &str) -> Result<Self> {
        let program = compile::workload(name)?;
        Self::start_program(Command::new(program), name, Deadline::usual())
    }

    /// The same for a Go program that is built in a certain way.
    pub fn start_built(name: &str, build: GoBuild) -> Result<Self> {
        let program = compile::go_workload(name, build)?;
        Self::start_program(Command::new(program), &format!("{name} ({build})"), Deadline::usual())
    }

    /// Starts any program that keeps the contract.
    pub fn start_program(mut command: Command, name: &str, deadline: Deadline) -> Result<Self> {
        // On the disk of the target folder: a temporary folder may be a tmpfs, whose files are shmem.
        let folder = places::target().join("workloads/scratch");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        // Its own process group: a ^C on the terminal is for who watches, not for what is watched.
        command.process_group(0).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(command, name)?;
        let stdin = process.child.stdin.take();
        let stdout = process.child.stdout.take().context("stdout is a pipe")?;
        let mut workload = Self {
            name: name.to_owned(),
            watched_pid: process.pid(),
            process,
            stdin,
            answers: Lines::new(stdout),
            hello: Value::Null,
        };
        workload.hello = workload.answer("hello", deadline)?;
        Ok(workload)
    }

    /// A program that is the only child of what `unshare` with these arguments starts: in namespaces of its own, as in
    /// a container. It dies with its parent.
    pub fn start_contained(arguments: &[&str], program: &Path) -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).args(arguments).arg(program);
        let mut workload = Self::start_program(command, &program.display().to_string(), Deadline::usual())?;
        workload.watched_pid = only_child(workload.process.pid())?;
        Ok(workload)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.watched_pid
    }

    /// Sends a line and waits for its answer.
    pub fn ask(&mut self, line: &str) -> Result<Value> {
        self.tell(line)?;
        let answer = self.answer(&format!("answer to {line:?}"), Deadline::usual())?;
        if let Some(error) = answer.get("error") {
            bail!("{} answered {line:?} with {error}", self.name);
        }
        Ok(answer)
    }

    /// Has it leak so many steps more; what it says it leaked.
    pub fn grow(&mut self, steps: u64) -> Result<u64> {
        let answer = self.ask(&format!("grow {steps}"))?;
        answer["grown_bytes"].as_u64().with_context(|| format!("{} answered grow with {answer}", self.name))
    }

    /// Lets it run on for a while; an end before that is an error.
    pub fn run_for(&self, time: Duration) -> Result<()> {
        let alive = self.process.outlives(Deadline::after(time))?;
        ensure!(alive, "{} ended by itself within {:.1} s", self.name, time.as_secs_f64());
        Ok(())
    }

    /// Closes its stdin and waits until it has ended.
    pub fn end(mut self) -> Result<Ended> {
        self.stdin = None;
        self.process.wait(Deadline::usual())
    }

    fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().with_context(|| format!("{}: stdin is closed", self.name))?;
        writeln!(stdin, "{line}").with_context(|| format!("send {line:?} to {}", self.name))
    }

    fn answer(&mut self, awaited: &str, deadline: Deadline) -> Result<Value> {
        let awaited = format!("the {awaited} of {}", self.name);
        let Some(line) = self.answers.next(&awaited, deadline)? else {
            let ended = self.process.wait(deadline)?;
            bail!(
                "wait for {awaited}: it ended first, with code {:?} and signal {:?}",
                ended.code,
                ended.signal
            );
        };
        serde_json::from_str(&line).with_context(|| format!("read {awaited}, {line:?}, as JSON"))
    }
}

fn only_child(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    children.trim().parse().with_context(|| format!("process {pid} has one child: {children:?}"))
}
