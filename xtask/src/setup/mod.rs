//! `cargo xtask setup`: brings what building, testing and the demo need, and says what and why.
//!
//! It looks at everything before it changes anything: a machine on which it may not install gets the
//! whole list of commands at once, and never half of a set-up.

pub(crate) mod apt;
pub(crate) mod backports;
mod bpf;
mod browser;
mod clang;
mod go;
mod machine;
mod programs;
pub(crate) mod unpacked;

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use crate::command::is_root;

/// Something that is not here.
struct Need {
    what: String,
    why: &'static str,
    /// Debian packages that bring it, or that its making needs; they may be here already.
    packages: Vec<String>,
    /// What is left to do when the packages are there.
    then: Option<Action>,
    /// How to get it on a machine without apt-get.
    elsewhere: String,
}

enum Action {
    LinkDebianToolchain,
    InstallBpfLinker { llvm: u32 },
    FetchGo { version: &'static str },
    FetchAxe,
}

pub(crate) use go::Releases;

/// Brings what is missing.
pub(crate) fn run(releases: Releases) -> Result<()> {
    bring(|| missing(releases))
}

/// Brings the programs that nobody here wrote.
pub(crate) fn ordinary_programs() -> Result<()> {
    bring(|| Ok(programs::missing(&programs::ORDINARY, "one of the programs that nobody here wrote")))
}

/// Brings what makes a container image and runs it.
pub(crate) fn image_tools() -> Result<()> {
    bring(|| Ok(programs::missing(&programs::IMAGE_TOOLS, "which makes the container image and tries it")))
}

fn bring(missing: impl Fn() -> Result<Vec<Need>>) -> Result<()> {
    let needs = missing()?;
    if needs.is_empty() {
        println!("Everything needed is here.");
        return Ok(());
    }
    for need in &needs {
        println!("Missing: {}, {}.", need.what, need.why);
    }
    let packages: BTreeSet<&str> = needs.iter().flat_map(|need| &need.packages).map(String::as_str).collect();
    let packages: Vec<&str> = packages.into_iter().filter(|package| !apt::is_installed(package)).collect();
    if !packages.is_empty() {
        ensure_installable(&needs, &packages)?;
        apt::install(&packages)?;
    }
    for need in &needs {
        match need.then {
            Some(Action::LinkDebianToolchain) => bpf::link_debian_toolchain()?,
            Some(Action::InstallBpfLinker { llvm }) => bpf::install_linker(llvm)?,
            Some(Action::FetchGo { version }) => go::fetch(version)?,
            Some(Action::FetchAxe) => browser::fetch_axe()?,
            None => {}
        }
    }
    let left: Vec<String> = missing()?.into_iter().map(|need| need.what).collect();
    ensure!(
        left.is_empty(),
        "all was installed without an error, and yet this is missing: {}",
        left.join("; ")
    );
    println!("Everything needed is here now.");
    Ok(())
}

/// Brings the tools that the benchmarks compare with. Without them the benchmarks have fewer rows, so
/// nothing here is an error.
pub(crate) fn bench_tools() {
    let wanted = [
        ("perf", "linux-perf"),
        ("bpftrace", "bpftrace"),
        ("heaptrack", "heaptrack"),
        ("wrk", "wrk"),
        // With the server's program, and without the package that starts one.
        ("redis-benchmark", "redis-tools"),
    ];
    for (program, package) in wanted {
        if crate::command::find_program(program).is_some() {
            continue;
        }
        if !is_root() || !apt::is_here() {
            println!(
                "There is no {program} here, so it has no row below; Debian's package {package} has it."
            );
        } else if let Err(error) = apt::install(&[package]) {
            println!("{program} cannot be installed, so it has no row below: {error:#}");
        }
    }
}

fn missing(releases: Releases) -> Result<Vec<Need>> {
    let mut needs = machine::missing();
    needs.extend(bpf::missing()?);
    needs.extend(go::missing(releases)?);
    needs.extend(clang::missing(releases));
    needs.extend(browser::missing(releases)?);
    Ok(needs)
}

/// Fails with all that a person has to type where this program may not install packages.
fn ensure_installable(needs: &[Need], packages: &[&str]) -> Result<()> {
    if !apt::is_here() {
        // What needs no package is brought without help once the rest is there.
        let in_need = needs.iter().filter(|need| !need.packages.is_empty());
        let elsewhere: Vec<&str> = in_need.map(|need| need.elsewhere.as_str()).collect();
        bail!(
            "this machine has no apt-get, so nothing was installed. Get these, then run the same command again:\n    {}",
            elsewhere.join("\n    ")
        );
    }
    ensure!(
        is_root(),
        "only root may install packages, so nothing was installed. Run these two, then the same command again, \
         which does the rest without root:\n    sudo apt-get update\n    sudo {}",
        apt::install_line(packages)
    );
    Ok(())
}
