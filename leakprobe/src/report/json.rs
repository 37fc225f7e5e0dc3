//! The report as JSON, schema `leakprobe.report/1`: bytes everywhere, unknown is null.
//!
//! Nothing is rounded, left out or sorted anew. The surprise: JSON allows raw C1 controls and bidirectional
//! overrides inside strings, and people print JSON on terminals; they are written as `\uXXXX` here, which
//! means the same to every parser.

use std::io::{self, Write};

use serde::Serialize;

use super::escape::is_hostile;

/// Writes a report, or what is made of reports, pretty printed, with a newline at the end.
pub fn write(report: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let json = serde_json::to_string_pretty(report)?;
    let mut rest = json.as_str();
    // Serde has escaped what is below U+0020, so the only such characters left are its own line breaks.
    while let Some(at) = rest.find(|character| is_hostile(character) && character != '\n') {
        let (clean, tail) = rest.split_at(at);
        out.write_all(clean.as_bytes())?;
        let mut characters = tail.chars();
        if let Some(hostile) = characters.next() {
            for unit in hostile.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        rest = characters.as_str();
    }
    out.write_all(rest.as_bytes())?;
    out.write_all(b"\n")
}
