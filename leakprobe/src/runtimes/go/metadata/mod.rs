//! The memory the Go runtime maps for itself, outside its heap: what it knows of spans, pages and arenas, the
//! collector's bits and queues, profiling buckets.
//!
//! Found structure by structure, so that one which cannot be read costs one gap and not the rest. Refuses
//! whatever would lie inside the heap. The surprise: the kernel merges all of these mappings with one another
//! and with their neighbours, so none of this can be told from /proc/PID/maps.
//!
//! Checked in static programs of Go 1.19 to 1.27: every resident anonymous page is claimed here, by the heap,
//! or is .bss or stack. Not covered: execution trace buffers, which stay mapped after a trace; the index
//! arrays of span sets, which get mappings of their own in heaps beyond some 30 GiB; `GODEBUG=efence=1`.

mod lists;
mod tables;

use anyhow::{Result, bail};

use super::find::Globals;
use super::layout::Layout;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::target::memory::Memory;

/// No mapping of a process reaches beyond: five levels of page tables give processes 56 bits.
const MAX_ADDR: u64 = 1 << 56;

/// How often a structure that changed under the reader is read again.
const MAX_ATTEMPTS: usize = 8;

/// A runtime whose structures are read.
pub struct Reader<'a> {
    pub memory: &'a dyn Memory,
    pub layout: &'a Layout,
    pub globals: &'a Globals,
}

/// Adds the mappings of one structure to a list. What was added before an error stands.
type ReadPart = fn(&Reader<'_>, &mut Vec<AddrRange>) -> Result<()>;

/// The structures, by the name a gap gives them.
const PARTS: [(&str, ReadPart); 11] = [
    ("Go page summaries", tables::page_summaries),
    ("Go page bitmaps", tables::page_bitmaps),
    ("Go scavenge index", tables::scavenge_index),
    ("Go arena index", tables::arena_index),
    ("Go heap arenas' metadata", tables::heap_arenas),
    ("Go list of spans", tables::all_spans),
    ("Go profiling hash table", tables::profiling_buckets),
    ("Go persistent allocations", lists::persistent_chunks),
    ("Go mark bits", lists::mark_bits),
    ("Go span queues", lists::span_queues),
    ("Go random states", lists::random_states),
];

/// Claims the runtime's own memory. `heap` is what its heap manages, sorted.
pub fn findings(reader: &Reader<'_>, heap: &[AddrRange]) -> Findings {
    let mut ranges = Vec::new();
    let mut gaps = Vec::new();
    for (what, read) in PARTS {
        let mut found = Vec::new();
        let mut result = read(reader, &mut found);
        if found.iter().any(|range| overlaps(heap, range)) {
            found.clear();
            result = result.and_then(|()| bail!("it would lie inside the Go heap"));
        }
        ranges.append(&mut found);
        if let Err(error) = result {
            gaps.push(Gap { what: what.to_owned(), why: format!("{error:#}"), bytes: None });
        }
    }
    let claim = |range| Claim { range, component: Component::GoRuntime, evidence: Evidence::Structure };
    Findings { claims: merged(ranges).into_iter().map(claim).collect(), gaps, ..Findings::default() }
}

/// Whether `range` has an address in common with one of `sorted`.
fn overlaps(sorted: &[AddrRange], range: &AddrRange) -> bool {
    let first_after = sorted.partition_point(|other| other.end_addr <= range.start_addr);
    sorted.get(first_after).is_some_and(|other| other.intersection(range).is_some())
}

/// The same addresses in as few ranges as possible, sorted.
fn merged(mut ranges: Vec<AddrRange>) -> Vec<AddrRange> {
    ranges.sort_unstable();
    let mut out: Vec<AddrRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start_addr <= last.end_addr => {
                last.end_addr = last.end_addr.max(range.end_addr);
            }
            _ => out.push(range),
        }
    }
    out
}

/// Adds the mapping of `len_bytes` at `addr`, to the end of its last page.
fn push_mapping(found: &mut Vec<AddrRange>, addr: u64, len_bytes: u64) -> Result<()> {
    let range = AddrRange::with_len(addr, len_bytes).and_then(|range| range.touched_pages());
    match range {
        Some(range) if addr != 0 && addr.is_multiple_of(PAGE_BYTES) && range.end_addr <= MAX_ADDR => {
            found.push(range);
            Ok(())
        }
        _ => bail!("{len_bytes} bytes at {addr:#x} are no mapping"),
    }
}

#[cfg(test)]
mod tests;
