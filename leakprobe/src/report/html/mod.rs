//! The report as one page that loads nothing: the answer, the ledger, findings, the timeline, call
//! sites, flame graphs, goroutines.
//!
//! Every name goes through [`markup::Text`]; the page's own policy forbids whatever would get past it: it allows one
//! script, by its hash, and no network. The surprise: the flame graphs are nested lists, which a screen reader and a
//! keyboard go through as they go through any tree; without the script they are still drawn.

mod findings;
mod flames;
mod ledger;
mod markup;
mod stacks;
mod timeline;

use std::io::{self, Write};

use self::markup::Text;
use super::stacks::Measure;
use super::{Report, text};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// SHA-256 of the script, as a policy names it.
pub const SCRIPT_HASH: &str = "sha256-VVIxm5yhu5pQTUSJ9K0YLjIgcgz57YnSduCE0gHLpq0=";

/// Writes the page.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let process = format!("{} (pid {})", report.target.comm, report.target.pid);
    let process = Text(&process);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src '{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Memory of {process}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    )?;
    write!(out, "<header>\n<h1>Memory of {process}</h1>\n<div class=\"answer\">\n")?;
    for line in text::answer(report) {
        writeln!(out, "<p>{}</p>", Text(&line))?;
    }
    writeln!(out, "</div>\n</header>\n<main>")?;
    ledger::write(report, out)?;
    findings::write(report, out)?;
    timeline::write(report, out)?;
    stacks::call_sites(report, out)?;
    flames::write(report, Measure::Growth, out)?;
    stacks::held_sites(report, out)?;
    flames::write(report, Measure::Held, out)?;
    stacks::goroutines(report, out)?;
    writeln!(out, "</main>\n<footer>\n<h2>What this rests on</h2>")?;
    for line in text::footing(report) {
        writeln!(out, "<p>{}</p>", Text(line.trim()))?;
    }
    writeln!(out, "<p>Watched from {}.</p>\n</footer>", Text(&report.window.started_at))?;
    writeln!(out, "<script>{SCRIPT}</script>\n</body>\n</html>")
}
