//! The Go heap by who allocated it, with names: what it holds, and what it gained.
//!
//! Names are those of pprof: each address of a stack is one call of the source, since the runtime lists inlined
//! calls too. The surprise: only the last address may stand for several, where the stack was too deep to keep.

use super::sites::{Retold, retold};
use crate::attribute::held;
use crate::claim::Component;
use crate::look::Look;
use crate::report::{self, CallSite, Frame, HEAP_PROFILE, SMALLER_SITES};
use crate::runtimes::go::{HeapProfile, HeldSite, SizeClass};
use crate::symbolize::Symbolizer;

/// Sites with names in the report; the rest is summed up.
const MAX_SITES: usize = 1000;
/// The note where the runtime made more stacks than are kept.
const TOO_MANY_STACKS: &str = "more stacks than are kept";
/// The note of what the Go heap gained beyond its profile.
const NOT_IN_PROFILE: &str = "garbage, or allocated since the last collection";
/// Why there is no profile: Go `src/runtime/proc.go`, `schedinit`, since 1.21; or the program's own doing.
const SWITCHED_OFF: &str = "There is no heap profile: nothing in the program reads one (Go's linker then leaves it out), or it set \
     MemProfileRate to 0.";

/// What the program's heap profile shows, with what changed since `start`.
pub fn heap_profile(
    start: Option<&Look>,
    end: &Look,
    symbolizer: &mut Symbolizer<'_>,
) -> report::HeapProfile {
    let none = report::HeapProfile::none();
    let Some(profile) = &end.heap_profile else { return none };
    if !profile.is_kept() {
        return report::HeapProfile { rate: Some(0), note: Some(SWITCHED_OFF.into()), ..none };
    }
    let before = start.and_then(|start| start.heap_profile.as_ref());
    let before = before.and_then(|before| Some((before, held::changes(before, profile)?)));
    let changes = before.as_ref().map(|(_, changes)| changes.iter().copied());
    let mut changes = changes.into_iter().flatten();
    let mut all: Vec<Holder<'_>> =
        profile.sites.iter().map(|site| (site, site.bytes, changes.next())).collect();
    if let Some((before, _)) = &before {
        let gone = held::vanished(before, profile).into_iter();
        all.extend(gone.map(|site| (site, 0, Some(held::difference(site.bytes, 0)))));
    }
    report::HeapProfile {
        in_use: Some(profile.in_use_bytes),
        in_use_objects: Some(profile.in_use_objects),
        growth: before.map(|(before, _)| held::difference(before.in_use_bytes, profile.in_use_bytes)),
        rate: Some(profile.rate_bytes),
        source: "mbuckets".into(),
        sites: named(&all, symbolizer),
        ..none
    }
}

/// A stack, the bytes it holds, and how these changed.
type Holder<'a> = (&'a HeldSite, u64, Option<i64>);

/// The first of them with names, the others as one.
fn named(all: &[Holder<'_>], symbolizer: &mut Symbolizer<'_>) -> Vec<report::HeldSite> {
    let objects = |site: &HeldSite, bytes: u64| if bytes == 0 { 0 } else { site.objects };
    let (listed, smaller) = all.split_at(all.len().min(MAX_SITES));
    let site = |&(site, bytes, growth): &Holder<'_>| report::HeldSite {
        bytes,
        objects: objects(site, bytes),
        growth,
        frames: frames(&site.stack, symbolizer),
        note: site.stack.is_empty().then_some(TOO_MANY_STACKS.into()),
    };
    let mut sites: Vec<report::HeldSite> = listed.iter().map(site).collect();
    if !smaller.is_empty() {
        let mut growths = smaller.iter().map(|(_, _, growth)| *growth);
        sites.push(report::HeldSite {
            bytes: smaller.iter().map(|(_, bytes, _)| *bytes).fold(0, u64::saturating_add),
            objects: smaller
                .iter()
                .map(|(site, bytes, _)| objects(site, *bytes))
                .fold(0, u64::saturating_add),
            growth: growths.try_fold(0, |sum: i64, growth| Some(sum.saturating_add(growth?))),
            frames: Vec::new(),
            note: Some(SMALLER_SITES.into()),
        });
    }
    sites
}

/// The Go heap's objects by size.
pub fn heap_classes(end: &Look) -> Vec<report::HeapClass> {
    let class = |class: &SizeClass| report::HeapClass {
        object_bytes: Some(class.object_bytes).filter(|bytes| *bytes > 0),
        objects: class.objects,
        bytes: class.live_bytes,
        spans: class.spans,
        slack: class.span_bytes.saturating_sub(class.live_bytes),
    };
    end.size_classes.iter().map(class).collect()
}

/// The call sites, those of Go objects by the heap profile where that tells more than who touched a page first.
pub fn with_allocations(
    faults: Vec<CallSite>,
    start: Option<&Look>,
    end: &Look,
    symbolizer: &mut Symbolizer<'_>,
) -> Vec<CallSite> {
    let resident_bytes = super::sites::bytes_of(&faults, Component::GoHeapInUse);
    let Some(gained) = gained(start, end, resident_bytes) else { return faults };
    let told = Retold { component: Component::GoHeapInUse, source: HEAP_PROFILE, rest: NOT_IN_PROFILE };
    retold(faults, &told, &gained, |site| frames(&site.stack, symbolizer))
}

fn gained<'a>(start: Option<&Look>, end: &'a Look, resident_bytes: u64) -> Option<Vec<(&'a HeldSite, u64)>> {
    let kept = |look: &'a Look| -> Option<&'a HeapProfile> { look.heap_profile.as_ref() };
    held::growth(start?.heap_profile.as_ref()?, kept(end)?, resident_bytes)
}

/// The calls of a stack of return addresses.
fn frames(stack: &[u64], symbolizer: &mut Symbolizer<'_>) -> Vec<Frame> {
    let Some((last, others)) = stack.split_last() else { return Vec::new() };
    let mut frames = Vec::with_capacity(stack.len());
    for addr in others {
        frames.extend(symbolizer.frames([addr.wrapping_sub(1)].into_iter()).into_iter().next());
    }
    frames.extend(symbolizer.frames([last.wrapping_sub(1)].into_iter()));
    frames
}
