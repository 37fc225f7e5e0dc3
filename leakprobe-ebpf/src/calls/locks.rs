//! The address space's lock: `mmap_lock:mmap_lock_acquire_returned` and `mmap_lock:mmap_lock_released`, with
//! `mmap:vm_unmapped_area` between them.
//!
//! A system call that changes the address space takes the lock for writing once, and is done when it lets
//! go of it: its number and arguments are in the user's registers, and nothing else of the machine gets
//! slower. What these tracepoints do not tell is the result, so it is worked out from where the kernel found
//! room, or the call is counted as unplaced. Of madvise they see only what fills memory. What drops it mostly
//! does without this lock since Linux 6.16: a page it drops is no longer resident, or somebody touched it since.
//!
//! The first two are raw tracepoints, whose arguments are `(struct mm_struct *mm, bool write, …)` since Linux
//! 6.14 (include/trace/events/mmap_lock.h); user space attaches them to no other.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{raw_tracepoint, tracepoint};
use aya_ebpf::programs::{RawTracePointContext, TracePointContext};
use leakprobe_ebpf::{FILLING_ADVICE, PendingCall, counter, kind};

use super::{enter, event, is_error, succeeded, take_pending};
use crate::maps::PENDING;
use crate::record::{count, send, send_plain, target_tid};
use crate::regs::{self, CallRegs};
use crate::stack::PAGE_MASK;

/// By how much more the kernel looks, to align what it found to a huge page (Linux `mm/huge_memory.c`,
/// `__thp_get_unmapped_area`, since 6.7).
const HUGE_PAGE_BYTES: u64 = 2 << 20;
/// Where the trace record has what was found, how the kernel looked (`VM_UNMAPPED_AREA_TOPDOWN`), and for which
/// length (tracefs `events/mmap/vm_unmapped_area/format`).
const AREA_ADDR_OFFSET: usize = 8;
const AREA_FLAGS_OFFSET: usize = 24;
const AREA_LENGTH_OFFSET: usize = 32;

const TOPDOWN: u32 = 1;
const MAP_FIXED: u64 = 0x10;
const MAP_HUGETLB: u64 = 0x4_0000;
const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;
const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;

#[raw_tracepoint]
pub fn lock_acquired(ctx: RawTracePointContext) -> u32 {
    let for_writing: u64 = ctx.arg(1);
    let success: u64 = ctx.arg(2);
    if success & 1 != 0 && target_tid().is_some() {
        try_acquired(for_writing & 1 != 0).unwrap_or_else(count);
    }
    0
}

#[inline(always)]
fn try_acquired(for_writing: bool) -> Result<(), u32> {
    let regs = CallRegs::read(regs::current_addr()).ok_or(counter::CALLS_UNREADABLE)?;
    let number = regs.number();
    if number == MADVISE_NUMBER {
        // It takes the lock for each piece that it fills, and is sent each time: the fill is the same.
        let args = regs.args();
        let fills = FILLING_ADVICE.contains(&args[2]);
        return if fills { enter(kind::MADVISE, args, 0) } else { Ok(()) };
    }
    match kind_of(number) {
        Some(kind) if for_writing => enter(kind, regs.args(), 0),
        _ => Ok(()),
    }
}

const MADVISE_NUMBER: u64 = 28;

/// x86_64's numbers of the calls that take the lock (arch/x86/entry/syscalls/syscall_64.tbl).
#[inline(always)]
fn kind_of(number: u64) -> Option<u32> {
    match number {
        9 => Some(kind::MMAP),
        10 => Some(kind::MPROTECT),
        11 => Some(kind::MUNMAP),
        12 => Some(kind::BRK),
        25 => Some(kind::MREMAP),
        149 => Some(kind::MLOCK),
        325 => Some(kind::MLOCK2),
        _ => None,
    }
}

