//! The process that is looked at: finding it, holding on to it, and noticing when it is another one.
//!
//! Everything that concerns its memory is opened once and kept: an open /proc/PID/mem, smaps or pagemap
//! stays with the address space it was opened on, so neither a reused PID nor an exec can slip another
//! process's memory into the answer.

pub mod build_info;
pub mod by_name;
pub mod cgroup;
pub mod elf;
pub mod maps;
pub mod memory;
pub mod modules;
mod mounts;
pub mod namespace;
mod process;
mod refusal;
pub mod vdso;

pub use process::{Status, Target, Thread, pids};
pub use refusal::TargetError;
