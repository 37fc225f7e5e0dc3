//! The command lines in the documents, so that tests can run what readers will type.
//!
//! The surprise: what a document shows of a program's output looks like a command where it begins with its name. So
//! commands stand in indented blocks, outputs in fenced ones.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::places;

/// A line that a reader may type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Document and line number.
    pub place: String,
    /// The words, the program's name first, and no `sudo`.
    pub words: Vec<String>,
}

/// Every command in README, CONTRIBUTING, docs/ and docs/findings/ whose program is called so.
///
/// # Errors
/// Where a document cannot be read, or none has such a command.
pub fn commands(program: &[&str]) -> Result<Vec<CommandLine>> {
    let mut found = Vec::new();
    for path in paths()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.extend(commands_of(&name, &text).filter(|command| {
            let words = command.words.iter().map(String::as_str);
            words.take(program.len()).eq(program.iter().copied())
        }));
    }
    ensure!(!found.is_empty(), "no document has a command `{}`", program.join(" "));
    Ok(found)
}

fn paths() -> Result<Vec<PathBuf>> {
    let root = places::repository();
    let mut paths = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for docs in [root.join("docs"), root.join("docs/findings")] {
        for entry in fs::read_dir(&docs).with_context(|| format!("list {}", docs.display()))? {
            paths.push(entry.with_context(|| format!("list {}", docs.display()))?.path());
        }
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    Ok(paths)
}

/// A comment begins after two spaces or more; `target/release/leakprobe` is leakprobe.
fn commands_of<'a>(name: &'a str, text: &'a str) -> impl Iterator<Item = CommandLine> + 'a {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.strip_prefix("    ").filter(|line| !line.starts_with(' '))?;
        let command = line.split("  ").next()?.trim();
        let words = command.split(' ').skip_while(|word| *word == "sudo").map(str::to_owned);
        let mut words: Vec<String> = words.collect();
        let program = words.first_mut()?;
        if program.ends_with("/leakprobe") {
            "leakprobe".clone_into(program);
        }
        Some(CommandLine { place: format!("{name}:{}", index + 1), words })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_lines_are_commands_and_comments_are_not() {
        let text = "leakprobe says\n\n    leakprobe PID -d 5m        longer\n    sudo target/release/leakprobe PID\n\n```\nleakprobe itself\n```\n";
        let words: Vec<String> = commands_of("x.md", text).map(|it| it.words.join(" ")).collect();
        assert_eq!(words, ["leakprobe PID -d 5m", "leakprobe PID"]);
    }
}
