//! Which BPF programs the kernel has loaded, and which of them a process holds.
//!
//! The surprise: other programs of the machine may load and unload theirs meanwhile, so the tests ask
//! after the ids that leakprobe held, and never compare the number of all.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use aya::programs::{ProgramError, loaded_programs as kernel_programs};
use leakprobe_tests::Deadline;
use rustix::thread::{MembarrierCommand, membarrier};

/// Ids of the programs that a process holds a file descriptor or a link of.
pub(crate) fn programs_held_by(pid: u32) -> Result<BTreeSet<u32>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        let path = entry.with_context(|| format!("list {folder}"))?.path();
        // A descriptor may be closed between the listing and the reading.
        let Ok(info) = fs::read_to_string(&path) else { continue };
        let values = info.lines().filter_map(|line| line.strip_prefix("prog_id:"));
        for value in values {
            ids.insert(value.trim().parse().with_context(|| format!("read prog_id in {}", path.display()))?);
        }
    }
    Ok(ids)
}

/// Ids of all programs in the kernel.
pub(crate) fn loaded_programs() -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for program in kernel_programs() {
        match program {
            Ok(program) => {
                ids.insert(program.id());
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                return Err(error).context("list the kernel's BPF programs: this needs CAP_SYS_ADMIN");
            }
        }
    }
    Ok(ids)
}

/// The program was unloaded between being listed and being opened.
fn is_gone(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(call) = error else { return false };
    call.io_error.kind() == std::io::ErrorKind::NotFound
}

/// Waits until none of these programs is loaded. The kernel lets go of a program some RCU grace periods
/// after its last user, and tells nobody; membarrier waits for one such period at a time.
pub(crate) fn wait_until_unloaded(ids: &BTreeSet<u32>, deadline: Deadline) -> Result<()> {
    loop {
        let left: BTreeSet<u32> = loaded_programs()?.intersection(ids).copied().collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(
            !deadline.has_passed(),
            "the kernel still has the programs {left:?} of a leakprobe that is gone"
        );
        membarrier(MembarrierCommand::Global).context("wait for an RCU grace period")?;
    }
}
