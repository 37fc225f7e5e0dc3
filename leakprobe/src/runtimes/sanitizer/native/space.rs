//! The allocator that all sanitizers share, `SizeClassAllocator64`: a region of address space for each size of
//! block, one after the other at equal distances, and behind the last one an array that describes them all.
//!
//! Wherever the space begins, that array proves itself: sixty-four descriptions whose sizes agree with each
//! other and with what is mapped. Refuses a space of which fewer than half of the described regions are there.
//!
//! Facts: LLVM `sanitizer_allocator_primary64.h`, x86_64; the same in gcc 12, clang 14, clang 22, rustc 1.95.

use crate::address::{AddrRange, PAGE_BYTES};
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

use crate::runtimes::sanitizer::allocator::class_bytes;

/// `kNumClassesRounded`.
const CLASSES: u64 = 64;
/// `kNumClasses` of the default map of sizes: blocks to 128 KiB.
const USED_CLASSES: u64 = 53;

/// `sizeof(RegionInfo)`, and its fields in words: a mutex of two, then these.
const INFO_BYTES: u64 = 128;
const NUM_FREED: usize = 2;
const MAPPED_FREE_ARRAY: usize = 3;
const ALLOCATED_USER: usize = 4;
const ALLOCATED_META: usize = 5;
const MAPPED_USER: usize = 6;
const MAPPED_META: usize = 7;

/// `kRegionSize`: ThreadSanitizer's space has 1 TiB, the others' 4, MemorySanitizer's once had 8.
const STRIDES_BYTES: [u64; 3] = [1 << 34, 1 << 36, 1 << 37];

/// Mappings at whose beginning the array is looked for; more than the kernel allows by default.
const MAX_SEARCHED: usize = 1 << 16;

/// The space.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// All of it, with the array.
    pub(super) range: AddrRange,
    /// The regions that have blocks.
    pub(super) classes: Vec<Class>,
}

/// A region: blocks of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// What is mapped for blocks.
    pub(super) user: AddrRange,
    /// Bytes of a block.
    pub(super) block_bytes: u64,
    /// Where the metadata ends: the first block's is the last.
    pub(super) metadata_end_addr: u64,
    /// Bytes of metadata for each block; 0 for none.
    pub(super) metadata_bytes: u64,
}

/// What one element of the array says.
struct Info {
    number: u64,
    user_bytes: u64,
    metadata_bytes: u64,
}

impl Space {
    /// Looks for the array at the beginning of each piece of `anonymous`.
    pub(super) fn find(memory: &dyn Memory, anonymous: &AnonymousMemory) -> Option<Self> {
        let starts = anonymous.ranges().iter().map(|range| range.start_addr);
        starts.take(MAX_SEARCHED).find_map(|info_addr| {
            if !anonymous.covers_len(info_addr, CLASSES * INFO_BYTES) {
                return None;
            }
            let mut bytes = [0; (CLASSES * INFO_BYTES) as usize];
            if !memory.read_resident(info_addr, &mut bytes) {
                return None;
            }
            let infos = infos_in(&words_of(&bytes))?;
            STRIDES_BYTES.iter().find_map(|stride| Self::with_stride(anonymous, info_addr, &infos, *stride))
        })
    }

    fn with_stride(anonymous: &AnonymousMemory, info_addr: u64, infos: &[Info], stride: u64) -> Option<Self> {
        let start_addr = info_addr.checked_sub(CLASSES * stride)?;
        let class = |info: &Info| {
            let region_addr = start_addr + info.number * stride;
            // What grew since the mappings were listed is not in the list.
            let mapped = anonymous.run_from(region_addr)?;
            Some(Class {
                user: AddrRange::with_len(region_addr, mapped.len_bytes().min(info.user_bytes))?,
                block_bytes: class_bytes(u8::try_from(info.number).ok()?),
                // `kFreeArraySize` is an eighth of the region.
                metadata_end_addr: region_addr + stride - stride / 8,
                metadata_bytes: info.metadata_bytes,
            })
        };
        let classes: Vec<Class> = infos.iter().filter_map(class).collect();
        let range = AddrRange::new(start_addr, info_addr + CLASSES * INFO_BYTES)?;
        (2 * classes.len() >= infos.len()).then_some(Self { range, classes })
    }
}

