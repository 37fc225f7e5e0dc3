//! A page of descriptions: 128 of 32 bytes, one to each partition page of a super page.
//!
//! The first is not of a partition page: it begins with the address of the heap that the super page belongs to. No
//! symbol leads to these pages, so they are told by what they hold: where a span has free slots, its description has
//! the address of the first, which must lie in that span, and that says which super page it is.

use super::{PARTITION_PAGE_BYTES, SUPER_PAGE_BYTES};
use crate::address::PAGE_BYTES;
use crate::runtimes::malloc::anonymous::words_of;

/// `kPageMetadataSize`, in words.
const DESCRIPTION_WORDS: usize = 4;
/// The last word of a description: `num_allocated_slots` of 15 bits, `num_unprovisioned_slots` of 15, then flags; in
/// its seventh byte the distance to the span's first partition page, and whether it is one of a span.
const COUNT_BITS: u32 = 15;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const DISTANCE_SHIFT: u32 = 48;
const DISTANCE_MASK: u64 = 0x3f;
const IS_VALID: u64 = 1 << 54;
/// A span is no longer (`kMaxSlotSpanMetadataOffset`).
const MAX_SPAN_PAGES: u64 = 64;

/// A slot span: `struct SlotSpanMetadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of its first partition page.
    pub index: usize,
    /// What its slots are like.
    pub bucket_addr: u64,
    /// Slots handed out.
    pub allocated: u64,
    /// Slots that were never made, at its end.
    pub unprovisioned: u64,
}

/// A super page as its descriptions have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Where the descriptions lie.
    pub addr: u64,
    /// The super page, where a list of free slots says so.
    pub super_page_addr: Option<u64>,
    /// Its spans, ascending.
    pub spans: Vec<Span>,
}

impl Described {
    /// Of the page at `addr`. `None` where it is no page of descriptions.
    pub fn parse(page: &[u8], addr: u64) -> Option<Self> {
        let words = words_of(page);
        let mut descriptions = words.chunks_exact(DESCRIPTION_WORDS).enumerate();
        let (_, head) = descriptions.next()?;
        if !is_pointer(head[0]) {
            return None;
        }
        let mut described = Self { addr, super_page_addr: None, spans: Vec::new() };
        for (index, description) in descriptions {
            let &[free_addr, _, bucket_addr, state] = description else { return None };
            if state & IS_VALID == 0 || state >> DISTANCE_SHIFT & DISTANCE_MASK != 0 {
                continue;
            }
            if !is_pointer(bucket_addr) {
                return None;
            }
            if free_addr != 0 {
                let super_page_addr = super_page_with(free_addr, index as u64)?;
                if described.super_page_addr.is_some_and(|known| known != super_page_addr) {
                    return None;
                }
                described.super_page_addr = Some(super_page_addr);
            }
            let (allocated, unprovisioned) = (state & COUNT_MASK, state >> COUNT_BITS & COUNT_MASK);
            described.spans.push(Span { index, bucket_addr, allocated, unprovisioned });
        }
        (!described.spans.is_empty()).then_some(described)
    }

    /// Whether `addr` lies among the descriptions.
    pub fn contains(&self, addr: u64) -> bool {
        addr.checked_sub(self.addr).is_some_and(|offset| offset < PAGE_BYTES)
    }
}

/// The super page in which a slot at `free_addr` lies in the span that begins with partition page `index`.
fn super_page_with(free_addr: u64, index: u64) -> Option<u64> {
    let super_page_addr = super::super_page_of(free_addr);
    let page = (free_addr - super_page_addr) / PARTITION_PAGE_BYTES;
    let is_inside = super_page_addr > 0
        && super_page_addr.checked_add(SUPER_PAGE_BYTES).is_some()
        && (index..index + MAX_SPAN_PAGES).contains(&page);
    is_inside.then_some(super_page_addr)
}

/// In user space, and aligned.
fn is_pointer(word: u64) -> bool {
    (PAGE_BYTES..1 << 56).contains(&word) && word.is_multiple_of(8)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const SUPER_PAGE: u64 = 0x3d2c_0020_0000;
    const BUCKET: u64 = 0x55f5_af57_cfb8;

    /// The description of a span.
    pub fn description(free_addr: u64, bucket_addr: u64, allocated: u64, unprovisioned: u64) -> [u64; 4] {
        [free_addr, 0, bucket_addr, IS_VALID | unprovisioned << COUNT_BITS | allocated]
    }

    /// A page with descriptions of spans of one partition page each, from the second on.
    pub fn page(root_addr: u64, spans: &[[u64; 4]]) -> Vec<u8> {
        let head = [root_addr, 0, 1 | (spans.len() as u64) << 16, 0];
        let words = std::iter::once(&head).chain(spans).flatten();
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(PAGE_BYTES as usize, 0);
        bytes
    }

    #[test]
    fn a_list_of_free_slots_names_the_super_page() {
        let spans = [description(0, BUCKET, 341, 0), description(SUPER_PAGE + 0x8b50, BUCKET, 7, 3)];
        let found = Described::parse(&page(BUCKET, &spans), 0x1000).unwrap();
        assert_eq!(found.super_page_addr, Some(SUPER_PAGE));
        assert_eq!(found.spans[1], Span { index: 2, bucket_addr: BUCKET, allocated: 7, unprovisioned: 3 });
    }

    #[test]
    fn lists_that_disagree_or_lead_elsewhere_are_none() {
        let elsewhere = [description(SUPER_PAGE, BUCKET, 7, 3)];
        assert_eq!(Described::parse(&page(BUCKET, &elsewhere), 0x1000), None, "before its span");
        let two = [
            description(SUPER_PAGE + 0x4000, BUCKET, 7, 3),
            description(SUPER_PAGE + SUPER_PAGE_BYTES + 0x8000, BUCKET, 7, 3),
        ];
        assert_eq!(Described::parse(&page(BUCKET, &two), 0x1000), None, "of two super pages");
        assert_eq!(Described::parse(&page(BUCKET + 1, &[]), 0x1000), None);
        assert_eq!(Described::parse(&page(BUCKET, &[description(0, 3, 1, 0)]), 0x1000), None);
        assert_eq!(Described::parse(&[0; 4096], 0x1000), None);
    }
}
