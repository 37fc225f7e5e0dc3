//! The commands that look at a process: one that runs, or one that is started for it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result};
use leakprobe::claim::Gap;
use leakprobe::cli::{self, Arguments, Chosen};
use leakprobe::launch::{Launched, Stop};
use leakprobe::report::together::Together;
use leakprobe::report::{CgroupMemory, Report};
use leakprobe::target::by_name::pid_of;
use leakprobe::target::cgroup::{self, ChoiceError, Group, pss_bytes};
use leakprobe::watch::Progress;
use leakprobe::{Outcome, Request};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::output::{Output, ensure_document_form};
use crate::progress::{Line, log_to_stderr};

/// With --fail-on-growth.
const HAS_GROWN: u8 = 1;

/// The probes may tell of an execve a moment before the program is held behind it.
const HELD_WITHIN: Duration = Duration::from_secs(1);

/// `leakprobe PID`.
pub fn look(arguments: &Arguments) -> Result<ExitCode> {
    if let Err(error) = a_second_interrupt_exits() {
        let _ = writeln!(io::stderr(), "leakprobe: ^C will only end the window: {error}");
    }
    let Arguments { look, written, .. } = arguments;
    let pid = match arguments.chosen() {
        Chosen::Pid(pid) => pid,
        Chosen::Name(name) => pid_of(name)?,
        Chosen::Cgroup(path) => return look_at_all(&Group::at(path)?, arguments),
        Chosen::Container(id) => return look_at_all(&Group::of_container(id)?, arguments),
    };
    let output = Output::open(written)?;
    let request = request(pid, look, arguments.duration());
    let mut line = Line::for_a_process(look);
    let runtime = runtime(look)?;
    let outcome =
        runtime.block_on(leakprobe::run(&request, None, &mut |progress: Progress| line.show(progress)));
    line.clear();
    let outcome = outcome.inspect_err(|_| output.remove_if_empty())?;
    output.write(&outcome.report, written)?;
    Ok(if has_grown(&outcome.report, look) { ExitCode::from(HAS_GROWN) } else { ExitCode::SUCCESS })
}

/// `leakprobe --cgroup PATH`, `--container ID`: one snapshot after the other.
fn look_at_all(group: &Group, arguments: &Arguments) -> Result<ExitCode> {
    let Arguments { look, written, .. } = arguments;
    ensure_document_form(written, "a look at all processes of a cgroup")?;
    let output = Output::open(written)?;
    let runtime = runtime(look)?;
    let (mut reports, mut gaps, mut refusal) = (Vec::new(), Vec::new(), None);
    for pid in group.pids() {
        let request = request(pid, look, Duration::ZERO);
        match runtime.block_on(leakprobe::run(&request, None, &mut |_| {})) {
            Ok(outcome) => reports.push((outcome.report, pss_bytes(pid))),
            Err(error) => {
                gaps.push(Gap { what: format!("process {pid}"), why: format!("{error:#}"), bytes: None });
                refusal.get_or_insert(error);
            }
        }
    }
    if reports.is_empty() {
        output.remove_if_empty();
        let path = || group.cgroup.path.clone();
        return Err(refusal.unwrap_or_else(|| ChoiceError::Empty { path: path() }.into()));
    }
    let memory = cgroup::memory(&group.cgroup, 0).map(|memory| CgroupMemory { others: None, ..memory });
    let tool = reports[0].0.tool.clone();
    let together = Together::of(tool, group.cgroup.path.clone(), memory, reports, gaps);
    output.write_document(&together, written)?;
    Ok(ExitCode::SUCCESS)
}

/// `leakprobe run -- COMMAND`.
pub fn run(arguments: &cli::Run) -> Result<ExitCode> {
    let cli::Run { look, written, command } = arguments;
    let output = Output::open_beside_a_program(written)?;
    let runtime = runtime(look)?;
    let mut launched = Launched::start(command).inspect_err(|_| output.remove_if_empty())?;
    launched.pass_signals_on().context("pass signals on")?;
    let request = request(launched.pid(), look, arguments.duration());
    let outcome = runtime.block_on(watch_program(&request, &mut launched, &mut Line::for_a_program(look)));
    let written = outcome.and_then(|outcome| {
        // Whoever waits for its end waits no longer for the report.
        launched.resume();
        let grew = has_grown(&outcome.report, look);
        output.write(&outcome.report, written).map(|()| grew)
    });
    if written.is_err() && launched.held() == Some(Stop::Exec) {
        // It cannot be watched, and has not begun.
        launched.kill();
    }
    let code = launched.wait();
    match written? {
        true if code == 0 => Ok(ExitCode::from(HAS_GROWN)),
        _ => Ok(ExitCode::from(code)),
    }
}

/// Watches it until it ends, and after an execve what it has become.
async fn watch_program(request: &Request, launched: &mut Launched, line: &mut Line) -> Result<Outcome> {
    loop {
        let outcome = leakprobe::run(request, Some(launched), &mut |progress| line.show(progress)).await?;
        let has_become_another = outcome.report.target.ended.as_deref() == Some("exec")
            && timeout(HELD_WITHIN, launched.stopped()).await == Ok(Stop::Exec);
        if !has_become_another {
            return Ok(outcome);
        }
    }
}

fn request(pid: i32, look: &cli::Look, duration: Duration) -> Request {
    Request {
        pid,
        backend: look.backend.map(Into::into),
        duration,
        stack_rate: look.stack_rate,
        verbose: look.verbose,
        arguments: std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
    }
}

fn runtime(look: &cli::Look) -> Result<Runtime> {
    if look.verbose {
        log_to_stderr();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")
}

fn has_grown(report: &Report, look: &cli::Look) -> bool {
    look.fail_on_growth.is_some_and(|least_bytes| report.has_grown_by(least_bytes))
}

/// The first ^C ends the window; the second one ends leakprobe, whatever it is busy with.
fn a_second_interrupt_exits() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let interrupted = Arc::new(AtomicBool::new(false));
        // In this order: the first signal finds the flag still down.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupted))?;
        flag::register(signal, interrupted)?;
    }
    Ok(())
}
