//! The answer, in the first three lines: who holds how much and how fast it grows; who owns it; why.
//!
//! It refuses to explain: the table, the call sites and the findings below do. The surprise: each line has
//! several wordings, tried from the fullest to the shortest, so that long names do not push line three down.

use std::io;

use super::held::Held;
use super::layout::{Page, Paint};
use super::owners::{Account, Owner, top_grower};
use super::sites::Sites;
use super::units::{change, rate, rate_within, share, size, time};
use crate::claim::Component;
use crate::diagnose::{GROWTH_MIN_BYTES, names_cause};
use crate::report::{Finding, Report, Verdict};

/// Growth below this in the whole window is told as it is: a rate would make a trend of a few pages.
pub const RATE_MIN_BYTES: u64 = 64 << 10;

/// What is said after the cause, in alarm: how soon it ends.
const LIMIT_FINDING: &str = "cgroup-limit";

/// Of what it holds, its profile says who allocated it.
const GO_HEAP: Owner = Owner::One(Component::GoHeapInUse);

/// Writes the lines, and what limits them.
pub fn write(
    page: &mut Page<'_>,
    report: &Report,
    accounts: &[Account<'_>],
    sites: &Sites<'_>,
    held: Option<&Held<'_>>,
) -> io::Result<()> {
    page.shortest_needed(Paint::Bold, &who(report))?;
    page.shortest_needed(Paint::Plain, &owned(report, accounts))?;
    let grower = top_grower(accounts).map(|(account, _)| account.owner);
    let cause = report.findings.iter().find(|finding| finding.id != LIMIT_FINDING);
    // The race detector grows with what it watches: then the finding names who is behind it.
    let behind = cause.map(|finding| Owner::of(finding.owner));
    let behind = behind.filter(|owner| grower == Some(Owner::RaceDetector) && *owner != Owner::RaceDetector);
    let mut code = sites.headline(behind.or(grower));
    if is_snapshot(report) && accounts.first().is_some_and(|account| account.owner == GO_HEAP) {
        code = held.map_or_else(Vec::new, Held::headline);
    }
    // A known cause is the answer, and the code behind it comes after; without one, the code is the best
    // answer there is.
    if let Some(finding) = cause.filter(|finding| names_cause(&finding.id) || behind.is_some()) {
        page.prose(Paint::Plain, "", &finding.summary)?;
        page.shortest_needed(Paint::Plain, &code)?;
    } else {
        page.shortest_needed(Paint::Plain, &code)?;
        page.prose(
            Paint::Plain,
            "",
            &cause.map_or_else(|| undiagnosed(report, accounts), |finding| finding.summary.clone()),
        )?;
    }
    if let Some(limit) = report.findings.iter().find(|finding| finding.id == LIMIT_FINDING) {
        page.prose(Paint::Alarm, "", &limit.summary)?;
    }
    limits(page, report)
}

/// Whether the headline tells the finding's summary; it is not told twice then.
pub fn tells(report: &Report, finding: &Finding) -> bool {
    let cause = report.findings.iter().find(|finding| finding.id != LIMIT_FINDING);
    finding.id == LIMIT_FINDING || cause.is_some_and(|cause| cause.id == finding.id)
}

/// Line one, from the fullest wording to the shortest.
fn who(report: &Report) -> Vec<String> {
    let target = &report.target;
    let (ended, holds) = match target.ended.as_deref() {
        Some("exited") => (", exited", "held"),
        Some("exec") => (", replaced by exec", "held"),
        _ => ("", "holds"),
    };
    let name = if target.comm.is_empty() { "a process" } else { &target.comm };
    let held = format!("{name} (pid {}{ended}) {holds} {}", target.pid, size(report.rss.end));
    let [fullest, short, shortest] = trend(report);
    match heap(report) {
        None => [fullest, short, shortest].map(|trend| format!("{held}{trend}.")).to_vec(),
        Some((size, of_that)) => vec![
            format!("{held}{fullest}. Go's heap profile can see {size}{of_that}."),
            format!("{held}{short}. Go's heap profile can see {size}{of_that}."),
            format!("{held}{short}; pprof sees {size}."),
            format!("{held}{short}; pprof: {size}."),
            format!("{held}{shortest}; pprof: {size}."),
            format!("{held}{shortest}."),
        ],
    }
}

/// What follows the size, from the fullest wording to the shortest.
fn trend(report: &Report) -> [String; 3] {
    let window = time(report.window.seconds);
    let growth = report.growth;
    let plain = match report.rss.growth {
        None if is_snapshot(report) => String::new(),
        None => "; its growth is not known".to_owned(),
        _ if growth.verdict == Verdict::RisesAndFalls => {
            return [
                format!("; it rises and falls, no trend in {window}"),
                "; it rises and falls, no trend".to_owned(),
                "; up and down, no trend".to_owned(),
            ];
        }
        Some(0) => format!(" and did not grow in {window}"),
        Some(bytes) if bytes.unsigned_abs() < RATE_MIN_BYTES => format!(", {} in {window}", change(bytes)),
        Some(bytes) if bytes < 0 => format!(" and shrank by {} in {window}", size(bytes.unsigned_abs())),
        Some(bytes) => match (growth.verdict, growth.per_second.zip(growth.uncertainty)) {
            (Verdict::Grows, Some((per_second, off))) => {
                let rated = rate_within(per_second, off);
                let shortest = format!(", {}", rate(bytes, report.window.seconds));
                return [format!(" and grows by {rated}"), format!(", +{rated}"), shortest];
            }
            (Verdict::LevelsOff, _) => format!(", {} and levelling off", change(bytes)),
            (Verdict::GrewOnce, _) => format!(", {} in one step", change(bytes)),
            (Verdict::GrewUnevenly, _) => format!(", {} in {window}, unevenly", change(bytes)),
            // Nothing lasts at the pace at which a program starts.
            _ if report.window.seconds < 1.0 => format!(", {} in {window}", change(bytes)),
            _ => format!(", {}", rate(bytes, report.window.seconds)),
        },
    };
    [plain.clone(), plain.clone(), plain]
}

/// What Go's own tools can see of it, and whether that is resident bytes: the profile has its own estimate.
fn heap(report: &Report) -> Option<(String, &'static str)> {
    if report.target.runtime.kind != "go" {
        return None;
    }
    if let Some(in_use) = report.heap_profile.in_use {
        return Some((size(in_use), ""));
    }
    let heap = report.components.iter().find(|row| row.id == Component::GoHeapInUse);
    heap.map(|row| (size(row.rss), " of that"))
}

/// Line two: the owner, its share of what is held, its share of what was gained.
fn owned(report: &Report, accounts: &[Account<'_>]) -> Vec<String> {
    let Some(holder) = accounts.first().filter(|account| account.rss_bytes > 0) else {
        return vec!["Nobody was found to own it.".to_owned()];
    };
    let held = share(holder.rss_bytes, report.rss.end);
    let owns = format!("{} {held} of it", sentence(holder.owner, "owns", "own"));
    // What grew within noise is not named: the reader would go and look there.
    let net_bytes = report.rss.growth.unwrap_or(0);
    let notable_bytes = if net_bytes >= RATE_MIN_BYTES as i64 { RATE_MIN_BYTES } else { GROWTH_MIN_BYTES };
    let grower = top_grower(accounts).filter(|(top, _)| top.grown_bytes() >= Some(notable_bytes));
    let Some((grower, grown_bytes)) = grower else {
        return vec![format!("{owns}{}.", runner_up(report, accounts)), format!("{owns}.")];
    };
    let gained = grower.grown_bytes().unwrap_or(0);
    let of_growth = share(gained, grown_bytes);
    if net_bytes < RATE_MIN_BYTES as i64 {
        let (name, _) = grower.owner.in_sentence();
        let who = if grower.owner == holder.owner { " and".to_owned() } else { format!("; {name}") };
        return vec![
            format!("{owns}{who} gained {}, while others shrank.", size(gained)),
            format!("{owns}."),
        ];
    }
    if grower.owner == holder.owner {
        return vec![format!("{owns} and {of_growth} of the growth.")];
    }
    let (name, _) = grower.owner.in_sentence();
    vec![
        format!("{owns}, but {of_growth} of the growth is {name}."),
        format!(
            "{} {of_growth} of the growth; it holds {}.",
            sentence(grower.owner, "makes", "make"),
            size(grower.rss_bytes)
        ),
    ]
}

/// Without growth, the second largest holder says more than nothing.
fn runner_up(report: &Report, accounts: &[Account<'_>]) -> String {
    let second = accounts.get(1).filter(|account| account.rss_bytes > 0);
    let worded =
        second.map(|it| format!(", {} {}", it.owner.in_sentence().0, share(it.rss_bytes, report.rss.end)));
    worded.unwrap_or_default()
}

/// "The Go heap owns", "Thread stacks own".
pub fn sentence(owner: Owner, verb: &str, plural_verb: &str) -> String {
    if owner == Owner::One(Component::AnonUnknown) {
        return format!("Nobody known {verb}");
    }
    let (name, is_plural) = owner.in_sentence();
    let (first, rest) = name.split_at(1);
    format!("{}{rest} {}", first.to_uppercase(), if is_plural { plural_verb } else { verb })
}

/// Line three where no rule fits.
fn undiagnosed(report: &Report, accounts: &[Account<'_>]) -> String {
    let pid = report.target.pid;
    match report.rss.growth {
        _ if is_snapshot(report) => String::new(),
        None if report.gaps.is_empty() => String::new(),
        None => "What could not be read is listed at the end.".to_owned(),
        Some(_) if report.growth.verdict == Verdict::RisesAndFalls => {
            format!("What it takes it gives back. To see further: leakprobe {pid} --watch")
        }
        Some(_) if report.growth.verdict == Verdict::LevelsOff => {
            format!("It rose and stopped. To see whether that lasts: leakprobe {pid} --watch")
        }
        Some(bytes) if bytes >= GROWTH_MIN_BYTES as i64 => match top_grower(accounts) {
            Some((Account { owner: Owner::One(Component::GoHeapIdle | Component::CHeapFree), .. }, _)) => {
                "What grew is free again: room that is kept for what comes next. No leak."
            }
            Some((Account { owner: GO_HEAP, .. }, _)) => {
                "The Go heap grew within the room that GOGC leaves it. Watch longer to be sure."
            }
            _ => "No known cause fits; the call sites below are the lead.",
        }
        .to_owned(),
        Some(1..) => format!("Too little to name a cause. Watch longer: leakprobe {pid} --duration 300s"),
        Some(_) => {
            let holder = accounts.first().filter(|account| account.rss_bytes > 0);
            let meaning = holder.map_or("", |account| account.owner.meaning());
            format!("Nothing grows. {meaning}").trim_end().to_owned()
        }
    }
}

/// Whether that is the answer: nobody is blamed for anything, and it did not grow.
fn nothing_grows(report: &Report) -> bool {
    report.findings.is_empty()
        && report.rss.growth.is_some_and(|bytes| bytes <= 0)
        && !matches!(report.growth.verdict, Verdict::RisesAndFalls | Verdict::LevelsOff)
}

/// Why the answer is not a whole one, if it is not.
fn limits(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    let pid = report.target.pid;
    if is_snapshot(report) {
        let text = format!("A snapshot. To see who grows, and from where: leakprobe {pid} --duration 10s");
        return page.prose(Paint::Notice, "", &text);
    }
    let after = time(report.window.seconds);
    let text = match report.target.ended.as_deref() {
        None if nothing_grows(report) => format!("Watch it under load: leakprobe {pid} --duration 300s"),
        None => return Ok(()),
        Some("exited") => format!("It exited after {after} of watching; this is what was seen until then."),
        Some("exec") => {
            format!("It became another program (exec) after {after}; this is what was seen until then.")
        }
        Some("interrupted") => {
            format!("You stopped the watching after {after}; this is what was seen until then.")
        }
        Some(how) => format!("Watching ended after {after} ({how}); this is what was seen until then."),
    };
    page.prose(Paint::Notice, "", &text)
}

/// Whether there was no window.
pub fn is_snapshot(report: &Report) -> bool {
    // Not a number is no window either.
    report.window.seconds.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater)
}
