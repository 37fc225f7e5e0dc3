//! The runtimes in the target, found once and read at each look: what they say of their own memory.

pub mod code;
pub mod go;
pub mod malloc;
pub mod managed;
pub mod sanitizer;
pub mod threads;

use self::code::{CodeRoles, Role, go_role};
use self::go::code::GoCode;
use self::go::{GoRuntime, HeapProfile, SizeClass};
use self::malloc::glibc;
use self::sanitizer::RaceCounts;
use self::threads::ThreadStack;
use crate::address::AddrRange;
use crate::claim::{Evidence, Findings, Gap};
use crate::target::Thread;
use crate::target::build_info::GoBuildInfo;
use crate::target::elf::ElfFile;
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// What runs in the target.
pub struct Runtimes {
    /// The Go runtime, where there is one and it was found.
    pub go: Option<GoRuntime>,
    /// What the executable says of its build, where it is Go's.
    pub build: Option<GoBuildInfo>,
    /// Version of glibc: "2.36".
    pub glibc_version: Option<String>,
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
    /// What the race detector counts of itself, where it was found.
    pub race_counts: Option<RaceCounts>,
    /// What Go's own heap profile would show; `None` where it could not be read.
    pub heap_profile: Option<HeapProfile>,
    /// Objects of the Go heap by size.
    pub size_classes: Vec<SizeClass>,
}

impl Runtimes {
    /// Finds what runs in the target. What is there and cannot be read is a gap.
    pub fn find(memory: &dyn Memory, modules: &[Module]) -> (Self, Vec<Gap>) {
        let mut gaps = Vec::new();
        let exe = exe(modules);
        let build = exe.and_then(|exe| GoBuildInfo::read(&exe.elf).unwrap_or_default());
        let go = match (exe, &build) {
            (Some(exe), Some(build)) => match GoRuntime::find(memory, &exe.elf, exe.load_bias, build) {
                Ok(go) => Some(go),
                Err(error) => {
                    gaps.push(Gap {
                        what: format!("the runtime of {}", build.version),
                        why: format!("{error:#}"),
                        bytes: None,
                    });
                    None
                }
            },
            _ => None,
        };
        let libc = modules
            .iter()
            .find(|module| module.name().starts_with("libc.so") || module.name().starts_with("libc-2"));
        // A static executable holds its C library itself.
        let c_library = libc.or(exe);
        let glibc_version = c_library.and_then(|module| glibc::version(&module.elf));
        let libc_data =
            c_library.map_or_else(Vec::new, |module| glibc::data_ranges(&module.elf, module.load_bias));
        let exe_is_stripped = exe.map(|exe| !exe.elf.has_symbol_table());
        (Self { go, build, glibc_version, exe_is_stripped, libc_data }, gaps)
    }

    /// Whether the target is a Go program built with -race.
    pub fn is_race(&self) -> bool {
        self.build.as_ref().is_some_and(GoBuildInfo::race)
    }

    /// Go's code, where its function table was found.
    pub fn go_code(&self, modules: &[Module]) -> Option<GoCode<'_>> {
        GoCode::of(self.go.as_ref()?, exe(modules)?.load_bias)
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
        if let Some(go) = &self.go {
            let (claims, classes) = go.claims(memory);
            add(&mut findings, claims);
            size_classes = classes;
            heap_profile = go_profile(go, memory, &mut findings.gaps);
        }
        let exe = exe(modules);
        let mut race_counts = None;
        if let Some(exe) = exe.filter(|_| self.is_race()) {
            let race = sanitizer::race_runtime(memory, regions, &exe.elf, exe.load_bias);
            add(&mut findings, race.findings);
            race_counts = race.counts;
        }
        let proven = findings.claims.iter().filter(|claim| claim.evidence >= Evidence::Mapping);
        let mut taken: Vec<AddrRange> = proven.map(|claim| claim.range).collect();
        taken.extend(modules.iter().flat_map(|module| module.elf.bss_ranges(module.load_bias)));
        add(&mut findings, glibc::claims(memory, regions, &taken, &self.libc_data));
        if self.is_race() && !self.has_user_cgo(exe) {
            let remainder = sanitizer::remainder(regions, &findings.claims);
            findings.claims.extend(remainder);
        }
        Reading { findings, stacks, race_counts, heap_profile, size_classes }
    }

    /// The roles of the target's code; `race_text` is [`Self::race_text`].
    pub fn code_roles(&self, modules: &[Module], race_text: &[AddrRange]) -> CodeRoles {
        let Some(go) = &self.go else { return CodeRoles::new(modules, []) };
        let functions = go_functions(go, modules).map(|(name, range)| (range, go_role(name)));
        let race = race_text.iter().map(|range| (*range, Role::RaceRuntime));
        CodeRoles::new(modules, functions.chain(race))
    }

    /// The C++ code of the race detector, ascending; empty without -race.
    pub fn race_text(&self, modules: &[Module]) -> Vec<AddrRange> {
        let (Some(go), Some(exe), true) = (&self.go, exe(modules), self.is_race()) else {
            return Vec::new();
        };
        let by_symbol = sanitizer::race_text_of_symbols(&exe.elf, exe.load_bias);
        if by_symbol.is_empty() {
            return sanitizer::race_text_ranges(go_functions(go, modules)); // stripped
        }
        by_symbol
    }

    /// Linked by the C linker, which Go uses where the program has C code of its own: then memory that
    /// nothing explains may be that code's.
    fn has_user_cgo(&self, exe: Option<&Module>) -> bool {
        exe.is_none_or(|exe| is_externally_linked(&exe.elf))
    }
}

/// What Go's heap profile shows, or a gap that says why nothing.
fn go_profile(go: &GoRuntime, memory: &dyn Memory, gaps: &mut Vec<Gap>) -> Option<HeapProfile> {
    match go.heap_profile(memory) {
        Ok(profile) => Some(profile),
        Err(error) => {
            gaps.push(Gap { what: "Go's heap profile".to_owned(), why: format!("{error:#}"), bytes: None });
            None
        }
    }
}

/// The C linker keeps `.eh_frame`, Go's own linker writes none.
fn is_externally_linked(elf: &ElfFile) -> bool {
    elf.section(".eh_frame").is_some()
}

/// Every function of the executable that Go's table lists, with its addresses in the process.
fn go_functions<'a>(go: &'a GoRuntime, modules: &[Module]) -> impl Iterator<Item = (&'a str, AddrRange)> {
    let load_bias = exe(modules).map_or(0, |exe| exe.load_bias);
    go.pclntab().into_iter().flat_map(|table| table.functions()).filter_map(move |function| {
        let start_addr = function.entry_svma.wrapping_add(load_bias);
        Some((function.name(), AddrRange::new(start_addr, function.end_svma.wrapping_add(load_bias))?))
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
