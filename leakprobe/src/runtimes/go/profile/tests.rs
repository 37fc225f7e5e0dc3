//! Lists of buckets made by hand: which cycles count, how they are scaled, and what damage does to them.

use proptest::prelude::*;

use super::super::find::Globals;
use super::super::image::Arch;
use super::super::layout::Layout;
use super::*;
use crate::target::memory::canned::Pieces;

const GLOBALS_ADDR: u64 = 0xbb_0000;
const BUCKETS_ADDR: u64 = 0x7f00_0000_0000;
const RATE: u64 = 512 << 10;
const GLOBALS: [(Global, u64); 3] = [
    (Global::MemProfileRate, GLOBALS_ADDR),
    (Global::Mbuckets, GLOBALS_ADDR + 8),
    (Global::MemProfileCycle, GLOBALS_ADDR + 16),
];

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

const STACK: [u64; 2] = [0x40_1000, 0x40_2000];

/// A bucket with two callers: size, then allocations and frees of the active and the future cycles.
fn bucket(next_addr: u64, size_bytes: u64, cycles: [(u64, u64); 4], cycle_words: usize) -> Vec<u64> {
    let mut words = vec![0, next_addr, 1, 77, size_bytes, 2, STACK[0], STACK[1]];
    for (allocs, frees) in cycles {
        words.extend([allocs, frees]);
        words.extend(vec![0x7777; cycle_words - 2]);
    }
    words
}

fn found(minor: u32, globals: [u64; 3], buckets: &[u64]) -> Result<HeapProfile> {
    let memory = Pieces(vec![(GLOBALS_ADDR, bytes(&globals)), (BUCKETS_ADDR, bytes(buckets))]);
    let layout = Layout::for_version(minor, Arch::Amd64).unwrap();
    read(&Reader { memory: &memory, layout: &layout, globals: &Globals::at(0, GLOBALS.to_vec()) })
}

fn site(stack: &[u64], bytes: u64, objects: u64) -> HeldSite {
    HeldSite { stack: stack.into(), bytes, objects }
}

#[test]
fn published_cycles_are_scaled_and_summed() {
    for (minor, cycle_words) in [(26, 4), (27, 2)] {
        let second_addr = BUCKETS_ADDR + 8 * (8 + 4 * cycle_words as u64);
        let mut words = bucket(second_addr, 1 << 20, [(5, 2), (9, 9), (0, 0), (1, 0)], cycle_words);
        words.extend(bucket(0, 1024, [(1, 0), (0, 0), (0, 0), (0, 0)], cycle_words));
        // The current cycle is 7, the second of the future ones: it was flushed, and so is empty.
        let profile = found(minor, [RATE, BUCKETS_ADDR, 7 << 1 | 1], &words).unwrap();
        // 3 objects of 1 MiB at 1-exp(-2), 1 of 1 KiB at 1-exp(-1/512), from one stack.
        let (in_use_bytes, in_use_objects) = (3_638_089 + 524_800, 3 + 512);
        let sites = vec![site(&STACK, in_use_bytes, in_use_objects)];
        // Of the future ones, one more of 1 MiB may be in use.
        let counted = [(STACK.into(), 4_850_786 + 524_800)].into();
        let expected = HeapProfile {
            rate_bytes: RATE,
            in_use_bytes,
            in_use_objects,
            sites,
            counted,
            ..HeapProfile::default()
        };
        assert_eq!(profile, expected);
        // Cycle 8 is not flushed: who reads the profile would do it first.
        let pending = found(minor, [RATE, BUCKETS_ADDR, 8 << 1], &words).unwrap();
        assert_eq!(pending.in_use_objects, 4 + 512);
    }
}

#[test]
fn stacks_are_told_apart_largest_first() {
    let second_addr = BUCKETS_ADDR + 8 * (8 + 4 * 2);
    let mut words = bucket(second_addr, 100, [(7, 3), (0, 0), (0, 0), (0, 0)], 2);
    words.extend(bucket(0, 5000, [(1, 0), (0, 0), (0, 0), (0, 0)], 2));
    words[16 + 6] = 0x40_3000;
    let profile = found(27, [1, BUCKETS_ADDR, 1], &words).unwrap();
    assert_eq!(profile.sites, [site(&[0x40_3000, STACK[1]], 5000, 1), site(&STACK, 400, 4)]);
    assert_eq!((profile.in_use_bytes, profile.in_use_objects), (5400, 5));
}

#[test]
fn before_the_first_collection_everything_counts() {
    let words = bucket(0, 100, [(0, 0), (0, 0), (7, 0), (0, 2)], 2);
    let profile = found(27, [1, BUCKETS_ADDR, 1], &words).unwrap();
    assert_eq!(profile.sites, [site(&STACK, 500, 5)]);
}

#[test]
fn stacks_beyond_those_kept_are_summed_up() {
    let cycle = Cycle { allocs: 3, frees: 1 };
    let mut tally = Tally { kept_words: MAX_KEPT_WORDS - 1, ..Tally::default() };
    for stack in [vec![1, 2], vec![3], vec![4], vec![3]] {
        let bucket = Bucket { next_addr: 0, size_bytes: 10, stack, active: cycle, future: [cycle; 3] };
        tally.add(&bucket, cycle, 1);
    }
    assert_eq!(tally.into_profile(1).sites, [site(&[], 40, 4), site(&[3], 40, 4)]);
}

#[test]
fn a_profile_that_is_switched_off_is_not_kept() {
    for rate in [0, u64::MAX] {
        assert!(!found(27, [rate, BUCKETS_ADDR, 0], &[]).unwrap().is_kept());
    }
    let empty = found(27, [RATE, 0, 0], &[]).unwrap();
    assert!(empty.is_kept() && empty.sites.is_empty());
}

#[test]
fn what_is_no_list_of_buckets_is_refused() {
    let circle = bucket(BUCKETS_ADDR, 100, [(7, 0); 4], 2);
    assert!(found(27, [RATE, BUCKETS_ADDR, 0], &circle).is_err());
    let good = bucket(0, 100, [(7, 0); 4], 2);
    for (place, word) in [(2, 2), (4, u64::MAX), (5, 1 << 40), (1, BUCKETS_ADDR + 4096)] {
        let mut damaged = good.clone();
        damaged[place] = word;
        assert!(found(27, [RATE, BUCKETS_ADDR, 0], &damaged).is_err(), "{place}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(rate: u64, cycle: u64, words in proptest::collection::vec(any::<u64>(), 0..40)) {
        let mut words = words;
        for (place, word) in [(1, 0), (2, 1), (5, 2)] {
            if let Some(place) = words.get_mut(place) {
                *place = word;
            }
        }
        let _ = found(27, [rate, BUCKETS_ADDR, cycle], &words);
    }
}
