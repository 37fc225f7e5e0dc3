//! musl's malloc (mallocng, musl 1.2.1 and later): groups of slots of one size, some groups within a slot of a
//! larger one.
//!
//! Answers which pages hold what the program has not freed, and counts the blocks. Refuses the malloc of older
//! musl. The surprise: a group's description lies apart from it, in areas that begin with a secret number of the
//! process, so that the variables are known by it in a stripped file: a word of .bss is that number, and another
//! leads to where it stands again.
//!
//! Layouts: musl `src/malloc/mallocng/meta.h`, x86_64, where the page size is no variable; tried with Debian's
//! 1.2.3, dynamic and static.

mod context;
mod groups;

use self::context::Context;
use super::anonymous::AnonymousMemory;
use super::census::Census;
use crate::address::AddrRange;
use crate::claim::{Component, Findings, Gap};
use crate::runtimes::malloc::pages::push_claim;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// A process whose C library is musl, or may be.
#[derive(Debug)]
pub struct Musl {
    /// Where its variables may lie.
    variables: Vec<AddrRange>,
    /// A static program may have any C library, or none.
    is_certain: bool,
}

impl Musl {
    /// Where one of `modules` is musl's library, or the executable may have it inside: it has no `other` C library.
    pub fn find(modules: &[Module], other: bool) -> Option<Self> {
        let library = modules.iter().find(|module| is_library(module.name()));
        let carrier = library.or_else(|| modules.iter().find(|module| module.is_exe && !other))?;
        let variables = carrier.elf.bss_ranges(carrier.load_bias);
        Some(Self { variables, is_certain: library.is_some() })
    }

    /// Claims what its malloc holds of `free`, the memory that nobody else owns, and counts it; no census where
    /// its malloc was not found. `brk` is where the brk heap lies: older versions keep blocks there.
    pub fn read(
        &self,
        memory: &dyn Memory,
        free: &AnonymousMemory,
        brk: Option<AddrRange>,
    ) -> (Findings, Option<Census>) {
        let mut findings = Findings::default();
        let Some(context) = self.variables.iter().find_map(|range| Context::find(memory, *range, free))
        else {
            if let Some(brk) = brk.filter(|_| self.is_certain) {
                findings.gaps.push(Gap {
                    what: "what of musl's heap is free".to_owned(),
                    why:
                        "its structures are not those of mallocng, musl 1.2.1; its brk heap counts as in use"
                            .to_owned(),
                    bytes: None,
                });
                push_claim(&mut findings, brk, Component::CHeapInUse);
            }
            return (findings, None);
        };
        let (areas, groups, gap) = context.groups(memory, free);
        findings.gaps.extend(gap);
        let mut census = groups::survey(groups, free, &mut findings);
        census.overhead_bytes += areas.iter().map(AddrRange::len_bytes).sum::<u64>();
        for area in areas {
            push_claim(&mut findings, area, Component::CHeapInUse);
        }
        (findings, Some(census))
    }

    /// Whether the C library is musl for certain.
    pub fn is_certain(&self) -> bool {
        self.is_certain
    }
}

/// The loader and the library are one file, of two names.
fn is_library(name: &str) -> bool {
    name == "libc.so" || name.starts_with("ld-musl-") || name.starts_with("libc.musl-")
}

#[cfg(test)]
mod tests;
