//! What each page of Go's heap is for: in a span of objects, in a stack, in a work buffer of the collector, or
//! in no span and so idle.
//!
//! Every span the program ever made is in `mheap_.allspans`; whatever of the heap no living span covers is free,
//! whether the page allocator, a processor's cache of pages or the padding before the first arena (Go 1.26 on)
//! holds it: those need not be told apart, so neither the allocator's bitmaps nor `allp` are read. Checked against
//! `runtime.MemStats`: `HeapInuse`, `HeapIdle` and `StackInuse`, to the byte. Refuses spans that lie outside the
//! heap. Of each span of objects it also tells how much of it holds none; checked against `HeapAlloc` and `BySize`,
//! to the object. What is not swept yet counts as held: garbage of the last collection.
//!
//! The surprise: a manual span is told to be a work buffer by the list it says it is on, not by walking that
//! list, which the collector keeps changing.

mod slack;

use anyhow::{Context as _, Result, bail};

use super::find::Global;
use super::heap::{self, GO_PAGE_BYTES, read_list, read_words};
use super::metadata::Reader;
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
pub use slack::SizeClass;
use slack::{Classes, Objects};

/// A terabyte of heap; the table of its pages takes 384 MiB then.
const MAX_HEAP_PAGES: u64 = 1 << 27;
/// Span headers that are allocated and not in use: 128 a processor (Go `src/runtime/runtime2.go`, `mspancache`).
const MAX_SPARE_SPANS: u64 = 1 << 17;
/// Addresses of span headers read at a time.
const BLOCK_SPANS: u64 = 1 << 17;
/// Headers nearer to each other than this are read at once: what lies between cannot be a whole page, which
/// might be unmapped.
const MAX_HOLE_BYTES: u64 = 4095;
/// The most that is read at once.
const MAX_READ_BYTES: u64 = 1 << 20;
/// How often a heap that changed under the reader is read again. A busy one changes every time.
const MAX_ATTEMPTS: usize = 4;
/// In `work.wbufSpans` the lists free and busy, each of first and last, follow a lock.
const WORK_LISTS_OFFSETS: [u64; 2] = [8, 24];

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Use {
    Idle,
    Objects,
    Stack,
    WorkBuffer,
}

impl Use {
    const fn component(self) -> Component {
        match self {
            Self::Idle => Component::GoHeapIdle,
            Self::Objects => Component::GoHeapInUse,
            Self::Stack => Component::GoStacks,
            Self::WorkBuffer => Component::GoRuntime,
        }
    }
}

/// The heap, divided.
#[derive(Default)]
pub struct Division {
    /// What the heap manages.
    pub ranges: Vec<AddrRange>,
    /// A claim on every page of it, and how much of the spans of objects holds none.
    pub findings: Findings,
    /// The objects by size; empty where the spans could not be read.
    pub classes: Vec<SizeClass>,
}

/// Divides the heap.
pub fn divide(reader: &Reader<'_>) -> Result<Division> {
    let work_lists = work_lists(reader);
    let mut gaps = Vec::new();
    if let Err(error) = &work_lists {
        let why = format!("{error:#}; they count as goroutine stacks");
        gaps.push(Gap { what: "Go work buffers".to_owned(), why, bytes: None });
    }
    let what = "the spans of the Go heap".to_owned();
    let work_lists = work_lists.map_or_else(|_| Vec::new(), Vec::from);
    match best_attempt(reader, &work_lists) {
        Ok(pages) => {
            let bytes = pages.contradicting_pages.saturating_mul(GO_PAGE_BYTES);
            if bytes > 0 {
                let why = "the program changed them while they were read".to_owned();
                gaps.push(Gap { what, why, bytes: Some(bytes) });
            }
            let ranges = pages.parts.iter().map(|part| part.range).collect();
            let findings = Findings { claims: pages.claims(), gaps, slack: pages.slack() };
            Ok(Division { ranges, findings, classes: pages.classes.into_listed() })
        }
        Err(error) => {
            let ranges = heap::ranges(reader.memory, reader.layout, reader.globals.mheap_addr())?;
            let why = format!("{error:#}; the whole heap counts as in use");
            gaps.push(Gap { what, why, bytes: None });
            let claims = ranges.iter().map(|&range| claim(range, Use::Objects)).collect();
            let findings = Findings { claims, gaps, ..Findings::default() };
            Ok(Division { ranges, findings, classes: Vec::new() })
        }
    }
}

fn claim(range: AddrRange, used: Use) -> Claim {
    Claim { range, component: used.component(), evidence: Evidence::Structure }
}

