//! Where the fields of a goroutine lie.

use super::fields::layout;

layout! {
    /// Offsets in `g`, in bytes.
    pub struct GoroutineLayout {
        /// Lowest address of its stack, and the one after the highest.
        stack_offset: usize = "g.stack",
        /// The thread that runs it.
        thread_offset: usize = "g.m",
        /// Where it goes on.
        sp_offset: usize = "g.sched.sp",
        /// Likewise.
        pc_offset: usize = "g.sched.pc",
        /// On arm64 only, of a goroutine that has not run yet.
        lr_offset: usize = "g.sched.lr",
        /// The frame pointer.
        bp_offset: usize = "g.sched.bp",
        /// The same of a system call; `syscallpc` follows.
        syscallsp_offset: usize = "g.syscallsp",
        /// Since Go 1.23.
        syscallbp_offset: Option<usize> = "g.syscallbp",
        /// What it does. 4 bytes.
        status_offset: usize = "g.atomicstatus",
        /// Since when it waits.
        waitsince_offset: usize = "g.waitsince",
        /// What for. 1 byte.
        waitreason_offset: usize = "g.waitreason",
        /// The `go` statement it came from.
        gopc_offset: usize = "g.gopc",
        /// Its function.
        startpc_offset: usize = "g.startpc",
    }
}

impl GoroutineLayout {
    /// How much of a goroutine is read: up to the last field that is used.
    pub fn read_bytes(&self) -> usize {
        let offsets = [
            self.stack_offset + 8,
            self.sp_offset,
            self.pc_offset,
            self.lr_offset,
            self.bp_offset,
            self.syscallsp_offset + 8,
            self.syscallbp_offset.unwrap_or(0),
            self.waitsince_offset,
            self.status_offset,
            self.waitreason_offset,
            self.gopc_offset,
            self.startpc_offset,
        ];
        offsets.into_iter().max().unwrap_or(0) + 8
    }
}
