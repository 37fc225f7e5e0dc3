//! The kernel functions behind the system calls (`__x64_sys_mmap` and so on), by fentry and fexit, or by
//! kprobe and kretprobe. Their one argument points to the user's registers
//! (arch/x86/include/asm/syscall_wrapper.h, since Linux 4.17).

use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use leakprobe_ebpf::{counter, kind};

use super::{enter, leave};
use crate::record::{count, target_tid};
use crate::regs::CallRegs;

macro_rules! watched_call {
    ($fentry:ident, $fexit:ident, $kprobe:ident, $kretprobe:ident, $kind:expr) => {
        #[fentry]
        pub fn $fentry(ctx: FEntryContext) -> i32 {
            if target_tid().is_some() {
                try_enter($kind, ctx.arg(0)).unwrap_or_else(count);
            }
            0
        }

        #[fexit]
        pub fn $fexit(ctx: FExitContext) -> i32 {
            if let Some(tid) = target_tid() {
                // The result stands behind the arguments, of which there is one.
                leave(&ctx, tid, $kind, ctx.arg(1)).unwrap_or_else(count);
            }
            0
        }

        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            if target_tid().is_some() {
                try_enter($kind, ctx.arg(0).unwrap_or(0)).unwrap_or_else(count);
            }
            0
        }

        #[kretprobe]
        pub fn $kretprobe(ctx: RetProbeContext) -> u32 {
            if let Some(tid) = target_tid() {
                leave(&ctx, tid, $kind, ctx.ret()).unwrap_or_else(count);
            }
            0
        }
    };
}

watched_call!(fentry_mmap, fexit_mmap, kprobe_mmap, kretprobe_mmap, kind::MMAP);
watched_call!(fentry_munmap, fexit_munmap, kprobe_munmap, kretprobe_munmap, kind::MUNMAP);
watched_call!(fentry_mremap, fexit_mremap, kprobe_mremap, kretprobe_mremap, kind::MREMAP);
watched_call!(fentry_brk, fexit_brk, kprobe_brk, kretprobe_brk, kind::BRK);
watched_call!(fentry_madvise, fexit_madvise, kprobe_madvise, kretprobe_madvise, kind::MADVISE);
watched_call!(fentry_mprotect, fexit_mprotect, kprobe_mprotect, kretprobe_mprotect, kind::MPROTECT);
watched_call!(fentry_mlock, fexit_mlock, kprobe_mlock, kretprobe_mlock, kind::MLOCK);
watched_call!(fentry_mlock2, fexit_mlock2, kprobe_mlock2, kretprobe_mlock2, kind::MLOCK2);

#[inline(always)]
fn try_enter(kind: u32, regs_addr: u64) -> Result<(), u32> {
    let regs = CallRegs::read(regs_addr).ok_or(counter::CALLS_UNREADABLE)?;
    enter(kind, regs.args(), regs_addr)
}
