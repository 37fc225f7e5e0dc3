//! Debian packages, installed without a question and without a word unless something fails.
//!
//! The surprise: packages that would push out others are refused. Debian's own Rust conflicts with its
//! rustup package, and nobody who asked for a demo wants to lose that. Where a machine has parts of a newer
//! release from the suite of backports, only what comes from there fits beside them, so that is tried then.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::backports::Backports;
use crate::command::{ask, command, find_program, is_root, quietly};

/// May give way: busybox-static is the same program, and whatever needed the one accepts the other.
const MAY_BE_REPLACED: [&str; 1] = ["busybox"];

/// Whether this machine has apt-get.
pub(crate) fn is_here() -> bool {
    find_program("apt-get").is_some()
}

/// Whether a package is here; never, where there is no dpkg to ask.
pub(super) fn is_installed(package: &str) -> bool {
    let status = ask("dpkg-query", &["--show", "--showformat=${db:Status-Status}", package]);
    status.as_deref() == Some("installed")
}

/// The command line that installs these packages.
pub(super) fn install_line(packages: &[&str]) -> String {
    format!("apt-get {}", install_arguments(packages).join(" "))
}

/// Brings the package lists up to date and installs.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    println!("Installing with apt-get: {} …", packages.join(" "));
    apt_get(&["update"])
        .context("bring the package lists up to date: check the network and the sources list")?;
    ensure_known(packages)?;
    let (fitting, pushing): (Vec<&str>, Vec<&str>) = match fit(packages) {
        true => (packages.to_vec(), Vec::new()),
        false => packages.iter().partition(|package| fit(&[package])),
    };
    let backports = if pushing.is_empty() { None } else { Backports::fetch()? };
    let options = backports.as_ref().map_or_else(Vec::new, Backports::options);
    ensure_nothing_is_lost(&options, &pushing)?;
    ensure_nothing_is_lost(&[], &fitting)?;
    if !pushing.is_empty() {
        println!("From the suite of backports, since this machine has parts of it: {} …", pushing.join(" "));
        install_with(&options, &pushing)?;
    }
    install_with(&[], &fitting)
}

fn install_with(options: &[String], packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    apt_get(&with_options(options, &install_arguments(packages))).with_context(|| {
        format!("install {}: run the command by hand and mend what it says", packages.join(" "))
    })?;
    Ok(())
}

/// Whether the release's own packages go beside what is here: they push nothing out, and apt sees a way at all.
fn fit(packages: &[&str]) -> bool {
    lost_by(&[], packages).is_ok_and(|lost| lost.is_empty())
}

pub(crate) fn with_options<'a>(options: &'a [String], arguments: &[&'a str]) -> Vec<&'a str> {
    options.iter().map(String::as_str).chain(arguments.iter().copied()).collect()
}

/// Fetches packages into a folder and installs nothing.
pub(super) fn download(packages: &[&str], folder: &Path) -> Result<()> {
    ensure!(
        is_here(),
        "this machine has no apt-get to fetch {} with: unpack these packages of Debian 12 by hand",
        packages.join(" and ")
    );
    if packages.iter().any(|package| !has_candidate(package)) && is_root() {
        apt_get(&["update"])
            .context("bring the package lists up to date: check the network and the sources list")?;
    }
    let unknown: Vec<&str> = packages.iter().copied().filter(|package| !has_candidate(package)).collect();
    ensure!(
        unknown.is_empty(),
        "the package lists of this machine have no {}: run `apt-get update`; it is Debian 12 that has them",
        unknown.join(", ")
    );
    download_with(&[], packages, folder)
}

/// The same from lists of our own.
pub(crate) fn download_with(options: &[String], packages: &[&str], folder: &Path) -> Result<()> {
    let mut download = command("apt-get", &with_options(options, &[&["download"], packages].concat()));
    download.current_dir(folder);
    quietly(download).with_context(|| format!("fetch {}", packages.join(" and ")))?;
    Ok(())
}

fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["install", "--yes", "--no-install-recommends"], packages].concat()
}

pub(crate) fn apt_get(arguments: &[&str]) -> Result<String> {
    let mut apt_get = command("apt-get", arguments);
    // No question, and messages in the language that is parsed below.
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    quietly(apt_get)
}

fn ensure_known(packages: &[&str]) -> Result<()> {
    let unknown: Vec<&str> = packages.iter().copied().filter(|package| !has_candidate(package)).collect();
    ensure!(
        unknown.is_empty(),
        "the sources list of this machine knows no package {} (Debian 12 has it in its security archive). {}",
        unknown.join(", "),
        super::bpf::WITHOUT_DEBIAN
    );
    Ok(())
}

fn has_candidate(package: &str) -> bool {
    let policy = ask("apt-cache", &["policy", package]).unwrap_or_default();
    candidate_of(&policy).is_some()
}

fn candidate_of(policy: &str) -> Option<&str> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then_some(version)
}

/// What installing these would remove.
fn lost_by(options: &[String], packages: &[&str]) -> Result<Vec<String>> {
    let arguments = [&["--simulate"], install_arguments(packages).as_slice()].concat();
    let plan = apt_get(&with_options(options, &arguments))?;
    let lost = removals(&plan).filter(|package| !MAY_BE_REPLACED.contains(package));
    Ok(lost.map(str::to_owned).collect())
}

fn ensure_nothing_is_lost(options: &[String], packages: &[&str]) -> Result<()> {
    let lost = lost_by(options, packages)?;
    ensure!(
        lost.is_empty(),
        "installing {} would remove {}, so nothing was installed. {}",
        packages.join(" "),
        lost.join(", "),
        super::bpf::WITHOUT_DEBIAN
    );
    Ok(())
}

fn removals(plan: &str) -> impl Iterator<Item = &str> {
    plan.lines().filter_map(|line| line.strip_prefix("Remv ")).filter_map(|rest| rest.split(' ').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_unknown() {
        assert_eq!(
            candidate_of("llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8\n"),
            Some("1:22.1.8")
        );
        assert_eq!(candidate_of("llvm-22-dev:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_of(""), None);
    }

    #[test]
    fn a_plan_that_removes_something_is_read() {
        let plan = "Inst libllvm22 (1:22 Debian)\nRemv rustup [1.27]\nRemv busybox [1.35]\nConf libllvm22\n";
        assert_eq!(removals(plan).collect::<Vec<_>>(), ["rustup", "busybox"]);
    }
}
