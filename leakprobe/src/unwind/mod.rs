//! A captured thread → the addresses of its frames, through C code and across the borders to Go.
//!
//! Exact where it can be: C by its unwind tables, Go by the frame sizes of its pclntab. What leads out of the code of
//! files is no frame: there a stack ends, and says why. The surprise is the race detector: linked by Go, its C++ code
//! has neither unwind tables nor frame pointers, so its frames cannot be walked. But Go enters it in one place, which
//! keeps Go's stack pointer in a register: the kernel side found that one, and the walk goes on from there.

mod go;
mod latecomers;
mod native;
mod registers;
mod rule;
mod tables;

use std::ops::ControlFlow;

use self::go::GoFrame;
use self::latecomers::Latecomers;
use self::native::NativeUnwinder;
use self::registers::{R10, R12, RBX, Registers};
use crate::runtimes::go::code::GoCode;
use crate::target::Target;
use crate::target::maps::Region;
use crate::target::modules::Module;
use crate::trace::decode::RawStack;
pub use crate::trace::recording::Ending;
use crate::trace::recording::Unwound;

/// Frames kept of one stack; deeper ones end early and are counted as truncated.
const MAX_FRAMES: usize = 128;

/// Unwinds stacks of one process.
pub struct Unwinder<'a> {
    native: NativeUnwinder,
    go: Vec<GoCode<'a>>,
    /// Whether a stack came from a thread of Go that the probes do not know yet.
    meets_strangers: bool,
    /// Where code is looked for that was mapped since; `None` where none is expected.
    latecomers: Option<Latecomers<'a>>,
}

type Step = ControlFlow<Ending, Registers>;

/// A walk under way.
struct Walk<'r, 'b> {
    raw: &'r RawStack<'b>,
    addrs: Vec<u64>,
    /// Whether calls from C into Go are followed through the C code, or skipped as Go's own tracebacks do.
    through_callbacks: bool,
    /// Whether there was such a call.
    met_callback: bool,
    /// Whether the goroutine's stack was reached by other means than frame by frame: that is done once.
    has_jumped: bool,
    /// Whether it went on where the goroutine had left its stack: it did so once.
    has_left: bool,
    /// Why frames are missing in between.
    hole: Option<Ending>,
}

impl<'a> Unwinder<'a> {
    /// Reads the unwind tables of `modules` when their code turns up. `regions` is what was mapped when they were opened.
    pub fn new(modules: &[Module], regions: &[Region], go: Vec<GoCode<'a>>) -> Self {
        Self { native: NativeUnwinder::new(modules, regions), go, meets_strangers: false, latecomers: None }
    }

    /// From now on looks for new code where a stack leads to code of no file.
    pub fn expect_latecomers(&mut self, target: &'a Target) {
        self.latecomers = Some(Latecomers::new(target));
    }

    /// Whether since the last call a thread turned up that is Go's and that the probes do not know.
    pub fn met_strangers(&mut self) -> bool {
        std::mem::take(&mut self.meets_strangers)
    }

    /// The frames of a captured thread, innermost first.
    pub fn unwind(&mut self, raw: &RawStack<'_>) -> Unwound {
        self.meets_strangers |= raw.is_thread_unknown();
        if raw.sp() == 0 {
            return self.frames_only(raw);
        }
        let (mut whole, mut met_callback) = self.walk(raw, true);
        if whole.ending == Ending::Elsewhere
            && let Some(native) = self.latecomers.as_mut().and_then(Latecomers::look)
        {
            self.native = native;
            (whole, met_callback) = self.walk(raw, true);
        }
        if whole.ending == Ending::Root || !met_callback {
            return whole;
        }
        // Go keeps its own way past C code that called back into it.
        let (past_callbacks, _) = self.walk(raw, false);
        if past_callbacks.ending == Ending::Root { past_callbacks } else { whole }
    }

    /// The frames, and whether C code called back into Go among them.
    fn walk(&mut self, raw: &RawStack<'_>, through_callbacks: bool) -> (Unwound, bool) {
        let mut walk = Walk {
            raw,
            addrs: Vec::new(),
            through_callbacks,
            met_callback: false,
            has_jumped: false,
            has_left: false,
            hole: None,
        };
        let mut at = first_registers(raw);
        let ending = loop {
            if let Err(ending) = self.native.check_code(at.code_addr()) {
                break ending;
            }
            walk.addrs.push(at.code_addr());
            if walk.addrs.len() == MAX_FRAMES {
                break Ending::Frames;
            }
            match self.step(&mut walk, &at) {
                ControlFlow::Continue(next) => at = next,
                ControlFlow::Break(ending) => break ending,
            }
        };
        let ending = if ending == Ending::Root { walk.hole.unwrap_or(Ending::Root) } else { ending };
        (Unwound { addrs: walk.addrs, ending }, walk.met_callback)
    }

