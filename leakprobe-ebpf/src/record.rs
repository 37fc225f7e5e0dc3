//! Sending events: whose they are, whether they get a stack, what happens when there is no room.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, bpf_pidns_info};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_ns_current_pid_tgid};
use leakprobe_ebpf::{
    Event, FAULT_BYTES, RING_BUSY_BYTES, RING_WAKE_BYTES, STACK_HEAD_BYTES, STACK_TAIL_BYTES, Settings,
    counter, kind,
};

use crate::maps::{COUNTERS, EVENTS, SCRATCH, SETTINGS, Scratch};
use crate::sample;
use crate::stack;

/// One event in 16 looks whether user space should be woken.
const LOOK_MASK: u64 = 15;

/// The current thread's id in its own PID namespace, where it belongs to the watched process.
#[inline(always)]
pub fn target_tid() -> Option<u32> {
    let settings = SETTINGS.get(0)?;
    if settings.namespace_inode != 0 {
        return namespaced_tid(settings);
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    ((pid_tgid >> 32) as u32 == settings.watched_tgid).then_some(pid_tgid as u32)
}

/// The same where that namespace is a container's.
#[inline(always)]
fn namespaced_tid(settings: &Settings) -> Option<u32> {
    let mut ids = bpf_pidns_info { pid: 0, tgid: 0 };
    let len_bytes = size_of::<bpf_pidns_info>() as u32;
    // SAFETY: the helper fills `ids`, whose length it is told. It refuses where the thread's namespace is another one.
    let refused = unsafe {
        bpf_get_ns_current_pid_tgid(settings.namespace_dev, settings.namespace_inode, &raw mut ids, len_bytes)
    };
    (refused == 0 && ids.tgid == settings.watched_tgid).then_some(ids.pid)
}

/// Adds one to a slot of [`counter`].
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this processor's own slot, which nobody else writes.
        unsafe { *value += 1 };
    }
}

/// Sends `event` as it is, whole or, for faults, cut. `Err` is the counter to raise.
#[inline(always)]
pub fn send_plain(event: &Event, full_slot: u32) -> Result<(), u32> {
    // Looking how much waits costs a tenth of sending: of a flood of events, the time's low bits pick few.
    let looks = (event.time_ns >> 6) & LOOK_MASK == 0;
    let waiting_bytes = if looks { EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) } else { 0 };
    let flags = wake_flags(waiting_bytes);
    if event.kind == kind::FAULT_USER || event.kind == kind::FAULT_KERNEL {
        let mut entry = EVENTS.reserve::<[u64; FAULT_BYTES / 8]>(0).ok_or(full_slot)?;
        // SAFETY: an event is longer than FAULT_BYTES, and aligned to 8 bytes.
        entry.write(unsafe { *(&raw const *event).cast::<[u64; FAULT_BYTES / 8]>() });
        entry.submit(flags);
    } else {
        let mut entry = EVENTS.reserve::<Event>(0).ok_or(full_slot)?;
        entry.write(*event);
        entry.submit(flags);
    }
    Ok(())
}

/// Sends `event`, with a stack where the sample falls on it. `regs` is the kernel's copy of the user
/// registers where the tracepoint has them, else null. `INTO_GO` looks for the way from native code back
/// to Go, which takes the verifier a tenth of a second a program: only where that happens often.
#[inline(always)]
pub fn send<const INTO_GO: bool, C: EbpfContext>(
    ctx: &C,
    event: &mut Event,
    regs: *const u8,
    full_slot: u32,
) -> Result<(), u32> {
    let is_fault = event.kind == kind::FAULT_USER || event.kind == kind::FAULT_KERNEL;
    if !is_fault {
        count(counter::CALLS_SEEN);
    }
    let weight = sample::weight(event.time_ns, is_fault);
    if weight == 0 {
        return send_plain(event, full_slot);
    }
    let waiting_bytes = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    if waiting_bytes > RING_BUSY_BYTES {
        count(counter::STACKS_RING_BUSY);
        return send_plain(event, full_slot);
    }
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(counter::SCRATCH_MISSING)?;
    // SAFETY: a word of this processor's own entry, which a program that this one interrupts may be using.
    if unsafe { (*scratch).owner } != 0 {
        count(counter::STACKS_SCRATCH_BUSY);
        return send_plain(event, full_slot);
    }
    // SAFETY: the entry is this processor's, nobody uses it, and `owner` keeps programs that interrupt this one out.
    let scratch = unsafe { &mut *scratch };
    scratch.owner = event.tid;
    let sent = send_with_stack::<INTO_GO, C>(ctx, scratch, event, regs, weight, waiting_bytes, full_slot);
    scratch.owner = 0;
    sent
}

/// Whether this very thread's stack is being captured on this processor: then the fault is the capture's
/// own, on memory that is not there, and none of the program's.
#[inline(always)]
pub fn is_capturing(tid: u32) -> bool {
    match SCRATCH.get_ptr(0) {
        // SAFETY: a word of this processor's own entry.
        Some(scratch) => unsafe { (*scratch).owner == tid },
        None => false,
    }
}

#[inline(always)]
fn send_with_stack<const INTO_GO: bool, C: EbpfContext>(
    ctx: &C,
    scratch: &mut Scratch,
    event: &mut Event,
    regs: *const u8,
    weight: u32,
    waiting_bytes: u64,
    full_slot: u32,
) -> Result<(), u32> {
    let Some(tail_bytes) = stack::capture::<INTO_GO, C>(ctx, scratch, regs) else {
        count(counter::STACKS_UNREADABLE);
        return send_plain(event, full_slot);
    };
    event.stack_weight = weight;
    scratch.record.event = *event;
    let flags = wake_flags(waiting_bytes);
    let start = (&raw const scratch.record).cast::<u8>();
    // The verifier must see the bound, and the compiler must not know that it always holds.
    let tail_bytes = core::hint::black_box(tail_bytes).min(STACK_TAIL_BYTES);
    // SAFETY: a record is as long as its head and the longest tail.
    let bytes = unsafe { core::slice::from_raw_parts(start, STACK_HEAD_BYTES + tail_bytes) };
    EVENTS.output::<[u8]>(bytes, flags).map_err(|_| full_slot)
}

#[inline(always)]
fn wake_flags(waiting_bytes: u64) -> u64 {
    u64::from(if waiting_bytes > RING_WAKE_BYTES { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
