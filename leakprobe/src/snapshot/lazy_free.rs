//! Which resident pages were freed with MADV_FREE: the kernel takes them when it needs memory, and counts
//! them in RSS until then.
//!
//! /proc/PID/smaps says how many there are in each VMA, and only of such VMAs is more read. Neither the page
//! map nor PAGEMAP_SCAN tells which pages they are; /proc/kpageflags does: anonymous and not backed by swap
//! (Linux `mm/swap.c`, `folio_mark_lazyfree`; checked on 6.18). The surprise: the kernel marks them a batch at
//! a time, so for a moment up to some dozen pages fewer are marked than were freed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::{PageRun, RegionUsage, Residency};
use crate::address::{AddrRange, PAGE_BYTES};

/// Pages whose flags are looked up: 4 GiB, which takes a second at most. Beyond, they stay untold.
const MAX_PAGES: u64 = 1 << 20;
/// Pages looked up at a time.
const PIECE_PAGES: u64 = 16_384;
/// Page frames that are nearer to each other than this are read at once.
const NEAR_FRAMES: u64 = 16;
/// The most that is read of the flags at once.
const MAX_READ_FRAMES: u64 = 4096;
/// The page frame's number in an entry of the page map; 0 where leakprobe may not see it.
const FRAME_MASK: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;
/// `KPF_ANON` and `KPF_SWAPBACKED` (include/uapi/linux/kernel-page-flags.h).
const ANON: u64 = 1 << 12;
const SWAP_BACKED: u64 = 1 << 14;

/// Marks the lazily freed pages of `runs`, which are sorted as `usages` are. What cannot be told stays as it
/// is: the ledger then leaves the figure of such a VMA's owners open.
pub fn mark(pagemap: &File, usages: &[RegionUsage], runs: &mut Vec<PageRun>) {
    if usages.iter().all(|usage| usage.lazy_free_bytes == 0) {
        return;
    }
    let Ok(flags) = File::open("/proc/kpageflags") else { return };
    let mut pages_left = MAX_PAGES;
    let mut marked = Vec::with_capacity(runs.len());
    for run in runs.iter() {
        let after = usages.partition_point(|usage| usage.region.range.end_addr <= run.range.start_addr);
        let is_candidate = run.residency == Residency::Resident
            && usages.get(after).is_some_and(|usage| usage.lazy_free_bytes > 0);
        let pages = run.range.len_bytes() / PAGE_BYTES;
        if !is_candidate || pages > pages_left {
            marked.push(*run);
            continue;
        }
        pages_left -= pages;
        divide(pagemap, &flags, run.range, &mut marked);
    }
    *runs = marked;
}

/// Adds the pages of `range`, which are resident, as runs of freed ones and of others.
fn divide(pagemap: &File, flags: &File, range: AddrRange, runs: &mut Vec<PageRun>) {
    let mut addr = range.start_addr;
    while let Some(rest) = AddrRange::new(addr, range.end_addr) {
        let pages = PIECE_PAGES.min(rest.len_bytes() / PAGE_BYTES).max(1);
        let freed = freed_pages(pagemap, flags, addr, pages).unwrap_or_default();
        for page in 0..pages {
            let is_freed = usize::try_from(page).ok().and_then(|page| freed.get(page)).copied();
            let residency =
                if is_freed == Some(true) { Residency::ResidentLazyFree } else { Residency::Resident };
            push(runs, addr + page * PAGE_BYTES, residency, range.start_addr);
        }
        addr += pages * PAGE_BYTES;
    }
}

/// Adds a page, to the run before it where that is like it and began at or after `first_addr`.
fn push(runs: &mut Vec<PageRun>, addr: u64, residency: Residency, first_addr: u64) {
    match runs.last_mut() {
        Some(last)
            if last.range.start_addr >= first_addr
                && last.range.end_addr == addr
                && last.residency == residency =>
        {
            last.range.end_addr += PAGE_BYTES;
        }
        _ => runs
            .push(PageRun { range: AddrRange { start_addr: addr, end_addr: addr + PAGE_BYTES }, residency }),
    }
}

