//! Bytes from the ring buffer → events. The kernel side is ours, but a record is still checked as if it
//! were not: a mismatch between the two halves must be a counted error, not garbage in the ledger.

use std::mem::offset_of;

use leakprobe_ebpf::{
    EVENT_BYTES, FAULT_BYTES, GoParts, MAX_FRAMES, OTHER_COPY_BYTES, STACK_COPY_BYTES, STACK_HEAD_BYTES,
    STACK_TAIL_BYTES, Stack, form, kind,
};

use crate::address::AddrRange;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A page was touched that was not there, or not writable.
    Fault {
        /// The address that was touched.
        addr: u64,
        /// Touched by the kernel on the process's behalf.
        by_kernel: bool,
        /// How.
        access: Access,
    },
    /// Memory was mapped, in place of whatever was there.
    Map {
        /// Where.
        range: AddrRange,
        /// The PROT_* bits.
        protection: u64,
        /// The MAP_* flags.
        flags: u64,
    },
    /// Memory was unmapped.
    Unmap {
        /// Where.
        range: AddrRange,
    },
    /// Memory was moved, grown or shrunk.
    Remap {
        /// Where it was; empty (`None`) where mremap duplicated a shared mapping.
        from: Option<AddrRange>,
        /// Where it is.
        to: AddrRange,
    },
    /// The break moved.
    Break {
        /// The new end of the heap.
        end_addr: u64,
    },
    /// The kernel was given advice.
    Advise {
        /// Where.
        range: AddrRange,
        /// The MADV_* number.
        advice: u64,
    },
    /// Memory was locked, and so filled.
    Lock {
        /// Where.
        range: AddrRange,
        /// The MLOCK_* flags.
        flags: u64,
    },
    /// Access rights changed.
    Protect,
    /// A thread exited.
    ThreadExit,
    /// The process called execve.
    Exec,
}

/// What the hardware says of a touch that made a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The page was there, and must not be used so: it is shared with a child, with a file, or all zeroes.
    pub present: bool,
    /// It was to be written to.
    pub write: bool,
}

/// An event, checked.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub what: What,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// When the system call began; `time_ns` for what is none.
    pub entered_ns: u64,
    /// How many events the stack stands for; at least 1 where there is one.
    pub stack_weight: u32,
    /// The thread's state, where the event was sampled.
    pub stack: Option<RawStack<'a>>,
}

/// A thread's state at an event, as captured: registers and pieces of memory.
#[derive(Clone, Copy, Debug)]
pub struct RawStack<'a> {
    bytes: &'a [u8],
}

/// Where a goroutine left its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftAt {
    /// Instruction pointer, no return address.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
}

/// Stacks grow down, and none is longer: what lies further above a copy does not belong to it.
const MAX_STACK_BYTES: u64 = 1 << 30;

impl<'a> RawStack<'a> {
    /// Instruction pointer.
    pub fn ip(&self) -> u64 {
        self.head(offset_of!(Stack, ip))
    }

    /// Stack pointer; 0 where the registers could not be read.
    pub fn sp(&self) -> u64 {
        self.head(offset_of!(Stack, sp))
    }

    /// Frame pointer.
    pub fn bp(&self) -> u64 {
        self.head(offset_of!(Stack, bp))
    }

    /// rbx, r10, r12, r13, r14 and r15.
    pub fn saved(&self) -> [u64; 6] {
        std::array::from_fn(|index| self.head(offset_of!(Stack, saved) + 8 * index))
    }

