//! The process's ends: a thread's exit, and exec, after which every address is void.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use leakprobe_ebpf::{Event, counter, kind};

use crate::record::{count, send_plain, target_tid};

#[raw_tracepoint]
pub fn thread_exit(_ctx: RawTracePointContext) -> u32 {
    record(kind::THREAD_EXIT)
}

#[raw_tracepoint]
pub fn process_exec(_ctx: RawTracePointContext) -> u32 {
    record(kind::EXEC)
}

#[inline(always)]
fn record(kind: u32) -> u32 {
    let Some(tid) = target_tid() else { return 0 };
    // SAFETY: the helper takes no pointer.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let event =
        Event { kind, tid, time_ns, addr: 0, stack_weight: 0, low_arg: 0, entered_ns: time_ns, args: [0; 3] };
    if let Err(slot) = send_plain(&event, counter::EXITS_RING_FULL) {
        count(slot);
    }
    0
}
