//! The heap profile without pprof: the sum over `runtime.mbuckets`, scaled as `runtime/pprof` does it.
//!
//! Refuses a list with anything but memory buckets of sane sizes. Checked against `runtime.MemProfile` of the
//! same program. The surprise: the profile is as of the collection before the last, so it lags behind the spans,
//! and in a program that cannot reach `runtime.MemProfile` the linker switches it off altogether.

use anyhow::{Context as _, Result, bail};

use super::find::Global;
use super::heap::read_words;
use super::metadata::Reader;

/// Allocation sites: the largest programs have some ten thousand.
const MAX_BUCKETS: usize = 1 << 20;
/// `GODEBUG=profstackdepth` allows no more (Go `src/runtime/runtime1.go`).
const MAX_STACK_WORDS: u64 = 1024;
/// A `bucket`: next, allnext, typ, hash, size, nstk (Go `src/runtime/mprof.go`, 1.19 to 1.27). The stack
/// follows, and then a `memRecord`.
const BUCKET_BYTES: u64 = 48;
/// `memProfile`, the type of a bucket.
const MEMORY_BUCKET: u64 = 1;
/// No object and no number of objects is larger.
const MAX_SANE: u64 = 1 << 48;
/// Cycles that are not published yet: `memRecord.future`.
const FUTURE_CYCLES: usize = 3;

/// What the program's own heap profile would show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapProfile {
    /// Bytes in use.
    pub in_use_bytes: u64,
    /// Objects in use.
    pub in_use_objects: u64,
}

/// Sums up the profile; `None` where the program keeps none.
pub fn read(reader: &Reader<'_>) -> Result<Option<HeapProfile>> {
    let rate = reader.memory.read_u64(reader.globals.addr(Global::MemProfileRate)?)?.cast_signed();
    if rate == 0 {
        return Ok(None);
    }
    let pending = reader.globals.addr(Global::MemProfileCycle).ok();
    let pending = pending.map(|addr| reader.memory.read_u32(addr)).transpose()?.and_then(pending_cycle);
    let mut published = Sum::new(rate);
    let mut everything = Sum::new(rate);
    let mut is_clear = true;
    let mut bucket_addr = reader.memory.read_u64(reader.globals.addr(Global::Mbuckets)?)?;
    let mut buckets_left = MAX_BUCKETS;
    while bucket_addr != 0 {
        buckets_left = buckets_left.checked_sub(1).context("buckets without end")?;
        let bucket = Bucket::read(reader, bucket_addr)?;
        let future = bucket.future;
        let flushed = pending.and_then(|index| future.get(index).copied()).unwrap_or_default();
        is_clear &= bucket.active == Cycle::default();
        published.add(bucket.size_bytes, &[bucket.active, flushed]);
        everything.add(bucket.size_bytes, &[bucket.active, future[0], future[1], future[2]]);
        bucket_addr = bucket.next_addr;
    }
    // Before the first collection the profile is whatever was counted so far.
    Ok(Some(if is_clear { everything.total } else { published.total }))
}

/// Which future cycle a reader of the profile would publish first: `mProfCycle` holds the number of the cycle
/// above a bit that says it is done.
fn pending_cycle(value: u32) -> Option<usize> {
    let is_flushed = value & 1 == 1;
    let index = usize::try_from(value >> 1).ok()? % FUTURE_CYCLES;
    (!is_flushed).then_some(index)
}

/// `memRecordCycle`, as far as every version has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cycle {
    allocs: u64,
    frees: u64,
}

struct Bucket {
    next_addr: u64,
    size_bytes: u64,
    active: Cycle,
    future: [Cycle; FUTURE_CYCLES],
}

impl Bucket {
    fn read(reader: &Reader<'_>, addr: u64) -> Result<Self> {
        let [_, next_addr, kind, _, size_bytes, stack_words] = read_words(reader.memory, addr)?;
        if kind != MEMORY_BUCKET || size_bytes > MAX_SANE || stack_words > MAX_STACK_WORDS {
            bail!("a bucket of type {kind}, {size_bytes} bytes and {stack_words} callers at {addr:#x}");
        }
        let records_addr = addr.wrapping_add(BUCKET_BYTES + 8 * stack_words);
        let cycle = |index: u64| -> Result<Cycle> {
            let offset = index * reader.layout.profile_cycle_bytes;
            let [allocs, frees] = read_words(reader.memory, records_addr.wrapping_add(offset))?;
            Ok(Cycle { allocs, frees })
        };
        Ok(Self { next_addr, size_bytes, active: cycle(0)?, future: [cycle(1)?, cycle(2)?, cycle(3)?] })
    }
}

