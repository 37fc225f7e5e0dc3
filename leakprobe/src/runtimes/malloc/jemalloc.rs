//! jemalloc 5.3: which pages hold blocks, and which it keeps for later (dirty or muzzy).
//!
//! A radix tree in its .bss leads from every page to the descriptor of the extent it belongs to; the tree is
//! found by what it holds, since a stripped library names it not: a descriptor states the address at which the
//! tree lists it. Refuses versions whose descriptors do not agree with the tree. The surprise: descriptors that
//! are out of use keep their last contents, so only those that the tree leads to are believed.
//!
//! Facts: jemalloc 5.3.0 `rtree.h`, `edata.h`, `emap.c` for 48 address bits and pages of 4 KiB; tried with
//! Debian's libjemalloc 5.3.0 and Redis, whose `allocator_active` is the sum of what is found in use.

use std::collections::{BTreeSet, HashMap};

use super::anonymous::{AnonymousMemory, resident};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence, Findings, Gap, Slack};
use crate::target::memory::Memory;

/// Two levels of 2^18 words each: the first by 1 GiB, the second by page.
const LEVEL_WORDS: u64 = 1 << 18;
const LEAF_SPAN_BYTES: u64 = LEVEL_WORDS * PAGE_BYTES;
/// A leaf's word: slab, head and state below a descriptor's address, above them the size class.
const DESCRIPTOR_MASK: u64 = ((1 << 48) - 1) & !(DESCRIPTOR_BYTES - 1);
/// `EDATA_ALIGNMENT`, and no less than a descriptor.
const DESCRIPTOR_BYTES: u64 = 128;
/// .bss that is searched for the tree.
const MAX_SEARCHED_BYTES: u64 = 64 << 20;
/// Words of .bss tried as pointers to a leaf.
const MAX_TRIED: usize = 4096;
/// Words of a leaf that lead somewhere and may be out of date, looked at to try it.
const MAX_TRIED_WORDS: usize = 64;
/// Bytes of a leaf read at a time to try it.
const TRIED_BYTES: usize = 64 << 10;
/// Extents that are followed: at the smallest, 64 GiB of them.
const MAX_EXTENTS: usize = 1 << 24;
/// Descriptors are read in pieces, so many of which are kept.
const PIECE_BYTES: u64 = 64 << 10;
const MAX_PIECES: usize = 256;
/// What jemalloc takes for itself, it takes in blocks aligned like this (`HUGEPAGE`).
const BASE_BLOCK_BYTES: u64 = 2 << 20;

/// Claims what jemalloc holds of `free`, the memory that nobody else owns; its variables are in `bss`. `None` where
/// its tree was not found.
pub fn claims(memory: &dyn Memory, bss: &[AddrRange], free: &AnonymousMemory) -> Option<Findings> {
    let mut findings = Findings::default();
    let mut reader = Reader::new(memory, free);
    let tree_addr = bss.iter().find_map(|range| reader.find_tree(*range))?;
    reader.walk(tree_addr, &mut findings);
    Some(findings)
}

/// A run of pages that jemalloc manages as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    range: AddrRange,
    /// `extent_state_active`; else it is kept for later.
    is_active: bool,
    /// Bytes of free blocks in a slab.
    dead_bytes: u64,
}

struct Reader<'a> {
    memory: &'a dyn Memory,
    free: &'a AnonymousMemory,
    pieces: HashMap<u64, Vec<u8>>,
    /// Blocks in which descriptors lie: jemalloc's own memory.
    own: BTreeSet<u64>,
}

impl<'a> Reader<'a> {
    fn new(memory: &'a dyn Memory, free: &'a AnonymousMemory) -> Self {
        Self { memory, free, pieces: HashMap::new(), own: BTreeSet::new() }
    }

    /// The tree's first level, where it is somewhere in `bss`.
    fn find_tree(&mut self, bss: AddrRange) -> Option<u64> {
        let mut tried_left = MAX_TRIED;
        let mut addr = bss.start_addr.checked_next_multiple_of(8)?;
        let end_addr = bss.end_addr.min(addr.saturating_add(MAX_SEARCHED_BYTES));
        while addr < end_addr {
            let len_bytes = PIECE_BYTES.min(end_addr - addr);
            let piece = resident(self.memory, addr, usize::try_from(len_bytes).ok()?);
            for (slot_addr, word) in (addr..).step_by(8).zip(piece.as_chunks().0) {
                let leaf_addr = u64::from_le_bytes(*word);
                if leaf_addr == 0 || !self.free.covers_len(leaf_addr, LEVEL_WORDS * 8) {
                    continue;
                }
                tried_left = tried_left.checked_sub(1)?;
                if let Some(number) = self.leaf_number(leaf_addr) {
                    return slot_addr.checked_sub(number * 8).filter(|tree_addr| bss.contains(*tree_addr));
                }
            }
            addr += len_bytes;
        }
        None
    }