/// Of `pages` pages from `addr`, whether each was freed lazily.
fn freed_pages(pagemap: &File, flags: &File, addr: u64, pages: u64) -> std::io::Result<Vec<bool>> {
    let pages = usize::try_from(pages).unwrap_or_default();
    let mut entries = vec![0; pages * 8];
    pagemap.read_exact_at(&mut entries, addr / PAGE_BYTES * 8)?;
    let entries = entries.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let present = entries.enumerate().filter(|(_, entry)| entry & PRESENT != 0);
    let mut frames: Vec<(u64, usize)> =
        present.map(|(page, entry)| (entry & FRAME_MASK, page)).filter(|(frame, _)| *frame != 0).collect();
    frames.sort_unstable();
    let mut freed = vec![false; pages];
    let mut rest = frames.as_slice();
    while let Some(&(first_frame, _)) = rest.first() {
        let near = |pair: &[(u64, usize)]| {
            pair[1].0 - pair[0].0 <= NEAR_FRAMES && pair[1].0 - first_frame < MAX_READ_FRAMES
        };
        let len = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (run, later) = rest.split_at(len);
        rest = later;
        let read_frames = run.last().map_or(0, |(frame, _)| frame - first_frame) + 1;
        let mut words = vec![0; usize::try_from(read_frames * 8).unwrap_or_default()];
        flags.read_exact_at(&mut words, first_frame * 8)?;
        let words = words.as_chunks().0;
        for (frame, page) in run {
            let word = usize::try_from(frame - first_frame).ok().and_then(|index| words.get(index));
            let bits = word.map_or(0, |bytes| u64::from_le_bytes(*bytes));
            freed[*page] = bits & ANON != 0 && bits & SWAP_BACKED == 0;
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::*;

    const LEN_BYTES: usize = 4 << 20;

    /// Private memory of our own, touched, with its first half freed lazily.
    struct HalfFreed(*mut std::ffi::c_void);

    impl HalfFreed {
        fn new() -> Self {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping of our own, and all of it is written within its length.
            let start = unsafe {
                let start =
                    mmap_anonymous(std::ptr::null_mut(), LEN_BYTES, access, MapFlags::PRIVATE).unwrap();
                std::ptr::write_bytes(start.cast::<u8>(), 1, LEN_BYTES);
                madvise(start, LEN_BYTES / 2, Advice::LinuxFree).unwrap();
                start
            };
            Self(start)
        }

        fn range(&self) -> AddrRange {
            AddrRange::with_len(self.0.addr() as u64, LEN_BYTES as u64).unwrap()
        }
    }

    impl Drop for HalfFreed {
        fn drop(&mut self) {
            // SAFETY: the mapping is ours and nothing refers to it any more.
            unsafe { munmap(self.0, LEN_BYTES) }.unwrap();
        }
    }

    #[test]
    fn our_own_freed_pages_are_told_from_the_others() {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let can_see = File::open("/proc/kpageflags").is_ok_and(|flags| flags.read_at(&mut [0; 8], 0).is_ok());
        let memory = HalfFreed::new();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut usages = Vec::new();
        super::super::smaps::parse(smaps.as_bytes(), &mut usages);
        let mut runs = vec![PageRun { range: memory.range(), residency: Residency::Resident }];
        mark(&pagemap, &usages, &mut runs);
        let total: u64 = runs.iter().map(|run| run.range.len_bytes()).sum();
        assert_eq!(total, LEN_BYTES as u64, "no page is lost");
        let freed = runs.iter().filter(|run| run.residency == Residency::ResidentLazyFree);
        let freed_bytes: u64 = freed.map(|run| run.range.len_bytes()).sum();
        if !can_see {
            assert_eq!(freed_bytes, 0, "without privilege nothing is guessed");
            return;
        }
        let half_bytes = LEN_BYTES as u64 / 2;
        let marked_late_bytes = 64 * PAGE_BYTES;
        assert!((half_bytes - marked_late_bytes..=half_bytes).contains(&freed_bytes), "{freed_bytes}");
    }
}
