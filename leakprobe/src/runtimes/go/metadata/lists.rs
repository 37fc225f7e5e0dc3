//! Structures that are linked lists of mappings.
//!
//! The target runs on and moves nodes from list to list. What is never unmapped is gathered over several
//! walks; what can be is believed only where a whole walk was consistent.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};

use super::super::find::Global;
use super::super::heap::{Slice, read_list, read_words};
use super::super::threads::machine_addrs;
use super::{MAX_ATTEMPTS, Reader, push_mapping};
use crate::address::{AddrRange, PAGE_BYTES};

/// Nodes looked at for one structure, all attempts together: 64 GiB of persistent allocations, 16 GiB of
/// mark bits.
const MAX_NODES: usize = 1 << 18;
/// Size of a piece of persistent memory (Go `src/runtime/malloc.go`, `persistentChunkSize`).
const PERSISTENT_CHUNK_BYTES: u64 = 256 << 10;
/// Size of a `gcBitsArena` (Go `src/runtime/mheap.go`, `gcBitsChunkBytes`), and where it points to the next.
const MARK_BITS_BYTES: u64 = 64 << 10;
const MARK_BITS_NEXT_OFFSET: u64 = 8;
/// In `gcBitsArenas` the four lists free, next, current and previous follow a lock.
const MARK_BITS_LISTS_OFFSET: u64 = 8;
/// Ring buffers of the Green Tea collector hold powers of two of pointers, a page at least (Go
/// `src/runtime/mgcmark_greenteagc.go`, `newSpanSPMC`).
const QUEUE_CAPACITIES: std::ops::RangeInclusive<u64> = PAGE_BYTES / 8..=1 << 26;
/// In `work.spanSPMCs` the list's head follows a lock.
const QUEUES_HEAD_OFFSET: u64 = 8;
/// States of the random number generator: some two dozen a page, a page for each batch of processors.
const MAX_RANDOM_STATES: u64 = 1 << 16;

/// `persistentChunks`: memory that is never freed, for span headers, caches, profiling buckets and more.
pub fn persistent_chunks(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let head_addr = reader.globals.addr(Global::PersistentChunks)?;
    let mut seen = BTreeSet::new();
    let mut nodes_left = MAX_NODES;
    let result = reader.walk(head_addr, 0, &mut nodes_left, &mut seen);
    push_all(found, &seen, PERSISTENT_CHUNK_BYTES)?;
    result
}

/// `gcBitsArenas`: the mark and allocation bits of all spans. Arenas move between the four lists with every
/// collection and are never unmapped.
pub fn mark_bits(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let lists_addr = reader.globals.addr(Global::GcBitsArenas)?.wrapping_add(MARK_BITS_LISTS_OFFSET);
    let mut seen = BTreeSet::new();
    let mut nodes_left = MAX_NODES;
    let mut result = Ok(());
    for _ in 0..MAX_ATTEMPTS {
        let before: [u64; 4] = read_words(reader.memory, lists_addr)?;
        let mut heads = (lists_addr..).step_by(8).take(before.len());
        result = heads.try_for_each(|head_addr| {
            reader.walk(head_addr, MARK_BITS_NEXT_OFFSET, &mut nodes_left, &mut seen)
        });
        if result.is_ok() && read_words(reader.memory, lists_addr)? == before {
            break;
        }
    }
    push_all(found, &seen, MARK_BITS_BYTES)?;
    result
}

/// `work.spanSPMCs`: the collector's queues of spans to scan, since Go 1.26. They are unmapped after use.
pub fn span_queues(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let Some(queues_offset) = reader.layout.span_queues_offset else { return Ok(()) };
    let work_addr = reader.globals.addr(Global::Work)?;
    let head_addr = work_addr.wrapping_add(queues_offset + QUEUES_HEAD_OFFSET);
    let mut nodes_left = MAX_NODES;
    let mut result = Ok(());
    for _ in 0..MAX_ATTEMPTS {
        let mut rings = Vec::new();
        result = walk_queues(reader, head_addr, &mut nodes_left, &mut rings);
        if result.is_ok() {
            found.append(&mut rings);
            break;
        }
    }
    result
}

