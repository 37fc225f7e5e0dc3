//! Malloc's two stories, which the RSS cannot tell apart: blocks that are not freed, and freed ones that it keeps.

use super::{Facts, Finding, GROWTH_MIN_BYTES, grouped, growth};
use crate::claim::Component;

/// Blocks that take the place of freed ones are no growth of the process, and pages that hold ever less are no
/// leak.
pub(super) fn leak(facts: &Facts<'_>) -> Option<Finding> {
    let whole_growth_bytes = facts.sum(Component::is_malloc)?.growth_bytes?;
    let block_growth_bytes = facts.malloc.and_then(|malloc| malloc.in_use_growth_bytes);
    let pages_growth_bytes = facts.sum(|owner| owner == Component::CHeapInUse)?.growth_bytes?;
    if whole_growth_bytes < GROWTH_MIN_BYTES as i64
        || block_growth_bytes.is_some_and(|bytes| bytes < pages_growth_bytes / 2)
    {
        return None;
    }
    let mut finding = growth(
        facts,
        Component::CHeapInUse,
        "c-heap-leak",
        "The C heap grows: blocks are allocated that nobody frees, or not yet.",
        "Look at the call sites above: is each block freed? A cache that fills looks like a leak: watch \
         longer, and see whether it stops.",
        if facts.is_go { &["golang/go#53440"] } else { &[] },
    )?;
    finding.evidence.extend(block_evidence(facts));
    finding.evidence.extend(allocator(facts).map(|allocator| format!("its malloc is {allocator}")));
    Some(finding)
}

/// Freed blocks whose pages stay resident: much of the RSS, or most of what it gained.
pub(super) fn retention(facts: &Facts<'_>) -> Option<Finding> {
    let whole = facts.sum(Component::is_malloc)?;
    let row = |component| facts.holdings.iter().find(move |holding| holding.component == component);
    let free_bytes = row(Component::CHeapFree).map_or(0, |row| row.rss_bytes);
    let beside_bytes = row(Component::CHeapInUse).and_then(|row| row.slack_bytes).unwrap_or(0);
    let kept_bytes = free_bytes.saturating_add(beside_bytes);
    let block_growth_bytes = facts.malloc.and_then(|malloc| malloc.in_use_growth_bytes);
    let kept_growth_bytes = whole.growth_bytes.zip(block_growth_bytes).map(|(whole, blocks)| whole - blocks);
    if !facts.is_much(kept_bytes) && !facts.is_notable_growth(kept_growth_bytes) {
        return None;
    }
    let trimmable_bytes = facts.malloc.and_then(|malloc| malloc.trimmable_bytes);
    let is_scattered = trimmable_bytes.is_some_and(|bytes| bytes < kept_bytes / 2);
    let mut evidence = vec![format!(
        "{} MiB are free: {} MiB in whole pages, {} MiB beside blocks in use",
        kept_bytes >> 20,
        free_bytes >> 20,
        beside_bytes >> 20
    )];
    evidence.extend(
        trimmable_bytes.map(|bytes| format!("malloc_trim(0) would give back {} MiB of them", bytes >> 20)),
    );
    evidence.extend(allocator(facts).map(|allocator| format!("its malloc is {allocator}")));
    let (summary, remedy) = if is_scattered {
        (
            "Much of the C heap is freed, but blocks in use on its pages hold it: no leak.",
            "malloc_trim cannot give back a page with a block in use. Allocate what lives long apart from what \
             does not, or try a malloc that packs blocks by size (jemalloc, mimalloc, tcmalloc).",
        )
    } else {
        ("Much of the C heap is freed and kept by malloc: no leak.", how_to_give_back(allocator(facts)))
    };
    Some(Finding {
        id: "c-heap-retention".into(),
        owner: if free_bytes >= beside_bytes { Component::CHeapFree } else { Component::CHeapInUse },
        bytes: kept_bytes,
        growth: kept_growth_bytes,
        summary: summary.to_owned(),
        evidence,
        remedy: remedy.to_owned(),
        references: Vec::new(),
    })
}

/// How to have a malloc give back what it keeps.
fn how_to_give_back(allocator: Option<&str>) -> &'static str {
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
        _ => {
            "Leave it be if the load comes back: the next blocks fill it. Else have the program call \
             malloc_trim(0) after the peak, or start it with MALLOC_ARENA_MAX=2 or MALLOC_TRIM_THRESHOLD_=131072."
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
