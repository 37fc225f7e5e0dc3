//! Which known cause fits what was measured: findings, each with its evidence, a remedy and references.
//!
//! Pure: [`Facts`] in, [`Finding`]s out. It names causes, it does not search for new ones, and where a cause
//! cannot be told from another yet, the finding says so. The surprise: an empty list is a good answer; the
//! thresholds below are there so that a warming cache or a heap between two collections raises nothing.

mod causes;
mod consequences;
pub mod trend;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::trend::{Trend, Verdict};
use crate::claim::{Component, Word};

/// Less growth than this in the window is noise: thread caches, buffers, a few more pages of code touched.
pub const GROWTH_MIN_BYTES: u64 = 1 << 20;

/// A component that makes less of the growth than this is not why the process grows.
const GROWTH_MIN_PERCENT: u64 = 20;

/// An owner holds much without growing from here on, if it also holds [`HOLDS_MUCH_MIN_PERCENT`] of the RSS.
const HOLDS_MUCH_MIN_BYTES: u64 = 64 << 20;

/// Below this share of the RSS another owner is the better lead.
const HOLDS_MUCH_MIN_PERCENT: u64 = 30;

/// A diagnosis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// From the catalogue; API.
    pub id: Word,
    /// The component concerned; the largest one where several are.
    pub owner: Component,
    /// Resident bytes concerned.
    pub bytes: u64,
    /// Their growth in the window.
    pub growth: Option<i64>,
    /// One sentence: what is the matter.
    pub summary: String,
    /// What was seen that says so.
    pub evidence: Vec<String>,
    /// One or two sentences: what to do.
    pub remedy: String,
    /// Issues and documents: "golang/go#63276" is an issue on GitHub.
    pub references: Vec<Word>,
}

/// What the rules look at.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Whether the program is written in Go.
    pub is_go: bool,
    /// Built with -race, where something says so or not.
    pub race: Option<bool>,
    /// Goroutines started in the window and ever, as the race detector counts them; unknown without it.
    pub goroutines: Option<GoroutinesStarted>,
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
    /// The ledger's rows.
    pub holdings: Vec<Holding<'a>>,
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
}

/// What malloc's blocks add up to.
#[derive(Clone, Copy, Debug)]
pub struct MallocFacts {
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

/// The findings: causes by growth, most of it first, then what follows from them.
pub fn diagnose(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = causes::RULES.iter().filter_map(|rule| rule(facts)).collect();
    findings.sort_by_key(|finding| {
        let growth_bytes = finding.growth.unwrap_or(0).max(0);
        (std::cmp::Reverse(growth_bytes), std::cmp::Reverse(finding.bytes))
    });
    findings.extend(consequences::RULES.iter().filter_map(|rule| rule(facts)));
    findings
}

/// Whether the finding names a cause, or only an owner whose growth has several possible ones.
pub fn names_cause(id: &str) -> bool {
    !matches!(id, "go-heap-growth" | "c-heap-leak" | "c-mmap-growth" | "go-mmap-growth" | "thread-stacks")
}

/// Seconds until a cgroup is full if it goes on as in the window; none where it does not really grow.
pub fn seconds_until_full(
    limit: Limit,
    growth_bytes: i64,
    window_seconds: f64,
    trend: &Trend,
) -> Option<f64> {
    if !trend.goes_on() {
        return None;
    }
    let growth_bytes = u64::try_from(growth_bytes).ok().filter(|bytes| *bytes >= GROWTH_MIN_BYTES)?;
    let free_bytes = limit.limit_bytes.saturating_sub(limit.current_bytes);
    (window_seconds > 0.0).then(|| free_bytes as f64 * window_seconds / growth_bytes as f64)
}

/// What some components hold together.
struct Sum {
    rss_bytes: u64,
    growth_bytes: Option<i64>,
    /// The largest of them.
    largest: Component,
}

impl Facts<'_> {
    /// What these components hold; none where they hold nothing and did not shrink.
    fn sum(&self, is_meant: impl Fn(Component) -> bool) -> Option<Sum> {
        let meant = || self.holdings.iter().filter(|holding| is_meant(holding.component));
        let largest = meant().max_by_key(|holding| holding.rss_bytes)?.component;
        Some(Sum {
            rss_bytes: meant().map(|holding| holding.rss_bytes).sum(),
            growth_bytes: meant().map(|holding| holding.growth_bytes).sum(),
            largest,
        })
    }

    /// All growth, what shrank left out: the whole of which a component's growth is a share.
    fn grown_bytes(&self) -> u64 {
        let grown = |holding: &Holding<'_>| holding.growth_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        self.holdings.iter().filter_map(grown).sum()
    }

    /// Whether so much growth says something about the process. Where the RSS rises and falls, less than two
    /// falls are a matter of the moment at which the window ends.
    fn is_notable_growth(&self, growth_bytes: Option<i64>) -> bool {
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

    /// "96 % of the growth in 60 s", where it grew.
    fn growth_evidence(&self, growth_bytes: Option<i64>) -> Option<String> {
        let grown = growth_bytes.filter(|bytes| *bytes > 0)? as f64;
        let percent = grown / self.grown_bytes().max(1) as f64 * 100.0;
        Some(format!("{percent:.0} % of the growth in {:.0} s", self.window_seconds))
    }

    /// Whether so much memory says something about the process.
    fn is_much(&self, bytes: u64) -> bool {
        bytes >= HOLDS_MUCH_MIN_BYTES && is_percent_of(bytes, self.rss_bytes, HOLDS_MUCH_MIN_PERCENT)
    }
}

/// Whether `part` is at least so many percent of `whole`.
fn is_percent_of(part: u64, whole: u64, percent: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
}

#[cfg(test)]
mod tests;
