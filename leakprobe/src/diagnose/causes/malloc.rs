//! Malloc's two stories, which the RSS cannot tell apart: blocks that are not freed, and freed ones that it keeps.

use super::{Confidence, Facts, Finding, GROWTH_MIN_BYTES, Growth, grouped, mib};
use crate::claim::Component;

/// From so many arenas on, what each keeps for its threads adds up: fewer are the remedy.
const MANY_ARENAS: u64 = 4;

/// The C heap as a sanitizer has it: the same blocks, in its own allocator's place.
const UNDER_SANITIZERS: [Component; 5] = [
    Component::AsanHeap,
    Component::MsanHeap,
    Component::HwasanHeap,
    Component::LsanHeap,
    Component::TsanHeap,
];

/// Blocks that nobody frees.
pub(super) fn leak(facts: &Facts<'_>) -> Option<Finding> {
    let under_sanitizer = || UNDER_SANITIZERS.into_iter().find_map(|heap| grows(facts, heap));
    under_malloc(facts).or_else(under_sanitizer)
}

/// Blocks that take the place of freed ones are no growth of the process, and pages that hold ever less are no
/// leak.
fn under_malloc(facts: &Facts<'_>) -> Option<Finding> {
    let whole_growth_bytes = facts.sum(Component::is_malloc)?.growth_bytes?;
    let block_growth_bytes = facts.malloc.and_then(|malloc| malloc.in_use_growth_bytes);
    let pages_growth_bytes = facts.sum(|owner| owner == Component::CHeapInUse)?.growth_bytes?;
    if whole_growth_bytes < GROWTH_MIN_BYTES as i64
        || block_growth_bytes.is_some_and(|bytes| bytes < pages_growth_bytes / 2)
    {
        return None;
    }
    let mut finding = grows(facts, Component::CHeapInUse)?;
    let blocks = block_evidence(facts);
    if blocks.is_some() {
        finding.confidence = Confidence::Likely;
    }
    finding.evidence.extend(blocks);
    finding.evidence.extend(allocator(facts).map(|allocator| format!("its malloc is {allocator}")));
    Some(finding)
}

fn grows(facts: &Facts<'_>, heap: Component) -> Option<Finding> {
    let rule = Growth {
        id: "c-heap-leak",
        summary: "The C heap grows: blocks are allocated that nobody frees, or not yet.",
        confidence: Confidence::Possible,
        remedy: "Look at the call sites above: is each block freed? A cache that fills looks like a leak: watch \
                 longer, and see whether it stops.",
        references: if facts.is_go { &["golang/go#53440"] } else { &[] },
    };
    rule.of(facts, heap)
}

