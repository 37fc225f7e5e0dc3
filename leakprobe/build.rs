//! Builds the BPF object with whichever toolchain is here; without one, leaves an empty object, so that
//! `cargo check` and the unit tests work on a plain stable toolchain. `trace` refuses the empty object
//! with the sentence that says what to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

const OBJECT: &str = "leakprobe-kernel";

fn main() -> Result<()> {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    println!("cargo:rerun-if-env-changed=AYA_BUILD_SKIP");
    let skipped = std::env::var_os("AYA_BUILD_SKIP").is_some_and(|skip| skip == "1");
    match toolchain().filter(|_| !skipped) {
        Some(toolchain) => build(toolchain),
        None => {
            println!(
                "cargo:warning=no BPF toolchain: this leakprobe will not trace; `cargo xtask setup` brings one"
            );
            rerun_when_a_toolchain_appears();
            std::fs::write(out_dir.join(OBJECT), []).context("write the empty BPF object")
        }
    }
}

fn build(toolchain: &'static str) -> Result<()> {
    // SAFETY: a build script's main thread is its only one here.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1"); // build-std on a compiler that is no nightly
        std::env::set_var("CARGO_TERM_QUIET", "true"); // aya-build shows every line as a warning of ours
    }
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../leakprobe-ebpf");
    aya_build::build_ebpf(
        [Package { name: "leakprobe-ebpf", root_dir, ..Default::default() }],
        Toolchain::Custom(toolchain),
    )
}

/// A nightly with the standard library's source, else the toolchain `cargo xtask setup` links as "bpf".
/// Either is of use only with bpf-linker.
fn toolchain() -> Option<&'static str> {
    Command::new("bpf-linker").arg("--version").output().ok().filter(|run| run.status.success())?;
    ["nightly", "bpf"]
        .into_iter()
        .find(|toolchain| sysroot(toolchain).is_some_and(|root| has_std_source(&root)))
}

fn sysroot(toolchain: &str) -> Option<PathBuf> {
    let run = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(run.stdout).ok()?;
    run.status.success().then(|| PathBuf::from(path.trim()))
}

fn has_std_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

/// A path that does not exist makes Cargo run this script each time; it is quick then.
fn rerun_when_a_toolchain_appears() {
    println!("cargo:rerun-if-changed=waiting-for-a-bpf-toolchain");
}
