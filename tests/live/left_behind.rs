//! leakprobe killed in the middle of its window leaves nothing: no program in the kernel, and a target
//! that runs as before.

use anyhow::{Result, ensure};
use leakprobe_tests::{Deadline, Probe, Workload};

use crate::kernel;

#[test]
fn a_killed_leakprobe_leaves_no_program_and_a_living_target() -> Result<()> {
    let mut workload = Workload::start("c/mmap_leak")?;
    let mut probe = Probe::start(&workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    workload.grow(2)?;
    let programs = kernel::programs_held_by(probe.pid())?;
    ensure!(!programs.is_empty(), "leakprobe watches without holding a BPF program");
    let loaded = kernel::loaded_programs()?;
    ensure!(programs.is_subset(&loaded), "leakprobe holds {programs:?}, the kernel has only {loaded:?}");

    let ended = probe.kill()?;

    ensure!(ended.signal == Some(9), "leakprobe was not killed but ended with {ended:?}");
    kernel::wait_until_unloaded(&programs, Deadline::usual())?;
    let grown = workload.grow(2)?;
    ensure!(grown > 0, "the target no longer grows");
    Ok(())
}
