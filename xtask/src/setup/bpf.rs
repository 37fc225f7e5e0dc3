//! What builds the BPF object: a Rust that has the standard library's sources, and bpf-linker.
//!
//! The surprise: bpf-linker must be built against an LLVM at least as new as the compiler's, and
//! a plain `cargo install` builds it against an LLVM that Debian does not have.

use anyhow::{Context, Result, ensure};

use super::{Action, Need};
use crate::command::{ask, command, find_program, quietly};

/// What to do where Debian's packages cannot be used.
pub(super) const WITHOUT_DEBIAN: &str =
    "Without Debian's Rust, these two bring another that builds the BPF object:
    rustup toolchain install nightly --component rust-src
    cargo install cargo-binstall && cargo binstall bpf-linker@0.13.0";

const LINKER_VERSION: &str = "0.13.0";

/// The LLVM of Debian's rustc-web.
const DEBIAN_LLVM: u32 = 22;

/// The name leakprobe's build script looks for beside "nightly".
const DEBIAN_TOOLCHAIN: &str = "bpf";

pub(super) fn missing() -> Result<Vec<Need>> {
    ensure!(
        find_program("rustup").is_some(),
        "find rustup: the BPF object is built with a second toolchain, and this cargo is not rustup's; \
         install rustup and run the same command again"
    );
    let mut needs = Vec::new();
    let compiler = ["nightly", DEBIAN_TOOLCHAIN].into_iter().find(|toolchain| has_sources(toolchain));
    if compiler.is_none() {
        needs.push(Need {
            what: "a Rust toolchain with the standard library's sources".to_owned(),
            why: "which builds the kernel side of leakprobe",
            packages: ["rustc-web", "cargo-web", "rust-web-src"].map(str::to_owned).to_vec(),
            then: Some(Action::LinkDebianToolchain),
            elsewhere: "rustup toolchain install nightly --component rust-src".to_owned(),
        });
    }
    if ask("bpf-linker", &["--version"]).is_none() {
        let llvm = compiler.and_then(llvm_of).unwrap_or(DEBIAN_LLVM);
        needs.push(Need {
            what: format!("bpf-linker {LINKER_VERSION} for LLVM {llvm}"),
            why: "which links the kernel side of leakprobe",
            packages: vec![format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")],
            then: Some(Action::InstallBpfLinker { llvm }),
            elsewhere: format!("cargo install cargo-binstall && cargo binstall bpf-linker@{LINKER_VERSION}"),
        });
    }
    Ok(needs)
}

/// Makes Debian's Rust a toolchain that rustup can run.
pub(super) fn link_debian_toolchain() -> Result<()> {
    println!("Linking Debian's Rust as rustup's toolchain \"{DEBIAN_TOOLCHAIN}\" …");
    quietly(command("rustup", &["toolchain", "link", DEBIAN_TOOLCHAIN, "/usr"]))?;
    Ok(())
}

/// Builds bpf-linker against Debian's LLVM.
pub(super) fn install_linker(llvm: u32) -> Result<()> {
    println!("Building bpf-linker {LINKER_VERSION} against LLVM {llvm}, which takes about a minute …");
    let feature = format!("llvm-{llvm}");
    let mut install = command("cargo", &["install", "bpf-linker", "--version", LINKER_VERSION]);
    install.args(["--no-default-features", "--features", &feature]);
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let path = std::env::var("PATH").context("read PATH")?;
    install.env("LLVM_PREFIX", &prefix).env("PATH", format!("{prefix}/bin:{path}"));
    quietly(install)?;
    ensure!(
        find_program("bpf-linker").is_some(),
        "bpf-linker was installed into cargo's bin folder, which is not in PATH: add it, then run the same command again"
    );
    Ok(())
}

fn has_sources(toolchain: &str) -> bool {
    let sysroot = ask("rustup", &["run", toolchain, "rustc", "--print", "sysroot"]);
    sysroot.is_some_and(|sysroot| {
        std::path::Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

fn llvm_of(toolchain: &str) -> Option<u32> {
    llvm_in(&ask("rustup", &["run", toolchain, "rustc", "--version", "--verbose"])?)
}

fn llvm_in(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_llvm_is_read() {
        assert_eq!(
            llvm_in("rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n"),
            Some(22)
        );
        assert_eq!(llvm_in("rustc 1.97.0-nightly\n"), None);
    }
}
