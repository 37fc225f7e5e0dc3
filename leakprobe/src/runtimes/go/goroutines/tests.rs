//! Goroutines made by hand, and what garbage does to them.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::address::AddrRange;
use crate::runtimes::go::image::Arch;
use crate::runtimes::go::pclntab::Pclntab;
use crate::runtimes::go::pclntab::tests::{TEXT_SVMA, parsed};
use crate::target::memory::ReadError;
use crate::target::memory::canned::Pieces;

const ALLGS_ADDR: u64 = 0x50_0000;
const LIST_ADDR: u64 = 0x60_0000;
const G_ADDR: u64 = 0xc0_0001_0000;
const G_BYTES: usize = 480;
const STACK_ADDR: u64 = 0xc0_0100_0000;
const STACK_BYTES: u64 = 2048;
const REASONS_ADDR: u64 = 0x70_0000;
/// `main.outer`, behind a call: its frame is 56 bytes.
const OUTER_ADDR: u64 = TEXT_SVMA + 0x20;

fn layout() -> GoroutineLayout {
    GoroutineLayout::for_version(27, Arch::Amd64).unwrap()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Goroutine number `index` in so many frames of `main.outer`.
fn goroutine(index: u64, status: u64, frames: u64) -> Vec<u8> {
    let layout = layout();
    let mut bytes = vec![0; G_BYTES];
    let stack_addr = STACK_ADDR + index * STACK_BYTES;
    let mut put = |offset: usize, word: u64| bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
    put(0, stack_addr);
    put(8, stack_addr + STACK_BYTES);
    put(56, stack_addr + STACK_BYTES - frames * 64);
    put(64, OUTER_ADDR);
    put(layout.status_offset, status);
    put(layout.waitreason_offset, 2);
    put(layout.waitsince_offset, 1000);
    put(layout.gopc_offset, TEXT_SVMA + 0x11);
    bytes
}

/// Frames of 56 bytes, each with its return address above.
fn stack(frames: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(STACK_BYTES - frames * 64).unwrap()];
    for _ in 0..frames {
        bytes.extend([0; 56]);
        bytes.extend(OUTER_ADDR.to_le_bytes());
    }
    bytes
}

fn process(goroutines: &[(u64, u64)]) -> Pieces {
    let len = goroutines.len() as u64;
    let addrs: Vec<u64> = (0..len).map(|index| G_ADDR + index * G_BYTES as u64).collect();
    let structures =
        (0..).zip(goroutines).flat_map(|(index, &(status, frames))| goroutine(index, status, frames));
    let stacks = goroutines.iter().flat_map(|&(_, frames)| stack(frames));
    let reasons = [0, 0, 0, 0, REASONS_ADDR + 0x100, 12];
    Pieces(vec![
        (ALLGS_ADDR, words(&[LIST_ADDR, len, len])),
        (LIST_ADDR, words(&addrs)),
        (G_ADDR, structures.collect()),
        (STACK_ADDR, stacks.collect()),
        (REASONS_ADDR, words(&reasons)),
        (REASONS_ADDR + 0x100, b"chan receive".to_vec()),
    ])
}

fn read_from(memory: &dyn Memory, pclntab: &Pclntab, layout: &GoroutineLayout) -> Result<Goroutines> {
    let text = AddrRange::with_len(TEXT_SVMA, 0x60).unwrap();
    let code = GoCode { pclntab, load_bias: 0, text, race_calls: None };
    let code = [code];
    let stack_pages = StackPages::default();
    let sources = Sources {
        memory,
        layout,
        code: &code,
        allgs_addr: ALLGS_ADDR,
        reasons_addr: Some(REASONS_ADDR),
        stack_pages: &stack_pages,
    };
    read(&sources, 5000)
}

#[test]
fn those_that_do_the_same_are_one_group() {
    let memory = process(&[(4, 3), (4, 3), (0x1004, 3), (2, 0), (6, 0)]);
    let found = read_from(&memory, &parsed(), &layout()).unwrap();
    assert_eq!((found.count, found.dead, found.system), (4, 1, 0));
    assert_eq!(found.stack_bytes, 4 * STACK_BYTES);
    let [waiting, running] = found.groups.as_slice() else { panic!("{:?}", found.groups) };
    assert_eq!((waiting.state, waiting.count, waiting.reason), (State::Waiting, 3, Some(2)));
    // `main.outer` calls itself four times.
    assert_eq!(waiting.code_addrs, [OUTER_ADDR - 1]);
    assert_eq!((waiting.longest_wait_ns, waiting.creator_addr), (Some(4000), Some(TEXT_SVMA + 0x10)));
    assert_eq!((running.state, running.count, running.code_addrs.len()), (State::Running, 1, 0));
    assert_eq!(found.reasons[&2], "chan receive");
    // The table of functions made by hand has no root, so each of these stacks leads nowhere.
    assert_eq!((found.torn, found.gaps().len()), (3, 1));
}

#[test]
fn a_reason_without_a_text_is_a_number() {
    let mut memory = process(&[(4, 1)]);
    memory.0.truncate(4);
    let found = read_from(&memory, &parsed(), &layout()).unwrap();
    assert_eq!(found.reasons[&2], "wait reason 2");
}

#[test]
fn what_is_no_goroutine_is_torn() {
    let mut memory = process(&[(4, 1), (77, 1), (4, 1)]);
    memory.0[1].1[16..24].copy_from_slice(&0xdead_0000_u64.to_le_bytes());
    let found = read_from(&memory, &parsed(), &layout()).unwrap();
    assert_eq!((found.count, found.torn), (1, 3), "the first only has no root");
}

#[test]
fn a_list_that_cannot_be_is_refused() {
    for header in [[LIST_ADDR, 1 << 40, 1 << 40], [LIST_ADDR, 2, 1], [0, 1, 1]] {
        let memory = Pieces(vec![(ALLGS_ADDR, words(&header))]);
        assert!(read_from(&memory, &parsed(), &layout()).is_err());
    }
    let empty = Pieces(vec![(ALLGS_ADDR, words(&[0, 0, 0]))]);
    assert_eq!(read_from(&empty, &parsed(), &layout()).unwrap(), Goroutines::default());
}

/// Every word is one of a few, different at each read: lists that move, stacks that point into themselves.
struct Garbage {
    words: Vec<u64>,
    reads: Cell<usize>,
}

impl Memory for Garbage {
    fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let read = self.reads.get();
        self.reads.set(read + 1);
        if addr == ALLGS_ADDR {
            buf.copy_from_slice(&words(&[LIST_ADDR, 300, 300]));
            return Ok(());
        }
        if read % 17 == 16 {
            return Err(ReadError { addr, len_bytes: buf.len() });
        }
        for (index, chunk) in buf.chunks_mut(8).enumerate() {
            let word = self.words[(index * 7 + read) % self.words.len()];
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn garbage_ends_and_never_panics(
        random in proptest::collection::vec(any::<u64>(), 1..12),
        minor in 19_u32..28,
        is_arm: bool,
    ) {
        let likely = [G_ADDR, STACK_ADDR, STACK_ADDR + STACK_BYTES, OUTER_ADDR, 4, 3, u64::MAX];
        let memory = Garbage { words: [&random[..], &likely].concat(), reads: Cell::new(0) };
        let arch = if is_arm { Arch::Arm64 } else { Arch::Amd64 };
        let layout = GoroutineLayout::for_version(minor, arch).unwrap();
        if let Ok(found) = read_from(&memory, &parsed(), &layout) {
            prop_assert!(found.count + found.dead + found.system <= 300);
        }
        prop_assert!(memory.reads.get() < 1_000_000);
    }
}
