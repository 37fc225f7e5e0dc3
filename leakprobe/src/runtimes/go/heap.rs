//! Which addresses Go's heap manages: `mheap_.pages.inUse`.
//!
//! Refuses a list that is not sorted, disjoint and page-aligned, or whose lengths do not add up to the total
//! the runtime keeps beside it. The surprise: it covers goroutine stacks and the collector's work buffers too,
//! and it has to be read here, never guessed from addresses: since Go 1.26 the heap starts anywhere.

use anyhow::{Context as _, Result, bail};

use super::layout::Layout;
use crate::address::AddrRange;
use crate::target::memory::{Memory, ReadError};

/// Size of a page of the Go heap, on every platform (Go `src/internal/runtime/gc`, `PageSize`).
pub const GO_PAGE_BYTES: u64 = 8192;
/// A heap is one range for each stretch of arenas; those of a terabyte were a handful.
const MAX_RANGES: u64 = 1 << 16;
/// The list changes when the heap grows, for microseconds.
const MAX_ATTEMPTS: usize = 16;

/// The header of a Go slice in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Address of the first element.
    pub data_addr: u64,
    /// Elements in use.
    pub len: u64,
    /// Elements there is room for.
    pub capacity: u64,
}

impl Slice {
    /// Reads the header at `addr`.
    ///
    /// # Errors
    /// Where it cannot be read, or `len` exceeds the capacity: it changed under the reader, or is no slice.
    pub fn read(memory: &dyn Memory, addr: u64) -> Result<Self> {
        let [data_addr, len, capacity] = read_words(memory, addr)?;
        if len > capacity {
            bail!("a slice at {addr:#x} with {len} of {capacity} elements");
        }
        Ok(Self { data_addr, len, capacity })
    }
}

/// `N` little-endian words from `addr`, in one read.
pub fn read_words<const N: usize>(memory: &dyn Memory, addr: u64) -> Result<[u64; N], ReadError> {
    let mut bytes = [[0_u8; 8]; N];
    memory.read_exact(addr, bytes.as_flattened_mut())?;
    Ok(bytes.map(u64::from_le_bytes))
}

/// `len` little-endian words from `addr`, which means nothing where there are none. Callers bound the number.
pub fn read_list(memory: &dyn Memory, addr: u64, len: u64) -> Result<Vec<u64>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let len_bytes = len.checked_mul(8).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = memory.read_vec(addr, len_bytes.context("a list too long to read")?)?;
    Ok(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

/// The ranges of the heap at `mheap_addr`, sorted and disjoint.
///
/// # Errors
/// Where they cannot be read, or stay inconsistent however often they are read.
pub fn ranges(memory: &dyn Memory, layout: &Layout, mheap_addr: u64) -> Result<Vec<AddrRange>> {
    let in_use_addr = mheap_addr.wrapping_add(layout.pages_offset + layout.page_ranges_offset);
    let mut result = read_ranges(memory, in_use_addr);
    for _ in 1..MAX_ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = read_ranges(memory, in_use_addr);
    }
    result.context("read the ranges of the Go heap")
}

/// Go `src/runtime/mranges.go`, `addrRanges`: a slice of base and limit, then the bytes covered in total.
fn read_ranges(memory: &dyn Memory, in_use_addr: u64) -> Result<Vec<AddrRange>> {
    let header: [u64; 4] = read_words(memory, in_use_addr)?;
    let [data_addr, len, capacity, total_bytes] = header;
    if len > capacity || len > MAX_RANGES {
        bail!("{len} of {capacity} ranges");
    }
    let words = read_list(memory, data_addr, len * 2)?;
    if read_words(memory, in_use_addr)? != header {
        bail!("the list changed while it was read");
    }
    let pairs = words.as_chunks().0.iter();
    let ranges: Option<Vec<AddrRange>> = pairs.map(|&[base, limit]| AddrRange::new(base, limit)).collect();
    let ranges = ranges.context("an empty range")?;
    check(&ranges, total_bytes)?;
    Ok(ranges)
}

fn check(ranges: &[AddrRange], total_bytes: u64) -> Result<()> {
    if !ranges.iter().all(|range| range.start_addr.is_multiple_of(GO_PAGE_BYTES)) {
        bail!("a range that starts inside a page");
    }
    if !ranges.iter().all(|range| range.end_addr.is_multiple_of(GO_PAGE_BYTES)) {
        bail!("a range that ends inside a page");
    }
    if !ranges.is_sorted_by(|before, after| before.end_addr <= after.start_addr) {
        bail!("ranges that overlap or are not sorted");
    }
    // Disjoint ranges of a 64-bit address space add up without overflow.
    let sum_bytes: u64 = ranges.iter().map(AddrRange::len_bytes).sum();
    if sum_bytes != total_bytes {
        bail!("ranges of {sum_bytes} bytes and a total of {total_bytes}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::image::Arch;
    use super::*;
    use crate::target::memory::canned::Pieces;

    const MHEAP_ADDR: u64 = 0x50_0000;
    const LIST_ADDR: u64 = 0x7000_0000;

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn read(header: &[u64; 4], list: &[u64]) -> Result<Vec<AddrRange>> {
        let layout = Layout::for_version(27, Arch::Amd64).unwrap();
        let header_addr = MHEAP_ADDR + layout.pages_offset + layout.page_ranges_offset;
        let memory = Pieces(vec![(header_addr, words(header)), (LIST_ADDR, words(list))]);
        ranges(&memory, &layout, MHEAP_ADDR)
    }

    #[test]
    fn two_ranges() {
        let list = [0xc0_0000_0000, 0xc0_0040_0000, 0xc0_0400_0000, 0xc0_0440_0000];
        let found = read(&[LIST_ADDR, 2, 16, 0x80_0000], &list).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], AddrRange::new(0xc0_0400_0000, 0xc0_0440_0000).unwrap());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let good = [0xc0_0000_0000, 0xc0_0040_0000, 0xc0_0400_0000, 0xc0_0440_0000];
        let swapped = [good[2], good[3], good[0], good[1]];
        for (header, list, why) in [
            ([LIST_ADDR, 2, 16, 0x40_0000], good, "the total is of before"),
            ([LIST_ADDR, 2, 1, 0x80_0000], good, "longer than its capacity"),
            ([LIST_ADDR, 1 << 40, 1 << 40, 0x80_0000], good, "longer than any heap"),
            ([LIST_ADDR + 8, 2, 16, 0x80_0000], good, "somewhere else"),
            ([LIST_ADDR, 2, 16, 0x80_0000], swapped, "not sorted"),
            ([LIST_ADDR, 2, 16, 0x80_0001], [good[0], good[1], good[2], good[3] + 1], "not aligned"),
            ([LIST_ADDR, 2, 16, 0x40_0000], [good[0], good[1], 0, 0], "empty"),
        ] {
            assert!(read(&header, &list).is_err(), "{why}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(header: [u64; 4], list in proptest::collection::vec(any::<u64>(), 0..20)) {
            let mut header = header;
            header[0] = LIST_ADDR;
            header[1] %= 12;
            if let Ok(ranges) = read(&header, &list) {
                prop_assert!(ranges.is_sorted());
            }
        }
    }
}
