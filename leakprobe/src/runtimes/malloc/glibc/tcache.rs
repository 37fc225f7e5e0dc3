//! A thread's cache of freed chunks: `tcache_perthread_struct`, an ordinary chunk of its own arena.
//!
//! No symbol leads to it (the pointer is a thread-local variable), so every chunk of its size is looked at. Its
//! counts and its lists say the same thing twice, which no other chunk's contents do by chance.
//!
//! Layouts: glibc `malloc/malloc.c`. To 2.29: 64 counts of one byte; to 2.41: of two bytes; since 2.42: 76 numbers
//! of free slots, of which 64 are of small chunks. Tried on 2.31, 2.36, 2.41 and 2.43.

use super::window::Window;

/// How the counts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    /// Chunks in each list, in so many bytes.
    Chunks { each_bytes: usize },
    /// What more would fit in.
    FreeSlots,
}

/// A layout.
struct Form {
    chunk_bytes: u64,
    lists: usize,
    counts: Counts,
}

const FORMS: [Form; 3] = [
    Form { chunk_bytes: 0x250, lists: SMALL_LISTS, counts: Counts::Chunks { each_bytes: 1 } },
    Form { chunk_bytes: 0x290, lists: SMALL_LISTS, counts: Counts::Chunks { each_bytes: 2 } },
    Form { chunk_bytes: 0x300, lists: 76, counts: Counts::FreeSlots },
];

/// Lists of chunks of one size each: 32, 48, … Those behind them hold a range of sizes.
const SMALL_LISTS: usize = 64;
const HEADER_BYTES: u64 = 16;
/// A chunk's contents reach into the header of the next one.
const LEAST_OVERHEAD_BYTES: u64 = 8;
const MAX_BYTES: usize = 0x300;

/// A list of cached chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// Of the first chunk's contents, which is what the list's pointers point to.
    pub(super) first_addr: u64,
    /// The size of its chunks; `None` where they differ.
    pub(super) chunk_bytes: Option<u64>,
}

/// Whether a cache could lie in a chunk of this size.
#[inline]
pub(super) fn is_size(chunk_bytes: u64) -> bool {
    FORMS.iter().any(|form| form.chunk_bytes == chunk_bytes)
}

/// Whether the chunk at `chunk_addr`, of a fitting size, holds a cache that is not empty.
pub(super) fn is_plausible(window: &Window<'_>, chunk_addr: u64) -> bool {
    !lists(window, chunk_addr).is_empty()
}

/// The lists of the cache in the chunk at `chunk_addr` that hold anything; none where it is no cache.
pub(super) fn lists(window: &Window<'_>, chunk_addr: u64) -> Vec<List> {
    let chunk_bytes = window.peek(chunk_addr).chunk_bytes();
    let Some(form) = FORMS.iter().find(|form| form.chunk_bytes == chunk_bytes) else { return Vec::new() };
    let mut bytes = [0; MAX_BYTES];
    let Some(contents_addr) = chunk_addr.checked_add(HEADER_BYTES) else { return Vec::new() };
    window.copy(contents_addr, &mut bytes[..(form.chunk_bytes - LEAST_OVERHEAD_BYTES) as usize]);
    form.lists_in(&bytes).unwrap_or_default()
}

impl Form {
    fn lists_in(&self, bytes: &[u8]) -> Option<Vec<List>> {
        let each_bytes = match self.counts {
            Counts::Chunks { each_bytes } => each_bytes,
            Counts::FreeSlots => 2,
        };
        let (counts, firsts) = bytes.split_at_checked(self.lists * each_bytes)?;
        let counts: Vec<u64> = counts.chunks_exact(each_bytes).map(little_endian).collect();
        let firsts: Vec<u64> = firsts.chunks_exact(8).take(self.lists).map(little_endian).collect();
        let is_sound = firsts.iter().all(|first| first.is_multiple_of(16)) && self.agree(&counts, &firsts);
        let filled = firsts.iter().enumerate().filter(|(_, first)| **first != 0);
        let list = |(index, first): (usize, &u64)| List {
            first_addr: *first,
            chunk_bytes: (index < SMALL_LISTS).then_some(32 + 16 * index as u64),
        };
        is_sound.then(|| filled.map(list).collect())
    }

    /// Whether the counts fit the lists.
    fn agree(&self, counts: &[u64], firsts: &[u64]) -> bool {
        let mut both = counts.iter().zip(firsts);
        match self.counts {
            Counts::Chunks { .. } => both.all(|(count, first)| (*count == 0) == (*first == 0)),
            Counts::FreeSlots => {
                // An empty list has room for as many as any other, or for none: it is switched off.
                let empty = both.clone().filter(|(_, first)| **first == 0);
                let most = empty.map(|(slots, _)| *slots).max().unwrap_or(0);
                let is_known = most > 0 || firsts.iter().take(SMALL_LISTS).all(|first| *first != 0);
                let fits = |slots, first| {
                    if first == 0 { slots == most || slots == 0 } else { most == 0 || slots < most }
                };
                is_known && both.all(|(slots, first)| fits(*slots, *first))
            }
        }
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cache(each_bytes: usize, counts: &[u64], firsts: &[u64]) -> Vec<u8> {
        let counts = counts.iter().flat_map(|count| count.to_le_bytes()[..each_bytes].to_vec());
        counts.chain(firsts.iter().flat_map(|first| first.to_le_bytes())).collect()
    }

    fn filled(lists: usize, empty: u64, full: u64) -> (Vec<u64>, Vec<u64>) {
        let mut counts = vec![empty; lists];
        let mut firsts = vec![0; lists];
        (counts[3], firsts[3]) = (full, 0x5555_0000_1230);
        (counts, firsts)
    }

    #[test]
    fn each_form_is_understood() {
        let expected = [List { first_addr: 0x5555_0000_1230, chunk_bytes: Some(80) }];
        for (form, each_bytes, empty, full) in [(0, 1, 0, 7), (1, 2, 0, 2), (2, 2, 16, 9)] {
            let (counts, firsts) = filled(FORMS[form].lists, empty, full);
            let bytes = cache(each_bytes, &counts, &firsts);
            assert_eq!(FORMS[form].lists_in(&bytes).unwrap(), expected);
            assert_eq!(
                (bytes.len() as u64 + LEAST_OVERHEAD_BYTES).next_multiple_of(16),
                FORMS[form].chunk_bytes
            );
        }
    }

    #[test]
    fn counts_that_contradict_the_lists_are_no_cache() {
        let (mut counts, firsts) = filled(64, 0, 3);
        counts[9] = 1;
        assert_eq!(FORMS[1].lists_in(&cache(2, &counts, &firsts)), None);
        let (counts, mut firsts) = filled(64, 0, 3);
        firsts[3] += 8;
        assert_eq!(FORMS[1].lists_in(&cache(2, &counts, &firsts)), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..0x300)) {
            for form in &FORMS {
                let _ = form.lists_in(&bytes);
            }
        }
    }
}
