//! A captured thread → the addresses of its frames, through C code and across the borders to Go.
//!
//! Exact where it can be: C by its unwind tables, Go by the frame sizes of its pclntab. The surprise is
//! the race detector: linked by Go, its C++ code has neither unwind tables nor frame pointers, so its
//! frames cannot be walked. But Go enters it in one place, which keeps Go's stack pointer in a register:
//! the kernel side found that one, and the walk goes on from there.

mod native;

use self::native::NativeUnwinder;
use crate::address::AddrRange;
use crate::runtimes::go::code::GoCode;
use crate::runtimes::go::pclntab::Role;
use crate::target::modules::Module;
use crate::trace::decode::RawStack;
use crate::trace::recording::Unwound;

/// Frames kept of one stack; deeper ones end early and are counted as truncated.
const MAX_FRAMES: usize = 128;

/// Unwinds stacks of one process.
pub struct Unwinder<'a> {
    native: NativeUnwinder,
    go: Vec<GoCode<'a>>,
    /// Where files are mapped whose code runs.
    code: Vec<AddrRange>,
}

/// The registers an unwinder needs.
#[derive(Clone, Copy, Debug)]
struct Registers {
    ip: u64,
    sp: u64,
    bp: u64,
    /// Whether `ip` is a return address, and so the address after a call.
    returned: bool,
}

enum Step {
    To(Registers),
    Root,
    Lost,
}

/// How a Go function is left towards its caller.
enum GoFrame {
    /// The outermost one.
    Root,
    /// Switches stacks, without a frame of its own: the frame pointer leads across.
    Switch,
    /// Keeps its return address so many bytes above the stack pointer.
    Sized(u64),
    /// Not Go: C code that Go linked in.
    Foreign,
}

impl<'a> Unwinder<'a> {
    /// Reads the unwind tables of `modules`.
    pub fn new(modules: &[Module], go: Vec<GoCode<'a>>) -> Self {
        let code = modules.iter().flat_map(Module::code_ranges).collect();
        Self { native: NativeUnwinder::new(modules), go, code }
    }

    /// The frames of a captured thread, innermost first.
    pub fn unwind(&mut self, raw: &RawStack<'_>) -> Unwound {
        let exact = self.walk(raw);
        if !exact.truncated {
            return exact;
        }
        // The kernel's own walk along frame pointers, of code that keeps them and was not copied. Where
        // code uses that register for something else, it leads out of all code: there it ends.
        let by_pointers: Vec<u64> = raw.frames().take_while(|addr| self.is_code(*addr)).collect();
        if by_pointers.len() <= exact.addrs.len() {
            return exact;
        }
        let truncated = by_pointers.len() >= leakprobe_ebpf::MAX_FRAMES || !self.ends_at_root(&by_pointers);
        Unwound { addrs: by_pointers, truncated }
    }

    fn walk(&mut self, raw: &RawStack<'_>) -> Unwound {
        let mut registers = Registers { ip: raw.ip(), sp: raw.sp(), bp: raw.bp(), returned: false };
        let mut addrs = vec![registers.ip];
        let mut in_go = false;
        while addrs.len() < MAX_FRAMES {
            match self.step(raw, registers, &mut in_go) {
                Step::To(next) => {
                    addrs.push(next.ip);
                    registers = next;
                }
                Step::Root => return Unwound { addrs, truncated: false },
                Step::Lost => break,
            }
        }
        Unwound { addrs, truncated: true }
    }

