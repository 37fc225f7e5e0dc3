//! leakprobe, run on a workload: wait until it watches, end its window, take its report.
//!
//! The surprise: its stdout is an unlinked file in memory and not a pipe. A report can be longer than
//! a pipe holds, and nobody reads it before the program has ended.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;
use serde_json::Value;

use crate::lines::Lines;
use crate::process::{Ended, Process};
use crate::{Deadline, Workload, places};

/// leakprobe says this on stderr when its probes are attached and its first snapshot is taken.
const WATCHING: &str = "leakprobe: watching ";

/// A running leakprobe; it is killed, by its PID, when the value is dropped.
#[derive(Debug)]
pub struct Probe {
    process: Process,
    messages: Lines,
    stderr: String,
    stdout: Option<File>,
    started: Instant,
    interrupted: Option<Instant>,
}

/// What a leakprobe that has ended left behind.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended and what it cost.
    pub ended: Ended,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
    /// From its start to its end.
    pub seconds: f64,
    /// From the harness's ^C to its end: what the report takes.
    pub report_seconds: Option<f64>,
}

impl Probe {
    /// Starts the program under test on a workload; the report will be JSON.
    pub fn start(workload: &Workload, arguments: &[&str]) -> Result<Self> {
        Self::start_program(&places::leakprobe()?, workload, arguments)
    }

    /// The same on any process.
    pub fn of_pid(pid: u32, arguments: &[&str]) -> Result<Self> {
        Self::start_on(&places::leakprobe()?, pid, arguments)
    }

    /// On a workload, with a certain leakprobe.
    pub fn start_program(program: &Path, workload: &Workload, arguments: &[&str]) -> Result<Self> {
        Self::start_on(program, workload.pid(), arguments)
    }

    fn start_on(program: &Path, pid: u32, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--pid", &pid.to_string(), "--format", "json"]).args(arguments);
        if let Some(backend) = places::backend() {
            command.arg("--backend").arg(backend);
        }
        Self::spawn(command)
    }

    /// Starts a whole command line.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let stdout =
            File::from(memfd_create("leakprobe-stdout", MemfdFlags::CLOEXEC).context("create a memfd")?);
        command.stdout(stdout.try_clone().context("duplicate a memfd")?);
        Self::spawn_into(command, Some(stdout))
    }

    /// Starts a command line whose stdout the caller has set, and where that can be read back if at all.
    pub fn spawn_into(mut command: Command, stdout: Option<File>) -> Result<Self> {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = Process::spawn(command, "leakprobe")?;
        let stderr = process.child.stderr.take().context("stderr is a pipe")?;
        let messages = Lines::new(stderr);
        Ok(Self { process, messages, stderr: String::new(), stdout, started, interrupted: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until it sees everything that happens from now on.
    pub fn wait_until_watching(&mut self) -> Result<()> {
        let deadline = Deadline::usual();
        while let Some(line) = self.messages.next("leakprobe's line that it is watching", deadline)? {
            self.stderr.push_str(&line);
            self.stderr.push('\n');
            // A progress line may stand before it, ended by a carriage return only.
            if line.split('\r').any(|part| part.starts_with(WATCHING)) {
                return Ok(());
            }
        }
        let ended = self.process.wait(deadline)?;
        bail!("leakprobe ended before it was watching, with code {:?}; it said:\n{}", ended.code, self.stderr)
    }

    /// ^C: ends the window early.
    pub fn interrupt(&mut self) -> Result<()> {
        self.interrupted = Some(Instant::now());
        self.process.signal(Signal::INT)
    }

    /// SIGKILL: it gets no chance to tidy up.
    pub fn kill(&mut self) -> Result<Ended> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(Deadline::usual())
    }

    /// Waits for its end and collects what it left.
    pub fn finish(mut self) -> Result<Outcome> {
        let deadline = Deadline::usual();
        while let Some(line) = self.messages.next("the end of leakprobe's messages", deadline)? {
            self.stderr.push_str(&line);
            self.stderr.push('\n');
        }
        let ended = self.process.wait(deadline)?;
        let seconds = self.started.elapsed().as_secs_f64();
        let report_seconds = self.interrupted.map(|at| at.elapsed().as_secs_f64());
        let mut stdout = String::new();
        if let Some(mut file) = self.stdout {
            file.rewind().context("rewind leakprobe's stdout")?;
            file.read_to_string(&mut stdout).context("read leakprobe's stdout as UTF-8")?;
        }
        Ok(Outcome { ended, stdout, stderr: self.stderr, seconds, report_seconds })
    }

    /// ^C, and the report it gives then.
    pub fn report_now(mut self) -> Result<Value> {
        self.interrupt()?;
        self.finish()?.report()
    }
}

impl Outcome {
    /// The JSON on stdout; an error where leakprobe did not end well.
    pub fn report(&self) -> Result<Value> {
        if self.ended.code != Some(0) {
            bail!(
                "leakprobe ended with code {:?}, signal {:?}; it said:\n{}",
                self.ended.code,
                self.ended.signal,
                self.stderr
            );
        }
        self.json()
    }

    /// The JSON on stdout, however leakprobe ended.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("read leakprobe's report as JSON; it said:\n{}", self.stderr))
    }
}
