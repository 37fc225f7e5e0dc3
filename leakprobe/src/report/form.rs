//! The forms a finished report, a comparison and a checkup have, and which writer makes each.

use std::io::{self, Write};

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

/// Writes a comparison: as JSON, or else as text.
pub fn write_comparison(
    comparison: &Comparison,
    format: Format,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Json => json::write(comparison, out),
        _ => text::comparison::write(comparison, style, out),
    }
}

/// Writes a checkup: as JSON, or for people.
///
/// # Errors
/// Where `out` cannot be written.
pub fn write_checkup(
    checkup: &Checkup,
    format: Format,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Json => json::write(checkup, out),
        _ => text::checkup::write(checkup, style, out),
    }
}

/// Writes the processes of a cgroup likewise.
pub fn write_together(
    together: &Together,
    format: Format,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        Format::Json => json::write(together, out),
        _ => text::together::write(together, style, out),
    }
}
