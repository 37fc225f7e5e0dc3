//! One reading of every VMA: what the kernel counts in it, and at once which of its pages are there.
//!
//! The kernel yields /proc/PID/smaps some records at a time, and lets the process map and unmap between them.
//! So the pages are read after some records each, and before the next ones: microseconds later, where nothing comes
//! in between. Something does: whoever waits to unmap gets the lock first when the kernel lets go of it, and
//! sixteen megabytes are gone in between; and a heap grows while it is walked. So where the two figures of a VMA
//! differ, it is looked at again. If it has moved since, it was moving, and its pages decide: RSS and rows
//! then go by the same walk over the page tables. Where it holds still and they differ, the kernel counts
//! something otherwise than we do, and that stays in the residual.
//!
//! The surprise: records may overlap. A VMA that grows or is merged after it was shown is shown again, from its
//! start (Linux `fs/proc/task_mmu.c`, `m_start`); the later record is the one that holds.

use std::collections::HashSet;

use anyhow::Result;

use super::pagemap::{PageRun, Reader, Residency};
use super::smaps::{self, RegionUsage};
use crate::address::AddrRange;
use crate::claim::Gap;
use crate::target::Target;

/// What is let pass: figures and pages differ by less than this part of the RSS.
const TORN_PART: u64 = 500;

/// So many VMAs, or so much resident memory in them, are read before their pages are: one piece at a time would
/// take the address space's lock twice as often as `cat smaps` does, from whoever wants to map.
const BATCH_VMAS: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;

/// Every VMA with its pages, at about one time each.
#[derive(Default)]
pub struct Reading {
    /// By address; no two overlap.
    pub usages: Vec<RegionUsage>,
    /// By address, none across the border of a VMA.
    pub runs: Vec<PageRun>,
    /// Resident bytes among `runs`, of each of `usages`.
    paged_bytes: Vec<u64>,
    /// By how much the kernel's figures were off the pages in VMAs that moved.
    pub moved_bytes: u64,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// Reads all of it once.
///
/// # Errors
/// Where /proc/PID/smaps cannot be read.
pub fn read(target: &Target) -> Result<Reading> {
    let mut reading = Reading::default();
    let mut reader = Reader::new(target.pagemap());
    let mut batch = Vec::new();
    target.smaps_pieces(|piece| {
        let known = batch.len();
        smaps::parse(piece, &mut batch);
        // The last of the batch is shown again: what was to be read of it is read before that.
        let is_shown_again = batch.get(known).zip(batch[..known].last()).is_some_and(
            |(next, last): (&RegionUsage, &RegionUsage)| {
                last.region.range.end_addr > next.region.range.start_addr
            },
        );
        if is_shown_again {
            let rest = batch.split_off(known);
            reading.add(&mut batch, &mut reader);
            batch = rest;
        }
        if batch.len() >= BATCH_VMAS || batch.iter().map(|usage| usage.rss_bytes).sum::<u64>() >= BATCH_BYTES
        {
            reading.add(&mut batch, &mut reader);
        }
    })?;
    reading.add(&mut batch, &mut reader);
    reading.settle(target, &mut reader);
    Ok(reading)
}

impl Reading {
    /// The sum over the VMAs.
    pub fn rss_bytes(&self) -> u64 {
        self.usages.iter().map(|usage| usage.rss_bytes).sum()
    }

    /// By how much pages and figures differ, all VMAs together.
    pub fn torn_bytes(&self) -> u64 {
        self.usages.iter().zip(&self.paged_bytes).map(|(usage, paged)| usage.rss_bytes.abs_diff(*paged)).sum()
    }

    /// Whether they differ by no more than is let pass.
    pub fn is_consistent(&self) -> bool {
        self.torn_bytes() <= self.rss_bytes() / TORN_PART
    }

    /// Adds the VMAs of some pieces, and leaves `records` empty.
    fn add(&mut self, records: &mut Vec<RegionUsage>, reader: &mut Reader<'_>) {
        if let Some(usage) = records.first() {
            self.make_room(usage.region.range.start_addr);
        }
        let first = self.usages.len();
        self.usages.append(records);
        let first_run = self.runs.len();
        reader.read(&self.usages[first..], &mut self.runs, &mut self.gaps);
        let mut runs = &self.runs[first_run..];
        for usage in &self.usages[first..] {
            let inside;
            (inside, runs) =
                runs.split_at(runs.partition_point(|run| run.range.start_addr < usage.region.range.end_addr));
            self.paged_bytes.push(resident_bytes(inside));
        }
    }

    /// Takes back what was read from `addr` on: the VMA there has changed since. Of one that began before, the
    /// part before is left, with the pages it had.
    fn make_room(&mut self, addr: u64) {
        while let Some(last) = self.usages.last_mut().filter(|last| last.region.range.end_addr > addr) {
            self.runs.truncate(self.runs.partition_point(|run| run.range.start_addr < addr));
            if let Some(run) = self.runs.last_mut() {
                run.range.end_addr = run.range.end_addr.min(addr);
            }
            let Some(left) = AddrRange::new(last.region.range.start_addr, addr) else {
                self.usages.pop();
                self.paged_bytes.truncate(self.usages.len());
                continue;
            };
            last.region.range = left;
            let first = self.runs.partition_point(|run| run.range.start_addr < left.start_addr);
            let paged_bytes = resident_bytes(&self.runs[first..]);
            settle_on(last, paged_bytes);
            if let Some(last) = self.paged_bytes.last_mut() {
                *last = paged_bytes;
            }
        }
    }

