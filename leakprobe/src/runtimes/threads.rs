//! Stacks of operating-system threads: `[stack]`, and those that glibc's `pthread_create` made.
//!
//! A pthread's descriptor (`struct pthread`, the TCB) lies at the top of its stack, points at itself and
//! holds the thread's id. Refuses threads without one: musl's, and those of a Go program without cgo, whose
//! stacks are in the Go heap; and alternate signal stacks, which nothing but the kernel knows of (sigaltstack(2) is in no file
//! of /proc and in no structure of glibc's; Go's have their own record, and are read there). Stacks of threads
//! that exited, which glibc keeps for reuse, are found by [`exited`]. The surprise: one descriptor found leads to all others, because glibc links them in a list; so a stack
//! that the kernel merged with its neighbours is found too.
//!
//! Layout: glibc `nptl/descr.h`, x86_64; tried on 2.31, 2.36, 2.41 and 2.43. No offset is believed unless the
//! values agree.

mod exited;

use std::ops::Range;

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::target::maps::Region;
use crate::target::memory::Memory;

/// The descriptor is aligned to a cache line.
const TCB_ALIGN_BYTES: usize = 64;

/// How far below a region's end a descriptor is looked for: first where it is when nothing is merged behind
/// the stack, then further down.
const SEARCHED_PAGES: [u64; 2] = [2, 16];

/// Pages read in all. Only programs without such descriptors come so far, and reading a page that was never
/// touched costs the target an entry in its page tables.
const MAX_SEARCHED_PAGES: u64 = 1 << 14;

/// A descriptor ends its stack but for alignment: `struct pthread` has 2,304 bytes in 2.36.
const MAX_ABOVE_TCB_BYTES: u64 = 8 << 10;

/// `tid` in glibc 2.36, and where it may be in others.
const TID_OFFSET: usize = 720;
const TID_OFFSETS: Range<usize> = 0x200..0x400;

/// `list`, which links all descriptors, is the two words before `tid`.
const LIST_BEFORE_TID_BYTES: usize = 16;

/// `stackblock`, `stackblock_size` and `guardsize`, three words, in 2.36, and where they may be in others.
const STACK_BLOCK_OFFSET: usize = 1680;
const STACK_BLOCK_OFFSETS: Range<usize> = 0x400..0x800;

/// The part of a descriptor that is read: to the end of [`STACK_BLOCK_OFFSETS`] and its three words.
const TCB_BYTES: usize = 0x800 + 24;

/// No thread's stack is longer.
const MAX_STACK_BYTES: u64 = 64 << 30;

/// A thread and its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStack {
    /// Thread id, in the target's own PID namespace; `None` of a thread that has exited.
    pub tid: Option<i32>,
    /// The stack, with thread-local storage and descriptor at its top, without the guard page.
    pub range: AddrRange,
    /// What lies below it and nobody may touch; `None` where nothing says.
    pub guard_bytes: Option<u64>,
}

/// Finds the threads' stacks and claims them.
///
/// `main_tid` and `tids` (which may hold `main_tid` too) are ids as the target's own PID namespace numbers
/// them, the last number in the `NSpid` line of /proc/PID/task/TID/status: that is what the descriptors hold.
pub fn stacks(
    memory: &dyn Memory,
    regions: &[Region],
    main_tid: i32,
    tids: &[i32],
) -> (Vec<ThreadStack>, Findings) {
    let mut stacks: Vec<ThreadStack> = Vec::new();
    let mut findings = Findings::default();
    if let Some(main) = regions.iter().find(|region| region.name == "[stack]") {
        stacks.push(ThreadStack { tid: Some(main_tid), range: main.range, guard_bytes: None });
        findings.claims.push(claim(main.range, Evidence::Mapping));
    }
    let mut search = Search::new(memory, regions, main_tid, tids);
    search.tops_of_regions();
    for tcb in &search.found {
        let Some((range, guard_bytes)) = stack_range(tcb, regions) else { continue };
        stacks.push(ThreadStack { tid: Some(tcb.tid), range, guard_bytes });
        findings.claims.push(claim(range, Evidence::Structure));
    }
    let living: Vec<AddrRange> = stacks.iter().map(|stack| stack.range).collect();
    for (range, guard_bytes) in exited::stacks(&search, &living, tids) {
        stacks.push(ThreadStack { tid: None, range, guard_bytes: Some(guard_bytes) });
        findings.claims.push(claim(range, Evidence::Structure));
    }
    // None found is no gap: then libc is not glibc, or threads' stacks are Go's.
    let missing = search.wanted.len();
    if missing > 0 && !search.found.is_empty() {
        findings.gaps.push(Gap {
            what: format!("the stacks of {missing} of {} threads", missing + search.found.len()),
            why: "no mapping ends with their descriptor; the program may have made these stacks".to_owned(),
            bytes: None,
        });
    }
    (stacks, findings)
}

