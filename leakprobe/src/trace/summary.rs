//! What the probes saw and lost, as the report has it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recording::Events;
use crate::claim::Word;

/// What the probes saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tracing {
    /// Events recorded, by kind.
    pub events: Events,
    /// Events and stacks lost, by cause; every way to lose one is listed.
    pub lost: Vec<LostRow>,
    /// One fault in so many kept its stack, at the sparsest; null without a window.
    pub stack_sample_rate: Option<u64>,
    /// One system call in so many that maps, moves or fills memory kept its stack, at the sparsest; null without a
    /// window.
    #[serde(default)]
    pub call_stack_sample_rate: Option<u64>,
    /// The most memory that leakprobe itself had resident; null where the kernel does not say.
    #[serde(default)]
    pub own_peak_rss: Option<u64>,
    /// Stacks that end before the thread's first frame.
    pub stacks_truncated: u64,
    /// The same by cause.
    #[serde(default)]
    pub stacks_truncated_by: Vec<LostRow>,
    /// Which probes were attached.
    pub probes: Vec<Probe>,
}

/// A way to lose something, and how often it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostRow {
    /// Name of the counter.
    pub cause: Word,
    /// How often.
    pub count: u64,
}

/// A probe.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// As "syscalls:sys_exit_mmap".
    pub name: String,
    /// Whether it was attached.
    pub attached: bool,
    /// Why not.
    pub error: Option<String>,
}