    /// Looks again at every VMA whose two figures differ. Of one that moves, the pages are its figure.
    fn settle(&mut self, target: &Target, reader: &mut Reader<'_>) {
        if !reader.tells_rss() {
            return;
        }
        let differs = |index: &usize| self.usages[*index].rss_bytes != self.paged_bytes[*index];
        let torn: Vec<usize> = (0..self.usages.len()).filter(differs).collect();
        let (moving, still): (Vec<usize>, Vec<usize>) =
            torn.into_iter().partition(|index| self.has_moved(*index, reader));
        for index in moving {
            self.settle_one(index);
        }
        if self.is_consistent() {
            return;
        }
        // One that is unmapped by now holds still, too.
        let mapped: HashSet<AddrRange> = target.regions().into_iter().map(|region| region.range).collect();
        for index in still {
            if !mapped.contains(&self.usages[index].region.range) {
                self.settle_one(index);
            }
        }
    }

    fn has_moved(&self, index: usize, reader: &mut Reader<'_>) -> bool {
        let usage = &self.usages[index];
        let range = usage.region.range;
        let (mut runs, mut gaps) = (Vec::new(), Vec::new());
        reader.read(std::slice::from_ref(usage), &mut runs, &mut gaps);
        let first = self.runs.partition_point(|run| run.range.start_addr < range.start_addr);
        let before = &self.runs[first..];
        let before = &before[..before.partition_point(|run| run.range.start_addr < range.end_addr)];
        gaps.is_empty() && runs != before
    }

    fn settle_one(&mut self, index: usize) {
        let (usage, paged_bytes) = (&mut self.usages[index], self.paged_bytes[index]);
        self.moved_bytes += usage.rss_bytes.abs_diff(paged_bytes);
        settle_on(usage, paged_bytes);
    }
}

/// Takes the pages for the figure; what it was divided into can be no more than that.
fn settle_on(usage: &mut RegionUsage, paged_bytes: u64) {
    usage.rss_bytes = paged_bytes;
    let parts = [
        &mut usage.anonymous_bytes,
        &mut usage.lazy_free_bytes,
        &mut usage.huge_bytes,
        &mut usage.clean_bytes,
        &mut usage.locked_bytes,
    ];
    for part in parts.into_iter().chain(&mut usage.ksm_bytes) {
        *part = paged_bytes.min(*part);
    }
}

fn resident_bytes(runs: &[PageRun]) -> u64 {
    let resident = runs.iter().filter(|run| run.residency != Residency::Swapped);
    resident.map(|run| run.range.len_bytes()).sum()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// What of pieces of smaps stays, as (first page, last page, Rss in KiB), where no page can be read.
    fn kept(pieces: &[&str]) -> Vec<(u64, u64, u64)> {
        let nowhere = File::open("/dev/null").unwrap();
        let (mut reader, mut reading) = (Reader::new(&nowhere), Reading::default());
        for piece in pieces {
            let mut records = Vec::new();
            smaps::parse(piece.as_bytes(), &mut records);
            reading.add(&mut records, &mut reader);
        }
        assert_eq!(reading.usages.len(), reading.paged_bytes.len());
        let page = |addr| addr / crate::address::PAGE_BYTES;
        let shown = |usage: &RegionUsage| {
            let range = usage.region.range;
            (page(range.start_addr), page(range.end_addr), usage.rss_bytes >> 10)
        };
        reading.usages.iter().map(shown).collect()
    }

    const FIRST: &str = "1000-2000 rw-p 0 00:00 0 \nRss: 4 kB\n2000-9000 rw-p 0 00:00 0 \nRss: 8 kB\n";

    #[test]
    fn a_vma_that_grew_while_the_text_was_written_counts_once() {
        let second = "2000-a000 rw-p 0 00:00 0 \nRss: 12 kB\nb000-c000 rw-p 0 00:00 0 \nRss: 4 kB\n";
        assert_eq!(kept(&[FIRST, second]), [(1, 2, 4), (2, 10, 12), (11, 12, 4)]);
        assert_eq!(kept(&[FIRST, "1000-a000 rw-p 0 00:00 0 \nRss: 12 kB\n"]), [(1, 10, 12)]);
    }

    #[test]
    fn of_a_vma_whose_rest_was_merged_with_the_next_the_first_part_is_left() {
        // None of its pages could be read, so it is left without any.
        let merged = "4000-a000 rw-p 0 00:00 0 \nRss: 12 kB\n";
        assert_eq!(kept(&[FIRST, merged]), [(1, 2, 4), (2, 4, 0), (4, 10, 12)]);
    }

    #[test]
    fn every_run_of_our_own_pages_lies_in_one_vma() {
        let target = Target::open(i32::try_from(std::process::id()).unwrap()).unwrap();
        let Reading { usages, runs, .. } = read(&target).unwrap();
        assert!(usages.is_sorted_by(|a, b| a.region.range.end_addr <= b.region.range.start_addr));
        assert!(runs.is_sorted_by(|a, b| a.range.end_addr <= b.range.start_addr));
        for run in runs {
            let index = usages.partition_point(|usage| usage.region.range.end_addr <= run.range.start_addr);
            assert_eq!(usages[index].region.range.intersection(&run.range), Some(run.range));
        }
    }
}
