//! Groups of slots, one within another, laid over the pages they lie on.

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Component, Findings};
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::runtimes::malloc::census::Census;
use crate::runtimes::malloc::pages::{PageUses, push_claim, push_slack};
use crate::target::memory::Memory;

/// What sizes are multiples of, and the length of a group's header.
const UNIT_BYTES: u64 = 16;
/// `size_classes` of malloc.c, in units.
const CLASS_UNITS: [u64; 48] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 31, 36, 42, 50, 63, 72, 84, 102, 127, 146, 170, 204,
    255, 292, 340, 409, 511, 584, 682, 818, 1023, 1169, 1364, 1637, 2047, 2340, 2730, 3276, 4095, 4680, 5460,
    6552, 8191,
];
/// A block with a mapping of its own that holds groups is no longer than this.
const MAX_DIVIDED_BYTES: u64 = 1 << 20;
/// No address is beyond, so neither is a mapping's end.
const MAX_MAP_PAGES: u64 = 1 << 36;

/// A group: `struct meta`, its description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    start_addr: u64,
    /// Whole length: of its mapping, or of its slots.
    len_bytes: u64,
    /// Of a slot.
    stride_bytes: u64,
    slots: u32,
    /// A bit for each slot that holds nothing.
    unused: u32,
    /// It is a mapping of its own, and no part of a slot.
    is_mapped: bool,
    meta_addr: u64,
}

impl Group {
    /// The description in 40 bytes at `meta_addr`; `None` where it is out of use or makes no sense.
    pub(super) fn parse(bytes: &[u8], meta_addr: u64) -> Option<Self> {
        let words = words_of(bytes);
        let [_, _, start_addr, masks, bits] = words[..] else { return None };
        let (last_slot, class, map_pages) = (bits & 31, bits >> 6 & 63, bits >> 12);
        if start_addr == 0 || !start_addr.is_multiple_of(UNIT_BYTES) || map_pages > MAX_MAP_PAGES {
            return None;
        }
        let is_mapped = map_pages != 0;
        let map_bytes = map_pages * PAGE_BYTES;
        let slots = last_slot as u32 + 1;
        let stride_bytes = match CLASS_UNITS.get(class as usize) {
            _ if is_mapped && slots == 1 => map_bytes - UNIT_BYTES,
            Some(units) => units * UNIT_BYTES,
            None => return None,
        };
        let slots_bytes = UNIT_BYTES + stride_bytes * u64::from(slots);
        let len_bytes = if is_mapped { map_bytes.max(slots_bytes) } else { slots_bytes };
        let all = u32::MAX >> (32 - slots);
        let unused = (masks as u32 | (masks >> 32) as u32) & all;
        let fits = len_bytes - slots_bytes < PAGE_BYTES; // a mapping has no page too many
        start_addr.checked_add(len_bytes).filter(|_| fits)?;
        Some(Self { start_addr, len_bytes, stride_bytes, slots, unused, is_mapped, meta_addr })
    }

    /// Whether the group's header leads back to the description.
    pub(super) fn is_itself(&self, memory: &dyn Memory) -> bool {
        memory.read_u64(self.start_addr).is_ok_and(|addr| addr == self.meta_addr)
    }

    fn range(&self) -> AddrRange {
        AddrRange { start_addr: self.start_addr, end_addr: self.start_addr + self.len_bytes }
    }

    fn slot(&self, index: u32) -> AddrRange {
        let start_addr = self.start_addr + UNIT_BYTES + self.stride_bytes * u64::from(index);
        AddrRange { start_addr, end_addr: start_addr + self.stride_bytes }
    }

    fn is_unused(&self, index: u32) -> bool {
        self.unused >> index & 1 != 0
    }

    fn slot_at(&self, addr: u64) -> Option<u32> {
        let offset = addr.checked_sub(self.start_addr + UNIT_BYTES)?;
        u32::try_from(offset / self.stride_bytes).ok().filter(|index| *index < self.slots)
    }
}

