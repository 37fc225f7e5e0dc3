//! What to do: the findings' remedies, each with what speaks for it.
//!
//! It refuses to invent advice where no rule fits. The surprise: what the headline has told is not repeated
//! here.

use std::io;

use super::headline;
use super::layout::{Page, Paint};
use crate::report::{Finding, Report};

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
    }
    Ok(())
}

/// "go-race-detector: the build information says -race (golang/go#63276)".
fn grounds(finding: &Finding) -> String {
    let mut text = finding.id.clone().into_owned();
    if !finding.evidence.is_empty() {
        text.push_str(": ");
        text.push_str(&finding.evidence.join("; "));
    }
    if !finding.references.is_empty() {
        text.push_str(&format!(" ({})", finding.references.join(", ")));
    }
    text
}
