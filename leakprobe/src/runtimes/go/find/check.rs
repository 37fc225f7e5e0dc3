//! Whether a variable that the code seems to name looks like itself in the process.
//!
//! The code of a version not seen yet may name something else in that place, so nothing found there is
//! believed before its content was. Refuses what cannot be read. The surprise: two of the variables are single
//! numbers, of which only the range can be checked.

use anyhow::{Context as _, Result, ensure};

use super::super::collector;
use super::super::heap::{Slice, read_list, read_words};
use super::super::layout::{GoroutineLayout, Layout};
use super::Global;
use crate::address::PAGE_BYTES;
use crate::target::memory::Memory;

/// No process has memory beyond.
const MAX_ADDR: u64 = 1 << 56;
/// Elements looked at of a list.
const SAMPLE: u64 = 16;
/// More processors, goroutines or states no program has.
const MAX_PROCESSORS: u64 = 1 << 16;
const MAX_GOROUTINES: u64 = 50_000_000;
const MAX_RANDOM_STATES: u64 = 1 << 16;
/// A stack grows to 1 GiB (Go `src/runtime/proc.go`, `maxstacksize`), or is a thread's.
const MAX_STACK_BYTES: u64 = 16 << 30;
/// `mProfCycleWrap` (Go `src/runtime/mprof.go`).
const PROFILE_CYCLES: u32 = 3 * (2 << 24);
/// The first two of `waitReasonStrings` (Go `src/runtime/runtime2.go`, 1.19 to 1.27): none, and this one.
const SECOND_WAIT_REASON: &[u8] = b"GC assist marking";
/// `memProfile`, the type of a bucket, and where a bucket holds it.
const MEMORY_BUCKET: u64 = 1;
const BUCKET_TYPE_OFFSET: u64 = 16;
/// How often what may be changing is read.
const MAX_ATTEMPTS: usize = 4;

/// A process, as far as it was found.
pub struct Reader<'a> {
    pub memory: &'a dyn Memory,
    pub layout: &'a Layout,
    pub goroutine_layout: &'a GoroutineLayout,
    pub mheap_addr: u64,
}