    /// `in_go` is set once Go frames were reached: the way in is taken once.
    fn step(&mut self, raw: &RawStack<'_>, at: Registers, in_go: &mut bool) -> Step {
        let Some(frame) = self.go_frame(at) else { return self.native.step(raw, at) };
        let entered_race = at.returned && self.is_race_call(at.ip);
        if (matches!(frame, GoFrame::Foreign) || entered_race) && !*in_go {
            *in_go = true;
            return match self.native.step(raw, at) {
                Step::To(next) if self.native.covers(at.ip) && !entered_race => {
                    *in_go = false; // linked by the C linker: its tables lead on
                    Step::To(next)
                }
                _ => enter_go(raw),
            };
        }
        match frame {
            GoFrame::Root => Step::Root,
            GoFrame::Switch => follow_frame_pointer(raw, at),
            GoFrame::Sized(frame_bytes) => match leave_sized(raw, at, frame_bytes) {
                Some(next) => Step::To(next),
                None => follow_frame_pointer(raw, at),
            },
            GoFrame::Foreign => Step::Lost,
        }
    }

    /// `None` outside Go's text.
    fn go_frame(&self, at: Registers) -> Option<GoFrame> {
        let code_addr = at.ip - u64::from(at.returned && at.ip > 0);
        let go = self.go.iter().find(|go| go.text.contains(code_addr))?;
        let svma = code_addr.wrapping_sub(go.load_bias);
        let Some(function) = go.pclntab.lookup(svma) else { return Some(GoFrame::Foreign) };
        Some(match function.role() {
            Role::Outermost => GoFrame::Root,
            Role::SystemStack | Role::SystemStackSwitch | Role::CgoCall | Role::Morestack => GoFrame::Switch,
            _ => function.frame_bytes(svma).map_or(GoFrame::Foreign, GoFrame::Sized),
        })
    }

    fn is_race_call(&self, addr: u64) -> bool {
        self.go.iter().filter_map(|go| go.race_calls).any(|range| range.contains(addr))
    }

    fn is_code(&self, addr: u64) -> bool {
        self.code.iter().any(|span| span.contains(addr))
    }

    fn ends_at_root(&self, addrs: &[u64]) -> bool {
        let Some(&ip) = addrs.last() else { return false };
        let at = Registers { ip, sp: 0, bp: 0, returned: addrs.len() > 1 };
        matches!(self.go_frame(at), Some(GoFrame::Root))
    }
}

/// From C code that cannot be walked to the Go code that called it: by the stack pointer that `racecall`
/// kept, else along the goroutine's frame pointers, which skips the innermost caller.
fn enter_go(raw: &RawStack<'_>) -> Step {
    let caller_sp = raw.caller_sp();
    if let Some(ip) = raw.memory_word(caller_sp).filter(|_| caller_sp != 0) {
        return Step::To(Registers { ip, sp: caller_sp + 8, bp: 0, returned: true });
    }
    match raw.chain_start_addr() {
        Some(bp) => follow_frame_pointer(raw, Registers { ip: 0, sp: 0, bp, returned: true }),
        None => Step::Lost,
    }
}

/// Go's frames on x86_64: the return address `frame_bytes` above the stack pointer, and below it, where
/// there is a frame at all, the caller's frame pointer (Go's `cmd/internal/obj/x86`, since 1.7).
fn leave_sized(raw: &RawStack<'_>, at: Registers, frame_bytes: u64) -> Option<Registers> {
    let return_slot_addr = at.sp.checked_add(frame_bytes).filter(|_| at.sp != 0)?;
    let ip = raw.memory_word(return_slot_addr)?;
    let bp = match frame_bytes {
        0 => at.bp,
        _ => raw.memory_word(return_slot_addr - 8)?,
    };
    (ip != 0).then_some(Registers { ip, sp: return_slot_addr + 8, bp, returned: true })
}

fn follow_frame_pointer(raw: &RawStack<'_>, at: Registers) -> Step {
    let (Some(bp), Some(ip)) = (raw.memory_word(at.bp), raw.memory_word(at.bp.wrapping_add(8))) else {
        return Step::Lost;
    };
    if at.bp == 0 || ip == 0 {
        return Step::Lost;
    }
    Step::To(Registers { ip, sp: at.bp + 16, bp, returned: true })
}
