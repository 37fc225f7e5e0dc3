//! `cargo xtask tidy`: the rules of the house that neither the compiler nor clippy knows.
//!
//! They are about text, on purpose: each is a few lines that anybody can read, and the few things
//! text cannot tell from each other do not occur here.

mod direction;
mod rules;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use leakprobe_tests::places;

use source::Source;

/// Where Rust of ours lies.
const RUST_FOLDERS: [&str; 5] = ["leakprobe/src", "leakprobe-ebpf/src", "xtask/src", "tests/src", "tests"];

/// Where programs lie that the tests watch.
const WORKLOADS: &str = "tests/workloads";

/// A rule that is broken, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

pub(crate) fn run() -> Result<()> {
    let root = places::repository();
    let mut findings = Vec::new();
    for source in sources(root)? {
        findings.extend(rules::check(&source));
        findings.extend(direction::check(&source));
    }
    findings.extend(modules_are_in_the_map(root)?);
    findings.sort();
    findings.dedup();
    for Finding { path, line, message } in &findings {
        println!("{path}:{line}: {message}");
    }
    if !findings.is_empty() {
        bail!("{} rules of the house are broken", findings.len());
    }
    println!("The house is tidy.");
    Ok(())
}

/// Every file of ours that has rules.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for folder in RUST_FOLDERS {
        walk(&root.join(folder), &["rs"], &mut paths)?;
    }
    walk(&root.join(WORKLOADS), &["c", "h", "go"], &mut paths)?;
    paths.sort();
    paths.dedup();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        Ok(Source::new(shown, text))
    };
    paths.iter().map(read).collect()
}

fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if path.is_dir() {
            walk(&path, extensions, found)?;
        } else if extensions.contains(&extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// ARCHITECTURE.md is the map: a module that is not on it does not exist for a newcomer.
fn modules_are_in_the_map(root: &Path) -> Result<Vec<Finding>> {
    const MAP: &str = "ARCHITECTURE.md";
    let finding = |message| Finding { path: MAP.to_owned(), line: 1, message };
    let Ok(map) = fs::read_to_string(root.join(MAP)) else {
        return Ok(vec![finding("the map of the code is missing".to_owned())]);
    };
    let folder = root.join("leakprobe/src");
    let mut findings = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if !is_on_the_map(&map, name) {
            findings.push(finding(format!("leakprobe/src has a module `{name}` that is not named here")));
        }
    }
    Ok(findings)
}

fn is_on_the_map(map: &str, module: &str) -> bool {
    let spellings =
        [format!("`{module}`"), format!("`{module}/"), format!("{module}.rs"), format!("src/{module}/")];
    spellings.iter().any(|spelling| map.contains(spelling))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_as_a_file_a_folder_or_a_word() {
        assert!(is_on_the_map("| `main`, `cli` | what was typed |", "cli"));
        assert!(is_on_the_map("| `runtimes/go/` |", "runtimes"));
        assert!(is_on_the_map("see leakprobe/src/claim.rs", "claim"));
        assert!(!is_on_the_map("the claim that something is so", "claim"));
    }

    #[test]
    fn this_repository_has_sources_of_every_kind() {
        let sources = sources(places::repository()).unwrap();
        for path in ["leakprobe/src/lib.rs", "tests/live/main.rs", "tests/workloads/c/contract.h"] {
            assert!(sources.iter().any(|source| source.path == path), "{path} is not checked");
        }
    }
}
