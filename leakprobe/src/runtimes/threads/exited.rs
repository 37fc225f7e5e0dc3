//! Stacks of threads that have exited, which glibc keeps for the next ones (up to 40 MiB of address space).
//!
//! Such a stack still has its descriptor at the top: it points at itself, states the very stack it lies on and a
//! guard below it, and its thread id is nobody's (the kernel clears it at the exit). They are found at the ends of
//! regions that follow a guard, and by glibc's list of them. Refuses stacks without a guard, which glibc does not
//! keep. The surprise: little of them is resident, since a thread gives back most of its stack as it exits.
//!
//! `_dl_stack_used`, `_dl_stack_user` and `_dl_stack_cache` follow each other in glibc 2.34 and later
//! (`sysdeps/generic/ldsodefs.h`, `struct rtld_global`); older ones keep two lists in libpthread.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    LIST_BEFORE_TID_BYTES, SEARCHED_PAGES, Search, TCB_ALIGN_BYTES, TCB_BYTES, TID_OFFSET, can_hold_stack,
    has_guard, points_at_itself, stack_block_offsets, stated_stack,
};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::target::maps::Region;

/// Ends of regions that are looked at. Reading a page that was never touched costs the target an entry in its page
/// tables.
const MAX_TOPS: usize = 1 << 13;
/// Nodes of lists that are followed: glibc's limit of 40 MiB is 2,560 stacks of 16 KiB.
const MAX_NODES: usize = 1 << 14;
/// From the head of the list of stacks in use to that of the kept ones.
const CACHE_HEAD_DISTANCES: [u64; 2] = [32, 16];

/// The stacks, each with the length of its guard. `living` are the stacks of threads that run, `tids` their ids.
pub(super) fn stacks(search: &Search<'_>, living: &[AddrRange], tids: &[i32]) -> Vec<(AddrRange, u64)> {
    let mut kept = Kept { search, living, tids, found: BTreeMap::new(), seen: BTreeSet::new() };
    for head_addr in &search.heads {
        for distance in CACHE_HEAD_DISTANCES {
            kept.follow(head_addr.saturating_add(distance));
        }
    }
    kept.tops_of_regions();
    kept.found.into_values().collect()
}

struct Kept<'a> {
    search: &'a Search<'a>,
    living: &'a [AddrRange],
    tids: &'a [i32],
    /// By the descriptor's address.
    found: BTreeMap<u64, (AddrRange, u64)>,
    /// Nodes of lists that were followed.
    seen: BTreeSet<u64>,
}

