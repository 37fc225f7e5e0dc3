//! Malloc's blocks at the end of the window, compared with its start.

use std::collections::BTreeMap;

use crate::look::Look;
use crate::report::{Blocks, BlocksGrowth, Malloc, SizeClass};
use crate::runtimes::malloc::census::{Census, Sum};

/// What the report says of malloc's blocks; nothing where malloc was not found.
pub fn blocks(start: Option<&Look>, end: &Look) -> Option<Malloc> {
    let census = end.malloc.as_ref()?;
    // Where it was not found at the start, nothing was in use then; where it was not looked for, who knows.
    let before = start.map(|start| start.malloc.clone().unwrap_or_default());
    let trimmable = census.trimmable.iter().map(|range| end.snapshot.resident_bytes_in(*range)).sum();
    Some(Malloc {
        arenas: census.arenas,
        system: census.system_bytes,
        in_use: blocks_of(census.live),
        mapped: blocks_of(census.mapped),
        in_use_growth: before.as_ref().map(|before| growth(in_use(before), in_use(census))),
        thread_cached: blocks_of(census.thread_cached),
        fast: blocks_of(census.fast),
        binned: blocks_of(census.binned),
        top: census.top_bytes,
        overhead: census.overhead_bytes,
        unread: census.unread_bytes,
        trimmable,
        sizes: sizes(before.as_ref(), census),
    })
}

fn in_use(census: &Census) -> Sum {
    census.live.plus(census.mapped)
}

fn sizes(before: Option<&Census>, census: &Census) -> Vec<SizeClass> {
    let start: BTreeMap<u64, Sum> =
        before.map_or_else(BTreeMap::new, |before| before.by_size.classes().collect());
    let mut all: BTreeMap<u64, Sum> = start.keys().map(|size| (*size, Sum::default())).collect();
    all.extend(census.by_size.classes());
    let class = |(size, sum): (u64, Sum)| SizeClass {
        size,
        blocks: sum.chunks,
        bytes: sum.bytes,
        growth: before.map(|_| growth(start.get(&size).copied().unwrap_or_default(), sum)),
    };
    all.into_iter().map(class).collect()
}

fn growth(before: Sum, now: Sum) -> BlocksGrowth {
    let change = |before: u64, now: u64| now.wrapping_sub(before).cast_signed();
    BlocksGrowth { blocks: change(before.chunks, now.chunks), bytes: change(before.bytes, now.bytes) }
}

fn blocks_of(sum: Sum) -> Blocks {
    Blocks { blocks: sum.chunks, bytes: sum.bytes }
}
