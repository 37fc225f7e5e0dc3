//! A process remembered and then damaged: all that leakprobe's readers read of a real program, with words,
//! pages and pointers changed as a string of bytes says. A live test and a fuzzer (`fuzz/`) share it.
//!
//! The surprise: reading is metered. A reader that is led round in circles by damaged structures ends the
//! test, not the patience of whoever waits for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use leakprobe::runtimes::Runtimes;
use leakprobe::runtimes::go::goroutines::StackPages;
use leakprobe::target::maps::Region;
use leakprobe::target::memory::{Memory, ReadError};
use leakprobe::target::modules::{self, Module};
use leakprobe::target::{Target, Thread};
use leakprobe::{snapshot, snapshot::Snapshot};

const PAGE_BYTES: u64 = 4096;
/// One change, as bytes: what, which page, which word of it, and a value.
const CHANGE_BYTES: usize = 13;
/// What the readers may read of a damaged process, in multiples of the sound one. Each reads again what
/// contradicts itself, some up to sixteen times.
const MOST_TIMES: u64 = 64;

type Page = [u8; PAGE_BYTES as usize];

/// All that was read of a process, which may be gone.
pub struct Image {
    modules: Vec<Module>,
    runtimes: Runtimes,
    regions: Vec<Region>,
    threads: Vec<Thread>,
    pages: BTreeMap<u64, Page>,
    addrs: Vec<u64>,
    /// Bytes that the readers read of the sound process.
    pub sound_bytes: u64,
}

impl Image {
    /// Reads everything of a process that waits, and remembers it.
    pub fn record(pid: u32) -> Result<Self> {
        let target = Target::open(i32::try_from(pid).context("a pid is positive")?)?;
        let (modules, _) = modules::open_all(&target, &target.regions());
        let snapshot: Snapshot = snapshot::take(&target)?.context("the process has ended")?;
        let regions: Vec<Region> = snapshot.usages.iter().map(|usage| usage.region.clone()).collect();
        let recorder = Recorder { target: &target, pages: RefCell::default(), bytes: Cell::new(0) };
        let (runtimes, _) = Runtimes::find(&recorder, &modules);
        let threads = snapshot.threads.clone();
        let image = Self {
            modules,
            runtimes,
            regions,
            threads,
            pages: BTreeMap::new(),
            addrs: vec![],
            sound_bytes: 0,
        };
        image.read_all(&recorder);
        let pages = recorder.pages.into_inner();
        let addrs = pages.keys().copied().collect();
        Ok(Self { pages, addrs, sound_bytes: recorder.bytes.get(), ..image })
    }

    /// How many pages are remembered.
    pub fn pages_count(&self) -> usize {
        self.pages.len()
    }

    /// The process, damaged as `script` says.
    pub fn damaged(&self, script: &[u8]) -> Damaged<'_> {
        let (mood, script) = script.split_first().unwrap_or((&0, &[]));
        let mut damaged = Damaged {
            image: self,
            changed: BTreeMap::new(),
            elsewhere: Elsewhere::of(*mood),
            left_bytes: Cell::new(self.sound_bytes.saturating_mul(MOST_TIMES)),
        };
        for change in script.as_chunks::<CHANGE_BYTES>().0 {
            damaged.change(change);
        }
        damaged
    }

    /// Runs every reader; what they say is of no interest here, only that they say it. Bit 3 of the mood has
    /// the runtimes looked for once more, in the damaged memory.
    pub fn read_all(&self, memory: &dyn Memory) -> usize {
        let read = self.runtimes.read(memory, &self.modules, &self.regions, &self.threads);
        let goroutines =
            self.runtimes.go.first().map(|go| go.goroutines(memory, &[], &StackPages::default(), 1 << 50));
        let ranges = self.runtimes.go.first().map(|go| go.heap_ranges(memory));
        let found = goroutines.is_some_and(|found| found.is_ok()) as usize;
        read.findings.claims.len() + found + ranges.map_or(0, |ranges| ranges.map_or(0, |list| list.len()))
    }

    /// Looks for the runtimes too.
    pub fn find_and_read_all(&self, memory: &dyn Memory) -> usize {
        let (found, gaps) = Runtimes::find(memory, &self.modules);
        let read = found.read(memory, &self.modules, &self.regions, &self.threads);
        gaps.len() + read.findings.claims.len()
    }
}

struct Recorder<'a> {
    target: &'a Target,
    pages: RefCell<BTreeMap<u64, Page>>,
    bytes: Cell<u64>,
}