    /// Which leaf it is at `leaf_addr`: by the address that one of the first descriptors in it states.
    fn leaf_number(&mut self, leaf_addr: u64) -> Option<u64> {
        let mut words_left = MAX_TRIED_WORDS;
        let mut offset = 0;
        while offset < LEVEL_WORDS * 8 {
            let words = resident(self.memory, leaf_addr + offset, TRIED_BYTES);
            let words = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
            for (page, word) in (offset / 8..).zip(words).filter(|(_, word)| leads_somewhere(*word)) {
                words_left = words_left.checked_sub(1)?;
                let Some(extent) = self.stated(word) else { continue };
                let start_addr = extent.range.start_addr;
                if start_addr / PAGE_BYTES % LEVEL_WORDS == page {
                    return Some(start_addr / LEAF_SPAN_BYTES);
                }
            }
            offset += TRIED_BYTES as u64;
        }
        None
    }

    /// The extent whose descriptor a leaf's word leads to, where word and descriptor agree.
    fn stated(&mut self, word: u64) -> Option<Extent> {
        let [bits, addr, size] = self.descriptor(word & DESCRIPTOR_MASK)?;
        let (state, is_slab) = (bits >> 17 & 7, bits >> 12 & 1);
        // What is not in use keeps the slab and the size class of its last use in the tree.
        let is_same_use = word & 1 == is_slab && word >> 48 == bits >> 20 & 0xff;
        let agrees = word >> 2 & 7 == state && (state != 0 || is_same_use);
        // A large block begins anywhere in its first page, and its last page may be padding.
        let range = AddrRange::with_len(addr & !(PAGE_BYTES - 1), size & !(PAGE_BYTES - 1))?;
        let free_blocks = bits >> 28 & 0x3ff;
        let dead_bytes =
            if is_slab == 1 { free_blocks.saturating_mul(size_of_class(bits >> 20 & 0xff)) } else { 0 };
        agrees.then(|| Extent { range, is_active: state == 0, dead_bytes: dead_bytes.min(range.len_bytes()) })
    }

    /// `e_bits`, `e_addr`, `e_size_esn` of the descriptor at `addr`.
    fn descriptor(&mut self, addr: u64) -> Option<[u64; 3]> {
        let piece_addr = addr & !(PIECE_BYTES - 1);
        if !self.pieces.contains_key(&piece_addr) {
            if self.pieces.len() >= MAX_PIECES {
                self.pieces.clear();
            }
            // The block may end, or begin, within the piece.
            let within =
                self.free.range_at(addr)?.intersection(&AddrRange::with_len(piece_addr, PIECE_BYTES)?)?;
            let bytes =
                self.memory.read_vec(within.start_addr, usize::try_from(within.len_bytes()).ok()?).ok()?;
            let lead_bytes = usize::try_from(within.start_addr - piece_addr).ok()?;
            let mut piece = vec![0; lead_bytes];
            piece.extend(bytes);
            self.pieces.insert(piece_addr, piece);
        }
        self.own.insert(addr & !(BASE_BLOCK_BYTES - 1));
        let offset = usize::try_from(addr - piece_addr).ok()?;
        let bytes = self.pieces.get(&piece_addr)?.get(offset..offset.checked_add(24)?)?;
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(words)
    }

    fn walk(&mut self, tree_addr: u64, findings: &mut Findings) {
        let free = self.free;
        let mut extents_left = MAX_EXTENTS;
        // What others own may end within a page.
        for range in free.ranges().iter().filter_map(AddrRange::whole_pages) {
            let mut addr = range.start_addr;
            while addr < range.end_addr && extents_left > 0 {
                let leaf_end_addr = (addr / LEAF_SPAN_BYTES + 1).saturating_mul(LEAF_SPAN_BYTES);
                let Some(part) = AddrRange::new(addr, leaf_end_addr.min(range.end_addr)) else { break };
                addr = part.end_addr;
                let leaf_slot_addr = tree_addr.wrapping_add(part.start_addr / LEAF_SPAN_BYTES * 8);
                let leaf_addr = self.memory.read_u64(leaf_slot_addr).unwrap_or(0);
                if leaf_addr != 0 && self.free.covers_len(leaf_addr, LEVEL_WORDS * 8) {
                    self.own.insert(leaf_addr & !(BASE_BLOCK_BYTES - 1));
                    self.walk_leaf(leaf_addr, part, &mut extents_left, findings);
                }
            }
        }
        let own = self.own.iter().filter_map(|start_addr| AddrRange::with_len(*start_addr, BASE_BLOCK_BYTES));
        let own =
            own.flat_map(|block| free.ranges().iter().filter_map(move |range| range.intersection(&block)));
        findings.claims.extend(own.map(|range| claim(range, Component::CHeapInUse, Evidence::Neighbour)));
        if extents_left == 0 {
            let why = format!("it has more than {MAX_EXTENTS} extents");
            findings.gaps.push(Gap { what: "the rest of jemalloc's heap".to_owned(), why, bytes: None });
        }
    }

