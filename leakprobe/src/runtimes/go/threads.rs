//! Which operating-system threads the Go runtime knows of: those its list of Ms names.
//!
//! With cgo every M but the first is a pthread, so a stack alone does not tell a thread of Go's from one that C code
//! started; a thread of C's that called into Go counts as Go's as long as it holds an M.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::find::Global;
use super::metadata::Reader;

/// No process has more threads.
const MAX_THREADS: usize = 1 << 20;

/// The `m` of each, by its id in the process's own PID namespace (`m.procid`, Go `src/runtime/runtime2.go`).
pub(super) fn machines(reader: &Reader<'_>) -> Result<BTreeMap<i32, u64>> {
    let mut machines = BTreeMap::new();
    let mut machine_addr = reader.memory.read_u64(reader.globals.addr(Global::Allm)?)?;
    let mut threads_left = MAX_THREADS;
    while machine_addr != 0 {
        threads_left = threads_left.checked_sub(1).context("threads without end")?;
        let id = reader.memory.read_u64(machine_addr.wrapping_add(reader.layout.thread_procid_offset))?;
        let id = i32::try_from(id).ok().filter(|id| *id > 0); // 0 where no thread runs it
        machines.extend(id.map(|id| (id, machine_addr)));
        machine_addr = reader.memory.read_u64(machine_addr.wrapping_add(reader.layout.alllink_offset))?;
    }
    Ok(machines)
}