fn claim(range: AddrRange, evidence: Evidence) -> Claim {
    Claim { range, component: Component::ThreadStacks, evidence }
}

/// A descriptor whose self pointers and thread id agree.
struct Tcb {
    addr: u64,
    tid: i32,
    tid_offset: usize,
    bytes: Vec<u8>,
}

impl Tcb {
    fn word(&self, offset: usize) -> Option<u64> {
        word(&self.bytes, offset)
    }
}

/// The search for descriptors: what was found, and whose is still wanted.
struct Search<'a> {
    memory: &'a dyn Memory,
    regions: &'a [Region],
    wanted: Vec<i32>,
    found: Vec<Tcb>,
    /// Where `tid` lies, once a descriptor told.
    tid_offset: Option<usize>,
    /// Nodes of the list that no descriptor is around: its head.
    heads: Vec<u64>,
}

impl<'a> Search<'a> {
    fn new(memory: &'a dyn Memory, regions: &'a [Region], main_tid: i32, tids: &[i32]) -> Self {
        let mut wanted: Vec<i32> = tids.iter().copied().filter(|tid| *tid > 0 && *tid != main_tid).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Self { memory, regions, wanted, found: Vec::new(), tid_offset: None, heads: Vec::new() }
    }

    /// Looks below the ends of regions, those that follow a guard page first, until no thread is wanted.
    fn tops_of_regions(&mut self) {
        let candidates = (0..self.regions.len()).filter(|index| can_hold_stack(&self.regions[*index]));
        let (guarded, other): (Vec<usize>, Vec<usize>) =
            candidates.partition(|index| has_guard(self.regions, *index));
        let [shallow, deep] = SEARCHED_PAGES;
        let all = guarded.iter().chain(&other);
        let passes = guarded.iter().map(|index| (index, shallow)).chain(all.map(|index| (index, deep)));
        let mut pages_left = MAX_SEARCHED_PAGES;
        for (index, pages) in passes {
            if self.wanted.is_empty() || pages_left < pages {
                return;
            }
            pages_left -= pages;
            if let Some(tcb) = self.top_of(self.regions[*index].range, pages) {
                self.accept(tcb);
            }
        }
    }

    /// The highest descriptor in the last `pages` pages of `range`.
    fn top_of(&self, range: AddrRange, pages: u64) -> Option<Tcb> {
        let lowest_addr = range.start_addr.max(range.end_addr.saturating_sub(pages * PAGE_BYTES));
        let mut page_addr = range.end_addr & !(PAGE_BYTES - 1);
        while page_addr > lowest_addr {
            page_addr -= PAGE_BYTES;
            let page = self.memory.read_vec(page_addr, PAGE_BYTES as usize).ok()?;
            for offset in (0..page.len()).step_by(TCB_ALIGN_BYTES).rev() {
                let tcb_addr = page_addr + offset as u64;
                if points_at_itself(&page[offset..], tcb_addr)
                    && let Some(tcb) = self.tcb_at(tcb_addr)
                {
                    return Some(tcb);
                }
            }
        }
        None
    }

