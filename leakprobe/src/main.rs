//! The command: arguments in, report out, exit code.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use leakprobe::cli::{Arguments, ColorChoice, OutputFormat};
use leakprobe::report::{self, Format, Report, Style};
use leakprobe::target::TargetError;
use leakprobe::trace::AttachError;
use leakprobe::watch::Progress;
use leakprobe::{Request, run};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

mod progress;

/// What an error means to a script.
const USAGE: u8 = 2;
const NO_SUCH_PROCESS: u8 = 3;
const NOT_PERMITTED: u8 = 4;
const KERNEL_LACKS: u8 = 5;
const INTERNAL: u8 = 6;

/// The report has nowhere to go.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report to {path}: {error}; give --output a path that can be written")]
struct NoOutput {
    path: String,
    error: io::Error,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = a_second_interrupt_exits() {
        let _ = writeln!(io::stderr(), "leakprobe: ^C will only end the window: {error}");
    }
    if arguments.verbose {
        progress::log_to_stderr();
    }
    match look_and_report(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be listening on stderr either.
            let _ = writeln!(io::stderr(), "leakprobe: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
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

fn look_and_report(arguments: &Arguments) -> Result<()> {
    // Opened first: to learn after the window that the report has nowhere to go would be a pity.
    let output = arguments.output.as_ref().map(|path| {
        let options = OpenOptions::new().write(true).create(true).truncate(false).clone();
        options.open(path).map_err(|error| NoOutput { path: path.display().to_string(), error })
    });
    let output = output.transpose()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let request = Request {
        pid: arguments.pid(),
        duration: arguments.duration,
        verbose: arguments.verbose,
        arguments: std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect(),
    };
    let mut shown = progress::Line::new(arguments.quiet);
    let outcome = runtime.block_on(run(&request, &mut |progress: Progress| shown.show(progress)));
    shown.clear();
    let outcome = outcome.inspect_err(|_| remove_if_empty(arguments, output.as_ref()))?;
    write_report(arguments, &outcome.report, output)
}

fn write_report(arguments: &Arguments, report: &Report, output: Option<File>) -> Result<()> {
    let to_terminal = output.is_none() && io::stdout().is_terminal();
    let style = Style {
        width_columns: if to_terminal { terminal_columns() } else { 80 },
        color: match arguments.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => to_terminal && !no_color(),
        },
        full_stacks: arguments.full_stacks,
    };
    let format = match arguments.format() {
        OutputFormat::Text => Format::Text,
        OutputFormat::Json => Format::Json,
    };
    let Some(file) = output else {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = report::write(report, format, &style, &mut out).and_then(|()| out.flush());
        return written.context("write the report to standard output");
    };
    let path = arguments.output.as_deref().unwrap_or("the report".as_ref()).display();
    file.set_len(0).or_else(|error| not_a_file(&file, error)).with_context(|| format!("empty {path}"))?;
    let mut out = BufWriter::new(file);
    report::write(report, format, &style, &mut out)
        .and_then(|()| out.flush())
        .with_context(|| format!("write {path}"))
}

/// A run that failed leaves no report, so not an empty one either.
fn remove_if_empty(arguments: &Arguments, output: Option<&File>) {
    let is_empty_file = |file: &File| file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
    if let (Some(path), true) = (&arguments.output, output.is_some_and(is_empty_file)) {
        let _ = std::fs::remove_file(path);
    }
}

/// Pipes and devices cannot be emptied, and need not be.
fn not_a_file(file: &File, error: io::Error) -> io::Result<()> {
    if file.metadata()?.is_file() { Err(error) } else { Ok(()) }
}

/// NO_COLOR says no, whatever its value but the empty one.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn terminal_columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(80)
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
    if error.is::<NoOutput>() {
        return USAGE;
    }
    match error.downcast_ref::<AttachError>() {
        Some(AttachError::NotPermitted { .. }) => NOT_PERMITTED,
        Some(AttachError::NoTracefs { error }) if error.kind() == io::ErrorKind::PermissionDenied => {
            NOT_PERMITTED
        }
        Some(_) => KERNEL_LACKS,
        None => INTERNAL,
    }
}
