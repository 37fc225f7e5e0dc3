//! Tables in the documents that a program measures and writes: between two marks, the first of which says by which command.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const END: &str = "<!-- measured: end -->\n";

/// Puts a table between the marks of a document.
///
/// # Errors
/// Where the document cannot be read or written, or has no such marks.
pub fn write_table(document: &Path, command: &str, table: &str) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let text = with_table(&text, command, table)
        .with_context(|| format!("find the marks for the table of `{command}` in {}", document.display()))?;
    fs::write(document, text).with_context(|| format!("write {}", document.display()))
}

fn with_table(text: &str, command: &str, table: &str) -> Option<String> {
    let begin = format!("<!-- measured: written by `{command}`, not by hand -->\n");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- measured: written by `x`, not by hand -->\nold\n<!-- measured: end -->\nb\n";
        let new = with_table(text, "x", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert_eq!(with_table(text, "y", "new\n"), None);
    }
}