    /// Claims the extents of `part`, which one leaf lists. A word that no descriptor agrees with is out of date,
    /// or was written just now: what it stands for stays unknown.
    fn walk_leaf(
        &mut self,
        leaf_addr: u64,
        part: AddrRange,
        extents_left: &mut usize,
        findings: &mut Findings,
    ) {
        let mut known_to_addr = part.start_addr;
        let mut piece_addr = part.start_addr;
        while piece_addr < part.end_addr {
            let first = piece_addr / PAGE_BYTES % LEVEL_WORDS;
            let pages = ((part.end_addr - piece_addr) / PAGE_BYTES).min(PIECE_BYTES / 8);
            let words = resident(self.memory, leaf_addr + first * 8, (pages * 8) as usize);
            for (addr, word) in (piece_addr..).step_by(PAGE_BYTES as usize).zip(words.as_chunks().0) {
                let word = u64::from_le_bytes(*word);
                if !leads_somewhere(word) || addr < known_to_addr || *extents_left == 0 {
                    continue;
                }
                *extents_left -= 1;
                if let Some(extent) = self.stated(word).filter(|extent| extent.range.start_addr == addr) {
                    known_to_addr = extent.range.end_addr;
                    push(findings, extent);
                }
            }
            piece_addr += pages * PAGE_BYTES;
        }
    }
}

/// Whether a leaf's word leads to a descriptor: where two extents became one, what lay between them keeps a
/// size class and no address.
fn leads_somewhere(word: u64) -> bool {
    word & DESCRIPTOR_MASK != 0
}

/// Adds an extent, to the claim before it where that goes on.
fn push(findings: &mut Findings, extent: Extent) {
    let component = if extent.is_active { Component::CHeapInUse } else { Component::CHeapFree };
    match findings.claims.last_mut() {
        Some(last) if last.range.end_addr == extent.range.start_addr && last.component == component => {
            last.range.end_addr = extent.range.end_addr;
        }
        _ => findings.claims.push(claim(extent.range, component, Evidence::Structure)),
    }
    if !extent.is_active {
        return;
    }
    match findings.slack.last_mut() {
        Some(last)
            if last.range.end_addr == extent.range.start_addr && last.range.len_bytes() < PIECE_BYTES =>
        {
            last.range.end_addr = extent.range.end_addr;
            last.dead_bytes += extent.dead_bytes;
        }
        _ => findings.slack.push(Slack { range: extent.range, dead_bytes: extent.dead_bytes }),
    }
}

fn claim(range: AddrRange, component: Component, evidence: Evidence) -> Claim {
    Claim { range, component, evidence }
}

