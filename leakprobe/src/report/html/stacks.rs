//! Tables of stacks: who makes it grow, what the Go heap holds, what goroutines do.

use std::io::{self, Write};

use super::markup::Text;
use crate::report::stacks::name;
use crate::report::text::frames::in_short;
use crate::report::text::goroutines::doing;
use crate::report::text::units::{change_cell, count, size_cell};
use crate::report::{Frame, GOROUTINES, HEAP_PROFILE, Report};

/// Rows of a table; JSON has all of them.
const ROWS_MAX: usize = 60;
/// Frames of a stack.
const FRAMES_MAX: usize = 100;

/// A table of stacks.
struct Table<'a> {
    id: &'a str,
    title: &'a str,
    /// What stands before the stack.
    columns: &'a [&'a str],
    rows: Vec<Row<'a>>,
    left_out: usize,
}

struct Row<'a> {
    cells: Vec<String>,
    /// What it is about, in words.
    about: String,
    frames: &'a [Frame],
}

/// Writes the call sites of the window, where there are any.
pub fn call_sites(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.call_sites.iter().take(ROWS_MAX).map(|site| Row {
        cells: vec![size_cell(site.bytes), site.component.label().to_owned()],
        about: about(&site.frames, &site.source, site.note.as_deref()),
        frames: &site.frames,
    });
    let table = Table {
        id: "growth",
        title: "Who makes it grow",
        columns: &["Bytes", "Owner"],
        rows: rows.collect(),
        left_out: report.call_sites.len().saturating_sub(ROWS_MAX),
    };
    table.write(out)
}

/// Writes what Go's heap profile shows, where there is one.
pub fn held_sites(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let sites = &report.heap_profile.sites;
    let rows = sites.iter().take(ROWS_MAX).map(|site| Row {
        cells: vec![
            size_cell(site.bytes),
            count(site.objects),
            site.growth.map(|growth| change_cell(Some(growth))).unwrap_or_default(),
        ],
        about: about(&site.frames, HEAP_PROFILE, site.note.as_deref()),
        frames: &site.frames,
    });
    let table = Table {
        id: "heap",
        title: "What the Go heap holds",
        columns: &["Bytes", "Objects", "Growth"],
        rows: rows.collect(),
        left_out: sites.len().saturating_sub(ROWS_MAX),
    };
    table.write(out)
}

/// Writes the groups of goroutines, where there are any.
pub fn goroutines(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.goroutines.iter().take(ROWS_MAX).map(|group| Row {
        cells: vec![
            count(group.count),
            doing(group),
            size_cell(group.stack_bytes),
            group.created_by.as_ref().map(name).unwrap_or_default(),
        ],
        about: about(&group.frames, GOROUTINES, None),
        frames: &group.frames,
    });
    let table = Table {
        id: "goroutines",
        title: "Goroutines",
        columns: &["Count", "State", "Stacks", "Started by"],
        rows: rows.collect(),
        left_out: report.goroutines.len().saturating_sub(ROWS_MAX),
    };
    table.write(out)
}

/// "go statement in net/http.(*Transport).dialConn", or why there is nothing to say.
fn about(frames: &[Frame], source: &str, note: Option<&str>) -> String {
    match (in_short(frames, source, name), note) {
        (Some(told), Some(note)) => format!("{told} ({note})"),
        (Some(told), None) => told,
        (None, note) => note.unwrap_or("no stack").to_owned(),
    }
}

impl Table<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let Self { id, title, .. } = self;
        writeln!(out, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>")?;
        writeln!(
            out,
            "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-labelledby=\"{id}\">\n<table>\n<thead><tr>"
        )?;
        for column in self.columns {
            write!(out, "<th scope=\"col\">{column}</th>")?;
        }
        writeln!(out, "<th scope=\"col\">Stack</th></tr></thead>\n<tbody>")?;
        for row in &self.rows {
            row.write(out)?;
        }
        writeln!(out, "</tbody>\n</table>\n</div>")?;
        if self.left_out > 0 {
            writeln!(out, "<p class=\"quiet\">{} more: the JSON report lists them.</p>", self.left_out)?;
        }
        writeln!(out, "</section>")
    }
}

impl Row<'_> {
    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "<tr>")?;
        for cell in &self.cells {
            write!(out, "<td>{}</td>", Text(cell))?;
        }
        if self.frames.is_empty() {
            return writeln!(out, "<td>{}</td></tr>", Text(&self.about));
        }
        writeln!(out, "<td><details><summary>{}</summary>\n<ol>", Text(&self.about))?;
        for frame in self.frames.iter().take(FRAMES_MAX) {
            writeln!(out, "<li><code>{}</code>{}</li>", Text(&name(frame)), place(frame))?;
        }
        writeln!(out, "</ol></details></td></tr>")
    }
}

fn place(frame: &Frame) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!(" <span class=\"quiet\">{}:{line}</span>", Text(file)),
        (Some(file), None) => format!(" <span class=\"quiet\">{}</span>", Text(file)),
        (None, _) => String::new(),
    }
}
