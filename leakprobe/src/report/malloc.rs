//! The part of a report that says what malloc's blocks add up to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Malloc's memory by what its blocks are. Bytes include headers and padding: what a block costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Malloc {
    /// Arenas, the main one included.
    pub arenas: u64,
    /// What the arenas took from the kernel, as malloc counts it; blocks with a mapping of their own are in
    /// `mapped` only.
    pub system: u64,
    /// Blocks the program holds, mapped ones left out.
    pub in_use: Blocks,
    /// Blocks the program holds that have a mapping of their own.
    pub mapped: Blocks,
    /// How much more of both the program holds than at the window's start; null without a window.
    pub in_use_growth: Option<BlocksGrowth>,
    /// Freed, and kept by the thread that freed them (tcache). Malloc itself counts them as in use.
    pub thread_cached: Blocks,
    /// Freed, and kept unmerged (fast bins).
    pub fast: Blocks,
    /// Freed and merged with free neighbours.
    pub binned: Blocks,
    /// The rest at the arenas' ends.
    pub top: u64,
    /// Malloc's own structures.
    pub overhead: u64,
    /// Where blocks could not be followed.
    pub unread: u64,
    /// Resident bytes that `malloc_trim(0)` would give back; null where the malloc has none.
    pub trimmable: Option<u64>,
    /// Of the blocks' growth, what can not lie in pages that became resident in the window: it took the place of
    /// freed blocks, without a page fault, and no call site has it. At least so much; null without a window.
    pub reused: Option<u64>,
    /// Blocks in use by size, ascending.
    pub sizes: Vec<SizeClass>,
    /// Blocks that begin with an object of a C++ class with virtual functions, by class: most growth first, then
    /// most bytes. The smallest are one entry without a name.
    pub classes: Vec<ClassRow>,
    /// Blocks that may begin with such an object, and were too many to tell.
    pub unclassed: Blocks,
}

/// Blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Blocks {
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Change of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlocksGrowth {
    /// How many.
    pub blocks: i64,
    /// Their bytes.
    pub bytes: i64,
}

/// Blocks in use of about one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SizeClass {
    /// The largest block that belongs here.
    pub size: u64,
    /// How many.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was gained in the window; null without one.
    pub growth: Option<BlocksGrowth>,
}

/// Blocks that begin with an object of one C++ class. A block that holds an array of them counts once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClassRow {
    /// Its name, as the source has it; null for many smaller ones together.
    pub class: Option<String>,
    /// The file that the class's vtable is in.
    pub module: Option<String>,
    /// How many blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was gained in the window; null without one.
    pub growth: Option<BlocksGrowth>,
}