/// Bytes of a block of a slab's size class: 8, multiples of 16 to 128, then four to each doubling
/// (jemalloc `sc.c`, with a quantum of 16).
fn size_of_class(class: u64) -> u64 {
    match class {
        0 => 8,
        1..=8 => class * 16,
        _ => {
            let (group, step) = ((class - 9) / 4, (class - 9) % 4);
            let base_bytes = 128_u64.checked_shl(group as u32).unwrap_or(0);
            base_bytes.saturating_add(base_bytes / 4 * (step + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    const HEAP_ADDR: u64 = 0x7f00_4000_0000;
    const BASE_ADDR: u64 = 0x7f10_0020_0000;
    const LEAF_ADDR: u64 = BASE_ADDR + 0x1_0000;
    const TREE_ADDR: u64 = 0x5600_0000_0000;
    const SLOT_ADDR: u64 = TREE_ADDR + HEAP_ADDR / LEAF_SPAN_BYTES * 8;

    /// Address of descriptor `index`.
    fn place(index: u64) -> u64 {
        BASE_ADDR + index * DESCRIPTOR_BYTES
    }

    fn descriptor(state: u64, class: u64, free_blocks: Option<u64>, addr: u64, pages: u64) -> Vec<u8> {
        let slab = u64::from(free_blocks.is_some());
        let bits = slab << 12 | state << 17 | class << 20 | free_blocks.unwrap_or(0) << 28;
        let mut bytes: Vec<u8> =
            [bits, addr, (pages * PAGE_BYTES) | 5].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(DESCRIPTOR_BYTES as usize, 0);
        bytes
    }

    fn listed(index: u64, state: u64, class: u64, slab: u64) -> u64 {
        class << 48 | place(index) | state << 2 | slab
    }

    /// A slab of one page with 3 free blocks of 32 bytes, a large block of 3 pages, 2 dirty pages.
    fn canned(changed: Option<(usize, u64)>) -> (Pieces, AnonymousMemory) {
        let mut base = descriptor(0, 2, Some(3), HEAP_ADDR, 1);
        base.extend(descriptor(0, 40, None, HEAP_ADDR + PAGE_BYTES + 0x40, 3));
        base.extend(descriptor(1, 235, None, HEAP_ADDR + 4 * PAGE_BYTES, 2));
        base.resize((LEVEL_WORDS * 8) as usize + 0x1_0000, 0);
        let merged = 235 << 48;
        let mut leaf = vec![listed(0, 0, 2, 1), listed(1, 0, 40, 0), merged, listed(1, 0, 40, 0)];
        leaf.extend([listed(2, 1, 7, 1), listed(2, 1, 235, 0)]);
        if let Some((index, word)) = changed {
            leaf[index] = word;
        }
        for (index, word) in leaf.iter().enumerate() {
            base[0x1_0000 + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        let mut bss = vec![0; 0x2000];
        bss[0x1000..0x1008].copy_from_slice(&LEAF_ADDR.to_le_bytes());
        let regions = [
            region(HEAP_ADDR, HEAP_ADDR + 8 * PAGE_BYTES, "rw-p", ""),
            region(BASE_ADDR, BASE_ADDR + 0x40_0000, "rw-p", ""),
        ];
        let free = AnonymousMemory::new(&regions, &[]);
        (Pieces(vec![(SLOT_ADDR - 0x1000, bss), (BASE_ADDR, base)]), free)
    }

    fn bss() -> AddrRange {
        AddrRange::new(TREE_ADDR, SLOT_ADDR + 0x1000).unwrap()
    }

    fn heap(from_page: u64, pages: u64) -> AddrRange {
        AddrRange::with_len(HEAP_ADDR + from_page * PAGE_BYTES, pages * PAGE_BYTES).unwrap()
    }

    #[test]
    fn the_tree_tells_used_pages_from_kept_ones() {
        let (memory, free) = canned(None);
        let mut reader = Reader::new(&memory, &free);
        assert_eq!(reader.leaf_number(LEAF_ADDR), Some(HEAP_ADDR / LEAF_SPAN_BYTES));
        let mut findings = Findings::default();
        reader.walk(TREE_ADDR, &mut findings);
        assert_eq!(findings.claims[0], claim(heap(0, 4), Component::CHeapInUse, Evidence::Structure));
        assert_eq!(findings.claims[1], claim(heap(4, 2), Component::CHeapFree, Evidence::Structure));
        assert_eq!(findings.slack, [Slack { range: heap(0, 4), dead_bytes: 96 }]);
        assert_eq!(findings.gaps, []);
    }

    #[test]
    fn the_tree_is_found_by_what_it_holds() {
        let (memory, free) = canned(None);
        let searched = AddrRange::new(SLOT_ADDR - 0x1000, SLOT_ADDR + 0x1000).unwrap();
        let mut reader = Reader::new(&memory, &free);
        assert_eq!(reader.find_tree(searched), None, "it would begin outside");
        assert!(bss().contains(TREE_ADDR));
    }

    #[test]
    fn what_a_descriptor_contradicts_stays_unknown() {
        // A state of its own in the tree, and a page that lists another's extent.
        for (changed, claimed_pages) in [((0, listed(0, 1, 2, 1)), 5), ((4, listed(1, 0, 40, 0)), 4)] {
            let (memory, free) = canned(Some(changed));
            let mut findings = Findings::default();
            Reader::new(&memory, &free).walk(TREE_ADDR, &mut findings);
            let structure = findings.claims.iter().filter(|claim| claim.evidence == Evidence::Structure);
            let pages = structure.map(|claim| claim.range.len_bytes() / PAGE_BYTES).sum::<u64>();
            assert_eq!(pages, claimed_pages, "{changed:?}: {findings:?}");
        }
    }

    #[test]
    fn size_classes_are_those_of_jemalloc() {
        let sizes: Vec<u64> = [0, 1, 8, 9, 12, 13, 16, 17, 35].into_iter().map(size_of_class).collect();
        assert_eq!(sizes, [8, 16, 128, 160, 256, 320, 512, 640, 14336]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn garbage_never_panics(seed: u64) {
            let regions = [region(HEAP_ADDR, HEAP_ADDR + (8 << 20), "rw-p", "")];
            let free = AnonymousMemory::new(&regions, &[]);
            let memory = Noise { seed, pool: vec![0, HEAP_ADDR, HEAP_ADDR + 0x1080, u64::MAX] };
            let mut reader = Reader::new(&memory, &free);
            let _ = reader.find_tree(AddrRange::with_len(TREE_ADDR, 0x1000).unwrap());
            reader.walk(TREE_ADDR, &mut Findings::default());
        }
    }
}
