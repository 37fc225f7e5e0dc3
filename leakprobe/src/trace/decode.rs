//! Bytes from the ring buffer → events. The kernel side is ours, but a record is still checked as if it
//! were not: a mismatch between the two halves must be a counted error, not garbage in the ledger.

use leakprobe_ebpf::{
    CALLER_COPY_BYTES, EVENT_BYTES, FAULT_BYTES, MAX_FRAMES, STACK_COPY_BYTES, STACK_FRAMES_ONLY_BYTES,
    STACK_NATIVE_BYTES, STACK_WHOLE_BYTES, Stack, kind,
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

macro_rules! stack_field {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> u64 {
            word(self.bytes, std::mem::offset_of!(Stack, $name))
        }
    };
}

impl<'a> RawStack<'a> {
    stack_field!(
        /// Instruction pointer.
        ip
    );
    stack_field!(
        /// Stack pointer; 0 where the registers could not be read.
        sp
    );
    stack_field!(
        /// Frame pointer.
        bp
    );
    stack_field!(
        /// Stack pointer of the race detector's caller; 0 where not found.
        caller_sp
    );

    /// The kernel's walk along frame pointers, innermost first.
    pub fn frames(&self) -> impl Iterator<Item = u64> + use<'a> {
        let bytes = self.bytes;
        let count = self.length(std::mem::offset_of!(Stack, frame_count), MAX_FRAMES);
        (0..count).map(move |index| word(bytes, std::mem::offset_of!(Stack, frames) + 8 * index))
    }

    /// The first frame of the goroutine's frame-pointer chain, where one was found.
    pub fn chain_start_addr(&self) -> Option<u64> {
        let count = self.length(std::mem::offset_of!(Stack, chain_count), MAX_FRAMES);
        let start_addr = word(self.bytes, std::mem::offset_of!(Stack, chain));
        (count > 0 && start_addr != 0).then_some(start_addr)
    }

    /// The captured word of the target's memory at `addr`.
    pub fn memory_word(&self, addr: u64) -> Option<u64> {
        let copy = self.length(std::mem::offset_of!(Stack, copy_bytes), STACK_COPY_BYTES);
        let caller = self.length(std::mem::offset_of!(Stack, caller_copy_bytes), CALLER_COPY_BYTES);
        self.copied_word(addr, self.sp(), std::mem::offset_of!(Stack, copy), copy)
            .or_else(|| {
                let offset = std::mem::offset_of!(Stack, caller_copy);
                self.copied_word(addr, self.caller_sp(), offset, caller)
            })
            .or_else(|| self.chain_word(addr))
    }

    fn copied_word(&self, addr: u64, start_addr: u64, offset: usize, len_bytes: usize) -> Option<u64> {
        let inside = usize::try_from(addr.checked_sub(start_addr)?).ok()?;
        let fits = inside.checked_add(8)? <= len_bytes && offset + inside + 8 <= self.bytes.len();
        (start_addr != 0 && fits).then(|| word(self.bytes, offset + inside))
    }

    /// A link of the chain is two words of memory: the saved frame pointer, which is the next link's
    /// address, and the return address above it.
    fn chain_word(&self, addr: u64) -> Option<u64> {
        let offset = std::mem::offset_of!(Stack, chain);
        let count = self.length(std::mem::offset_of!(Stack, chain_count), MAX_FRAMES);
        if self.bytes.len() < offset + count * 16 {
            return None;
        }
        for index in 0..count {
            let frame_addr = word(self.bytes, offset + 16 * index);
            if addr == frame_addr {
                let next = index + 1;
                return Some(if next < count { word(self.bytes, offset + 16 * next) } else { 0 });
            }
            if addr == frame_addr.wrapping_add(8) {
                return Some(word(self.bytes, offset + 16 * index + 8));
            }
        }
        None
    }

    fn length(&self, offset: usize, max: usize) -> usize {
        (half_word(self.bytes, offset) as usize).min(max)
    }
}

/// Bits of a page fault's error code (Linux `arch/x86/include/asm/trap_pf.h`).
const ERROR_PRESENT: u32 = 1 << 0;
const ERROR_WRITE: u32 = 1 << 1;

/// Decodes one record; `None` where it is not one of ours.
pub fn decode(bytes: &[u8]) -> Option<Event<'_>> {
    let lengths = [FAULT_BYTES, EVENT_BYTES, STACK_FRAMES_ONLY_BYTES, STACK_NATIVE_BYTES, STACK_WHOLE_BYTES];
    if !lengths.contains(&bytes.len()) {
        return None;
    }
    use leakprobe_ebpf::Event as Wire;
    let arg = |index: usize| word(bytes, std::mem::offset_of!(Wire, args) + 8 * index);
    let kind = half_word(bytes, std::mem::offset_of!(Wire, kind));
    let is_fault = kind == kind::FAULT_USER || kind == kind::FAULT_KERNEL;
    if bytes.len() == FAULT_BYTES && !is_fault {
        return None;
    }
    let addr = word(bytes, std::mem::offset_of!(Wire, addr));
    let low_arg = half_word(bytes, std::mem::offset_of!(Wire, low_arg));
    let what = decode_what(kind, [addr, arg(0), arg(1), arg(2)], low_arg)?;
    let time_ns = word(bytes, std::mem::offset_of!(Wire, time_ns));
    let stack_weight = half_word(bytes, std::mem::offset_of!(Wire, stack_weight));
    let has_stack = bytes.len() > EVENT_BYTES;
    if has_stack != (stack_weight > 0) {
        return None;
    }
    Some(Event {
        what,
        time_ns,
        entered_ns: if is_fault { time_ns } else { word(bytes, std::mem::offset_of!(Wire, entered_ns)) },
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

    #[test]
    fn the_chain_reads_as_memory() {
        let mut bytes = record(kind::FAULT_USER, [1, 2, 3, 4], STACK_WHOLE_BYTES);
        bytes[24] = 1;
        let chain = EVENT_BYTES + std::mem::offset_of!(Stack, chain);
        let count = EVENT_BYTES + std::mem::offset_of!(Stack, chain_count);
        bytes[count] = 2;
        for (index, value) in [0x1000u64, 0xaaaa, 0x2000, 0xbbbb].iter().enumerate() {
            bytes[chain + 8 * index..chain + 8 * index + 8].copy_from_slice(&value.to_le_bytes());
        }
        let stack = decode(&bytes).unwrap().stack.unwrap();
        assert_eq!(stack.memory_word(0x1000), Some(0x2000));
        assert_eq!(stack.memory_word(0x1008), Some(0xaaaa));
        assert_eq!(stack.memory_word(0x2000), Some(0));
        assert_eq!(stack.memory_word(0x3000), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), STACK_WHOLE_BYTES), length in 0usize..6, addr: u64) {
            let lengths = [FAULT_BYTES, EVENT_BYTES, STACK_FRAMES_ONLY_BYTES, STACK_NATIVE_BYTES, STACK_WHOLE_BYTES, 17];
            bytes.truncate(lengths[length]);
            if let Some(stack) = decode(&bytes).and_then(|event| event.stack) {
                prop_assert!(stack.frames().count() <= MAX_FRAMES);
                let _ = stack.memory_word(addr);
                let _ = stack.memory_word(stack.sp());
            }
        }
    }
}
