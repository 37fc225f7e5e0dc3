//! How many bytes of each page are live: all that is kept of a heap's chunks, two bytes a page however many
//! chunks there are; and what follows from it for the pages.

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence, Findings, Slack};

/// Slack is told for stretches of about this length: of what is resident in part, it counts in proportion.
const STRETCH_BYTES: u64 = 64 << 10;

/// A chunk in a thread's cache lies on the page; the rest of the word counts live bytes, 4096 at most.
const THREAD_CACHED: u16 = 1 << 15;

/// The pages of a piece of memory.
pub(super) struct PageUses {
    start_addr: u64,
    pages: Vec<u16>,
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageUse(u16);

impl PageUse {
    /// Bytes of the page that hold something the program has not freed, or malloc's own headers.
    pub(super) fn live_bytes(self) -> u64 {
        u64::from(self.0 & !THREAD_CACHED).min(PAGE_BYTES)
    }

    /// A freed chunk that a thread keeps for itself, which `malloc_trim` does not touch, lies on it.
    pub(super) fn is_thread_cached(self) -> bool {
        self.0 & THREAD_CACHED != 0
    }
}

impl PageUses {
    /// The pages that `range` touches, nothing of them live.
    pub(super) fn new(range: AddrRange) -> Self {
        let touched = range.touched_pages().unwrap_or(range);
        let count = usize::try_from(touched.len_bytes() / PAGE_BYTES).unwrap_or(0);
        Self { start_addr: touched.start_addr, pages: vec![0; count] }
    }

    /// Where the last page ends.
    pub(super) fn end_addr(&self) -> u64 {
        self.start_addr + self.pages.len() as u64 * PAGE_BYTES
    }

    /// Marks bytes as live. What lies outside the pages is passed over, here and below.
    pub(super) fn add_live(&mut self, start_addr: u64, end_addr: u64) {
        self.for_each(start_addr, end_addr, |page, bytes| {
            let live = PageUse(*page).live_bytes() as u16 + bytes;
            *page = (*page & THREAD_CACHED) | live.min(PAGE_BYTES as u16);
        });
    }

    /// Takes back what [`Self::add_live`] marked.
    pub(super) fn remove_live(&mut self, start_addr: u64, end_addr: u64) {
        self.for_each(start_addr, end_addr, |page, bytes| {
            let live = (PageUse(*page).live_bytes() as u16).saturating_sub(bytes);
            *page = (*page & THREAD_CACHED) | live;
        });
    }

    /// Notes that a thread keeps the freed chunk in its cache.
    pub(super) fn mark_thread_cached(&mut self, start_addr: u64, end_addr: u64) {
        self.for_each(start_addr, end_addr, |page, _| *page |= THREAD_CACHED);
    }

    /// Adds the live bytes of other pages.
    pub(super) fn merge(&mut self, other: &Self) {
        for (index, page) in other.pages.iter().enumerate().filter(|(_, page)| **page != 0) {
            let addr = other.start_addr + index as u64 * PAGE_BYTES;
            self.add_live(addr, addr + PageUse(*page).live_bytes());
        }
    }

    /// Claims what lies in `range`, and says how much of the pages in use holds nothing. What goes on where the
    /// claim before it ended is made one with it.
    pub(super) fn claim(&self, range: AddrRange, findings: &mut Findings) {
        for (pages, is_free, _) in self.runs(|page| page.live_bytes() == 0) {
            let component = if is_free { Component::CHeapFree } else { Component::CHeapInUse };
            if let Some(range) = pages.intersection(&range) {
                push_claim(findings, range, component);
            }
        }
        // Full pages apart from others: those may not be resident, and then hold no less.
        let kind_of = |live_bytes| (live_bytes > 0, live_bytes == PAGE_BYTES);
        for (range, (is_in_use, _), live_bytes) in self.runs(|page| kind_of(page.live_bytes())) {
            if is_in_use {
                push_slack(findings, range, range.len_bytes().saturating_sub(live_bytes));
            }
        }
    }

