//! One goroutine, as its `runtime.g` says it.
//!
//! Refuses what cannot be one: a state that does not exist, a stack that is no range, a stack pointer outside
//! of the stack. The target runs on, so a goroutine may well be caught between two states.

use crate::address::AddrRange;
use crate::runtimes::go::layout::GoroutineLayout;

/// Set in `atomicstatus` while the collector scans the stack.
const SCAN_BIT: u32 = 0x1000;
/// Go's own limit is 1 GB (`runtime.maxstacksize`), unless a program sets another one.
const MAX_STACK_BYTES: u64 = 1 << 36;

/// What a goroutine does (Go `src/runtime/runtime2.go`, `_Gidle` and following; checked for 1.19 to 1.27).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Would run if there were a processor.
    Runnable = 1,
    /// Runs: nothing says where.
    Running = 2,
    /// In a system call, or in C.
    Syscall = 3,
    /// Blocked.
    Waiting = 4,
    /// Its stack is being moved.
    CopyStack = 8,
    /// Stopped for the collector.
    Preempted = 9,
    /// Blocked for ever, as the collector found (since Go 1.26).
    Leaked = 10,
}

impl State {
    /// As in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Runnable => "runnable",
            Self::Running => "running",
            Self::Syscall => "syscall",
            Self::Waiting => "waiting",
            Self::CopyStack => "copystack",
            Self::Preempted => "preempted",
            Self::Leaked => "leaked",
        }
    }

    /// Whether `waitreason` says why.
    pub const fn has_reason(self) -> bool {
        matches!(self, Self::Waiting | Self::Preempted | Self::Leaked)
    }
}

/// Where a goroutine that does not run left its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub pc: u64,
    pub sp: u64,
    pub bp: u64,
    /// Only on arm64, of a goroutine that has not run yet.
    pub lr: u64,
}

/// A goroutine that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goroutine {
    pub state: State,
    /// Number of the reason it waits for.
    pub reason: Option<u8>,
    /// When the collector first saw it wait, as the monotonic clock says; 0 before that.
    pub wait_since_ns: u64,
    pub stack: AddrRange,
    /// `None` while it runs.
    pub saved: Option<Saved>,
    /// The return address of the `go` statement; 0 of those the runtime made.
    pub creator_addr: u64,
    /// Its function.
    pub start_addr: u64,
}

/// What the bytes of a `runtime.g` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A goroutine.
    Live(Goroutine),
    /// The remains of one, kept for the next.
    Dead,
    /// Neither.
    Torn,
}

/// Reads the first [`GoroutineLayout::read_bytes`] of a `runtime.g`.
pub fn parse(bytes: &[u8], layout: &GoroutineLayout) -> Reading {
    let status = word32(bytes, layout.status_offset).map(|status| status & !SCAN_BIT);
    let state = match status {
        Some(1) => State::Runnable,
        Some(2) => State::Running,
        Some(3) => State::Syscall,
        Some(4) => State::Waiting,
        Some(8) => State::CopyStack,
        Some(9) => State::Preempted,
        Some(10) => State::Leaked,
        // 11 is dead too: one kept for threads of C, since Go 1.26.
        Some(6 | 11) => return Reading::Dead,
        _ => return Reading::Torn,
    };
    live(bytes, layout, state).map_or(Reading::Torn, Reading::Live)
}

fn live(bytes: &[u8], layout: &GoroutineLayout, state: State) -> Option<Goroutine> {
    let at = |offset: usize| word64(bytes, offset);
    let stack = AddrRange::new(at(layout.stack_offset)?, at(layout.stack_offset + 8)?)?;
    if stack.len_bytes() > MAX_STACK_BYTES || !stack.start_addr.is_multiple_of(8) {
        return None;
    }
    let saved = match state {
        State::Running | State::CopyStack => None,
        _ => Some(saved(bytes, layout)?),
    };
    if saved.is_some_and(|saved| saved.pc == 0 || !stack.contains(saved.sp)) {
        return None;
    }
    Some(Goroutine {
        state,
        reason: bytes.get(layout.waitreason_offset).copied().filter(|_| state.has_reason()),
        wait_since_ns: at(layout.waitsince_offset)?,
        stack,
        saved,
        creator_addr: at(layout.gopc_offset)?,
        start_addr: at(layout.startpc_offset)?,
    })
}

/// A system call saves apart from the scheduler, and the scheduler's state is then of before.
fn saved(bytes: &[u8], layout: &GoroutineLayout) -> Option<Saved> {
    let at = |offset: usize| word64(bytes, offset);
    let sp = at(layout.syscallsp_offset)?;
    if sp != 0 {
        let bp = layout.syscallbp_offset.map_or(Some(0), at)?;
        return Some(Saved { pc: at(layout.syscallsp_offset + 8)?, sp, bp, lr: 0 });
    }
    Some(Saved {
        pc: at(layout.pc_offset)?,
        sp: at(layout.sp_offset)?,
        bp: at(layout.bp_offset)?,
        lr: at(layout.lr_offset)?,
    })
}

fn word64(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn word32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtimes::go::image::Arch;

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), minor in 19_u32..28) {
            let layout = GoroutineLayout::for_version(minor, Arch::Amd64).unwrap();
            if let Reading::Live(goroutine) = parse(&bytes, &layout) {
                prop_assert!(goroutine.saved.is_none_or(|saved| goroutine.stack.contains(saved.sp)));
            }
        }
    }
}
