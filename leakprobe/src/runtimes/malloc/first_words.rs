//! Blocks by their first word, where that leads into a module: it may be the vtable of an object's class.
//!
//! What it is shows afterwards; while blocks are walked by the million they are only counted. The surprise: first
//! words are whatever the program has in its blocks, so there may be as many as blocks. Those that find no room
//! are one sum.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::census::Sum;

/// Words told apart: some 3 MiB. A program has some thousands of vtables at most.
const MAX_WORDS: usize = 1 << 16;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstWords {
    by_word: HashMap<u64, Sum>,
    /// Blocks whose words found no room.
    pub beyond: Sum,
}

impl FirstWords {
    /// Counts a block.
    #[inline]
    pub fn add(&mut self, word: u64, block_bytes: u64) {
        self.add_sum(word, Sum { chunks: 1, bytes: block_bytes });
    }

    /// Counts all of another count.
    pub fn merge(&mut self, more: &Self) {
        for (word, sum) in &more.by_word {
            self.add_sum(*word, *sum);
        }
        self.beyond = self.beyond.plus(more.beyond);
    }

    /// The words and their blocks, by word.
    pub fn sorted(&self) -> Vec<(u64, Sum)> {
        let mut all: Vec<(u64, Sum)> = self.by_word.iter().map(|(word, sum)| (*word, *sum)).collect();
        all.sort_unstable_by_key(|(word, _)| *word);
        all
    }

    fn add_sum(&mut self, word: u64, sum: Sum) {
        let is_full = self.by_word.len() >= MAX_WORDS;
        match self.by_word.entry(word) {
            Entry::Occupied(mut known) => *known.get_mut() = known.get().plus(sum),
            Entry::Vacant(_) if is_full => self.beyond = self.beyond.plus(sum),
            Entry::Vacant(place) => {
                place.insert(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_summed_up_and_nothing_is_lost() {
        let mut words = FirstWords::default();
        let count = MAX_WORDS as u64 + 10;
        for word in 0..count {
            words.add(word, 32);
        }
        words.add(5, 48);
        let mut other = FirstWords::default();
        other.add(5, 16);
        other.add(count + 1, 64);
        words.merge(&other);
        let all = words.sorted();
        assert_eq!(all.len(), MAX_WORDS);
        assert_eq!(all[5], (5, Sum { chunks: 3, bytes: 96 }));
        assert_eq!(words.beyond, Sum { chunks: 11, bytes: 10 * 32 + 64 });
    }
}
