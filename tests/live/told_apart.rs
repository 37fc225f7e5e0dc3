//! One leak, one owner: each program leaks in one way, and the row that grows is that way's, by as much
//! as the program says of itself.

use anyhow::{Result, ensure};
use leakprobe_tests::compile::sanitized::{NEWEST_CLANG, OLDEST_CLANG};
use leakprobe_tests::{Probe, Workload, expect, places};
use serde_json::Value;

use crate::sites::{bytes_from, has_function};

/// Each leak is told in three portions of uneven size: what is seen is a sum, not one mapping.
const PORTIONS: [u64; 3] = [8, 12, 17];

/// What a program's libraries and stack may move besides.
const SMALL_BYTES: u64 = 256 << 10;

/// Does the component already own what was leaked before leakprobe came?
enum Before {
    /// Yes: it is told by what it is, not by who made it.
    Owned,
    /// No: only the stack of the mmap tells, and nobody saw it.
    NotSeen,
}

fn told_apart(name: &str, component: &str, before: Before) -> Result<()> {
    watched(name, component, before).map(drop)
}

/// The report, and what the program leaked meanwhile.
fn watched(name: &str, component: &str, before: Before) -> Result<(Value, u64)> {
    let mut workload = Workload::start(name)?;
    let leaked_before = workload.hello["leaked_bytes"].as_u64().unwrap_or(0);
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let mut truth = 0;
    for steps in PORTIONS {
        truth += workload.grow(steps)?;
    }
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, component, truth)?;
    // Go's runtime keeps books on its heap.
    let share = if name.starts_with("go/") { 50 } else { 100 };
    expect::others_stayed(&report, component, (truth / share).max(SMALL_BYTES))?;
    match before {
        Before::Owned => expect::holds(&report, component, leaked_before + truth)?,
        Before::NotSeen => expect::holds(&report, component, truth)?,
    }
    Ok((report, truth))
}

#[test]
fn a_go_heap_leak_is_the_go_heap() -> Result<()> {
    told_apart("go/heap_leak", "go.heap.inuse", Before::Owned)
}

#[test]
fn a_cgo_malloc_leak_is_the_c_heap() -> Result<()> {
    told_apart("go/cgo_malloc", "c.heap.inuse", Before::Owned)
}

#[test]
fn a_malloc_leak_is_the_c_heap() -> Result<()> {
    told_apart("c/malloc_leak", "c.heap.inuse", Before::Owned)
}

#[test]
fn a_leak_of_cpp_and_rust_is_the_c_heap() -> Result<()> {
    told_apart("cpp/new_leak", "c.heap.inuse", Before::Owned)?;
    told_apart("rust/heap_leak", "c.heap.inuse", Before::Owned)
}

#[test]
fn an_mmap_leak_is_c_mmap() -> Result<()> {
    told_apart("c/mmap_leak", "c.mmap", Before::NotSeen)?;
    told_apart("rust/mmap_leak", "c.mmap", Before::NotSeen)
}

#[test]
fn deep_thread_stacks_are_whose_that_made_the_threads() -> Result<()> {
    let (report, truth) = watched("c/thread_stacks", "thread.stacks", Before::Owned)?;
    let bytes = bytes_from(&report, "thread_creation", "start_threads");
    ensure!(
        bytes.abs_diff(truth) <= expect::tolerance_bytes(truth),
        "{bytes} of {truth} bytes are start_threads': {}",
        report["call_sites"]
    );
    Ok(())
}

#[test]
fn a_mapped_file_is_a_mapped_file() -> Result<()> {
    told_apart("c/file_map", "file.mapped", Before::Owned)
}

#[test]
fn a_memfd_leak_is_shared_memory() -> Result<()> {
    told_apart("c/memfd_leak", "shmem", Before::Owned)
}

/// What clang makes is told apart as what gcc makes: one program in each run, all of them with every release.
#[test]
fn programs_of_clang_are_told_apart() -> Result<()> {
    told_apart(&format!("cpp/clang{NEWEST_CLANG}_new_leak"), "c.heap.inuse", Before::Owned)?;
    if !places::all_versions() {
        return Ok(());
    }
    for version in [OLDEST_CLANG, NEWEST_CLANG] {
        told_apart(&format!("cpp/clang{version}_new_leak"), "c.heap.inuse", Before::Owned)?;
        told_apart(&format!("c/clang{version}_malloc_leak"), "c.heap.inuse", Before::Owned)?;
        told_apart(&format!("c/clang{version}_mmap_leak"), "c.mmap", Before::NotSeen)?;
        told_apart(&format!("c/clang{version}_thread_stacks"), "thread.stacks", Before::Owned)?;
        told_apart(&format!("c/clang{version}_file_map"), "file.mapped", Before::Owned)?;
        told_apart(&format!("c/clang{version}_memfd_leak"), "shmem", Before::Owned)?;
    }
    Ok(())
}

#[test]
fn an_idle_program_grows_nowhere() -> Result<()> {
    let workload = Workload::start("c/idle")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    expect::others_stayed(&report, "", 64 * 1024)
}

#[test]
fn a_leak_has_the_stack_that_made_it() -> Result<()> {
    let mut workload = Workload::start("c/mmap_leak")?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.grow(23)?;
    let report = probe.report_now()?;
    let site = &report["call_sites"][0];
    ensure!(site["component"] == "c.mmap", "the largest call site is another's: {site}");
    let bytes = expect::number(site, "/bytes")?.unsigned_abs();
    ensure!(
        bytes.abs_diff(truth) <= expect::tolerance_bytes(truth),
        "the largest call site holds {bytes} bytes, the program leaked {truth}: {site}"
    );
    for function in ["touch_every_page", "leak_mapping", "main"] {
        ensure!(has_function(site, function), "{function} is not on the largest call site: {site}");
    }
    Ok(())
}
