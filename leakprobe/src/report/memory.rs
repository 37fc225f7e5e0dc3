//! The report's figures of memory beside the ledger's own: what rows are made of, and what RSS does not show.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attribute::mappings::Backing;
use crate::claim::Word;
use crate::report::CgroupMemory;

/// What a row of files or of thread stacks is made of.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartRow {
    /// "text", "data" or "bss"; "living" or "exited" of threads.
    pub what: Word,
    /// Resident bytes.
    pub rss: u64,
    /// Resident bytes gained in the window; null without one.
    pub growth: Option<i64>,
}

/// A file, or shared memory of one name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FileRow {
    /// As the kernel names it: "/memfd:x", "/SYSV00001234", "/dev/zero" for shared anonymous memory. Null for the
    /// smallest, which are summed up.
    pub path: Option<String>,
    /// What keeps its pages; null where several are summed up.
    pub kind: Option<Backing>,
    /// How many files this is; 1 but for those summed up.
    pub files: u64,
    /// Mappings with something resident.
    pub mappings: u64,
    /// Resident bytes.
    pub rss: u64,
    /// Resident bytes gained in the window; null without one.
    pub growth: Option<i64>,
    /// Of `rss`, private copies of pages that were written to.
    pub copied: u64,
    /// Of `rss`, unchanged pages of a file, which the kernel can drop.
    pub reclaimable: u64,
    /// The file has lost its name; memory without files (memfd, System V) always has.
    pub deleted: bool,
    /// Mapped shared.
    pub shared: bool,
}

/// A variable without a value in its file, and much of it resident.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VariableRow {
    /// Its name in the symbol table; null where the file has none: then this is the whole .bss.
    pub name: Option<String>,
    /// The file.
    pub path: String,
    /// Its size.
    pub size: u64,
    /// Resident bytes of it.
    pub rss: u64,
}

/// A thread and its stack.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ThreadRow {
    /// Thread id.
    pub tid: i32,
    /// The thread's name.
    pub comm: String,
    /// Resident bytes of its stack; null where the stack was not found.
    pub stack_rss: Option<u64>,
    /// Address space of its stack; null where it was not found.
    pub stack_size: Option<u64>,
    /// Address space below the stack that nobody may touch; null where nothing says.
    pub guard_size: Option<u64>,
    /// Resident bytes of the stack on which it handles signals, part of `go.stacks`; null where nothing says, as of
    /// threads that are not Go's: the kernel tells nobody else where that stack is.
    #[serde(default)]
    pub signal_stack_rss: Option<u64>,
    /// Address space of that stack; null likewise.
    #[serde(default)]
    pub signal_stack_size: Option<u64>,
    /// "go" where the Go runtime runs goroutines on it, "native" where only other code knows of it; null where
    /// there is no Go, or its list of threads could not be read.
    pub runs: Option<Word>,
}

/// Memory that counts against the cgroup and not as RSS, in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct OutsideRss {
    /// VmPTE.
    pub page_tables: Option<u64>,
    /// One kernel stack a thread.
    pub kernel_stacks: Option<u64>,
    /// Huge pages set aside by the administrator and used by the process; null where not read.
    pub hugetlb: Option<u64>,
    /// Address space mapped to a device's own memory; null where not read.
    pub device: Option<u64>,
    /// The cgroup's bill.
    pub cgroup: Option<CgroupMemory>,
}
