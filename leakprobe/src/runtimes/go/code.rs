//! Go's code in the target, for those who walk and name stacks: the function table and where it applies.

use super::GoRuntime;
use super::pclntab::Pclntab;
use crate::address::AddrRange;

/// What is known of Go in the target.
#[derive(Clone, Copy)]
pub struct GoCode<'a> {
    /// Its function table.
    pub pclntab: &'a Pclntab,
    /// What is added to the table's addresses in the process.
    pub load_bias: u64,
    /// Its text.
    pub text: AddrRange,
    /// The assembly functions through which it enters the race detector.
    pub race_calls: Option<AddrRange>,
}

impl<'a> GoCode<'a> {
    /// What the unwinder needs of a Go runtime; `None` where its function table was not found.
    pub fn of(go: &'a GoRuntime) -> Option<Self> {
        let pclntab = go.pclntab()?;
        Some(Self {
            pclntab,
            load_bias: go.load_bias,
            text: go.text_range()?,
            race_calls: go.race_call_range(),
        })
    }
}
