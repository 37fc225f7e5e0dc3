//! Allocators of C and C++ programs: which address ranges malloc took from the kernel.
//!
//! One file an allocator. They say who owns memory, not yet which of it is in use and which is free.
//! The surprise: a claim of an allocator is never a whole region of /proc/PID/maps, because the kernel
//! merges neighbouring anonymous mappings of different owners.

pub mod anonymous;
pub mod glibc;
