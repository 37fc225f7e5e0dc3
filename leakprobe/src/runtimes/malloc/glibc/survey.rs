//! All heaps walked, and what they add up to: claims by page, slack, what `malloc_trim` would give back.
//!
//! A page is free where nothing on it is live, whoever keeps the freed chunks; one live byte makes it in use.
//! A heap that changed while it was read is read again, and the reading with the least unread is kept.

use std::collections::HashMap;

use super::arena::Arena;
use super::cached::{Follower, List, Pointers};
use super::tcache;
use super::walk::{Bounds, Pass, Walk};
use super::window::Window;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Findings, Gap};
use crate::runtimes::cpp::VtablePlaces;
use crate::runtimes::malloc::census::Census;
use crate::runtimes::malloc::pages::PageUses;
use crate::target::memory::Memory;

/// A heap is walked in parts of this length, so that little has to be read again.
const PART_BYTES: u64 = 64 << 20;
const MAX_ATTEMPTS: usize = 4;
/// Pages of the brk heap that are accounted for one by one: 512 GiB.
const MAX_HEAP_BYTES: u64 = 512 << 30;
/// Arenas a gap lists by number.
const MAX_LISTED_ARENAS: usize = 8;

/// A heap after its chunks were walked.
struct Walked {
    /// All of it, with its headers and what was never cut into chunks.
    range: AddrRange,
    pages: PageUses,
    /// Its end is given back by `malloc_trim`.
    is_main: bool,
    /// Where the rest begins that is not cut into chunks, if it is in this heap.
    top_addr: Option<u64>,
}

