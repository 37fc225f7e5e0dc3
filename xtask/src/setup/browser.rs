//! What `test --all` looks at the page with: Chromium, and axe-core, which npm serves.

use std::fs;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::places;

use super::{Action, Need, Releases};
use crate::command::{find_program, quietly_in};

/// Newer ones may have new rules, which a page may break: not in the middle of something else.
const AXE: &str = "axe-core@4.14.1";

pub(super) fn missing(releases: Releases) -> Result<Vec<Need>> {
    if releases != Releases::All {
        return Ok(Vec::new());
    }
    let mut needs = Vec::new();
    if find_program("chromium").is_none() {
        needs.push(Need {
            what: "Chromium".to_owned(),
            why: "in which the HTML page is tested",
            packages: vec!["chromium".to_owned()],
            then: None,
            elsewhere: "chromium, from the machine's package manager".to_owned(),
        });
    }
    if !places::axe()?.is_file() {
        let npm = if find_program("npm").is_some() { Vec::new() } else { vec!["npm".to_owned()] };
        needs.push(Need {
            what: AXE.to_owned(),
            why: "which knows the rules of accessibility",
            packages: npm,
            then: Some(Action::FetchAxe),
            elsewhere: "npm, from the machine's package manager".to_owned(),
        });
    }
    Ok(needs)
}

/// Unpacks the package beside its place and moves it there: a set-up that was interrupted leaves no half of it.
pub(super) fn fetch_axe() -> Result<()> {
    let place = places::axe()?;
    let folder = place.ancestors().nth(2).context("axe-core lies in a folder")?;
    let beside = folder.with_extension("new");
    if beside.exists() {
        fs::remove_dir_all(&beside).with_context(|| format!("empty {}", beside.display()))?;
    }
    fs::create_dir_all(&beside).with_context(|| format!("create {}", beside.display()))?;
    let archive =
        quietly_in(&beside, "npm", &["pack", AXE, "--silent"]).with_context(|| format!("fetch {AXE}"))?;
    quietly_in(&beside, "tar", &["-xzf", archive.trim()])?;
    ensure!(beside.join("package/axe.min.js").is_file(), "{AXE} has no axe.min.js");
    fs::rename(&beside, folder).with_context(|| format!("move {AXE} to {}", folder.display()))
}
