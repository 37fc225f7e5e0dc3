//! Sanitizers in programs of C, C++ and Rust: AddressSanitizer, ThreadSanitizer, MemorySanitizer,
//! HWAddressSanitizer and LeakSanitizer, as gcc, clang and rustc link them on x86_64.
//!
//! A sanitizer proves itself by the function that its instrumentation calls first, or, where no name is left, by
//! mappings that only it makes; then its shadow lies where its ABI puts it, its allocator is described by an
//! array, large blocks carry a header, and what it maps for itself its variables lead to. The surprise: the
//! allocator's memory is the program's own C heap, with what the sanitizer adds: red zones, and in
//! AddressSanitizer's case the quarantine, some 256 MiB of freed blocks by default.
//!
//! Facts: LLVM `compiler-rt/lib/{asan,tsan,msan,hwasan,lsan}`; docs/sanitizers.md says on what it was measured.

mod blocks;
mod catalogue;
mod hwasan;
mod large;
mod own;
mod space;

use self::blocks::divide;
use self::catalogue::{BlockState, SANITIZERS, Sanitizer};
use self::own::Own;
use self::space::Space;
use super::reach;
use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings, Gap};
use crate::runtimes::code::Role;
use crate::runtimes::malloc::anonymous::{AnonymousMemory, words_of};
use crate::runtimes::threads::ThreadStack;
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::{FileId, Module};

/// How far below the end of a stack its descriptor begins: it has 2,304 bytes in glibc 2.36.
const SEARCHED_BYTES: u64 = 8 << 10;

/// The sanitizer of a process, and what it has in files.
#[derive(Debug)]
pub struct NativeSanitizer {
    kind: &'static Sanitizer,
    own: Own,
    /// Where HWAddressSanitizer keeps the start of its shadow.
    hwasan_base_addr: Option<u64>,
}

