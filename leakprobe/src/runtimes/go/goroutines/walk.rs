//! A goroutine's saved state and its stack → the code it is in, innermost first.
//!
//! By the frame sizes of the function table; by frame pointers only where the runtime left the stack in
//! `systemstack`. Refuses a frame below the last one, so every walk ends. The surprise: a million goroutines
//! go through the same few functions, so what is known of an address is kept.

use std::collections::HashMap;

use super::record::Saved;
use crate::address::AddrRange;
use crate::runtimes::go::code::GoCode;
use crate::runtimes::go::image::Arch;
use crate::runtimes::go::pclntab::{Function, Role};
use crate::target::memory::Memory;

/// Frames kept of one stack.
const MAX_FRAMES: usize = 64;
/// What is known is thrown away beyond so many addresses: only garbage has more.
const MAX_KNOWN: usize = 1 << 18;

/// A stack as far as it was read, and the rest of it in the process.
pub struct Stack<'a> {
    pub memory: &'a dyn Memory,
    pub range: AddrRange,
    /// Address of the first byte that was read.
    pub start_addr: u64,
    pub bytes: &'a [u8],
}

impl Stack<'_> {
    fn word(&self, addr: u64) -> Option<u64> {
        if !self.range.contains(addr) || self.range.end_addr - addr < 8 {
            return None;
        }
        let offset = addr.checked_sub(self.start_addr).and_then(|offset| usize::try_from(offset).ok());
        let read = offset.and_then(|offset| self.bytes.get(offset..)).and_then(|bytes| bytes.first_chunk());
        match read {
            Some(word) => Some(u64::from_le_bytes(*word)),
            None => self.memory.read_u64(addr).ok(),
        }
    }
}

/// How a function is left towards its caller.
#[derive(Clone, Copy)]
enum Way {
    /// Nothing called it.
    Root,
    /// It continues on another stack: the frame pointer leads across.
    Switch,
    Sized {
        frame_bytes: u64,
        /// A signal interrupted the caller anywhere, not behind a call.
        interrupts: bool,
    },
    Lost,
}

#[derive(Clone, Copy)]
struct Known {
    /// An address inside the instruction.
    code_addr: u64,
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Where a goroutine was left: behind a call, or before its first instruction.
    Saved(u64),
    Returned(u64),
    Interrupted(u64),
}

/// Walks the stacks of one process.
pub struct Walker<'a> {
    code: &'a [GoCode<'a>],
    arch: Arch,
    known: HashMap<Place, Known>,
}

impl<'a> Walker<'a> {
    pub fn new(code: &'a [GoCode<'a>], arch: Arch) -> Self {
        Self { code, arch, known: HashMap::new() }
    }

    /// Appends the code addresses of a stack to `found`. Whether it was walked to its end.
    pub fn walk(&mut self, saved: Saved, stack: &Stack<'_>, found: &mut Vec<u64>) -> bool {
        let mut at = saved;
        let mut place = Place::Saved(saved.pc);
        for _ in 0..MAX_FRAMES {
            let known = self.known(place);
            let next = match known.way {
                Way::Root => return true,
                Way::Lost => return false,
                Way::Switch => follow_frame_pointer(at, stack),
                Way::Sized { frame_bytes, .. } => self.leave(at, frame_bytes, stack),
            };
            found.push(known.code_addr);
            let Some(next) = next.filter(|next| next.sp > at.sp || next.lr != at.lr) else { return false };
            let interrupts = matches!(known.way, Way::Sized { interrupts: true, .. });
            place = if interrupts { Place::Interrupted(next.pc) } else { Place::Returned(next.pc) };
            at = next;
        }
        true // deep, and not torn
    }

    /// Name of the function that starts at `start_addr`.
    pub fn function_name(&self, start_addr: u64) -> Option<&'a str> {
        Some(self.function(start_addr)?.0.name())
    }

    /// The function at `addr`, and the address that its file states for it.
    fn function(&self, addr: u64) -> Option<(Function<'a>, u64)> {
        let code = self.code.iter().find(|code| code.text.contains(addr))?;
        let svma = addr.wrapping_sub(code.load_bias);
        Some((code.pclntab.lookup(svma)?, svma))
    }

    fn known(&mut self, place: Place) -> Known {
        if let Some(known) = self.known.get(&place) {
            return *known;
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let known = self.look_up(place);
        self.known.insert(place, known);
        known
    }

    fn look_up(&self, place: Place) -> Known {
        let starts = |addr| self.function(addr).is_some_and(|(function, svma)| function.entry_svma == svma);
        let code_addr = match place {
            Place::Saved(addr) if starts(addr) => addr,
            Place::Interrupted(addr) => addr,
            Place::Saved(addr) | Place::Returned(addr) => addr.wrapping_sub(1),
        };
        let Some((function, svma)) = self.function(code_addr) else {
            return Known { code_addr, way: Way::Lost };
        };
        let way = match function.role() {
            Role::Outermost => Way::Root,
            Role::SystemStack | Role::Scheduler | Role::SystemStackSwitch => Way::Switch,
            _ => match function.frame_bytes(svma) {
                Some(frame_bytes) => {
                    let interrupts = matches!(function.name(), "runtime.asyncPreempt" | "runtime.sigpanic");
                    Way::Sized { frame_bytes, interrupts }
                }
                None => Way::Lost,
            },
        };
        Known { code_addr, way }
    }

    /// As in [`crate::unwind`]: the return address lies above the frame on amd64, below it on arm64.
    fn leave(&self, at: Saved, frame_bytes: u64, stack: &Stack<'_>) -> Option<Saved> {
        let frame_end_addr = at.sp.checked_add(frame_bytes)?;
        match self.arch {
            Arch::Amd64 => {
                let pc = stack.word(frame_end_addr)?;
                let bp = if frame_bytes == 0 { at.bp } else { stack.word(frame_end_addr.checked_sub(8)?)? };
                Some(Saved { pc, sp: frame_end_addr.checked_add(8)?, bp, lr: 0 })
            }
            Arch::Arm64 if frame_bytes == 0 => (at.lr != 0).then_some(Saved { pc: at.lr, lr: 0, ..at }),
            Arch::Arm64 => {
                let bp = stack.word(at.sp.checked_sub(8)?).unwrap_or(0);
                Some(Saved { pc: stack.word(at.sp)?, sp: frame_end_addr, bp, lr: 0 })
            }
        }
    }
}

fn follow_frame_pointer(at: Saved, stack: &Stack<'_>) -> Option<Saved> {
    let bp = stack.word(at.bp)?;
    let pc = stack.word(at.bp.checked_add(8)?)?;
    Some(Saved { pc, sp: at.bp.checked_add(16)?, bp, lr: 0 })
}