/// Reads heap after heap.
pub(super) struct Survey<'a> {
    memory: &'a dyn Memory,
    window: Window<'a>,
    places: &'a VtablePlaces,
    heaps: Vec<Walked>,
    census: Census,
    tcaches: Vec<u64>,
    /// Arenas, in the order in which they were first seen, with bytes not read.
    arenas: Vec<(Arena, u64)>,
    /// By address.
    numbers: HashMap<u64, usize>,
    gaps: Vec<Gap>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(memory: &'a dyn Memory, places: &'a VtablePlaces) -> Self {
        Self {
            memory,
            window: Window::new(memory),
            places,
            heaps: Vec::new(),
            census: Census::default(),
            tcaches: Vec::new(),
            arenas: Vec::new(),
            numbers: HashMap::new(),
            gaps: Vec::new(),
        }
    }

    /// Walks a heap of `arena` that occupied `range` when the regions were listed; `bounds` says where its
    /// chunks lie at that moment. What came since counts in the census and is claimed by nobody.
    pub(super) fn heap(&mut self, range: AddrRange, arena: Arena, bounds: &dyn Fn() -> Option<Bounds>) {
        let number = self.number_of(arena);
        let mut heap = Walked { range, pages: PageUses::new(range), is_main: false, top_addr: None };
        let known = bounds().filter(|bounds| {
            range.len_bytes() <= MAX_HEAP_BYTES
                && (range.start_addr..=range.end_addr).contains(&bounds.first_addr)
        });
        let Some(mut known) = known else {
            heap.pages.add_live(range.start_addr, range.end_addr);
            self.add_unread(number, range.len_bytes());
            self.heaps.push(heap);
            return;
        };
        let mut from_addr = known.first_addr;
        heap.pages.add_live(range.start_addr, from_addr);
        self.census.overhead_bytes += if known.is_main { 0 } else { from_addr - range.start_addr };
        while from_addr < known.end_addr {
            let (now, pass) = self.best_pass(from_addr, known, bounds);
            known = now;
            from_addr = pass.next_addr;
            self.add_unread(number, pass.unread_bytes);
            self.add(&mut heap, pass);
        }
        self.end(&mut heap, arena, known);
        self.heaps.push(heap);
    }

    /// The most complete of some readings of a part; a heap that grows meanwhile is followed.
    fn best_pass(
        &mut self,
        from_addr: u64,
        mut known: Bounds,
        bounds: &dyn Fn() -> Option<Bounds>,
    ) -> (Bounds, Pass) {
        let mut pass_of = |bounds: Bounds| {
            let mut walk = Walk { window: &mut self.window, bounds, places: self.places };
            walk.pass(from_addr, from_addr.saturating_add(PART_BYTES))
        };
        let mut best = pass_of(known);
        for _ in 1..MAX_ATTEMPTS {
            if best.unread_bytes == 0 {
                break;
            }
            let now = bounds().filter(|now| from_addr < now.end_addr);
            let now = now.unwrap_or(known);
            let next = pass_of(now);
            if next.unread_bytes < best.unread_bytes {
                (best, known) = (next, now);
            }
        }
        (known, best)
    }

    fn add(&mut self, heap: &mut Walked, pass: Pass) {
        heap.pages.merge(&pass.pages);
        if let Some(overhang) = pass.overhang {
            heap.pages.add_live(overhang.start_addr, overhang.end_addr);
        }
        let census = &mut self.census;
        census.live = census.live.plus(pass.in_use);
        census.binned = census.binned.plus(pass.binned);
        census.overhead_bytes += pass.fence_bytes;
        census.by_size.merge(&pass.by_size);
        census.first_words.merge(&pass.first_words);
        self.tcaches.extend(pass.tcaches);
    }

    /// Accounts for what follows the last chunk.
    fn end(&mut self, heap: &mut Walked, arena: Arena, bounds: Bounds) {
        heap.is_main = bounds.is_main;
        let end_addr = bounds.end_addr;
        if !bounds.ends_in_top {
            heap.pages.add_live(end_addr, end_addr.saturating_add(16));
            self.census.overhead_bytes += 16;
            return;
        }
        heap.top_addr = Some(end_addr);
        let system_bytes = arena.system_bytes(self.memory).unwrap_or(0);
        let top_bytes = self.window.peek(end_addr).chunk_bytes().min(system_bytes);
        let top_end_addr = end_addr.saturating_add(top_bytes);
        if !top_end_addr.is_multiple_of(PAGE_BYTES) {
            return; // the top has moved on, and blocks lie here now
        }
        self.census.top_bytes += top_bytes;
        if bounds.is_main {
            // Somebody else moved the break on.
            heap.pages.add_live(top_end_addr, heap.range.end_addr);
        }
    }

    /// Takes back the freed chunks that look as if in use.
    pub(super) fn take_back_cached(&mut self, are_plain: bool) {
        let mut ranges: Vec<AddrRange> = self.heaps.iter().map(|heap| heap.range).collect();
        ranges.sort_unstable();
        let heap_at = |addr: u64| {
            let after = ranges.partition_point(|range| range.start_addr <= addr);
            ranges[..after].last().is_some_and(|range| range.contains(addr))
        };
        self.heaps.sort_by_key(|heap| heap.range);
        let mut follower = Follower::new(self.memory, are_plain, &heap_at);
        self.window.close();
        let caches: Vec<u64> = std::mem::take(&mut self.tcaches);
        for list in caches.iter().flat_map(|addr| tcache::lists(&self.window, *addr)) {
            let list = List {
                first_addr: list.first_addr,
                pointers: Pointers::ToContents,
                chunk_bytes: list.chunk_bytes,
            };
            // A cache changes all the time; what was followed of it is what it holds.
            follower.follow(&list, &mut |addr, bytes| {
                free(&mut self.heaps, addr, bytes, PageUses::mark_thread_cached);
                remove(&mut self.census, bytes);
                self.census.thread_cached.add(bytes);
            });
        }
        let mut broken = 0;
        for (arena, _) in &self.arenas {
            for (first_addr, bytes) in arena.fast_bins(self.memory) {
                let list = List { first_addr, pointers: Pointers::ToChunks, chunk_bytes: Some(bytes) };
                let is_whole = follower.follow(&list, &mut |addr, bytes| {
                    free(&mut self.heaps, addr, bytes, |_, _, _| {});
                    remove(&mut self.census, bytes);
                    self.census.fast.add(bytes);
                });
                broken += u64::from(!is_whole);
            }
        }
        if broken > 0 {
            self.gaps.push(Gap {
                what: format!("the rest of {broken} of malloc's lists of small free blocks"),
                why: "the program changed them while they were read; what was not reached counts as in use"
                    .to_owned(),
                bytes: None,
            });
        }
    }

    /// Everything found.
    pub(super) fn finish(mut self) -> (Findings, Census) {
        self.census.arenas = self.arenas.len() as u64;
        let system = self.arenas.iter().filter_map(|(arena, _)| arena.system_bytes(self.memory));
        self.census.system_bytes = system.fold(0, u64::saturating_add);
        let (mut findings, mut trimmable) = (Findings::default(), Vec::new());
        for heap in &self.heaps {
            heap.pages.claim(heap.range, &mut findings);
            heap.add_trimmable(&mut trimmable);
        }
        trimmable.sort_unstable();
        self.census.trimmable = Some(trimmable);
        findings.gaps = self.gaps;
        findings.gaps.extend(unread_gap(&self.arenas));
        (findings, self.census)
    }

    fn number_of(&mut self, arena: Arena) -> usize {
        *self.numbers.entry(arena.addr).or_insert_with(|| {
            self.arenas.push((arena, 0));
            self.arenas.len() - 1
        })
    }

    fn add_unread(&mut self, number: usize, bytes: u64) {
        self.census.unread_bytes = self.census.unread_bytes.saturating_add(bytes);
        self.arenas[number].1 = self.arenas[number].1.saturating_add(bytes);
    }
}

