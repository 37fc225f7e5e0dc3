//! Trace parts: pieces of 128 KiB in which each goroutine's events are kept, for reports of races.
//!
//! Most are in the context's list for reuse. The one or two that a live goroutine writes are in the list of
//! that goroutine's trace alone, so live goroutines are looked up among the blocks of the allocator. Refuses
//! a part that is not linked both ways. The surprise: parts are never unmapped, so what a torn walk found
//! stays true, and walking again only adds.

use std::collections::BTreeSet;

use super::allocator::{REGION_BYTES, RegionMap, block_words};
use super::context::{CONTEXT_BYTES, Context, RECYCLE_OFFSET};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, read_or_zero, words_of};
use crate::target::memory::Memory;

/// `TracePart::kByteSize` in Go (tsan_trace.h).
const PART_BYTES: u64 = 128 << 10;

/// `TraceHeader`: the trace, the node in its list, the node in the context's list.
const TRACE_NODE_OFFSET: u64 = 8;
pub(super) const GLOBAL_NODE_OFFSET: u64 = 24;

/// In `ThreadContext`: `thr`, and in `trace` the list of its parts {next, prev, size}.
const THREAD_STATE_OFFSET: u64 = 144;
const TRACE_OFFSET: u64 = 176;
const PARTS_OFFSET: u64 = 192;

/// `ThreadState` is searched that far for the pointer to its context; it has 704 bytes.
const MAX_STATE_BYTES: usize = 1024;

/// Walks of the lists, which change under the reader.
const MAX_WALKS: usize = 8;

/// Parts in the list of one trace; `kFinishedThreadHi` is 64.
const MAX_PARTS_PER_TRACE: u64 = 4096;

/// Regions of `ThreadState`s that are read: as many as hold a million goroutines.
const MAX_STATE_REGIONS: usize = 1024;

/// What was found.
pub(super) struct Traces {
    pub(super) parts: Vec<AddrRange>,
    pub(super) gap: Option<Gap>,
}

/// The trace parts of the runtime.
pub(super) fn parts(
    memory: &dyn Memory,
    anonymous: &AnonymousMemory,
    context: &Context,
    region_map: Option<&RegionMap>,
) -> Traces {
    let walker = Walker { memory };
    let mut found = BTreeSet::new();
    for _ in 0..MAX_WALKS {
        if let (Some(map), Some(threads)) = (region_map, context.threads) {
            walker.live(map, threads.first_context_addr, &mut found);
        }
        walker.recycled(context, &mut found);
        if found.len() as u64 >= context.trace_parts {
            break;
        }
    }
    let missing = context.trace_parts.saturating_sub(found.len() as u64);
    // Parts mapped since the list of regions was read are found, and nothing to claim.
    found.retain(|addr| anonymous.covers_len(*addr, PART_BYTES));
    let gap = (missing > 0).then(|| Gap {
        what: format!("{missing} of {} trace parts of the race runtime, 128 KiB each", context.trace_parts),
        why: "they are in no list that could be followed".to_owned(),
        bytes: None,
    });
    let parts = found.into_iter().filter_map(|addr| AddrRange::with_len(addr, PART_BYTES)).collect();
    Traces { parts, gap }
}

struct Walker<'a> {
    memory: &'a dyn Memory,
}

impl Walker<'_> {
    /// Adds the parts in the context's list, from the front and, where that was torn, from the back.
    fn recycled(&self, context: &Context, found: &mut BTreeSet<u64>) {
        let head_addr = context.addr.saturating_add(RECYCLE_OFFSET);
        if !self.walk(head_addr, GLOBAL_NODE_OFFSET, 0, context.trace_parts, found) {
            self.walk(head_addr, GLOBAL_NODE_OFFSET, 8, context.trace_parts, found);
        }
    }

    /// Follows a list of parts from the head node at `head_addr`: `node_offset` is where a part keeps its
    /// node, `link_offset` 0 to go forwards and 8 to go backwards. Returns whether it came back to the head.
    fn walk(
        &self,
        head_addr: u64,
        node_offset: u64,
        link_offset: u64,
        max_parts: u64,
        found: &mut BTreeSet<u64>,
    ) -> bool {
        let Ok(mut node_addr) = self.memory.read_u64(head_addr.saturating_add(link_offset)) else {
            return false;
        };
        let mut from_addr = head_addr;
        for _ in 0..=max_parts {
            if node_addr == head_addr {
                return true;
            }
            let Some(part_addr) = node_addr.checked_sub(node_offset) else { return false };
            if !part_addr.is_multiple_of(PAGE_BYTES) {
                return false;
            }
            let Ok(node) = self.memory.read_vec(node_addr, 16) else { return false };
            let links = words_of(&node);
            let (ahead, back) = if link_offset == 0 { (links[0], links[1]) } else { (links[1], links[0]) };
            if back != from_addr {
                return false;
            }
            found.insert(part_addr);
            (from_addr, node_addr) = (node_addr, ahead);
        }
        false
    }

    /// Adds the parts of live goroutines: those whose `ThreadState` and `ThreadContext` point at each other.
    fn live(&self, map: &RegionMap, main_context_addr: u64, found: &mut BTreeSet<u64>) -> Option<()> {
        // The main goroutine lives as long as the process and shows which classes and offsets to look for.
        let main_state_addr = self.memory.read_u64(main_context_addr + THREAD_STATE_OFFSET).ok()?;
        let (context_class, state_class) = (map.class_at(main_context_addr)?, map.class_at(main_state_addr)?);
        let main_state = words_of(&self.memory.read_vec(main_state_addr, MAX_STATE_BYTES).ok()?);
        let back_index = main_state.iter().position(|word| *word == main_context_addr)?;
        for region_addr in map.regions_of(state_class).take(MAX_STATE_REGIONS) {
            let bytes = read_or_zero(self.memory, region_addr, REGION_BYTES as usize);
            for (offset, words) in block_words(&bytes, state_class) {
                let context_addr = words.get(back_index).copied().unwrap_or(0);
                if map.is_block(context_addr, context_class) {
                    self.parts_of(context_addr, region_addr + offset, found);
                }
            }
        }
        Some(())
    }

    /// Adds the parts of the goroutine with this context, if it still belongs to the state at `state_addr`.
    fn parts_of(&self, context_addr: u64, state_addr: u64, found: &mut BTreeSet<u64>) {
        let Ok(bytes) = self.memory.read_vec(context_addr, CONTEXT_BYTES as usize) else { return };
        let words = words_of(&bytes);
        if words[THREAD_STATE_OFFSET as usize / 8] != state_addr {
            return;
        }
        let size = words[PARTS_OFFSET as usize / 8 + 2];
        let mut parts = BTreeSet::new();
        self.walk(
            context_addr + PARTS_OFFSET,
            TRACE_NODE_OFFSET,
            0,
            size.min(MAX_PARTS_PER_TRACE),
            &mut parts,
        );
        let of_this_trace = |part_addr: &u64| {
            self.memory.read_u64(*part_addr).is_ok_and(|addr| addr == context_addr + TRACE_OFFSET)
        };
        found.extend(parts.into_iter().filter(of_this_trace));
    }
}
