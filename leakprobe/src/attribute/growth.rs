//! What grew: pages resident at the end that were not at the start, and whose memory it is that nobody claims, by who
//! mapped and touched it.

use std::collections::HashMap;

use super::bursts::{self, Touched};
use super::ledger::Owners;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::{Claim, Component, Evidence};
use crate::runtimes::code::Role;
use crate::snapshot::{PageRun, Residency, Snapshot};
use crate::trace::holders::Touch;
use crate::trace::recording::Recording;

use super::origin;

/// The resident pages of `end` that are not in `start`, in runs.
pub fn new_pages(start: &[PageRun], end: &[PageRun]) -> Vec<PageRun> {
    let mut gained = Vec::new();
    let mut old = start.iter().filter(|run| run.residency != Residency::Swapped).peekable();
    for run in end.iter().filter(|run| run.residency != Residency::Swapped) {
        let mut addr = run.range.start_addr;
        while let Some(before) = old.peek() {
            if before.range.end_addr <= addr {
                old.next();
                continue;
            }
            if before.range.start_addr >= run.range.end_addr {
                break;
            }
            let range = AddrRange::new(addr, before.range.start_addr);
            gained.extend(range.map(|range| PageRun { range, ..*run }));
            addr = before.range.end_addr.min(run.range.end_addr);
            if before.range.end_addr > run.range.end_addr {
                break;
            }
        }
        gained.extend(AddrRange::new(addr, run.range.end_addr).map(|range| PageRun { range, ..*run }));
    }
    gained
}

/// Claims on memory nobody else claims, by who mapped it in the window and who touched it.
pub fn claims_from_stacks(
    end: &Snapshot,
    owners: &Owners,
    recording: &Recording,
    role_of: &dyn Fn(u64) -> Role,
) -> Vec<Claim> {
    let mut claims = Vec::new();
    let mut by_stack: HashMap<u32, Option<Component>> = HashMap::new();
    let mut component_of = |stack: u32| {
        let of_stack = || origin::of_stack(recording.stack(stack).code_addrs().map(role_of));
        *by_stack.entry(stack).or_insert_with(of_stack)
    };
    for (range, mapping) in recording.mappings() {
        let component = mapping.stack.and_then(&mut component_of);
        claims.extend(component.map(|component| Claim { range, component, evidence: Evidence::MappedBy }));
    }
    for usage in end.usages.iter().filter(|usage| usage.region.is_private_anonymous()) {
        claims.extend(claims_by_touch(usage.region.range, owners, recording, &mut component_of));
    }
    claims
}

/// Claims on what was moved in the window, at the place where it was before: whose it is now, it was then, unless that
/// place had an owner of its own.
pub fn claims_before_moves(recording: &Recording, owners: &Owners) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (now, before) in recording.moves() {
        for (part, owner) in
            owners.within(now).into_iter().filter(|(_, owner)| owner.evidence > Evidence::None)
        {
            let start_addr = before.start_addr + (part.start_addr - now.start_addr);
            let range = AddrRange::with_len(start_addr, part.len_bytes());
            let evidence = owner.evidence.min(Evidence::Neighbour);
            let component = owner.component;
            claims.extend(range.map(|range| Claim { range, component, evidence }));
        }
    }
    claims
}

/// Within one VMA: each touched page by its toucher, one whose stack was not kept by the touched pages on either
/// side if they agree, or by those touched in one go with it, and the rest by all of them if they agree.
fn claims_by_touch(
    region: AddrRange,
    owners: &Owners,
    recording: &Recording,
    component_of: &mut dyn FnMut(u32) -> Option<Component>,
) -> Vec<Claim> {
    let mut claims = Vec::new();
    for (part, _) in owners.within(region).into_iter().filter(|(_, owner)| owner.evidence == Evidence::None) {
        let mut seen: Vec<Component> = Vec::new();
        let mut touched: Vec<Touched> = Vec::new();
        for Touch { addr, holder, micros } in recording.touched(part) {
            let component = holder.stack.and_then(&mut *component_of);
            touched.push(Touched { addr, micros, component });
            let Some((component, range)) = component.zip(AddrRange::with_len(addr, PAGE_BYTES)) else {
                continue;
            };
            if !seen.contains(&component) {
                seen.push(component);
            }
            claims.push(Claim { range, component, evidence: Evidence::TouchedBy });
        }
        if let [component] = seen[..] {
            claims.push(Claim { range: part, component, evidence: Evidence::Neighbour });
            continue;
        }
        for (addr, component) in bursts::owned(&touched) {
            let range = AddrRange::with_len(addr, PAGE_BYTES);
            claims.extend(range.map(|range| Claim { range, component, evidence: Evidence::Neighbour }));
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::decode::{Access, Event, What};
    use crate::trace::recording::{Ending, Unwound};

    fn runs(pages: &[bool]) -> Vec<PageRun> {
        let mut runs: Vec<PageRun> = Vec::new();
        for (index, _) in pages.iter().enumerate().filter(|(_, page)| **page) {
            let range = AddrRange::with_len(index as u64 * PAGE_BYTES, PAGE_BYTES).unwrap();
            match runs.last_mut() {
                Some(last) if last.range.end_addr == range.start_addr => last.range.end_addr = range.end_addr,
                _ => runs.push(PageRun { range, residency: Residency::Resident }),
            }
        }
        runs
    }

    #[test]
    fn a_page_without_a_stack_is_its_neighbours_if_they_agree() {
        let unwound = |addr| Unwound { addrs: vec![addr], ending: Ending::Root };
        let mut recording = Recording::new(0, None);
        // C's code is at 1, Go's at 2; two pages have no stack.
        for (page, code_addr) in
            [(16, Some(1)), (17, None), (18, Some(1)), (19, Some(2)), (20, None), (21, Some(1))]
        {
            let what = What::Fault { addr: page * PAGE_BYTES, by_kernel: false, access: Access::default() };
            let event = Event { what, time_ns: page, entered_ns: page, stack_weight: 1, stack: None };
            recording.take(&event, code_addr.map(unwound));
        }
        let range = AddrRange::with_len(16 * PAGE_BYTES, 6 * PAGE_BYTES).unwrap();
        let mut component_of = |stack: u32| {
            let first = recording.stack(stack).code_addrs().next();
            Some(if first == Some(1) { Component::CMmap } else { Component::GoMmap })
        };
        let owners =
            Owners::weigh(&claims_by_touch(range, &Owners::default(), &recording, &mut component_of));
        let found: Vec<_> = (16..22).map(|page| owners.at(page * PAGE_BYTES)).collect();
        assert_eq!(
            found.iter().map(|owner| owner.component).collect::<Vec<_>>(),
            [
                Component::CMmap,
                Component::CMmap,
                Component::CMmap,
                Component::GoMmap,
                Component::AnonUnknown,
                Component::CMmap,
            ]
        );
        assert_eq!(found[1].evidence, Evidence::Neighbour);
    }

    proptest! {
        #[test]
        fn new_pages_are_the_difference(
            start in proptest::collection::vec(any::<bool>(), 40),
            end in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let expected: Vec<bool> = start.iter().zip(&end).map(|(start, end)| *end && !start).collect();
            let gained = new_pages(&runs(&start), &runs(&end));
            let pages = |runs: &[PageRun]| -> Vec<u64> {
                let addrs = |run: &PageRun| (run.range.start_addr..run.range.end_addr).step_by(PAGE_BYTES as usize);
                runs.iter().flat_map(addrs).collect()
            };
            prop_assert_eq!(pages(&gained), pages(&runs(&expected)));
        }
    }
}