impl NativeSanitizer {
    /// By the names in `modules`; `race_file` is the file with Go's race detector, which is another matter.
    pub fn find(modules: &[Module], race_file: Option<FileId>) -> Option<Self> {
        let others = modules.iter().filter(|module| Some(module.file_id) != race_file);
        let named: Vec<(&Module, Vec<&'static str>)> =
            others.map(|module| (module, symbols_in(module))).collect();
        let carried = SANITIZERS.iter().find_map(|kind| {
            let (carrier, _) = named.iter().find(|(_, symbols)| symbols.contains(&kind.symbol))?;
            Some((kind, *carrier))
        });
        carried.map(|(kind, carrier)| Self {
            kind,
            own: Own::of(carrier),
            hwasan_base_addr: hwasan::base_addr(carrier),
        })
    }

    /// By the mappings of a process in which no name is left.
    fn by_mappings(regions: &[Region]) -> Option<Self> {
        let is_marked = |kind: &&Sanitizer| {
            let starts = regions.iter().filter(|region| region.is_private_anonymous() && region.writable);
            starts.map(|region| region.range.start_addr).any(|addr| kind.marks.contains(&addr))
        };
        let kind = SANITIZERS.iter().find(is_marked)?;
        Some(Self { kind, own: Own::default(), hwasan_base_addr: None })
    }

    /// What its code is for.
    pub fn code_roles(&self) -> Vec<(AddrRange, Role)> {
        self.own.roles(self.kind.runtime, self.kind.heap)
    }

    /// Claims its memory; what is looked for by content alone is looked for in what is not `taken`.
    fn claims(
        &self,
        memory: &dyn Memory,
        regions: &[Region],
        taken: &[AddrRange],
        stacks: &[ThreadStack],
    ) -> Findings {
        let mut findings = Findings::default();
        let mut layout: Vec<(AddrRange, Component)> = Vec::new();
        for (start_addr, end_addr, component) in self.kind.layout {
            layout.extend(AddrRange::new(*start_addr, *end_addr).map(|range| (range, *component)));
        }
        if let Some(base_addr) = self.hwasan_base_addr.and_then(|addr| memory.read_u64(addr).ok()) {
            layout.extend(hwasan::layout(memory, base_addr, regions));
        }
        for (range, component) in &layout {
            let inside = regions.iter().filter_map(|region| region.range.intersection(range));
            let claim = |range| Claim { range, component: *component, evidence: Evidence::Layout };
            findings.claims.extend(inside.map(claim));
        }
        let anonymous = AnonymousMemory::new(regions, &[]);
        let mut known: Vec<AddrRange> = layout.iter().map(|(range, _)| *range).collect();
        if let Some(space) = Space::find(memory, &anonymous) {
            self.claim_space(memory, &anonymous, &space, &mut findings);
            known.push(space.range);
        }
        let elsewhere = AnonymousMemory::new(regions, taken).without(&known);
        let large = large::large_blocks(memory, &elsewhere, self.kind.blocks == BlockState::InHeader);
        for (range, is_quarantined) in &large {
            known.push(*range);
            claim(&mut findings, *range, if *is_quarantined { self.quarantine() } else { self.kind.heap });
        }
        let own = self.own.bss.iter().filter_map(AddrRange::whole_pages);
        own.for_each(|range| claim(&mut findings, range, self.kind.runtime));

        let mut roots = self.own.variables.clone();
        if self.kind.has_thread_records {
            roots.extend(stacks.iter().filter_map(|stack| descriptor(memory, stack)));
        }
        let reached = reach::claims(memory, &elsewhere.without(&known), &roots, self.kind.runtime);
        findings.claims.extend(reached);
        findings.gaps.extend(self.gap());
        findings
    }

    fn claim_space(
        &self,
        memory: &dyn Memory,
        anonymous: &AnonymousMemory,
        space: &Space,
        findings: &mut Findings,
    ) {
        let users: Vec<AddrRange> = space.classes.iter().map(|class| class.user).collect();
        for class in &space.classes {
            let Some(division) = divide(memory, class, self.kind.blocks) else {
                claim(findings, class.user, self.kind.heap);
                continue;
            };
            division.heap.iter().for_each(|range| claim(findings, *range, self.kind.heap));
            division.quarantine.iter().for_each(|range| claim(findings, *range, self.quarantine()));
            findings.slack.extend(division.slack);
        }
        // Lists of free blocks, metadata, and the array itself.
        let others = anonymous.without(&users);
        for range in others.ranges().iter().filter_map(|range| range.intersection(&space.range)) {
            claim(findings, range, self.kind.runtime);
        }
    }

    fn quarantine(&self) -> Component {
        if self.kind.blocks == BlockState::InHeader { Component::AsanQuarantine } else { self.kind.heap }
    }

    /// What cannot be told of it.
    fn gap(&self) -> Option<Gap> {
        self.own.variables.is_empty().then(|| Gap {
            what: format!("{}'s own variables and allocations", self.kind.name),
            why: "they are in the executable, which has no names left that tell them from the program's"
                .to_owned(),
            bytes: None,
        })
    }
}

/// Claims the memory of the sanitizer that was `found` by name, or is recognised by its mappings; nothing where
/// there is none.
pub fn claims(
    found: Option<&NativeSanitizer>,
    memory: &dyn Memory,
    regions: &[Region],
    taken: &[AddrRange],
    stacks: &[ThreadStack],
) -> Findings {
    let unnamed = if found.is_some() { None } else { NativeSanitizer::by_mappings(regions) };
    found.or(unnamed.as_ref()).map(|found| found.claims(memory, regions, taken, stacks)).unwrap_or_default()
}

fn claim(findings: &mut Findings, range: AddrRange, component: Component) {
    findings.claims.push(Claim { range, component, evidence: Evidence::Structure });
}

/// Whether ThreadSanitizer is in the file.
pub fn has_thread_sanitizer(module: &Module) -> bool {
    symbols_in(module).contains(&"__tsan_init")
}

/// The sanitizers' symbols that the module defines; a static runtime's are exported too, for plug-ins, unless the
/// linker was told otherwise.
fn symbols_in(module: &Module) -> Vec<&'static str> {
    let known = |name: &str| SANITIZERS.iter().map(|kind| kind.symbol).find(|symbol| *symbol == name);
    let mut found = module.elf.exported(|name| known(name).is_some()).unwrap_or_default();
    if module.is_exe && found.is_empty() {
        found = module.elf.symbols(|name| known(name).is_some()).unwrap_or_default();
    }
    found.iter().filter_map(|symbol| known(&symbol.name)).collect()
}

/// The descriptor at the top of a thread's stack, where `pthread_setspecific` puts its first values: it points
/// at itself, twice (glibc `nptl/descr.h`).
fn descriptor(memory: &dyn Memory, stack: &ThreadStack) -> Option<AddrRange> {
    let start_addr = stack.range.end_addr.checked_sub(SEARCHED_BYTES)?;
    let mut top = vec![0; SEARCHED_BYTES as usize];
    if !memory.read_resident(start_addr, &mut top) {
        return None;
    }
    let words = words_of(&top);
    let offsets = (0..).step_by(8).zip(words.windows(3));
    let mut found = offsets.filter(|(offset, words)| {
        let addr = start_addr + offset;
        words[0] == addr && words[2] == addr
    });
    found.next().and_then(|(offset, _)| AddrRange::new(start_addr + offset, stack.range.end_addr))
}
