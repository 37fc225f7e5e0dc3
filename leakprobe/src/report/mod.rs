//! A finished report: what every format writes. Formats round and arrange; they compute nothing.
//!
//! The fields are those of the JSON schema `leakprobe.report/1`: bytes everywhere, and `None` (null)
//! where something is not known.

pub mod checkup;
pub mod comparison;
mod escape;
mod facts;
mod flame_graph;
mod folded;
mod form;
mod goroutines;
pub mod html;
mod json;
mod malloc;
mod memory;
pub mod pprof;
mod prometheus;
mod rss;
pub mod saved;
pub mod schema;
mod stacks;
mod text;
pub mod together;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::form::{Document, Format, Style, write, write_document};
pub use self::goroutines::{GoroutineGroup, GoroutineTotals};
pub use self::malloc::{Blocks, BlocksGrowth, ClassRow, Malloc, SizeClass};
pub use self::memory::{FileRow, OutsideRss, PartRow, ThreadRow, VariableRow};
pub use self::rss::{Rss, RssCounters};
pub use self::stacks::Measure;
use crate::claim::{Component, Evidence, Gap, Word};
pub use crate::diagnose::trend::{Moment, Trend, Verdict};
pub use crate::diagnose::{Confidence, Finding, GoroutinesStarted};
pub use crate::runtimes::go::Collector;
pub use crate::symbolize::Frame;
pub use crate::target::cgroup::{CgroupMemory, Member, Others};
pub use crate::trace::recording::Events;
pub use crate::trace::{LostRow, Probe, Tracing};

/// The schema's name, the first field of the JSON.
pub const SCHEMA: &str = "leakprobe.report/1";

/// The note of a call site that stands for those too small to list. They do have stacks.
pub const SMALLER_SITES: &str = "many smaller call sites";

/// Source of call sites: page faults in the window.
pub const FAULTS: &str = "faults";

/// Source of call sites: page faults on threads' stacks, by who created the thread.
pub const THREAD_CREATION: &str = "thread_creation";

/// Source of call sites: goroutines that are there, by what they do.
pub const GOROUTINES: &str = "goroutines";

/// Source of call sites: what Go's heap profile gained in the window.
pub const HEAP_PROFILE: &str = "heap_profile";

/// Everything one look at a process found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: Word,
    /// Which leakprobe this was.
    pub tool: Tool,
    /// Which machine.
    pub host: Host,
    /// Which process.
    pub target: TargetInfo,
    /// When, for how long.
    pub window: Window,
    /// The process's resident memory as a whole.
    pub rss: Rss,
    /// Whether that grows, and how surely.
    pub growth: Trend,
    /// Looks at the kernel's counters within the window; empty for a snapshot.
    pub timeline: Vec<Moment>,
    /// The ledger's rows, largest first.
    pub components: Vec<ComponentRow>,
    /// What the rows do not add up to: Σ `components.rss` + `residual` = `rss.end`.
    pub residual: i64,
    /// What Go's own heap profile would show.
    pub heap_profile: HeapProfile,
    /// Objects of the Go heap by size, small ones first; empty where its spans were not read.
    pub heap_classes: Vec<HeapClass>,
    /// What that profile cannot see.
    pub unaccounted: Unaccounted,
    /// What malloc's blocks add up to; null where malloc was not found or is not understood.
    pub malloc: Option<Malloc>,
    /// Who made memory resident that was not so before, largest first.
    pub call_sites: Vec<CallSite>,
    /// Goroutines by what they do, most first; at most so many groups as are worth reading.
    pub goroutines: Vec<GoroutineGroup>,
    /// All goroutines together; null where they were not read, as in a process without Go.
    pub goroutine_totals: Option<GoroutineTotals>,
    /// Operating-system threads with their stacks.
    pub threads: Vec<ThreadRow>,
    /// Diagnoses.
    pub findings: Vec<Finding>,
    /// Memory the process causes that its RSS does not show.
    pub outside_rss: OutsideRss,
    /// What the probes saw and lost.
    pub tracing: Tracing,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Report {
    /// Whether it grew by so much in the window, and not only as what rises and falls.
    pub fn has_grown_by(&self, least_bytes: u64) -> bool {
        let grown_bytes = self.rss.growth.and_then(|bytes| u64::try_from(bytes).ok());
        grown_bytes.is_some_and(|bytes| bytes >= least_bytes.max(1))
            && self.growth.verdict != Verdict::RisesAndFalls
    }
}

