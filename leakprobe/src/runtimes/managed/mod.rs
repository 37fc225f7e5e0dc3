//! Language runtimes that are recognised and not divided: CPython, V8 and HotSpot. Each is one or two rows of
//! its own, so that its heap is not "unknown"; what is in it, the language's own tools tell.
//!
//! Nothing is looked for where no module carries the runtime's exported symbols.

mod jvm;
mod python;
mod v8;

use crate::address::AddrRange;
use crate::claim::{Claim, Component, Evidence, Findings};
use crate::runtimes::malloc::anonymous::AnonymousMemory;
use crate::snapshot::{PageRun, Residency};
use crate::target::maps::Region;
use crate::target::memory::Memory;
use crate::target::modules::Module;

/// What the readers of these runtimes see.
struct Reader<'a> {
    memory: &'a dyn Memory,
    modules: &'a [Module],
    regions: &'a [Region],
    /// Writable private memory that nobody else owns.
    free: AnonymousMemory,
    /// Resident pages: what was never touched is not read, since reading it would map pages of zeroes there.
    runs: &'a [PageRun],
}

/// Claims the memory of the runtimes found among `modules`; `taken` is what others own.
pub fn claims(
    memory: &dyn Memory,
    modules: &[Module],
    regions: &[Region],
    taken: &[AddrRange],
    runs: &[PageRun],
) -> Findings {
    let mut findings = Findings::default();
    let free = AnonymousMemory::new(regions, taken);
    let reader = Reader { memory, modules, regions, free, runs };
    for more in [python::claims(&reader), v8::claims(&reader), jvm::claims(&reader)] {
        findings.claims.extend(more.claims);
        findings.gaps.extend(more.gaps);
        findings.slack.extend(more.slack);
    }
    findings
}

impl Reader<'_> {
    fn is_resident(&self, addr: u64) -> bool {
        let after = self.runs.partition_point(|run| run.range.end_addr <= addr);
        let run = self.runs.get(after);
        run.is_some_and(|run| run.range.contains(addr) && run.residency != Residency::Swapped)
    }

    /// The module that exports all of `names`, with their addresses in the process.
    fn exporter<const N: usize>(&self, names: [&str; N]) -> Option<[u64; N]> {
        self.modules.iter().find_map(|module| {
            let exported = module.elf.exported(|name| names.contains(&name)).ok()?;
            let mut addrs = [0; N];
            for (addr, name) in addrs.iter_mut().zip(names) {
                let symbol = exported.iter().find(|symbol| symbol.name == name)?;
                *addr = module.load_bias.wrapping_add(symbol.svma);
            }
            Some(addrs)
        })
    }
}

fn claim(range: AddrRange, component: Component, evidence: Evidence) -> Claim {
    Claim { range, component, evidence }
}
