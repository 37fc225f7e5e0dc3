//! `__malloc_context` (musl's `ctx`), found by what it contains, and the list of groups' descriptions.

use super::groups::Group;
use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::target::memory::Memory;

/// `struct malloc_context`, in words: `secret`, `init_done` (with `mmap_counter`), `meta_area_head` and its tail.
const INIT_DONE: usize = 1;
const AREA_HEAD: usize = 7;
const AREA_TAIL: usize = 8;
const CONTEXT_WORDS: usize = 9;
/// `struct meta_area`: `check`, `next`, `nslots`, and the descriptions.
const AREA_BYTES: u64 = 4096;
const AREA_HEADER_BYTES: usize = 24;
/// `struct meta`.
const META_BYTES: usize = 40;
/// A static program's .bss may be long; no more of it is searched.
const MAX_SEARCHED_BYTES: u64 = 64 << 20;
const PIECE_BYTES: u64 = 1 << 20;
/// Groups that are followed: at 30 small blocks in each, 63 million.
const MAX_GROUPS: usize = 1 << 21;

/// malloc's variables, as far as they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    secret: u64,
    first_area_addr: u64,
}

impl Context {
    /// The variables, where they lie in `variables`; areas lie in `free`.
    pub(super) fn find(memory: &dyn Memory, variables: AddrRange, free: &AnonymousMemory) -> Option<Self> {
        let mut addr = variables.start_addr.checked_next_multiple_of(8)?;
        let end_addr = variables.end_addr.min(addr.saturating_add(MAX_SEARCHED_BYTES));
        while addr < end_addr {
            let len_bytes = PIECE_BYTES.min(end_addr - addr);
            let mut piece = vec![0; usize::try_from(len_bytes).ok()?];
            if memory.read_resident(addr, &mut piece) {
                let words = words_of(&piece);
                let mut windows = words.windows(CONTEXT_WORDS);
                if let Some(found) = windows.find_map(|words| Self::in_words(memory, words, free)) {
                    return Some(found);
                }
            }
            // They may lie across the end of a piece.
            let overlap_bytes = (CONTEXT_WORDS as u64 - 1) * 8;
            addr += if len_bytes == PIECE_BYTES { len_bytes - overlap_bytes } else { len_bytes };
        }
        None
    }

    fn in_words(memory: &dyn Memory, words: &[u64], free: &AnonymousMemory) -> Option<Self> {
        let is_area =
            |addr: u64| addr != 0 && addr.is_multiple_of(AREA_BYTES) && free.covers_len(addr, AREA_BYTES);
        let [secret, head, tail] = [words[0], words[AREA_HEAD], words[AREA_TAIL]];
        let is_likely = secret != 0 && words[INIT_DONE] as u32 == 1 && is_area(head) && is_area(tail);
        let says_so = |addr: u64| memory.read_u64(addr).is_ok_and(|check| check == secret);
        (is_likely && says_so(head) && says_so(tail)).then_some(Self { secret, first_area_addr: head })
    }

    /// Every area, every group that is described there and says so itself, and what was not followed.
    pub(super) fn groups(
        self,
        memory: &dyn Memory,
        free: &AnonymousMemory,
    ) -> (Vec<AddrRange>, Vec<Group>, Option<Gap>) {
        let (mut areas, mut groups) = (Vec::new(), Vec::new());
        let gap = |why: &str| {
            let what = "the rest of musl's heap".to_owned();
            Some(Gap { what, why: why.to_owned(), bytes: None })
        };
        // A list that is a ring ends here too: no area has fewer than no groups.
        let mut areas_left = MAX_GROUPS / 101;
        let mut addr = self.first_area_addr;
        while addr != 0 {
            let is_one = addr.is_multiple_of(AREA_BYTES) && free.covers_len(addr, AREA_BYTES);
            let Some(bytes) = is_one.then(|| memory.read_vec(addr, AREA_BYTES as usize).ok()).flatten()
            else {
                return (areas, groups, gap("its list of descriptions leads nowhere"));
            };
            let words = words_of(&bytes[..AREA_HEADER_BYTES]);
            if words[0] != self.secret || areas_left == 0 {
                return (areas, groups, gap("its list of descriptions is broken, or has no end"));
            }
            areas_left -= 1;
            let described =
                bytes[AREA_HEADER_BYTES..].chunks_exact(META_BYTES).take(words[2] as u32 as usize);
            let metas = (addr + AREA_HEADER_BYTES as u64..).step_by(META_BYTES).zip(described);
            let in_use = metas.filter_map(|(meta_addr, bytes)| Group::parse(bytes, meta_addr));
            groups.extend(in_use.filter(|group| group.is_itself(memory)));
            areas.extend(AddrRange::with_len(addr, PAGE_BYTES));
            addr = words[1];
        }
        (areas, groups, None)
    }
}
