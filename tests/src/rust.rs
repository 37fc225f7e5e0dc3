//! Builds the Rust workloads, `rust/NAME`: a workspace of their own, so that only who asks for jemalloc or mimalloc
//! waits for their compilation.
//!
//! The surprise: a name says how it is built, as with other languages. `rust/mimalloc_NAME` has that allocator
//! (version 3; `mimalloc2_` and `jemalloc_` the others), `rust/stripped_NAME` no symbol table.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{compile, places};

const ALLOCATORS: [&str; 3] = ["mimalloc2", "mimalloc", "jemalloc"];

/// Builds where needed; where the program is.
pub fn build(name: &str) -> Result<PathBuf> {
    let (whole, is_stripped) = name.strip_prefix("stripped_").map_or((name, false), |rest| (rest, true));
    let of = |allocator: &&&str| whole.strip_prefix(**allocator).is_some_and(|rest| rest.starts_with('_'));
    let allocator = ALLOCATORS.iter().find(of).copied();
    let program = allocator.map_or(whole, |allocator| &whole[allocator.len() + 1..]);
    // Allocators exclude each other, so each has a folder of its own.
    let target = places::target().join("workloads/rust").join(allocator.unwrap_or("system"));
    let built = target.join("release").join(program);
    let stripped = target.join("release").join(format!("stripped_{program}"));
    if places::is_prebuilt() {
        return compile::prebuilt(if is_stripped { stripped } else { built });
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--locked", "--bin", program, "--target-dir"]).arg(&target);
    cargo.args(allocator.map(|allocator| format!("--features={allocator}")));
    // Nothing of the build that this is a part of may leak in.
    cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(cargo.current_dir(places::repository().join("tests/workloads/rust")), name)?;
    if !is_stripped {
        return Ok(built);
    }
    run(Command::new("strip").arg(&built).arg("-o").arg(&stripped), name)?;
    Ok(stripped)
}

fn run(command: &mut Command, name: &str) -> Result<()> {
    let output =
        command.output().with_context(|| format!("run {:?} for rust/{name}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "build workload rust/{name}: {}\n{said}", output.status);
    Ok(())
}
