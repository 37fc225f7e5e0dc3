//! Growth by call site: each page that is resident at the end and was not at the start, credited to the stack of its
//! last first touch, or to what else made it resident.
//!
//! One fault may map many pages: a huge page, or what lies around it of a file. So the pages are taken by the
//! 2 MiB around them, which no fault reaches beyond. A page that nobody touched is then, in this order: filled by a
//! system call, moved there by mremap, read from swap beside another, or part of what a neighbour's fault mapped.
//! Pages of a thread's stack are whose that mapped it for the thread, where that was seen.
//! The surprise: that a huge page had one touch does not prove that a fault made it; khugepaged makes one of a single
//! page, too. It is believed where the kernel made none otherwise, or no other page of it was there before.

use std::collections::{BTreeMap, HashMap};

use super::ledger::Owners;
use super::sampling::{Population, Sampled};
use crate::address::{AddrRange, HUGE_PAGE_BYTES, PAGE_BYTES};
use crate::claim::Component;
use crate::snapshot::{PageRun, RegionUsage, Residency, Snapshot};
use crate::trace::fills::By;
use crate::trace::holders::Holder;
use crate::trace::recording::Recording;

/// A fault maps up to 16 pages of a file around it, where they are in the page cache already, and since Linux 6.18 the
/// whole of a large folio there (`mm/memory.c`, `fault_around_pages`; `mm/filemap.c`, `filemap_map_pages`). Of
/// anonymous memory it may map a folio of any size.
const SMALLEST_AROUND_BYTES: u64 = 64 << 10;

/// What made a page resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A page fault.
    Fault,
    /// A page fault on a thread's stack that was mapped in the window, which is whose that made the thread.
    NewThread,
    /// A system call that fills memory.
    Fill(By),
    /// khugepaged, which made a huge page of small ones.
    Khugepaged,
    /// The kernel reads from swap what lies beside a page that is needed.
    SwapIn,
    /// It was resident elsewhere, as another component's, and was moved here by mremap.
    Moved,
    /// Nothing that is known: the kernel fills memory for others, too, for a device or for another process.
    Kernel,
}

impl Cause {
    /// As in the JSON; none for the usual one.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Fault | Self::NewThread => None,
            Self::Fill(By::Map | By::Advice) => Some("populate"),
            Self::Fill(By::Lock) => Some("mlock"),
            Self::Fill(By::Collapse) => Some("collapse"),
            Self::Khugepaged => Some("khugepaged"),
            Self::SwapIn => Some("swap_in"),
            Self::Moved => Some("mremap"),
            Self::Kernel => Some("kernel"),
        }
    }

    /// For a person; none for the usual one.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Fault | Self::NewThread => None,
            Self::Fill(By::Map) => Some("filled by mmap at once"),
            Self::Fill(By::Advice) => Some("filled by madvise at once"),
            Self::Fill(By::Lock) => Some("filled by mlock at once"),
            Self::Fill(By::Collapse) => Some("filled by MADV_COLLAPSE, for a huge page"),
            Self::Khugepaged => Some("filled by khugepaged, for a huge page"),
            Self::SwapIn => Some("read from swap beside what was needed"),
            Self::Moved => Some("moved here by mremap, and was resident before"),
            Self::Kernel => Some("became resident without a page fault of its own"),
        }
    }
}

/// A call site before its addresses have names.
#[derive(Clone, Debug, PartialEq)]
pub struct RawCallSite {
    /// Whose bytes.
    pub component: Component,
    /// What made them resident.
    pub cause: Cause,
    /// Index of the stack in the recording; `None` for growth without a stack.
    pub stack: Option<u32>,
    /// Bytes, scaled up to all of the component's touched pages where stacks were sampled.
    pub bytes: u64,
    /// Of `bytes`, lazily freed since.
    pub lazy_free_bytes: u64,
    /// Faults with this stack that made memory resident that still is.
    pub faults: u64,
    /// Mean number of faults each of them stands for.
    pub weight: f64,
    /// What the faults with this stack say of all of the component's; empty where `bytes` are exact.
    pub sampled: Sampled,
    /// Why there is no stack.
    pub note: Option<&'static str>,
}

/// All call sites, largest first, and the faults that they are samples of.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// The rows.
    pub rows: Vec<RawCallSite>,
    /// Faults by component.
    pub faults: BTreeMap<Component, Population>,
}

