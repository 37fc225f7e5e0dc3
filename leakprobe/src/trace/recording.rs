//! What the window saw, kept small: the holder of each page, the mappings made, each stack once.
//! Pure: it is given events and stacks, and never asks the kernel for anything.

use std::collections::HashMap;
use std::rc::Rc;

use rangemap::RangeMap;
use serde::{Deserialize, Serialize};

use super::decode::{Event, What};
use super::holders::{Holder, PageHolders, Touch};
use crate::address::AddrRange;

/// Stacks kept at most, some 30 MiB of them; later ones are counted and their pages have no stack.
const MAX_STACKS: usize = 65_536;
/// Mappings kept at most; a process may have 65,530 (`vm.max_map_count`), made anew all the time.
const MAX_MAPPINGS: usize = 200_000;
/// `MADV_DONTNEED`, `MADV_REMOVE` and `MADV_DONTNEED_LOCKED` drop pages at once; `MADV_FREE` does not,
/// and a page touched again before the kernel took it makes no fault (include/uapi/asm-generic/mman-common.h).
const ADVICE_THAT_DROPS: [u64; 3] = [4, 9, 24];

/// Events by kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Events {
    /// Page faults.
    pub faults: u64,
    /// mmap, mremap and brk calls that succeeded.
    pub mappings: u64,
    /// munmap and madvise calls that succeeded.
    pub unmappings: u64,
    /// mprotect calls that succeeded.
    pub protections: u64,
    /// Threads that exited.
    pub thread_exits: u64,
}

impl Events {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.faults + self.mappings + self.unmappings + self.protections + self.thread_exits
    }
}

/// A stack, unwound: addresses innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unwound {
    /// The instruction pointer, then return addresses.
    pub addrs: Vec<u64>,
    /// Whether it ends before the thread's first frame.
    pub truncated: bool,
}

impl Unwound {
    /// Addresses inside the instructions: a return address is that of the next instruction, which may
    /// belong to another line or function.
    pub fn code_addrs(&self) -> impl Iterator<Item = u64> + '_ {
        self.addrs.iter().enumerate().map(|(index, addr)| addr - u64::from(index > 0 && *addr > 0))
    }
}

/// A mapping made in the window and still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Who made it: index of the stack; `None` where the sample did not fall on it.
    pub stack: Option<u32>,
    /// The MAP_* flags; 0 for what brk and mremap made.
    pub flags: u64,
    made_ns: u64,
}

/// Everything recorded since the window began.
#[derive(Default)]
pub struct Recording {
    started_ns: u64,
    brk_addr: Option<u64>,
    holders: PageHolders,
    mappings: RangeMap<u64, Mapping>,
    stacks: Vec<Rc<Unwound>>,
    index_of: HashMap<Rc<Unwound>, u32>,
    events: Events,
    sparsest_weight: u32,
    stacks_truncated: u64,
    stacks_refused: u64,
    mappings_refused: u64,
    undecodable: u64,
    exec_seen: bool,
}

impl Recording {
    /// An empty recording. `started_ns` is CLOCK_MONOTONIC now; `brk_addr` the heap's end, if it has one.
    pub fn new(started_ns: u64, brk_addr: Option<u64>) -> Self {
        Self { started_ns, brk_addr, ..Self::default() }
    }

    /// Takes in one event and its unwound stack.
    pub fn take(&mut self, event: &Event<'_>, unwound: Option<Unwound>) {
        if self.exec_seen {
            return; // another program's memory
        }
        let stack = unwound.and_then(|unwound| self.intern(unwound));
        let weight = event.stack_weight.max(1);
        self.sparsest_weight = self.sparsest_weight.max(weight);
        match event.what {
            What::Fault { addr, .. } => {
                self.events.faults += 1;
                let micros = self.touched_micros(event.time_ns);
                self.holders.touch(addr, micros, Holder { stack, weight });
            }
            What::Map { range, flags } => self.map(event, range, flags, stack),
            What::Unmap { range } => {
                self.events.unmappings += 1;
                self.forget(event, range);
            }
            What::Remap { from, to } => self.remap(event, from, to, stack),
            What::Break { end_addr } => self.move_break(event, end_addr, stack),
            What::Advise { range, advice } => {
                self.events.unmappings += 1;
                if ADVICE_THAT_DROPS.contains(&advice) {
                    self.holders.clear(range, self.entered_micros(event.entered_ns));
                }
            }
            What::Protect => self.events.protections += 1,
            What::ThreadExit => self.events.thread_exits += 1,
            What::Exec => self.exec_seen = true,
        }
    }

