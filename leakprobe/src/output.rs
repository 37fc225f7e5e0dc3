//! Where a report goes: the terminal, a pipe or a file.
//!
//! The surprise: a file for Prometheus is written beside its place and then moved there, since node exporter may read
//! at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use leakprobe::cli::{ColorChoice, OutputFormat, StacksOf, Written};
use leakprobe::report::{self, Document, Format, Measure, Report, Style};

/// The report has nowhere to go.
#[derive(Debug, thiserror::Error)]
pub enum NoOutput {
    /// What --output names cannot be written.
    #[error("cannot write the report to {path}: {error}; give --output a path that can be written")]
    Unwritable {
        /// As typed.
        path: String,
        /// Why not.
        error: io::Error,
    },
    /// A terminal cannot show it.
    #[error("a terminal cannot show a pprof profile: give --output FILE, then run go tool pprof FILE")]
    NotForTerminals,
}

/// A form that this has not.
#[derive(Debug, thiserror::Error)]
#[error("{0} is written as text or json: give --format one of them")]
pub struct NoSuchForm(&'static str);

/// An error where `what` was asked for in a form that only a report has.
pub fn ensure_document_form(written: &Written, what: &'static str) -> Result<(), NoSuchForm> {
    match written.format() {
        OutputFormat::Text | OutputFormat::Json => Ok(()),
        _ => Err(NoSuchForm(what)),
    }
}

/// The place of a report.
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error, where the output is that of a program that was run.
    Stderr,
    /// What --output names, open.
    File {
        /// Written in place.
        file: File,
        /// Its name.
        path: PathBuf,
    },
    /// What --output names will be replaced.
    Replaced {
        /// In the same folder, under another name.
        beside: File,
        /// Its name, which no collector takes for a file of metrics.
        name: PathBuf,
        /// The name it gets.
        path: PathBuf,
    },
}

impl Output {
    /// Opened before the work is done: to learn afterwards that the report has nowhere to go would be a pity.
    pub fn open(written: &Written) -> Result<Self, NoOutput> {
        let Some(path) = &written.output else {
            let is_refused = written.format() == OutputFormat::Pprof && io::stdout().is_terminal();
            return if is_refused { Err(NoOutput::NotForTerminals) } else { Ok(Self::Stdout) };
        };
        let opened = match written.format() {
            OutputFormat::Prometheus if is_replaceable(path) => Self::beside(path),
            _ => Self::in_place(path),
        };
        opened.map_err(|error| NoOutput::Unwritable { path: path.display().to_string(), error })
    }

    /// The same where standard output is a program's.
    pub fn open_beside_a_program(written: &Written) -> Result<Self, NoOutput> {
        match (&written.output, written.format()) {
            (Some(_), _) => Self::open(written),
            (None, OutputFormat::Pprof) if io::stderr().is_terminal() => Err(NoOutput::NotForTerminals),
            (None, _) => Ok(Self::Stderr),
        }
    }

    fn in_place(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        Ok(Self::File { file, path: path.to_owned() })
    }

    fn beside(path: &Path) -> io::Result<Self> {
        // Through a symbolic link the file is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let file_name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let name = path.with_file_name(format!(".{file_name}.{}.tmp", std::process::id()));
        let create = || OpenOptions::new().write(true).create_new(true).open(&name);
        // In a container the next run may have the number of one that was killed.
        let beside = create().or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => fs::remove_file(&name).and_then(|()| create()),
            _ => Err(error),
        })?;
        Ok(Self::Replaced { beside, name, path })
    }

    /// Writes the report as it was asked for.
    pub fn write(self, report: &Report, written: &Written) -> Result<()> {
        let style = self.style(written);
        let format = format(report, written);
        self.put(|out| report::write(report, format, &style, out))
    }

    /// Writes a comparison, a checkup or the processes of a cgroup likewise.
    pub fn write_document(self, document: &impl Document, written: &Written) -> Result<()> {
        let style = self.style(written);
        let format = if written.format() == OutputFormat::Json { Format::Json } else { Format::Text };
        self.put(|out| report::write_document(document, format, &style, out))
    }

    fn put(self, write: impl Fn(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let put = |out: &mut dyn Write| write(out).and_then(|()| out.flush());
        match self {
            Self::Stdout => {
                put(&mut BufWriter::new(io::stdout().lock())).context("write the report to standard output")
            }
            Self::Stderr => {
                put(&mut BufWriter::new(io::stderr().lock())).context("write the report to standard error")
            }
            Self::File { file, path } => {
                let emptied = file.set_len(0).or_else(|error| not_a_file(&file, error));
                emptied.with_context(|| format!("empty {}", path.display()))?;
                put(&mut BufWriter::new(file)).with_context(|| format!("write {}", path.display()))
            }
            Self::Replaced { beside, name, path } => {
                let done = put(&mut BufWriter::new(&beside)).and_then(|()| beside.sync_all());
                let done = done.and_then(|()| fs::rename(&name, &path));
                done.inspect_err(|_| drop(fs::remove_file(&name)))
                    .with_context(|| format!("write {}", path.display()))
            }
        }
    }

    /// A run that failed leaves no report, so not an empty one either.
    pub fn remove_if_empty(&self) {
        let is_empty_file = |file: &File| file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        let (file, path) = match self {
            Self::Stdout | Self::Stderr => return,
            Self::File { file, path } => (file, path),
            Self::Replaced { beside, name, .. } => (beside, name),
        };
        if is_empty_file(file) {
            let _ = fs::remove_file(path);
        }
    }

    fn style(&self, written: &Written) -> Style {
        let columns = match self {
            Self::Stdout => terminal_columns(io::stdout()),
            Self::Stderr => terminal_columns(io::stderr()),
            Self::File { .. } | Self::Replaced { .. } => None,
        };
        Style {
            width_columns: columns.unwrap_or(80),
            color: match written.color {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => columns.is_some() && !no_color(),
            },
            full_stacks: written.full_stacks,
            top: written.top.map(usize::from),
        }
    }
}

fn format(report: &Report, written: &Written) -> Format {
    let measure = match written.stacks_of {
        Some(StacksOf::Held) => Measure::Held,
        Some(StacksOf::Growth) => Measure::Growth,
        None => Measure::usual(report),
    };
    match written.format() {
        OutputFormat::Text => Format::Text,
        OutputFormat::Json => Format::Json,
        OutputFormat::Pprof => Format::Pprof,
        OutputFormat::Folded => Format::Folded(measure),
        OutputFormat::Svg => Format::Svg(measure),
        OutputFormat::Html => Format::Html,
        OutputFormat::Prometheus => Format::Prometheus,
    }
}

/// A file, or nothing yet; pipes and devices are written to.
fn is_replaceable(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |meta| meta.is_file())
}

/// Pipes and devices cannot be emptied, and need not be.
fn not_a_file(file: &File, error: io::Error) -> io::Result<()> {
    if file.metadata()?.is_file() { Err(error) } else { Ok(()) }
}

/// NO_COLOR says no, whatever its value but the empty one.
fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// `None` where it is no terminal.
fn terminal_columns(stream: impl AsFd + IsTerminal) -> Option<usize> {
    let size = stream.is_terminal().then(|| rustix::termios::tcgetwinsize(stream));
    let columns = size?.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    Some(columns.unwrap_or(80))
}
