//! Stacks reach from the function that touched the memory to the one where the program's own calls began: in C and C++,
//! out of signal handlers, and between Go and C in both directions.
//!
//! The ends are known by address where they are native code, so that it works without names, and by name in Go.

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::{NEWEST_GO, OLDEST_GO};
use leakprobe_tests::{Probe, Workload, expect};
use serde_json::Value;

/// Whose memory the programs leak.
const LEAKED: [&str; 3] = ["c.heap.inuse", "c.mmap", "go.mmap"];

/// How an end of the chain is known.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Named(&'static str),
    Native(&'static str),
}

impl End {
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

pub(crate) const INNERMOST: End = End::Native("innermost");
pub(crate) const OUTERMOST: End = End::Native("outermost");

/// At least 95 % of what is leaked has both ends on its stack, in the right order, and at most one stack in a hundred
/// ends in an address without a module.
pub(crate) fn carries_both(mut workload: Workload, verb: &str, innermost: End, outermost: End) -> Result<()> {
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let answer = workload.ask(&format!("{verb} 12"))?;
    let report = probe.report_now()?;
    let truth = expect::number(&answer, "/grown_bytes")?;
    let sites = report["call_sites"].as_array().context("call sites are a list")?;
    let (mut both, mut stacks, mut lost) = (0, 0, 0);
    for site in sites.iter().filter(|site| LEAKED.iter().any(|id| site["component"] == *id)) {
        let frames = site["frames"].as_array().context("frames are a list")?;
        let place = |end: End, from: usize| -> Result<Option<usize>> {
            for (index, frame) in frames.iter().enumerate().skip(from) {
                if end.is(frame, &workload.hello)? {
                    return Ok(Some(index));
                }
            }
            Ok(None)
        };
        stacks += usize::from(!frames.is_empty());
        lost += usize::from(frames.last().is_some_and(|frame| frame["module"].is_null()));
        if let Some(inner) = place(innermost, 0)?
            && place(outermost, inner + 1)?.is_some()
        {
            both += expect::number(site, "/bytes")?;
        }
    }
    ensure!(both * 100 >= truth * 95, "{both} of {truth} bytes have both ends on their stacks: {sites:#?}");
    ensure!(lost * 100 <= stacks, "{lost} of {stacks} stacks end in an address without a module: {sites:#?}");
    Ok(())
}

#[test]
fn native_stacks_are_whole() -> Result<()> {
    for program in ["c/stacks", "c/static_stacks", "cpp/stacks", "cpp/stripped_static_stacks"] {
        carries_both(Workload::start(program)?, "grow", INNERMOST, OUTERMOST).context(program)?;
    }
    Ok(())
}

#[test]
fn a_signal_handler_leads_to_what_it_interrupted() -> Result<()> {
    for verb in ["signal", "onstack"] {
        carries_both(Workload::start("c/stacks")?, verb, INNERMOST, OUTERMOST).context(verb)?;
    }
    Ok(())
}

#[test]
fn go_and_c_call_each_other() -> Result<()> {
    for version in [OLDEST_GO, NEWEST_GO] {
        let build = GoBuild { version, kind: Kind::Cgo, symbols: Symbols::Stripped };
        let touched = End::Named("main.mmapInnermost");
        for (verb, innermost, outermost) in [
            ("mmap", touched, End::Named("main.mmapOutermost")),
            ("cgo", INNERMOST, End::Named("main.cgoOutermost")),
            ("callback", INNERMOST, End::Named("main.callbackOutermost")),
            ("thread", touched, OUTERMOST),
        ] {
            let workload = Workload::start_built("go/stacks", build)?;
            carries_both(workload, verb, innermost, outermost).with_context(|| format!("{build}, {verb}"))?;
        }
    }
    Ok(())
}