impl Walked {
    /// `malloc_trim` (malloc.c, `mtrim` and `systrim`) returns the whole pages inside free chunks and, of the
    /// main arena only, the end of the heap. Free chunks in threads' caches are not merged with others.
    fn add_trimmable(&self, trimmable: &mut Vec<AddrRange>) {
        let free = self.pages.runs(|page| page.live_bytes() == 0 && !page.is_thread_cached());
        let ranges = free.into_iter().filter(|(_, is_free, _)| *is_free).map(|(range, ..)| range);
        let is_kept = |range: &AddrRange| {
            !self.is_main && self.top_addr.is_some_and(|top_addr| range.end_addr > top_addr)
        };
        trimmable.extend(ranges.filter(|range| !is_kept(range)));
    }
}

/// Nothing of the chunk is live any more.
fn free(heaps: &mut [Walked], addr: u64, bytes: u64, mark: impl Fn(&mut PageUses, u64, u64)) {
    let after = heaps.partition_point(|heap| heap.range.start_addr <= addr);
    if let Some(heap) = heaps[..after].last_mut() {
        heap.pages.remove_live(addr, addr.saturating_add(bytes));
        mark(&mut heap.pages, addr, addr.saturating_add(bytes));
    }
}

fn remove(census: &mut Census, bytes: u64) {
    census.live.remove(bytes);
    census.by_size.remove(bytes);
}

fn unread_gap(arenas: &[(Arena, u64)]) -> Option<Gap> {
    let torn: Vec<(usize, u64)> = arenas
        .iter()
        .enumerate()
        .map(|(number, (_, bytes))| (number, *bytes))
        .filter(|(_, b)| *b > 0)
        .collect();
    let bytes = torn.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
    let listed = torn.iter().take(MAX_LISTED_ARENAS).map(|(number, _)| number.to_string());
    let mut names = listed.collect::<Vec<_>>().join(", ");
    if torn.len() > MAX_LISTED_ARENAS {
        names.push_str(", …");
    }
    (bytes > 0).then(|| Gap {
        what: format!("malloc's blocks in parts of {} of {} arenas ({names})", torn.len(), arenas.len()),
        why: "they changed while they were read, are swapped out, or others use the heap too; these parts \
              count as in use"
            .to_owned(),
        bytes: Some(bytes),
    })
}