    /// Neighbouring pages of the same kind, ascending, with their live bytes.
    pub(super) fn runs<K: PartialEq>(&self, kind_of: impl Fn(PageUse) -> K) -> Vec<(AddrRange, K, u64)> {
        let mut runs: Vec<(AddrRange, K, u64)> = Vec::new();
        let mut start_addr = self.start_addr;
        for page in &self.pages {
            let page = PageUse(*page);
            let (kind, live_bytes) = (kind_of(page), page.live_bytes());
            let end_addr = start_addr + PAGE_BYTES;
            match runs.last_mut() {
                Some((range, last, live)) if *last == kind => {
                    range.end_addr = end_addr;
                    *live += live_bytes;
                }
                _ => runs.push((AddrRange { start_addr, end_addr }, kind, live_bytes)),
            }
            start_addr = end_addr;
        }
        runs
    }

    /// Calls for each page of the range, with how many bytes of the range lie on it.
    #[inline]
    fn for_each(&mut self, start_addr: u64, end_addr: u64, mut change: impl FnMut(&mut u16, u16)) {
        let start_addr = start_addr.max(self.start_addr);
        let mut offset = start_addr - self.start_addr;
        let end_offset = end_addr.saturating_sub(self.start_addr);
        while offset < end_offset {
            let Some(page) = self.pages.get_mut((offset / PAGE_BYTES) as usize) else { return };
            let on_page = (PAGE_BYTES - offset % PAGE_BYTES).min(end_offset - offset);
            change(page, on_page as u16);
            offset += on_page;
        }
    }
}

/// Adds a claim by structure, to the one before it where that goes on.
pub(super) fn push_claim(findings: &mut Findings, range: AddrRange, component: Component) {
    match findings.claims.last_mut() {
        Some(last)
            if last.range.end_addr == range.start_addr
                && last.component == component
                && last.evidence == Evidence::Structure =>
        {
            last.range.end_addr = range.end_addr;
        }
        _ => findings.claims.push(Claim { range, component, evidence: Evidence::Structure }),
    }
}

/// Adds a stretch that was looked into, to the one before it where that goes on, is short, and is as full.
pub(super) fn push_slack(findings: &mut Findings, range: AddrRange, dead_bytes: u64) {
    match findings.slack.last_mut() {
        Some(last)
            if last.range.end_addr == range.start_addr
                && last.range.len_bytes() < STRETCH_BYTES
                && (last.dead_bytes == 0) == (dead_bytes == 0) =>
        {
            last.range.end_addr = range.end_addr;
            last.dead_bytes += dead_bytes;
        }
        _ => findings.slack.push(Slack { range, dead_bytes }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 0x7f00_0000_0000;

    fn live(uses: &PageUses) -> Vec<u64> {
        uses.pages.iter().map(|page| PageUse(*page).live_bytes()).collect()
    }

    #[test]
    fn a_chunk_counts_on_every_page_it_lies_on() {
        let mut uses = PageUses::new(AddrRange::with_len(START + 0x10, 0x3000).unwrap());
        uses.add_live(START + 0xff0, START + 0x2010);
        assert_eq!(live(&uses), [0x10, 0x1000, 0x10, 0]);
        uses.mark_thread_cached(START + 0x1000, START + 0x1010);
        uses.remove_live(START + 0x1000, START + 0x2000);
        assert_eq!(live(&uses), [0x10, 0, 0x10, 0]);
        let free = uses.runs(|page| (page.live_bytes() == 0, page.is_thread_cached()));
        let kinds: Vec<_> = free.iter().map(|(range, kind, _)| (range.len_bytes() >> 12, *kind)).collect();
        assert_eq!(kinds, [(1, (false, false)), (1, (true, true)), (1, (false, false)), (1, (true, false))]);
    }

    proptest! {
        #[test]
        fn live_bytes_are_those_marked_inside(chunks in prop::collection::vec((0u64..0x6000, 1u64..0x2000), 0..8)) {
            let range = AddrRange::with_len(START + 0x1000, 0x4000).unwrap();
            let mut uses = PageUses::new(range);
            let mut marked = vec![false; 0x8000];
            for (offset, len) in chunks {
                // Chunks never overlap.
                if marked[offset as usize..(offset + len) as usize].contains(&true) {
                    continue;
                }
                marked[offset as usize..(offset + len) as usize].fill(true);
                uses.add_live(START + offset, START + offset + len);
            }
            let expected: Vec<u64> = marked[0x1000..0x5000]
                .chunks(0x1000)
                .map(|page| page.iter().filter(|byte| **byte).count() as u64)
                .collect();
            prop_assert_eq!(live(&uses), expected);
        }
    }
}