/// Claims the pages of all `groups` that lie in `free`, and counts their slots.
pub(super) fn survey(mut groups: Vec<Group>, free: &AnonymousMemory, findings: &mut Findings) -> Census {
    // Who contains comes before what it contains.
    groups.sort_unstable_by_key(|group| (group.start_addr, u64::MAX - group.len_bytes));
    let mut census = Census { arenas: 1, ..Census::default() };
    let mut rest = groups.as_slice();
    while let Some((outer, later)) = rest.split_first() {
        let end_addr = outer.start_addr + outer.len_bytes;
        let inner = later.partition_point(|group| group.start_addr < end_addr);
        let (inside, next) = later.split_at(inner);
        rest = next;
        if outer.is_mapped && outer.slots == 1 && (inside.is_empty() || outer.len_bytes > MAX_DIVIDED_BYTES) {
            mapped_block(outer, free, &mut census, findings);
            continue;
        }
        if !outer.is_mapped {
            // Given to malloc by the loader: the rest of a library's variables, which nobody claims here.
            for group in std::iter::once(outer).chain(inside) {
                count(group, &mut census);
            }
            continue;
        }
        census.system_bytes += outer.len_bytes;
        let mut uses = PageUses::new(outer.range());
        let mut around: Vec<Group> = Vec::new();
        for group in std::iter::once(outer).chain(inside) {
            // They begin one after the other: what ends here holds none of the later ones.
            while around.last().is_some_and(|outer| outer.start_addr + outer.len_bytes <= group.start_addr) {
                around.pop();
            }
            if let Some(parent) = around.last() {
                take_slot_back(parent, group, &mut uses, &mut census);
            }
            add(group, &mut uses, &mut census);
            around.push(*group);
        }
        for range in free.within(outer.range()) {
            uses.claim(range, findings);
        }
    }
    census
}

/// A block with a mapping of its own; nothing is kept of its pages, for there may be many.
fn mapped_block(group: &Group, free: &AnonymousMemory, census: &mut Census, findings: &mut Findings) {
    let is_free = group.is_unused(0);
    if is_free {
        census.system_bytes += group.len_bytes;
        census.binned.add(group.stride_bytes);
    } else {
        census.mapped.add(group.len_bytes);
        census.by_size.add(group.len_bytes);
    }
    for range in free.within(group.range()) {
        push_claim(findings, range, if is_free { Component::CHeapFree } else { Component::CHeapInUse });
        if !is_free {
            push_slack(findings, range, 0);
        }
    }
}

/// The slot in which a group lies is in use by the group's slots, and by nothing else.
fn take_slot_back(parent: &Group, group: &Group, uses: &mut PageUses, census: &mut Census) {
    let index = parent.slot_at(group.start_addr).filter(|index| !parent.is_unused(*index));
    if let Some(slot) = index.map(|index| parent.slot(index)) {
        uses.remove_live(slot.start_addr, slot.end_addr);
        census.live.remove(parent.stride_bytes);
        census.by_size.remove(parent.stride_bytes);
        census.overhead_bytes += parent.stride_bytes.saturating_sub(group.len_bytes);
    }
}

fn add(group: &Group, uses: &mut PageUses, census: &mut Census) {
    uses.add_live(group.start_addr, group.start_addr + UNIT_BYTES);
    for slot in (0..group.slots).filter(|index| !group.is_unused(*index)).map(|index| group.slot(index)) {
        uses.add_live(slot.start_addr, slot.end_addr);
    }
    count(group, census);
}

fn count(group: &Group, census: &mut Census) {
    census.overhead_bytes += UNIT_BYTES;
    for index in 0..group.slots {
        if group.is_unused(index) {
            census.binned.add(group.stride_bytes);
        } else {
            census.live.add(group.stride_bytes);
            census.by_size.add(group.stride_bytes);
        }
    }
}
