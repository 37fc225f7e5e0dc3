//! `cargo xtask bench`: what being watched costs, measured on this machine, side by side.
//!
//! Every watched measurement stands between two unwatched ones and is divided by their mean, so that a
//! machine that grows warm or busy changes both sides. Nothing is asserted: a figure from a busy machine
//! is a figure about that machine.

mod backends;
mod chunks;
mod machine;
mod malloc;
mod mappings;
mod requests;
mod service;
mod storm;
mod storms;
mod watcher;

use std::io::Write;

use anyhow::{Context, Result};

use crate::command::{build_leakprobe, ensure_root};
use crate::setup;

/// What can be measured by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The request rate of two Go services, one of them under wrk
    Requests,
    /// The request rate of a Redis under redis-benchmark
    Redis,
    /// A million malloc and free calls a second, beside heaptrack and bpftrace
    Malloc,
    /// A storm of page faults
    Storm,
    /// A storm of page faults beside one of mappings: what is lost
    Storms,
    /// Reading 60,000 mappings
    Mappings,
    /// Counting ten million blocks of malloc
    Chunks,
    /// System calls, of who is watched and of who is not, by backend
    Backends,
}

/// Measures one part, or all of them.
pub(crate) fn run(rounds: u32, only: Option<Part>) -> Result<()> {
    ensure_root("bench", "leakprobe, perf and bpftrace watch another process")?;
    setup::run(setup::Releases::Newest)?;
    setup::bench_tools();
    let leakprobe = build_leakprobe()?;
    let parts = [
        Part::Requests,
        Part::Redis,
        Part::Malloc,
        Part::Storm,
        Part::Storms,
        Part::Mappings,
        Part::Chunks,
        Part::Backends,
    ];
    for (index, part) in parts.into_iter().filter(|part| only.is_none_or(|only| only == *part)).enumerate() {
        if index > 0 {
            println!();
        }
        match part {
            Part::Requests => {
                requests::run(&leakprobe, rounds)?;
                println!();
                service::http(&leakprobe, rounds)?;
            }
            Part::Redis => service::redis(&leakprobe, rounds)?,
            Part::Malloc => malloc::run(&leakprobe, rounds)?,
            Part::Storm => storm::run(&leakprobe, rounds)?,
            Part::Storms => storms::run(&leakprobe, rounds)?,
            Part::Mappings => mappings::run(&leakprobe, rounds)?,
            Part::Chunks => chunks::run(&leakprobe, rounds)?,
            Part::Backends => backends::run(&leakprobe, rounds)?,
        }
    }
    Ok(())
}

/// Shows a line that is not finished yet.
fn flush() -> Result<()> {
    std::io::stdout().flush().context("write to stdout")
}

/// Several measurements of the same thing.
#[derive(Default)]
struct Samples(Vec<f64>);

impl Samples {
    fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Each of them in another unit.
    fn each(&self, convert: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().copied().map(convert).collect())
    }

    /// Smallest, middle and largest.
    fn spread(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) };
        Some((sorted[0], median, sorted[sorted.len() - 1]))
    }

    /// The three, for a column.
    fn shown(&self) -> String {
        self.spread().map_or_else(
            || "       not measured".to_owned(),
            |(least, median, most)| format!("{least:6.3} {median:6.3} {most:6.3}"),
        )
    }

    fn median(&self) -> f64 {
        self.spread().map_or(f64::NAN, |(_, median, _)| median)
    }

    fn most(&self) -> f64 {
        self.spread().map_or(f64::NAN, |(_, _, most)| most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(Samples(vec![4.0, 1.0, 2.0]).spread(), Some((1.0, 2.0, 4.0)));
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).spread(), Some((1.0, 2.5, 4.0)));
        assert_eq!(Samples::default().spread(), None);
    }
}
