//! Whether a layout fits the structures of a process, beyond what [`super::super::find`] asks of its heap.
//!
//! Refuses a layout by which threads are not the threads of their own goroutines, goroutines do not start at functions,
//! or buckets of the heap profile overlap. The surprise: a wrong offset of the link between threads often reads as zero, so one thread alone is refused;
//! every Go program that has started has two.

use anyhow::{Context as _, Result, bail, ensure};

use super::candidates::Candidate;
use super::{GoroutineLayout, Layout};
use crate::runtimes::go::heap::{Slice, read_list, read_words};
use crate::target::memory::Memory;

/// Threads that are looked at.
const THREADS: usize = 16;
/// The list changes when a thread starts or ends.
const MAX_ATTEMPTS: usize = 8;
/// Goroutines that are looked at.
const GOROUTINES: u64 = 64;
/// Buckets that are looked at.
const BUCKETS: usize = 1 << 12;
/// What is nearer was allocated one after the other.
const NEAR_BYTES: u64 = 4096;

/// Follows the list of threads that the word at `allm_addr` begins: each is the thread of its own `g0`.
///
/// # Errors
/// Where one is not, or there is but one, however often they are read.
pub fn threads(memory: &dyn Memory, candidate: &Candidate, allm_addr: u64) -> Result<()> {
    let mut result = threads_once(memory, candidate, allm_addr);
    for _ in 1..MAX_ATTEMPTS {
        if result.is_ok() {
            break;
        }
        result = threads_once(memory, candidate, allm_addr);
    }
    result.context("the threads are not as in known Go versions")
}

fn threads_once(memory: &dyn Memory, candidate: &Candidate, allm_addr: u64) -> Result<()> {
    let layout = &candidate.heap;
    let owner_offset = u64::try_from(candidate.goroutine.thread_offset)?;
    let mut thread_addr = memory.read_u64(allm_addr)?;
    let mut proven = 0;
    for _ in 0..THREADS {
        if thread_addr == 0 {
            break;
        }
        ensure!(thread_addr.is_multiple_of(8), "a thread at {thread_addr:#x}");
        let g0_addr = memory.read_u64(thread_addr.wrapping_add(layout.thread_g0_offset))?;
        // One that is being made has none yet.
        if g0_addr != 0 {
            let owner_addr = memory.read_u64(g0_addr.wrapping_add(owner_offset))?;
            ensure!(
                owner_addr == thread_addr,
                "the goroutine of the thread at {thread_addr:#x} is not its own"
            );
            proven += 1;
        }
        thread_addr = memory.read_u64(thread_addr.wrapping_add(layout.alllink_offset))?;
    }
    ensure!(proven > 1, "there is but one thread");
    Ok(())
}

/// Checks goroutines in the list at `allgs_addr`: most start where `is_entry` says that a function does, from a
/// statement where `is_code` says that there is code.
///
/// # Errors
/// Where most do not, or there is none to look at.
pub fn goroutines(
    memory: &dyn Memory,
    layout: &GoroutineLayout,
    allgs_addr: u64,
    is_entry: impl Fn(u64) -> bool,
    is_code: impl Fn(u64) -> bool,
) -> Result<()> {
    let list = Slice::read(memory, allgs_addr)?;
    let (mut proven, mut refuted) = (0, 0);
    for g_addr in read_list(memory, list.data_addr, list.len.min(GOROUTINES))? {
        let field = |offset: usize| memory.read_u64(g_addr.wrapping_add(offset as u64));
        let (Ok(start_addr), Ok(creator_addr)) = (field(layout.startpc_offset), field(layout.gopc_offset))
        else {
            refuted += 1;
            continue;
        };
        // One kept for threads of C has no function. Few may be of a plugin, or change while they are read.
        if start_addr != 0 {
            let is_proven = is_entry(start_addr) && is_code(creator_addr);
            *(if is_proven { &mut proven } else { &mut refuted }) += 1;
        }
    }
    ensure!(proven > refuted, "the goroutines are not as in known Go versions");
    Ok(())
}

