//! The forms that a finished report and the other documents have, and which writer makes each.

use std::io::{self, Write};

use serde::Serialize;

use super::checkup::Checkup;
use super::comparison::Comparison;
use super::stacks::Measure;
use super::together::Together;
use super::{Report, flame_graph, folded, html, json, pprof, prometheus, text};

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, on a terminal.
    Text,
    /// For programs, schema [`SCHEMA`](super::SCHEMA).
    Json,
    /// For `go tool pprof`: what is held and what grew.
    Pprof,
    /// Folded stacks, for flame graph tools.
    Folded(Measure),
    /// A flame graph.
    Svg(Measure),
    /// One page for a browser, which loads nothing.
    Html,
    /// For Prometheus, by node exporter's textfile collector.
    Prometheus,
}

/// How text is laid out. There is no default: only the caller knows where the text goes.
#[derive(Clone, Debug)]
pub struct Style {
    /// Columns of the terminal; 80 where there is none. Less than 72 is laid out as 72.
    pub width_columns: usize,
    /// Whether to colour; the text is the same without.
    pub color: bool,
    /// Every frame of the call sites, in place of a summary of each.
    pub full_stacks: bool,
    /// Owners, call sites and groups of goroutines shown at most; `None` for all owners and so many of the others as
    /// are worth reading.
    pub top: Option<usize>,
}

/// Writes the report. The style matters to [`Format::Text`] only; [`Format::Pprof`] is not text.
pub fn write(report: &Report, format: Format, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => text::write(report, style, out),
        Format::Json => json::write(report, out),
        Format::Pprof => pprof::write(report, out),
        Format::Folded(measure) => folded::write(report, measure, out),
        Format::Svg(measure) => flame_graph::write(report, measure, out),
        Format::Html => html::write(report, out),
        Format::Prometheus => prometheus::write(report, out),
    }
}

/// What is written in two forms only: as JSON and for people.
pub trait Document: Serialize {
    /// Writes it for people.
    ///
    /// # Errors
    /// Where `out` cannot be written.
    fn write_text(&self, style: &Style, out: &mut dyn Write) -> io::Result<()>;
}

impl Document for Comparison {
    fn write_text(&self, style: &Style, out: &mut dyn Write) -> io::Result<()> {
        text::comparison::write(self, style, out)
    }
}

impl Document for Checkup {
    fn write_text(&self, style: &Style, out: &mut dyn Write) -> io::Result<()> {
        text::checkup::write(self, style, out)
    }
}

impl Document for Together {
    fn write_text(&self, style: &Style, out: &mut dyn Write) -> io::Result<()> {
        text::together::write(self, style, out)
    }
}

/// Writes a document: as JSON, or else as text.
///
/// # Errors
/// Where `out` cannot be written.
pub fn write_document(
    document: &impl Document,
    format: Format,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Json => json::write(document, out),
        _ => document.write_text(style, out),
    }
}
