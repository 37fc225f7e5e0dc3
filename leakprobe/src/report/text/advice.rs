//! What to do: the findings' remedies, each with what speaks for it.
//!
//! It refuses to invent advice where no rule fits. The surprise: what the headline has told is not repeated
//! here.

use std::io;

use super::headline;
use super::layout::{Page, Paint};
use crate::report::{Confidence, Finding, Report};

/// Writes the section; nothing without findings.
pub fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    if report.findings.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.prose(Paint::Bold, "", "WHAT TO DO")?;
    for finding in &report.findings {
        let text = match headline::tells(report, finding) {
            true => finding.remedy.clone(),
            false => format!("{} {}", finding.summary, finding.remedy),
        };
        page.prose(Paint::Plain, " ", &text)?;
        page.prose(Paint::Dim, "   ", &grounds(finding))?;
        page.prose(Paint::Dim, "   ", &format!("leakprobe explain {}", finding.id))?;
    }
    Ok(())
}

/// "Likely. Seen: 96 % of the growth in 60 s; its malloc is glibc 2.36 (golang/go#53440)".
fn grounds(finding: &Finding) -> String {
    let mut text = match finding.confidence {
        Confidence::Certain => "Seen: ".to_owned(),
        Confidence::Likely => "Likely. Seen: ".to_owned(),
        Confidence::Possible => "One possibility. Seen: ".to_owned(),
    };
    text.push_str(&finding.evidence.join("; "));
    if !finding.references.is_empty() {
        text.push_str(&format!(" ({})", finding.references.join(", ")));
    }
    text
}
