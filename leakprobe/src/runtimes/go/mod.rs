//! What a Go program's own structures say of its memory, and which function an address belongs to.
//!
//! Answers for Go 1.19 and 1.21 to 1.27 on linux/amd64, checked with 1.19.8, 1.21.13, 1.22.10, 1.23.9,
//! 1.24.11, 1.25.5, 1.26.6 and 1.27.3; newer versions, with a note, by their debug information or where their
//! heap still looks like that of 1.27. The offsets for arm64 come from DWARF and were not tried on a machine.
//! Refuses to guess: a structure that does not prove itself gives a gap. The surprise: a stripped program
//! tells as much as any other, because the function table stays and the code behind it names every variable.

pub mod code;
mod collector;
pub mod find;
pub mod goroutines;
pub mod heap;
pub mod image;
pub mod layout;
mod metadata;
pub mod pclntab;
mod profile;
mod spans;
mod threads;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

use crate::address::AddrRange;
use crate::claim::{Findings, Gap};
use crate::target::build_info::{GoBuildInfo, GoVersion};
use crate::target::elf::ElfFile;
use crate::target::memory::Memory;

use code::GoCode;
pub use collector::Collector;
use find::{Global, Globals, Program};
use goroutines::{Goroutines, StackPages};
use image::Arch;
use layout::candidates::Candidate;
use layout::{GoroutineLayout, Layout};
use pclntab::{Function, Pclntab};
pub use profile::{HeapProfile, HeldSite};
pub use spans::SizeClass;

/// A Go runtime in a process: that of the executable, or that of a shared library.
pub struct GoRuntime {
    load_bias: u64,
    heap: Option<Heap>,
    pclntab: Option<Pclntab>,
    /// What could not be found.
    gaps: Vec<Gap>,
}

/// Offsets in `m` and `g`: how a thread leads to its goroutine, and where that left its stack.
#[derive(Clone, Copy, Debug)]
pub struct ThreadFields {
    /// Of the goroutine that it runs.
    pub curg_offset: u64,
    /// Of a goroutine's stack bounds.
    pub stack_offset: u64,
    /// Of the saved instruction pointer.
    pub sched_pc_offset: u64,
    /// Of the saved stack pointer.
    pub sched_sp_offset: u64,
    /// Of the saved frame pointer.
    pub sched_bp_offset: u64,
}

/// Where the heap is and how it is read.
struct Heap {
    layout: Layout,
    globals: Globals,
    goroutine_layout: GoroutineLayout,
    /// Where nobody has looked at this version of Go: what it looks like.
    note: Option<Gap>,
}

impl GoRuntime {
    /// Finds the runtime of the Go program or library `elf`, built as `build` says and loaded with `load_bias`.
    ///
    /// # Errors
    /// Where neither its heap nor its function table is found.
    pub fn find(memory: &dyn Memory, elf: &ElfFile, load_bias: u64, build: &GoBuildInfo) -> Result<Self> {
        let mut gaps = Vec::new();
        let pclntab = Pclntab::parse(elf, build).and_then(|table| table.context("the program has none"));
        let pclntab = noted(pclntab, "Go's function table", &mut gaps);
        let heap = Heap::find(memory, elf, load_bias, build, pclntab.as_ref());
        let heap = noted(heap, "the Go heap and runtime", &mut gaps);
        if let (None, None, [pclntab, heap]) = (&heap, &pclntab, gaps.as_slice()) {
            bail!("{}: {}; {}: {}", heap.what, heap.why, pclntab.what, pclntab.why);
        }
        gaps.extend(heap.as_ref().and_then(|heap| heap.note.clone()));
        Ok(Self { load_bias, heap, pclntab, gaps })
    }

