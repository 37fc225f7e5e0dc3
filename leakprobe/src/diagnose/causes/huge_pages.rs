//! Memory that was freed, and is resident because it lies in a huge page with something that was not, or because the
//! kernel made huge pages of it again.

use super::{Confidence, Facts, Finding, HOLDS_MUCH_MIN_BYTES, is_percent_of, mib};
use crate::claim::Component;
use crate::diagnose::facts::Holding;

/// With so much of the growth made by the kernel out of small pages, that is the cause.
const MADE_MIN_PERCENT: u64 = 50;

pub(super) fn inflation(facts: &Facts<'_>) -> Option<Finding> {
    let bytes: u64 = facts.holdings.iter().map(dead_huge_bytes).sum();
    let made_bytes = made_bytes(facts, |_| true);
    let grown_bytes = facts.grown_bytes();
    let asked_bytes = facts.sites.iter().filter(|site| site.cause == Some("collapse")).map(|site| site.bytes);
    let by_program = made_bytes > 0 && is_percent_of(asked_bytes.sum(), made_bytes, 50);
    let makes_growth = facts.is_notable_growth(i64::try_from(made_bytes).ok())
        && is_percent_of(made_bytes, grown_bytes, MADE_MIN_PERCENT);
    if !facts.is_much(bytes) && !makes_growth {
        return None;
    }
    let owner = facts.holdings.iter().max_by_key(|holding| dead_huge_bytes(holding))?.component;
    let mut evidence = Vec::new();
    if bytes >= HOLDS_MUCH_MIN_BYTES || !makes_growth {
        evidence.push(format!("{} MiB hold nothing and lie in huge pages", mib(bytes)));
    }
    if makes_growth {
        evidence.push(format!(
            "{} MiB became resident as the kernel made huge pages, without a page fault",
            mib(made_bytes)
        ));
    }
    Some(Finding {
        id: "huge-page-inflation".into(),
        owner,
        bytes: bytes.max(made_bytes),
        growth: makes_growth.then(|| i64::try_from(made_bytes).unwrap_or(i64::MAX)),
        summary: match makes_growth {
            true => "The kernel fills it up to huge pages: freed memory becomes resident again.",
            false => "Huge pages keep freed memory resident, or let it look so.",
        }
        .to_owned(),
        confidence: if makes_growth { Confidence::Likely } else { Confidence::Possible },
        evidence,
        remedy: match facts.is_go {
            _ if by_program => {
                "It calls madvise(MADV_COLLAPSE): it should only where it uses all of the memory."
            }
            true => {
                "Set khugepaged's max_ptes_none to 0, or start the program with GODEBUG=disablethp=1 (Go 1.22 and \
                 later)."
            }
            false => {
                "Set khugepaged's max_ptes_none to 0, or switch huge pages off for the process \
                 (prctl PR_SET_THP_DISABLE, or madvise MADV_NOHUGEPAGE for its heap)."
            }
        }
        .to_owned(),
        references: vec!["golang/go#64332".into(), "golang/go#61718".into()],
    })
}

/// Of a row, what holds nothing and lies in huge pages for certain.
fn dead_huge_bytes(holding: &Holding<'_>) -> u64 {
    let (huge, rss) = (holding.huge_bytes.unwrap_or(0), holding.rss_bytes);
    let dead = match holding.component {
        Component::GoHeapIdle | Component::CHeapFree => rss,
        _ => holding.slack_bytes.unwrap_or(0),
    };
    // Whatever is alive may all lie in the huge pages.
    huge.saturating_sub(rss.saturating_sub(dead))
}

/// What khugepaged or madvise(MADV_COLLAPSE) made resident of these components.
pub(super) fn made_bytes(facts: &Facts<'_>, is_meant: impl Fn(Component) -> bool) -> u64 {
    let made = facts.sites.iter().filter(|site| matches!(site.cause, Some("khugepaged" | "collapse")));
    made.filter(|site| is_meant(site.component)).map(|site| site.bytes).sum()
}
