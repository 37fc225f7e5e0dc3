//! gperftools' tcmalloc: which spans hold blocks, and which its page heap keeps for later.
//!
//! A tree of two levels in its .bss leads from a page of 8 KiB to the span it belongs to. It is found by what it
//! holds: a span states the page at which the tree lists it. Refuses Google's newer tcmalloc, which has another
//! tree. The surprise: what threads keep in their caches counts as handed out, in the spans as here; only the
//! blocks on the spans' own lists are known to be free.
//!
//! Facts: gperftools 2.10 `pagemap.h`, `span.h`, `page_heap.h` for 48 address bits and pages of 8 KiB; tried with
//! Debian's libtcmalloc_minimal 2.10, whose `tcmalloc.pageheap_free_bytes` is the sum of the free spans.

use std::collections::BTreeSet;

use super::anonymous::{AnonymousMemory, resident_words, words_of};
use super::pages::{PageUses, push_claim, push_slack};
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::target::memory::Memory;

/// `kPageShift`.
const SPAN_PAGE_BYTES: u64 = 8 << 10;
/// A leaf has 2^18 pointers, one to a page; the root 2^17.
const LEAF_WORDS: u64 = 1 << 18;
const ROOT_WORDS: u64 = 1 << 17;
const LEAF_SPAN_BYTES: u64 = LEAF_WORDS * SPAN_PAGE_BYTES;
/// `struct Span` up to its last field.
const SPAN_BYTES: usize = 48;
/// Variables that are searched for the root.
const MAX_SEARCHED_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 64 << 10;
/// Words tried as pointers to a leaf, and words of a leaf tried as pointers to a span.
const MAX_TRIED: usize = 4096;
const MAX_TRIED_WORDS: usize = 64;
/// Spans that are followed: at the smallest, 128 GiB of them.
const MAX_SPANS: usize = 1 << 24;
/// Spans of small blocks are no longer than this (`kMaxPages` and a class's `pages`).
const MAX_DIVIDED_BYTES: u64 = 2 << 20;

/// Claims what tcmalloc holds of `free`, the memory that nobody else owns; its variables are in `variables`. `None`
/// where its tree was not found.
pub fn read(memory: &dyn Memory, variables: &[AddrRange], free: &AnonymousMemory) -> Option<Findings> {
    let tree = Tree { memory, free };
    let root_addr = variables.iter().find_map(|range| tree.find(*range))?;
    let mut findings = Findings::default();
    // Where a span is described lies tcmalloc's own memory; what is claimed better later is no part of it.
    let own = tree.own_memory(root_addr);
    let claim = |range| Claim { range, component: Component::CHeapInUse, evidence: Evidence::Neighbour };
    findings.claims.extend(own.into_iter().map(claim));
    let spans_left = tree.walk(root_addr, &mut findings);
    findings.gaps.push(Gap {
        what: "what of tcmalloc's heap its threads keep in their caches".to_owned(),
        why: "blocks in caches look as if in use; only spans and the lists of free blocks in them are known"
            .to_owned(),
        bytes: None,
    });
    if spans_left == 0 {
        let why = format!("it has more than {MAX_SPANS} spans");
        findings.gaps.push(Gap { what: "the rest of tcmalloc's heap".to_owned(), why, bytes: None });
    }
    Some(findings)
}

/// `struct Span`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    range: AddrRange,
    /// The first of the free blocks of a span of small ones.
    first_free_addr: u64,
    /// Blocks handed out.
    handed_out: u64,
    is_divided: bool,
    /// On one of the page heap's lists.
    is_free: bool,
}

struct Tree<'a> {
    memory: &'a dyn Memory,
    free: &'a AnonymousMemory,
}

