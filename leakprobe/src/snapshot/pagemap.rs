//! Which pages are resident: the PAGEMAP_SCAN request of Linux 6.7, else /proc/PID/pagemap itself.
//!
//! The first surprise: a page that was only ever read is mapped to the shared page of zeroes. The page map
//! calls it present, but RSS does not count it, so neither do we. Without PAGEMAP_SCAN it cannot be told
//! from others, and shows as a negative residual; nor can huge pages.
//!
//! The second: what is not present need not be in swap. Guard pages (`MADV_GUARD_INSTALL`, Linux 6.13) and the
//! marks of userfaultfd's write protection look like swap to both readers, and no figure of the kernel's counts
//! them. Where a VMA has such pages and swap as well, they are counted as swap.
//!
//! The third: `walk_end` may lie before regions that were found. The kernel collects 511 regions at a time, notes
//! there where it stopped, and forgets to note that it then came to the end (Linux `fs/proc/task_mmu.c`,
//! `do_pagemap_scan`, "walk_end isn't set when ret is zero"; seen on 6.18). A heap in more pieces than that had
//! megabytes counted twice.
//!
//! Tried on 6.18, where pages and Rss agree: pages of zeroes, small and huge; huge pages; files and memory shared
//! with a file, mapped whole and touched in part; rings of io_uring and of packet sockets (`VM_MIXEDMAP`);
//! perf's ring and [vvar] (`VM_PFNMAP`), of which both count nothing; swap. Not tried: device memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

use super::RegionUsage;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;

/// How a page is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// In memory, counted in RSS.
    Resident,
    /// In memory, as part of a huge page.
    ResidentHuge,
    /// In memory, counted in RSS, and given back with MADV_FREE.
    ResidentLazyFree,
    /// In swap.
    Swapped,
}

/// Adjacent pages that are there in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Whole pages.
    pub range: AddrRange,
    /// How they are there.
    pub residency: Residency,
}

/// Regions taken from the kernel at a time.
const SCAN_REGIONS: usize = 2048;
/// Without PAGEMAP_SCAN, no more address space than this is read: 8 bytes a page of mostly nothing.
const MAX_LINEAR_BYTES: u64 = 256 << 30;
const LINEAR_PAGES: usize = 16_384;

/// Category bits (include/uapi/linux/fs.h, PAGE_IS_*).
mod category {
    pub const PRESENT: u64 = 1 << 3;
    pub const SWAPPED: u64 = 1 << 4;
    pub const PFNZERO: u64 = 1 << 5;
    pub const HUGE: u64 = 1 << 6;
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ScannedRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `_IOWR('f', 16, struct pm_scan_arg)`, whose result is the number of regions written.
struct PagemapScan<'a>(&'a mut ScanArg);

// SAFETY: opcode and argument type belong together, and the kernel writes only `walk_end` and, through
// `vec`, at most `vec_len` regions, which the caller's buffer has.
unsafe impl Ioctl for PagemapScan<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        rustix::ioctl::opcode::read_write::<ScanArg>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<usize> {
        usize::try_from(result).map_err(|_| Errno::INVAL)
    }
}

/// Reads pages, and knows how this kernel lets it.
pub struct Reader<'a> {
    pagemap: &'a File,
    can_scan: bool,
    is_gone: bool,
    linear_bytes: u64,
    found: Vec<ScannedRegion>,
}

impl<'a> Reader<'a> {
    /// Of an open /proc/PID/pagemap.
    pub fn new(pagemap: &'a File) -> Self {
        let found = vec![ScannedRegion::default(); SCAN_REGIONS];
        Self { pagemap, can_scan: true, is_gone: false, linear_bytes: 0, found }
    }

    /// Whether it can be told of every page if RSS counts it.
    pub fn tells_rss(&self) -> bool {
        self.can_scan
    }

    /// Adds the pages of those of `usages` that have any. They follow each other by address, and what lies
    /// between them is passed over by the kernel: neighbours are read by one call.
    pub fn read(&mut self, usages: &[RegionUsage], runs: &mut Vec<PageRun>, gaps: &mut Vec<Gap>) {
        for neighbours in usages.chunk_by(|a, b| has_pages(a) == has_pages(b)) {
            if has_pages(&neighbours[0]) && !self.is_gone {
                self.read_neighbours(neighbours, runs, gaps);
            }
        }
    }