impl Kept<'_> {
    fn tops_of_regions(&mut self) {
        let regions = self.search.regions;
        let guarded = (0..regions.len()).filter(|&index| {
            can_hold_stack(&regions[index])
                && has_guard(regions, index)
                && !self.living.iter().any(|stack| stack.end_addr == regions[index].range.end_addr)
        });
        let guarded: Vec<usize> = guarded.take(MAX_TOPS).collect();
        for index in guarded {
            let end_addr = regions[index].range.end_addr;
            if self.found.values().any(|(stack, _)| stack.end_addr == end_addr) {
                continue;
            }
            if let Some(tcb_addr) = self.top_of(&regions[index]) {
                self.follow(tcb_addr.saturating_add(self.list_offset()));
            }
        }
    }

    /// The highest descriptor of an exited thread in the last pages of a region; taken already.
    fn top_of(&mut self, region: &Region) -> Option<u64> {
        let pages = (1..=SEARCHED_PAGES[0]).map(|page| region.range.end_addr.checked_sub(page * PAGE_BYTES));
        for page_addr in pages.flatten().take_while(|addr| *addr >= region.range.start_addr) {
            let page = self.search.memory.read_vec(page_addr, PAGE_BYTES as usize).ok()?;
            let offsets = (0..page.len()).step_by(TCB_ALIGN_BYTES).rev();
            let is_tcb = |offset: &usize| points_at_itself(&page[*offset..], page_addr + *offset as u64);
            let tcb_addrs: Vec<u64> =
                offsets.filter(is_tcb).map(|offset| page_addr + offset as u64).collect();
            if let Some(tcb_addr) = tcb_addrs.into_iter().find(|addr| self.take(*addr)) {
                return Some(tcb_addr);
            }
        }
        None
    }

    /// Takes every descriptor that the list with a node at `first_addr` leads to, if it is one: each node's next
    /// must point back at it.
    fn follow(&mut self, first_addr: u64) {
        let memory = self.search.memory;
        let mut node_addr = first_addr;
        while self.seen.len() < MAX_NODES && self.seen.insert(node_addr) {
            let Ok(next_addr) = memory.read_u64(node_addr) else { return };
            if memory.read_u64(next_addr.wrapping_add(8)) != Ok(node_addr) {
                return;
            }
            if let Some(tcb_addr) = next_addr.checked_sub(self.list_offset()) {
                self.take(tcb_addr);
            }
            node_addr = next_addr;
        }
    }

    /// Takes the descriptor at `addr`, where it is one of a thread that has exited.
    fn take(&mut self, addr: u64) -> bool {
        let Some(stack) = self.stack_at(addr) else { return false };
        self.found.insert(addr, stack);
        true
    }

    fn stack_at(&self, addr: u64) -> Option<(AddrRange, u64)> {
        let bytes = self.search.memory.read_vec(addr, TCB_BYTES).ok()?;
        if !points_at_itself(&bytes, addr) {
            return None;
        }
        let tid_offset = self.search.tid_offset.unwrap_or(TID_OFFSET);
        let tid = i32::from_le_bytes(bytes.get(tid_offset..tid_offset + 4)?.try_into().ok()?);
        if self.tids.contains(&tid) {
            return None;
        }
        let stated = stack_block_offsets().filter_map(|offset| stated_stack(addr, &bytes, offset));
        let (stack, guard_bytes) = { stated }
            .find(|(stack, guard_bytes)| *guard_bytes > 0 && self.is_mapped(*stack, *guard_bytes))?;
        let is_others = self.living.iter().any(|living| living.intersection(&stack).is_some());
        (!is_others).then_some((stack, guard_bytes))
    }

    /// Whether one region holds the whole stack, and what lies below is a guard: memory that cannot be read, or
    /// (glibc 2.42 on Linux 6.13 and later) pages of the same region.
    fn is_mapped(&self, stack: AddrRange, guard_bytes: u64) -> bool {
        let regions = self.search.regions;
        let index = regions.partition_point(|region| region.range.end_addr <= stack.start_addr);
        let Some(holder) = regions.get(index).filter(|region| can_hold_stack(region)) else { return false };
        let is_inside = holder.range.intersection(&stack) == Some(stack);
        let has_room = stack.start_addr.saturating_sub(holder.range.start_addr) >= guard_bytes;
        let is_behind_guard = stack.start_addr == holder.range.start_addr && has_guard(regions, index);
        is_inside && (has_room || is_behind_guard)
    }

    fn list_offset(&self) -> u64 {
        (self.search.tid_offset.unwrap_or(TID_OFFSET) - LIST_BEFORE_TID_BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{PAGES, fields, page_with_tcb};
    use super::super::{ThreadStack, stacks};
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    const BELOW_END: u64 = 2368;

    fn two_stacks() -> [Region; 4] {
        [
            region(PAGES, PAGES + 0x1000, "---p", ""),
            region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", ""),
            region(2 * PAGES, 2 * PAGES + 0x1000, "---p", ""),
            region(2 * PAGES + 0x1000, 2 * PAGES + 0x9000, "rw-p", ""),
        ]
    }

    fn node(tcb_page_addr: u64) -> u64 {
        tcb_page_addr + PAGE_BYTES - BELOW_END + (TID_OFFSET - LIST_BEFORE_TID_BYTES) as u64
    }

    fn exited(found: &[ThreadStack]) -> Vec<(u64, u64)> {
        let exited = found.iter().filter(|stack| stack.tid.is_none());
        exited.map(|stack| (stack.range.start_addr, stack.range.end_addr)).collect()
    }

    #[test]
    fn a_descriptor_without_a_thread_states_a_kept_stack() {
        let tcb = |tid, block_addr| {
            page_with_tcb(PAGES + 0x8000, BELOW_END, &fields(tid, 0x5000, block_addr, 0x9000))
        };
        let found = |tcb, tids: &[i32]| exited(&stacks(&Pieces(vec![tcb]), &two_stacks(), 1, tids).0);
        assert_eq!(found(tcb(0, PAGES), &[1]), [(PAGES + 0x1000, PAGES + 0x9000)]);
        assert_eq!(found(tcb(7, PAGES), &[1]), [(PAGES + 0x1000, PAGES + 0x9000)]);
        assert_eq!(found(tcb(7, PAGES), &[1, 7]), []);
        assert_eq!(found(tcb(0, 2 * PAGES), &[1]), []);
    }

    #[test]
    fn the_list_of_a_living_thread_leads_to_the_kept_stacks() {
        // The second stack is followed by other memory, so no region ends with it.
        let mut regions = two_stacks();
        regions[3] = region(2 * PAGES + 0x1000, 3 * PAGES, "rw-p", "");
        let (living, kept) = (PAGES + 0x8000, 2 * PAGES + 0x8000);
        let (used_head, cache_head) = (0x5000, 0x5020);
        let mut heads = vec![0; 48];
        for (at, value) in [(0, node(living)), (8, node(living)), (32, node(kept)), (40, node(kept))] {
            heads[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        let memory = Pieces(vec![
            page_with_tcb(living, BELOW_END, &fields(7, used_head, PAGES, 0x9000)),
            page_with_tcb(kept, BELOW_END, &fields(0, cache_head, 2 * PAGES, 0x9000)),
            (0x5000, heads),
        ]);
        let (found, _) = stacks(&memory, &regions, 1, &[1, 7]);
        assert_eq!(exited(&found), [(2 * PAGES + 0x1000, 2 * PAGES + 0x9000)]);
        assert_eq!(found.iter().filter(|stack| stack.tid == Some(7)).count(), 1);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_claims_what_is_not_mapped(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..8),
        ) {
            let regions = two_stacks();
            let tcb_addr = PAGES + 0x9000 - BELOW_END;
            let likely = [tcb_addr, tcb_addr, node(PAGES + 0x8000), PAGES, 0x9000, 0x1000, 0];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            for stack in stacks(&memory, &regions, 1, &[1, 7]).0 {
                let inside = regions.iter().any(|region| region.range.intersection(&stack.range) == Some(stack.range));
                prop_assert!(inside);
            }
        }
    }
}
