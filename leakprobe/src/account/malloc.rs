//! Malloc's blocks at the end of the window, compared with its start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::attribute::ledger::Ledger;
use crate::attribute::sites::RawCallSite;
use crate::claim::Component;
use crate::look::Look;
use crate::report::{Blocks, BlocksGrowth, ClassRow, Malloc, SizeClass};
use crate::runtimes::cpp::Class;
use crate::runtimes::malloc::census::{Census, Sum};
use crate::symbolize::type_name;

/// C++ classes in the report; the smaller ones are summed up.
const MAX_CLASSES: usize = 1000;

/// What the report says of malloc's blocks; nothing where malloc was not found.
pub fn blocks(start: Option<&Look>, end: &Look, reused_bytes: Option<u64>) -> Option<Malloc> {
    let census = end.malloc.as_ref()?;
    // Where it was not found at the start, nothing was in use then; where it was not looked for, who knows.
    let nothing = Census::default();
    let before = start.map(|start| start.malloc.as_ref().unwrap_or(&nothing));
    let trimmable = census
        .trimmable
        .as_ref()
        .map(|ranges| ranges.iter().map(|range| end.snapshot.resident_bytes_in(*range)).sum());
    Some(Malloc {
        arenas: census.arenas,
        system: census.system_bytes,
        in_use: blocks_of(census.live),
        mapped: blocks_of(census.mapped),
        in_use_growth: before.map(|before| growth(in_use(before), in_use(census))),
        thread_cached: blocks_of(census.thread_cached),
        fast: blocks_of(census.fast),
        binned: blocks_of(census.binned),
        top: census.top_bytes,
        overhead: census.overhead_bytes,
        unread: census.unread_bytes,
        trimmable,
        reused: reused_bytes,
        sizes: sizes(before, census),
        classes: classes(before, census),
        unclassed: blocks_of(census.unclassed),
    })
}

/// Of what blocks in use gained, the bytes that no new page can hold. What they are on is known by page: a ledger,
/// and its rows' bytes that hold nothing. At least so much: new pages may hold less than they have room for.
pub fn reused_bytes(
    before: (&Ledger, &BTreeMap<Component, u64>),
    now: (&Ledger, &BTreeMap<Component, u64>),
    sites: &[RawCallSite],
) -> Option<u64> {
    let held_bytes = |(ledger, slack): (&Ledger, &BTreeMap<Component, u64>)| {
        ledger.rss_of(Component::CHeapInUse).checked_sub(*slack.get(&Component::CHeapInUse)?)
    };
    let gained_bytes = held_bytes(now)?.saturating_sub(held_bytes(before)?);
    let new = sites.iter().filter(|site| site.component.is_malloc()).map(|site| site.bytes);
    Some(gained_bytes.saturating_sub(new.fold(0, u64::saturating_add)))
}

fn classes(before: Option<&Census>, census: &Census) -> Vec<ClassRow> {
    let start = before.map(|before| &before.by_class);
    let of = |counted: &BTreeMap<Class, Sum>, class: &Class| counted.get(class).copied().unwrap_or_default();
    let all: BTreeSet<&Class> =
        start.into_iter().flatten().chain(&census.by_class).map(|(class, _)| class).collect();
    let mut rows: Vec<ClassRow> = all
        .into_iter()
        .map(|class| {
            let now = of(&census.by_class, class);
            ClassRow {
                class: Some(type_name(&class.mangled)),
                module: Some(class.module.clone()),
                blocks: now.chunks,
                bytes: now.bytes,
                growth: start.map(|start| growth(of(start, class), now)),
            }
        })
        .collect();
    rows.sort_by_key(|row| (Reverse(row.growth.map(|growth| growth.bytes)), Reverse(row.bytes)));
    let smaller = rows.split_off(rows.len().min(MAX_CLASSES)).into_iter().reduce(together);
    rows.extend(smaller.map(|row| ClassRow { class: None, module: None, ..row }));
    rows
}

fn together(one: ClassRow, other: ClassRow) -> ClassRow {
    let both = |(one, other): (BlocksGrowth, BlocksGrowth)| BlocksGrowth {
        blocks: one.blocks.saturating_add(other.blocks),
        bytes: one.bytes.saturating_add(other.bytes),
    };
    ClassRow {
        blocks: one.blocks.saturating_add(other.blocks),
        bytes: one.bytes.saturating_add(other.bytes),
        growth: one.growth.zip(other.growth).map(both),
        ..one
    }
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
