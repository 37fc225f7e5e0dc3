//! The race runtime's internal allocator: 1 MiB regions, each for blocks of one size.
//!
//! A two-level table holds a byte for every 1 MiB of address space, the size class of the region there or 0
//! (sanitizer_allocator_primary32.h, sanitizer_flat_map.h: `possible_regions`). Refuses a table with an entry
//! for memory that is not mapped as the allocator maps it.

use std::collections::BTreeSet;

use crate::address::{AddrRange, PAGE_BYTES};
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// `kRegionSizeLog`: 20.
pub(super) const REGION_BYTES: u64 = 1 << 20;

/// The second level's tables are one page: 4,096 regions, 4 GiB of addresses each.
const REGIONS_PER_TABLE: u64 = 4096;
const TABLE_SPAN_BYTES: u64 = REGIONS_PER_TABLE * REGION_BYTES;

/// A table of the first level for every 4 GiB in which the process has memory; more is not plausible.
const MAX_TABLES: usize = 4096;

/// `kNumClassesRounded` of the internal size-class map.
const MAX_CLASS: u8 = 127;

/// Regions mapped since the list of regions was read are in the map and not in the list: few of them are
/// the target's progress, many are a table that is none.
const MAX_NEW_REGIONS: usize = 64;

/// The regions the allocator took.
#[derive(Default)]
pub(super) struct RegionMap {
    /// Start and size class of each, ascending.
    regions: Vec<(u64, u8)>,
    /// The second level's tables themselves.
    tables: Vec<AddrRange>,
}

impl RegionMap {
    /// Reads the map that is the first field of the allocator at `allocator`: a lock in one word, then a
    /// pointer for every 4 GiB of address space.
    pub(super) fn read(
        memory: &dyn Memory,
        anonymous: &AnonymousMemory,
        allocator: AddrRange,
    ) -> Option<Self> {
        let mut map = Self::default();
        for span in spans(anonymous) {
            let pointer_addr = allocator.start_addr.checked_add(8)?.checked_add(span.checked_mul(8)?)?;
            if !allocator.contains(pointer_addr.checked_add(7)?) {
                break;
            }
            // A page of pointers that was never touched may refuse to be read.
            let table_addr = memory.read_u64(pointer_addr).unwrap_or(0);
            if table_addr != 0 {
                map.add_table(memory, anonymous, span, table_addr)?;
            }
        }
        (!map.regions.is_empty()).then_some(map)
    }

    /// Adds the table at `table_addr` for the addresses from `span` * 4 GiB; `None` where it is implausible.
    fn add_table(
        &mut self,
        memory: &dyn Memory,
        anonymous: &AnonymousMemory,
        span: u64,
        table_addr: u64,
    ) -> Option<()> {
        let table = AddrRange::with_len(table_addr, REGIONS_PER_TABLE)?;
        if !table_addr.is_multiple_of(PAGE_BYTES) || !anonymous.covers(table) {
            return None;
        }
        let classes = memory.read_vec(table_addr, REGIONS_PER_TABLE as usize).ok()?;
        let mut new_regions = 0;
        for (number, class) in classes.into_iter().enumerate().filter(|(_, class)| *class != 0) {
            let region_addr =
                span.checked_mul(TABLE_SPAN_BYTES)?.checked_add(number as u64 * REGION_BYTES)?;
            if anonymous.covers_len(region_addr, REGION_BYTES) {
                self.regions.push((region_addr, class));
            } else {
                new_regions += 1;
            }
            if class > MAX_CLASS || new_regions > MAX_NEW_REGIONS {
                return None;
            }
        }
        self.tables.push(table);
        Some(())
    }

    /// The regions and the tables.
    pub(super) fn ranges(&self) -> impl Iterator<Item = AddrRange> {
        let regions = self.regions.iter().filter_map(|(addr, _)| AddrRange::with_len(*addr, REGION_BYTES));
        regions.chain(self.tables.iter().copied())
    }

    /// The regions of one size class, by start address.
    pub(super) fn regions_of(&self, class: u8) -> impl Iterator<Item = u64> {
        self.regions.iter().filter(move |(_, of)| *of == class).map(|(addr, _)| *addr)
    }

    /// The size class of the region that holds `addr`.
    pub(super) fn class_at(&self, addr: u64) -> Option<u8> {
        let region_addr = addr - addr % REGION_BYTES;
        let index = self.regions.binary_search_by_key(&region_addr, |(addr, _)| *addr).ok()?;
        Some(self.regions[index].1)
    }

    /// Whether `addr` is the start of a block of `class`.
    pub(super) fn is_block(&self, addr: u64, class: u8) -> bool {
        self.class_at(addr) == Some(class) && (addr % REGION_BYTES).is_multiple_of(class_bytes(class))
    }
}

/// Numbers of the 4 GiB spans in which there is memory, ascending, at most [`MAX_TABLES`].
fn spans(anonymous: &AnonymousMemory) -> BTreeSet<u64> {
    let mut spans = BTreeSet::new();
    for range in anonymous.ranges() {
        let (first, last) = (range.start_addr / TABLE_SPAN_BYTES, (range.end_addr - 1) / TABLE_SPAN_BYTES);
        spans.extend((first..=last).take(MAX_TABLES.saturating_sub(spans.len())));
    }
    spans
}

/// Bytes of a block of `class`: multiples of 16 up to 256, then four steps for each doubling
/// (sanitizer_allocator_size_class_map.h).
pub(super) fn class_bytes(class: u8) -> u64 {
    match u64::from(class) {
        class @ 0..=16 => 16 * class.max(1),
        class => {
            let doubled = 256 << ((class - 16) >> 2).min(40);
            doubled + (doubled >> 2) * ((class - 16) & 3)
        }
    }
}

/// Looks among `pointers`, words of .bss with their addresses, for the table of the span that holds
/// `block_addr`, a block of the allocator; returns where the allocator starts.
pub(super) fn find_allocator(
    memory: &dyn Memory,
    anonymous: &AnonymousMemory,
    pointers: &[(u64, u64)],
    block_addr: u64,
) -> Option<u64> {
    let span = block_addr / TABLE_SPAN_BYTES;
    let regions_with = |table_addr: u64| {
        let mut map = RegionMap::default();
        map.add_table(memory, anonymous, span, table_addr)?;
        map.class_at(block_addr)?;
        Some(map.regions.len())
    };
    let tables = pointers.iter().filter_map(|(pointer_addr, table_addr)| {
        let allocator_addr = pointer_addr.checked_sub(span.checked_mul(8)?)?.checked_sub(8)?;
        Some((regions_with(*table_addr)?, allocator_addr))
    });
    tables.max().map(|(_, allocator_addr)| allocator_addr)
}

/// Words of a block in memory that was read whole.
pub(super) fn block_words(bytes: &[u8], class: u8) -> impl Iterator<Item = (u64, Vec<u64>)> {
    let block_bytes = class_bytes(class);
    bytes
        .chunks_exact(block_bytes as usize)
        .enumerate()
        .map(move |(number, block)| (number as u64 * block_bytes, words_of(block)))
}