    /// Claims the Go heap by what its pages are for, and the runtime's own memory, and says what could not be
    /// read; also the heap's objects by size.
    pub fn claims(&self, memory: &dyn Memory) -> (Findings, Vec<SizeClass>) {
        let mut findings = Findings { gaps: self.gaps.clone(), ..Findings::default() };
        let Some(heap) = &self.heap else { return (findings, Vec::new()) };
        let reader = metadata::Reader { memory, layout: &heap.layout, globals: &heap.globals };
        let divided = noted(spans::divide(&reader), "the ranges of the Go heap", &mut findings.gaps);
        let spans::Division { ranges, findings: heap, classes } = divided.unwrap_or_default();
        let metadata = metadata::findings(&reader, &ranges);
        for mut part in [heap, metadata] {
            findings.claims.append(&mut part.claims);
            findings.gaps.append(&mut part.gaps);
            findings.slack.append(&mut part.slack);
        }
        (findings, classes)
    }

    /// What the program's own heap profile would show; one that is not kept where it is switched off.
    ///
    /// # Errors
    /// Where the heap was not found, the profile's variables were not, or the list of its buckets is none.
    pub fn heap_profile(&self, memory: &dyn Memory) -> Result<HeapProfile> {
        let heap = self.heap.as_ref().context("the Go heap was not found")?;
        if heap.note.is_some() {
            layout::check::buckets(memory, &heap.layout, heap.globals.addr(Global::Mbuckets)?)?;
        }
        profile::read(&metadata::Reader { memory, layout: &heap.layout, globals: &heap.globals })
    }

    /// How its collector is set.
    ///
    /// # Errors
    /// Where the heap was not found, or the collector's settings were not.
    pub fn collector(&self, memory: &dyn Memory) -> Result<Collector> {
        let heap = self.heap.as_ref().context("the Go heap was not found")?;
        collector::read(&metadata::Reader { memory, layout: &heap.layout, globals: &heap.globals })
    }

    /// Ids of the threads it knows of, in the process's own PID namespace, each with the address of its `m`.
    ///
    /// # Errors
    /// Where its list of them is not found or cannot be read.
    pub fn threads(&self, memory: &dyn Memory) -> Result<BTreeMap<i32, u64>> {
        let heap = self.heap.as_ref().context("the Go heap was not found")?;
        threads::machines(&metadata::Reader { memory, layout: &heap.layout, globals: &heap.globals })
    }

    /// The stacks on which these of its [`threads`](Self::threads) handle signals, by thread id.
    pub fn signal_stacks(
        &self,
        memory: &dyn Memory,
        threads: &BTreeMap<i32, u64>,
    ) -> BTreeMap<i32, AddrRange> {
        let Some(heap) = &self.heap else { return BTreeMap::new() };
        let reader = metadata::Reader { memory, layout: &heap.layout, globals: &heap.globals };
        threads::signal_stacks(&reader, &heap.goroutine_layout, threads)
    }

    /// Where fields of its threads and goroutines lie, that lead from one to the other.
    pub fn thread_fields(&self) -> Option<ThreadFields> {
        let heap = self.heap.as_ref()?;
        let goroutine = &heap.goroutine_layout;
        Some(ThreadFields {
            curg_offset: heap.layout.thread_curg_offset,
            stack_offset: goroutine.stack_offset as u64,
            sched_pc_offset: goroutine.pc_offset as u64,
            sched_sp_offset: goroutine.sp_offset as u64,
            sched_bp_offset: goroutine.bp_offset as u64,
        })
    }

    /// What the heap manages: spans, idle pages, goroutine stacks; sorted and disjoint.
    ///
    /// # Errors
    /// Where the heap was not found, or its list of ranges stays inconsistent.
    pub fn heap_ranges(&self, memory: &dyn Memory) -> Result<Vec<AddrRange>> {
        self.heap.as_ref().context("the Go heap was not found")?.ranges(memory)
    }