#[tracepoint]
pub fn area_found(ctx: TracePointContext) -> u32 {
    if target_tid().is_none() {
        return 0;
    }
    if let Some(call) = PENDING.get_ptr_mut(bpf_get_current_pid_tgid()) {
        // SAFETY: the entry is this thread's own; the trace record has both words, by the format above.
        unsafe {
            let record = ctx.as_ptr().cast::<u8>();
            (*call).area_addr = record.add(AREA_ADDR_OFFSET).cast::<u64>().read();
            (*call).area_flags = record.add(AREA_FLAGS_OFFSET).cast::<u64>().read() as u32;
            (*call).area_bytes = record.add(AREA_LENGTH_OFFSET).cast::<u64>().read();
        }
    }
    0
}

#[raw_tracepoint]
pub fn lock_released(ctx: RawTracePointContext) -> u32 {
    if let Some(tid) = target_tid() {
        try_released(&ctx, tid).unwrap_or_else(count);
    }
    0
}

#[inline(always)]
fn try_released(ctx: &RawTracePointContext, tid: u32) -> Result<(), u32> {
    // Most releases follow no acquisition for writing, or one in another system call.
    let Some(call) = take_pending() else { return Ok(()) };
    let result = result(&call).ok_or(counter::CALLS_UNPLACED)?;
    if !succeeded(call.kind, &call, result) {
        return Ok(());
    }
    let mut event = event(tid, call.kind, &call, result);
    if call.kind == kind::MUNMAP || call.kind == kind::MPROTECT {
        return send_plain(&event, counter::CALLS_RING_FULL);
    }
    send::<true, _>(ctx, &mut event, core::ptr::null(), counter::CALLS_RING_FULL)
}

/// What the call will return, if nothing fails that these tracepoints do not show: mostly for want of
/// memory, and then nothing becomes resident there.
#[inline(always)]
fn result(call: &PendingCall) -> Option<u64> {
    match call.kind {
        kind::MMAP => mapped_addr(call),
        kind::MREMAP => moved_addr(call),
        kind::BRK => Some(call.args[0]),
        _ => Some(0),
    }
}

#[inline(always)]
fn mapped_addr(call: &PendingCall) -> Option<u64> {
    let [hint_addr, len_bytes, _, flags, _, file_offset] = call.args;
    if flags & MAP_FIXED_NOREPLACE != 0 {
        return None; // fails where something is mapped
    }
    if flags & MAP_FIXED != 0 {
        return Some(hint_addr);
    }
    if call.area_bytes == 0 {
        let hint_addr = hint_addr & !PAGE_MASK;
        return (hint_addr != 0).then_some(hint_addr); // free, so it was taken
    }
    if flags & MAP_HUGETLB != 0 {
        return Some(call.area_addr);
    }
    found_addr(call, len_bytes, file_offset)
}

#[inline(always)]
fn moved_addr(call: &PendingCall) -> Option<u64> {
    let [old_addr, old_bytes, new_bytes, flags, new_addr, _] = call.args;
    if flags & MREMAP_FIXED != 0 {
        return Some(new_addr);
    }
    if call.area_bytes != 0 {
        // A mapping that is aligned to huge pages stays as it was, unless it has been moved before.
        return found_addr(call, new_bytes, old_addr);
    }
    let may_fail = new_bytes > old_bytes && flags & MREMAP_MAYMOVE == 0;
    (!may_fail).then_some(old_addr)
}

/// Where the kernel puts `len_bytes` of something from `offset` on, in the area that it found.
#[inline(always)]
fn found_addr(call: &PendingCall, len_bytes: u64, offset: u64) -> Option<u64> {
    let len_bytes = len_bytes.wrapping_add(PAGE_MASK) & !PAGE_MASK;
    if is_error(call.area_addr) {
        return None;
    }
    if call.area_bytes == len_bytes {
        return Some(call.area_addr);
    }
    if call.area_bytes != len_bytes.wrapping_add(HUGE_PAGE_BYTES) {
        return None;
    }
    let up_bytes = offset.wrapping_sub(call.area_addr) & (HUGE_PAGE_BYTES - 1);
    let goes_to_the_end = up_bytes == 0 && call.area_flags & TOPDOWN != 0;
    Some(call.area_addr + if goes_to_the_end { HUGE_PAGE_BYTES } else { up_bytes })
}