/// `vgetrandomAlloc` and `m.vgetrandomState`: what the vdso's random number generator keeps for each thread,
/// since Go 1.24; not there before its first use.
pub fn random_states(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let Some(state_offset) = reader.layout.vgetrandom_offset else { return Ok(()) };
    let alloc_addr = reader.globals.addr(Global::VgetrandomAlloc)?;
    // The free states, a lock, then the size of a state.
    let state_bytes = reader.memory.read_u64(alloc_addr.wrapping_add(32))?;
    if state_bytes == 0 {
        return Ok(());
    }
    if state_bytes > PAGE_BYTES {
        bail!("states of {state_bytes} bytes");
    }
    let free = Slice::read(reader.memory, alloc_addr)?;
    if free.len > MAX_RANDOM_STATES {
        bail!("{} states", free.len);
    }
    let list = read_list(reader.memory, free.data_addr, free.len)?;
    let mut states: BTreeSet<u64> = list.into_iter().collect();
    for thread_addr in machine_addrs(reader)? {
        states.insert(reader.memory.read_u64(thread_addr.wrapping_add(state_offset))?);
    }
    // A state lies within one page.
    let pages: BTreeSet<u64> = states.into_iter().map(|state_addr| state_addr & !(PAGE_BYTES - 1)).collect();
    push_all(found, &pages.into_iter().filter(|&page_addr| page_addr != 0).collect(), PAGE_BYTES)
}

/// Adds the rings of all queues to `rings`. A list that runs in circles ends with `nodes_left`.
fn walk_queues(
    reader: &Reader<'_>,
    head_addr: u64,
    nodes_left: &mut usize,
    rings: &mut Vec<AddrRange>,
) -> Result<()> {
    let mut queue_addr = reader.memory.read_u64(head_addr)?;
    while queue_addr != 0 {
        *nodes_left = nodes_left.checked_sub(1).context("queues without end")?;
        // `spanSPMC`: the list's links, dead, prev, head and tail, capacity, ring.
        let [_, next_addr, _, _, _, capacity, ring_addr] = read_words(reader.memory, queue_addr)?;
        let capacity = capacity & u64::from(u32::MAX);
        // One that is being made or taken apart has no ring.
        if ring_addr != 0 {
            if !capacity.is_power_of_two() || !QUEUE_CAPACITIES.contains(&capacity) {
                bail!("a queue for {capacity} spans");
            }
            push_mapping(rings, ring_addr, capacity * 8)?;
        }
        queue_addr = next_addr;
    }
    Ok(())
}

fn push_all(found: &mut Vec<AddrRange>, addrs: &BTreeSet<u64>, len_bytes: u64) -> Result<()> {
    addrs.iter().try_for_each(|&addr| push_mapping(found, addr, len_bytes))
}

impl Reader<'_> {
    /// Adds the nodes of the list whose head is the word at `head_addr` to `seen`. A node holds the address
    /// of the next at `next_offset`.
    fn walk(
        &self,
        head_addr: u64,
        next_offset: u64,
        nodes_left: &mut usize,
        seen: &mut BTreeSet<u64>,
    ) -> Result<()> {
        let mut node_addr = self.memory.read_u64(head_addr)?;
        let mut walked = BTreeSet::new();
        while node_addr != 0 {
            *nodes_left = nodes_left.checked_sub(1).context("a list without end")?;
            if !node_addr.is_multiple_of(PAGE_BYTES) {
                bail!("a list that leads to {node_addr:#x}");
            }
            // Only what can be read counts.
            let next_addr = self.memory.read_u64(node_addr.wrapping_add(next_offset))?;
            if !walked.insert(node_addr) {
                bail!("a list that runs in circles at {node_addr:#x}");
            }
            seen.insert(node_addr);
            node_addr = next_addr;
        }
        Ok(())
    }
}
