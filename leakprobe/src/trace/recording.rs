//! What the window saw, kept small: the holder of each page, the mappings made, each stack once.
//! Pure: it is given events and stacks, and never asks the kernel for anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rangemap::RangeMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decode::{Access, Event, What};
use super::fills::{By, Fill, Fills};
use super::holders::{Holder, PageHolders, Touch};
pub use super::unwound::{Ending, Unwound};
use crate::address::AddrRange;

/// Stacks kept at most, some 30 MiB of them; later ones are counted and their pages have no stack.
const MAX_STACKS: usize = 65_536;
/// Mappings kept at most; a process may have 65,530 (`vm.max_map_count`), made anew all the time.
const MAX_MAPPINGS: usize = 200_000;
/// `MADV_DONTNEED`, `MADV_REMOVE` and `MADV_DONTNEED_LOCKED` drop pages at once; `MADV_FREE` does not,
/// and a page touched again before the kernel took it makes no fault (include/uapi/asm-generic/mman-common.h).
const ADVICE_THAT_DROPS: [u64; 3] = [4, 9, 24];
/// `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`, `MADV_COLLAPSE`.
const POPULATE_READ: u64 = 22;
const POPULATE_WRITE: u64 = 23;
const COLLAPSE: u64 = 25;
/// `PROT_WRITE`, `MAP_LOCKED`, `MAP_POPULATE`, `MAP_NONBLOCK`, `MLOCK_ONFAULT` (include/uapi/asm-generic/mman.h, mman-common.h).
const PROT_WRITE: u64 = 0x2;
const MAP_LOCKED: u64 = 0x2000;
const MAP_POPULATE: u64 = 0x8000;
const MAP_NONBLOCK: u64 = 0x1_0000;
const MLOCK_ONFAULT: u64 = 1;

/// Events by kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// Page faults.
    pub faults: u64,
    /// mmap, mremap and brk calls that succeeded.
    pub mappings: u64,
    /// munmap and madvise calls that succeeded.
    pub unmappings: u64,
    /// mlock and mlock2 calls that succeeded.
    #[serde(default)]
    pub locks: u64,
    /// mprotect calls that succeeded.
    pub protections: u64,
    /// Threads that exited.
    pub thread_exits: u64,
}

