//! A matrix of builds of one program: each is measured, whatever became of those before it, and what was measured goes
//! between two marks of the document that LEAKPROBE_TABLE names.

use std::fmt::Display;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

const BEGIN: &str = "<!-- measured: written by `cargo xtask test --all`, not by hand -->\n";
const END: &str = "<!-- measured: end -->\n";

/// Measures every build; `measure` gives what goes into the table, and what is wrong with it.
pub(crate) fn check<Build: Copy + Display, Cell>(
    builds: Vec<Build>,
    measure: impl Fn(Build) -> Result<(Cell, Vec<String>)>,
    table: impl Fn(&[Cell]) -> String,
) -> Result<()> {
    let mut cells = Vec::new();
    let mut failures = Vec::new();
    for build in builds {
        match measure(build).with_context(|| build.to_string()) {
            Ok((cell, complaints)) => {
                failures.extend(complaints.into_iter().map(|complaint| format!("{build}: {complaint}")));
                cells.push(cell);
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if let Some(file) = env::var_os("LEAKPROBE_TABLE") {
        write(Path::new(&file), &table(&cells))?;
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Puts the table between the marks of the document.
fn write(document: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("read {}", document.display()))?;
    let missing = || format!("find the marks for the table in {}", document.display());
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    let text = format!("{before}{BEGIN}{table}{END}{after}");
    fs::write(document, text).with_context(|| format!("write {}", document.display()))
}
