//! What the live tests, the demo and the benchmarks share: building, starting and ending the programs
//! that are watched, running leakprobe on them, and reading its report.
//!
//! Nothing here sleeps or tries again: every wait ends with an event of the other side or with a
//! deadline, and a deadline is a failure that says what was waited for.

pub mod command_lines;
pub mod compile;
pub mod deadline;
pub mod document;
pub mod expect;
pub mod folder;
pub mod kernels;
pub mod lines;
pub mod places;
pub mod probe;
pub mod process;
pub mod rust;
pub mod workload;

pub use deadline::Deadline;
pub use folder::Folder;
pub use probe::Probe;
pub use workload::Workload;
