//! HWAddressSanitizer's places: its shadow is where the kernel had room, and the rest next to that.
//!
//! On x86_64 without tagged addresses it keeps eight views of one heap side by side, one for each tag, all
//! shared mappings of the same memory; a page touched through two of them is resident twice, as the kernel
//! counts. Refuses to tell blocks in use from free ones: their state is with the tags.
//!
//! Facts: LLVM `hwasan_linux.cpp`, `hwasan_mapping.h`, `hwasan_allocator.h`; clang 14 and 22 with
//! `-fsanitize-hwaddress-experimental-aliasing`. With tagged addresses: by source only, never run.

use crate::address::AddrRange;
use crate::claim::Component;
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// Where it keeps the start of its shadow.
const BASE: &str = "__hwasan_shadow_memory_dynamic_address";

/// A byte for every 16 of the 47 bits of addresses that user space has.
const SHADOW_BYTES: u64 = 1 << 43;

/// `kShadowBaseAlignment`: as much below the shadow is for threads' records and their rings of stacks.
const THREADS_BYTES: u64 = 1 << 32;

/// `kAddressTagShift`, `kTagBits`: eight views of a heap, each as long as an address without its tag.
const VIEW_BYTES: u64 = 1 << 39;
const VIEWS: u64 = 8;

/// Regions of the heap, one for each size of block: as many in clang 22, and in clang 14. The upper half of each is
/// metadata and, from seven eighths on, the list of free blocks.
const CLASSES: [u64; 2] = [64, 32];

/// The views lie below the end of user space.
const MAX_HEAP_ADDR: u64 = (1 << 47) - VIEWS * VIEW_BYTES;

/// Where the address of the shadow is to be read.
pub(super) fn base_addr(carrier: &Module) -> Option<u64> {
    let found = carrier.elf.symbols(|name| name == BASE).ok()?;
    found.first().map(|symbol| carrier.load_bias.wrapping_add(symbol.svma))
}

/// Whose what around the shadow at `base_addr` is.
pub(super) fn layout(memory: &dyn Memory, base_addr: u64, regions: &[Region]) -> Vec<(AddrRange, Component)> {
    let shadow = AddrRange::with_len(base_addr, SHADOW_BYTES);
    let threads = base_addr.checked_sub(THREADS_BYTES).and_then(|addr| AddrRange::new(addr, base_addr));
    let mut layout = Vec::new();
    layout.extend(shadow.map(|range| (range, Component::HwasanShadow)));
    layout.extend(threads.map(|range| (range, Component::HwasanRuntime)));
    let Some(heap_addr) = shadow.map(|range| range.end_addr).filter(|addr| *addr < MAX_HEAP_ADDR) else {
        return layout;
    };
    let has_views = regions.iter().any(|region| {
        region.shared && region.range.start_addr == heap_addr && region.range.len_bytes() >= VIEW_BYTES
    });
    if has_views {
        let classes = CLASSES[usize::from(!has_lists(memory, heap_addr, CLASSES[0]))];
        let half_bytes = VIEW_BYTES / classes / 2;
        let halves = (0..2 * classes).filter_map(|half| {
            let addr = heap_addr + half * half_bytes;
            let component = if half % 2 == 0 { Component::HwasanHeap } else { Component::HwasanRuntime };
            Some((AddrRange::with_len(addr, half_bytes)?, component))
        });
        layout.extend(halves);
        let others = AddrRange::with_len(heap_addr + VIEW_BYTES, (VIEWS - 1) * VIEW_BYTES);
        layout.extend(others.map(|range| (range, Component::HwasanHeap)));
    }
    layout
}

/// Whether lists of free blocks are where they are in a heap of so many regions.
fn has_lists(memory: &dyn Memory, heap_addr: u64, classes: u64) -> bool {
    let region_bytes = VIEW_BYTES / classes;
    (1..classes).any(|number| {
        let list_addr = heap_addr + number * region_bytes + region_bytes / 8 * 7;
        memory.read_resident(list_addr, &mut [0; 8])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::parse_line;
    use crate::target::memory::canned::Pieces;

    #[test]
    fn the_views_of_a_heap_lie_behind_the_shadow() {
        let base_addr = 0x6000_0000_0000;
        let line = "680000000000-688000000000 rw-s 00000000 00:01 7 /dev/zero (deleted)";
        // A list of free blocks as clang 22 has it.
        let memory = Pieces(vec![(0x6803_c000_0000, vec![1; 8])]);
        let with_views = layout(&memory, base_addr, &[parse_line(line).unwrap()]);
        let of = |addr: u64| {
            let found = with_views.iter().find(|(range, _)| range.contains(addr));
            found.map(|(_, component)| *component)
        };
        assert_eq!(of(0x67ff_0000_0000), Some(Component::HwasanShadow));
        assert_eq!(of(0x5fff_0000_1000), Some(Component::HwasanRuntime));
        assert_eq!(of(0x6804_0000_0000), Some(Component::HwasanHeap));
        assert_eq!(of(0x6805_0000_0000), Some(Component::HwasanRuntime));
        assert_eq!(of(0x6880_0000_0000), Some(Component::HwasanHeap));
        assert_eq!(of(0x6c00_0000_0000), None);
        assert_eq!(layout(&memory, base_addr, &[]).len(), 2);
        assert!(layout(&memory, u64::MAX - 8, &[]).iter().all(|(range, _)| range.start_addr < u64::MAX - 8));
    }
}