/// Freed blocks whose pages stay resident: much of the RSS, or most of what it gained.
pub(super) fn retention(facts: &Facts<'_>) -> Option<Finding> {
    let whole = facts.sum(Component::is_malloc)?;
    let free_bytes = facts.row(Component::CHeapFree).map_or(0, |row| row.rss_bytes);
    let beside_bytes = facts.row(Component::CHeapInUse).and_then(|row| row.slack_bytes).unwrap_or(0);
    let kept_bytes = free_bytes.saturating_add(beside_bytes);
    let block_growth_bytes = facts.malloc.and_then(|malloc| malloc.in_use_growth_bytes);
    let kept_growth_bytes = whole.growth_bytes.zip(block_growth_bytes).map(|(whole, blocks)| whole - blocks);
    if !facts.is_much(kept_bytes) && !facts.is_notable_growth(kept_growth_bytes) {
        return None;
    }
    let trimmable_bytes = facts.malloc.and_then(|malloc| malloc.trimmable_bytes);
    let is_scattered = trimmable_bytes.is_some_and(|bytes| bytes < kept_bytes / 2);
    let mut evidence = vec![match mib(beside_bytes) {
        0 => format!("{} MiB are free, in whole pages", mib(free_bytes)),
        beside => format!(
            "{} MiB are free: {} MiB in whole pages, {beside} MiB beside blocks in use",
            mib(kept_bytes),
            mib(free_bytes)
        ),
    }];
    evidence.extend(
        trimmable_bytes.map(|bytes| format!("malloc_trim(0) would give back {} MiB of them", mib(bytes))),
    );
    let arenas = facts.malloc.map_or(0, |malloc| malloc.arenas);
    evidence
        .extend((arenas >= MANY_ARENAS).then(|| format!("{arenas} arenas, each with its own free blocks")));
    evidence.extend(allocator(facts).map(|allocator| format!("its malloc is {allocator}")));
    let (summary, remedy) = if is_scattered {
        (
            "Much of the C heap is freed, but blocks in use on its pages hold it: no leak.",
            "malloc_trim cannot give back a page with a block in use. Allocate what lives long apart from what \
             does not, or try a malloc that packs blocks by size (jemalloc, mimalloc, tcmalloc).",
        )
    } else {
        (
            "Much of the C heap is freed and kept by malloc: no leak.",
            how_to_give_back(allocator(facts), arenas),
        )
    };
    Some(Finding {
        id: "c-heap-retention".into(),
        owner: if free_bytes >= beside_bytes { Component::CHeapFree } else { Component::CHeapInUse },
        bytes: kept_bytes,
        growth: kept_growth_bytes,
        summary: summary.to_owned(),
        confidence: if facts.malloc.is_some() { Confidence::Certain } else { Confidence::Likely },
        evidence,
        remedy: remedy.to_owned(),
        references: if facts.is_go { vec!["golang/go#53440".into()] } else { Vec::new() },
    })
}

/// How to have a malloc give back what it keeps.
fn how_to_give_back(allocator: Option<&str>, arenas: u64) -> &'static str {
    match allocator {
        Some("jemalloc") => {
            "Leave it be if the load comes back: the next blocks fill it. Else start the program with \
             MALLOC_CONF=dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:true."
        }
        Some("tcmalloc" | "Google's tcmalloc") => {
            "Leave it be if the load comes back: the next blocks fill it. Else have the program call \
             MallocExtension's ReleaseFreeMemory after the peak, or start it with TCMALLOC_RELEASE_RATE=10."
        }
        Some("mimalloc") => {
            "Leave it be if the load comes back: the next blocks fill it. Else have the program call \
             mi_collect(true) after the peak, or start it with MIMALLOC_PURGE_DELAY=0."
        }
        Some("musl") => {
            "Leave it be if the load comes back: the next blocks fill it. musl gives back a group of blocks when \
             all of them are free, and nothing sooner: allocate what lives long apart from what does not."
        }
        _ if arenas >= MANY_ARENAS => {
            "Leave it be if the load comes back: the next blocks fill it. Else start the program with \
             MALLOC_ARENA_MAX=2, or have it call malloc_trim(0) after the peak."
        }
        _ => {
            "Leave it be if the load comes back: the next blocks fill it. Else have the program call \
             malloc_trim(0) after the peak, or start it with MALLOC_TRIM_THRESHOLD_=131072."
        }
    }
}

/// "52,000 blocks more, 9 MiB; most of it in 41,000 of up to 208 B".
fn block_evidence(facts: &Facts<'_>) -> Option<String> {
    let malloc = facts.malloc?;
    let blocks = u64::try_from(malloc.in_use_growth_blocks?).ok()?;
    let bytes = malloc.in_use_growth_bytes.filter(|bytes| *bytes > 0)?;
    let top = malloc.top_grower.and_then(|top| Some((top, u64::try_from(top.blocks).ok()?)));
    let most = top.filter(|(top, _)| top.bytes > bytes / 2);
    let most = most.map_or_else(String::new, |(top, blocks)| {
        format!(", most of it in {} of up to {} B", grouped(blocks), grouped(top.size_bytes))
    });
    Some(format!(
        "{} blocks more are in use, {} KiB{most}",
        grouped(blocks),
        grouped(bytes.unsigned_abs() >> 10)
    ))
}

fn allocator<'a>(facts: &Facts<'a>) -> Option<&'a str> {
    facts.holdings.iter().find_map(|holding| holding.allocator)
}
