//! What the runtimes, the maps and the trace say of addresses: a claim is "these addresses belong to
//! that component", with its evidence. [`crate::attribute`] weighs claims against each other.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::address::AddrRange;

/// A word or sentence of leakprobe's own: a constant, or what a saved report has in its place.
pub type Word = Cow<'static, str>;

/// An owner of resident memory: one row of the ledger. The `id` is API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Component {
    /// Spans of Go objects: what `runtime.MemStats` calls `HeapInuse`.
    GoHeapInUse,
    /// Pages of the Go heap in no span, resident still: freed and not yet returned, or freed lazily.
    GoHeapIdle,
    /// Goroutines' stacks, and those kept for the next ones: `StackInuse`.
    GoStacks,
    /// The Go runtime's own structures: span headers, bitmaps, page allocator, profiling buckets, the
    /// collector's work buffers.
    GoRuntime,
    /// Anonymous memory that Go code mapped past the runtime (`syscall.Mmap`).
    GoMmap,
    /// ThreadSanitizer's shadow of the program's memory.
    TsanShadow,
    /// ThreadSanitizer's synchronisation metadata.
    TsanMeta,
    /// ThreadSanitizer's own allocations: thread contexts, traces, clocks, shadow stacks, and its .bss.
    TsanRuntime,
    /// C heap under ThreadSanitizer, in programs of C and C++.
    TsanHeap,
    /// AddressSanitizer's shadow of the program's memory.
    AsanShadow,
    /// The C heap under AddressSanitizer, with red zones.
    AsanHeap,
    /// Freed blocks that AddressSanitizer keeps for a while, to catch who still uses them.
    AsanQuarantine,
    /// AddressSanitizer's own variables and allocations.
    AsanRuntime,
    /// MemorySanitizer's shadow of the program's memory.
    MsanShadow,
    /// Where MemorySanitizer keeps which code left memory uninitialised.
    MsanOrigins,
    /// The C heap under MemorySanitizer.
    MsanHeap,
    /// MemorySanitizer's own variables and allocations.
    MsanRuntime,
    /// HWAddressSanitizer's shadow.
    HwasanShadow,
    /// The C heap under HWAddressSanitizer.
    HwasanHeap,
    /// HWAddressSanitizer's own variables and allocations.
    HwasanRuntime,
    /// The C heap under LeakSanitizer.
    LsanHeap,
    /// LeakSanitizer's own variables and allocations.
    LsanRuntime,
    /// Pages with blocks of malloc that were not freed, and malloc's own headers. In a Go program this is cgo.
    CHeapInUse,
    /// Pages of malloc on which nothing is in use, resident still: freed and kept.
    CHeapFree,
    /// Anonymous memory that native code mapped itself.
    CMmap,
    /// CPython's arenas of small objects.
    PythonHeap,
    /// V8's heap, with the code it generates.
    V8Heap,
    /// The Java heap.
    JvmHeap,
    /// What the Java virtual machine keeps for itself: metaspace, generated code, the collector's tables.
    JvmRuntime,
    /// Stacks of OS threads, the main one included.
    ThreadStacks,
    /// The executable: text, data and bss.
    FileExe,
    /// Shared libraries: text, data and bss.
    FileLibs,
    /// Mapped data files.
    FileMapped,
    /// tmpfs, memfd, System V and shared anonymous memory.
    Shmem,
    /// vdso and vvar, which the kernel maps into every process.
    KernelSpecial,
    /// Anonymous memory nothing explains.
    AnonUnknown,
}

