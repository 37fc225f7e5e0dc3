//! Follows chains of calls whose two ends are known, and at whose inner end a program leaks, on the stacks of a report.
//!
//! The ends are known by address where they are native code, so that it works without names, and by name in Go.

use anyhow::{Context as _, Result};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

/// Whose memory the programs leak.
const LEAKED: [&str; 4] = ["c.heap.inuse", "c.mmap", "go.mmap", "go.heap.inuse"];

/// What each chain leaks, in MiB.
const STEPS: u64 = 12;

/// How an end of a chain is known.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Named(&'static str),
    Native(&'static str),
}

impl End {
    pub(crate) const INNERMOST: Self = Self::Native("innermost");
    pub(crate) const OUTERMOST: Self = Self::Native("outermost");

    fn is(self, frame: &Value, hello: &Value) -> Result<bool> {
        Ok(match self {
            Self::Named(name) => frame["function"] == name,
            Self::Native(end) => {
                let addr = expect::number(frame, "/address")?;
                let bound = |index| expect::number(hello, &format!("/{end}/{index}"));
                (bound(0)?..bound(1)?).contains(&addr)
            }
        })
    }
}

/// A chain of calls.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    /// What has the program leak at its inner end.
    pub(crate) verb: &'static str,
    pub(crate) innermost: End,
    pub(crate) outermost: End,
}

/// What the report says of the chains.
#[derive(Default)]
pub(crate) struct Followed {
    /// What the program says it leaked.
    pub(crate) truth_bytes: i64,
    /// Of the leaked, with both ends on its stack in the right order.
    pub(crate) both_bytes: i64,
    /// Chains that no stack has.
    pub(crate) missing: Vec<&'static str>,
    /// Stacks of the leaked.
    pub(crate) stacks: usize,
    /// Of these, that end in an address without a module.
    pub(crate) lost: usize,
    /// Of these, that end early for a reason that is named.
    pub(crate) early: usize,
}

impl Followed {
    /// What is too little.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let Self { truth_bytes, both_bytes, missing, stacks, lost, .. } = self;
        let mut complaints = Vec::new();
        if both_bytes * 100 < truth_bytes * 95 {
            complaints.push(format!("{both_bytes} of {truth_bytes} bytes have both ends on their stacks"));
        }
        if !missing.is_empty() {
            complaints.push(format!("no stack has both ends of {missing:?}"));
        }
        if lost * 100 >= (*stacks).max(1) {
            complaints.push(format!("{lost} of {stacks} stacks end in an address without a module"));
        }
        complaints
    }
}

/// Has the program leak at the end of all chains, one after the other, and looks for them in the report.
pub(crate) fn follow(mut workload: Workload, chains: &[Chain], others: &[&str]) -> Result<(Followed, Value)> {
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let mut followed = Followed::default();
    for chain in chains {
        let answer = workload.ask(&format!("{} {STEPS}", chain.verb))?;
        followed.truth_bytes += expect::number(&answer, "/grown_bytes")?;
    }
    for verb in others {
        workload.ask(&format!("{verb} {STEPS}"))?;
    }
    let report = probe.report_now()?;
    let mut found = vec![false; chains.len()];
    let sites = report["call_sites"].as_array().context("call sites are a list")?;
    for site in sites.iter().filter(|site| LEAKED.iter().any(|id| site["component"] == *id)) {
        let frames = site["frames"].as_array().context("frames are a list")?;
        followed.stacks += usize::from(!frames.is_empty());
        followed.lost += usize::from(frames.last().is_some_and(|frame| frame["module"].is_null()));
        followed.early += usize::from(!frames.is_empty() && !site["note"].is_null());
        // Chains may have the same ends.
        let mut is_whole = false;
        for (chain, is_found) in chains.iter().zip(&mut found) {
            if has_both(frames, chain, &workload.hello)? {
                (*is_found, is_whole) = (true, true);
            }
        }
        followed.both_bytes += if is_whole { expect::number(site, "/bytes")? } else { 0 };
    }
    let missing = chains.iter().zip(&found).filter(|(_, is_found)| !**is_found);
    followed.missing = missing.map(|(chain, _)| chain.verb).collect();
    Ok((followed, report))
}

fn has_both(frames: &[Value], chain: &Chain, hello: &Value) -> Result<bool> {
    let mut inner_is_met = false;
    for frame in frames {
        if inner_is_met && chain.outermost.is(frame, hello)? {
            return Ok(true);
        }
        inner_is_met = inner_is_met || chain.innermost.is(frame, hello)?;
    }
    Ok(false)
}