impl Events {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.faults + self.mappings + self.unmappings + self.locks + self.protections + self.thread_exits
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
    fills: Fills,
    holders: PageHolders,
    mappings: RangeMap<u64, Mapping>,
    stacks: Vec<Arc<Unwound>>,
    index_of: HashMap<Arc<Unwound>, u32>,
    events: Events,
    sparsest_fault_weight: u32,
    sparsest_call_weight: u32,
    endings: BTreeMap<Ending, u64>,
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
        let sparsest = match event.what {
            What::Fault { .. } => &mut self.sparsest_fault_weight,
            _ => &mut self.sparsest_call_weight,
        };
        *sparsest = weight.max(*sparsest);
        match event.what {
            What::Fault { addr, access, .. } => {
                self.events.faults += 1;
                self.touch(event.time_ns, addr, Holder { stack, weight }, access);
            }
            What::Map { range, protection, flags } => {
                self.map(event, range, flags, stack);
                let fills = flags & MAP_POPULATE != 0 && flags & MAP_NONBLOCK == 0;
                if fills || flags & MAP_LOCKED != 0 {
                    self.fill(event, range, By::Map, stack, protection & PROT_WRITE != 0);
                }
            }
            What::Lock { range, flags } => {
                self.events.locks += 1;
                if flags & MLOCK_ONFAULT == 0 {
                    self.fill(event, range, By::Lock, stack, true);
                }
            }
            What::Unmap { range } => {
                self.events.unmappings += 1;
                self.forget(event, range);
            }
            What::Remap { from, to } => self.remap(event, from, to, stack),
            What::Break { end_addr } => self.move_break(event, end_addr, stack),
            What::Advise { range, advice } => {
                self.events.unmappings += 1;
                match advice {
                    POPULATE_READ | POPULATE_WRITE => {
                        self.fill(event, range, By::Advice, stack, advice == POPULATE_WRITE);
                    }
                    COLLAPSE => self.fill(event, range, By::Collapse, stack, true),
                    advice if ADVICE_THAT_DROPS.contains(&advice) => self.drop_pages(event, range),
                    _ => {}
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

    /// What filled the page at `addr` without a fault.
    pub fn fill_at(&self, addr: u64) -> Option<&Fill> {
        self.fills.at(addr)
    }

    /// Where the page at `addr` lay before mremap moved it there.
    pub fn origin(&self, addr: u64) -> Option<u64> {
        self.fills.origin(addr)
    }

    /// What mremap moved: where it is, and where it was when the window began.
    pub fn moves(&self) -> impl Iterator<Item = (AddrRange, AddrRange)> + '_ {
        self.fills.moves()
    }

    /// The stack of the call that mapped `addr`, or moved memory there.
    pub fn mapped_by(&self, addr: u64) -> Option<u32> {
        self.mappings.get(&addr)?.stack
    }

    /// Who touched the huge page around `addr` and gave back the part that was touched.
    pub fn split_by(&self, addr: u64) -> Option<Holder> {
        self.holders.split_by(addr)
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

    /// The most faults that one stack stands for.
    pub fn sparsest_fault_weight(&self) -> u32 {
        self.sparsest_fault_weight
    }

    /// The most system calls that one stack stands for.
    pub fn sparsest_call_weight(&self) -> u32 {
        self.sparsest_call_weight
    }

    /// How many sampled stacks ended before the thread's first frame.
    pub fn stacks_truncated(&self) -> u64 {
        self.endings.iter().filter(|(ending, _)| ending.is_early()).map(|(_, count)| count).sum()
    }

    /// How many ended for that reason.
    pub fn stacks_ended(&self, ending: Ending) -> u64 {
        self.endings.get(&ending).copied().unwrap_or(0)
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

    /// How many ranges filled or moved by system calls found no room.
    pub fn fills_refused(&self) -> u64 {
        self.fills.refused()
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
        self.drop_pages(event, range);
        self.insert(event, range, flags, stack);
    }

    /// What was filled is there already, unless it was only read.
    fn touch(&mut self, time_ns: u64, addr: u64, holder: Holder, access: Access) {
        let is_settled = |fill: &Fill| access.present && (fill.writes || !access.write);
        if self.fills.at(addr).is_some_and(is_settled) && !self.holders.is_touched(addr) {
            return;
        }
        let micros = self.touched_micros(time_ns);
        self.holders.touch(addr, micros, holder, access);
    }

    fn fill(&mut self, event: &Event<'_>, range: AddrRange, by: By, stack: Option<u32>, writes: bool) {
        self.fills.fill(range, Fill { by, stack, writes, at_ns: event.time_ns });
    }

    fn drop_pages(&mut self, event: &Event<'_>, range: AddrRange) {
        self.holders.clear(range, self.entered_micros(event.entered_ns));
        self.fills.clear(range, event.entered_ns);
    }

    fn remap(&mut self, event: &Event<'_>, from: Option<AddrRange>, to: AddrRange, stack: Option<u32>) {
        self.events.mappings += 1;
        let Some(from) = from else { return self.insert(event, to, 0, stack) };
        if from.start_addr != to.start_addr {
            let kept = from.len_bytes().min(to.len_bytes());
            self.drop_pages(event, to);
            if let Some(kept) = AddrRange::with_len(from.start_addr, kept) {
                self.holders.rename(kept, to.start_addr);
                self.fills.rename(kept, to.start_addr, event.time_ns);
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
        self.drop_pages(event, range);
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
        *self.endings.entry(unwound.ending).or_default() += 1;
        if let Some(&index) = self.index_of.get(&unwound) {
            return Some(index);
        }
        if self.stacks.len() >= MAX_STACKS {
            self.stacks_refused += 1;
            return None;
        }
        let index = u32::try_from(self.stacks.len()).expect("MAX_STACKS fits");
        let unwound = Arc::new(unwound);
        self.stacks.push(Arc::clone(&unwound));
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

    const NEW: Access = Access { present: false, write: true };

    fn range(start_addr: u64, end_addr: u64) -> AddrRange {
        AddrRange::new(start_addr, end_addr).unwrap()
    }

    fn event(what: What, entered_ns: u64, time_ns: u64) -> Event<'static> {
        Event { what, time_ns, entered_ns, stack_weight: 0, stack: None }
    }

    fn fault(recording: &mut Recording, addr: u64, time_ns: u64) {
        recording.take(&event(What::Fault { addr, by_kernel: false, access: NEW }, time_ns, time_ns), None);
    }

    #[test]
    fn what_was_unmapped_is_forgotten() {
        let mut recording = Recording::new(0, None);
        let mapped = range(0x10_0000, 0x20_0000);
        recording.take(&event(What::Map { range: mapped, protection: 3, flags: 0x22 }, 1_000, 2_000), None);
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
        recording.take(&event(What::Map { range: place, protection: 3, flags: 0x22 }, 6_000, 7_000), None);
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
        let unwound = || Some(Unwound { addrs: vec![1, 2], ending: Ending::Root });
        recording.take(&event(What::Fault { addr: 0x5000, by_kernel: false, access: NEW }, 1, 1), unwound());
        recording.take(&event(What::Fault { addr: 0x6000, by_kernel: false, access: NEW }, 1, 1), unwound());
        assert_eq!(recording.stacks.len(), 1);
        let touch = recording.touched(range(0x6000, 0x7000)).next().unwrap();
        assert_eq!(touch.holder.stack, Some(0));
    }

    #[test]
    fn what_mmap_filled_is_its_own_until_it_is_dropped_and_touched() {
        let mut recording = Recording::new(0, None);
        let place = range(0x10_0000, 0x20_0000);
        let populated = What::Map { range: place, protection: 3, flags: 0x22 | MAP_POPULATE };
        recording.take(&event(populated, 1_000, 2_000), None);
        assert_eq!(recording.fill_at(0x10_0000).map(|fill| fill.by), Some(By::Map));
        let copied = Access { present: true, write: true };
        let what = What::Fault { addr: 0x10_0000, by_kernel: false, access: copied };
        recording.take(&event(what, 3_000, 3_000), None);
        assert_eq!(recording.pages().count(), 0, "it was there, and a fork made it shared");
        let dropped = What::Advise { range: range(0x10_0000, 0x11_0000), advice: 4 };
        recording.take(&event(dropped, 4_000, 5_000), None);
        assert!(recording.fill_at(0x10_0000).is_none() && recording.fill_at(0x11_0000).is_some());
        fault(&mut recording, 0x10_0000, 6_000);
        assert_eq!(recording.pages().count(), 1);
    }
}