impl Component {
    /// Every component, in the order in which reports list rows of equal size.
    pub const ALL: [Self; 36] = [
        Self::GoHeapInUse,
        Self::GoHeapIdle,
        Self::GoStacks,
        Self::GoRuntime,
        Self::GoMmap,
        Self::TsanShadow,
        Self::TsanMeta,
        Self::TsanRuntime,
        Self::TsanHeap,
        Self::AsanShadow,
        Self::AsanHeap,
        Self::AsanQuarantine,
        Self::AsanRuntime,
        Self::MsanShadow,
        Self::MsanOrigins,
        Self::MsanHeap,
        Self::MsanRuntime,
        Self::HwasanShadow,
        Self::HwasanHeap,
        Self::HwasanRuntime,
        Self::LsanHeap,
        Self::LsanRuntime,
        Self::CHeapInUse,
        Self::CHeapFree,
        Self::CMmap,
        Self::PythonHeap,
        Self::V8Heap,
        Self::JvmHeap,
        Self::JvmRuntime,
        Self::ThreadStacks,
        Self::FileExe,
        Self::FileLibs,
        Self::FileMapped,
        Self::Shmem,
        Self::KernelSpecial,
        Self::AnonUnknown,
    ];

    /// The name in JSON and in scripts; never changes once released.
    pub const fn id(self) -> &'static str {
        match self {
            Self::GoHeapInUse => "go.heap.inuse",
            Self::GoHeapIdle => "go.heap.idle",
            Self::GoStacks => "go.stacks",
            Self::GoRuntime => "go.runtime",
            Self::GoMmap => "go.mmap",
            Self::TsanShadow => "tsan.shadow",
            Self::TsanMeta => "tsan.meta",
            Self::TsanRuntime => "tsan.runtime",
            Self::TsanHeap => "tsan.heap",
            Self::AsanShadow => "asan.shadow",
            Self::AsanHeap => "asan.heap",
            Self::AsanQuarantine => "asan.quarantine",
            Self::AsanRuntime => "asan.runtime",
            Self::MsanShadow => "msan.shadow",
            Self::MsanOrigins => "msan.origins",
            Self::MsanHeap => "msan.heap",
            Self::MsanRuntime => "msan.runtime",
            Self::HwasanShadow => "hwasan.shadow",
            Self::HwasanHeap => "hwasan.heap",
            Self::HwasanRuntime => "hwasan.runtime",
            Self::LsanHeap => "lsan.heap",
            Self::LsanRuntime => "lsan.runtime",
            Self::CHeapInUse => "c.heap.inuse",
            Self::CHeapFree => "c.heap.free",
            Self::CMmap => "c.mmap",
            Self::PythonHeap => "python.heap",
            Self::V8Heap => "v8.heap",
            Self::JvmHeap => "jvm.heap",
            Self::JvmRuntime => "jvm.runtime",
            Self::ThreadStacks => "thread.stacks",
            Self::FileExe => "file.exe",
            Self::FileLibs => "file.libs",
            Self::FileMapped => "file.mapped",
            Self::Shmem => "shmem",
            Self::KernelSpecial => "kernel.special",
            Self::AnonUnknown => "anon.unknown",
        }
    }

    /// The name a person reads.
    pub const fn label(self) -> &'static str {
        match self {
            Self::GoHeapInUse => "Go heap, in use (pprof sees it)",
            Self::GoHeapIdle => "Go heap, idle",
            Self::GoStacks => "Goroutine stacks",
            Self::GoRuntime => "Go runtime",
            Self::GoMmap => "Mapped by Go code",
            Self::TsanShadow => "TSan shadow",
            Self::TsanMeta => "TSan meta",
            Self::TsanRuntime => "TSan's own allocations",
            Self::TsanHeap => "C heap under TSan",
            Self::AsanShadow => "ASan shadow",
            Self::AsanHeap => "C heap under ASan",
            Self::AsanQuarantine => "Freed, in ASan's quarantine",
            Self::AsanRuntime => "ASan's own",
            Self::MsanShadow => "MSan shadow",
            Self::MsanOrigins => "MSan origins",
            Self::MsanHeap => "C heap under MSan",
            Self::MsanRuntime => "MSan's own",
            Self::HwasanShadow => "HWASan shadow",
            Self::HwasanHeap => "C heap under HWASan",
            Self::HwasanRuntime => "HWASan's own",
            Self::LsanHeap => "C heap under LSan",
            Self::LsanRuntime => "LSan's own",
            Self::CHeapInUse => "C heap, in use (malloc)",
            Self::CHeapFree => "C heap, freed and kept",
            Self::CMmap => "Mapped by native code",
            Self::PythonHeap => "Python's small objects",
            Self::V8Heap => "V8 heap",
            Self::JvmHeap => "Java heap",
            Self::JvmRuntime => "Java VM's own",
            Self::ThreadStacks => "Thread stacks",
            Self::FileExe => "Executable",
            Self::FileLibs => "Shared libraries",
            Self::FileMapped => "Mapped files",
            Self::Shmem => "Shared memory",
            Self::KernelSpecial => "vdso",
            Self::AnonUnknown => "Unknown",
        }
    }

    /// Whether the component is malloc's.
    pub const fn is_malloc(self) -> bool {
        matches!(self, Self::CHeapInUse | Self::CHeapFree)
    }

    /// Whether its memory has names: those of files, or of what is shared.
    pub const fn is_named(self) -> bool {
        matches!(self, Self::FileExe | Self::FileLibs | Self::FileMapped | Self::Shmem)
    }

    /// Whether the component belongs to the race detector.
    pub const fn is_tsan(self) -> bool {
        matches!(self, Self::TsanShadow | Self::TsanMeta | Self::TsanRuntime)
    }
}

