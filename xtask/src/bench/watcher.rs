//! The programs that watch: started on a process, known to be watching, stopped, and priced.
//!
//! The surprise is in "known to be": perf is started with its events off and says when they are on,
//! bpftrace has a line for its own tests (on stderr), and leakprobe has its line on stderr. None is waited for by time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use leakprobe_tests::lines::Lines;
use leakprobe_tests::process::{Ended, Process};
use leakprobe_tests::{Deadline, Probe, places};
use rustix::process::Signal;
use serde_json::Value;

use crate::command::{ask, find_program};

/// What all of them attach to.
const TRACEPOINT: &str = "exceptions:page_fault_user";

/// Longer than any measurement: every window is ended by hand.
const ENDLESS: &str = "3600s";

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Leakprobe,
    Perf,
    Bpftrace,
}

impl Kind {
    /// Those that are installed here.
    pub(super) fn available() -> Vec<Self> {
        let all = [(Self::Leakprobe, None), (Self::Perf, Some("perf")), (Self::Bpftrace, Some("bpftrace"))];
        let is_here = |program: &Option<&str>| program.is_none_or(|program| find_program(program).is_some());
        all.into_iter().filter(|(_, program)| is_here(program)).map(|(kind, _)| kind).collect()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Leakprobe => "leakprobe",
            Self::Perf => "perf record -g",
            Self::Bpftrace => "bpftrace, by ustack",
        }
    }
}

/// A watcher at work.
pub(super) enum Watcher {
    Leakprobe(Probe),
    Perf(Perf),
    Bpftrace { process: Process, messages: Lines },
}

/// What a watcher cost, and what leakprobe reported.
pub(super) struct Bill {
    pub ended: Ended,
    /// From the end of its window to its own end: what the report takes.
    pub report_seconds: Option<f64>,
    pub report: Option<Value>,
}

impl Watcher {
    /// Starts it on a process and returns when it watches.
    pub(super) fn start(kind: Kind, leakprobe: &Path, pid: u32) -> Result<Self> {
        match kind {
            Kind::Leakprobe => {
                let mut command = Command::new(leakprobe);
                command.args(["--pid", &pid.to_string(), "--format", "json", "--duration", ENDLESS]);
                let mut probe = Probe::spawn(command)?;
                probe.wait_until_watching()?;
                Ok(Self::Leakprobe(probe))
            }
            Kind::Perf => Perf::start(pid).map(Self::Perf),
            Kind::Bpftrace => {
                start_bpftrace(&format!("tracepoint:{TRACEPOINT} /pid == {pid}/ {{ @[ustack] = count(); }}"))
            }
        }
    }

    /// The process id of leakprobe; none of the others, whose price is of no interest here.
    pub(super) fn leakprobe_pid(&self) -> Option<u32> {
        if let Self::Leakprobe(probe) = self { Some(probe.pid()) } else { None }
    }

    /// Ends it with ^C and waits until it is done.
    pub(super) fn stop(self) -> Result<Bill> {
        let ended = match self {
            Self::Leakprobe(mut probe) => {
                probe.interrupt()?;
                let outcome = probe.finish()?;
                let report = Some(outcome.report()?);
                return Ok(Bill { ended: outcome.ended, report_seconds: outcome.report_seconds, report });
            }
            Self::Perf(perf) => perf.stop()?,
            Self::Bpftrace { mut process, mut messages } => {
                process.signal(Signal::INT)?;
                let deadline = Deadline::usual();
                while messages.next("the end of bpftrace's messages", deadline)?.is_some() {}
                process.wait(deadline)?
            }
        };
        Ok(Bill { ended, report_seconds: None, report: None })
    }
}

/// perf, with its data in a folder that goes with it.
pub(super) struct Perf {
    process: Process,
    folder: PathBuf,
}

impl Perf {
    fn start(pid: u32) -> Result<Self> {
        let folder = places::target().join(format!("bench-perf-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let (orders, answers) = (folder.join("orders"), folder.join("answers"));
        for fifo in [&orders, &answers] {
            ask("mkfifo", &[&fifo.to_string_lossy()])
                .with_context(|| format!("make the fifo {}", fifo.display()))?;
        }
        let mut perf = Command::new("perf");
        perf.args(["record", "--quiet", "-g", "-e", TRACEPOINT, "--pid", &pid.to_string(), "--delay", "-1"]);
        perf.arg(format!("--control=fifo:{},{}", orders.display(), answers.display()));
        perf.arg("--output").arg(folder.join("perf.data"));
        perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(perf, "perf record")?;
        let perf = Self { process, folder };
        // Opened for both directions: neither open waits for perf, and neither end sees the other close.
        let open = |path| fs::File::options().read(true).write(true).open(path);
        let mut send = open(&orders).with_context(|| format!("open {}", orders.display()))?;
        let answers = open(&answers).with_context(|| format!("open {}", answers.display()))?;
        std::io::Write::write_all(&mut send, b"enable\n").context("tell perf to begin")?;
        let answer = Lines::new(answers).next("perf's answer that it records", Deadline::usual())?;
        // perf ends its answer with a zero byte on top of the line's end.
        let began = answer.as_deref().map(|line| line.trim_matches('\0')) == Some("ack");
        ensure!(began, "perf answered {answer:?} and not \"ack\" when told to begin");
        Ok(perf)
    }

    fn stop(mut self) -> Result<Ended> {
        self.process.signal(Signal::INT)?;
        self.process.wait(Deadline::usual())
    }
}

impl Drop for Perf {
    fn drop(&mut self) {
        // Hundreds of megabytes; an error here would hide the one that led here.
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// bpftrace with a script, once its probes are attached.
pub(super) fn start_bpftrace(script: &str) -> Result<Watcher> {
    const ATTACHED: &str = "__BPFTRACE_NOTIFY_PROBES_ATTACHED";
    let mut bpftrace = Command::new("bpftrace");
    bpftrace.args(["-e", script]).env(ATTACHED, "1");
    bpftrace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Process::spawn(bpftrace, "bpftrace")?;
    let mut messages = Lines::new(process.child.stderr.take().context("stderr is a pipe")?);
    while let Some(line) = messages.next("bpftrace's line that it is attached", Deadline::usual())? {
        if line.contains(ATTACHED) {
            return Ok(Watcher::Bpftrace { process, messages });
        }
    }
    anyhow::bail!("bpftrace ended before it was attached: run `bpftrace -e '{script}'` to see why")
}
