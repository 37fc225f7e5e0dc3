//! Where a report goes: the terminal, a pipe or a file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use leakprobe::cli::{ColorChoice, OutputFormat, Written};
use leakprobe::report::{self, Format, Report, Style};

/// The report has nowhere to go.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the report to {path}: {error}; give --output a path that can be written")]
pub struct NoOutput {
    path: String,
    error: io::Error,
}

/// The place of a report.
pub enum Output {
    /// Standard output.
    Stdout,
    /// What --output names, open.
    File { file: File, path: PathBuf },
}

impl Output {
    /// Opened before the work is done: to learn afterwards that the report has nowhere to go would be a pity.
    pub fn open(written: &Written) -> Result<Self, NoOutput> {
        let Some(path) = &written.output else { return Ok(Self::Stdout) };
        let options = OpenOptions::new().write(true).create(true).truncate(false).clone();
        match options.open(path) {
            Ok(file) => Ok(Self::File { file, path: path.clone() }),
            Err(error) => Err(NoOutput { path: path.display().to_string(), error }),
        }
    }

    /// Writes the report as it was asked for.
    pub fn write(self, report: &Report, written: &Written) -> Result<()> {
        let style = self.style(written);
        let format = match written.format() {
            OutputFormat::Text => Format::Text,
            OutputFormat::Json => Format::Json,
        };
        match self {
            Self::Stdout => {
                let mut out = BufWriter::new(io::stdout().lock());
                let done = report::write(report, format, &style, &mut out).and_then(|()| out.flush());
                done.context("write the report to standard output")
            }
            Self::File { file, path } => {
                let emptied = file.set_len(0).or_else(|error| not_a_file(&file, error));
                emptied.with_context(|| format!("empty {}", path.display()))?;
                let mut out = BufWriter::new(file);
                let done = report::write(report, format, &style, &mut out).and_then(|()| out.flush());
                done.with_context(|| format!("write {}", path.display()))
            }
        }
    }

    /// A run that failed leaves no report, so not an empty one either.
    pub fn remove_if_empty(&self) {
        let is_empty_file = |file: &File| file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        if let Self::File { file, path } = self
            && is_empty_file(file)
        {
            let _ = std::fs::remove_file(path);
        }
    }

    fn style(&self, written: &Written) -> Style {
        let to_terminal = matches!(self, Self::Stdout) && io::stdout().is_terminal();
        Style {
            width_columns: if to_terminal { terminal_columns() } else { 80 },
            color: match written.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => to_terminal && !no_color(),
            },
            full_stacks: written.full_stacks,
        }
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
