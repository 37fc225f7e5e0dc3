//! The command: arguments in, report out, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use leakprobe::cli::{Arguments, Chosen, Command, CommandLine, Doctor, OutputFormat};
use leakprobe::report::checkup::Obstacle;
use leakprobe::target::TargetError;
use leakprobe::target::by_name::{NameError, pid_of};
use leakprobe::trace::AttachError;
use leakprobe::watch::Progress;
use leakprobe::{Request, doctor, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::output::{NoOutput, Output};
use self::saved::{NoInput, NoSuchForm};

mod output;
mod progress;
mod saved;

/// With --fail-on-growth.
const HAS_GROWN: u8 = 1;

/// What an error means to a script.
const USAGE: u8 = 2;
const NO_SUCH_PROCESS: u8 = 3;
const NOT_PERMITTED: u8 = 4;
const KERNEL_LACKS: u8 = 5;
const INTERNAL: u8 = 6;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match dispatch(&line) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening on stderr either.
            let _ = writeln!(io::stderr(), "leakprobe: {error:#}");
            let code = exit_code(&error);
            if code == NOT_PERMITTED {
                say_why_not_permitted();
            }
            ExitCode::from(code)
        }
    }
}

fn say_why_not_permitted() {
    for cause in doctor::likely_causes() {
        let _ = writeln!(io::stderr(), "leakprobe: {cause}");
    }
    let _ = writeln!(io::stderr(), "leakprobe: `leakprobe doctor` says what is possible here");
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

fn dispatch(line: &CommandLine) -> Result<ExitCode> {
    match &line.command {
        None => return look_and_report(&line.arguments),
        Some(Command::Render(arguments)) => saved::render(arguments)?,
        Some(Command::Diff(arguments)) => saved::diff(arguments)?,
        Some(Command::Doctor(arguments)) => return examine(arguments),
        Some(Command::Completions(arguments)) => {
            clap_complete::generate(
                arguments.shell,
                &mut CommandLine::command(),
                "leakprobe",
                &mut io::stdout(),
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn look_and_report(arguments: &Arguments) -> Result<ExitCode> {
    if let Err(error) = a_second_interrupt_exits() {
        let _ = writeln!(io::stderr(), "leakprobe: ^C will only end the window: {error}");
    }
    let look = &arguments.look;
    if look.verbose {
        progress::log_to_stderr();
    }
    let output = Output::open(&arguments.written)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let pid = match arguments.chosen() {
        Chosen::Pid(pid) => pid,
        Chosen::Name(name) => pid_of(name)?,
    };
    let request = Request {
        pid,
        backend: look.backend.map(Into::into),
        duration: arguments.duration(),
        stack_rate: look.stack_rate,
        verbose: look.verbose,
        arguments: std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
    };
    let mut shown = progress::Line::new(look.quiet, look.watch);
    let outcome = runtime.block_on(run(&request, &mut |progress: Progress| shown.show(progress)));
    shown.clear();
    let outcome = outcome.inspect_err(|_| output.remove_if_empty())?;
    let report = &outcome.report;
    output.write(report, &arguments.written)?;
    let has_grown = look.fail_on_growth.is_some_and(|least_bytes| report.has_grown_by(least_bytes));
    Ok(if has_grown { ExitCode::from(HAS_GROWN) } else { ExitCode::SUCCESS })
}

/// Its code is the one that watching a process would have.
fn examine(arguments: &Doctor) -> Result<ExitCode> {
    if !matches!(arguments.written.format(), OutputFormat::Text | OutputFormat::Json) {
        return Err(NoSuchForm("a checkup").into());
    }
    let output = Output::open(&arguments.written)?;
    let checkup = doctor::examine(arguments.pid)?;
    output.write_checkup(&checkup, &arguments.written)?;
    Ok(match checkup.obstacle {
        None => ExitCode::SUCCESS,
        Some(Obstacle::NotPermitted) => ExitCode::from(NOT_PERMITTED),
        Some(Obstacle::KernelLacks) => ExitCode::from(KERNEL_LACKS),
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(target) = error.downcast_ref::<TargetError>() {
        return if matches!(target, TargetError::NotPermitted { .. }) {
            NOT_PERMITTED
        } else {
            NO_SUCH_PROCESS
        };
    }
    match error.downcast_ref::<NameError>() {
        Some(NameError::NoSuchName { .. }) => return NO_SUCH_PROCESS,
        Some(NameError::NotUnique { .. }) => return USAGE,
        None => {}
    }
    if error.is::<NoOutput>() || error.is::<NoInput>() || error.is::<NoSuchForm>() {
        return USAGE;
    }
    match error.downcast_ref::<AttachError>() {
        Some(refusal) if refusal.is_for_want_of_privilege() => NOT_PERMITTED,
        Some(_) => KERNEL_LACKS,
        None => INTERNAL,
    }
}
