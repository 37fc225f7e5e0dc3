//! Goroutines that become more, and wait in one place.
//!
//! Refuses those that run, and growth that is spread over many places. The surprise: connections that are served or
//! pooled look the same for a while; what they wait for says how likely a leak is.

use super::{Confidence, Facts, Finding, grouped};
use crate::claim::Component;
use crate::diagnose::facts::Blocked;

/// Fewer more are a burst of requests.
const MORE_MIN: u64 = 100;
/// Of all goroutines, so many percent must have come in the window.
const MORE_MIN_PERCENT: u64 = 10;
/// The report's third line.
const SUMMARY_COLUMNS: usize = 80;

pub(super) fn leak(facts: &Facts<'_>) -> Option<Finding> {
    let group = lost(facts).or_else(|| growing(facts))?;
    let stacks = facts.row(Component::GoStacks);
    let (window, count) = (facts.window(), grouped(group.count));
    let mut evidence = Vec::new();
    if let Some((all, more)) = facts.goroutine_count.zip(facts.goroutine_growth) {
        let more = if more < 0 { more.to_string() } else { format!("+{}", grouped(more.unsigned_abs())) };
        evidence.push(format!("{more} goroutines in {window}, {} in all", grouped(all)));
    }
    evidence.push(match group.function {
        Some(function) => format!("{count} wait on {} in {function}", group.reason),
        None => format!("{count} wait on {}", group.reason),
    });
    evidence.extend(group.creator.map(|creator| format!("made by the go statement in {creator}")));
    let waiting = group.longest_wait_seconds.filter(|waiting| *waiting >= 60.0);
    evidence.extend(waiting.map(|waiting| format!("one has waited for {:.0} min", waiting / 60.0)));
    if group.is_for_ever {
        evidence.push("the collector found that nothing can wake them".to_owned());
    }
    Some(Finding {
        id: "goroutine-leak".into(),
        owner: Component::GoStacks,
        bytes: stacks.map_or(0, |stacks| stacks.rss_bytes),
        growth: stacks.and_then(|stacks| stacks.growth_bytes),
        summary: summary(group),
        confidence: confidence(group),
        evidence,
        remedy:
            "See what should wake or end them: a channel nobody closes, a context nobody cancels, a response \
                 body nobody closes, a call without a timeout."
                .to_owned(),
        references: if group.is_for_ever { vec!["golang/go#74609".into()] } else { Vec::new() },
    })
}

/// Those that the collector gave up, many of them.
fn lost<'a, 'b>(facts: &'b Facts<'a>) -> Option<&'b Blocked<'a>> {
    let lost = facts.blocked.iter().filter(|group| group.is_for_ever && group.count >= MORE_MIN);
    lost.max_by_key(|group| group.count)
}

/// The group that makes most of the growth.
fn growing<'a, 'b>(facts: &'b Facts<'a>) -> Option<&'b Blocked<'a>> {
    let more = u64::try_from(facts.goroutine_growth?).ok().filter(|more| *more >= MORE_MIN)?;
    let is_part = super::is_percent_of(more, facts.goroutine_count?, MORE_MIN_PERCENT);
    let group = facts.blocked.iter().filter(|_| is_part).max_by_key(|group| group.growth)?;
    let grown = u64::try_from(group.growth?).ok()?;
    // Waiting for the network or a clock they end by themselves; unless memory grows, too, that is no news.
    let stacks_growth = facts.row(Component::GoStacks).and_then(|stacks| stacks.growth_bytes);
    let memory_grows = facts.is_notable_growth(stacks_growth);
    (grown >= MORE_MIN && grown >= more / 2 && (!ends_by_itself(group.reason) || memory_grows))
        .then_some(group)
}

/// Go's words for what a clock or the other side of a connection ends (Go `src/runtime/runtime2.go`).
fn ends_by_itself(reason: &str) -> bool {
    matches!(reason, "IO wait" | "sleep")
}

fn confidence(group: &Blocked<'_>) -> Confidence {
    match group.reason {
        _ if group.is_for_ever => Confidence::Certain,
        // What a pool of workers or of connections does, too.
        reason if ends_by_itself(reason) || reason == "select" => Confidence::Possible,
        _ => Confidence::Likely,
    }
}

fn summary(group: &Blocked<'_>) -> String {
    let (count, which) = match group.growth.and_then(|growth| u64::try_from(growth).ok()) {
        Some(growth) if growth > 0 => (grouped(growth), " more"),
        _ => (grouped(group.count), ""),
    };
    let function = group.function.map(|function| format!(" in {function}"));
    let wordings = [function.as_deref().unwrap_or(""), ""]
        .map(|place| format!("Goroutines leak: {count}{which} wait on {}{place}.", group.reason));
    let fits = |text: &&String| text.chars().count() <= SUMMARY_COLUMNS;
    wordings.iter().find(fits).cloned().unwrap_or_else(|| format!("Goroutines leak: {count}{which} wait."))
}
