//! Which memory is resident now: every VMA with the kernel's own figures, and every resident page.
//!
//! Of each VMA two reads, one right after the other: /proc/PID/smaps for its figures, then the page map for the
//! pages. Where they differ because memory comes and goes, the pages decide; where they differ and nothing
//! moves, that is in the residual, and nowhere else.

mod lazy_free;
mod pagemap;
mod reading;
mod resident;
mod smaps;

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

pub use self::pagemap::{PageRun, Residency, has_pagemap_scan};
use self::reading::Reading;
pub use self::resident::ResidentMemory;
pub use self::smaps::RegionUsage;
use crate::address::AddrRange;
use crate::claim::Gap;
use crate::target::{Status, Target, Thread};

/// One moment of the target's memory.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Every VMA, by address.
    pub usages: Vec<RegionUsage>,
    /// Every resident or swapped page, by address, in runs.
    pub runs: Vec<PageRun>,
    /// Figures of the process as a whole.
    pub status: Status,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// What came or went between the kernel's figures of a VMA and its pages, all VMAs together. `usages` go by
    /// the pages there.
    pub moved_bytes: u64,
    /// Huge pages that the kernel has made of small ones since it was booted, for whichever process; `None` where it
    /// does not count them.
    pub huge_pages_collapsed: Option<u64>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Snapshot {
    /// The resident set size in bytes: the sum over the VMAs, which the rows divide up.
    pub fn rss_bytes(&self) -> u64 {
        self.usages.iter().map(|usage| usage.rss_bytes).sum()
    }

    /// Resident bytes in `range`.
    pub fn resident_bytes_in(&self, range: AddrRange) -> u64 {
        resident_bytes_in(range, &self.runs)
    }
}

/// Resident bytes of `range` in `runs`, which are sorted.
pub fn resident_bytes_in(range: AddrRange, runs: &[PageRun]) -> u64 {
    let first = runs.partition_point(|run| run.range.end_addr <= range.start_addr);
    let common = runs[first..].iter().map_while(|run| Some((run, run.range.intersection(&range)?)));
    let resident = common.filter(|(run, _)| run.residency != Residency::Swapped);
    resident.map(|(_, common)| common.len_bytes()).sum()
}

/// How often an inconsistent reading is tried again at most, and only where a try takes this little time of the
/// processor: so long the target's own mappings are held up. On a busy machine much more may pass by the clock.
const TRIES: u32 = 4;
const QUICK: Duration = Duration::from_millis(50);

/// Takes a snapshot; of some tries, where memory came or went while it was read, the most consistent one.
/// `None` where the address space is gone, by exit or exec.
///
/// # Errors
/// Where /proc/PID/smaps cannot be read.
pub fn take(target: &Target) -> Result<Option<Snapshot>> {
    let mut best: Option<(Reading, Status)> = None;
    for _ in 0..TRIES {
        let started = cpu_time();
        let before = target.status();
        let reading = reading::read(target)?;
        if reading.usages.iter().all(|usage| usage.region.is_kernel_special()) {
            return Ok(None);
        }
        let is_good = reading.is_consistent() || cpu_time().saturating_sub(started) > QUICK;
        if best.as_ref().is_none_or(|(best, _)| reading.torn_bytes() < best.torn_bytes()) {
            let status = nearest(before, target.status(), reading.rss_bytes());
            best = Some((reading, status));
        }
        if is_good {
            break;
        }
    }
    let Some((reading, status)) = best.filter(|_| !target.has_exited()) else { return Ok(None) };
    let Reading { usages, mut runs, moved_bytes, gaps, .. } = reading;
    lazy_free::mark(target.pagemap(), &usages, &mut runs);
    Ok(Some(Snapshot {
        usages,
        runs,
        status,
        threads: target.threads(),
        moved_bytes,
        huge_pages_collapsed: huge_pages_collapsed(),
        gaps,
    }))
}

/// `thp_collapse_alloc` (Linux `Documentation/admin-guide/mm/transhuge.rst`).
fn huge_pages_collapsed() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("thp_collapse_alloc "))?.trim().parse().ok()
}

/// Time of the processor that this thread has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Of the statuses before and after a reading, the one whose RSS is nearer to what was read.
fn nearest(before: Status, after: Status, rss_bytes: u64) -> Status {
    let distance = |status: &Status| status.rss_bytes.map_or(u64::MAX, |bytes| bytes.abs_diff(rss_bytes));
    if distance(&before) < distance(&after) { before } else { after }
}
