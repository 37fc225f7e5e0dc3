//! A matrix of builds of one program: each is measured, whatever became of those before it, and what was measured goes
//! between two marks of the document that LEAKPROBE_TABLE names.

use std::env;
use std::fmt::Display;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use leakprobe_tests::document;

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
        document::write_table(Path::new(&file), "cargo xtask test --all", &table(&cells))?;
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