impl Memory for Recorder<'_> {
    fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.target.read_exact(addr, buf)?;
        self.bytes.set(self.bytes.get() + buf.len() as u64);
        let mut pages = self.pages.borrow_mut();
        let mut page_addr = addr & !(PAGE_BYTES - 1);
        while page_addr < addr.saturating_add(buf.len() as u64) {
            let mut page = [0; PAGE_BYTES as usize];
            self.target.read_exact(page_addr, &mut page)?;
            pages.insert(page_addr, page);
            page_addr += PAGE_BYTES;
        }
        Ok(())
    }
}

/// What there is where nothing was remembered.
#[derive(Clone, Copy)]
enum Elsewhere {
    Nothing,
    Zeros,
    /// Each word is its own address: all lists are circles.
    Circles,
    Noise,
}

impl Elsewhere {
    fn of(mood: u8) -> Self {
        match mood & 3 {
            0 => Self::Nothing,
            1 => Self::Zeros,
            2 => Self::Circles,
            _ => Self::Noise,
        }
    }
}

/// A process that is not what it was.
pub struct Damaged<'a> {
    image: &'a Image,
    /// Changed pages; `None` where a page can no longer be read.
    changed: BTreeMap<u64, Option<Page>>,
    elsewhere: Elsewhere,
    left_bytes: Cell<u64>,
}

impl Damaged<'_> {
    fn change(&mut self, change: &[u8; CHANGE_BYTES]) {
        let [what, page_low, page_high, word_low, word_high, value @ ..] = *change;
        let Some(addr) = self.addr(u16::from_le_bytes([page_low, page_high])) else { return };
        let offset = usize::from(u16::from_le_bytes([word_low, word_high]) % 512) * 8;
        let value = u64::from_le_bytes(value);
        // A page that is somewhere in the image, and a place in it.
        let elsewhere =
            self.addr(u16::from_le_bytes([change[5], change[6]])).unwrap_or(0) + (value >> 48) % 4096;
        let Some(page) = self.changed.entry(addr).or_insert_with(|| self.image.pages.get(&addr).copied())
        else {
            return;
        };
        let Some(word) = page[offset..].first_chunk_mut::<8>() else { return };
        let before = u64::from_le_bytes(*word);
        match what % 8 {
            0 => *word = value.to_le_bytes(),
            1 => *word = elsewhere.to_le_bytes(),
            2 => *word = (value & 0xff).to_le_bytes(),
            3 => *word = before.wrapping_add((value & 0xffff) << 3).to_le_bytes(),
            4 => *word = (addr + offset as u64).to_le_bytes(),
            5 => *word = (before ^ (1 << (value % 64))).to_le_bytes(),
            6 => fill(page, value),
            _ => {
                self.changed.insert(addr, None);
            }
        }
    }

    fn addr(&self, number: u16) -> Option<u64> {
        let count = self.image.addrs.len();
        // The whole of it where there are more pages than numbers.
        let index = usize::from(number) * count.div_ceil(1 << 16).max(1);
        self.image.addrs.get(index % count.max(1)).copied()
    }

    fn page(&self, page_addr: u64) -> Option<Page> {
        if let Some(page) = self.changed.get(&page_addr) {
            return *page;
        }
        if let Some(page) = self.image.pages.get(&page_addr) {
            return Some(*page);
        }
        let mut page = [0; PAGE_BYTES as usize];
        match self.elsewhere {
            Elsewhere::Nothing => return None,
            Elsewhere::Zeros => {}
            Elsewhere::Circles => {
                for (index, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    *word = page_addr.wrapping_add(index as u64 * 8).to_le_bytes();
                }
            }
            Elsewhere::Noise => fill(&mut page, page_addr),
        }
        Some(page)
    }
}

impl Memory for Damaged<'_> {
    fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let error = ReadError { addr, len_bytes: buf.len() };
        let left = self.left_bytes.get().checked_sub(buf.len() as u64 + 64);
        self.left_bytes.set(left.expect("a reader reads and reads: its walk has no bound"));
        let mut addr = addr;
        let mut rest = buf;
        while !rest.is_empty() {
            let offset = (addr % PAGE_BYTES) as usize;
            let page = self.page(addr - offset as u64).ok_or(error)?;
            let len = rest.len().min(page.len() - offset);
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&page[offset..offset + len]);
            rest = later;
            addr = addr.checked_add(len as u64).ok_or(error)?;
        }
        Ok(())
    }
}

/// The same noise for the same seed (xorshift).
pub fn fill(bytes: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
}
