//! Which operating-system threads the Go runtime knows of, those its list of Ms names, and their signal stacks.
//!
//! With cgo every M but the first is a pthread, so a stack alone does not tell a thread of Go's from one that C code
//! started; a thread of C's that called into Go counts as Go's as long as it holds an M.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, ensure};

use super::find::Global;
use super::layout::GoroutineLayout;
use super::metadata::Reader;
use crate::address::AddrRange;

/// Go ends a program that has more than 10,000, if it is not told otherwise (`debug.SetMaxThreads`).
const MAX_THREADS: usize = 1 << 16;

/// `m.gsignal` is the word behind `m.procid` (Go `src/runtime/runtime2.go`; the same in 1.19 to 1.27).
const SIGNAL_GOROUTINE_OFFSET: u64 = 8;
/// Go's have 32 KiB (`malg(32 * 1024)` in `mpreinit`); of a thread that C started it takes the one it has.
const MAX_SIGNAL_STACK_BYTES: u64 = 1 << 20;

/// The stack on which a thread handles signals: that of the goroutine `m.gsignal`, which names its `m` again. By the
/// thread's id, of those where it does.
pub(super) fn signal_stacks(
    reader: &Reader<'_>,
    goroutine: &GoroutineLayout,
    machines: &BTreeMap<i32, u64>,
) -> BTreeMap<i32, AddrRange> {
    let word = |addr: u64, offset: u64| reader.memory.read_u64(addr.wrapping_add(offset)).ok();
    let stack = |machine_addr: u64| {
        let offset = reader.layout.thread_procid_offset + SIGNAL_GOROUTINE_OFFSET;
        let goroutine_addr = word(machine_addr, offset)?;
        if word(goroutine_addr, goroutine.thread_offset as u64)? != machine_addr {
            return None;
        }
        let stack_offset = goroutine.stack_offset as u64;
        let stack =
            AddrRange::new(word(goroutine_addr, stack_offset)?, word(goroutine_addr, stack_offset + 8)?)?;
        (stack.len_bytes() <= MAX_SIGNAL_STACK_BYTES).then_some(stack)
    };
    machines.iter().filter_map(|(tid, addr)| Some((*tid, stack(*addr)?))).collect()
}

/// The `m` of each, by its id in the process's own PID namespace (`m.procid`, Go `src/runtime/runtime2.go`).
pub(super) fn machines(reader: &Reader<'_>) -> Result<BTreeMap<i32, u64>> {
    let mut machines = BTreeMap::new();
    for machine_addr in machine_addrs(reader)? {
        let id = reader.memory.read_u64(machine_addr.wrapping_add(reader.layout.thread_procid_offset))?;
        let id = i32::try_from(id).ok().filter(|id| *id > 0); // 0 where no thread runs it
        machines.extend(id.map(|id| (id, machine_addr)));
    }
    Ok(machines)
}

/// The list of all `m`, linked by `m.alllink`. One that runs in circles is no list.
pub(super) fn machine_addrs(reader: &Reader<'_>) -> Result<Vec<u64>> {
    let (mut addrs, mut met) = (Vec::new(), HashSet::new());
    let mut machine_addr = reader.memory.read_u64(reader.globals.addr(Global::Allm)?)?;
    while machine_addr != 0 {
        let is_new = met.insert(machine_addr);
        ensure!(is_new && addrs.len() < MAX_THREADS, "the list of threads does not end");
        addrs.push(machine_addr);
        machine_addr = reader.memory.read_u64(machine_addr.wrapping_add(reader.layout.alllink_offset))?;
    }
    Ok(addrs)
}
