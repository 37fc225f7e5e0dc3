//! The runtimes in the target, found once and read at each look: what they say of their own memory.

pub mod code;
pub mod cpp;
pub mod go;
pub mod malloc;
pub mod managed;
pub mod sanitizer;
pub mod threads;

use std::collections::{BTreeMap, BTreeSet};

use self::code::{CodeRoles, Role, go_role};
use self::cpp::{Classes, VtablePlaces};
use self::go::code::GoCode;
use self::go::{Collector, GoRuntime, HeapProfile, SizeClass};
use self::malloc::anonymous::AnonymousMemory;
use self::malloc::census::Census;
use self::malloc::glibc;
use self::malloc::musl::Musl;
use self::malloc::replacement::Replacement;
use self::sanitizer::RaceCounts;
use self::sanitizer::native::{self, NativeSanitizer};
use self::threads::ThreadStack;
use crate::address::AddrRange;
use crate::claim::{Evidence, Findings, Gap};
use crate::target::Thread;
use crate::target::build_info::GoBuildInfo;
use crate::target::elf::ElfFile;
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::{FileId, Module};

/// What runs in the target.
pub struct Runtimes {
    /// The Go runtimes that were found: the executable's first, then those of shared libraries.
    pub go: Vec<GoRuntime>,
    /// Plug-ins of a Go program: code that runs on its runtime, and no heap of their own.
    pub plugins: Vec<GoRuntime>,
    /// What the first Go file says of its build; the executable comes first.
    pub build: Option<GoBuildInfo>,
    /// The file with the race detector in it.
    race_file: Option<FileId>,
    /// Another sanitizer, found by name.
    pub sanitizer: Option<NativeSanitizer>,
    /// Version of glibc: "2.36".
    pub glibc_version: Option<String>,
    /// The C library where it is musl, or may be.
    musl: Option<Musl>,
    /// The allocator that took malloc's place, where one did.
    pub replacement: Option<Replacement>,
    /// Whether the executable has no symbol table; `None` where it could not be opened.
    pub exe_is_stripped: Option<bool>,
    /// Where glibc's `main_arena` may lie.
    libc_data: Vec<AddrRange>,
}

/// What the runtimes said at one moment.
#[derive(Default)]
pub struct Reading {
    /// Claims and gaps.
    pub findings: Findings,
    /// Threads' stacks.
    pub stacks: Vec<ThreadStack>,
    /// Ids of the threads that the Go runtimes know of, in the target's own PID namespace; `None` where there is no
    /// Go, or some list of them could not be read.
    pub go_threads: Option<BTreeSet<i32>>,
    /// The stacks on which Go's threads handle signals, by thread id likewise.
    pub signal_stacks: BTreeMap<i32, AddrRange>,
    /// What the race detector counts of itself, where it was found.
    pub race_counts: Option<RaceCounts>,
    /// What Go's own heap profile would show; `None` where it could not be read.
    pub heap_profile: Option<HeapProfile>,
    /// Objects of the Go heap by size.
    pub size_classes: Vec<SizeClass>,
    /// How the collector of the first Go runtime is set; `None` where that was not read.
    pub collector: Option<Collector>,
    /// What malloc's chunks add up to, where it was found.
    pub malloc: Option<Census>,
    /// The C library's malloc by name.
    pub allocator: Option<String>,
}

impl Runtimes {
    /// Finds what runs in the target. What is there and cannot be read is a gap.
    pub fn find(memory: &dyn Memory, modules: &[Module]) -> (Self, Vec<Gap>) {
        let mut gaps = Vec::new();
        let exe = exe(modules);
        let (mut go, mut plugins) = (Vec::new(), Vec::new());
        let mut builds = Vec::new();
        for module in exe.into_iter().chain(modules.iter().filter(|module| !module.is_exe)) {
            let Some(build) = GoBuildInfo::read(&module.elf).unwrap_or_default() else { continue };
            match GoRuntime::find(memory, &module.elf, module.load_bias, &build) {
                Ok(runtime) if build.is_plugin() => plugins.push(runtime),
                Ok(runtime) => go.push(runtime),
                Err(error) => gaps.push(Gap {
                    what: format!("the runtime of {} in {}", build.version, module.name()),
                    why: format!("{error:#}"),
                    bytes: None,
                }),
            }
            builds.push((module.file_id, build));
        }
        // Before Go 1.18 a file does not say how it was built.
        let has_race_runtime = |file_id: FileId| {
            modules.iter().any(|module| module.file_id == file_id && native::has_thread_sanitizer(module))
        };
        let is_old = |build: &GoBuildInfo| build.go_minor().is_some_and(|minor| minor < 18);
        let race_file = builds
            .iter()
            .find(|(file_id, build)| build.race() || (is_old(build) && has_race_runtime(*file_id)));
        let race_file = race_file.map(|&(file_id, _)| file_id);
        let build = builds.into_iter().next().map(|(_, build)| build);
        let libc = modules
            .iter()
            .find(|module| module.name().starts_with("libc.so.") || module.name().starts_with("libc-2"));
        // A static executable holds its C library itself.
        let c_library = libc.or(exe);
        let glibc_version = c_library.and_then(|module| glibc::version(&module.elf));
        let libc_data =
            c_library.map_or_else(Vec::new, |module| glibc::data_ranges(&module.elf, module.load_bias));
        let exe_is_stripped = exe.map(|exe| !exe.elf.has_symbol_table());
        let musl = Musl::find(modules, libc.is_some() || glibc_version.is_some());
        let replacement = Replacement::find(modules);
        let sanitizer = NativeSanitizer::find(modules, race_file);
        let found = Self {
            go,
            plugins,
            build,
            race_file,
            sanitizer,
            glibc_version,
            musl,
            replacement,
            exe_is_stripped,
            libc_data,
        };
        (found, gaps)
    }