    /// Counts a record that was not one of ours.
    pub fn take_undecodable(&mut self) {
        self.undecodable += 1;
    }

    /// Who made the page at `addr` resident.
    pub fn holder(&self, addr: u64, huge: bool) -> Option<Holder> {
        self.holders.holder(addr, huge)
    }

    /// The pages of `range` touched and not given back, by address.
    pub fn touched(&self, range: AddrRange) -> impl Iterator<Item = Touch> + '_ {
        self.holders.within(range)
    }

    /// Pages touched and not given back, by address.
    pub fn pages(&self) -> impl Iterator<Item = u64> + '_ {
        self.holders.pages()
    }

    /// The mappings made and still there, by address.
    pub fn mappings(&self) -> impl Iterator<Item = (AddrRange, &Mapping)> {
        self.mappings
            .iter()
            .filter_map(|(range, mapping)| Some((AddrRange::new(range.start, range.end)?, mapping)))
    }

    /// The stack of that index.
    pub fn stack(&self, index: u32) -> &Unwound {
        &self.stacks[index as usize]
    }

    /// How many of each event there were.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The most events that one stack stands for.
    pub fn sparsest_weight(&self) -> u32 {
        self.sparsest_weight
    }

    /// How many sampled stacks ended before the thread's first frame.
    pub fn stacks_truncated(&self) -> u64 {
        self.stacks_truncated
    }

    /// How many stacks found no room.
    pub fn stacks_refused(&self) -> u64 {
        self.stacks_refused
    }

    /// How many mappings found no room: memory mapped there has no owner by its mapping.
    pub fn mappings_refused(&self) -> u64 {
        self.mappings_refused
    }

    /// How many touched pages found no room: they have no call site.
    pub fn pages_refused(&self) -> u64 {
        self.holders.refused()
    }

    /// How many records were not ours.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Whether the process called execve: what was recorded before it concerns memory that is gone.
    pub fn exec_seen(&self) -> bool {
        self.exec_seen
    }

    fn map(&mut self, event: &Event<'_>, range: AddrRange, flags: u64, stack: Option<u32>) {
        self.events.mappings += 1;
        self.holders.clear(range, self.entered_micros(event.entered_ns));
        self.insert(event, range, flags, stack);
    }

    fn remap(&mut self, event: &Event<'_>, from: Option<AddrRange>, to: AddrRange, stack: Option<u32>) {
        self.events.mappings += 1;
        let Some(from) = from else { return self.insert(event, to, 0, stack) };
        if from.start_addr != to.start_addr {
            let kept = from.len_bytes().min(to.len_bytes());
            self.holders.clear(to, self.entered_micros(event.entered_ns));
            if let Some(kept) = AddrRange::with_len(from.start_addr, kept) {
                self.holders.rename(kept, to.start_addr);
            }
            self.forget(event, from);
        } else if let Some(cut) = AddrRange::new(to.end_addr, from.end_addr) {
            self.forget(event, cut);
        }
        self.insert(event, to, 0, stack);
    }

    fn move_break(&mut self, event: &Event<'_>, end_addr: u64, stack: Option<u32>) {
        let Some(old_addr) = self.brk_addr.replace(end_addr) else { return };
        if let Some(grown) = AddrRange::new(old_addr, end_addr) {
            self.events.mappings += 1;
            self.insert(event, grown, 0, stack);
        } else if let Some(cut) = AddrRange::new(end_addr, old_addr) {
            self.events.unmappings += 1;
            self.forget(event, cut);
        }
    }

    fn insert(&mut self, event: &Event<'_>, range: AddrRange, flags: u64, stack: Option<u32>) {
        if self.mappings.len() >= MAX_MAPPINGS {
            self.mappings_refused += 1;
            return;
        }
        let mapping = Mapping { stack, flags, made_ns: event.time_ns };
        self.mappings.insert(range.start_addr..range.end_addr, mapping);
    }

    /// A mapping whose making was recorded after the unmapping began is not the one unmapped.
    fn forget(&mut self, event: &Event<'_>, range: AddrRange) {
        self.holders.clear(range, self.entered_micros(event.entered_ns));
        let span = range.start_addr..range.end_addr;
        let newer: Vec<_> = self
            .mappings
            .overlapping(&span)
            .filter(|(_, mapping)| mapping.made_ns > event.entered_ns)
            .map(|(range, mapping)| (range.clone(), *mapping))
            .collect();
        self.mappings.remove(span);
        for (range, mapping) in newer {
            self.mappings.insert(range, mapping);
        }
    }

    fn intern(&mut self, unwound: Unwound) -> Option<u32> {
        self.stacks_truncated += u64::from(unwound.truncated);
        if let Some(&index) = self.index_of.get(&unwound) {
            return Some(index);
        }
        if self.stacks.len() >= MAX_STACKS {
            self.stacks_refused += 1;
            return None;
        }
        let index = u32::try_from(self.stacks.len()).expect("MAX_STACKS fits");
        let unwound = Rc::new(unwound);
        self.stacks.push(Rc::clone(&unwound));
        self.index_of.insert(unwound, index);
        Some(index)
    }

    /// When a page was touched. 71 minutes fit; in a longer window, touches after that all count as one
    /// moment, and as earlier than any unmap after it.
    fn touched_micros(&self, time_ns: u64) -> u32 {
        u32::try_from(time_ns.saturating_sub(self.started_ns) / 1000)
            .map_or(u32::MAX - 2, |it| it.min(u32::MAX - 2))
    }

    /// When an unmap was entered.
    fn entered_micros(&self, time_ns: u64) -> u32 {
        u32::try_from(time_ns.saturating_sub(self.started_ns) / 1000).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    fn event(what: What, entered_ns: u64, time_ns: u64) -> Event<'static> {
        Event { what, time_ns, entered_ns, stack_weight: 0, stack: None }
    }

    fn fault(recording: &mut Recording, addr: u64, time_ns: u64) {
        recording.take(&event(What::Fault { addr, by_kernel: false }, time_ns, time_ns), None);
    }

    #[test]
    fn what_was_unmapped_is_forgotten() {
        let mut recording = Recording::new(0, None);
        let mapped = range(0x10_0000, 0x20_0000);
        recording.take(&event(What::Map { range: mapped, flags: 0x22 }, 1_000, 2_000), None);
        fault(&mut recording, 0x10_0000, 3_000);
        fault(&mut recording, 0x18_0000, 3_000);
        recording.take(&event(What::Unmap { range: range(0x18_0000, 0x20_0000) }, 5_000, 6_000), None);
        assert_eq!(recording.pages().collect::<Vec<_>>(), [0x10_0000]);
        assert_eq!(
            recording.mappings().map(|(range, _)| range).collect::<Vec<_>>(),
            [range(0x10_0000, 0x18_0000)]
        );
    }

    #[test]
    fn a_mapping_recorded_before_the_unmap_it_raced_with_stays() {
        let mut recording = Recording::new(0, None);
        let place = range(0x10_0000, 0x20_0000);
        recording.take(&event(What::Map { range: place, flags: 0x22 }, 6_000, 7_000), None);
        fault(&mut recording, 0x10_0000, 8_000);
        recording.take(&event(What::Unmap { range: place }, 5_000, 9_000), None);
        assert_eq!(recording.pages().count(), 1);
        assert_eq!(recording.mappings().count(), 1);
    }

    #[test]
    fn the_break_moves_both_ways() {
        let mut recording = Recording::new(0, Some(0x5000));
        recording.take(&event(What::Break { end_addr: 0x9000 }, 1_000, 1_000), None);
        fault(&mut recording, 0x6000, 2_000);
        fault(&mut recording, 0x8000, 2_000);
        recording.take(&event(What::Break { end_addr: 0x7000 }, 3_000, 3_000), None);
        assert_eq!(recording.pages().collect::<Vec<_>>(), [0x6000]);
    }

    #[test]
    fn a_moved_mapping_takes_its_pages_along() {
        let mut recording = Recording::new(0, None);
        fault(&mut recording, 0x5000, 1_000);
        let what = What::Remap { from: Some(range(0x5000, 0x7000)), to: range(0x10_0000, 0x10_4000) };
        recording.take(&event(what, 2_000, 2_000), None);
        assert_eq!(recording.pages().collect::<Vec<_>>(), [0x10_0000]);
    }

    #[test]
    fn equal_stacks_are_kept_once() {
        let mut recording = Recording::new(0, None);
        let unwound = || Some(Unwound { addrs: vec![1, 2], truncated: false });
        recording.take(&event(What::Fault { addr: 0x5000, by_kernel: false }, 1, 1), unwound());
        recording.take(&event(What::Fault { addr: 0x6000, by_kernel: false }, 1, 1), unwound());
        assert_eq!(recording.stacks.len(), 1);
        assert_eq!(recording.holder(0x6000, false).unwrap().stack, Some(0));
    }
}
