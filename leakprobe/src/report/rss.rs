//! The process's resident memory as a whole: as the rows divide it, and as the kernel's counters have it.
//!
//! The surprise: the two need not be equal. The rows and `end` come from a walk over the page tables; `ps`, `top` and
//! the kernel's own high-water mark have theirs from counters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Resident set size of the whole process, in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Rss {
    /// At the window's start; null where the process could not be read then.
    pub start: Option<u64>,
    /// At its end, from the same reads as the components.
    pub end: u64,
    /// `end` − `start`.
    pub growth: Option<i64>,
    /// High-water mark since the process started (VmHWM).
    pub peak: Option<u64>,
    /// Swapped out.
    pub swap: u64,
    /// Freed with MADV_FREE, and taken by the kernel when it needs memory.
    pub lazy_free: u64,
    /// Mapped as huge pages.
    pub huge: u64,
    /// Unchanged pages of files, which the kernel drops when it needs memory.
    pub reclaimable: u64,
    /// Locked by mlock or mlockall; of pages shared with other processes this one's share.
    pub locked: u64,
    /// Kept once for several processes or places by KSM, and counted in full; null where the kernel does not say.
    pub ksm: Option<u64>,
    /// What came or went while it was read, between the kernel's figures of a mapping and its pages: there, `end`
    /// and the rows go by the pages. As of the last look.
    pub moved: u64,
    /// What the kernel's own counters say, at the last look.
    pub counters: RssCounters,
}

/// The kernel's counters of resident memory (/proc/PID/status). It keeps them by processor or by thread and adds
/// them up now and then: on some kernels they are off by some dozen pages of each (Linux `mm/memory.c`,
/// `SPLIT_RSS_COUNTING`, until 6.1; `lib/percpu_counter.c` since). Null where not read.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct RssCounters {
    /// VmRSS.
    pub rss: Option<u64>,
    /// RssAnon.
    pub anon: Option<u64>,
    /// RssFile.
    pub file: Option<u64>,
    /// RssShmem.
    pub shmem: Option<u64>,
    /// `rss` − `rss.end`; of a process that moves, also what moved between two reads. In no row.
    pub difference: Option<i64>,
}