/// Where a span on `work.wbufSpans` says it is.
fn work_lists(reader: &Reader<'_>) -> Result<[u64; 2]> {
    let spans_addr = reader.globals.addr(Global::Work)?.wrapping_add(reader.layout.work_buffers_offset);
    Ok(WORK_LISTS_OFFSETS.map(|offset| spans_addr.wrapping_add(offset)))
}

/// The first reading that agrees with itself, or the one that contradicts itself least.
fn best_attempt(reader: &Reader<'_>, work_lists: &[u64]) -> Result<Pages> {
    let mut best = attempt(reader, work_lists);
    for _ in 1..MAX_ATTEMPTS {
        if best.as_ref().is_ok_and(|pages| pages.contradicting_pages == 0) {
            break;
        }
        let next = attempt(reader, work_lists);
        let is_better = match (&best, &next) {
            (Ok(best), Ok(next)) => next.contradicting_pages < best.contradicting_pages,
            (Err(_), Ok(_)) => true,
            (_, Err(_)) => false,
        };
        if is_better {
            best = next;
        }
    }
    best
}

/// Reads the heap once.
fn attempt(reader: &Reader<'_>, work_lists: &[u64]) -> Result<Pages> {
    let mheap_addr = reader.globals.mheap_addr();
    let allspans_addr = mheap_addr.wrapping_add(reader.layout.allspans_offset);
    let ranges = heap::ranges(reader.memory, reader.layout, mheap_addr)?;
    let mut pages = Pages::idle(&ranges)?;
    // `mheap.allspans`, and behind it `mheap.pagesInUse`: pages in spans of objects.
    let [data_addr, len, capacity, objects_before] = read_words(reader.memory, allspans_addr)?;
    if len > capacity || len > pages.total_pages + MAX_SPARE_SPANS {
        bail!("{len} spans in a heap of {} pages", pages.total_pages);
    }
    let mut index = 0;
    while index < len {
        let block_len = BLOCK_SPANS.min(len - index);
        let mut headers = read_list(reader.memory, data_addr.wrapping_add(index * 8), block_len)?;
        headers.sort_unstable();
        headers.dedup();
        pages.mark_all(reader, &headers, work_lists)?;
        index += block_len;
    }
    let objects_after = reader.memory.read_u64(allspans_addr.wrapping_add(24))?;
    pages.compare(objects_before.min(objects_after), objects_before.max(objects_after));
    Ok(pages)
}

/// A stretch of the heap and the use of each of its pages.
struct Part {
    range: AddrRange,
    uses: Vec<Use>,
    /// Bytes of each page that hold no object; of meaning in spans of objects only.
    dead_bytes: Vec<u16>,
}

/// The heap by page.
struct Pages {
    parts: Vec<Part>,
    total_pages: u64,
    /// Those that spans said to hold objects.
    objects_pages: u64,
    /// Pages marked so far, as often as they were.
    marked_pages: u64,
    /// Pages in two spans, in spans outside the heap, or in a number of spans that is not the runtime's own.
    contradicting_pages: u64,
    classes: Classes,
}

impl Pages {
    fn idle(ranges: &[AddrRange]) -> Result<Self> {
        // The ranges are disjoint: the sum cannot overflow.
        let total_pages = ranges.iter().map(|range| range.len_bytes() / GO_PAGE_BYTES).sum();
        if total_pages > MAX_HEAP_PAGES {
            bail!("a heap of {total_pages} pages");
        }
        let part = |&range: &AddrRange| -> Result<Part> {
            let len = usize::try_from(range.len_bytes() / GO_PAGE_BYTES)?;
            Ok(Part { range, uses: vec![Use::Idle; len], dead_bytes: vec![0; len] })
        };
        let parts = ranges.iter().map(part).collect::<Result<Vec<Part>>>()?;
        let classes = Classes::default();
        Ok(Self { parts, total_pages, objects_pages: 0, marked_pages: 0, contradicting_pages: 0, classes })
    }

