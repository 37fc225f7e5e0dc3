//! What no structure explains in a race build, where its shape is the race runtime's.
//!
//! Inference, and the claims say so: they lose against every other. Refuses every length that TSan does not
//! map, and pieces of other lengths than its regions' where strangers are next to them. Meaningless unless
//! the Go runtime was read too: its own mappings come in such lengths.

use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::target::maps::Region;

/// A region of the internal allocator: aligned to its length.
const REGION_BYTES: u64 = 1 << 20;

/// A trace part, and a slab of synchronisation objects. Slabs of blocks are left out: Go's runtime maps
/// pieces of their 64 KiB for its bitmaps.
const PIECE_LENS_BYTES: [u64; 2] = [128 << 10, 88 << 10];

/// Claims what `claims` leave of the nameless memory of a `-race` process that has no C code of its user's:
/// whole regions of the internal allocator, and pieces of the lengths of trace parts and slabs between two
/// claims of the race runtime.
pub fn remainder(regions: &[Region], claims: &[Claim]) -> Vec<Claim> {
    let nameless: Vec<Region> = regions.iter().filter(|region| region.name.is_empty()).cloned().collect();
    // Evidence this weak never takes a page of which somebody proved a part.
    let taken: Vec<AddrRange> = claims.iter().filter_map(|claim| claim.range.touched_pages()).collect();
    let left = AnonymousMemory::new(&nameless, &taken);
    let of_tsan = |claim: &&Claim| claim.component == Component::TsanRuntime;
    let mut starts: Vec<u64> = claims.iter().filter(of_tsan).map(|claim| claim.range.start_addr).collect();
    let mut ends: Vec<u64> = claims.iter().filter(of_tsan).map(|claim| claim.range.end_addr).collect();
    starts.sort_unstable();
    ends.sort_unstable();
    let fits = |range: &&AddrRange| {
        let is_multiple = |len_bytes: u64| range.len_bytes().is_multiple_of(len_bytes);
        let between_tsan =
            ends.binary_search(&range.start_addr).is_ok() && starts.binary_search(&range.end_addr).is_ok();
        (range.start_addr.is_multiple_of(REGION_BYTES) && is_multiple(REGION_BYTES))
            || (between_tsan && PIECE_LENS_BYTES.into_iter().any(is_multiple))
    };
    let claim = |range: &AddrRange| Claim {
        range: *range,
        component: Component::TsanRuntime,
        evidence: Evidence::Neighbour,
    };
    left.ranges().iter().filter(fits).map(claim).collect()
}