    fn read_neighbours(&mut self, usages: &[RegionUsage], runs: &mut Vec<PageRun>, gaps: &mut Vec<Gap>) {
        let hull = usages.first().zip(usages.last()).and_then(|(first, last)| {
            AddrRange::new(first.region.range.start_addr, last.region.range.end_addr)
        });
        let Some(hull) = hull else { return };
        if self.can_scan {
            let mut scanned = Vec::new();
            match scan(self.pagemap, hull, &mut self.found, &mut scanned) {
                Ok(()) => return divide(&scanned, usages, runs),
                Err(Errno::NOTTY | Errno::INVAL) => self.can_scan = false,
                Err(Errno::SRCH) => {
                    self.is_gone = true;
                    return;
                }
                Err(errno) => {
                    return match usages {
                        [usage] => gaps.push(gap(usage, &errno.to_string())),
                        // So that the gap is no wider than it must be.
                        _ => usages.chunks(1).for_each(|one| self.read_neighbours(one, runs, gaps)),
                    };
                }
            }
        }
        for usage in usages {
            self.read_page_by_page(usage, runs, gaps);
        }
    }

    fn read_page_by_page(&mut self, usage: &RegionUsage, runs: &mut Vec<PageRun>, gaps: &mut Vec<Gap>) {
        self.linear_bytes += usage.region.range.len_bytes();
        if self.linear_bytes > MAX_LINEAR_BYTES {
            let why = "too much to read page by page, and this kernel has no PAGEMAP_SCAN (Linux 6.7)";
            gaps.push(gap(usage, why));
            return;
        }
        let mut found = Vec::new();
        match read_linear(self.pagemap, usage.region.range, &mut found) {
            Ok(()) => divide(&found, std::slice::from_ref(usage), runs),
            Err(error) => gaps.push(gap(usage, &error.to_string())),
        }
    }
}

fn has_pages(usage: &RegionUsage) -> bool {
    usage.rss_bytes + usage.swap_bytes > 0 && !usage.hugetlb
}

/// Adds the parts of `found` that lie in `usages`, both by address, cut at the borders between these. Where the
/// kernel knows of no swap, an entry that looks like it is a mark of userfaultfd's or a guard page.
fn divide(found: &[PageRun], usages: &[RegionUsage], runs: &mut Vec<PageRun>) {
    let mut found = found;
    for usage in usages {
        let range = usage.region.range;
        found = &found[found.partition_point(|run| run.range.end_addr <= range.start_addr)..];
        let inside = found.iter().map_while(|run| Some((run, run.range.intersection(&range)?)));
        let counted = inside.filter(|(run, _)| run.residency != Residency::Swapped || usage.swap_bytes > 0);
        runs.extend(counted.map(|(run, range)| PageRun { range, residency: run.residency }));
    }
}

/// The pages of `range`, which need not be one VMA, that are there now.
pub fn read_range(pagemap: &File, range: AddrRange) -> Vec<PageRun> {
    let most_regions = usize::try_from(range.len_bytes() / PAGE_BYTES).unwrap_or(SCAN_REGIONS).max(1);
    let mut found = vec![ScannedRegion::default(); SCAN_REGIONS.min(most_regions)];
    let mut runs = Vec::new();
    if scan(pagemap, range, &mut found, &mut runs).is_err() {
        runs.clear();
        if read_linear(pagemap, range, &mut runs).is_err() {
            runs.clear();
        }
    }
    runs
}

/// Whether the kernel has PAGEMAP_SCAN, tried on ourselves.
pub fn has_pagemap_scan() -> bool {
    let Some(range) = AddrRange::new(0, PAGE_BYTES) else { return false };
    File::open("/proc/self/pagemap")
        .is_ok_and(|pagemap| scan(&pagemap, range, &mut [ScannedRegion::default()], &mut Vec::new()).is_ok())
}

fn gap(usage: &RegionUsage, why: &str) -> Gap {
    Gap {
        what: format!("resident pages of {:?}", usage.region.range),
        why: why.to_owned(),
        bytes: Some(usage.rss_bytes),
    }
}

fn scan(
    pagemap: &File,
    range: AddrRange,
    found: &mut [ScannedRegion],
    runs: &mut Vec<PageRun>,
) -> Result<(), Errno> {
    let mut start_addr = range.start_addr;
    while start_addr < range.end_addr {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            flags: 0,
            start: start_addr,
            end: range.end_addr,
            walk_end: 0,
            vec: found.as_mut_ptr().addr() as u64,
            vec_len: found.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: category::PRESENT | category::SWAPPED,
            return_mask: category::PRESENT | category::SWAPPED | category::PFNZERO | category::HUGE,
        };
        // SAFETY: `vec` points to `vec_len` regions that live until after the call.
        let count = unsafe { ioctl(pagemap, PagemapScan(&mut arg)) }?;
        let found = &found[..count.min(found.len())];
        runs.extend(found.iter().filter_map(run));
        // Whoever went on from `walk_end` alone would meet the pages after the 511th region twice: see above.
        let next_addr = found.last().map_or(arg.walk_end, |last| last.end.max(arg.walk_end));
        if next_addr <= start_addr {
            break;
        }
        start_addr = next_addr;
    }
    Ok(())
}