    /// All goroutines, by what they do; `now_ns` is the monotonic clock's. Their code is the program's own, and
    /// that of its `plugins`; their stacks lie on `stack_pages`.
    ///
    /// # Errors
    /// Where their list is not found or cannot be read, or the function table was not found.
    pub fn goroutines(
        &self,
        memory: &dyn Memory,
        plugins: &[Self],
        stack_pages: &StackPages,
        now_ns: u64,
    ) -> Result<Goroutines> {
        let heap = self.heap.as_ref().context("the Go heap was not found")?;
        let own = GoCode::of(self).context("Go's function table was not found")?;
        let code: Vec<GoCode<'_>> = [own].into_iter().chain(plugins.iter().filter_map(GoCode::of)).collect();
        let allgs_addr = heap.globals.addr(Global::Allgs)?;
        if heap.note.is_some() {
            self.check_goroutines(memory, heap, allgs_addr)?;
        }
        let sources = goroutines::Sources {
            memory,
            layout: &heap.goroutine_layout,
            code: &code,
            allgs_addr,
            reasons_addr: heap.globals.addr(Global::WaitReasonStrings).ok(),
            stack_pages,
        };
        goroutines::read(&sources, now_ns)
    }

    fn check_goroutines(&self, memory: &dyn Memory, heap: &Heap, allgs_addr: u64) -> Result<()> {
        let Some(table) = self.pclntab() else { return Ok(()) };
        let is_entry = |addr: u64| {
            let svma = self.svma(addr);
            table.lookup(svma).is_some_and(|function| function.entry_svma == svma)
        };
        let is_code = |addr: u64| table.text_svma().contains(self.svma(addr));
        layout::check::goroutines(memory, &heap.goroutine_layout, allgs_addr, is_entry, is_code)
    }

    /// The functions of the program. Its addresses are those of the file: see [`Self::svma`].
    pub fn pclntab(&self) -> Option<&Pclntab> {
        self.pclntab.as_ref()
    }

    /// Where the variables of package `runtime` are, and how its structures are laid out.
    pub fn globals(&self) -> Option<(&Globals, &Layout)> {
        self.heap.as_ref().map(|heap| (&heap.globals, &heap.layout))
    }

    /// The address that the file states for `addr` of the process.
    pub fn svma(&self, addr: u64) -> u64 {
        addr.wrapping_sub(self.load_bias)
    }

    /// The text of Go code; with Go's own linker the race detector's C code lies inside.
    pub fn text_range(&self) -> Option<AddrRange> {
        self.addrs(self.pclntab()?.text_svma())
    }

    /// Whether the instruction at `addr` belongs to a function of package `runtime`. False too where
    /// nothing is known of it.
    pub fn is_runtime_pc(&self, addr: u64) -> bool {
        let function = self.pclntab().and_then(|table| table.lookup(self.svma(addr)));
        function.is_some_and(|function| function.is_in_runtime())
    }

    /// The assembly through which Go calls the race detector, `race_amd64.s` or `race_arm64.s`: `racecall`
    /// and the functions around it from the same file. `None` where there is no race detector.
    pub fn race_call_range(&self) -> Option<AddrRange> {
        let mut range: Option<AddrRange> = None;
        let mut has_race_call = false;
        for function in self.pclntab()?.functions() {
            if is_race_assembly(&function) {
                has_race_call |= function.role() == pclntab::Role::RaceCall;
                let start_svma = range.map_or(function.entry_svma, |range| range.start_addr);
                range = AddrRange::new(start_svma, function.end_svma);
            } else if has_race_call {
                break;
            } else {
                range = None;
            }
        }
        self.addrs(range.filter(|_| has_race_call)?)
    }

    /// Whether its file was loaded with `load_bias`.
    pub fn is_loaded_with(&self, load_bias: u64) -> bool {
        self.load_bias == load_bias
    }

    /// A range of the file as it lies in the process.
    pub fn addrs(&self, svma: AddrRange) -> Option<AddrRange> {
        AddrRange::with_len(svma.start_addr.wrapping_add(self.load_bias), svma.len_bytes())
    }
}