/// Which leakprobe, called how.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Version of this program.
    pub version: String,
    /// What was typed, the program's name left out.
    pub arguments: Vec<String>,
}

impl Tool {
    /// Whether leakprobe has started the process itself, and so held it at both ends.
    pub fn has_started_it(&self) -> bool {
        self.arguments.first().is_some_and(|word| word == "run")
    }
}

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// Machine, as `uname -m`.
    pub arch: String,
    /// Bytes a base page.
    pub page_size: u64,
    /// How events were recorded: "tracepoint", or "none" for a snapshot.
    pub backend: Word,
}

/// The process.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TargetInfo {
    /// Process id in leakprobe's PID namespace.
    pub pid: i32,
    /// The kernel's short name of it.
    pub comm: String,
    /// Path of the executable, as the process sees it.
    pub exe: String,
    /// When it started, RFC 3339 in UTC.
    pub started_at: String,
    /// Threads at the end of the window.
    pub threads: Option<u64>,
    /// How many more these are than at its start; null without a window.
    #[serde(default)]
    pub threads_growth: Option<i64>,
    /// Container id found in the cgroup's path.
    pub container_id: Option<String>,
    /// The cgroup's path.
    pub cgroup: Option<String>,
    /// The language runtime.
    pub runtime: RuntimeInfo,
    /// How the process ended while it was watched: "exited", "exec", "interrupted" (by the user); null if none of these.
    pub ended: Option<Word>,
}

impl TargetInfo {
    /// Whether the program that was measured runs no longer: what its growth led to is of no interest then.
    pub fn is_gone(&self) -> bool {
        matches!(self.ended.as_deref(), Some("exited" | "exec"))
    }
}

/// The language runtime of the process.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeInfo {
    /// "go" or "native".
    pub kind: Word,
    /// Version of Go, as "go1.27.3".
    pub version: Option<String>,
    /// Built with -race; null where nothing says.
    pub race: Option<bool>,
    /// Built with cgo; null where nothing says.
    pub cgo: Option<bool>,
    /// No symbol table in the executable.
    pub stripped: Option<bool>,
    /// Goroutines started, as the race detector counts them; null without it.
    pub goroutines_started: Option<GoroutinesStarted>,
    /// How Go's collector is set; null without Go, or where not read.
    #[serde(default)]
    pub collector: Option<Collector>,
    /// The C library's allocator: "glibc 2.36".
    pub allocator: Option<String>,
}

/// The time of watching.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// RFC 3339 in UTC.
    pub started_at: String,
    /// How long the target was watched, in seconds; 0 for a snapshot.
    pub seconds: f64,
}

/// A row of the ledger.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ComponentRow {
    /// The owner.
    pub id: Component,
    /// Its name for people.
    pub label: Word,
    /// Resident bytes at the end.
    pub rss: u64,
    /// Resident bytes gained in the window; null without a window.
    pub growth: Option<i64>,
    /// Bytes of address space.
    pub r#virtual: u64,
    /// Resident, holding nothing live; null where the owner's inside was not read.
    pub slack: Option<u64>,
    /// Of `rss`, freed with MADV_FREE; null where the mapping is shared by owners and was not told apart.
    pub lazy_free: Option<u64>,
    /// Of `rss`, in huge pages.
    pub huge: Option<u64>,
    /// Swapped out, not in `rss`.
    pub swap: Option<u64>,
    /// Of `rss`, locked by mlock or mlockall; null where a mapping that is locked in part has several owners.
    #[serde(default)]
    pub locked: Option<u64>,
    /// Of `rss`, kept once for several places by KSM; null likewise, and where the kernel does not say.
    #[serde(default)]
    pub ksm: Option<u64>,
    /// Of `rss`, unchanged pages of files, which the kernel drops when it needs memory.
    pub reclaimable: u64,
    /// Of files and thread stacks: what the row is made of.
    pub parts: Vec<PartRow>,
    /// Of files and shared memory: each file, largest first.
    pub files: Vec<FileRow>,
    /// Of an executable or libraries whose .bss is large: its largest variables.
    pub variables: Vec<VariableRow>,
    /// The evidence of most of the row's bytes.
    pub evidence: Evidence,
    /// The malloc that owns it, for rows of the C heap.
    pub allocator: Option<String>,
}