    /// Marks the pages of the spans whose headers are at these addresses, which are sorted.
    fn mark_all(&mut self, reader: &Reader<'_>, headers: &[u64], work_lists: &[u64]) -> Result<()> {
        let span_bytes = reader.layout.mspan_bytes;
        let mut rest = headers;
        while let Some(&first_addr) = rest.first() {
            if first_addr == 0 || !first_addr.is_multiple_of(8) {
                bail!("a span cannot be at {first_addr:#x}");
            }
            let near = |pair: &[u64]| pair[1] - pair[0] <= span_bytes + MAX_HOLE_BYTES;
            let fits = |addr: u64| addr - first_addr < MAX_READ_BYTES;
            let len = 1 + rest.windows(2).take_while(|pair| near(pair) && fits(pair[1])).count();
            let (run, later) = rest.split_at(len);
            rest = later;
            let len_bytes = run.last().map_or(0, |last_addr| last_addr - first_addr) + span_bytes;
            let bytes = reader.memory.read_vec(first_addr, usize::try_from(len_bytes)?)?;
            for addr in run {
                let header = bytes.get(usize::try_from(addr - first_addr)?..).context("a header")?;
                self.mark_span(reader, header, work_lists)?;
            }
        }
        Ok(())
    }

    fn mark_span(&mut self, reader: &Reader<'_>, header: &[u8], work_lists: &[u64]) -> Result<()> {
        let word = |offset: usize| -> Option<u64> {
            header.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
        };
        let layout = reader.layout;
        let state = header.get(layout.span_state_offset);
        let used = match state {
            Some(0) => return Ok(()),
            Some(1) => Use::Objects,
            Some(2) if work_lists.contains(&word(layout.span_list_offset).context("a header")?) => {
                Use::WorkBuffer
            }
            Some(2) => Use::Stack,
            _ => bail!("a span in state {state:?}"),
        };
        let start_addr = word(layout.span_start_offset).context("a header")?;
        let pages = word(layout.span_pages_offset).context("a header")?;
        let objects = if used == Use::Objects { Objects::read(header, layout, pages) } else { None };
        self.mark(start_addr, pages, used, objects)
    }

    /// Marks `pages` pages from `start_addr`.
    fn mark(&mut self, start_addr: u64, pages: u64, used: Use, objects: Option<Objects>) -> Result<()> {
        let Some((uses, dead_bytes)) = self.pages_mut(start_addr, pages) else {
            // A span that is being made, or one in an arena younger than the list of ranges.
            let known_pages = if pages <= self.total_pages { pages } else { 1 };
            self.contradicting_pages += known_pages;
            return Ok(());
        };
        let twice = uses.iter().filter(|before| **before != Use::Idle).count();
        uses.fill(used);
        if let Some(objects) = objects {
            objects.spread(dead_bytes);
            self.classes.add(objects, pages);
        }
        self.contradicting_pages += twice as u64;
        self.marked_pages += pages;
        if used == Use::Objects {
            self.objects_pages += pages;
        }
        // Without an end to it, spans that all cover the whole heap would take for ever.
        if self.marked_pages > 2 * self.total_pages {
            bail!("spans that cover the heap twice over");
        }
        Ok(())
    }

    fn pages_mut(&mut self, start_addr: u64, pages: u64) -> Option<(&mut [Use], &mut [u16])> {
        let span = AddrRange::with_len(start_addr, pages.checked_mul(GO_PAGE_BYTES)?)?;
        let after = self.parts.partition_point(|part| part.range.start_addr <= span.start_addr);
        let part = self.parts.get_mut(after.checked_sub(1)?)?;
        if !start_addr.is_multiple_of(GO_PAGE_BYTES) || span.end_addr > part.range.end_addr {
            return None;
        }
        let first = usize::try_from((span.start_addr - part.range.start_addr) / GO_PAGE_BYTES).ok()?;
        let span = first..first.checked_add(usize::try_from(pages).ok()?)?;
        Some((part.uses.get_mut(span.clone())?, part.dead_bytes.get_mut(span)?))
    }

    /// Compares the pages in spans of objects with what the runtime counted before and after.
    fn compare(&mut self, least_pages: u64, most_pages: u64) {
        let missing_pages = least_pages.saturating_sub(self.objects_pages);
        let extra_pages = self.objects_pages.saturating_sub(most_pages);
        let odd_pages = (missing_pages + extra_pages).min(self.total_pages);
        self.contradicting_pages = self.contradicting_pages.max(odd_pages);
    }

    /// Neighbouring pages of one use as one claim.
    fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for part in &self.parts {
            let mut addr = part.range.start_addr;
            for same in part.uses.chunk_by(|a, b| a.component() == b.component()) {
                let range = AddrRange::with_len(addr, same.len() as u64 * GO_PAGE_BYTES);
                let (Some(range), Some(&used)) = (range, same.first()) else { continue };
                claims.push(claim(range, used));
                addr = range.end_addr;
            }
        }
        claims
    }
}

#[cfg(test)]
mod tests;
