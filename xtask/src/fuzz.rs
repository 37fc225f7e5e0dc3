//! `cargo xtask fuzz`: libFuzzer damages a remembered Go program for some minutes, and every reader of
//! leakprobe must come to an end on it.
//!
//! The surprise: no nightly compiler and no cargo-fuzz. LLVM's coverage is asked for by flags that the stable
//! compiler has; only the address sanitizer, which the safe code here does not need, is missing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use leakprobe_tests::places;

use crate::command::{cargo, command, ensure_root, in_the_open};
use crate::setup::{self, Releases};

/// The fuzzer is built for the host by its name: flags of the target then do not reach build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=4",
    "--cfg fuzzing",
];

pub(crate) fn run(minutes: u64) -> Result<()> {
    ensure_root("fuzz", "the fuzzer reads another process once, to remember it")?;
    setup::run(Releases::Newest)?;
    let folder = places::repository().join("fuzz");
    let mut build = cargo(&["build", "--release", "--target", TARGET]);
    build.current_dir(&folder).env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", COVERAGE.join(" "));
    // Elsewhere than the workspace's own programs, which have no coverage.
    build.env("CARGO_TARGET_DIR", folder.join("target"));
    in_the_open(build)?;
    for name in ["corpus", "artifacts"] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let program = folder.join("target").join(TARGET).join("release/leakprobe-fuzz");
    let seconds = Duration::from_secs(minutes * 60).as_secs();
    let program = program.to_str().context("the path of the fuzzer is UTF-8")?;
    let mut fuzzer = command(program, &["corpus", "found", "-artifact_prefix=artifacts/"]);
    fuzzer.args(["-timeout=20", "-rss_limit_mb=2048", "-max_len=700", "-len_control=0"]);
    fuzzer.args([&format!("-max_total_time={seconds}"), "-print_final_stats=1"]);
    fuzzer.current_dir(&folder);
    if let Err(error) = in_the_open(fuzzer) {
        bail!(
            "{error:#}: the input lies in fuzz/artifacts; mend what it shows and keep the input in fuzz/found"
        );
    }
    Ok(())
}
