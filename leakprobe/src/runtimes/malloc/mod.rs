//! Allocators of C and C++ programs: which address ranges malloc took from the kernel, and what of them is in
//! use.
//!
//! One folder an allocator. The surprise: a claim of an allocator is never a whole region of /proc/PID/maps,
//! because the kernel merges neighbouring anonymous mappings of different owners.

pub mod anonymous;
pub mod census;
mod first_words;
pub mod glibc;
mod jemalloc;
mod mimalloc;
pub mod musl;
mod pages;
mod partition_alloc;
pub mod replacement;
mod tcmalloc;
