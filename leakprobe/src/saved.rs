//! The commands that work on saved reports and look at no process.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Result;
use leakprobe::cli::{Diff, Render};
use leakprobe::report::Report;
use leakprobe::report::comparison::compare;
use leakprobe::report::saved::{MAX_FILE_BYTES, Unreadable};

use crate::output::{Output, ensure_document_form};

/// A file that was given to be read, and cannot be.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the report {path}: {why}")]
pub struct NoInput {
    path: String,
    why: String,
}

/// `leakprobe render`.
pub fn render(arguments: &Render) -> Result<()> {
    let report = read(&arguments.report)?;
    Output::open(&arguments.written)?.write(&report, &arguments.written)
}

/// `leakprobe diff`.
pub fn diff(arguments: &Diff) -> Result<()> {
    ensure_document_form(&arguments.written, "a comparison")?;
    let comparison = compare(&read(&arguments.before)?, &read(&arguments.after)?);
    Output::open(&arguments.written)?.write_document(&comparison, &arguments.written)
}

fn read(path: &Path) -> Result<Report, NoInput> {
    let fail = |why: String| NoInput { path: path.display().to_string(), why };
    let json = contents(path).map_err(|error| fail(error.to_string()))?;
    Report::from_json(&json).map_err(|error: Unreadable| fail(error.to_string()))
}

/// At most one byte more than a report may have.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut json = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut json)?;
    } else {
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut json)?;
    }
    Ok(json)
}
