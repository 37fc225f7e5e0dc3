//! Two reports side by side: what became more, what less, what is new.
//!
//! Rows are matched by owner, stacks by owner and function names: these stay the same when a process is started anew or
//! built again, addresses and lines do not. The surprise: an owner that a ledger does not list has 0 bytes, since a
//! ledger is complete; of stacks and goroutines only those in both or in one list are known.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stacks::name;
use super::{Finding, Frame, Report};
use crate::claim::{Component, Word};

/// The comparison's schema, the first field of its JSON.
pub const COMPARISON_SCHEMA: &str = "leakprobe.diff/1";

/// Entries of a list, those that changed most.
const ENTRIES_MAX: usize = 200;

/// Two reports.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Always [`COMPARISON_SCHEMA`].
    pub schema: Word,
    /// The first report.
    pub before: Side,
    /// The second report.
    pub after: Side,
    /// Whether both are of one process: the same id, started at the same time. If not, it was started anew, or it is
    /// another one.
    pub same_process: bool,
    /// From the first report's window to the second one's; null where a report does not say.
    pub seconds_between: Option<f64>,
    /// How much more is resident.
    pub rss_change: i64,
    /// The ledgers' rows, those that changed most first.
    pub components: Vec<RowChange>,
    /// What Go's heap profile shows by allocation stack, those that changed most first; only the changed ones.
    pub heap_sites: Vec<StackChange>,
    /// What became resident in each window by call site, those that changed most first. The windows may differ.
    pub call_sites: Vec<StackChange>,
    /// Goroutines that do the same, those that changed most first; only the changed ones.
    pub goroutines: Vec<GroupChange>,
    /// Diagnoses of either report.
    pub findings: Vec<FindingChange>,
}

/// A report that is compared.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// Process id.
    pub pid: i32,
    /// The kernel's short name of it.
    pub comm: String,
    /// Path of its executable.
    pub exe: String,
    /// When the process started.
    pub started_at: String,
    /// When the window began.
    pub looked_at: String,
    /// How long it was.
    pub window_seconds: f64,
    /// Resident bytes.
    pub rss: u64,
    /// Resident bytes gained in the window; null without one.
    pub growth: Option<i64>,
}

/// A row of both ledgers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RowChange {
    /// The owner.
    pub id: Component,
    /// Its name for people.
    pub label: Word,
    /// Resident bytes.
    pub before: u64,
    /// Resident bytes.
    pub after: u64,
    /// `after` − `before`.
    pub change: i64,
}

/// A stack in both reports.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StackChange {
    /// Whose bytes.
    pub component: Component,
    /// Bytes; 0 where the report does not list the stack.
    pub before: u64,
    /// Bytes; 0 where the report does not list the stack.
    pub after: u64,
    /// `after` − `before`.
    pub change: i64,
    /// Innermost first, as in the second report if it is there.
    pub frames: Vec<Frame>,
}

/// Goroutines of one state and stack.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GroupChange {
    /// As in a report.
    pub state: Word,
    /// What they wait for.
    pub wait_reason: Option<String>,
    /// How many; 0 where the report does not list them.
    pub before: u64,
    /// How many; 0 where the report does not list them.
    pub after: u64,
    /// `after` − `before`.
    pub change: i64,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// A diagnosis.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FindingChange {
    /// Where it is.
    pub change: Presence,
    /// As in the second report, if it is there.
    pub finding: Finding,
}

/// In which report something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// In the second one only.
    New,
    /// In both.
    Stays,
    /// In the first one only.
    Gone,
}

/// Compares two reports.
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let is_same = |value: fn(&Report) -> &str| value(before) == value(after);
    Comparison {
        schema: COMPARISON_SCHEMA.into(),
        before: side(before),
        after: side(after),
        // Another executable by exec has none of the memory of the one before.
        same_process: before.target.pid == after.target.pid
            && is_same(|report| &report.target.started_at)
            && is_same(|report| &report.target.exe),
        seconds_between: seconds_between(before, after),
        rss_change: difference(before.rss.end, after.rss.end),
        components: components(before, after),
        heap_sites: changed(stacks(before, after, |report| {
            let sites = report.heap_profile.sites.iter().filter(|site| !site.frames.is_empty());
            sites.map(|site| (Component::GoHeapInUse, site.bytes, site.frames.as_slice())).collect()
        })),
        call_sites: stacks(before, after, |report| {
            let sites = report.call_sites.iter().filter(|site| !site.frames.is_empty());
            sites.map(|site| (site.component, site.bytes, site.frames.as_slice())).collect()
        }),
        goroutines: goroutines(before, after),
        findings: findings(before, after),
    }
}

fn side(report: &Report) -> Side {
    let target = &report.target;
    Side {
        pid: target.pid,
        comm: target.comm.clone(),
        exe: target.exe.clone(),
        started_at: target.started_at.clone(),
        looked_at: report.window.started_at.clone(),
        window_seconds: report.window.seconds,
        rss: report.rss.end,
        growth: report.rss.growth,
    }
}

