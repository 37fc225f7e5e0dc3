//! A stack as it is kept: addresses, and why there are no more of them.

/// A stack, unwound: addresses innermost first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unwound {
    /// Addresses inside the instructions that ran or called: a return address is that of the next instruction, which
    /// may belong to another line or function.
    pub addrs: Vec<u64>,
    /// What it ends with.
    pub ending: Ending,
}

/// Why a stack ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// At the thread's first frame.
    Root,
    /// In the code of a file that has no unwind tables there.
    NoTables,
    /// In executable memory of no file: a just-in-time compiler's.
    Anonymous,
    /// At an address where no code was mapped when the window began.
    Elsewhere,
    /// In tables that make no sense, or ask for what was not captured.
    Tables,
    /// Where no more of the stack was copied.
    Depth,
    /// At so many frames as are kept.
    Frames,
    /// At a switch of stacks whose other side is not known.
    Switch,
    /// The registers were not to be had: frame pointers only.
    Registers,
}

impl Ending {
    /// All but the first, which is none.
    pub const EARLY: [Self; 8] = [
        Self::NoTables,
        Self::Anonymous,
        Self::Elsewhere,
        Self::Tables,
        Self::Depth,
        Self::Frames,
        Self::Switch,
        Self::Registers,
    ];

    /// Whether the stack ends before the thread's first frame, or leaves some out.
    pub fn is_early(self) -> bool {
        self != Self::Root
    }

    /// For people and for JSON, where it is early.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::NoTables => "code without unwind tables",
            Self::Anonymous => "code without unwind tables in [anon]",
            Self::Elsewhere => "an address outside the code mapped when the window began",
            Self::Tables => "unwind tables that lead nowhere",
            Self::Depth => "stack deeper than what was copied of it",
            Self::Frames => "more than 128 frames",
            Self::Switch => "a switch of stacks that could not be followed",
            Self::Registers => "registers that could not be read: frame pointers only",
        }
    }
}

impl Unwound {
    /// The addresses.
    pub fn code_addrs(&self) -> impl Iterator<Item = u64> + '_ {
        self.addrs.iter().copied()
    }
}
