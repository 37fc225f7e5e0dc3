//! Which known cause fits what was measured: findings, each with its evidence, a remedy and references.
//!
//! Pure: [`Facts`] in, [`Finding`]s out. It names causes, it does not search for new ones, and where a cause
//! cannot be told from another yet, the finding says so. The surprise: an empty list is a good answer; the
//! thresholds below are there so that a warming cache or a heap between two collections raises nothing.

mod causes;
mod consequences;
mod facts;
pub mod pages;
pub mod trend;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::facts::{Blocked, Facts, GoroutinesStarted, Holding, Limit, MallocFacts, Site, SizeGrowth};
use self::trend::Trend;
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
    /// How surely this is the cause.
    #[serde(default)]
    pub confidence: Confidence,
    /// What was seen that says so.
    pub evidence: Vec<String>,
    /// One or two sentences: what to do.
    pub remedy: String,
    /// Issues and documents: "golang/go#63276" is an issue on GitHub.
    pub references: Vec<Word>,
}

/// How surely a finding names the cause, by the evidence it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// It fits, and so does something else that was not excluded: a cache that fills looks like a leak.
    #[default]
    Possible,
    /// What was seen in the window, or how memory is laid out, speaks for it; anything else would be unusual.
    Likely,
    /// The runtime's own structures or the kernel's own counters say so, and leave no other explanation.
    Certain,
}

/// What finds one thing that may be the matter.
struct Rule {
    /// Of every finding it gives.
    id: &'static str,
    judge: fn(&Facts<'_>) -> Option<Finding>,
}

/// The findings: causes by growth, most of it first, then what follows from them.
pub fn diagnose(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = found(&causes::RULES, facts);
    findings.sort_by_key(|finding| {
        let growth_bytes = explained_growth_bytes(finding, facts).max(0);
        (std::cmp::Reverse(growth_bytes), std::cmp::Reverse(finding.bytes))
    });
    findings.extend(found(&consequences::RULES, facts));
    findings
}

/// The ids of all findings there can be: causes, then consequences.
pub fn ids() -> impl Iterator<Item = &'static str> {
    causes::RULES.iter().chain(&consequences::RULES).map(|rule| rule.id)
}

fn found(rules: &[Rule], facts: &Facts<'_>) -> Vec<Finding> {
    let judged = rules.iter().filter_map(|rule| {
        let finding = (rule.judge)(facts)?;
        debug_assert_eq!(finding.id, rule.id);
        Some(finding)
    });
    judged.collect()
}

/// The growth that a finding is the reason of. Goroutines that leak keep their heap alive, and what the race detector
/// has of both, too.
fn explained_growth_bytes(finding: &Finding, facts: &Facts<'_>) -> i64 {
    let own_bytes = finding.growth.unwrap_or(0);
    if finding.id != "goroutine-leak" {
        return own_bytes;
    }
    [Component::GoHeapInUse, Component::TsanRuntime, Component::TsanShadow, Component::TsanMeta]
        .into_iter()
        .map(|component| facts.gained_bytes(component))
        .fold(own_bytes, i64::saturating_add)
}

/// Whether the finding names a cause, or only an owner whose growth has several possible ones.
pub fn names_cause(id: &str) -> bool {
    !matches!(id, "go-heap-growth" | "c-heap-leak" | "c-mmap-growth" | "go-mmap-growth")
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

/// Whether `part` is at least so many percent of `whole`.
fn is_percent_of(part: u64, whole: u64, percent: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * u128::from(percent)
}

#[cfg(test)]
mod tests;
