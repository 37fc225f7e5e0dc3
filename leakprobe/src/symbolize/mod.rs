//! Addresses → functions, files and lines.

use serde::Serialize;

/// A frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Frame {
    /// Demangled; null where nothing names the address.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// File the code was mapped from.
    pub module: Option<String>,
    /// In the process.
    pub address: u64,
    /// Inlined into the next frame outwards.
    pub inlined: bool,
}