/// Checks the size of the heap profile's buckets, in the list that the word at `mbuckets_addr` begins: of those
/// allocated one after the other none may overlap, and some must touch.
///
/// # Errors
/// Where their size is another one.
pub fn buckets(memory: &dyn Memory, layout: &Layout, mbuckets_addr: u64) -> Result<()> {
    ensure!(layout.profile_record_bytes == 4 * layout.profile_cycle_bytes, "a record is not four cycles");
    let mut later_addr = memory.read_u64(mbuckets_addr)?;
    let (mut near, mut touching) = (0, 0);
    for _ in 0..BUCKETS {
        if later_addr == 0 {
            break;
        }
        let [_, earlier_addr, ..] = read_words::<6>(memory, later_addr)?;
        if earlier_addr == 0 {
            break;
        }
        let [.., stack_words] = read_words::<6>(memory, earlier_addr)?;
        let stack_bytes = stack_words.saturating_mul(8);
        let bucket_bytes =
            (layout.profile_bucket_bytes + layout.profile_record_bytes).saturating_add(stack_bytes);
        let distance_bytes = later_addr.wrapping_sub(earlier_addr);
        if distance_bytes < bucket_bytes {
            bail!("the buckets of the heap profile are shorter than in known Go versions");
        }
        near += usize::from(distance_bytes < NEAR_BYTES);
        touching += usize::from(distance_bytes == bucket_bytes);
        later_addr = earlier_addr;
    }
    ensure!(
        near == 0 || touching > 0,
        "the buckets of the heap profile are longer than in known Go versions"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::go::image::Arch;
    use crate::target::memory::canned::Pieces;

    const LIST_ADDR: u64 = 0x50_0000;
    const FIRST_ADDR: u64 = 0xc0_0000_2000;
    const SECOND_ADDR: u64 = 0x51_0000;

    fn words(len: usize, words: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for &(offset, word) in words {
            let offset = usize::try_from(offset).unwrap();
            bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn candidate(minor: u32) -> Candidate {
        Candidate {
            heap: Layout::for_version(minor, Arch::Amd64).unwrap(),
            goroutine: GoroutineLayout::for_version(minor, Arch::Amd64).unwrap(),
            release: None,
        }
    }

    /// Two threads of Go 1.27, of which the second's goroutine says to belong to `owner_addr`.
    fn two_threads(owner_addr: u64) -> Pieces {
        let candidate = candidate(27);
        let link = candidate.heap.alllink_offset;
        let owner = u64::try_from(candidate.goroutine.thread_offset).unwrap();
        Pieces(vec![
            (LIST_ADDR, words(8, &[(0, FIRST_ADDR)])),
            (FIRST_ADDR, words(2048, &[(0, 0x1000), (link, SECOND_ADDR)])),
            (0x1000, words(512, &[(owner, FIRST_ADDR)])),
            (SECOND_ADDR, words(2048, &[(0, 0x2000)])),
            (0x2000, words(512, &[(owner, owner_addr)])),
        ])
    }

    #[test]
    fn threads_prove_the_layout() {
        let memory = two_threads(SECOND_ADDR);
        assert!(threads(&memory, &candidate(27), LIST_ADDR).is_ok());
        assert!(threads(&memory, &candidate(25), LIST_ADDR).is_err(), "no link there");
        assert!(threads(&two_threads(FIRST_ADDR), &candidate(27), LIST_ADDR).is_err(), "another's");
        assert!(threads(&memory, &candidate(27), 0x9000).is_err(), "nothing there");
    }

    #[test]
    fn goroutines_prove_where_they_start() {
        let layout = candidate(27).goroutine;
        let [start, creator] = [layout.startpc_offset, layout.gopc_offset].map(|offset| offset as u64);
        let check = |layout: &GoroutineLayout, fields: &[(u64, u64)]| {
            let memory = Pieces(vec![
                (LIST_ADDR, words(24, &[(0, LIST_ADDR + 64), (8, 2), (16, 2)])),
                (LIST_ADDR + 64, words(16, &[(0, FIRST_ADDR), (8, SECOND_ADDR)])),
                (FIRST_ADDR, words(512, fields)),
                (SECOND_ADDR, words(512, &[])),
            ]);
            let is_code = |addr: u64| (0x40_1000..0x40_2000).contains(&addr);
            goroutines(&memory, layout, LIST_ADDR, |addr| addr == 0x40_1000, is_code)
        };
        let right = [(start, 0x40_1000), (creator, 0x40_1234)];
        assert!(check(&layout, &right).is_ok(), "the second has not run");
        assert!(check(&candidate(25).goroutine, &right).is_err(), "they lie elsewhere");
        assert!(check(&layout, &[(start, 0x40_1001), (creator, 0x40_1234)]).is_err(), "inside a function");
        assert!(check(&layout, &[(start, 0x40_1000), (creator, 0x9000)]).is_err(), "made by no code");
        assert!(check(&layout, &[]).is_err(), "none to look at");
    }

    #[test]
    fn buckets_prove_their_size() {
        // Two buckets with a stack of two words, one after the other, as Go 1.27 has them.
        let layout = candidate(27).heap;
        let bucket_bytes = layout.profile_bucket_bytes + 16 + layout.profile_record_bytes;
        let later_addr = FIRST_ADDR + bucket_bytes;
        let memory = Pieces(vec![
            (LIST_ADDR, words(8, &[(0, later_addr)])),
            (FIRST_ADDR, words(512, &[(40, 2), (bucket_bytes + 8, FIRST_ADDR), (bucket_bytes + 40, 2)])),
        ]);
        assert!(buckets(&memory, &layout, LIST_ADDR).is_ok());
        assert!(buckets(&memory, &candidate(26).heap, LIST_ADDR).is_err(), "longer");
        let shorter = Layout { profile_record_bytes: 32, profile_cycle_bytes: 8, ..layout };
        assert!(buckets(&memory, &shorter, LIST_ADDR).is_err());
    }
}
