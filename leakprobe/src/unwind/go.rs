//! Go frames, by the frame sizes of the function table, and the borders where a thread changes its stack.
//!
//! A thread of Go has two stacks, the goroutine's and its own, and goes back and forth between them: to the runtime and
//! to C by `systemstack`, `mcall` and `asmcgocall`, back to Go by `cgocallback`. At each of these the frame pointer
//! leads across, since nobody changes it there; where it does not, `g.sched` says where the goroutine was left.

use super::Ending;
use super::registers::{RBP, Registers};
use crate::runtimes::go::code::GoCode;
use crate::runtimes::go::pclntab::{Function, Role};
use crate::trace::decode::RawStack;

/// How a frame is left towards its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoFrame {
    /// The outermost one.
    Root,
    /// Switches stacks: the frame pointer leads across.
    Switch,
    /// `mcall`: likewise, where it keeps the frame pointer; else the thread's own affair.
    Scheduler,
    /// `morestack`: only what the goroutine saved leads across.
    Left,
    /// Called by C: the frame pointer leads to the thread's own stack and C, the frame size past them.
    Callback(u64),
    /// Keeps its return address so many bytes above the stack pointer.
    Sized(u64),
    /// Called by the kernel, and returns to where nothing called it.
    Handler(u64),
    /// Where the kernel's frame of a signal starts.
    SignalReturn,
    /// Not Go: C code that Go linked in.
    Foreign,
}

/// Where general registers are saved in the frame of a signal, from the stack pointer that its handler returns with:
/// `struct ucontext` (Linux `arch/x86/include/uapi/asm/sigcontext.h`, part of the ABI).
const SIGNAL_BP_OFFSET: u64 = 120;
const SIGNAL_SP_OFFSET: u64 = 160;
const SIGNAL_IP_OFFSET: u64 = 168;

/// How the frame at `at` is left; `None` outside Go's text.
pub fn frame(all: &[GoCode<'_>], at: &Registers) -> Option<GoFrame> {
    let go = all.iter().find(|go| go.text.contains(at.code_addr()))?;
    let Some((function, svma)) = function_at(go, at) else { return Some(GoFrame::Foreign) };
    let sized = || function.frame_bytes(svma);
    Some(match function.role() {
        Role::Outermost => GoFrame::Root,
        Role::SystemStack | Role::CgoCall => GoFrame::Switch,
        Role::Scheduler => GoFrame::Scheduler,
        Role::Morestack => GoFrame::Left,
        Role::SignalReturn => GoFrame::SignalReturn,
        Role::SignalHandler => sized().map_or(GoFrame::Foreign, GoFrame::Handler),
        Role::CgoCallback => sized().map_or(GoFrame::Switch, GoFrame::Callback),
        _ => sized().map_or(GoFrame::Foreign, GoFrame::Sized),
    })
}

/// The function at `at` and the address that counts in it. A goroutine that left its stack is said to be in
/// `systemstack_switch`, at its first instruction or behind its prologue: no call ever returns there.
fn function_at<'a>(go: &GoCode<'a>, at: &Registers) -> Option<(Function<'a>, u64)> {
    let ip_svma = at.ip.wrapping_sub(go.load_bias);
    let is_switch = |function: &Function<'_>| function.role() == Role::SystemStackSwitch;
    if let Some(function) = go.pclntab.lookup(ip_svma).filter(is_switch) {
        return Some((function, ip_svma));
    }
    let svma = at.code_addr().wrapping_sub(go.load_bias);
    Some((go.pclntab.lookup(svma)?, svma))
}

/// Whether `ip` is where `systemstack` and `asmcgocall` say that a goroutine is.
pub fn is_switch(all: &[GoCode<'_>], ip: u64) -> bool {
    let found = all.iter().find(|go| go.text.contains(ip));
    let function = found.and_then(|go| go.pclntab.lookup(ip.wrapping_sub(go.load_bias)));
    function.is_some_and(|function| function.role() == Role::SystemStackSwitch)
}

/// Whether the C code at `addr` is that of Go's package runtime/cgo, which Go's own linker takes in without tables.
pub fn is_cgo_glue(all: &[GoCode<'_>], addr: u64) -> bool {
    let found = all.iter().find(|go| go.text.contains(addr));
    let function = found.and_then(|go| go.pclntab.lookup(addr.wrapping_sub(go.load_bias)));
    let names = ["_cgo_", "x_cgo_", "crosscall", "threadentry"];
    function.is_some_and(|function| names.iter().any(|start| function.name().starts_with(start)))
}

/// Go's frames on x86_64: the return address `frame_bytes` above the stack pointer, and below it, where
/// there is a frame at all, the caller's frame pointer (Go's `cmd/internal/obj/x86`, since 1.7).
pub fn leave_sized(raw: &RawStack<'_>, at: &Registers, frame_bytes: u64) -> Option<Registers> {
    let return_slot_addr = at.sp.checked_add(frame_bytes).filter(|_| at.sp != 0)?;
    let ip = raw.memory_word(return_slot_addr)?;
    let bp = match frame_bytes {
        0 => at.get(RBP)?,
        _ => raw.memory_word(return_slot_addr.checked_sub(8)?)?,
    };
    (ip != 0).then(|| Registers::new(ip, return_slot_addr.saturating_add(8), bp, true))
}

/// Along the frame pointer.
pub fn follow_frame_pointer(raw: &RawStack<'_>, bp: u64) -> Result<Registers, Ending> {
    let words = raw.memory_word(bp).zip(raw.memory_word(bp.wrapping_add(8)));
    match words.filter(|(_, ip)| bp != 0 && *ip != 0) {
        Some((saved_bp, ip)) => Ok(Registers::new(ip, bp.wrapping_add(16), saved_bp, true)),
        None if bp != 0 && raw.is_beyond_copy(bp) => Err(Ending::Depth),
        None => Err(Ending::Switch),
    }
}

/// Where the goroutine was when it left its stack.
pub fn left(raw: &RawStack<'_>) -> Option<Registers> {
    let left = raw.left_at()?;
    Some(Registers::new(left.ip, left.sp, left.bp, false))
}

/// What a signal interrupted: anything, anywhere.
pub fn leave_signal(raw: &RawStack<'_>, at: &Registers) -> Option<Registers> {
    let word = |offset| raw.memory_word(at.sp.checked_add(offset)?);
    Some(Registers::new(word(SIGNAL_IP_OFFSET)?, word(SIGNAL_SP_OFFSET)?, word(SIGNAL_BP_OFFSET)?, false))
}
