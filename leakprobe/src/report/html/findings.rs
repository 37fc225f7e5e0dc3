//! What is the matter, and what to do.

use std::io::{self, Write};

use super::markup::Text;
use crate::report::{Confidence, Report};

/// Writes the section; one sentence where nothing was found, which is an answer.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">What to do</h2>")?;
    if report.findings.is_empty() {
        writeln!(out, "<p>No known cause fits what was measured.</p>")?;
    }
    for finding in &report.findings {
        writeln!(out, "<article>\n<h3>{}</h3>\n<p>{}</p>", Text(&finding.summary), Text(&finding.remedy))?;
        if !finding.evidence.is_empty() {
            writeln!(out, "<ul>")?;
            for evidence in &finding.evidence {
                writeln!(out, "<li>{}</li>", Text(evidence))?;
            }
            writeln!(out, "</ul>")?;
        }
        let references: Vec<String> = finding.references.iter().map(|name| reference(name)).collect();
        let references = references.join(", ");
        let (id, surety) = (Text(&finding.id), surety(finding.confidence));
        writeln!(
            out,
            "<p class=\"quiet\">{surety}<code>leakprobe explain {id}</code> {references}</p>\n</article>"
        )?;
    }
    writeln!(out, "</section>")
}

/// Said only where it is not certain.
fn surety(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "",
        Confidence::Likely => "Likely. ",
        Confidence::Possible => "One possibility. ",
    }
}

/// "golang/go#63276" as a link; anything else as text, since a saved report may say anything.
fn reference(name: &str) -> String {
    let number = name.strip_prefix("golang/go#").filter(|number| number.len() < 10);
    match number.filter(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(number) => {
            format!("<a href=\"https://github.com/golang/go/issues/{number}\">golang/go#{number}</a>")
        }
        None => Text(name).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_issues_become_links() {
        assert!(
            reference("golang/go#63276")
                .starts_with("<a href=\"https://github.com/golang/go/issues/63276\">")
        );
        for other in
            ["javascript:alert(1)", "golang/go#1\" onclick=\"x", "golang/go#", "https://example.com/"]
        {
            assert!(!reference(other).contains('<'), "{other}");
        }
    }
}
