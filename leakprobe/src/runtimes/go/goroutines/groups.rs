//! Goroutines that do the same are one group: same state, same reason, same stack, same `go` statement.
//!
//! Bounded: beyond so many different groups the rest is one without a stack. A call that a function makes of
//! itself counts once, or every depth of a recursion would be a group of its own.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::record::{Goroutine, State};
use crate::snapshot::{PageRun, resident_bytes_in};

/// Different groups told apart; a program has hundreds, garbage has any number.
const MAX_GROUPS: usize = 1 << 16;
/// Where the addresses of a key start: before them come the state, the reason and the `go` statement.
const KEY_HEAD: usize = 3;
/// Reasons are bytes, so this is none of them.
const NO_REASON: u64 = 256;

/// The pages that goroutine stacks lie on, in runs, by address.
#[derive(Clone, Debug, Default)]
pub struct StackPages {
    /// Resident now.
    pub resident: Vec<PageRun>,
    /// Of these, not resident when the window began.
    pub gained: Vec<PageRun>,
}

/// Goroutines that do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they do.
    pub state: State,
    /// Number of the reason why.
    pub reason: Option<u8>,
    /// How many.
    pub count: u64,
    /// Size of their stacks, resident or not.
    pub stack_bytes: u64,
    /// Of these, resident.
    pub resident_bytes: u64,
    /// Of these, not resident when the window began.
    pub gained_bytes: u64,
    /// How long the longest of them has been waiting at least; `None` where the collector has seen none wait.
    pub longest_wait_ns: Option<u64>,
    /// Addresses inside the instructions, innermost first; empty of those that run. What repeats is here once.
    pub code_addrs: Vec<u64>,
    /// An address inside the `go` statement.
    pub creator_addr: Option<u64>,
}

impl Group {
    /// What makes it the same group at another moment.
    pub fn key(&self) -> (State, Option<u8>, &[u64], Option<u64>) {
        (self.state, self.reason, &self.code_addrs, self.creator_addr)
    }
}

#[derive(Clone, Copy, Default)]
struct Tally {
    count: u64,
    stack_bytes: u64,
    resident_bytes: u64,
    gained_bytes: u64,
    longest_wait_ns: Option<u64>,
}

/// The groups while they are collected.
pub struct Groups<'a> {
    now_ns: u64,
    pages: &'a StackPages,
    tallies: HashMap<Box<[u64]>, Tally>,
    key: Vec<u64>,
}

impl<'a> Groups<'a> {
    /// `now_ns` is the monotonic clock's.
    pub fn new(now_ns: u64, pages: &'a StackPages) -> Self {
        Self { now_ns, pages, tallies: HashMap::new(), key: Vec::new() }
    }

    /// Counts a goroutine.
    pub fn add(&mut self, goroutine: &Goroutine, code_addrs: &[u64]) {
        let reason = goroutine.reason.map_or(NO_REASON, u64::from);
        self.key.clear();
        self.key.extend([goroutine.state as u64, reason, goroutine.creator_addr]);
        self.key.extend(code_addrs.chunk_by(|inner, outer| inner == outer).filter_map(|same| same.first()));
        if !self.tallies.contains_key(self.key.as_slice()) {
            if self.tallies.len() >= MAX_GROUPS {
                self.key.truncate(KEY_HEAD);
                self.key[KEY_HEAD - 1] = 0;
            }
            self.tallies.entry(self.key.as_slice().into()).or_default();
        }
        let Some(tally) = self.tallies.get_mut(self.key.as_slice()) else { return };
        tally.count += 1;
        let StackPages { resident, gained } = self.pages;
        for (sum, bytes) in [
            (&mut tally.stack_bytes, goroutine.stack.len_bytes()),
            (&mut tally.resident_bytes, resident_bytes_in(goroutine.stack, resident)),
            (&mut tally.gained_bytes, resident_bytes_in(goroutine.stack, gained)),
        ] {
            *sum = sum.saturating_add(bytes);
        }
        let since_ns = Some(goroutine.wait_since_ns).filter(|since_ns| (1..=self.now_ns).contains(since_ns));
        tally.longest_wait_ns = tally.longest_wait_ns.max(since_ns.map(|since_ns| self.now_ns - since_ns));
    }

