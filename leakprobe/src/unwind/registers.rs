//! The registers of a thread, at an event or in one of its frames.

/// x86_64's registers by their DWARF numbers (System V ABI, figure 3.36).
pub const RBX: u16 = 3;
pub const RBP: u16 = 6;
pub const RSP: u16 = 7;
pub const R10: u16 = 10;
pub const R12: u16 = 12;
/// The column of the return address.
pub const RETURN_ADDRESS: u16 = 16;
/// Registers a function leaves as they were: rbx, rbp and r12 to r15.
const PRESERVED: [u16; 6] = [RBX, RBP, R12, 13, 14, 15];
const COUNT: usize = 16;

/// What is known of the registers in a frame. A caller's are known where its callees saved or left them alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// Whether `ip` is a return address, and so the address after a call.
    pub returned: bool,
    pub(super) words: [Option<u64>; COUNT],
}

impl Registers {
    /// Those of a frame, of which nothing else is known than the frame pointer.
    pub fn new(ip: u64, sp: u64, bp: u64, returned: bool) -> Self {
        let mut registers = Self { ip, sp, returned, words: [None; COUNT] };
        registers.set(RBP, Some(bp));
        registers
    }

    /// The value of a register by its DWARF number; `None` where it is not known.
    pub fn get(&self, number: u16) -> Option<u64> {
        match number {
            RSP => Some(self.sp),
            _ => self.words.get(usize::from(number)).copied().flatten(),
        }
    }

    /// Says what a register holds.
    pub fn set(&mut self, number: u16, value: Option<u64>) {
        if let Some(word) = self.words.get_mut(usize::from(number)) {
            *word = value;
        }
    }

    /// The frame pointer; 0 where it is not known.
    pub fn bp(&self) -> u64 {
        self.get(RBP).unwrap_or(0)
    }

    /// An address inside the instruction that runs, or that called.
    pub fn code_addr(&self) -> u64 {
        self.ip - u64::from(self.returned && self.ip > 0)
    }

    /// What the caller finds in them if the callee saves none: only what it must leave alone.
    pub fn preserved(&self) -> Self {
        let mut kept = Self { words: [None; COUNT], ..*self };
        for number in PRESERVED {
            kept.set(number, self.get(number));
        }
        kept
    }
}
