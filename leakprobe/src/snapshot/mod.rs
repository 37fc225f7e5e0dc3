//! Which memory is resident now: every VMA with the kernel's own figures, and every resident page.
//!
//! Two reads that follow each other within milliseconds: /proc/PID/smaps for the figures by VMA, then
//! the page map for the pages. What changes in between shows in the residual, and nowhere else.

mod lazy_free;
mod pagemap;
mod resident;
mod smaps;

use std::time::{Duration, Instant};

use anyhow::Result;

pub use self::pagemap::{PageRun, Residency};
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
        let first = self.runs.partition_point(|run| run.range.end_addr <= range.start_addr);
        let common = self.runs[first..].iter().map_while(|run| Some((run, run.range.intersection(&range)?)));
        let resident = common.filter(|(run, _)| run.residency != Residency::Swapped);
        resident.map(|(_, common)| common.len_bytes()).sum()
    }

    /// By how much the two reads disagree over what is resident.
    fn torn_bytes(&self) -> u64 {
        let resident = self.runs.iter().filter(|run| run.residency != Residency::Swapped);
        resident.map(|run| run.range.len_bytes()).sum::<u64>().abs_diff(self.rss_bytes())
    }
}

/// Reads that disagree by more than this part of the RSS are tried again.
const TORN_PART: u64 = 500;
/// How often at most, and only where a try is this quick: reading holds up the target's own mappings.
const TRIES: u32 = 4;
const QUICK: Duration = Duration::from_millis(50);

/// Takes a snapshot; of some tries, where memory came or went between the two reads, the most consistent
/// one. `None` where the address space is gone, by exit or exec.
///
/// # Errors
/// Where /proc/PID/smaps cannot be read.
pub fn take(target: &Target) -> Result<Option<Snapshot>> {
    let mut best: Option<Snapshot> = None;
    for _ in 0..TRIES {
        let started = Instant::now();
        let Some(snapshot) = take_once(target)? else { return Ok(None) };
        let torn_bytes = snapshot.torn_bytes();
        let is_good = torn_bytes <= snapshot.rss_bytes() / TORN_PART || started.elapsed() > QUICK;
        if best.as_ref().is_none_or(|best| torn_bytes < best.torn_bytes()) {
            best = Some(snapshot);
        }
        if is_good {
            break;
        }
    }
    Ok(best)
}

fn take_once(target: &Target) -> Result<Option<Snapshot>> {
    let text = target.smaps_text()?;
    let usages = smaps::parse(&text);
    if usages.iter().all(|usage| usage.region.is_kernel_special()) {
        return Ok(None);
    }
    let (mut runs, gaps) = pagemap::read(target.pagemap(), &usages);
    lazy_free::mark(target.pagemap(), &usages, &mut runs);
    let snapshot = Snapshot { usages, runs, status: target.status(), threads: target.threads(), gaps };
    Ok((!target.has_exited()).then_some(snapshot))
}