    /// Whether the target has Go code built with -race.
    pub fn is_race(&self) -> bool {
        self.race_file.is_some()
    }

    /// Go's code, where its function tables were found.
    pub fn go_code(&self) -> Vec<GoCode<'_>> {
        self.go.iter().chain(&self.plugins).filter_map(GoCode::of).collect()
    }

    /// Reads everything now. What one runtime proves is not offered to the next.
    pub fn read(
        &self,
        memory: &dyn Memory,
        modules: &[Module],
        regions: &[Region],
        threads: &[Thread],
    ) -> Reading {
        let main_tid = threads.first().map_or(0, |thread| thread.ns_tid);
        let tids: Vec<i32> = threads.iter().map(|thread| thread.ns_tid).collect();
        let (stacks, mut findings) = threads::stacks(memory, regions, main_tid, &tids);
        let mut heap_profile = None;
        let mut size_classes = Vec::new();
        for go in &self.go {
            let (claims, classes) = go.claims(memory);
            add(&mut findings, claims);
            add_classes(&mut size_classes, classes);
            let profile = go_profile(go, memory, &mut findings.gaps);
            heap_profile = one_profile(heap_profile, profile, &mut findings.gaps);
        }
        if let Some(profile) = &mut heap_profile {
            profile.has_others = self.go.len() > 1;
        }
        let mut race_counts = None;
        let race_module = self.race_module(modules);
        if let Some(module) = race_module {
            let race = sanitizer::race_runtime(memory, regions, &module.elf, module.load_bias);
            add(&mut findings, race.findings);
            race_counts = race.counts;
        }
        let proven = findings.claims.iter().filter(|claim| claim.evidence >= Evidence::Mapping);
        let mut taken: Vec<AddrRange> = proven.map(|claim| claim.range).collect();
        taken.extend(modules.iter().flat_map(|module| module.elf.bss_ranges(module.load_bias)));
        let (found, malloc, allocator) = self.read_malloc(memory, modules, regions, &taken);
        add(&mut findings, found);
        if !self.go.is_empty() && race_module.is_some_and(|module| !is_externally_linked(&module.elf)) {
            let remainder = sanitizer::remainder(regions, &findings.claims);
            findings.claims.extend(remainder);
        }
        let machines: Vec<_> = self.go.iter().map(|go| go.threads(memory).ok()).collect();
        let each = self.go.iter().zip(&machines);
        let signal_stacks =
            each.filter_map(|(go, machines)| Some(go.signal_stacks(memory, machines.as_ref()?))).flatten();
        let signal_stacks = signal_stacks.collect();
        let go_threads: Option<Vec<_>> = machines.into_iter().collect();
        let go_threads = go_threads.filter(|all| !all.is_empty());
        let go_threads = go_threads.map(|all| all.into_iter().flat_map(BTreeMap::into_keys).collect());
        Reading {
            findings,
            stacks,
            go_threads,
            signal_stacks,
            race_counts,
            heap_profile,
            size_classes,
            // Not worth a gap: it is in the program's environment, too, as a rule.
            collector: self.go.first().and_then(|go| go.collector(memory).ok()),
            malloc,
            allocator,
        }
    }

    /// What the C library's malloc holds, and its name: "glibc 2.36".
    fn read_malloc(
        &self,
        memory: &dyn Memory,
        modules: &[Module],
        regions: &[Region],
        taken: &[AddrRange],
    ) -> (Findings, Option<Census>, Option<String>) {
        if let Some(musl) = &self.musl {
            let free = AnonymousMemory::new(regions, taken);
            let brk = regions.iter().find(|region| region.name == "[heap]").map(|region| region.range);
            let (found, malloc) = musl.read(memory, &free, brk);
            if musl.is_certain() || malloc.is_some() {
                return (found, malloc, Some("musl".to_owned()));
            }
        }
        let version = self.glibc_version.as_deref();
        let places = VtablePlaces::of(modules);
        let (found, mut malloc) = glibc::read(memory, regions, taken, &self.libc_data, version, &places);
        if let Some(census) = &mut malloc {
            census.name_classes(&mut Classes::new(memory, modules, &places));
        }
        (found, malloc, version.map(|version| format!("glibc {version}")))
    }

    /// The roles of the target's code; `race_text` is [`Self::race_text`].
    pub fn code_roles(&self, modules: &[Module], race_text: &[AddrRange]) -> CodeRoles {
        let go = self.go.iter().chain(&self.plugins);
        let functions = go.flat_map(go_functions).map(|(name, range)| (range, go_role(name)));
        let race = race_text.iter().map(|range| (*range, Role::RaceRuntime));
        let sanitizer = self.sanitizer.iter().flat_map(NativeSanitizer::code_roles);
        CodeRoles::new(modules, functions.chain(race).chain(sanitizer))
    }

    /// The C++ code of the race detector, ascending; empty without -race.
    pub fn race_text(&self, modules: &[Module]) -> Vec<AddrRange> {
        let Some(module) = self.race_module(modules) else { return Vec::new() };
        let by_symbol = sanitizer::race_text_of_symbols(&module.elf, module.load_bias);
        if by_symbol.is_empty() {
            let go = self.go.iter().filter(|go| go.is_loaded_with(module.load_bias)); // stripped
            return sanitizer::race_text_ranges(go.flat_map(go_functions));
        }
        by_symbol
    }

    fn race_module<'a>(&self, modules: &'a [Module]) -> Option<&'a Module> {
        modules.iter().find(|module| Some(module.file_id) == self.race_file)
    }
}

