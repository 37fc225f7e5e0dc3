//! Takes one snapshot of the process whose id is given, and nothing else: for `cargo xtask bench`, which times it.

#![expect(unused_crate_dependencies, reason = "the library's, not this program's")]
#![expect(clippy::print_stdout, reason = "this is what it is asked for")]

use anyhow::{Context, Result};
use leakprobe::snapshot;
use leakprobe::target::Target;

fn main() -> Result<()> {
    let pid = std::env::args().nth(1).context("give the id of a process")?;
    let target = Target::open(pid.parse().with_context(|| format!("{pid:?} is not the id of a process"))?)?;
    let taken = snapshot::take(&target)?.context("the process has ended")?;
    let (rss, moved) = (taken.rss_bytes(), taken.moved_bytes);
    println!("{{\"mappings\":{},\"rss\":{rss},\"moved\":{moved}}}", taken.usages.len());
    Ok(())
}