/// The two moments, and what was seen between them.
pub struct Growth<'a> {
    /// Resident before.
    pub start: &'a Snapshot,
    /// Who owned it then.
    pub start_owners: &'a Owners,
    /// Resident now.
    pub end: &'a Snapshot,
    /// Who owns it.
    pub owners: &'a Owners,
    /// What was seen.
    pub recording: &'a Recording,
}

/// Pages of one owner and one cause, so far.
#[derive(Clone, Copy, Default)]
struct Pages {
    bytes: u64,
    lazy_free_bytes: u64,
}

impl Pages {
    fn add(&mut self, residency: Residency) {
        self.bytes += PAGE_BYTES;
        if residency == Residency::ResidentLazyFree {
            self.lazy_free_bytes += PAGE_BYTES;
        }
    }
}

/// Whom a page is credited to.
enum Credit {
    /// A touch in the window, by its index there.
    Touch(usize),
    /// Who touched it, and gave back only the page that was touched.
    Split(Holder),
    /// Something else, and the stack behind it.
    Other(Cause, Option<u32>),
    /// It was there before, elsewhere.
    NotGained,
}

/// The 2 MiB around the pages that are looked at, as far as they are one VMA's.
struct Window<'a> {
    range: AddrRange,
    usage: Option<&'a RegionUsage>,
    touched: Vec<(u64, Holder)>,
    /// What each touch made resident.
    pages: BTreeMap<(usize, Component), Pages>,
    /// What the touch made resident that was forgotten with its own page: one fault, however many pages.
    split: BTreeMap<Component, (Holder, Pages)>,
}

/// What the faults with one stack say.
#[derive(Default)]
struct Tally {
    faults: u64,
    weights: u64,
    sampled: Sampled,
    lazy_free: Sampled,
}

#[derive(Default)]
struct Tallies {
    by_stack: HashMap<(Component, u32), Tally>,
    others: HashMap<(Component, Cause, Option<u32>), Pages>,
    faults: BTreeMap<Component, Population>,
}

