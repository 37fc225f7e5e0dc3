//! leakprobe called as a library: for what no report says, and for hundreds of looks in a second.

use anyhow::{Context, Result, bail};
use leakprobe::claim::{Component, Evidence};
use leakprobe::look::{Look, look};
use leakprobe::runtimes::Runtimes;
use leakprobe::target::Target;
use leakprobe::target::modules::{self, Module};
use leakprobe_tests::Workload;

/// A process that was found, and can be looked at again and again.
pub(crate) struct Inside {
    pub(crate) target: Target,
    pub(crate) modules: Vec<Module>,
    pub(crate) runtimes: Runtimes,
}

impl Inside {
    pub(crate) fn of(workload: &Workload) -> Result<Self> {
        let pid = i32::try_from(workload.pid()).context("a pid is positive")?;
        let target = Target::open(pid)?;
        let (modules, _) = modules::open_all(&target, &target.regions());
        let (runtimes, gaps) = Runtimes::find(&target, &modules);
        if runtimes.go.is_empty() {
            bail!("the Go runtime was not found: {gaps:?}");
        }
        Ok(Self { target, modules, runtimes })
    }

    pub(crate) fn look(&self) -> Result<Look> {
        look(&self.target, &self.modules, &self.runtimes)?.context("the workload has ended")
    }
}

/// Bytes claimed for a component by structure, resident or not, that the process may touch: what the
/// runtime only reserved lies in regions without any permission.
pub(crate) fn mapped_bytes(look: &Look, component: Component) -> u64 {
    let mut ranges: Vec<_> = look
        .claims
        .iter()
        .filter(|claim| claim.component == component && claim.evidence == Evidence::Structure)
        .map(|claim| claim.range)
        .collect();
    ranges.sort_unstable_by_key(|range| range.start_addr);
    let regions = look.snapshot.usages.iter().map(|usage| &usage.region).filter(|region| region.writable);
    let mut bytes = 0;
    for region in regions {
        let mut from_addr = region.range.start_addr;
        for range in &ranges {
            let start_addr = range.start_addr.max(from_addr);
            let end_addr = range.end_addr.min(region.range.end_addr);
            if start_addr < end_addr {
                bytes += end_addr - start_addr;
                from_addr = end_addr;
            }
        }
    }
    bytes
}