    /// The descriptor at `addr`, where it is one of a thread that is still wanted.
    fn tcb_at(&self, addr: u64) -> Option<Tcb> {
        let bytes = self.memory.read_vec(addr, TCB_BYTES).ok()?;
        if !points_at_itself(&bytes, addr) {
            return None;
        }
        let likely = std::iter::once(self.tid_offset.unwrap_or(TID_OFFSET));
        let others = TID_OFFSETS.step_by(4).filter(|_| self.tid_offset.is_none());
        let found = |offset| self.wanted_tid(&bytes, offset).map(|tid| (tid, offset));
        let (tid, tid_offset) = likely.chain(others).find_map(found)?;
        Some(Tcb { addr, tid, tid_offset, bytes })
    }

    /// The thread id at `offset`, if it is wanted and the list's two links precede it.
    fn wanted_tid(&self, bytes: &[u8], offset: usize) -> Option<i32> {
        let tid = i32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?);
        let list_offset = offset.checked_sub(LIST_BEFORE_TID_BYTES)?;
        let is_link = |addr: u64| addr != 0 && addr.is_multiple_of(8) && addr < 1 << 56;
        let linked = is_link(word(bytes, list_offset)?) && is_link(word(bytes, list_offset + 8)?);
        (linked && self.wanted.binary_search(&tid).is_ok()).then_some(tid)
    }

    /// Takes `tcb`, and all descriptors its list leads to.
    fn accept(&mut self, tcb: Tcb) {
        self.tid_offset = Some(tcb.tid_offset);
        let list_offset = tcb.tid_offset - LIST_BEFORE_TID_BYTES;
        let mut next_addr = tcb.word(list_offset);
        let list_offset = list_offset as u64;
        let first_node_addr = tcb.addr.saturating_add(list_offset);
        self.take(tcb);
        // One node in the list is its head, in ld.so; it has links and no descriptor around it.
        for _ in 0..self.wanted.len() + self.found.len() + 1 {
            let Some(node_addr) = next_addr.filter(|addr| *addr != first_node_addr) else { return };
            match node_addr.checked_sub(list_offset).and_then(|addr| self.tcb_at(addr)) {
                Some(tcb) => self.take(tcb),
                None => self.heads.push(node_addr),
            }
            next_addr = self.memory.read_u64(node_addr).ok();
        }
    }

    fn take(&mut self, tcb: Tcb) {
        if let Ok(index) = self.wanted.binary_search(&tcb.tid) {
            self.wanted.remove(index);
            self.found.push(tcb);
        }
    }
}

/// Nameless private memory, or memory that glibc named (2.39 and later, where the kernel keeps names).
fn can_hold_stack(region: &Region) -> bool {
    let name_fits = region.name.is_empty() || region.name.starts_with("[anon: glibc: pthread");
    region.is_private_anonymous() && region.readable && region.writable && name_fits
}

/// Words 0 (`tcb`) and 2 (`self`) of a descriptor hold its own address: x86_64 `tls.h`, `tcbhead_t`.
fn points_at_itself(bytes: &[u8], addr: u64) -> bool {
    word(bytes, 0) == Some(addr) && word(bytes, 16) == Some(addr)
}

fn word(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..)?.get(..8)?.try_into().ok()?))
}

/// The stack below `tcb`, and the length of its guard where that is known: as the descriptor says, else from the
/// guard page to the region's end.
fn stack_range(tcb: &Tcb, regions: &[Region]) -> Option<(AddrRange, Option<u64>)> {
    let index = regions.iter().position(|region| region.range.contains(tcb.addr))?;
    let holder = regions[index].range;
    match stack_block_offsets().find_map(|offset| stated_stack(tcb.addr, &tcb.bytes, offset)) {
        // Somebody may have split the stack's mapping: what is not mapped with the descriptor is not claimed.
        Some((stated, guard_bytes)) => Some((stated.intersection(&holder)?, Some(guard_bytes))),
        None => (has_guard(regions, index) && is_top(tcb.addr, holder)).then_some((holder, None)),
    }
}

/// Where `stackblock` may lie, the likeliest place first.
fn stack_block_offsets() -> impl Iterator<Item = usize> {
    std::iter::once(STACK_BLOCK_OFFSET).chain(STACK_BLOCK_OFFSETS.step_by(8))
}

