//! What `leakprobe doctor` found: checks, each with what it means and what to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::claim::Word;

/// Name and version of the JSON form.
pub const SCHEMA: &str = "leakprobe.doctor/1";

/// Everything that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Checkup {
    /// Always [`SCHEMA`].
    pub schema: Word,
    /// leakprobe's version.
    pub version: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture.
    pub arch: String,
    /// What leakprobe can do here.
    pub ability: Ability,
    /// What stands in the way of watching; none where nothing does.
    pub obstacle: Option<Obstacle>,
    /// The same as a sentence, with what stands in the way of more.
    pub verdict: String,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// The places where system calls may be seen, best first.
    pub backends: Vec<Check>,
}

/// What leakprobe can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// Watch processes.
    Watch,
    /// Say who owns the memory, not who makes it grow.
    Snapshot,
    /// Not even that.
    Nothing,
}

/// Why it cannot watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// A privilege is missing.
    NotPermitted,
    /// The kernel lacks something.
    KernelLacks,
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What, in a word or two.
    pub name: Word,
    /// Whether it is as leakprobe wants it.
    pub state: State,
    /// What is there.
    pub found: String,
    /// What that costs the answer; none where it costs nothing.
    pub costs: Option<String>,
    /// What to do about it; none where nothing can be done, or need be.
    pub remedy: Option<String>,
}

/// Whether something is as leakprobe wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is.
    Fine,
    /// The answer is poorer.
    Limited,
    /// It stands in the way of a report, or of a window.
    Missing,
    /// It could not be found out.
    Unknown,
}