    fn step(&mut self, walk: &mut Walk<'_, '_>, at: &Registers) -> Step {
        let raw = walk.raw;
        let Some(frame) = go::frame(&self.go, at) else { return self.native_step(walk, at) };
        if at.returned && self.is_race_call(at.ip) && !walk.has_jumped {
            return self.jump_to_go(walk, Ending::NoTables, None);
        }
        let along = |bp: u64| match go::follow_frame_pointer(raw, bp) {
            Ok(next) => ControlFlow::Continue(next),
            Err(ending) => ControlFlow::Break(ending),
        };
        match frame {
            GoFrame::Root => ControlFlow::Break(Ending::Root),
            GoFrame::Switch => match along(at.bp()) {
                ControlFlow::Break(ending) if !walk.has_jumped => self.jump_to_go(walk, ending, None),
                step => step,
            },
            GoFrame::Scheduler => match along(at.bp()) {
                ControlFlow::Break(_) => ControlFlow::Break(Ending::Root),
                step => step,
            },
            GoFrame::Left => match go::left(raw).filter(|_| !walk.has_left) {
                Some(next) => {
                    (walk.has_jumped, walk.has_left) = (true, true);
                    ControlFlow::Continue(next)
                }
                None => along(at.bp()),
            },
            GoFrame::Callback(_) if walk.through_callbacks => {
                walk.met_callback = true;
                along(at.bp())
            }
            GoFrame::Callback(frame_bytes) | GoFrame::Sized(frame_bytes) => {
                match go::leave_sized(raw, at, frame_bytes) {
                    Some(next) => ControlFlow::Continue(next),
                    None => along(at.bp()),
                }
            }
            GoFrame::Handler(frame_bytes) => match go::leave_sized(raw, at, frame_bytes) {
                Some(next) => ControlFlow::Continue(Registers { returned: false, ..next }),
                None => ControlFlow::Break(Ending::Depth),
            },
            GoFrame::SignalReturn => match go::leave_signal(raw, at) {
                Some(next) => ControlFlow::Continue(next),
                None => ControlFlow::Break(Ending::Depth),
            },
            GoFrame::Foreign => self.native_step(walk, at),
        }
    }

    /// C code; where it cannot be walked, the Go code that called it, if that is known by other means.
    fn native_step(&mut self, walk: &mut Walk<'_, '_>, at: &Registers) -> Step {
        let is_linked_by_go = self.go.iter().any(|go| go.text.contains(at.code_addr()));
        if is_linked_by_go && !self.native.covers(at) && !walk.has_jumped {
            return self.jump_to_go(walk, Ending::NoTables, None);
        }
        match self.native.step(walk.raw, at) {
            ControlFlow::Break(ending) if ending.is_early() && !walk.has_jumped => {
                self.jump_to_go(walk, ending, Some(ending))
            }
            step => step,
        }
    }

    /// From C code that cannot be walked to the Go code that called it: by the stack pointer that `racecall`
    /// kept, or where the goroutine was left, else along the goroutine's frame pointers, which skips the innermost
    /// caller. `ending` is what kept the walk from getting there, `hole` why frames are missing in between.
    fn jump_to_go(&self, walk: &mut Walk<'_, '_>, ending: Ending, hole: Option<Ending>) -> Step {
        let raw = walk.raw;
        walk.has_jumped = true;
        // What is left over of a call into the race detector does not lead out of other C code.
        let is_glue = walk.addrs.last().is_some_and(|addr| go::is_cgo_glue(&self.go, *addr));
        if let Some(caller_sp) = raw.race_sp().filter(|_| !is_glue) {
            let next = raw.memory_word(caller_sp).map(|ip| Registers::new(ip, caller_sp + 8, 0, true));
            return next.map_or(ControlFlow::Break(ending), ControlFlow::Continue);
        }
        walk.hole = hole;
        if let Some(left) = go::left(raw).filter(|left| go::is_switch(&self.go, left.ip)) {
            walk.has_left = true;
            return ControlFlow::Continue(left);
        }
        let next = raw.chain_start_addr().filter(|_| raw.left_at().is_none());
        match next.map(|bp| go::follow_frame_pointer(raw, bp)) {
            Some(Ok(next)) => ControlFlow::Continue(next),
            _ => ControlFlow::Break(ending),
        }
    }

    fn is_race_call(&self, addr: u64) -> bool {
        self.go.iter().filter_map(|go| go.race_calls).any(|range| range.contains(addr))
    }

    /// The kernel's own walk along frame pointers, where the registers were not to be had. Where code uses that
    /// register for something else, it leads out of all code: there it ends.
    fn frames_only(&self, raw: &RawStack<'_>) -> Unwound {
        let addrs = raw.frames().enumerate().map(|(index, addr)| addr - u64::from(index > 0 && addr > 0));
        let addrs = addrs.take_while(|addr| self.native.check_code(*addr).is_ok());
        Unwound { addrs: addrs.collect(), ending: Ending::Registers }
    }
}

fn first_registers(raw: &RawStack<'_>) -> Registers {
    let mut registers = Registers::new(raw.ip(), raw.sp(), raw.bp(), false);
    for (number, value) in [RBX, R10, R12, 13, 14, 15].into_iter().zip(raw.saved()) {
        registers.set(number, Some(value));
    }
    registers
}

#[cfg(test)]
mod tests;
