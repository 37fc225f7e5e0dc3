//! V8's heap, in Node.js and everything else that exports V8: pages of 256 KiB, each at a multiple of that.
//!
//! Not divided, and not proven page by page: the headers differ with every version. What is claimed is private
//! memory that begins at such a boundary and that nobody else owns, and code that was generated.

use super::{Reader, claim};
use crate::address::AddrRange;
use crate::claim::{Component, Evidence, Findings};
use crate::target::maps::Region;

/// `kPageSizeBits` is 18 (V8 `src/common/globals.h`).
const PAGE_BYTES: u64 = 256 << 10;

pub fn claims(reader: &Reader<'_>) -> Findings {
    let mut findings = Findings::default();
    if reader.exporter(["_ZN2v82V810GetVersionEv"]).is_none() {
        return findings;
    }
    let data = reader.free.ranges().iter().filter(|range| begins_page(reader.regions, range));
    let generated =
        reader.regions.iter().filter(|region| is_generated_code(region)).map(|region| &region.range);
    let claim = |range: &AddrRange| claim(*range, Component::V8Heap, Evidence::Neighbour);
    findings.claims.extend(data.chain(generated).map(claim));
    findings
}

/// Whether the region that `range` is a part of begins where a page can, or follows one that does: the first
/// part of a page may be protected in another way than the rest.
fn begins_page(regions: &[Region], range: &AddrRange) -> bool {
    let after = regions.partition_point(|region| region.range.start_addr <= range.start_addr);
    let mut start_addr = range.start_addr;
    for region in regions[..after].iter().rev() {
        if !region.is_private_anonymous() || region.range.end_addr < start_addr {
            break;
        }
        start_addr = region.range.start_addr;
        if start_addr.is_multiple_of(PAGE_BYTES) {
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
    fn pages_begin_at_their_multiples() {
        let regions: Vec<Region> = [
            "100000040000-100000041000 r--p 0 00:00 0 ",
            "100000041000-100000080000 rw-p 0 00:00 0 ",
            "7f0000001000-7f0000009000 rw-p 0 00:00 0 ",
        ]
        .into_iter()
        .map(|line| parse_line(line).unwrap())
        .collect();
        assert!(begins_page(&regions, &regions[1].range), "behind its protected head");
        assert!(!begins_page(&regions, &regions[2].range));
    }
}