/// What Go's heap profile shows, or a gap that says why nothing.
fn go_profile(go: &GoRuntime, memory: &dyn Memory, gaps: &mut Vec<Gap>) -> Option<HeapProfile> {
    let mut gap = |why, bytes| gaps.push(Gap { what: "Go's heap profile".to_owned(), why, bytes });
    match go.heap_profile(memory) {
        Ok(profile) => {
            if profile.is_torn {
                let why = "collections ended all the while it was read: its figures are of more than one";
                gap(why.to_owned(), Some(profile.in_use_bytes));
            }
            Some(profile)
        }
        Err(error) => {
            gap(format!("{error:#}"), None);
            None
        }
    }
}

/// One profile fits in a report: that of the first runtime which keeps one.
fn one_profile(
    first: Option<HeapProfile>,
    second: Option<HeapProfile>,
    gaps: &mut Vec<Gap>,
) -> Option<HeapProfile> {
    let is_kept = |profile: &Option<HeapProfile>| profile.as_ref().is_some_and(|it| it.rate_bytes != 0);
    if is_kept(&first) && is_kept(&second) {
        let what = "the heap profile of another Go runtime in the process".to_owned();
        gaps.push(Gap { what, why: "only one can be shown".to_owned(), bytes: None });
    }
    if is_kept(&second) && !is_kept(&first) { second } else { first.or(second) }
}

/// Adds the objects of another runtime, size by size.
fn add_classes(all: &mut Vec<SizeClass>, more: Vec<SizeClass>) {
    for class in more {
        match all.iter_mut().find(|known| known.object_bytes == class.object_bytes) {
            Some(known) => {
                known.objects = known.objects.saturating_add(class.objects);
                known.live_bytes = known.live_bytes.saturating_add(class.live_bytes);
                known.spans = known.spans.saturating_add(class.spans);
                known.span_bytes = known.span_bytes.saturating_add(class.span_bytes);
            }
            None => all.push(class),
        }
    }
}

/// Linked by the C linker, which Go uses where the program has C code of its own: then memory that nothing
/// explains may be that code's. The C linker keeps `.eh_frame`, Go's own linker writes none.
fn is_externally_linked(elf: &ElfFile) -> bool {
    elf.section(".eh_frame").is_some()
}

/// Every function that a runtime's table lists, with its addresses in the process.
fn go_functions(go: &GoRuntime) -> impl Iterator<Item = (&str, AddrRange)> {
    go.pclntab().into_iter().flat_map(|table| table.functions()).filter_map(move |function| {
        let svma = AddrRange::new(function.entry_svma, function.end_svma)?;
        Some((function.name(), go.addrs(svma)?))
    })
}

fn exe(modules: &[Module]) -> Option<&Module> {
    modules.iter().find(|module| module.is_exe)
}

fn add(findings: &mut Findings, more: Findings) {
    findings.claims.extend(more.claims);
    findings.gaps.extend(more.gaps);
    findings.slack.extend(more.slack);
}
