//! What malloc's chunks add up to at one moment, whichever malloc it is: in use, free, by size, by class.
//!
//! The surprise: sizes are those of chunks, header and padding included, since that is what memory costs.

use std::collections::BTreeMap;

use super::first_words::FirstWords;
use crate::address::AddrRange;
use crate::runtimes::cpp::{Class, Classes};

/// Chunks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many.
    pub chunks: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

impl Sum {
    /// Counts one more.
    pub fn add(&mut self, bytes: u64) {
        *self = self.plus(Self { chunks: 1, bytes });
    }

    /// Counts so many more of one size.
    pub fn add_all(&mut self, chunks: u64, bytes_each: u64) {
        let bytes = chunks.saturating_mul(bytes_each);
        *self = self.plus(Self { chunks, bytes });
    }

    /// Counts one less; never below nothing, for what is counted may have changed meanwhile.
    pub fn remove(&mut self, bytes: u64) {
        self.chunks = self.chunks.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Both together.
    pub fn plus(self, more: Self) -> Self {
        Self { chunks: self.chunks.saturating_add(more.chunks), bytes: self.bytes.saturating_add(more.bytes) }
    }
}

/// Sizes up to here have a class each, larger ones share four a power of two.
const EXACT_BYTES: u64 = 1024;
const EXACT_CLASSES: usize = (EXACT_BYTES / GRAIN_BYTES) as usize + 1;
/// Sizes are multiples of this.
const GRAIN_BYTES: u64 = 16;
const EXACT_LOG2: u32 = EXACT_BYTES.ilog2();
/// Longer chunks than a tebibyte are counted with those.
const MAX_LOG2: u32 = 40;
const CLASSES: usize = EXACT_CLASSES + 4 * (MAX_LOG2 - EXACT_LOG2 + 1) as usize;

/// Chunks in use, by size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BySize(Vec<Sum>);

impl Default for BySize {
    fn default() -> Self {
        Self(vec![Sum::default(); CLASSES])
    }
}

impl BySize {
    /// Counts a chunk.
    pub fn add(&mut self, chunk_bytes: u64) {
        self.0[class_of(chunk_bytes)].add(chunk_bytes);
    }

    /// Counts so many chunks of one size.
    pub fn add_all(&mut self, chunks: u64, bytes_each: u64) {
        self.0[class_of(bytes_each)].add_all(chunks, bytes_each);
    }

    /// Takes a chunk back.
    pub fn remove(&mut self, chunk_bytes: u64) {
        self.0[class_of(chunk_bytes)].remove(chunk_bytes);
    }

    /// Counts all of another count.
    pub fn merge(&mut self, more: &Self) {
        for (sum, more) in self.0.iter_mut().zip(&more.0) {
            *sum = sum.plus(*more);
        }
    }

    /// The classes that have chunks, ascending: size of the largest chunk that belongs in it, and the chunks.
    pub fn classes(&self) -> impl Iterator<Item = (u64, Sum)> + '_ {
        let numbered = self.0.iter().enumerate().filter(|(_, sum)| sum.chunks > 0);
        numbered.map(|(class, sum)| (largest_in(class), *sum))
    }
}

fn class_of(chunk_bytes: u64) -> usize {
    if chunk_bytes <= EXACT_BYTES {
        return (chunk_bytes / GRAIN_BYTES) as usize;
    }
    let log2 = chunk_bytes.ilog2();
    if log2 > MAX_LOG2 {
        return CLASSES - 1;
    }
    let quarter = (chunk_bytes >> (log2 - 2)) & 3;
    EXACT_CLASSES + 4 * (log2 - EXACT_LOG2) as usize + quarter as usize
}

fn largest_in(class: usize) -> u64 {
    match class.checked_sub(EXACT_CLASSES) {
        None => class as u64 * GRAIN_BYTES,
        Some(above) => {
            let (log2, quarter) = (EXACT_LOG2 + (above / 4) as u32, (above % 4) as u64);
            ((5 + quarter) << (log2 - 2)) - GRAIN_BYTES
        }
    }
}

/// All of malloc's memory at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Arenas, the main one included.
    pub arenas: u64,
    /// What the arenas took from the kernel, as they count it.
    pub system_bytes: u64,
    /// Chunks the program holds, those with a mapping of their own left out.
    pub live: Sum,
    /// Chunks the program holds that have a mapping of their own.
    pub mapped: Sum,
    /// Freed, and kept by the thread that freed them.
    pub thread_cached: Sum,
    /// Freed, and kept unmerged for the next request of that size.
    pub fast: Sum,
    /// Freed and merged with free neighbours.
    pub binned: Sum,
    /// The rest at the arenas' ends, from which new chunks are cut.
    pub top_bytes: u64,
    /// Malloc's own headers of arenas and heaps.
    pub overhead_bytes: u64,
    /// Where chunks could not be followed: counted as in use, in none of the above.
    pub unread_bytes: u64,
    /// `live` and `mapped`, by size.
    pub by_size: BySize,
    /// Of `live` and `mapped`, those that may begin with a vtable; empty once [`Self::name_classes`] was called.
    pub first_words: FirstWords,
    /// Chunks that begin with an object of a C++ class.
    pub by_class: BTreeMap<Class, Sum>,
    /// Chunks that may begin with one, and were too many to tell.
    pub unclassed: Sum,
    /// Whole pages that `malloc_trim(0)` would give back, where they are resident; `None` for a malloc
    /// without it.
    pub trimmable: Option<Vec<AddrRange>>,
}

impl Census {
    /// Asks which classes the first words stand for; those that are no vtables are forgotten.
    pub fn name_classes(&mut self, classes: &mut Classes<'_>) {
        let words = std::mem::take(&mut self.first_words);
        for (word, sum) in words.sorted() {
            let Some(class) = classes.at(word) else { continue };
            let known = self.by_class.entry(class).or_default();
            *known = known.plus(sum);
        }
        self.unclassed = words.beyond;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_chunk_is_in_the_smallest_class_that_holds_it(units in 0u64..1 << 36) {
            let bytes = units * GRAIN_BYTES;
            let class = class_of(bytes);
            prop_assert!(bytes <= largest_in(class));
            prop_assert!(class == 0 || bytes > largest_in(class - 1));
        }

        #[test]
        fn any_size_has_a_class(bytes: u64) {
            prop_assert!(class_of(bytes) < CLASSES);
        }
    }

    #[test]
    fn what_is_added_and_removed_is_gone() {
        let mut count = BySize::default();
        count.add(48);
        count.add(5000);
        count.remove(48);
        assert_eq!(count.classes().collect::<Vec<_>>(), [(5104, Sum { chunks: 1, bytes: 5000 })]);
    }
}
