//! Which memory is resident now: every VMA with the kernel's own figures, and every resident page.
//!
//! Two reads that follow each other within milliseconds: /proc/PID/smaps for the figures by VMA, then
//! the page map for the pages. What changes in between shows in the residual, and nowhere else.

mod pagemap;
mod smaps;

use anyhow::Result;

pub use self::pagemap::{PageRun, Residency};
pub use self::smaps::RegionUsage;
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
}

/// Takes a snapshot. `None` where the address space is gone, by exit or exec.
///
/// # Errors
/// Where /proc/PID/smaps cannot be read.
pub fn take(target: &Target) -> Result<Option<Snapshot>> {
    let text = target.smaps_text()?;
    let usages = smaps::parse(&text);
    if usages.iter().all(|usage| usage.region.is_kernel_special()) {
        return Ok(None);
    }
    let (runs, gaps) = pagemap::read(target.pagemap(), &usages);
    let snapshot = Snapshot { usages, runs, status: target.status(), threads: target.threads(), gaps };
    Ok((!target.has_exited()).then_some(snapshot))
}
