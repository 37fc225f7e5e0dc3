//! The command: arguments in, report out, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser as _};
use leakprobe::cli::{Command, CommandLine, Doctor};
use leakprobe::doctor;
use leakprobe::launch::LaunchError;
use leakprobe::report::checkup::Obstacle;
use leakprobe::target::TargetError;
use leakprobe::target::by_name::NameError;
use leakprobe::target::cgroup::ChoiceError;
use leakprobe::trace::AttachError;

use self::explain::NoSuchFinding;
use self::output::{NoOutput, NoSuchForm, Output, ensure_document_form};
use self::saved::NoInput;

mod explain;
mod observe;
mod output;
mod progress;
mod saved;

/// What an error means to a script.
const USAGE: u8 = 2;
const NO_SUCH_PROCESS: u8 = 3;
const NOT_PERMITTED: u8 = 4;
const KERNEL_LACKS: u8 = 5;
const INTERNAL: u8 = 6;
/// As shells say it of a command.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match dispatch(&line) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening on stderr either.
            let _ = writeln!(io::stderr(), "leakprobe: {error:#}");
            let code = exit_code(&error);
            if matches!(code, NOT_PERMITTED | KERNEL_LACKS) {
                say_what_may_be_in_the_way();
            }
            ExitCode::from(code)
        }
    }
}

fn say_what_may_be_in_the_way() {
    for cause in doctor::likely_causes() {
        let _ = writeln!(io::stderr(), "leakprobe: {cause}");
    }
    let _ = writeln!(io::stderr(), "leakprobe: `leakprobe doctor` says what is possible here");
}

fn dispatch(line: &CommandLine) -> Result<ExitCode> {
    match &line.command {
        None => return observe::look(&line.arguments),
        Some(Command::Run(arguments)) => return observe::run(arguments),
        Some(Command::Render(arguments)) => saved::render(arguments)?,
        Some(Command::Diff(arguments)) => saved::diff(arguments)?,
        Some(Command::Doctor(arguments)) => return examine(arguments),
        Some(Command::Explain(arguments)) => explain::explain(arguments)?,
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

/// Its code is the one that watching a process would have.
fn examine(arguments: &Doctor) -> Result<ExitCode> {
    ensure_document_form(&arguments.written, "a checkup")?;
    let output = Output::open(&arguments.written)?;
    let checkup = doctor::examine(arguments.pid)?;
    output.write_document(&checkup, &arguments.written)?;
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
        return match target {
            TargetError::NotPermitted { .. } => NOT_PERMITTED,
            TargetError::OtherPageSize { .. } => KERNEL_LACKS,
            _ => NO_SUCH_PROCESS,
        };
    }
    if let Some(LaunchError { error, .. }) = error.downcast_ref() {
        return if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    }
    match error.downcast_ref::<ChoiceError>() {
        Some(ChoiceError::NotUnique { .. }) => return USAGE,
        Some(_) => return NO_SUCH_PROCESS,
        None => {}
    }
    match error.downcast_ref::<NameError>() {
        Some(NameError::NoSuchName { .. }) => return NO_SUCH_PROCESS,
        Some(NameError::NotUnique { .. }) => return USAGE,
        None => {}
    }
    let is_usage = error.is::<NoOutput>()
        || error.is::<NoInput>()
        || error.is::<NoSuchForm>()
        || error.is::<NoSuchFinding>();
    if is_usage {
        return USAGE;
    }
    match error.downcast_ref::<AttachError>() {
        Some(refusal) if refusal.is_for_want_of_privilege() => NOT_PERMITTED,
        Some(_) => KERNEL_LACKS,
        None => INTERNAL,
    }
}
