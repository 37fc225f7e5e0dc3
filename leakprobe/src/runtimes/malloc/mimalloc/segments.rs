//! mimalloc 2: segments of 32 MiB, each with the descriptions of its slices of 64 KiB at its start.
//!
//! Where the descriptions begin and how long one is differs from release to release, but not what stands right
//! before them: the number of slices, the segment's kind, and how many slices the descriptions take.

use super::page::{Page, Survey};
use crate::address::AddrRange;
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::target::memory::Memory;

const SEGMENT_BYTES: u64 = 32 << 20;
const SLICE_BYTES: u64 = 64 << 10;
const MAX_ENTRIES: u64 = 512;
/// Segments that are looked for: 4 TiB of them.
const MAX_SEGMENTS: usize = 1 << 17;
/// Where in a segment the descriptions may begin (264 in 2.0.9, 288 in 2.3.2).
const MIN_OFFSET: usize = 200;
const MAX_OFFSET: usize = 512;
/// More slices are never taken by a segment's own header.
const MAX_OWN_SLICES: u64 = 8;
/// A block as long as 2 GiB or longer (2.0.9: `MI_HUGE_BLOCK_SIZE`).
const HUGE_BLOCK: u64 = 2 << 30;

/// Surveys every segment in `free`; whether there is any.
pub(super) fn read(memory: &dyn Memory, free: &AnonymousMemory, survey: &mut Survey<'_>) -> bool {
    let mut tried_left = MAX_SEGMENTS;
    let mut is_there = false;
    let mut addr = 0;
    for range in free.ranges() {
        let Some(start_addr) = range.start_addr.checked_next_multiple_of(SEGMENT_BYTES) else { continue };
        // A segment that reaches into this range has claimed what it is of it.
        addr = start_addr.max(addr);
        while addr.saturating_add(SLICE_BYTES) <= range.end_addr && tried_left > 0 {
            tried_left -= 1;
            let len_bytes = Segment::read(memory, addr).map_or(0, |segment| segment.survey(survey));
            is_there |= len_bytes > 0;
            addr = addr.saturating_add(len_bytes.max(1).next_multiple_of(SEGMENT_BYTES));
        }
    }
    is_there
}

struct Segment {
    start_addr: u64,
    bytes: Vec<u8>,
    /// Where the descriptions begin, and how long one is.
    offset: usize,
    stride: usize,
    /// All of its slices: for one huge block more than are described.
    slices: u64,
    entries: u64,
    own_slices: u64,
}

impl Segment {
    /// The segment at `start_addr`, where its descriptions add up.
    fn read(memory: &dyn Memory, start_addr: u64) -> Option<Self> {
        let mut bytes = vec![0; SLICE_BYTES as usize];
        if !memory.read_resident(start_addr, &mut bytes) {
            return None;
        }
        let (offset, stride) = (MIN_OFFSET..MAX_OFFSET).step_by(8).find_map(|offset| {
            let [slices, own_slices, kind, entries] = header(&bytes, offset);
            let is_likely = (1..=MAX_ENTRIES).contains(&entries)
                && (1..=MAX_OWN_SLICES).contains(&own_slices)
                && kind as u32 <= 1
                && slices >= entries
                && count_at(&bytes, offset) == own_slices;
            let strides = [80, 96, 112].into_iter().filter(|_| is_likely);
            let stride =
                strides.into_iter().find(|stride| adds_up(&bytes, offset, *stride, entries, slices))?;
            Some((offset, stride))
        })?;
        let [slices, own_slices, _, entries] = header(&bytes, offset);
        Some(Self { start_addr, bytes, offset, stride, slices, entries, own_slices })
    }

    /// Surveys its pages; how long it is.
    fn survey(&self, survey: &mut Survey<'_>) -> u64 {
        let Some(range) = AddrRange::with_len(self.start_addr, self.slices.saturating_mul(SLICE_BYTES))
        else {
            return 0;
        };
        survey.took(range.len_bytes());
        let mut index = 0;
        while index < self.entries {
            let place = self.offset + index as usize * self.stride;
            let count = count_at(&self.bytes, place);
            let start_addr = self.start_addr + index * SLICE_BYTES;
            let Some(slices) = AddrRange::with_len(start_addr, count * SLICE_BYTES) else { break };
            if index < self.own_slices {
                survey.whole(slices, true);
            } else {
                match self.page(place, slices) {
                    Some(page) if page.is_plausible() => survey.page(&page),
                    Some(page) if page.reserved <= 1 => survey.page(&page),
                    Some(_) => {}
                    None => survey.whole(slices, false),
                }
            }
            index += count;
        }
        range.len_bytes()
    }

    /// The page described at `place`; `None` where the slices are free.
    fn page(&self, place: usize, range: AddrRange) -> Option<Page> {
        let word = |offset: usize| word_at(&self.bytes, place + offset);
        let counts = word(8);
        let (capacity, reserved) = (counts >> 16 & 0xffff, counts >> 32 & 0xffff);
        let (used, block_bytes, local_free, thread_free) = if self.stride == 80 {
            (word(24) & 0xffff_ffff, word(24) >> 32, word(32), word(40))
        } else {
            // With encoded lists two keys stand before the last.
            let thread_free = if self.stride == 96 { 56 } else { 72 };
            (word(32) & 0xffff, word(40), word(24), word(thread_free))
        };
        // A huge block's length says the segment.
        let block_bytes = if block_bytes >= HUGE_BLOCK { range.len_bytes() } else { block_bytes };
        let lists = [word(16), local_free, thread_free];
        (block_bytes != 0).then_some(Page { range, block_bytes, capacity, reserved, used, lists })
    }
}

/// What stands right before the descriptions: slices, those of the header, the kind, descriptions.
fn header(bytes: &[u8], offset: usize) -> [u64; 4] {
    [40, 32, 24, 16].map(|before| word_at(bytes, offset - before))
}

/// Whether the counts of slices, each leading to the next description, add up.
fn adds_up(bytes: &[u8], offset: usize, stride: usize, entries: u64, slices: u64) -> bool {
    let mut index = 0;
    while index < entries {
        let count = count_at(bytes, offset + index as usize * stride);
        if count == 0 || count > slices - index {
            return false;
        }
        index += count;
    }
    index == entries || index == slices
}

/// `slice_count`, the first of a description.
fn count_at(bytes: &[u8], offset: usize) -> u64 {
    word_at(bytes, offset) & 0xffff_ffff
}

fn word_at(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}
