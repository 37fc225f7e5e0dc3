//! PartitionAlloc, the malloc of Chromium and of what is built on it: which slot spans hold blocks, and which it keeps.
//!
//! It has super pages of 2 MiB, in reservations of 16 GiB, divided into partition pages of 16 KiB; one or some of these
//! are a slot span, with blocks of one size. Refuses what it cannot find: a process without one page of descriptions
//! ([`description`]) has no PartitionAlloc. The surprise: what threads keep in their caches counts as handed out in the
//! spans, so it is in use here, as it is for tcmalloc.
//!
//! Facts: `partition_alloc_constants.h`, `partition_page.h`, `partition_bucket.h`; tried on Chromium 156.

mod description;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::description::{Described, Span};
use super::anonymous::{AnonymousMemory, resident, resident_words};
use super::pages::{push_claim, push_slack};
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Component, Findings, Gap};
use crate::target::memory::Memory;

/// `kSuperPageSize`.
const SUPER_PAGE_BYTES: u64 = 2 << 20;
/// `PartitionPageSize()` where the kernel's pages have 4 KiB.
const PARTITION_PAGE_BYTES: u64 = 16 << 10;
/// Pages of descriptions: of a heap of 128 GiB.
const MAX_DESCRIBED: usize = 1 << 16;
/// A page of descriptions is a mapping of its own, or has one page of PartitionAlloc's own behind it.
const MAX_DESCRIPTIONS_BYTES: u64 = 2 * PAGE_BYTES;
/// `slot_size` in `struct PartitionBucket`. `num_system_pages_per_slot_span` is the byte behind it: of 4 bytes, as in the
/// sources of 2024, or of 8, as in Chromium 156.
const SLOT_SIZE_OFFSET: u64 = 24;

/// Claims what PartitionAlloc holds of `free`, the memory that nobody else owns. `None` where nothing is described.
pub fn read(memory: &dyn Memory, free: &AnonymousMemory) -> Option<Findings> {
    let mut heap = Heap { memory, free, buckets: HashMap::new(), damaged: 0 };
    let super_pages = super_pages(heap.described(), free);
    let mut findings = Findings::default();
    for (super_page_addr, described) in &super_pages {
        heap.divide(*super_page_addr, described, &mut findings);
    }
    // Where the descriptions are within the super pages, that memory is claimed already.
    let outside =
        super_pages.values().filter(|described| !super_pages.contains_key(&super_page_of(described.addr)));
    let mut own: Vec<u64> = outside.map(|described| described.addr).collect();
    own.sort_unstable();
    for range in own.into_iter().filter_map(|addr| free.range_at(addr)) {
        push_claim(&mut findings, range, Component::CHeapInUse);
    }
    if findings.claims.is_empty() {
        return None;
    }
    findings.gaps.push(Gap {
        what: "what of PartitionAlloc's heap its threads keep in their caches".to_owned(),
        why: "blocks in caches look as if in use, and spans are only told as empty or not".to_owned(),
        bytes: None,
    });
    if heap.damaged > 0 {
        findings.gaps.push(Gap {
            what: format!("{} of PartitionAlloc's slot spans", heap.damaged),
            why: "their descriptions changed while they were read, or are of another version; they count as in use"
                .to_owned(),
            bytes: None,
        });
    }
    Some(findings)
}

fn super_page_of(addr: u64) -> u64 {
    addr & !(SUPER_PAGE_BYTES - 1)
}

/// Which super page each page of descriptions is about, by the super page's address.
///
/// Most say so by their lists of free slots. The others lie as far from their super page as a page of the same
/// reservation does.
fn super_pages(described: Vec<Described>, free: &AnonymousMemory) -> BTreeMap<u64, Described> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        described.into_iter().partition(|described| described.super_page_addr.is_some());
    let mut found = BTreeMap::new();
    let mut distances = BTreeSet::new();
    for described in known {
        let Some(super_page_addr) = described.super_page_addr else { continue };
        distances.insert(described.addr.wrapping_sub(super_page_addr));
        found.entry(super_page_addr).or_insert(described);
    }
    for described in unknown {
        let is_super_page = |addr: &u64| {
            let first_span_addr = addr.checked_add(PARTITION_PAGE_BYTES);
            addr.is_multiple_of(SUPER_PAGE_BYTES)
                && !found.contains_key(addr)
                && first_span_addr.is_some_and(|addr| free.range_at(addr).is_some())
        };
        let places = distances.iter().map(|distance| described.addr.wrapping_sub(*distance));
        if let Some(super_page_addr) = places.into_iter().find(is_super_page) {
            found.insert(super_page_addr, described);
        }
    }
    found
}

