//! What the rules look at: the ledger's rows and what the runtimes say of themselves, as plain values, and sums over
//! them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::trend::{Trend, Verdict};
use super::{
    GROWTH_MIN_BYTES, GROWTH_MIN_PERCENT, HOLDS_MUCH_MIN_BYTES, HOLDS_MUCH_MIN_PERCENT, is_percent_of,
};
use crate::claim::Component;
use crate::runtimes::go::Collector;

/// What the rules look at.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Whether the program is written in Go.
    pub is_go: bool,
    /// Built with -race, where something says so or not.
    pub race: Option<bool>,
    /// How its collector is set, where that was read.
    pub collector: Option<Collector>,
    /// Goroutines started in the window and ever, as the race detector counts them; unknown without it.
    pub goroutines: Option<GoroutinesStarted>,
    /// Goroutines at the window's end.
    pub goroutine_count: Option<u64>,
    /// How many more these are than at its start.
    pub goroutine_growth: Option<i64>,
    /// Those that are blocked, by what they do.
    pub blocked: Vec<Blocked<'a>>,
    /// Resident bytes of the process.
    pub rss_bytes: u64,
    /// Their growth in the window.
    pub rss_growth_bytes: Option<i64>,
    /// How the RSS changed in the window.
    pub trend: Trend,
    /// Length of the window; 0 for a snapshot.
    pub window_seconds: f64,
    /// Threads of the process.
    pub threads: Option<u64>,
    /// How many more these are than at the window's start.
    pub thread_growth: Option<i64>,
    /// Of the threads, those that Go knows nothing of; unknown without Go.
    pub native_threads: Option<u64>,
    /// Resident stacks of threads that have exited.
    pub exited_stack_bytes: u64,
    /// The ledger's rows.
    pub holdings: Vec<Holding<'a>>,
    /// What Go's heap profile shows: what was alive at the last collections.
    pub live_bytes: Option<u64>,
    /// What Go's heap profile gained in the window, if that explains the growth of its heap.
    pub live_growth_bytes: Option<u64>,
    /// What malloc's blocks add up to, where that is known.
    pub malloc: Option<MallocFacts>,
    /// Stacks that made memory resident.
    pub sites: Vec<Site<'a>>,
    /// The memory cgroup's charge and limit, where it has one.
    pub cgroup: Option<Limit>,
}

/// How many goroutines were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoroutinesStarted {
    /// While the process was watched.
    pub in_window: u64,
    /// Since it began.
    pub ever: u64,
}

/// Goroutines that are blocked in one place, and come from one `go` statement.
#[derive(Clone, Copy, Debug)]
pub struct Blocked<'a> {
    /// How many.
    pub count: u64,
    /// How many more than at the window's start.
    pub growth: Option<i64>,
    /// What they wait for, in Go's words.
    pub reason: &'a str,
    /// The collector found that nothing can wake them any more (since Go 1.26).
    pub is_for_ever: bool,
    /// How long the longest has been waiting at least.
    pub longest_wait_seconds: Option<f64>,
    /// The innermost function that is not the runtime's.
    pub function: Option<&'a str>,
    /// The function with the `go` statement.
    pub creator: Option<&'a str>,
}

/// A row of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct Holding<'a> {
    /// The owner.
    pub component: Component,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Their growth in the window.
    pub growth_bytes: Option<i64>,
    /// Of them, given back with MADV_FREE.
    pub lazy_free_bytes: Option<u64>,
    /// The malloc that owns the row.
    pub allocator: Option<&'a str>,
    /// Of them, holding nothing live.
    pub slack_bytes: Option<u64>,
    /// Of them, in huge pages.
    pub huge_bytes: Option<u64>,
    /// Of them, unchanged pages of files.
    pub reclaimable_bytes: u64,
    /// Of them, private copies of pages of files.
    pub copied_bytes: u64,
    /// The file that gained most, or else holds most.
    pub largest_file: Option<&'a str>,
}