impl Serialize for Component {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

impl JsonSchema for Component {
    fn schema_name() -> Word {
        "Component".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An owner of resident memory: one row of the ledger.",
            "enum": Self::ALL.map(Self::id).as_slice(),
        })
    }
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = Word::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|component| component.id() == id);
        known.ok_or_else(|| serde::de::Error::custom(format!("no component {id:?} is known here")))
    }
}

/// Why a claim is believed, weakest first, so that comparing two asks which one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// Nothing is known.
    None,
    /// Inferred from what surrounds the range.
    Neighbour,
    /// The stack of the page's first touch was seen.
    TouchedBy,
    /// The stack of the `mmap` was seen.
    MappedBy,
    /// The mapping's path or name, or the ELF headers of the file mapped there.
    Mapping,
    /// A fixed address range of an ABI.
    Layout,
    /// Read from the runtime's own data structures or symbols.
    Structure,
}

impl Evidence {
    /// The word the report prints, as in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neighbour => "neighbour",
            Self::TouchedBy => "touched_by",
            Self::MappedBy => "mapped_by",
            Self::Mapping => "mapping",
            Self::Layout => "layout",
            Self::Structure => "structure",
        }
    }
}

/// These addresses belong to that component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is claimed; need not be page-aligned, the ledger gives a shared page to the strongest claim.
    pub range: AddrRange,
    /// The owner.
    pub component: Component,
    /// Why.
    pub evidence: Evidence,
}

/// Something that could not be read, or not consistently: the part of the answer that is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// What is missing, as a noun: "residency of 0x7f00…-0x7f80…".
    pub what: String,
    /// Why, as the kernel or the structure said it.
    pub why: String,
    /// Bytes of resident memory the gap concerns, where that is known.
    pub bytes: Option<u64>,
}

/// A stretch of memory that a runtime has looked into: so many of its bytes hold nothing live, though their
/// pages are in use. Stretches of one runtime are disjoint; those without such bytes are listed too, since
/// only what is listed was looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slack {
    /// The stretch.
    pub range: AddrRange,
    /// Bytes of it that hold nothing live, resident or not.
    pub dead_bytes: u64,
}

/// What a reader of a runtime found: claims, and what it could not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Who owns which addresses.
    pub claims: Vec<Claim>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
    /// How much of what is in use holds nothing, where that was looked into.
    pub slack: Vec<Slack>,
}