impl Tree<'_> {
    /// The root, where it is somewhere in `variables`.
    fn find(&self, variables: AddrRange) -> Option<u64> {
        let mut tried_left = MAX_TRIED;
        let mut addr = variables.start_addr.checked_next_multiple_of(8)?;
        let end_addr = variables.end_addr.min(addr.saturating_add(MAX_SEARCHED_BYTES));
        while addr < end_addr {
            let len_bytes = PIECE_BYTES.min(end_addr - addr);
            for (slot_addr, leaf_addr) in
                (addr..).step_by(8).zip(resident_words(self.memory, addr, len_bytes / 8))
            {
                if leaf_addr == 0 || !self.free.covers_len(leaf_addr, LEAF_WORDS * 8) {
                    continue;
                }
                tried_left = tried_left.checked_sub(1)?;
                if let Some(number) = self.leaf_number(leaf_addr) {
                    return slot_addr
                        .checked_sub(number * 8)
                        .filter(|root_addr| variables.contains(*root_addr));
                }
            }
            addr += len_bytes;
        }
        None
    }

    /// Which leaf it is: by the page that one of the first spans in it states.
    fn leaf_number(&self, leaf_addr: u64) -> Option<u64> {
        let mut words_left = MAX_TRIED_WORDS;
        for first in (0..LEAF_WORDS).step_by((PIECE_BYTES / 8) as usize) {
            let words = resident_words(self.memory, leaf_addr + first * 8, PIECE_BYTES / 8);
            for (index, word) in (first..).zip(words).filter(|(_, word)| *word != 0) {
                words_left = words_left.checked_sub(1)?;
                let Some(span) = self.span(word) else { continue };
                let page = span.range.start_addr / SPAN_PAGE_BYTES;
                if page % LEAF_WORDS == index && page / LEAF_WORDS < ROOT_WORDS {
                    return Some(page / LEAF_WORDS);
                }
            }
        }
        None
    }

    /// The mappings in which the leaves lie: descriptions of spans come from the same places.
    fn own_memory(&self, root_addr: u64) -> BTreeSet<AddrRange> {
        let leaves = resident_words(self.memory, root_addr, ROOT_WORDS);
        let is_leaf = |addr: &u64| *addr != 0 && self.free.covers_len(*addr, LEAF_WORDS * 8);
        leaves.into_iter().filter(is_leaf).filter_map(|addr| self.free.range_at(addr)).collect()
    }

    fn walk(&self, root_addr: u64, findings: &mut Findings) -> usize {
        let mut spans_left = MAX_SPANS;
        let mut addr = 0;
        for range in self.free.ranges() {
            // A span that reaches into this range has claimed what it is of it.
            addr = (range.start_addr / SPAN_PAGE_BYTES * SPAN_PAGE_BYTES).max(addr);
            while addr < range.end_addr && spans_left > 0 {
                let leaf_end_addr = (addr / LEAF_SPAN_BYTES + 1).saturating_mul(LEAF_SPAN_BYTES);
                let slot_addr = root_addr.wrapping_add(addr / LEAF_SPAN_BYTES * 8);
                let is_in_root = addr / LEAF_SPAN_BYTES < ROOT_WORDS;
                let leaf_addr = if is_in_root { self.memory.read_u64(slot_addr).unwrap_or(0) } else { 0 };
                addr = match leaf_addr != 0 && self.free.covers_len(leaf_addr, LEAF_WORDS * 8) {
                    true => {
                        let end_addr = leaf_end_addr.min(range.end_addr);
                        self.walk_leaf(leaf_addr, addr, end_addr, &mut spans_left, findings)
                    }
                    false => leaf_end_addr,
                };
            }
        }
        spans_left
    }

    /// Claims the spans that begin between two addresses of one leaf; where the last of them ends.
    fn walk_leaf(
        &self,
        leaf_addr: u64,
        start_addr: u64,
        end_addr: u64,
        spans_left: &mut usize,
        findings: &mut Findings,
    ) -> u64 {
        let mut known_to_addr = start_addr;
        let mut piece_addr = start_addr;
        while piece_addr < end_addr {
            let first = piece_addr / SPAN_PAGE_BYTES % LEAF_WORDS;
            let pages = (end_addr - piece_addr).div_ceil(SPAN_PAGE_BYTES).min(PIECE_BYTES / 8);
            let words = resident_words(self.memory, leaf_addr + first * 8, pages);
            for (addr, word) in (piece_addr..).step_by(SPAN_PAGE_BYTES as usize).zip(words) {
                if word == 0 || addr < known_to_addr || *spans_left == 0 {
                    continue;
                }
                *spans_left -= 1;
                // Where spans were joined, the pages between keep pointers to what is no span any more.
                if let Some(span) = self.span(word).filter(|span| span.range.start_addr == addr) {
                    known_to_addr = span.range.end_addr;
                    self.claim(&span, findings);
                }
            }
            piece_addr += pages * SPAN_PAGE_BYTES;
        }
        known_to_addr.max(piece_addr)
    }

    fn claim(&self, span: &Span, findings: &mut Findings) {
        let free_blocks = if span.is_divided && !span.is_free { self.free_blocks(span) } else { Vec::new() };
        if free_blocks.is_empty() {
            let component = if span.is_free { Component::CHeapFree } else { Component::CHeapInUse };
            for part in self.free.within(span.range) {
                push_claim(findings, part, component);
                if !span.is_free {
                    push_slack(findings, part, 0);
                }
            }
            return;
        }
        // No list says how long a block is: all of them make up the span.
        let blocks = free_blocks.len() as u64 + span.handed_out;
        let block_bytes = (span.range.len_bytes() / blocks) & !7;
        let mut uses = PageUses::new(span.range);
        uses.add_live(span.range.start_addr, span.range.end_addr);
        for addr in free_blocks {
            uses.remove_live(addr, addr + block_bytes);
        }
        for part in self.free.within(span.range) {
            uses.claim(part, findings);
        }
    }

    /// The blocks on a span's list; none where it leads out of the span, or is longer than can be.
    fn free_blocks(&self, span: &Span) -> Vec<u64> {
        let mut blocks = Vec::new();
        let mut addr = span.first_free_addr;
        if addr == 0 || span.range.len_bytes() > MAX_DIVIDED_BYTES {
            return blocks;
        }
        let mut bytes = vec![0; span.range.len_bytes() as usize];
        self.memory.read_resident(span.range.start_addr, &mut bytes);
        let most = bytes.len() / 8;
        while addr != 0 {
            let next = addr.checked_sub(span.range.start_addr).and_then(|offset| {
                bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied().map(u64::from_le_bytes)
            });
            let Some(next) = next.filter(|_| blocks.len() < most) else { return Vec::new() };
            blocks.push(addr);
            addr = next;
        }
        blocks
    }

    /// The span described at `addr`, where it makes sense.
    fn span(&self, addr: u64) -> Option<Span> {
        if !addr.is_multiple_of(8) || !self.free.covers_len(addr, SPAN_BYTES as u64) {
            return None;
        }
        let words = words_of(&self.memory.read_vec(addr, SPAN_BYTES).ok()?);
        let [first_page, pages, _, _, first_free_addr, bits] = words[..] else { return None };
        let start_addr = first_page.checked_mul(SPAN_PAGE_BYTES)?;
        let range = AddrRange::with_len(start_addr, pages.checked_mul(SPAN_PAGE_BYTES)?)?;
        let location = bits >> 24 & 3;
        Some(Span {
            range,
            first_free_addr,
            handed_out: bits & 0xffff,
            is_divided: bits >> 16 & 0xff != 0,
            is_free: location != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address::PAGE_BYTES;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    const HEAP_ADDR: u64 = 0x7f00_0000_0000;
    const LEAF_ADDR: u64 = 0x7f10_0000_0000;
    const SPANS_ADDR: u64 = LEAF_ADDR + LEAF_WORDS * 8;
    const ROOT_ADDR: u64 = 0x5600_0000_0000;

    fn bytes_of(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn free_memory() -> AnonymousMemory {
        let regions = [
            region(HEAP_ADDR, HEAP_ADDR + 0x10_0000, "rw-p", ""),
            region(LEAF_ADDR, SPANS_ADDR + 0x1000, "rw-p", ""),
        ];
        AnonymousMemory::new(&regions, &[])
    }

    /// Spans as (pages of 8 KiB, first free block, bits), one after the other.
    fn read_spans(spans: &[(u64, u64, u64)]) -> Option<Findings> {
        let mut leaf = vec![0; LEAF_WORDS as usize];
        let mut described = Vec::new();
        let mut page = HEAP_ADDR / SPAN_PAGE_BYTES;
        for (number, (pages, first_free, bits)) in (0..).zip(spans) {
            leaf[(page % LEAF_WORDS) as usize] = SPANS_ADDR + number * SPAN_BYTES as u64;
            described.extend([page, *pages, 0, 0, *first_free, *bits]);
            page += pages;
        }
        let mut root = vec![0; (ROOT_WORDS * 8) as usize];
        let slot = (HEAP_ADDR / LEAF_SPAN_BYTES * 8) as usize;
        root[slot..slot + 8].copy_from_slice(&LEAF_ADDR.to_le_bytes());
        let memory = Pieces(vec![
            (ROOT_ADDR, root),
            (LEAF_ADDR, bytes_of(&leaf)),
            (SPANS_ADDR, bytes_of(&described)),
            (HEAP_ADDR, vec![0; 0x10_0000]),
        ]);
        let variables = AddrRange::with_len(ROOT_ADDR, ROOT_WORDS * 8).unwrap();
        read(&memory, &[variables], &free_memory())
    }

    #[test]
    fn spans_of_the_page_heap_are_free_and_blocks_on_lists_are_slack() {
        // A large block, a span on a free list, and one of two blocks of 4 KiB of which the second is free.
        let free_block = HEAP_ADDR + 5 * SPAN_PAGE_BYTES + PAGE_BYTES;
        let findings = read_spans(&[(2, 0, 1), (3, 0, 1 << 24), (1, free_block, 1 | 7 << 16)]).unwrap();
        let proven = findings.claims.iter().filter(|claim| claim.evidence == Evidence::Structure);
        let shown: Vec<_> = proven
            .map(|claim| {
                let first = (claim.range.start_addr - HEAP_ADDR) / PAGE_BYTES;
                (first, claim.range.len_bytes() / PAGE_BYTES, claim.component == Component::CHeapFree)
            })
            .collect();
        assert_eq!(shown, [(0, 4, false), (4, 6, true), (10, 1, false), (11, 1, true)]);
        assert_eq!(findings.gaps.len(), 1, "what threads cache is not known");
    }

    #[test]
    fn without_a_tree_there_is_nothing() {
        let variables = AddrRange::with_len(ROOT_ADDR, 0x1000).unwrap();
        assert_eq!(read(&Pieces::default(), &[variables], &free_memory()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn garbage_never_panics_and_never_claims_what_is_not_there(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..8),
            spans in prop::collection::vec((1u64..40, any::<u64>(), any::<u64>()), 1..10),
        ) {
            let free = free_memory();
            let likely = [0, 1, LEAF_ADDR, SPANS_ADDR, HEAP_ADDR / SPAN_PAGE_BYTES, HEAP_ADDR, 1 << 24, u64::MAX];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            let tree = Tree { memory: &memory, free: &free };
            let _ = tree.find(AddrRange::with_len(ROOT_ADDR, 0x100).unwrap());
            for claim in read_spans(&spans).map_or_else(Vec::new, |findings| findings.claims) {
                prop_assert!(free.covers(claim.range));
            }
        }
    }
}
