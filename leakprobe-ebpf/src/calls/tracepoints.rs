//! The tracepoints `syscalls:sys_enter_*` and `sys_exit_*`: every kernel has them, and while one is on,
//! every system call of the machine takes a slower path.
//!
//! The format of both (tracefs `events/syscalls/*/format`): `__syscall_nr` at 8, then from 16 the
//! arguments, or the result, as 8-byte words.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use leakprobe_ebpf::kind;

use super::{enter, leave};
use crate::record::{count, target_tid};

/// Where the first argument, or the result, lies in the trace record.
const FIRST_FIELD_OFFSET: usize = 16;

macro_rules! watched_call {
    ($enter:ident, $exit:ident, $kind:expr, $argument_count:expr) => {
        #[tracepoint]
        pub fn $enter(ctx: TracePointContext) -> u32 {
            try_enter(&ctx, $kind, $argument_count).unwrap_or_else(count);
            0
        }

        #[tracepoint]
        pub fn $exit(ctx: TracePointContext) -> u32 {
            if let Some(tid) = target_tid() {
                leave(&ctx, tid, $kind, word(&ctx, 0)).unwrap_or_else(count);
            }
            0
        }
    };
}

watched_call!(enter_mmap, exit_mmap, kind::MMAP, 5);
watched_call!(enter_munmap, exit_munmap, kind::MUNMAP, 2);
watched_call!(enter_mremap, exit_mremap, kind::MREMAP, 4);
watched_call!(enter_brk, exit_brk, kind::BRK, 1);
watched_call!(enter_madvise, exit_madvise, kind::MADVISE, 3);
watched_call!(enter_mprotect, exit_mprotect, kind::MPROTECT, 3);
watched_call!(enter_mlock, exit_mlock, kind::MLOCK, 2);
watched_call!(enter_mlock2, exit_mlock2, kind::MLOCK2, 3);

#[inline(always)]
fn try_enter(ctx: &TracePointContext, kind: u32, argument_count: usize) -> Result<(), u32> {
    if target_tid().is_none() {
        return Ok(());
    }
    let mut args = [0; 6];
    for (index, arg) in args.iter_mut().enumerate() {
        if index < argument_count {
            *arg = word(ctx, index);
        }
    }
    enter(kind, args, 0)
}

#[inline(always)]
fn word(ctx: &TracePointContext, index: usize) -> u64 {
    // SAFETY: the trace record has a word here, by the format above.
    unsafe { ctx.as_ptr().cast::<u8>().add(FIRST_FIELD_OFFSET).cast::<u64>().add(index).read() }
}