impl Heap {
    /// The heap by the likeliest layout that fits its structures.
    fn find(
        memory: &dyn Memory,
        elf: &ElfFile,
        load_bias: u64,
        build: &GoBuildInfo,
        pclntab: Option<&Pclntab>,
    ) -> Result<Self> {
        let version =
            build.go_version().with_context(|| format!("no such Go version: {:?}", build.version))?;
        let (mut errors, mut budget) = (Vec::new(), find::Budget::default());
        for candidate in layout::candidates::candidates(elf, version, Arch::of(elf)?)? {
            let program = Program {
                elf,
                load_bias,
                pclntab,
                layout: &candidate.heap,
                goroutine_layout: &candidate.goroutine,
            };
            match Self::by_layout(memory, &program, &candidate, version, &mut budget) {
                Ok(heap) => return Ok(heap),
                Err(error) => errors.push(error),
            }
        }
        // That of the likeliest.
        Err(errors.into_iter().next().context("nothing is known of its layout")?)
    }

    fn by_layout(
        memory: &dyn Memory,
        program: &Program<'_>,
        candidate: &Candidate,
        version: GoVersion,
        budget: &mut find::Budget,
    ) -> Result<Self> {
        let globals = Globals::find(memory, program, budget)?;
        let note = candidate.note(version);
        match globals.addr(Global::Allm) {
            Ok(allm_addr) => layout::check::threads(memory, candidate, allm_addr)?,
            // Where the release is known, the heap has to be enough.
            Err(error) if note.is_some() => {
                return Err(error.context("nothing but the heap proves its layout"));
            }
            Err(_) => {}
        }
        Ok(Self { layout: candidate.heap, globals, goroutine_layout: candidate.goroutine, note })
    }

    fn ranges(&self, memory: &dyn Memory) -> Result<Vec<AddrRange>> {
        heap::ranges(memory, &self.layout, self.globals.mheap_addr())
    }
}

fn is_race_assembly(function: &Function<'_>) -> bool {
    let is_race_file = |file: &str| file.ends_with("/race_amd64.s") || file.ends_with("/race_arm64.s");
    function.is_asm() && function.file().is_some_and(is_race_file)
}

/// What was found, or a gap that says what was not.
fn noted<T>(result: Result<T>, what: &str, gaps: &mut Vec<Gap>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            gaps.push(Gap { what: what.to_owned(), why: format!("{error:#}"), bytes: None });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pclntab::tests::{TEXT_SVMA, parsed};
    use super::*;
    use crate::target::memory::canned::Pieces;

    const BIAS: u64 = 0x5555_0000_0000;

    #[test]
    fn functions_lie_where_the_program_was_loaded() {
        let go = GoRuntime { load_bias: BIAS, heap: None, pclntab: Some(parsed()), gaps: vec![] };
        let racecall_addr = BIAS + TEXT_SVMA + 0x40;
        assert_eq!(go.text_range(), AddrRange::with_len(BIAS + TEXT_SVMA, 0x60));
        assert_eq!(go.race_call_range(), AddrRange::with_len(racecall_addr, 0x20));
        assert!(go.is_runtime_pc(racecall_addr));
        assert!(!go.is_runtime_pc(BIAS + TEXT_SVMA), "main.outer");
        assert!(!go.is_runtime_pc(TEXT_SVMA + 0x40), "not loaded there");
        assert!(go.heap_ranges(&Pieces::default()).is_err());
    }

    #[test]
    fn a_program_that_is_not_go_is_refused_with_both_reasons() {
        let elf = ElfFile::parse(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        let build = GoBuildInfo { version: "go1.27.3".to_owned(), settings: vec![] };
        let found = GoRuntime::find(&Pieces::default(), &elf, 0, &build);
        let message = format!("{:#}", found.err().unwrap());
        assert!(message.contains("Go heap") && message.contains("function table"), "{message}");
    }
}
