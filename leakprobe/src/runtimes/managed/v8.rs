//! V8's heap: chunks of 256 KiB, each at a multiple of that.
//!
//! Not divided. Where V8 exports its symbols and has no cage, as in Node, chunks are not proven one by one: their headers
//! differ with every version. Then private memory that begins at such a boundary and that nobody else owns is claimed.
//! [`cages`] are told by their chunks, also in a stripped program; what generated code there is counts as V8's too.

mod cages;

use super::{Reader, claim};
use crate::address::AddrRange;
use crate::claim::{Component, Evidence, Findings};
use crate::target::maps::Region;

/// `kPageSizeBits` is 18 (V8 `src/common/globals.h`).
const CHUNK_BYTES: u64 = 256 << 10;

pub fn claims(reader: &Reader<'_>) -> Findings {
    let mut findings = Findings::default();
    let caged = cages::heap(reader);
    let is_exported = reader.exporter(["_ZN2v82V810GetVersionEv"]).is_some();
    if caged.is_empty() && !is_exported {
        return findings;
    }
    let claimed = |evidence: Evidence| move |range| claim(range, Component::V8Heap, evidence);
    let generated =
        reader.regions.iter().filter(|region| is_generated_code(region)).map(|region| region.range);
    findings.claims.extend(generated.map(claimed(Evidence::Neighbour)));
    if caged.is_empty() {
        let data = reader.free.ranges().iter().filter(|range| begins_chunk(reader.regions, range));
        findings.claims.extend(data.copied().map(claimed(Evidence::Neighbour)));
    } else {
        let proven = caged.into_iter().chain(cages::oilpan(reader));
        findings.claims.extend(proven.map(claimed(Evidence::Structure)));
    }
    findings
}

/// Whether the region that `range` is a part of begins where a page can, or follows one that does: the first
/// part of a page may be protected in another way than the rest.
fn begins_chunk(regions: &[Region], range: &AddrRange) -> bool {
    let after = regions.partition_point(|region| region.range.start_addr <= range.start_addr);
    let mut start_addr = range.start_addr;
    for region in regions[..after].iter().rev() {
        if !region.is_private_anonymous() || region.range.end_addr < start_addr {
            break;
        }
        start_addr = region.range.start_addr;
        if start_addr.is_multiple_of(CHUNK_BYTES) {
            return true;
        }
    }
    false
}

fn is_generated_code(region: &Region) -> bool {
    region.executable && region.is_private_anonymous() && !region.is_kernel_special()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::parse_line;

    #[test]
    fn chunks_begin_at_their_multiples() {
        let regions: Vec<Region> = [
            "100000040000-100000041000 r--p 0 00:00 0 ",
            "100000041000-100000080000 rw-p 0 00:00 0 ",
            "7f0000001000-7f0000009000 rw-p 0 00:00 0 ",
        ]
        .into_iter()
        .map(|line| parse_line(line).unwrap())
        .collect();
        assert!(begins_chunk(&regions, &regions[1].range), "behind its protected head");
        assert!(!begins_chunk(&regions, &regions[2].range));
    }
}