impl Reader<'_> {
    /// Checks what is at `addr`.
    ///
    /// # Errors
    /// Says what is there instead.
    pub fn check(&self, global: Global, addr: u64) -> Result<()> {
        let mut result = self.check_once(global, addr);
        for _ in 1..MAX_ATTEMPTS {
            if result.is_ok() {
                break;
            }
            result = self.check_once(global, addr);
        }
        result
    }

    fn check_once(&self, global: Global, addr: u64) -> Result<()> {
        ensure!(addr.is_multiple_of(if global == Global::MemProfileCycle { 4 } else { 8 }), "unaligned");
        match global {
            Global::Mheap => ensure!(addr == self.mheap_addr, "another heap"),
            Global::Memstats => self.memstats(addr)?,
            Global::PersistentChunks => self.page_list(addr, 0)?,
            Global::GcBitsArenas => {
                // The lists free, next, current and previous, behind a lock; each links at its second word.
                (8..=32).step_by(8).try_for_each(|offset| self.page_list(addr.wrapping_add(offset), 8))?;
            }
            Global::Allp => self.processors(addr)?,
            Global::Allgs => self.goroutines(addr)?,
            Global::Allm => self.threads(addr)?,
            Global::Work => self.work(addr)?,
            Global::Buckhash => self.page(addr)?,
            Global::Mbuckets => self.buckets(addr)?,
            Global::MemProfileCycle => {
                ensure!(self.memory.read_u32(addr)? >> 1 < PROFILE_CYCLES, "no cycle of the profile");
            }
            Global::MemProfileRate => {
                ensure!(self.memory.read_u64(addr)? < 1 << 48, "no rate");
            }
            Global::VgetrandomAlloc => self.random_states(addr)?,
            Global::WaitReasonStrings => self.wait_reasons(addr)?,
            Global::GcController => {
                collector::read_at(self.memory, addr)?;
            }
        }
        Ok(())
    }

    /// The heap's allocator of spans counts in `memstats.mspan_sys`.
    fn memstats(&self, addr: u64) -> Result<()> {
        let stat_offset = self.layout.spanalloc_offset + self.layout.fixalloc_stat_offset;
        let counter_addr = self.memory.read_u64(self.mheap_addr.wrapping_add(stat_offset))?;
        let expected_addr = addr.wrapping_add(self.layout.stats_mspan_sys_offset);
        ensure!(counter_addr == expected_addr, "spans are counted at {counter_addr:#x}");
        Ok(())
    }

    /// A pointer to whole pages, or none.
    fn page(&self, addr: u64) -> Result<()> {
        let page_addr = self.memory.read_u64(addr)?;
        ensure!(page_addr.is_multiple_of(PAGE_BYTES) && page_addr < MAX_ADDR, "{page_addr:#x} is no page");
        if page_addr != 0 {
            self.memory.read_u64(page_addr)?;
        }
        Ok(())
    }

    /// The head of a list of whole pages; each holds the next one's address at `next_offset`.
    fn page_list(&self, head_addr: u64, next_offset: u64) -> Result<()> {
        let mut place_addr = head_addr;
        for _ in 0..SAMPLE {
            self.page(place_addr)?;
            let page_addr = self.memory.read_u64(place_addr)?;
            if page_addr == 0 {
                break;
            }
            place_addr = page_addr.wrapping_add(next_offset);
        }
        Ok(())
    }

    /// `allp`: each `p` holds its number.
    fn processors(&self, addr: u64) -> Result<()> {
        let list = self.list(addr, MAX_PROCESSORS)?;
        for (number, processor_addr) in (0_u32..).zip(list) {
            let number_addr = processor_addr.wrapping_add(self.layout.processor_id_offset);
            ensure!(self.memory.read_u32(number_addr)? == number, "no processor {number}");
        }
        Ok(())
    }

    /// `allgs`: each `g` holds the bounds of its stack, where it has one.
    fn goroutines(&self, addr: u64) -> Result<()> {
        self.list(addr, MAX_GOROUTINES)?.into_iter().try_for_each(|g_addr| self.goroutine(g_addr))
    }

    fn goroutine(&self, g_addr: u64) -> Result<()> {
        let [low_addr, high_addr] =
            read_words(self.memory, g_addr.wrapping_add(self.goroutine_layout.stack_offset as u64))?;
        let len_bytes = high_addr.checked_sub(low_addr).context("a stack that ends before it starts")?;
        ensure!(len_bytes <= MAX_STACK_BYTES && high_addr < MAX_ADDR, "a stack of {len_bytes} bytes");
        ensure!(len_bytes > 0 || low_addr == 0, "a stack of nothing at {low_addr:#x}");
        Ok(())
    }

    /// `allm`: the goroutine of a thread's own stack points back at the thread.
    fn threads(&self, addr: u64) -> Result<()> {
        let thread_addr = self.memory.read_u64(addr)?;
        let g0_addr = self.memory.read_u64(thread_addr.wrapping_add(self.layout.thread_g0_offset))?;
        let thread_offset = self.goroutine_layout.thread_offset as u64;
        let owner_addr = self.memory.read_u64(g0_addr.wrapping_add(thread_offset))?;
        ensure!(owner_addr == thread_addr, "a thread whose goroutine belongs to another");
        Ok(())
    }

    /// `work.wbufSpans`: the first span of each of its two lists says which list it is on.
    fn work(&self, addr: u64) -> Result<()> {
        for list_offset in [8, 24] {
            let list_addr = addr.wrapping_add(self.layout.work_buffers_offset + list_offset);
            let [first_addr, last_addr] = read_words(self.memory, list_addr)?;
            ensure!((first_addr == 0) == (last_addr == 0), "a list with one end");
            if first_addr != 0 {
                let place_addr = first_addr.wrapping_add(self.layout.span_list_offset as u64);
                let owner_addr = self.memory.read_u64(place_addr)?;
                ensure!(owner_addr == list_addr, "a span of another list");
            }
        }
        Ok(())
    }

    /// `mbuckets`: the newest bucket of the heap profile, if there is any.
    fn buckets(&self, addr: u64) -> Result<()> {
        let bucket_addr = self.memory.read_u64(addr)?;
        if bucket_addr != 0 {
            let kind = self.memory.read_u64(bucket_addr.wrapping_add(BUCKET_TYPE_OFFSET))?;
            ensure!(kind == MEMORY_BUCKET, "a bucket of type {kind}");
        }
        Ok(())
    }

    /// `vgetrandomAlloc`: free states, a lock, the size of a state.
    fn random_states(&self, addr: u64) -> Result<()> {
        let [data_addr, len, capacity, _, state_bytes] = read_words(self.memory, addr)?;
        ensure!(len <= capacity && capacity <= MAX_RANDOM_STATES, "{len} of {capacity} states");
        ensure!(data_addr != 0 || capacity == 0, "states nowhere");
        ensure!(state_bytes <= PAGE_BYTES, "states of {state_bytes} bytes");
        Ok(())
    }

    /// `waitReasonStrings`: strings, the first one empty.
    fn wait_reasons(&self, addr: u64) -> Result<()> {
        let [_, first_bytes, text_addr, second_bytes] = read_words(self.memory, addr)?;
        ensure!((first_bytes, second_bytes) == (0, SECOND_WAIT_REASON.len() as u64), "other texts");
        let text = self.memory.read_vec(text_addr, SECOND_WAIT_REASON.len())?;
        ensure!(text == SECOND_WAIT_REASON, "another text");
        Ok(())
    }

    /// The first elements of a slice that is not empty.
    fn list(&self, addr: u64, max_len: u64) -> Result<Vec<u64>> {
        let slice = Slice::read(self.memory, addr)?;
        ensure!((1..=max_len).contains(&slice.len), "a list of {}", slice.len);
        read_list(self.memory, slice.data_addr, slice.len.min(SAMPLE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::image::Arch;
    use super::*;
    use crate::target::memory::canned::Pieces;

    const ADDR: u64 = 0x50_0000;
    const LIST_ADDR: u64 = 0x7f00_0000_0000;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn check(global: Global, pieces: Vec<(u64, Vec<u8>)>) -> Result<()> {
        let layout = Layout::for_version(27, Arch::Amd64).unwrap();
        let goroutine_layout = GoroutineLayout::for_version(27, Arch::Amd64).unwrap();
        let memory = Pieces(pieces);
        let reader = Reader {
            memory: &memory,
            layout: &layout,
            goroutine_layout: &goroutine_layout,
            mheap_addr: ADDR,
        };
        reader.check(global, ADDR)
    }

    #[test]
    fn goroutines_have_stacks() {
        let list = |stack: [u64; 2]| {
            let slice = (ADDR, bytes(&[LIST_ADDR, 1, 4]));
            check(
                Global::Allgs,
                vec![slice, (LIST_ADDR, bytes(&[LIST_ADDR + 64])), (LIST_ADDR + 64, bytes(&stack))],
            )
        };
        assert!(list([0xc0_0000_0000, 0xc0_0000_0800]).is_ok());
        assert!(list([0, 0]).is_ok(), "one that has ended");
        assert!(list([0xc0_0000_0800, 0xc0_0000_0000]).is_err());
        assert!(list([0, u64::MAX]).is_err());
        assert!(check(Global::Allgs, vec![(ADDR, bytes(&[0, 0, 0]))]).is_err(), "a lock, or nothing");
    }

    #[test]
    fn lists_of_pages_are_of_pages() {
        let list = |head: u64| {
            check(Global::PersistentChunks, vec![(ADDR, bytes(&[head])), (LIST_ADDR, bytes(&[0]))])
        };
        assert!(list(LIST_ADDR).is_ok());
        assert!(list(0).is_ok());
        assert!(list(LIST_ADDR + 8).is_err());
        assert!(list(LIST_ADDR + PAGE_BYTES).is_err(), "not mapped");
    }

    proptest! {
        #[test]
        fn garbage_never_panics(words: [u64; 32], list in proptest::collection::vec(any::<u64>(), 1..64)) {
            for global in Global::ALL {
                let mut words = words;
                words[0] = LIST_ADDR;
                words[1] %= 64;
                let _ = check(global, vec![(ADDR, bytes(&words)), (LIST_ADDR, bytes(&list))]);
            }
        }
    }
}
