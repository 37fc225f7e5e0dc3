//! A flame graph as one SVG file, by inferno: wider is more bytes, the owner is at the bottom.
//!
//! Who opens it in a browser can zoom and search; it loads nothing.

use std::io::{self, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{Options, from_lines};

use super::Report;
use super::escape::printable;
use super::folded::lines;
use super::stacks::Measure;

/// Narrower than this share of the whole, in percent, a step could not be hit with a mouse.
const NARROWEST_PERCENT: f64 = 0.05;

/// Writes the picture.
pub fn write(report: &Report, measure: Measure, out: &mut dyn Write) -> io::Result<()> {
    let lines: Vec<String> = lines(report, measure).collect();
    let process = format!("{} (pid {})", printable(&report.target.comm), report.target.pid);
    let mut options = Options::default();
    options.title = match measure {
        Measure::Held => format!("What {process} holds"),
        Measure::Growth => format!("What grew in {process} in {:.0} s", report.window.seconds),
    };
    options.count_name = "bytes".to_owned();
    options.name_type = "Step:".to_owned();
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.hash = true;
    options.deterministic = true;
    options.min_width = NARROWEST_PERCENT;
    // Without any stack inferno would fail, and a picture of nothing is an answer too.
    let nothing = ["(nothing) 1".to_owned()];
    let lines = if lines.is_empty() { nothing.as_slice() } else { &lines };
    from_lines(&mut options, lines.iter().map(String::as_str), out)
}