    /// The kernel's walk along frame pointers, innermost first, where it is all there is; else empty.
    pub fn frames(&self) -> impl Iterator<Item = u64> + use<'a> {
        let bytes = self.bytes;
        let is_all = self.form() == form::FRAMES;
        let count = if is_all { self.length(offset_of!(Stack, chain_count), MAX_FRAMES) } else { 0 };
        (0..count).map(move |index| word(bytes, offset_of!(Stack, tail) + 8 * index))
    }

    /// Whether the thread may run Go code and nobody has told the probes which of Go's threads it is.
    pub fn is_thread_unknown(&self) -> bool {
        self.form() == form::GO && self.part(offset_of!(GoParts, machine)) == 0
    }

    /// Stack pointer of the race detector's caller, where it was found.
    pub fn race_sp(&self) -> Option<u64> {
        Some(self.part(offset_of!(GoParts, race_sp))).filter(|sp| *sp != 0)
    }

    /// Where the goroutine left its stack, if the thread is on its own.
    pub fn left_at(&self) -> Option<LeftAt> {
        let sp = self.part(offset_of!(GoParts, left_sp));
        let left = LeftAt {
            ip: self.part(offset_of!(GoParts, left_pc)),
            sp,
            bp: self.part(offset_of!(GoParts, left_bp)),
        };
        (sp != 0).then_some(left)
    }

    /// The first frame of the goroutine's frame-pointer chain, where one was found.
    pub fn chain_start_addr(&self) -> Option<u64> {
        self.chain().next().map(|(frame_addr, _)| frame_addr)
    }

    /// The captured word of the target's memory at `addr`.
    pub fn memory_word(&self, addr: u64) -> Option<u64> {
        self.pieces()
            .into_iter()
            .find_map(|piece| piece.word(self.bytes, addr))
            .or_else(|| self.chain_word(addr))
    }

    /// Whether `addr` may be further up a stack than was copied of it.
    pub fn is_beyond_copy(&self, addr: u64) -> bool {
        self.pieces().into_iter().any(|piece| {
            let beyond =
                addr.checked_sub(piece.start_addr.saturating_add(piece.len_bytes as u64).saturating_sub(7));
            piece.start_addr != 0 && beyond.is_some_and(|beyond| beyond < MAX_STACK_BYTES)
        })
    }

    fn pieces(&self) -> [Piece; 2] {
        let tail = offset_of!(Stack, tail);
        let own_offset = if self.form() == form::GO { tail + size_of::<GoParts>() } else { tail };
        let is_frames = self.form() == form::FRAMES;
        let own = Piece {
            start_addr: if is_frames { 0 } else { self.sp() },
            offset: own_offset,
            len_bytes: self.length(offset_of!(Stack, copy_bytes), STACK_COPY_BYTES),
        };
        let other = Piece {
            start_addr: self.part(offset_of!(GoParts, other_sp)),
            offset: tail + offset_of!(GoParts, other_copy),
            len_bytes: self.length(offset_of!(Stack, other_copy_bytes), OTHER_COPY_BYTES),
        };
        [own, other]
    }

    /// A link of the chain is two words of memory: the saved frame pointer, which is the next link's
    /// address, and the return address above it.
    fn chain_word(&self, addr: u64) -> Option<u64> {
        let mut chain = self.chain();
        while let Some((frame_addr, return_addr)) = chain.next() {
            if addr == frame_addr {
                return Some(chain.next().map_or(0, |(next_addr, _)| next_addr));
            }
            if addr == frame_addr.wrapping_add(8) {
                return Some(return_addr);
            }
        }
        None
    }

    fn chain(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        let bytes = self.bytes;
        let offset = offset_of!(Stack, tail) + offset_of!(GoParts, chain);
        let is_there =
            self.form() == form::GO && bytes.len() >= offset_of!(Stack, tail) + size_of::<GoParts>();
        let count = if is_there { self.length(offset_of!(Stack, chain_count), MAX_FRAMES) } else { 0 };
        let link = move |index: usize| offset + 16 * index;
        (0..count).map(move |index| (word(bytes, link(index)), word(bytes, link(index) + 8)))
    }

    fn form(&self) -> u32 {
        half_word(self.bytes, offset_of!(Stack, form))
    }

    fn head(&self, offset: usize) -> u64 {
        word(self.bytes, offset)
    }

    /// A field of what is known of Go; 0 in a process without it.
    fn part(&self, offset: usize) -> u64 {
        if self.form() == form::GO { word(self.bytes, offset_of!(Stack, tail) + offset) } else { 0 }
    }

    fn length(&self, offset: usize, max: usize) -> usize {
        (half_word(self.bytes, offset) as usize).min(max)
    }
}

/// A copy of some of the target's memory inside a record.
struct Piece {
    start_addr: u64,
    offset: usize,
    len_bytes: usize,
}

impl Piece {
    fn word(&self, bytes: &[u8], addr: u64) -> Option<u64> {
        let inside = usize::try_from(addr.checked_sub(self.start_addr)?).ok()?;
        let fits = inside.checked_add(8)? <= self.len_bytes && self.offset + inside + 8 <= bytes.len();
        (self.start_addr != 0 && fits).then(|| word(bytes, self.offset + inside))
    }
}

/// Bits of a page fault's error code (Linux `arch/x86/include/asm/trap_pf.h`).
const ERROR_PRESENT: u32 = 1 << 0;
const ERROR_WRITE: u32 = 1 << 1;