/// `stackblock`, `stackblock_size` and `guardsize` at `offset`, where they describe memory that the descriptor at
/// `tcb_addr` is at the top of: the stack, and its guard's length. A stack that the program brought along has no
/// guard and need not be aligned.
fn stated_stack(tcb_addr: u64, bytes: &[u8], offset: usize) -> Option<(AddrRange, u64)> {
    let (block_addr, block_bytes) = (word(bytes, offset)?, word(bytes, offset + 8)?);
    let guard_bytes = word(bytes, offset + 16)?;
    let aligned = [block_addr, block_bytes, guard_bytes].iter().all(|value| value.is_multiple_of(PAGE_BYTES));
    let stack =
        AddrRange::with_len(block_addr.checked_add(guard_bytes)?, block_bytes.checked_sub(guard_bytes)?)?;
    let fits = is_top(tcb_addr, stack) && block_bytes <= MAX_STACK_BYTES && (aligned || guard_bytes == 0);
    fits.then_some((stack, guard_bytes))
}

fn is_top(tcb_addr: u64, stack: AddrRange) -> bool {
    stack.contains(tcb_addr) && stack.end_addr - tcb_addr <= MAX_ABOVE_TCB_BYTES
}

/// Whether memory that cannot be read lies right below the region at `index`.
fn has_guard(regions: &[Region], index: usize) -> bool {
    let below = index.checked_sub(1).and_then(|below| regions.get(below));
    below.is_some_and(|below| !below.readable && below.range.end_addr == regions[index].range.start_addr)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::malloc::anonymous::tests::{Noise, region};
    use crate::target::memory::canned::Pieces;

    pub(super) const PAGES: u64 = 0x10_0000;

    /// A page with a descriptor `below_end` bytes before its end, and the page's address.
    pub(super) fn page_with_tcb(page_addr: u64, below_end: u64, fields: &[(usize, u64)]) -> (u64, Vec<u8>) {
        let mut page = vec![0; 2 * PAGE_BYTES as usize];
        let offset = (PAGE_BYTES - below_end) as usize;
        let tcb_addr = page_addr + offset as u64;
        for (at, value) in [(0, tcb_addr), (16, tcb_addr)].iter().chain(fields) {
            page[offset + at..][..8].copy_from_slice(&value.to_le_bytes());
        }
        (page_addr, page)
    }

    pub(super) fn fields(tid: i32, link_addr: u64, block_addr: u64, block_bytes: u64) -> [(usize, u64); 6] {
        [
            (TID_OFFSET - 16, link_addr),
            (TID_OFFSET - 8, link_addr),
            (TID_OFFSET, tid as u64),
            (STACK_BLOCK_OFFSET, block_addr),
            (STACK_BLOCK_OFFSET + 8, block_bytes),
            (STACK_BLOCK_OFFSET + 16, PAGE_BYTES),
        ]
    }

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    #[test]
    fn a_stack_behind_its_guard_page_and_the_main_stack() {
        let regions = [
            region(PAGES, PAGES + 0x1000, "---p", ""),
            region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", ""),
            region(0x7fff_0000_0000, 0x7fff_0002_0000, "rw-p", "[stack]"),
        ];
        let tcb = page_with_tcb(PAGES + 0x8000, 2368, &fields(7, 0x5000, PAGES, 0x9000));
        let (stacks, findings) = stacks(&Pieces(vec![tcb]), &regions, 1, &[1, 7]);
        let main =
            ThreadStack { tid: Some(1), range: range(0x7fff_0000_0000, 0x7fff_0002_0000), guard_bytes: None };
        let thread = ThreadStack {
            tid: Some(7),
            range: range(PAGES + 0x1000, PAGES + 0x9000),
            guard_bytes: Some(PAGE_BYTES),
        };
        assert_eq!(stacks, [main, thread]);
        assert_eq!(
            findings.claims.iter().map(|claim| claim.evidence).collect::<Vec<_>>(),
            [Evidence::Mapping, Evidence::Structure]
        );
        assert!(findings.gaps.is_empty());
    }

    #[test]
    fn the_list_leads_to_a_stack_merged_with_its_neighbour() {
        // Thread 8's stack ends in the middle of a region; the list goes 7, 8, head in ld.so, 7.
        let regions = [
            region(PAGES, PAGES + 0x1000, "---p", ""),
            region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", ""),
            region(2 * PAGES, 2 * PAGES + 0x1000, "---p", ""),
            region(2 * PAGES + 0x1000, 3 * PAGES, "rw-p", ""),
        ];
        let list = |tcb_page: u64| tcb_page + PAGE_BYTES - 2368 + (TID_OFFSET - LIST_BEFORE_TID_BYTES) as u64;
        let (first, second) = (PAGES + 0x8000, 2 * PAGES + 0x8000);
        let memory = Pieces(vec![
            page_with_tcb(first, 2368, &fields(7, list(second), PAGES, 0x9000)),
            page_with_tcb(second, 2368, &fields(8, 0x5000, 2 * PAGES, 0x9000)),
            (0x5000, list(first).to_le_bytes().to_vec()),
        ]);
        let (stacks, findings) = stacks(&memory, &regions, 1, &[1, 7, 8]);
        assert_eq!(
            stacks[1],
            ThreadStack {
                tid: Some(8),
                range: range(2 * PAGES + 0x1000, 2 * PAGES + 0x9000),
                guard_bytes: Some(PAGE_BYTES)
            }
        );
        assert!(findings.gaps.is_empty());
    }

    #[test]
    fn another_version_keeps_the_fields_elsewhere() {
        let regions =
            [region(PAGES, PAGES + 0x1000, "---p", ""), region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", "")];
        let moved = fields(7, 0x5000, PAGES, 0x9000).map(|(at, value)| (at - 0x80, value));
        let tcb = page_with_tcb(PAGES + 0x8000, 2368, &moved);
        let (stacks, _) = stacks(&Pieces(vec![tcb]), &regions, 1, &[7]);
        assert_eq!(
            stacks,
            [ThreadStack {
                tid: Some(7),
                range: range(PAGES + 0x1000, PAGES + 0x9000),
                guard_bytes: Some(PAGE_BYTES)
            }]
        );
    }

    #[test]
    fn without_a_plausible_block_the_region_counts_only_behind_a_guard() {
        let with_guard =
            [region(PAGES, PAGES + 0x1000, "---p", ""), region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", "")];
        let tcb = page_with_tcb(PAGES + 0x8000, 2368, &fields(7, 0x5000, 0, 0x9000));
        let memory = Pieces(vec![tcb]);
        let found = |regions: &[Region]| stacks(&memory, regions, 1, &[7]).0;
        assert_eq!(
            found(&with_guard),
            [ThreadStack { tid: Some(7), range: with_guard[1].range, guard_bytes: None }]
        );
        assert_eq!(found(&with_guard[1..]), []);
    }

    #[test]
    fn a_descriptor_of_nobody_is_none() {
        let regions =
            [region(PAGES, PAGES + 0x1000, "---p", ""), region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", "")];
        let tcb = page_with_tcb(PAGES + 0x8000, 2368, &fields(7, 0x5000, PAGES, 0x9000));
        let (stacks, findings) = stacks(&Pieces(vec![tcb]), &regions, 1, &[9]);
        assert!(stacks.iter().all(|stack| stack.tid.is_none()) && findings.gaps.is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_claims_what_is_not_mapped(
            seed: u64,
            pool in prop::collection::vec(any::<u64>(), 0..8),
        ) {
            let regions =
                [region(PAGES, PAGES + 0x1000, "---p", ""), region(PAGES + 0x1000, PAGES + 0x9000, "rw-p", "")];
            let tcb_addr = PAGES + 0x9000 - 2368;
            let likely = [tcb_addr, tcb_addr, tcb_addr + 704, PAGES, 0x9000, 0x1000, 7, 0];
            let memory = Noise { seed, pool: pool.into_iter().chain(likely).collect() };
            let (_, findings) = stacks(&memory, &regions, 1, &[7, 8, i32::MAX, -1, 0]);
            for claim in findings.claims {
                prop_assert!(regions[1].range.intersection(&claim.range) == Some(claim.range));
            }
        }
    }
}