impl Growth<'_> {
    /// Credits `gained` pages to call sites.
    pub fn call_sites(&self, gained: &[PageRun]) -> Sites {
        let mut tallies = Tallies::default();
        let mut window: Option<Window<'_>> = None;
        for run in gained {
            for piece in huge_pages_of(run.range) {
                if window.as_ref().is_none_or(|window| !window.range.contains(piece.start_addr)) {
                    tallies.take(window.replace(self.window_around(piece.start_addr)));
                }
                let Some(window) = &mut window else { continue };
                for (part, owner) in self.owners.within(piece) {
                    for addr in (part.start_addr..part.end_addr).step_by(PAGE_BYTES as usize) {
                        self.credit(window, &mut tallies, addr, run.residency, owner.component);
                    }
                }
            }
        }
        tallies.take(window);
        tallies.rows()
    }

    fn window_around(&self, addr: u64) -> Window<'_> {
        let start_addr = addr & !(HUGE_PAGE_BYTES - 1);
        let around = AddrRange { start_addr, end_addr: start_addr.saturating_add(HUGE_PAGE_BYTES) };
        let usages = &self.end.usages;
        let index = usages.partition_point(|usage| usage.region.range.end_addr <= addr);
        let usage = usages.get(index).filter(|usage| usage.region.range.contains(addr));
        let range = usage.and_then(|usage| usage.region.range.intersection(&around)).unwrap_or(around);
        let touched = self.recording.touched(range).map(|touch| (touch.addr, touch.holder)).collect();
        Window { range, usage, touched, pages: BTreeMap::new(), split: BTreeMap::new() }
    }

    fn credit(
        &self,
        window: &mut Window<'_>,
        tallies: &mut Tallies,
        addr: u64,
        residency: Residency,
        component: Component,
    ) {
        match self.creditor(window, addr, residency, component) {
            Credit::Touch(index) => window.pages.entry((index, component)).or_default().add(residency),
            Credit::Split(holder) => {
                window.split.entry(component).or_insert((holder, Pages::default())).1.add(residency);
            }
            Credit::Other(cause, stack) => {
                tallies.others.entry((component, cause, stack)).or_default().add(residency);
            }
            Credit::NotGained => {}
        }
    }

    fn creditor(&self, window: &Window<'_>, addr: u64, residency: Residency, component: Component) -> Credit {
        // Whatever a thread does on its stack, it has the stack because somebody made the thread.
        let creator =
            (component == Component::ThreadStacks).then(|| self.recording.mapped_by(addr)).flatten();
        if creator.is_some() {
            return Credit::Other(Cause::NewThread, creator);
        }
        if let Ok(index) = window.touched.binary_search_by_key(&addr, |(touched_addr, _)| *touched_addr) {
            return Credit::Touch(index);
        }
        if let Some(fill) = self.recording.fill_at(addr) {
            return Credit::Other(Cause::Fill(fill.by), fill.stack);
        }
        let origin = self.recording.origin(addr);
        let before = self.residency_before(origin.unwrap_or(addr));
        match (origin, before) {
            (_, Some(Residency::Swapped)) => return Credit::Other(Cause::SwapIn, None),
            (Some(origin), Some(_)) if self.start_owners.at(origin).component == component => {
                return Credit::NotGained;
            }
            (Some(_), Some(_)) => return Credit::Other(Cause::Moved, self.recording.mapped_by(addr)),
            _ => {}
        }
        if residency == Residency::ResidentHuge {
            return self.creditor_of_huge(window, addr);
        }
        let is_small = |usage: &RegionUsage| usage.region.is_private_anonymous() && !usage.huge_eligible;
        if window.usage.is_none_or(is_small) {
            return Credit::Other(Cause::Kernel, None);
        }
        let mut sizes = std::iter::successors(Some(SMALLEST_AROUND_BYTES), |size| Some(size * 2))
            .take_while(|size| *size <= HUGE_PAGE_BYTES);
        let touch = sizes.find_map(|size| nearest(&window.touched, addr, size));
        touch.map_or_else(|| self.split_or_unknown(addr), Credit::Touch)
    }

    fn creditor_of_huge(&self, window: &Window<'_>, addr: u64) -> Credit {
        let may_be_collapsed = match (self.start.huge_pages_collapsed, self.end.huge_pages_collapsed) {
            (Some(before), Some(now)) => now != before,
            _ => true,
        };
        match window.touched.as_slice() {
            [] if may_be_collapsed => Credit::Other(Cause::Khugepaged, None),
            [] => self.split_or_unknown(addr),
            [_] if may_be_collapsed && self.start.resident_bytes_in(window.range) > 0 => {
                Credit::Other(Cause::Khugepaged, None)
            }
            [_, _, ..] if may_be_collapsed => Credit::Other(Cause::Khugepaged, None),
            touched => nearest(touched, addr, HUGE_PAGE_BYTES)
                .map_or(Credit::Other(Cause::Kernel, None), Credit::Touch),
        }
    }

    fn split_or_unknown(&self, addr: u64) -> Credit {
        let holder = self.recording.split_by(addr);
        holder.map_or(Credit::Other(Cause::Kernel, None), Credit::Split)
    }

    fn residency_before(&self, addr: u64) -> Option<Residency> {
        let runs = &self.start.runs;
        let run = runs.get(runs.partition_point(|run| run.range.end_addr <= addr))?;
        run.range.contains(addr).then_some(run.residency)
    }
}

impl Tallies {
    /// Takes in what the touches of a window made resident.
    fn take(&mut self, window: Option<Window<'_>>) {
        let Some(window) = window else { return };
        for ((index, component), pages) in window.pages {
            self.add_fault(component, window.touched[index].1, pages);
        }
        for (component, (holder, pages)) in window.split {
            self.add_fault(component, holder, pages);
        }
    }

    fn add_fault(&mut self, component: Component, Holder { stack, weight }: Holder, pages: Pages) {
        let all = self.faults.entry(component).or_default();
        all.bytes += pages.bytes;
        let Some(stack) = stack else { return };
        all.sampled.add(weight, pages.bytes);
        let tally = self.by_stack.entry((component, stack)).or_default();
        tally.faults += 1;
        tally.weights += u64::from(weight);
        tally.sampled.add(weight, pages.bytes);
        tally.lazy_free.add(weight, pages.lazy_free_bytes);
    }

