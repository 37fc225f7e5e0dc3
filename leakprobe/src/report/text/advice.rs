//! What to do: the findings' remedies, each with what speaks for it.
//!
//! It refuses to invent advice where no rule fits. The surprise: the first finding's sentence is missing
//! here, since the headline has told it.

use std::io;

use super::layout::{Page, Paint};
use crate::report::{Finding, Report};

/// Writes the section; nothing without findings.
pub fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    if report.findings.is_empty() {
        return Ok(());
    }
    page.blank()?;
    page.prose(Paint::Bold, "", "WHAT TO DO")?;
    for (index, finding) in report.findings.iter().enumerate() {
        let text = match index {
            0 => finding.remedy.clone(),
            _ => format!("{} {}", finding.summary, finding.remedy),
        };
        page.prose(Paint::Plain, " ", &text)?;
        page.prose(Paint::Dim, "   ", &grounds(finding))?;
    }
    Ok(())
}

/// "go-race-detector: the build information says -race (golang/go#63276)".
fn grounds(finding: &Finding) -> String {
    let mut text = finding.id.to_owned();
    if !finding.evidence.is_empty() {
        text.push_str(": ");
        text.push_str(&finding.evidence.join("; "));
    }
    if !finding.references.is_empty() {
        text.push_str(&format!(" ({})", finding.references.join(", ")));
    }
    text
}