fn run(region: &ScannedRegion) -> Option<PageRun> {
    let range = AddrRange::new(region.start, region.end)?;
    let residency = match region.categories {
        bits if bits & category::PFNZERO != 0 => return None,
        bits if bits & category::SWAPPED != 0 => Residency::Swapped,
        bits if bits & category::HUGE != 0 => Residency::ResidentHuge,
        _ => Residency::Resident,
    };
    Some(PageRun { range, residency })
}

fn read_linear(pagemap: &File, range: AddrRange, runs: &mut Vec<PageRun>) -> std::io::Result<()> {
    let mut bytes = vec![0; LINEAR_PAGES * 8];
    let mut addr = range.start_addr;
    while addr < range.end_addr {
        let pages = ((range.end_addr - addr) / PAGE_BYTES).min(LINEAR_PAGES as u64) as usize;
        pagemap.read_exact_at(&mut bytes[..pages * 8], addr / PAGE_BYTES * 8)?;
        for entry in bytes[..pages * 8].chunks_exact(8) {
            let entry = u64::from_le_bytes(entry.try_into().expect("8 bytes"));
            push_page(runs, addr, entry);
            addr += PAGE_BYTES;
        }
    }
    Ok(())
}

/// Bit 63: present; bit 62: swapped (Linux `Documentation/admin-guide/mm/pagemap.rst`).
fn push_page(runs: &mut Vec<PageRun>, addr: u64, entry: u64) {
    let residency = match (entry >> 63 & 1, entry >> 62 & 1) {
        (1, _) => Residency::Resident,
        (0, 1) => Residency::Swapped,
        _ => return,
    };
    match runs.last_mut() {
        Some(last) if last.range.end_addr == addr && last.residency == residency => {
            last.range.end_addr += PAGE_BYTES;
        }
        _ => runs
            .push(PageRun { range: AddrRange { start_addr: addr, end_addr: addr + PAGE_BYTES }, residency }),
    }
}

#[cfg(test)]
mod tests {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::*;

    fn own_runs(reader: impl Fn(&File, AddrRange, &mut Vec<PageRun>)) -> (u64, Vec<PageRun>) {
        let memory = vec![1u8; 1 << 20];
        let start_addr = memory.as_ptr().addr() as u64;
        let range = AddrRange::with_len(start_addr, 1 << 20).unwrap().whole_pages().unwrap();
        let mut runs = Vec::new();
        reader(&File::open("/proc/self/pagemap").unwrap(), range, &mut runs);
        (range.len_bytes(), runs)
    }

    #[test]
    fn both_readers_find_our_own_pages() {
        let (len_bytes, runs) = own_runs(|file, range, runs| read_linear(file, range, runs).unwrap());
        assert_eq!(runs.iter().map(|run| run.range.len_bytes()).sum::<u64>(), len_bytes);
        let (len_bytes, runs) =
            own_runs(|file, range, runs| match scan(file, range, &mut [ScannedRegion::default(); 4], runs) {
                Err(Errno::NOTTY) => read_linear(file, range, runs).unwrap(), // before Linux 6.7
                scanned => scanned.unwrap(),
            });
        assert_eq!(runs.iter().map(|run| run.range.len_bytes()).sum::<u64>(), len_bytes);
    }

    #[test]
    fn pages_in_more_pieces_than_the_kernel_collects_at_a_time_are_found_once() {
        const PIECES: usize = 700;
        let len_bytes = 2 * PIECES * PAGE_BYTES as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of our own.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len_bytes, access, MapFlags::PRIVATE) }.unwrap();
        // SAFETY: all of it is ours, and huge pages would make one piece of it.
        unsafe { madvise(start, len_bytes, Advice::LinuxNoHugepage) }.unwrap();
        for piece in 0..PIECES {
            // SAFETY: within the mapping.
            unsafe { start.cast::<u8>().add(2 * piece * PAGE_BYTES as usize).write(1) };
        }
        let range = AddrRange::with_len(start.addr() as u64, len_bytes as u64).unwrap();
        let runs = read_range(&File::open("/proc/self/pagemap").unwrap(), range);
        // SAFETY: nothing refers to it any more.
        unsafe { munmap(start, len_bytes) }.unwrap();
        assert_eq!(runs.len(), PIECES);
        assert!(runs.is_sorted_by(|a, b| a.range.end_addr < b.range.start_addr));
    }

    #[test]
    fn pages_that_are_alike_make_one_run() {
        let mut runs = Vec::new();
        for (page, entry) in [1u64 << 63, 1 << 63, 0, 1 << 62].into_iter().enumerate() {
            push_page(&mut runs, page as u64 * PAGE_BYTES, entry);
        }
        let lens: Vec<_> = runs.iter().map(|run| (run.range.len_bytes(), run.residency)).collect();
        assert_eq!(lens, [(2 * PAGE_BYTES, Residency::Resident), (PAGE_BYTES, Residency::Swapped)]);
    }
}