    /// The groups, those with most goroutines first.
    pub fn into_sorted(self) -> Vec<Group> {
        let mut groups: Vec<Group> =
            self.tallies.into_iter().filter_map(|(key, tally)| group(&key, tally)).collect();
        groups.sort_by(|one, other| {
            let order = |it: &Group| (Reverse(it.count), Reverse(it.stack_bytes), it.state, it.reason);
            order(one).cmp(&order(other)).then_with(|| one.code_addrs.cmp(&other.code_addrs))
        });
        groups
    }
}

fn group(key: &[u64], tally: Tally) -> Option<Group> {
    let (&[state, reason, creator_addr], code_addrs) = key.split_first_chunk::<KEY_HEAD>()?;
    const STATES: [State; 7] = [
        State::Runnable,
        State::Running,
        State::Syscall,
        State::Waiting,
        State::CopyStack,
        State::Preempted,
        State::Leaked,
    ];
    Some(Group {
        state: STATES.into_iter().find(|known| *known as u64 == state)?,
        reason: u8::try_from(reason).ok(),
        count: tally.count,
        stack_bytes: tally.stack_bytes,
        resident_bytes: tally.resident_bytes,
        gained_bytes: tally.gained_bytes,
        longest_wait_ns: tally.longest_wait_ns,
        code_addrs: code_addrs.to_vec(),
        creator_addr: creator_addr.checked_sub(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{AddrRange, PAGE_BYTES};
    use crate::snapshot::Residency;

    fn waiting(stack: AddrRange) -> Goroutine {
        let creator_addr = 0x50;
        Goroutine {
            state: State::Waiting,
            reason: Some(7),
            wait_since_ns: 0,
            stack,
            saved: None,
            creator_addr,
            start_addr: 0x40,
        }
    }

    #[test]
    fn a_page_with_two_stacks_is_half_of_each() {
        let page = |index: u64| AddrRange::with_len(index * PAGE_BYTES, PAGE_BYTES).unwrap();
        let run = |index| PageRun { range: page(index), residency: Residency::Resident };
        let pages = StackPages { resident: vec![run(1), run(2)], gained: vec![run(2)] };
        let mut groups = Groups::new(0, &pages);
        // The first lies on no resident page; then two on the old one, one on the new one.
        for (start_addr, code_addr) in [(0, 1), (4096, 1), (6144, 2), (8192, 2)] {
            groups.add(&waiting(AddrRange::with_len(start_addr, 2048).unwrap()), &[code_addr]);
        }
        let told = |group: &Group| (group.stack_bytes, group.resident_bytes, group.gained_bytes);
        let sizes: Vec<_> = groups.into_sorted().iter().map(told).collect();
        assert_eq!(sizes, [(4096, 2048, 0), (4096, 4096, 2048)]);
    }

    #[test]
    fn every_depth_of_a_recursion_is_one_group() {
        let goroutine = waiting(AddrRange { start_addr: 0x1000, end_addr: 0x3000 });
        let pages = StackPages::default();
        let mut groups = Groups::new(0, &pages);
        for depth in 1..100 {
            let mut code_addrs = vec![0x10];
            code_addrs.extend(std::iter::repeat_n(0x20, depth));
            code_addrs.push(0x30);
            groups.add(&goroutine, &code_addrs);
        }
        groups.add(&goroutine, &[0x10, 0x20, 0x10, 0x30]);
        let told: Vec<(u64, Vec<u64>)> =
            groups.into_sorted().into_iter().map(|group| (group.count, group.code_addrs)).collect();
        assert_eq!(told, [(99, vec![0x10, 0x20, 0x30]), (1, vec![0x10, 0x20, 0x10, 0x30])]);
    }
}
