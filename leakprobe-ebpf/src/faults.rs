//! Page faults: `exceptions:page_fault_user` and `exceptions:page_fault_kernel`.
//!
//! Attached as raw tracepoints (arch/x86/include/asm/trace/exceptions.h), whose arguments are
//! `(unsigned long address, struct pt_regs *regs, unsigned long error_code)`: that spares building the
//! trace record for every fault of the machine, and hands over the registers on kernels without
//! `bpf_task_pt_regs`. They fire on entry, before the fault is handled: a fault that ends in SIGSEGV
//! is recorded too, and user space forgets it since its page never becomes resident.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use leakprobe_ebpf::{Event, counter, kind};

use crate::record::{count, is_capturing, send, target_tid};

#[raw_tracepoint]
pub fn fault_user(ctx: RawTracePointContext) -> u32 {
    if let Err(slot) = try_fault(&ctx, kind::FAULT_USER) {
        count(slot);
        debug!(&ctx, "a user fault was dropped, counter {}", slot);
    }
    0
}

#[raw_tracepoint]
pub fn fault_kernel(ctx: RawTracePointContext) -> u32 {
    if let Err(slot) = try_fault(&ctx, kind::FAULT_KERNEL) {
        count(slot);
        debug!(&ctx, "a kernel fault was dropped, counter {}", slot);
    }
    0
}

#[inline(always)]
fn try_fault(ctx: &RawTracePointContext, kind: u32) -> Result<(), u32> {
    let Some(tid) = target_tid() else { return Ok(()) };
    if kind == kind::FAULT_KERNEL && is_capturing(tid) {
        return Ok(());
    }
    let fault_addr: u64 = ctx.arg(0);
    if fault_addr >> 63 != 0 {
        return Ok(()); // the kernel's own half: not the process's memory
    }
    count(counter::FAULTS_SEEN);
    let regs: *const u8 = ctx.arg(1);
    let error_code: u64 = ctx.arg(2);
    // SAFETY: the helper takes no pointer.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // Three known zeroes would be a call of memset, which here is a loop over bytes, for every fault.
    let unused = core::hint::black_box(0);
    let mut event = Event {
        kind,
        tid,
        time_ns,
        addr: fault_addr,
        stack_weight: 0,
        low_arg: error_code as u32,
        entered_ns: time_ns,
        args: [unused; 3],
    };
    if kind == kind::FAULT_USER {
        return send::<true, _>(ctx, &mut event, regs, counter::FAULTS_RING_FULL);
    }
    // The registers of a fault taken in kernel mode are the kernel's, not the program's.
    send::<false, _>(ctx, &mut event, core::ptr::null(), counter::FAULTS_RING_FULL)
}
