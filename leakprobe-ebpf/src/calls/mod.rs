//! System calls that change the address space: mmap, munmap, mremap, brk, madvise, mprotect. And mlock
//! and mlock2, which fill it.
//!
//! Where they are seen differs: [`functions`] of the kernel, its [`locks`], its [`tracepoints`] on system
//! calls. All keep the arguments in `PENDING` at the beginning, and send the same event at the end.

mod functions;
mod locks;
mod tracepoints;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use leakprobe_ebpf::{Event, FILLING_ADVICE, PendingCall, counter, kind};

use crate::maps::PENDING;
use crate::record::{count, send, send_plain};

/// Keeps what a call of the current thread was given.
#[inline(always)]
fn enter(kind: u32, args: [u64; 6], regs_addr: u64) -> Result<(), u32> {
    let thread = bpf_get_current_pid_tgid();
    if PENDING.get_ptr(thread).is_some() {
        count(counter::CALLS_UNRETURNED);
    }
    let call = PendingCall {
        // SAFETY: the helper takes no pointer.
        entered_ns: unsafe { bpf_ktime_get_ns() },
        args,
        regs_addr,
        area_addr: 0,
        area_bytes: 0,
        kind,
        area_flags: 0,
    };
    PENDING.insert(thread, call, 0).map_err(|_| counter::CALLS_PENDING_FULL)
}

/// Takes out what the current thread's call was given.
#[inline(always)]
fn take_pending() -> Option<PendingCall> {
    let thread = bpf_get_current_pid_tgid();
    // Copied before the entry is removed: the kernel may hand it out again at once.
    // SAFETY: only this thread inserts and removes its own entry.
    let call = (unsafe { PENDING.get(thread) }).copied()?;
    let _ = PENDING.remove(thread);
    Some(call)
}

/// Sends the call of the current thread, which has just returned `result`.
#[inline(always)]
fn leave<C: EbpfContext>(ctx: &C, tid: u32, kind: u32, result: u64) -> Result<(), u32> {
    // What another call left there, whose return nobody saw, is not this one's.
    let call = take_pending().filter(|call| call.kind == kind).ok_or(counter::CALLS_UNPAIRED)?;
    if !succeeded(kind, &call, result) {
        return Ok(());
    }
    let mut event = event(tid, kind, &call, result);
    let regs = call.regs_addr as *const u8;
    match kind {
        kind::MMAP => send::<true, _>(ctx, &mut event, regs, counter::CALLS_RING_FULL),
        kind::BRK | kind::MREMAP | kind::MLOCK | kind::MLOCK2 => {
            send::<false, _>(ctx, &mut event, regs, counter::CALLS_RING_FULL)
        }
        kind::MADVISE if FILLING_ADVICE.contains(&event.args[1]) => {
            send::<false, _>(ctx, &mut event, regs, counter::CALLS_RING_FULL)
        }
        _ => send_plain(&event, counter::CALLS_RING_FULL),
    }
}

#[inline(always)]
fn event(tid: u32, kind: u32, call: &PendingCall, result: u64) -> Event {
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
    match kind {
        kind::MMAP | kind::BRK => event.addr = result,
        kind::MREMAP => event.args[2] = result,
        _ => {}
    }
    event
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
    !is_error(result)
}

#[inline(always)]
fn is_error(result: u64) -> bool {
    result >= 0xffff_ffff_ffff_f001
}
