//! Pages touched in one go: where only some faults of a storm got a stack, those tell of the others beside them.
//! Pure, like its neighbours.
//!
//! The surprise: time tells where one owner's pages end. Who fills its memory does so from one end to the other, and
//! who filled the memory beside it did that before or after.

use crate::address::PAGE_BYTES;
use crate::claim::Component;

/// Faults that follow each other in a storm are microseconds apart; a thread that had to wait for the processor begins
/// a new go.
const PAUSE_MICROS: u32 = 10_000;

/// So many pages touched in one go are filled memory, and not what was left over between others.
const OWN_GO_PAGES: usize = 16;

/// A page, when it was touched, and whose it is by that, where the stack was kept and tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Where the page begins.
    pub addr: u64,
    /// Microseconds from the window's start.
    pub micros: u32,
    /// Whose.
    pub component: Option<Component>,
}

/// The pages of `touched`, which are sorted by address, that belong to somebody since all that is known of those
/// touched in one go with them is his, or since those known on either side are.
pub fn owned(touched: &[Touched]) -> Vec<(u64, Component)> {
    let mut owned = Vec::new();
    let mut before: Option<Component> = None;
    let mut waiting: Vec<u64> = Vec::new();
    let mut rest = touched;
    while !rest.is_empty() {
        let (burst, later) = rest.split_at(len_of_first(rest));
        rest = later;
        let mut known = burst.iter().filter_map(|touched| touched.component);
        let first = known.next();
        let only = first.filter(|first| known.all(|other| other == *first));
        if first.is_none() && burst.len() >= OWN_GO_PAGES {
            // Somebody's, and perhaps not that of those beside it.
            (before, waiting) = (None, Vec::new());
            continue;
        }
        for page in burst {
            let Some(component) = page.component else {
                match only {
                    Some(component) => owned.push((page.addr, component)),
                    None => waiting.push(page.addr),
                }
                continue;
            };
            let between = waiting.drain(..);
            if before == Some(component) {
                owned.extend(between.map(|addr| (addr, component)));
            }
            before = Some(component);
        }
    }
    owned
}

/// How many of the first pages follow each other without a hole, and in time upwards or downwards without a pause.
fn len_of_first(touched: &[Touched]) -> usize {
    let mut is_upwards = None;
    let follows = |pair: &[Touched]| {
        let (earlier, later) = (pair[0].micros.min(pair[1].micros), pair[0].micros.max(pair[1].micros));
        let direction = (earlier != later).then_some(pair[0].micros == earlier);
        is_upwards = is_upwards.or(direction);
        pair[1].addr == pair[0].addr + PAGE_BYTES
            && later - earlier <= PAUSE_MICROS
            && (direction.is_none() || direction == is_upwards)
    };
    touched.len().min(1 + touched.windows(2).map(follows).take_while(|follows| *follows).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages from 16 on, as (microseconds, whose: 1 for C, 2 for Go).
    fn pages(touches: &[(u32, u8)]) -> Vec<Touched> {
        let component = |owner| [None, Some(Component::CMmap), Some(Component::GoMmap)][usize::from(owner)];
        let numbered = (16..).zip(touches);
        numbered
            .map(|(page, (micros, owner))| Touched {
                addr: page * PAGE_BYTES,
                micros: *micros,
                component: component(*owner),
            })
            .collect()
    }

    fn owners(touches: &[(u32, u8)]) -> Vec<(u64, &'static str)> {
        let shown = |(addr, component): (u64, Component)| (addr / PAGE_BYTES, component.id());
        owned(&pages(touches)).into_iter().map(shown).collect()
    }

    #[test]
    fn what_was_touched_in_one_go_has_one_owner() {
        // C's memory was filled after Go's, which lies above it.
        let touches = [(500, 0), (501, 1), (502, 0), (503, 0), (100, 0), (101, 0), (102, 2), (103, 0)];
        let c = [16, 18, 19].map(|page| (page, "c.mmap"));
        let go = [20, 21, 23].map(|page| (page, "go.mmap"));
        assert_eq!(owners(&touches), [c, go].concat());
        // From the top downwards.
        assert_eq!(owners(&[(103, 0), (102, 2), (101, 0)]), [(16, "go.mmap"), (18, "go.mmap")]);
    }

    #[test]
    fn where_owners_took_turns_or_nobody_is_known_nothing_is_said() {
        assert!(owners(&[(100, 1), (101, 0), (102, 2)]).is_empty());
        assert!(owners(&[(100, 0), (101, 0)]).is_empty());
        assert!(owners(&[]).is_empty());
        assert_eq!(owners(&[(100, 0), (101, 1), (20_000, 0)]), [(16, "c.mmap")]);
    }

    #[test]
    fn a_few_pages_between_those_of_one_owner_are_his_and_many_need_not_be() {
        let between = |count| {
            let mut touches = vec![(50_000, 2)];
            touches.extend((0..count).map(|page| (20_000 + page, 0)));
            touches.push((100, 2));
            owners(&touches).len()
        };
        assert_eq!((between(15), between(16)), (15, 0));
    }

    #[test]
    fn a_hole_ends_a_go() {
        let mut touched = pages(&[(100, 1), (101, 0)]);
        touched[1].addr += PAGE_BYTES;
        assert!(owned(&touched).is_empty());
    }
}
