//! System calls that change the address space: mmap, munmap, mremap, brk, madvise, mprotect.
//!
//! `syscalls:sys_enter_*` keeps the arguments, `syscalls:sys_exit_*` sends them with the result. The
//! format of both (tracefs `events/syscalls/*/format`): `__syscall_nr` at 8, then from 16 the
//! arguments, or the result, as 8-byte words.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use leakprobe_ebpf::{Event, PendingCall, counter, kind};

use crate::maps::PENDING;
use crate::record::{count, send, send_plain, target_tid};

/// Where the first argument, or the result, lies in the trace record.
const FIRST_FIELD_OFFSET: usize = 16;

macro_rules! watched_call {
    ($enter:ident, $exit:ident, $kind:expr, $argument_count:expr) => {
        #[tracepoint]
        pub fn $enter(ctx: TracePointContext) -> u32 {
            try_enter(&ctx, $argument_count).unwrap_or_else(count);
            0
        }

        #[tracepoint]
        pub fn $exit(ctx: TracePointContext) -> u32 {
            try_exit(&ctx, $kind).unwrap_or_else(count);
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

#[inline(always)]
fn try_enter(ctx: &TracePointContext, argument_count: usize) -> Result<(), u32> {
    if target_tid().is_none() {
        return Ok(());
    }
    // SAFETY: the helper takes no pointer.
    let mut call = PendingCall { entered_ns: unsafe { bpf_ktime_get_ns() }, args: [0; 5] };
    for index in 0..5 {
        if index < argument_count {
            call.args[index] = word(ctx, index);
        }
    }
    let thread = bpf_get_current_pid_tgid();
    PENDING.insert(thread, call, 0).map_err(|_| counter::CALLS_PENDING_FULL)
}

#[inline(always)]
fn try_exit(ctx: &TracePointContext, kind: u32) -> Result<(), u32> {
    let Some(tid) = target_tid() else { return Ok(()) };
    let thread = bpf_get_current_pid_tgid();
    // Copied before the entry is removed: the kernel may hand it out again at once.
    // SAFETY: only this thread inserts and removes its own entry.
    let Some(call) = (unsafe { PENDING.get(thread) }).copied() else {
        return Err(counter::CALLS_UNPAIRED);
    };
    let _ = PENDING.remove(thread);
    let result = word(ctx, 0);
    if !succeeded(kind, &call, result) {
        return Ok(());
    }
    let mut event = Event {
        kind,
        tid,
        // SAFETY: the helper takes no pointer.
        time_ns: unsafe { bpf_ktime_get_ns() },
        addr: call.args[0],
        stack_weight: 0,
        low_arg: call.args[4] as u32,
        entered_ns: call.entered_ns,
        args: [call.args[1], call.args[2], call.args[3]],
    };
    let none = core::ptr::null();
    match kind {
        kind::MMAP => {
            event.addr = result;
            send::<true, _>(ctx, &mut event, none, counter::CALLS_RING_FULL)
        }
        kind::BRK => {
            event.addr = result;
            send::<false, _>(ctx, &mut event, none, counter::CALLS_RING_FULL)
        }
        kind::MREMAP => {
            event.args[2] = result;
            send::<false, _>(ctx, &mut event, none, counter::CALLS_RING_FULL)
        }
        _ => send_plain(&event, counter::CALLS_RING_FULL),
    }
}

/// Errors are the results from -4095 to -1; brk has none and returns the old break where it did nothing.
#[inline(always)]
fn succeeded(kind: u32, call: &PendingCall, result: u64) -> bool {
    if (kind == kind::MADVISE || kind == kind::MPROTECT) && call.args[1] == 0 {
        return false; // succeeds, and does nothing
    }
    if kind == kind::BRK {
        return call.args[0] != 0 && result == call.args[0];
    }
    result < 0xffff_ffff_ffff_f001
}

#[inline(always)]
fn word(ctx: &TracePointContext, index: usize) -> u64 {
    // SAFETY: the trace record has a word here, by the format above.
    unsafe { ctx.as_ptr().cast::<u8>().add(FIRST_FIELD_OFFSET).cast::<u64>().add(index).read() }
}
