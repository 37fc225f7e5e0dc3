//! What follows from the growth, whoever causes it.
//!
//! Consequences stand after the causes and never in the report's third line. The surprise: the time until
//! the limit extrapolates the process's own growth; others in the cgroup may make it shorter.

use super::trend::Verdict;
use super::{Confidence, Facts, Finding, Rule, is_percent_of, seconds_until_full};

/// Every consequence known so far.
pub(super) static RULES: [Rule; 1] = [Rule { id: "cgroup-limit", judge: cgroup_limit }];

/// Further away than this, a straight line says nothing.
const LIMIT_HORIZON_SECONDS: f64 = 24.0 * 3600.0;

/// From here on the limit is near even without growth.
const LIMIT_NEAR_PERCENT: u64 = 90;

fn cgroup_limit(facts: &Facts<'_>) -> Option<Finding> {
    let limit = facts.cgroup?;
    let growth_bytes = facts.rss_growth_bytes.unwrap_or(0);
    let seconds = seconds_until_full(limit, growth_bytes, facts.window_seconds, &facts.trend)
        .filter(|seconds| *seconds <= LIMIT_HORIZON_SECONDS);
    if seconds.is_none() && !is_percent_of(limit.current_bytes, limit.limit_bytes, LIMIT_NEAR_PERCENT) {
        return None;
    }
    let top = facts.holdings.iter().max_by_key(|holding| (holding.growth_bytes, holding.rss_bytes))?;
    let percent = limit.current_bytes as f64 / limit.limit_bytes.max(1) as f64 * 100.0;
    Some(Finding {
        id: "cgroup-limit".into(),
        owner: top.component,
        bytes: limit.current_bytes,
        growth: facts.rss_growth_bytes,
        summary: match seconds {
            Some(seconds) => {
                let time = rough_time(seconds);
                format!("At this rate its cgroup is full in {time}, and the kernel may kill it.")
            }
            None => "Its cgroup is nearly full: a little growth, and the kernel may kill it.".to_owned(),
        },
        confidence: match facts.trend.verdict {
            _ if seconds.is_none() => Confidence::Certain,
            Verdict::Grows => Confidence::Likely,
            _ => Confidence::Possible,
        },
        evidence: vec![format!("{percent:.0} % of the cgroup's limit is used, page cache included")],
        remedy: "Restart it before its cgroup is full, or raise the limit to win time.".to_owned(),
        references: Vec::new(),
    })
}

/// A time in words, for a sentence: nobody needs a prediction to the second.
fn rough_time(seconds: f64) -> String {
    let (value, one) = match seconds {
        s if s < 120.0 => (s, "second"),
        s if s < 120.0 * 60.0 => (s / 60.0, "minute"),
        s => (s / 3600.0, "hour"),
    };
    let value = value.round().max(1.0);
    format!("{value:.0} {one}{}", if value == 1.0 { "" } else { "s" })
}