/// What malloc's blocks add up to.
#[derive(Clone, Copy, Debug)]
pub struct MallocFacts {
    /// Arenas, the main one included.
    pub arenas: u64,
    /// Bytes of blocks in use gained in the window.
    pub in_use_growth_bytes: Option<i64>,
    /// Blocks in use gained.
    pub in_use_growth_blocks: Option<i64>,
    /// What `malloc_trim(0)` would give back, where there is one.
    pub trimmable_bytes: Option<u64>,
    /// The size whose blocks gained most bytes.
    pub top_grower: Option<SizeGrowth>,
}

/// Blocks of one size that became more.
#[derive(Clone, Copy, Debug)]
pub struct SizeGrowth {
    /// The largest of them.
    pub size_bytes: u64,
    /// How many more.
    pub blocks: i64,
    /// Their bytes.
    pub bytes: i64,
}

/// A stack that made memory resident.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// Whose memory.
    pub component: Component,
    /// How much.
    pub bytes: u64,
    /// What made it resident, where no page fault did: "khugepaged", "collapse".
    pub cause: Option<&'a str>,
    /// The functions on it that have names, innermost first.
    pub functions: Vec<&'a str>,
}

/// A limit and how near it is.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Charged now.
    pub current_bytes: u64,
    /// Where the kernel kills.
    pub limit_bytes: u64,
}

/// What some components hold together.
pub(super) struct Sum {
    pub(super) rss_bytes: u64,
    pub(super) growth_bytes: Option<i64>,
    /// The largest of them.
    pub(super) largest: Component,
}

impl<'a> Facts<'a> {
    /// The row of a component.
    pub(super) fn row(&self, component: Component) -> Option<&Holding<'a>> {
        self.holdings.iter().find(|holding| holding.component == component)
    }

    /// What a component gained; nothing where it has no row or it is not known.
    pub(super) fn gained_bytes(&self, component: Component) -> i64 {
        self.row(component).and_then(|holding| holding.growth_bytes).unwrap_or(0)
    }

    /// What these components hold; none where they hold nothing and did not shrink.
    pub(super) fn sum(&self, is_meant: impl Fn(Component) -> bool) -> Option<Sum> {
        let meant = || self.holdings.iter().filter(|holding| is_meant(holding.component));
        let largest = meant().max_by_key(|holding| holding.rss_bytes)?.component;
        Some(Sum {
            rss_bytes: meant().map(|holding| holding.rss_bytes).sum(),
            growth_bytes: meant().map(|holding| holding.growth_bytes).sum(),
            largest,
        })
    }

    /// All growth, what shrank left out: the whole of which a component's growth is a share.
    pub(super) fn grown_bytes(&self) -> u64 {
        let grown = |holding: &Holding<'_>| holding.growth_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        self.holdings.iter().filter_map(grown).sum()
    }

    /// Whether so much growth says something about the process. Where the RSS rises and falls, less than two
    /// falls are a matter of the moment at which the window ends.
    pub(super) fn is_notable_growth(&self, growth_bytes: Option<i64>) -> bool {
        let Some(grown) = growth_bytes.and_then(|bytes| u64::try_from(bytes).ok()) else {
            return false;
        };
        let swing_bytes = if self.trend.verdict == Verdict::RisesAndFalls {
            self.trend.largest_fall.saturating_mul(2)
        } else {
            0
        };
        grown >= GROWTH_MIN_BYTES.max(swing_bytes)
            && is_percent_of(grown, self.grown_bytes(), GROWTH_MIN_PERCENT)
    }

    /// "60 s", "2.5 s".
    pub(super) fn window(&self) -> String {
        let seconds = self.window_seconds;
        if seconds < 9.95 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
    }

    /// "96 % of the growth in 60 s", where it grew.
    pub(super) fn growth_evidence(&self, growth_bytes: Option<i64>) -> Option<String> {
        let grown = growth_bytes.filter(|bytes| *bytes > 0)? as f64;
        let percent = grown / self.grown_bytes().max(1) as f64 * 100.0;
        Some(format!("{percent:.0} % of the growth in {}", self.window()))
    }

    /// Whether so much memory says something about the process.
    pub(super) fn is_much(&self, bytes: u64) -> bool {
        bytes >= HOLDS_MUCH_MIN_BYTES && is_percent_of(bytes, self.rss_bytes, HOLDS_MUCH_MIN_PERCENT)
    }
}
