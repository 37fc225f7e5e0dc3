//! Where user registers lie in the kernel's copy of them: the ABI's `struct pt_regs` of x86_64
//! (arch/x86/include/asm/ptrace.h), whose order has not changed since it was written.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs};

use crate::maps::HAS_TASK_REGS;

/// Words of the structure.
pub const WORDS: usize = 21;
pub const R15: usize = 0;
pub const R14: usize = 1;
pub const R13: usize = 2;
pub const R12: usize = 3;
pub const BP: usize = 4;
pub const BX: usize = 5;
pub const R10: usize = 7;
pub const IP: usize = 16;
pub const SP: usize = 19;

/// The registers from r10 to orig_ax: all arguments of a system call, and its number.
const CALL_FIRST: usize = 7;
const CALL_WORDS: usize = 9;

/// Where the kernel keeps the current thread's user registers; 0 where it does not say.
#[inline(always)]
pub fn current_addr() -> u64 {
    if HAS_TASK_REGS.load() == 0 {
        return 0;
    }
    // SAFETY: the current task is always there, and so are its user registers in a system call.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
}

/// What a system call was given.
pub struct CallRegs([u64; CALL_WORDS]);

impl CallRegs {
    #[inline(always)]
    pub fn read(regs_addr: u64) -> Option<Self> {
        let mut words = [0u64; CALL_WORDS];
        let from = (regs_addr as *const u64).wrapping_add(CALL_FIRST);
        // SAFETY: the helper checks the address; `words` is as long as said.
        let read =
            unsafe { bpf_probe_read_kernel(words.as_mut_ptr().cast(), (CALL_WORDS * 8) as u32, from.cast()) };
        (read == 0).then_some(Self(words))
    }

    /// rdi, rsi, rdx, r10, r8, r9.
    #[inline(always)]
    pub fn args(&self) -> [u64; 6] {
        let words = &self.0;
        [words[7], words[6], words[5], words[0], words[2], words[1]]
    }

    /// orig_rax.
    #[inline(always)]
    pub fn number(&self) -> u64 {
        self.0[8]
    }
}
