//! The goroutines of a report: groups of those that do the same, and all of them together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::symbolize::Frame;

/// Goroutines that do the same: same state, same stack, same `go` statement.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GoroutineGroup {
    /// How many.
    pub count: u64,
    /// How many more than at the window's start; null without a window, or where they were not read then.
    #[serde(default)]
    pub growth: Option<i64>,
    /// "runnable", "running", "syscall", "waiting", "copystack", "preempted" or "leaked".
    pub state: Word,
    /// What they wait for, in Go's words: "chan receive".
    pub wait_reason: Option<String>,
    /// How long the longest has been waiting at least; null where the collector has not seen it wait yet.
    pub waiting_seconds: Option<f64>,
    /// Size of their stacks, resident or not.
    pub stack_bytes: u64,
    /// Of these, resident when the window ended.
    #[serde(default)]
    pub stack_rss: u64,
    /// Of these, not resident when it began; null without a window.
    #[serde(default)]
    pub stack_growth: Option<u64>,
    /// Innermost first; empty of those that run. A function that calls itself is listed once.
    pub frames: Vec<Frame>,
    /// The `go` statement they come from.
    pub created_by: Option<Frame>,
}

/// All goroutines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoroutineTotals {
    /// The program's, as `runtime.NumGoroutine` counts.
    pub count: u64,
    /// How many more than at the window's start; null without a window, or where they were not read then.
    #[serde(default)]
    pub growth: Option<i64>,
    /// Size of their stacks, resident or not.
    pub stack_bytes: u64,
    /// The runtime's own.
    pub system: u64,
    /// Remains of ended ones, kept for new ones.
    pub dead: u64,
}