/// Decodes one record; `None` where it is not one of ours.
pub fn decode(bytes: &[u8]) -> Option<Event<'_>> {
    let with_stack = STACK_HEAD_BYTES..=STACK_HEAD_BYTES + STACK_TAIL_BYTES;
    if ![FAULT_BYTES, EVENT_BYTES].contains(&bytes.len()) && !with_stack.contains(&bytes.len()) {
        return None;
    }
    use leakprobe_ebpf::Event as Wire;
    let arg = |index: usize| word(bytes, offset_of!(Wire, args) + 8 * index);
    let kind = half_word(bytes, offset_of!(Wire, kind));
    let is_fault = kind == kind::FAULT_USER || kind == kind::FAULT_KERNEL;
    if bytes.len() == FAULT_BYTES && !is_fault {
        return None;
    }
    let addr = word(bytes, offset_of!(Wire, addr));
    let low_arg = half_word(bytes, offset_of!(Wire, low_arg));
    let what = decode_what(kind, [addr, arg(0), arg(1), arg(2)], low_arg)?;
    let time_ns = word(bytes, offset_of!(Wire, time_ns));
    let stack_weight = half_word(bytes, offset_of!(Wire, stack_weight));
    let has_stack = bytes.len() > EVENT_BYTES;
    if has_stack != (stack_weight > 0) {
        return None;
    }
    Some(Event {
        what,
        time_ns,
        entered_ns: if is_fault { time_ns } else { word(bytes, offset_of!(Wire, entered_ns)) },
        stack_weight,
        stack: has_stack.then(|| RawStack { bytes: &bytes[EVENT_BYTES..] }),
    })
}

fn decode_what(kind: u32, args: [u64; 4], low_arg: u32) -> Option<What> {
    let range = || AddrRange::with_len(args[0], args[1])?.touched_pages();
    let fault = |by_kernel| {
        let access = Access { present: low_arg & ERROR_PRESENT != 0, write: low_arg & ERROR_WRITE != 0 };
        What::Fault { addr: args[0], by_kernel, access }
    };
    Some(match kind {
        kind::FAULT_USER => fault(false),
        kind::FAULT_KERNEL => fault(true),
        kind::MMAP => What::Map { range: range()?, protection: args[2], flags: args[3] },
        kind::MLOCK => What::Lock { range: range()?, flags: 0 },
        kind::MLOCK2 => What::Lock { range: range()?, flags: args[2] },
        kind::MUNMAP => What::Unmap { range: range()? },
        kind::MREMAP => What::Remap {
            from: AddrRange::with_len(args[0], args[1]).and_then(|from| from.touched_pages()),
            to: AddrRange::with_len(args[3], args[2])?.touched_pages()?,
        },
        kind::BRK => What::Break { end_addr: args[0] },
        kind::MADVISE => What::Advise { range: range()?, advice: args[2] },
        kind::MPROTECT => What::Protect,
        kind::THREAD_EXIT => What::ThreadExit,
        kind::EXEC => What::Exec,
        _ => return None,
    })
}

/// Callers stay inside the record: offsets are those of its fields, checked against its length.
fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..offset + 8).map_or(0, |word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
}