/// The regions in use by the words of the array; `None` where they are no such array.
fn infos_in(words: &[u64]) -> Option<Vec<Info>> {
    let mut infos = Vec::new();
    for (number, info) in (0..).zip(words.chunks_exact(INFO_BYTES as usize / 8)) {
        let in_pages = [MAPPED_FREE_ARRAY, MAPPED_USER, MAPPED_META].iter();
        let agrees = in_pages.clone().all(|field| info[*field].is_multiple_of(PAGE_BYTES))
            && info[ALLOCATED_USER] <= info[MAPPED_USER]
            && info[ALLOCATED_META] <= info[MAPPED_META]
            && info[NUM_FREED].checked_mul(4).is_some_and(|bytes| bytes <= info[MAPPED_FREE_ARRAY]);
        let is_used = info[MAPPED_USER] != 0;
        if !agrees || (is_used && !(1..USED_CLASSES).contains(&number)) {
            return None;
        }
        if is_used {
            let blocks = info[ALLOCATED_USER] / class_bytes(u8::try_from(number).ok()?);
            let metadata_bytes = info[ALLOCATED_META].checked_div(blocks).unwrap_or(0);
            infos.push(Info { number, user_bytes: info[MAPPED_USER], metadata_bytes });
        }
    }
    (!infos.is_empty()).then_some(infos)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runtimes::malloc::anonymous::tests::region;
    use crate::target::memory::canned::Pieces;

    const STRIDE: u64 = 1 << 36;

    /// The array of a space whose one region in use is that of class 4, blocks of 64 bytes.
    pub(crate) fn array(user_bytes: u64, metadata_bytes: u64) -> Vec<u8> {
        let mut words = vec![0u64; (CLASSES * INFO_BYTES / 8) as usize];
        words[4 * 16 + NUM_FREED] = 3;
        words[4 * 16 + MAPPED_FREE_ARRAY] = 0x1_0000;
        words[4 * 16 + ALLOCATED_USER] = user_bytes;
        words[4 * 16 + ALLOCATED_META] = user_bytes / 64 * metadata_bytes;
        words[4 * 16 + MAPPED_USER] = user_bytes;
        words[4 * 16 + MAPPED_META] = 0x1_0000;
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn a_space_anywhere_is_found_by_its_array() {
        let start_addr = 0x7bcd_f61e_0000;
        let info_addr = start_addr + 64 * STRIDE;
        let user_addr = start_addr + 4 * STRIDE;
        let regions = [
            region(user_addr, user_addr + 0x2_0000, "rw-p", ""),
            region(info_addr, info_addr + 0x2000, "rw-p", ""),
        ];
        let memory = Pieces(vec![(info_addr, array(0x2_0000, 8))]);
        let space = Space::find(&memory, &AnonymousMemory::new(&regions, &[])).unwrap();
        let class = Class {
            user: regions[0].range,
            block_bytes: 64,
            metadata_end_addr: user_addr + STRIDE / 8 * 7,
            metadata_bytes: 8,
        };
        assert_eq!(space.classes, [class]);
        assert_eq!(space.range, AddrRange::new(start_addr, info_addr + 0x2000).unwrap());
        assert_eq!(Space::find(&memory, &AnonymousMemory::new(&regions[1..], &[])), None, "nothing is there");
    }

    #[test]
    fn an_array_that_contradicts_itself_is_none() {
        assert_eq!(infos_in(&words_of(&array(0x2_0000, 8))).unwrap().len(), 1);
        for (field, value) in [(NUM_FREED, 1 << 20), (ALLOCATED_USER, 0x2_0001), (MAPPED_META, 12)] {
            let mut words = words_of(&array(0x2_0000, 8));
            words[4 * 16 + field] = value;
            assert!(infos_in(&words).is_none(), "{field}");
        }
        let zeros = vec![0; 1024];
        assert!(infos_in(&zeros).is_none());
    }
}