    fn rows(self) -> Sites {
        let mut rows = Vec::new();
        for ((component, stack), tally) in self.by_stack {
            let all = &self.faults[&component];
            let bytes = all.bytes_of(&tally.sampled);
            rows.push(RawCallSite {
                stack: Some(stack),
                bytes,
                lazy_free_bytes: all.bytes_of(&tally.lazy_free).min(bytes),
                faults: tally.faults,
                weight: tally.weights as f64 / tally.faults as f64,
                sampled: tally.sampled,
                ..without_stack(component, Cause::Fault, None)
            });
        }
        for ((component, cause, stack), pages) in self.others {
            let Pages { bytes, lazy_free_bytes } = pages;
            rows.push(RawCallSite {
                stack,
                bytes,
                lazy_free_bytes,
                ..without_stack(component, cause, cause.note())
            });
        }
        for (component, all) in &self.faults {
            if all.sampled.is_empty() {
                let note = Some("no stack was sampled");
                rows.push(RawCallSite { bytes: all.bytes, ..without_stack(*component, Cause::Fault, note) });
            }
        }
        rows.sort_by(|a, b| {
            let place = |row: &RawCallSite| (row.component, row.cause, row.stack);
            b.bytes.cmp(&a.bytes).then_with(|| place(a).cmp(&place(b)))
        });
        Sites { rows, faults: self.faults }
    }
}

fn without_stack(component: Component, cause: Cause, note: Option<&'static str>) -> RawCallSite {
    RawCallSite {
        component,
        cause,
        stack: None,
        bytes: 0,
        lazy_free_bytes: 0,
        faults: 0,
        weight: 0.0,
        sampled: Sampled::default(),
        note,
    }
}

/// The pieces of `range` that lie in one huge page each.
fn huge_pages_of(range: AddrRange) -> impl Iterator<Item = AddrRange> {
    let first_addr = range.start_addr & !(HUGE_PAGE_BYTES - 1);
    let starts = (first_addr..range.end_addr).step_by(HUGE_PAGE_BYTES as usize);
    starts.filter_map(move |start_addr| {
        AddrRange { start_addr, end_addr: start_addr.saturating_add(HUGE_PAGE_BYTES) }.intersection(&range)
    })
}