fn seconds_between(before: &Report, after: &Report) -> Option<f64> {
    let time = |report: &Report| humantime::parse_rfc3339_weak(&report.window.started_at).ok();
    let since_epoch = |time: SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    };
    Some(since_epoch(time(after)?) - since_epoch(time(before)?))
}

fn components(before: &Report, after: &Report) -> Vec<RowChange> {
    let rss = |report: &Report, id| {
        let rows = report.components.iter().filter(move |row| row.id == id);
        rows.map(|row| row.rss).reduce(u64::saturating_add)
    };
    let row = |id: Component| {
        let (old, new) = (rss(before, id), rss(after, id));
        old.or(new)?;
        let (before, after) = (old.unwrap_or(0), new.unwrap_or(0));
        Some(RowChange { id, label: id.label().into(), before, after, change: difference(before, after) })
    };
    let mut rows: Vec<RowChange> = Component::ALL.into_iter().filter_map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.change.unsigned_abs(), row.after)));
    rows
}

/// What is compared of a stack: its owner and the names on it.
type StackKey = (Component, Vec<String>);

fn stacks(
    before: &Report,
    after: &Report,
    sites: impl for<'a> Fn(&'a Report) -> Vec<(Component, u64, &'a [Frame])>,
) -> Vec<StackChange> {
    let key =
        |(component, _, frames): &(Component, u64, &[Frame])| -> StackKey { (*component, names(frames)) };
    let (old, new) = (sites(before), sites(after));
    let pairs = paired(&old, &new, key, |(_, bytes, _)| *bytes);
    let change = |pair: Pair<'_, (Component, u64, &[Frame])>| StackChange {
        component: pair.item.0,
        before: pair.before,
        after: pair.after,
        change: difference(pair.before, pair.after),
        frames: pair.item.2.to_vec(),
    };
    pairs.into_iter().map(change).take(ENTRIES_MAX).collect()
}

fn changed(mut stacks: Vec<StackChange>) -> Vec<StackChange> {
    stacks.retain(|stack| stack.change != 0);
    stacks
}

fn goroutines(before: &Report, after: &Report) -> Vec<GroupChange> {
    let key = |group: &super::GoroutineGroup| {
        (
            group.state.clone(),
            group.wait_reason.clone(),
            names(&group.frames),
            group.created_by.as_ref().map(name),
        )
    };
    let pairs = paired(&before.goroutines, &after.goroutines, key, |group| group.count);
    let change = |pair: Pair<'_, super::GoroutineGroup>| GroupChange {
        state: pair.item.state.clone(),
        wait_reason: pair.item.wait_reason.clone(),
        before: pair.before,
        after: pair.after,
        change: difference(pair.before, pair.after),
        frames: pair.item.frames.clone(),
    };
    pairs.into_iter().map(change).filter(|group| group.change != 0).take(ENTRIES_MAX).collect()
}

fn findings(before: &Report, after: &Report) -> Vec<FindingChange> {
    fn key(finding: &Finding) -> (&str, Component) {
        (&finding.id, finding.owner)
    }
    let [then, now] = [before, after].map(|report| report.findings.iter().map(key).collect::<HashSet<_>>());
    let present = after.findings.iter().map(|finding| FindingChange {
        change: if then.contains(&key(finding)) { Presence::Stays } else { Presence::New },
        finding: finding.clone(),
    });
    let gone = before.findings.iter().filter(|finding| !now.contains(&key(finding)));
    let gone = gone.map(|finding| FindingChange { change: Presence::Gone, finding: finding.clone() });
    let mut all: Vec<FindingChange> = present.chain(gone).collect();
    all.sort_by_key(|finding| finding.change);
    all
}

/// Something of both reports, and its size in each.
struct Pair<'a, T> {
    item: &'a T,
    before: u64,
    after: u64,
}

/// Brings together what has one key, and adds up what has it in one report; most changed first.
fn paired<'a, T, K: Eq + Hash>(
    before: &'a [T],
    after: &'a [T],
    key: impl Fn(&T) -> K,
    size: impl Fn(&T) -> u64,
) -> Vec<Pair<'a, T>> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut pairs: Vec<Pair<'a, T>> = Vec::new();
    for (items, is_after) in [(after, true), (before, false)] {
        for item in items {
            let place = *places.entry(key(item)).or_insert(pairs.len());
            if place == pairs.len() {
                pairs.push(Pair { item, before: 0, after: 0 });
            }
            let sum = if is_after { &mut pairs[place].after } else { &mut pairs[place].before };
            *sum = sum.saturating_add(size(item));
        }
    }
    pairs.sort_by_key(|pair| std::cmp::Reverse((pair.before.abs_diff(pair.after), pair.after)));
    pairs
}

/// Functions; code without a name is told apart by its file, since addresses change.
fn names(frames: &[Frame]) -> Vec<String> {
    let unnamed = |frame: &Frame| frame.module.clone().unwrap_or_default();
    frames.iter().map(|frame| frame.function.clone().unwrap_or_else(|| unnamed(frame))).collect()
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(i64::MAX)
}