fn half_word(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().expect("4 bytes")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u32, args: [u64; 4], len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&7u64.to_le_bytes());
        let offsets = [16, 40, 48, 56]; // the address, then the arguments
        for (offset, arg) in offsets.into_iter().zip(args).filter(|(offset, _)| *offset < len_bytes) {
            bytes[offset..offset + 8].copy_from_slice(&arg.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_mapping_is_rounded_to_pages() {
        let bytes = record(kind::MMAP, [0x7000, 5000, 3, 0x22], EVENT_BYTES);
        let event = decode(&bytes).unwrap();
        let range = AddrRange::new(0x7000, 0x9000).unwrap();
        assert_eq!(event.what, What::Map { range, protection: 3, flags: 0x22 });
        assert!(event.time_ns == 7 && event.stack.is_none());
    }

    #[test]
    fn a_fault_is_cut_and_nothing_else_is() {
        let fault = decode(&record(kind::FAULT_USER, [0x7123, 0, 0, 0], FAULT_BYTES)).map(|event| event.what);
        assert_eq!(fault, Some(What::Fault { addr: 0x7123, by_kernel: false, access: Access::default() }));
        assert!(decode(&record(kind::MUNMAP, [0x7000, 1, 0, 0], FAULT_BYTES)).is_none());
    }

    #[test]
    fn a_fault_says_whether_the_page_was_there_and_was_written() {
        for (error_code, present, write) in [(4, false, false), (6, false, true), (7, true, true)] {
            let mut bytes = record(kind::FAULT_USER, [0x7123, 0, 0, 0], FAULT_BYTES);
            bytes[28] = error_code;
            let access = Access { present, write };
            let expected = What::Fault { addr: 0x7123, by_kernel: false, access };
            assert_eq!(decode(&bytes).map(|event| event.what), Some(expected));
        }
    }

    #[test]
    fn a_weight_without_a_stack_is_refused() {
        let mut bytes = record(kind::FAULT_USER, [1, 2, 3, 4], EVENT_BYTES);
        bytes[24] = 1;
        assert!(decode(&bytes).is_none());
    }

    fn go_record() -> Vec<u8> {
        let mut bytes = record(kind::FAULT_USER, [1, 2, 3, 4], STACK_HEAD_BYTES + STACK_TAIL_BYTES);
        bytes[24] = 1;
        bytes[EVENT_BYTES + offset_of!(Stack, form)] = 2;
        bytes
    }

    fn put(bytes: &mut [u8], offset: usize, value: u64) {
        bytes[EVENT_BYTES + offset..EVENT_BYTES + offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    #[test]
    fn the_chain_reads_as_memory() {
        let mut bytes = go_record();
        let chain = offset_of!(Stack, tail) + offset_of!(GoParts, chain);
        bytes[EVENT_BYTES + offset_of!(Stack, chain_count)] = 2;
        for (index, value) in [0x1000u64, 0xaaaa, 0x2000, 0xbbbb].into_iter().enumerate() {
            put(&mut bytes, chain + 8 * index, value);
        }
        let stack = decode(&bytes).unwrap().stack.unwrap();
        assert_eq!(stack.memory_word(0x1000), Some(0x2000));
        assert_eq!(stack.memory_word(0x1008), Some(0xaaaa));
        assert_eq!(stack.memory_word(0x2000), Some(0));
        assert_eq!(stack.memory_word(0x3000), None);
    }

    #[test]
    fn both_stacks_read_as_memory() {
        let mut bytes = go_record();
        put(&mut bytes, offset_of!(Stack, sp), 0x7000);
        put(&mut bytes, offset_of!(Stack, tail) + offset_of!(GoParts, other_sp), 0xc000);
        bytes[EVENT_BYTES + offset_of!(Stack, copy_bytes)] = 16;
        bytes[EVENT_BYTES + offset_of!(Stack, other_copy_bytes)] = 8;
        put(&mut bytes, offset_of!(Stack, tail) + size_of::<GoParts>() + 8, 17);
        put(&mut bytes, offset_of!(Stack, tail) + offset_of!(GoParts, other_copy), 18);
        let stack = decode(&bytes).unwrap().stack.unwrap();
        assert_eq!([0x7008, 0xc000].map(|addr| stack.memory_word(addr)), [Some(17), Some(18)]);
        assert_eq!([0x7009, 0xc008, 0x6ff8].map(|addr| stack.memory_word(addr)), [None; 3]);
        assert!(
            stack.is_beyond_copy(0x7010) && stack.is_beyond_copy(0xc008) && !stack.is_beyond_copy(0x6000)
        );
        assert!(stack.is_thread_unknown() && stack.left_at().is_none());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            start in proptest::collection::vec(any::<u8>(), STACK_HEAD_BYTES + 64),
            length in 0_usize..5, form in 0_u8..4, addr: u64,
        ) {
            let longest = STACK_HEAD_BYTES + STACK_TAIL_BYTES;
            let mut bytes = start;
            bytes.resize(longest, 0x11);
            bytes[EVENT_BYTES + offset_of!(Stack, form)] = form;
            bytes.truncate([FAULT_BYTES, EVENT_BYTES, STACK_HEAD_BYTES, STACK_HEAD_BYTES + 17, longest][length]);
            if let Some(stack) = decode(&bytes).and_then(|event| event.stack) {
                prop_assert!(stack.frames().count() <= MAX_FRAMES);
                let _ = stack.memory_word(addr);
                let _ = stack.is_beyond_copy(addr);
                let _ = stack.memory_word(stack.sp());
                let _ = (stack.left_at(), stack.race_sp(), stack.chain_start_addr(), stack.saved());
            }
        }
    }
}