struct Sum {
    rate: i64,
    total: HeapProfile,
}

impl Sum {
    fn new(rate: i64) -> Self {
        Self { rate, total: HeapProfile::default() }
    }

    /// Go `src/runtime/pprof/protomem.go`, `scaleHeapSample`: a sample of that size was taken with a
    /// probability of 1-exp(-size/rate).
    fn add(&mut self, size_bytes: u64, cycles: &[Cycle]) {
        let sum = |field: fn(&Cycle) -> u64| cycles.iter().map(field).fold(0_u64, u64::wrapping_add);
        let objects = sum(|cycle| cycle.allocs).wrapping_sub(sum(|cycle| cycle.frees));
        // Negative for a moment, where it changes while it is read.
        if objects == 0 || objects > MAX_SANE || size_bytes == 0 {
            return;
        }
        let probability =
            if self.rate <= 1 { 1.0 } else { 1.0 - (-(size_bytes as f64) / self.rate as f64).exp() };
        let scaled_objects = objects as f64 / probability;
        let total = &mut self.total;
        total.in_use_objects = total.in_use_objects.saturating_add(scaled_objects as u64);
        total.in_use_bytes = total.in_use_bytes.saturating_add((scaled_objects * size_bytes as f64) as u64);
    }
}

#[cfg(test)]
mod tests {
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

    /// A bucket with two callers: size, then allocations and frees of the active and the future cycles.
    fn bucket(next_addr: u64, size_bytes: u64, cycles: [(u64, u64); 4], cycle_words: usize) -> Vec<u64> {
        let mut words = vec![0, next_addr, 1, 77, size_bytes, 2, 0x40_1000, 0x40_2000];
        for (allocs, frees) in cycles {
            words.extend([allocs, frees]);
            words.extend(vec![0x7777; cycle_words - 2]);
        }
        words
    }

    fn found(minor: u32, globals: [u64; 3], buckets: &[u64]) -> Result<Option<HeapProfile>> {
        let memory = Pieces(vec![(GLOBALS_ADDR, bytes(&globals)), (BUCKETS_ADDR, bytes(buckets))]);
        let layout = Layout::for_version(minor, Arch::Amd64).unwrap();
        read(&Reader { memory: &memory, layout: &layout, globals: &Globals::at(0, GLOBALS.to_vec()) })
    }

    #[test]
    fn published_cycles_are_scaled_and_summed() {
        for (minor, cycle_words) in [(26, 4), (27, 2)] {
            let second_addr = BUCKETS_ADDR + 8 * (8 + 4 * cycle_words as u64);
            let mut words = bucket(second_addr, 1 << 20, [(5, 2), (9, 9), (4, 0), (1, 0)], cycle_words);
            words.extend(bucket(0, 1024, [(1, 0), (0, 0), (0, 0), (0, 0)], cycle_words));
            // Cycle 7 is flushed, cycle 8 is not: its events, the third of the future ones, count.
            let flushed = found(minor, [RATE, BUCKETS_ADDR, 7 << 1 | 1], &words).unwrap().unwrap();
            // 3 objects of 1 MiB at 1-exp(-2), 1 of 1 KiB at 1-exp(-1/512).
            assert_eq!(flushed, HeapProfile { in_use_bytes: 3_638_089 + 524_800, in_use_objects: 3 + 512 });
            let pending = found(minor, [RATE, BUCKETS_ADDR, 8 << 1], &words).unwrap().unwrap();
            assert_eq!(pending.in_use_objects, 4 + 512);
        }
    }

    #[test]
    fn before_the_first_collection_everything_counts() {
        let words = bucket(0, 100, [(0, 0), (0, 0), (7, 0), (0, 2)], 2);
        let profile = found(27, [1, BUCKETS_ADDR, 1], &words).unwrap();
        assert_eq!(profile, Some(HeapProfile { in_use_bytes: 500, in_use_objects: 5 }));
    }

    #[test]
    fn a_profile_that_is_switched_off_is_none() {
        assert_eq!(found(27, [0, BUCKETS_ADDR, 0], &[]).unwrap(), None);
        assert_eq!(found(27, [RATE, 0, 0], &[]).unwrap(), Some(HeapProfile::default()));
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
}