/// Of the touches in the aligned `len_bytes` around `addr`, the nearest one's index.
fn nearest(touched: &[(u64, Holder)], addr: u64, len_bytes: u64) -> Option<usize> {
    let is_near = |touched_addr: u64| touched_addr & !(len_bytes - 1) == addr & !(len_bytes - 1);
    let after = touched.partition_point(|(touched_addr, _)| *touched_addr < addr);
    let neighbours = [after.checked_sub(1), Some(after)].into_iter().flatten();
    let near = neighbours.filter(|index| touched.get(*index).is_some_and(|(at, _)| is_near(*at)));
    near.min_by_key(|index| touched[*index].0.abs_diff(addr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{Claim, Evidence};
    use crate::target::maps::Region;
    use crate::trace::decode::{Access, Event, What};
    use crate::trace::recording::{Ending, Unwound};

    const HERE: u64 = 0x7000_0000_0000;

    fn pages(first: u64, last: u64) -> AddrRange {
        AddrRange::new(HERE + first * PAGE_BYTES, HERE + last * PAGE_BYTES).unwrap()
    }

    fn fault(recording: &mut Recording, page: u64, stack_addr: u64) {
        let access = Access { present: false, write: true };
        call(recording, What::Fault { addr: HERE + page * PAGE_BYTES, by_kernel: false, access }, stack_addr);
    }

    fn call(recording: &mut Recording, what: What, stack_addr: u64) {
        let event = Event { what, time_ns: 9, entered_ns: 8, stack_weight: 1, stack: None };
        recording.take(&event, Some(Unwound { addrs: vec![stack_addr], ending: Ending::Root }));
    }

    fn snapshot(range: AddrRange, inode: u64, resident: &[(AddrRange, Residency)]) -> Snapshot {
        let region = Region {
            range,
            readable: true,
            writable: true,
            executable: false,
            shared: false,
            file_offset: 0,
            device: (0, 0),
            inode,
            name: String::new(),
        };
        let usage = RegionUsage { huge_eligible: true, ..RegionUsage::new(region) };
        let runs = resident.iter().map(|&(range, residency)| PageRun { range, residency }).collect();
        let collapsed = Some(0);
        Snapshot { usages: vec![usage], runs, huge_pages_collapsed: collapsed, ..Snapshot::default() }
    }

    /// Rows as (cause, code address of the stack, pages).
    fn rows(start: &Snapshot, end: &Snapshot, recording: &Recording) -> Vec<(Cause, Option<u64>, u64)> {
        let owners = Owners::weigh(&[]);
        let growth = Growth { start, start_owners: &owners, end, owners: &owners, recording };
        let gained = super::super::growth::new_pages(&start.runs, &end.runs);
        let row = |row: &RawCallSite| {
            let addr = row.stack.map(|stack| recording.stack(stack).addrs[0]);
            (row.cause, addr, row.bytes / PAGE_BYTES)
        };
        growth.call_sites(&gained).rows.iter().map(row).collect()
    }

    #[test]
    fn a_huge_page_is_all_its_touchers_and_a_collapsed_one_is_not() {
        let all = pages(0, 512);
        let mut recording = Recording::new(0, None);
        fault(&mut recording, 7, 1);
        let start = snapshot(all, 0, &[]);
        let mut end = snapshot(all, 0, &[(all, Residency::ResidentHuge)]);
        assert_eq!(rows(&start, &end, &recording), [(Cause::Fault, Some(1), 512)]);
        fault(&mut recording, 200, 2);
        end.huge_pages_collapsed = Some(1);
        let collapsed =
            [(Cause::Khugepaged, None, 510), (Cause::Fault, Some(1), 1), (Cause::Fault, Some(2), 1)];
        assert_eq!(rows(&start, &end, &recording), collapsed);
    }

    #[test]
    fn a_huge_page_that_was_split_stays_who_touched_it() {
        let all = pages(0, 512);
        let mut recording = Recording::new(0, None);
        fault(&mut recording, 7, 1);
        let what = What::Unmap { range: pages(0, 16) };
        let later = Event { what, time_ns: 9_000, entered_ns: 8_000, stack_weight: 0, stack: None };
        recording.take(&later, None);
        let end = snapshot(pages(16, 512), 0, &[(pages(16, 512), Residency::Resident)]);
        let start = snapshot(all, 0, &[]);
        assert_eq!(rows(&start, &end, &recording), [(Cause::Fault, Some(1), 496)]);
        let owners = Owners::weigh(&[]);
        let growth = Growth {
            start: &start,
            start_owners: &owners,
            end: &end,
            owners: &owners,
            recording: &recording,
        };
        let sites = growth.call_sites(&super::super::growth::new_pages(&start.runs, &end.runs));
        assert_eq!(sites.rows[0].faults, 1);
    }

    #[test]
    fn what_is_mapped_around_a_fault_on_a_file_is_who_made_the_fault() {
        let all = pages(0, 64);
        let mut recording = Recording::new(0, None);
        fault(&mut recording, 3, 1);
        let end = snapshot(all, 77, &[(pages(0, 20), Residency::Resident)]);
        assert_eq!(rows(&snapshot(all, 77, &[]), &end, &recording), [(Cause::Fault, Some(1), 20)]);
    }

    #[test]
    fn small_anonymous_pages_have_no_neighbours_where_none_can_be_huge() {
        let all = pages(0, 64);
        let mut recording = Recording::new(0, None);
        fault(&mut recording, 3, 1);
        let mut end = snapshot(all, 0, &[(pages(3, 5), Residency::Resident)]);
        end.usages[0].huge_eligible = false;
        let expected = [(Cause::Fault, Some(1), 1), (Cause::Kernel, None, 1)];
        assert_eq!(rows(&snapshot(all, 0, &[]), &end, &recording), expected);
    }

    #[test]
    fn a_threads_stack_is_who_made_the_thread_where_that_was_seen() {
        let mut recording = Recording::new(0, None);
        call(&mut recording, What::Map { range: pages(0, 8), protection: 3, flags: 0x20022 }, 1);
        for page in [7, 6, 15] {
            fault(&mut recording, page, 2);
        }
        let stacks = [pages(0, 8), pages(8, 16)].map(|range| {
            let (component, evidence) = (Component::ThreadStacks, Evidence::Structure);
            Claim { range, component, evidence }
        });
        let owners = Owners::weigh(&stacks);
        let resident = [(pages(6, 8), Residency::Resident), (pages(15, 16), Residency::Resident)];
        let (start, end) = (snapshot(pages(0, 16), 0, &[]), snapshot(pages(0, 16), 0, &resident));
        let growth = Growth {
            start: &start,
            start_owners: &owners,
            end: &end,
            owners: &owners,
            recording: &recording,
        };
        let gained = super::super::growth::new_pages(&start.runs, &end.runs);
        let rows = growth.call_sites(&gained).rows;
        let told: Vec<_> = rows.iter().map(|row| (row.cause, row.stack, row.bytes / PAGE_BYTES)).collect();
        assert_eq!(told, [(Cause::NewThread, Some(0), 2), (Cause::Fault, Some(1), 1)]);
    }

    #[test]
    fn what_a_call_filled_is_the_calls() {
        let all = pages(0, 64);
        let mut recording = Recording::new(0, None);
        call(&mut recording, What::Map { range: pages(0, 32), protection: 3, flags: 0x8022 }, 1);
        call(&mut recording, What::Advise { range: pages(32, 48), advice: 23 }, 2);
        call(&mut recording, What::Lock { range: pages(48, 56), flags: 0 }, 3);
        let end = snapshot(all, 0, &[(all, Residency::Resident)]);
        let filled = |by, addr, count| (Cause::Fill(by), Some(addr), count);
        let mut end = end;
        end.usages[0].huge_eligible = false;
        assert_eq!(
            rows(&snapshot(all, 0, &[]), &end, &recording),
            [
                filled(By::Map, 1, 32),
                filled(By::Advice, 2, 16),
                filled(By::Lock, 3, 8),
                (Cause::Kernel, None, 8)
            ]
        );
    }

    #[test]
    fn what_was_moved_has_not_grown_and_what_was_in_swap_has() {
        let mut recording = Recording::new(0, None);
        let what = What::Remap { from: Some(pages(0, 8)), to: pages(600, 610) };
        call(&mut recording, what, 1);
        let start = snapshot(
            pages(0, 8),
            0,
            &[(pages(0, 6), Residency::Resident), (pages(6, 8), Residency::Swapped)],
        );
        let mut end = snapshot(pages(600, 610), 0, &[(pages(600, 609), Residency::Resident)]);
        end.usages[0].huge_eligible = false;
        let expected = [(Cause::SwapIn, None, 2), (Cause::Kernel, None, 1)];
        assert_eq!(rows(&start, &end, &recording), expected);
        let claims = |component| {
            let evidence = Evidence::Structure;
            [Claim { range: pages(600, 610), component, evidence }]
        };
        let owners = Owners::weigh(&claims(Component::CHeapInUse));
        let growth = Growth {
            start: &start,
            start_owners: &Owners::default(),
            end: &end,
            owners: &owners,
            recording: &recording,
        };
        let gained = super::super::growth::new_pages(&start.runs, &end.runs);
        let moved = growth.call_sites(&gained).rows.into_iter().find(|row| row.cause == Cause::Moved);
        let moved = moved.map(|row| (row.bytes, row.stack));
        assert_eq!(moved, Some((6 * PAGE_BYTES, Some(0))), "to another owner, it is that one's growth");
    }

    #[test]
    fn freed_pages_are_still_there_and_said_to_be_free() {
        let all = pages(0, 4);
        let mut recording = Recording::new(0, None);
        for page in 0..4 {
            fault(&mut recording, page, 1);
        }
        let resident = [(pages(0, 1), Residency::Resident), (pages(1, 4), Residency::ResidentLazyFree)];
        let end = snapshot(all, 0, &resident);
        let (start, owners) = (snapshot(all, 0, &[]), Owners::default());
        let growth = Growth {
            start: &start,
            start_owners: &owners,
            end: &end,
            owners: &owners,
            recording: &recording,
        };
        let gained = super::super::growth::new_pages(&start.runs, &end.runs);
        let sites = growth.call_sites(&gained);
        let bytes: Vec<_> = sites.rows.iter().map(|row| (row.bytes, row.lazy_free_bytes)).collect();
        assert_eq!(bytes, [(4 * PAGE_BYTES, 3 * PAGE_BYTES)]);
        assert_eq!(sites.rows[0].faults, 4);
    }
}
