//! leakprobe says who owns a process's resident memory.
pub mod address;
pub mod attribute;
pub mod claim;
pub mod diagnose;
pub mod report;
pub mod runtimes;
pub mod snapshot;
pub mod symbolize;
pub mod target;
pub mod trace;
