//! One look at the target: a snapshot, and what the runtimes say at that moment.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::address::AddrRange;
use crate::attribute::mappings;
use crate::claim::{Claim, Evidence, Gap, Slack};
use crate::runtimes::Runtimes;
use crate::runtimes::go::{Collector, HeapProfile, SizeClass};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::runtimes::malloc::census::Census;
use crate::runtimes::malloc::replacement::Held;
use crate::runtimes::managed;
use crate::runtimes::sanitizer::{RaceCounts, native};
use crate::runtimes::threads::ThreadStack;
use crate::snapshot::{self, ResidentMemory, Snapshot};
use crate::target::Target;
use crate::target::maps::Region;
use crate::target::modules::Module;

/// A snapshot and every claim on it.
#[derive(Default)]
pub struct Look {
    /// What is resident.
    pub snapshot: Snapshot,
    /// Who owns it, as far as maps and runtimes say.
    pub claims: Vec<Claim>,
    /// How much of what is in use holds nothing.
    pub slack: Vec<Slack>,
    /// Devices of file systems that are memory.
    pub in_memory: BTreeSet<(u32, u32)>,
    /// Threads' stacks, by thread id.
    pub stacks: Vec<ThreadStack>,
    /// Ids of the threads that Go knows of; `None` without Go, or where not read.
    pub go_threads: Option<BTreeSet<i32>>,
    /// The stacks on which Go's threads handle signals, by thread id.
    pub signal_stacks: BTreeMap<i32, AddrRange>,
    /// What the race detector counts of itself.
    pub race_counts: Option<RaceCounts>,
    /// What Go's own heap profile would show.
    pub heap_profile: Option<HeapProfile>,
    /// Objects of the Go heap by size.
    pub size_classes: Vec<SizeClass>,
    /// How Go's collector is set.
    pub collector: Option<Collector>,
    /// What malloc's chunks add up to.
    pub malloc: Option<Census>,
    /// Whose malloc it is: "glibc 2.36", or what took its place.
    pub allocator: Option<String>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// Looks now. `None` where the address space is gone.
///
/// # Errors
/// Where the snapshot cannot be taken.
pub fn look(target: &Target, modules: &[Module], runtimes: &Runtimes) -> Result<Option<Look>> {
    let Some(mut snapshot) = snapshot::take(target)? else { return Ok(None) };
    let regions: Vec<Region> = snapshot.usages.iter().map(|usage| usage.region.clone()).collect();
    let in_memory = target.in_memory_devices();
    let mut claims = mappings::claims(&regions, modules, &in_memory);
    let read = runtimes.read(&ResidentMemory(target), modules, &regions, &snapshot.threads);
    claims.extend(read.findings.claims);
    let sanitizer = native::claims(
        runtimes.sanitizer.as_ref(),
        &ResidentMemory(target),
        &regions,
        &proven(claims.iter()),
        &read.stacks,
    );
    claims.extend(sanitizer.claims);
    let replacement = runtimes.replacement.as_ref();
    let held = replacement.map_or_else(Held::default, |replacement| {
        // The brk heap is malloc's by its name, whichever malloc it is.
        let others =
            claims.iter().filter(|claim| claim.evidence > Evidence::Mapping || !claim.component.is_malloc());
        let free = AnonymousMemory::new(&regions, &proven(others));
        replacement.held(&ResidentMemory(target), &regions, &free)
    });
    let (malloc, allocator) = match replacement.filter(|_| held.is_there) {
        Some(replacement) => (held.census, Some(replacement.name().to_owned())),
        None => (read.malloc, read.allocator),
    };
    let replaced = held.findings;
    claims.extend(replaced.claims);
    // What nobody has proven is offered to the runtimes that are only recognised.
    let managed = managed::claims(target, modules, &regions, &proven(claims.iter()), &snapshot.runs);
    claims.extend(managed.claims);
    let mut gaps = std::mem::take(&mut snapshot.gaps);
    gaps.extend(
        read.findings.gaps.into_iter().chain(managed.gaps).chain(replaced.gaps).chain(sanitizer.gaps),
    );
    let slack = read.findings.slack.into_iter().chain(managed.slack).chain(replaced.slack);
    let slack = slack.chain(sanitizer.slack).collect();
    Ok(Some(Look {
        snapshot,
        claims,
        slack,
        in_memory,
        stacks: read.stacks,
        go_threads: read.go_threads,
        signal_stacks: read.signal_stacks,
        race_counts: read.race_counts,
        heap_profile: read.heap_profile,
        size_classes: read.size_classes,
        collector: read.collector,
        malloc,
        allocator,
        gaps,
    }))
}

/// What is known to be somebody's, and not only likely.
fn proven<'a>(claims: impl Iterator<Item = &'a Claim>) -> Vec<AddrRange> {
    claims.filter(|claim| claim.evidence >= Evidence::Mapping).map(|claim| claim.range).collect()
}