/// The slots of a bucket: `struct PartitionBucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    slot_bytes: u64,
    span_bytes: u64,
}

struct Heap<'a> {
    memory: &'a dyn Memory,
    free: &'a AnonymousMemory,
    buckets: HashMap<u64, Option<Bucket>>,
    /// Spans whose description is none.
    damaged: usize,
}

impl Heap<'_> {
    /// Every page of descriptions there is.
    fn described(&self) -> Vec<Described> {
        let candidates =
            self.free.ranges().iter().filter(|range| range.len_bytes() <= MAX_DESCRIPTIONS_BYTES);
        let page = |range: &AddrRange| resident(self.memory, range.start_addr, PAGE_BYTES as usize);
        let described = candidates.filter_map(|range| Described::parse(&page(range), range.start_addr));
        described.take(MAX_DESCRIBED).collect()
    }

    fn divide(&mut self, super_page_addr: u64, described: &Described, findings: &mut Findings) {
        let mut free_from_addr = super_page_addr;
        let mut end_addr = super_page_addr.saturating_add(SUPER_PAGE_BYTES);
        for span in &described.spans {
            let Some(bucket) = self.bucket(span.bucket_addr) else {
                self.damaged += 1;
                continue;
            };
            let start_addr = super_page_addr + span.index as u64 * PARTITION_PAGE_BYTES;
            if described.contains(span.bucket_addr) {
                // One large block has a bucket of its own there, and as many super pages as it needs.
                let whole =
                    start_addr.saturating_add(bucket.slot_bytes).checked_next_multiple_of(SUPER_PAGE_BYTES);
                end_addr = whole.unwrap_or(end_addr).max(end_addr);
                continue;
            }
            let slots = bucket.span_bytes / bucket.slot_bytes;
            let range = AddrRange::with_len(start_addr, bucket.span_bytes);
            let Some(range) = range.filter(|range| {
                range.end_addr <= end_addr
                    && range.start_addr >= free_from_addr
                    && span.allocated + span.unprovisioned <= slots
            }) else {
                self.damaged += 1;
                continue;
            };
            self.claim_in_use(free_from_addr, range.start_addr, findings);
            free_from_addr = range.end_addr;
            self.claim_span(range, span, bucket, findings);
        }
        self.claim_in_use(free_from_addr, end_addr, findings);
    }

    /// A span without a block in use is kept for the next.
    fn claim_span(&self, range: AddrRange, span: &Span, bucket: Bucket, findings: &mut Findings) {
        if span.allocated == 0 {
            for part in self.free.within(range) {
                push_claim(findings, part, Component::CHeapFree);
            }
            return;
        }
        self.claim_in_use(range.start_addr, range.end_addr, findings);
        push_slack(findings, range, bucket.span_bytes - span.allocated * bucket.slot_bytes);
    }

    fn claim_in_use(&self, start_addr: u64, end_addr: u64, findings: &mut Findings) {
        let Some(range) = AddrRange::new(start_addr, end_addr) else { return };
        for part in self.free.within(range) {
            push_claim(findings, part, Component::CHeapInUse);
        }
    }

    /// The bucket at `addr`, where it is one. A bucket of one large block knows no pages.
    fn bucket(&mut self, addr: u64) -> Option<Bucket> {
        let memory = self.memory;
        *self.buckets.entry(addr).or_insert_with(|| {
            let size_addr = addr.checked_add(SLOT_SIZE_OFFSET)?;
            let &[size, next] = &resident_words(memory, size_addr, 2)[..] else { return None };
            let (slot_bytes, after_four) = (size & u64::from(u32::MAX), size >> 32);
            let pages = if after_four > 0 { after_four } else { next } & 0xff;
            (slot_bytes > 0).then_some(Bucket { slot_bytes, span_bytes: pages * PAGE_BYTES })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::description::tests::{description, page};
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::maps::Region;
    use crate::target::memory::canned::Pieces;

    const POOL: u64 = 0x3d2c_0000_0000;
    const DESCRIPTIONS: u64 = 0x1bd6_9a48_a000;
    const ROOT: u64 = 0x55f5_0000_0000;

    /// Two super pages: the first tells its place, of the second all spans are full or empty.
    fn regions() -> Vec<Region> {
        vec![
            region(DESCRIPTIONS, DESCRIPTIONS + 0x1000, "rw-p", ""),
            region(DESCRIPTIONS + SUPER_PAGE_BYTES, DESCRIPTIONS + SUPER_PAGE_BYTES + 0x1000, "rw-p", ""),
            region(POOL + 0x4000, POOL + 0x20000, "rw-p", ""),
            region(POOL + SUPER_PAGE_BYTES + 0x4000, POOL + SUPER_PAGE_BYTES + 0x20000, "rw-p", ""),
            region(ROOT, ROOT + 0x1000, "rw-p", ""),
        ]
    }

    fn memory() -> Pieces {
        let buckets: [[u64; 6]; 2] = [[0, 0, 0, 64, 4 | 3 << 8, 0], [0, 0, 0, 8192 | 4 << 32, 1, 0]];
        let root: Vec<u8> = buckets.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        let (small, large) = (ROOT, ROOT + 48);
        let first = page(ROOT, &[description(POOL + 0x4100, small, 200, 0), description(0, large, 2, 0)]);
        let second = page(ROOT, &[description(0, small, 256, 0), description(0, large, 0, 0)]);
        Pieces(vec![(ROOT, root), (DESCRIPTIONS, first), (DESCRIPTIONS + SUPER_PAGE_BYTES, second)])
    }

    fn bytes_of(findings: &Findings, component: Component) -> u64 {
        let claims = findings.claims.iter().filter(|claim| claim.component == component);
        claims.map(|claim| claim.range.len_bytes()).sum()
    }

    #[test]
    fn spans_are_in_use_or_kept() {
        let free = AnonymousMemory::new(&regions()[..4], &[]);
        let findings = read(&memory(), &free).unwrap();
        assert_eq!(bytes_of(&findings, Component::CHeapFree), 16 << 10, "the span without a block");
        assert_eq!(bytes_of(&findings, Component::CHeapInUse), (2 * 0x1c000) - (16 << 10) + 0x2000);
        assert_eq!(findings.slack.iter().map(|slack| slack.dead_bytes).sum::<u64>(), 56 * 64);
        assert_eq!(findings.gaps.len(), 1, "caches: {:?}", findings.gaps);
    }

    #[test]
    fn a_span_that_holds_more_than_it_can_is_named() {
        let mut memory = memory();
        let bucket = ROOT + 48;
        memory.0[1].1 = page(ROOT, &[description(POOL + 0x4100, ROOT, 200, 0), description(0, bucket, 3, 0)]);
        let findings = read(&memory, &AnonymousMemory::new(&regions()[..4], &[])).unwrap();
        assert!(findings.gaps[1].what.starts_with("1 of "), "{:?}", findings.gaps);
    }

    #[test]
    fn a_large_block_has_its_super_pages_to_itself() {
        let mut regions = regions();
        regions[2] = region(POOL + 0x4000, POOL + 3 * SUPER_PAGE_BYTES - 0x2000, "rw-p", "");
        regions.remove(3);
        let mut memory = memory();
        let own_bucket = DESCRIPTIONS + 96;
        let mut described = page(ROOT, &[description(POOL + 0x4000, own_bucket, 1, 0)]);
        described[96 + 24..][..8].copy_from_slice(&(5u64 << 20).to_le_bytes());
        memory.0[1].1 = described;
        let findings = read(&memory, &AnonymousMemory::new(&regions, &[])).unwrap();
        let block = findings.claims.iter().find(|claim| claim.range.start_addr == POOL + 0x4000).unwrap();
        assert_eq!(block.range.end_addr, POOL + 3 * SUPER_PAGE_BYTES - 0x2000);
    }

    #[test]
    fn without_a_description_there_is_none() {
        let free = AnonymousMemory::new(&regions(), &[]);
        assert_eq!(read(&Pieces(vec![(DESCRIPTIONS, vec![0; 4096])]), &free), None);
        assert_eq!(read(&Pieces::default(), &free), None);
    }

    proptest! {
        /// Words that lead to each other, wherever they are read.
        #[test]
        fn garbage_never_panics(seed: u64, more: u64) {
            let span = 0x40_0001_0000_0000 | 0x155;
            let pool = vec![0, ROOT, POOL + 0x4100, DESCRIPTIONS + 96, span, span ^ 0xff, 64 | 4 << 32, more];
            let free = AnonymousMemory::new(&regions(), &[]);
            if let Some(findings) = read(&Noise { seed, pool }, &free) {
                prop_assert!(findings.claims.iter().all(|claim| free.covers(claim.range)));
            }
        }
    }
}