/// What Go's heap profile shows: samples, scaled up as `runtime/pprof` does it, as of a collection that is over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeapProfile {
    /// Bytes in use; null where not read.
    pub in_use: Option<u64>,
    /// Objects in use; null where not read.
    pub in_use_objects: Option<u64>,
    /// Change of `in_use` in the window; null where one of its ends has no profile.
    pub growth: Option<i64>,
    /// Mean bytes between two samples, `runtime.MemProfileRate`; 0 where the profile is switched off.
    pub rate: Option<u64>,
    /// "mbuckets", "spans" or "none".
    pub source: Word,
    /// A sentence, where the program keeps no profile.
    pub note: Option<Word>,
    /// What is in use by the stack that allocated it, most bytes first; the smallest are summed up.
    pub sites: Vec<HeldSite>,
}

impl HeapProfile {
    /// Of a program without one, or whose profile could not be read.
    pub const fn none() -> Self {
        Self {
            in_use: None,
            in_use_objects: None,
            growth: None,
            rate: None,
            source: Word::Borrowed("none"),
            note: None,
            sites: Vec::new(),
        }
    }
}

/// A stack, and those of its objects that are alive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeldSite {
    /// Bytes in use.
    pub bytes: u64,
    /// Objects in use.
    pub objects: u64,
    /// Change of `bytes` in the window; null where one of its ends has no profile.
    pub growth: Option<i64>,
    /// Innermost first, as pprof shows them before it hides the runtime's.
    pub frames: Vec<Frame>,
    /// Why there are no frames.
    pub note: Option<Word>,
}

/// Objects of one size in the Go heap, alive or not swept yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeapClass {
    /// Size of an object; null for those larger than 32 KiB, each in a span of its own.
    pub object_bytes: Option<u64>,
    /// How many are allocated.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Spans for them.
    pub spans: u64,
    /// Bytes of these spans that hold no object, resident or not.
    pub slack: u64,
}

/// RSS that Go's heap profile cannot see.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Unaccounted {
    /// Resident bytes outside the Go heap's spans in use; null where there is no Go heap.
    pub bytes: Option<u64>,
    /// Its growth in the window.
    pub growth: Option<i64>,
    /// The component that owns most of it.
    pub owner: Option<Component>,
}

/// A stack and the bytes it made resident, that were not so at the start and still are at the end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CallSite {
    /// Whose bytes.
    pub component: Component,
    /// "faults"; "thread_creation": the stack that mapped a thread's stack; "goroutines": what those do whose stacks
    /// these are, and outermost the `go` statement they come from; "heap_profile": bytes of objects.
    pub source: Word,
    /// What made them resident, where no page fault did: "populate", "mlock", "collapse", "khugepaged", "swap_in",
    /// "mremap" or "kernel".
    #[serde(default)]
    pub cause: Option<Word>,
    /// Bytes, scaled up where stacks were sampled.
    pub bytes: u64,
    /// By how much `bytes` may be off, in 95 of 100 rows, since stacks were sampled; null where it is exact.
    #[serde(default)]
    pub error_bytes: Option<u64>,
    /// Of `bytes`, freed with MADV_FREE since: there until the kernel takes it.
    #[serde(default)]
    pub lazy_free: u64,
    /// Page faults with this stack that hold memory still; 0 where the source is another one.
    pub faults: u64,
    /// Mean number of faults each recorded stack stands for; 1 where every stack was kept.
    pub weight: f64,
    /// Innermost first; empty where the bytes grew without a stack.
    pub frames: Vec<Frame>,
    /// Why there are no frames, or why they end early.
    pub note: Option<Word>,
}
