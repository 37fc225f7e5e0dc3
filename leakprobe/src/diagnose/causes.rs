//! The catalogue of causes: one function a rule, one line in [`RULES`].
//!
//! A rule answers "does this cause fit?" from [`Facts`] alone. It refuses to guess: growth that has two
//! explanations is reported with both. The surprise: summaries are single lines of at most 80 columns,
//! because the third line of the report is one of them.

mod go;
mod goroutines;
mod huge_pages;
mod malloc;
mod mapped;
mod race;
mod sanitizers;
mod stacks;

use super::{
    Confidence, Facts, Finding, GROWTH_MIN_BYTES, GoroutinesStarted, HOLDS_MUCH_MIN_BYTES, Rule,
    is_percent_of,
};
use crate::claim::Component;

/// Every cause known so far.
pub(super) static RULES: [Rule; 14] = [
    Rule { id: "go-race-detector", judge: race::detector },
    Rule { id: "sanitizer-build", judge: sanitizers::build },
    Rule { id: "goroutine-leak", judge: goroutines::leak },
    Rule { id: "go-heap-growth", judge: go::heap_growth },
    Rule { id: "go-heap-idle", judge: go::heap_idle },
    Rule { id: "go-mmap-growth", judge: mapped::go_growth },
    Rule { id: "c-heap-leak", judge: malloc::leak },
    Rule { id: "c-heap-retention", judge: malloc::retention },
    Rule { id: "c-mmap-growth", judge: mapped::c_growth },
    Rule { id: "thread-stacks", judge: stacks::thread_stacks },
    Rule { id: "file-backed", judge: mapped::file_backed },
    Rule { id: "shmem-growth", judge: mapped::shmem_growth },
    Rule { id: "madv-free", judge: go::madv_free },
    Rule { id: "huge-page-inflation", judge: huge_pages::inflation },
];

/// What a rule says of a component that makes a notable part of the growth, for reasons that are not told apart.
struct Growth<'a> {
    id: &'static str,
    summary: &'a str,
    confidence: Confidence,
    remedy: &'a str,
    references: &'a [&'static str],
}

impl Growth<'_> {
    /// The finding, where the component grows.
    fn of(&self, facts: &Facts<'_>, component: Component) -> Option<Finding> {
        let sum = facts.sum(|owner| owner == component)?;
        // What the kernel added by itself has a finding of its own.
        let made_bytes =
            i64::try_from(huge_pages::made_bytes(facts, |owner| owner == component)).unwrap_or(i64::MAX);
        let own_bytes = sum.growth_bytes.map(|bytes| bytes.saturating_sub(made_bytes));
        facts.is_notable_growth(own_bytes).then(|| Finding {
            id: self.id.into(),
            owner: component,
            bytes: sum.rss_bytes,
            growth: sum.growth_bytes,
            summary: self.summary.to_owned(),
            confidence: self.confidence,
            evidence: facts.growth_evidence(sum.growth_bytes).into_iter().collect(),
            remedy: self.remedy.to_owned(),
            references: self.references.iter().map(|&name| name.into()).collect(),
        })
    }
}

/// New bytes of these components that have a stack.
fn sites_of(facts: &Facts<'_>, is_meant: impl Fn(Component) -> bool) -> u64 {
    facts.sites.iter().filter(|site| is_meant(site.component)).map(|site| site.bytes).sum()
}

/// New bytes of these components whose stack passes the function or one of its closures.
fn bytes_under(facts: &Facts<'_>, is_meant: impl Fn(Component) -> bool, function: &str) -> u64 {
    let passes = |name: &&str| {
        name.strip_prefix(function).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let sites = facts.sites.iter().filter(|site| is_meant(site.component));
    sites.filter(|site| site.functions.iter().any(passes)).map(|site| site.bytes).sum()
}

/// As the table of owners rounds, so that nobody wonders about a MiB.
const fn mib(bytes: u64) -> u64 {
    bytes.saturating_add(1 << 19) >> 20
}

/// 1234567 → "1,234,567".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let starts = digits.len() % 3;
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 3 == starts {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
