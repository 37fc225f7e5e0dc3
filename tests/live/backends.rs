//! Every backend sees the same: a program maps, moves and unmaps in every way, and what is recorded as mapped
//! is what the program says, to the byte.

use anyhow::{Context, Result, ensure};
use leakprobe::address::AddrRange;
use leakprobe::target::Target;
use leakprobe::trace::backend::Backend;
use leakprobe::trace::rate::StackRate;
use leakprobe::trace::recording::{Ending, Recording, Unwound};
use leakprobe::trace::{AttachError, Tracer, Watched};
use leakprobe_tests::Workload;
use leakprobe_tests::kernels::{self, Feature};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

#[test]
fn every_backend_that_works_here_sees_every_mapping() -> Result<()> {
    for backend in Backend::ALL {
        let seen = sees_every_mapping(Some(backend));
        let refusal = seen.as_ref().err().filter(|error| is_refused(error)).map(|error| format!("{error:#}"));
        // Which of them a kernel has is its affair, as long as leakprobe says so; that of system calls all have.
        let is_here = match feature(backend) {
            Some(feature) => kernels::is_here(feature, refusal.map_or(Ok(()), Err))?,
            None => true,
        };
        if is_here {
            seen.with_context(|| format!("with the backend {}", backend.word()))?;
        }
    }
    sees_every_mapping(None).context("with the backend that leakprobe chooses")
}

fn feature(backend: Backend) -> Option<Feature> {
    match backend {
        Backend::Fentry => Some(Feature::Fentry),
        Backend::Kprobe => Some(Feature::Kprobe),
        Backend::Tracepoint => Some(Feature::Tracepoint),
        Backend::Syscalls => None,
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<AttachError>(), Some(AttachError::Backend { .. }))
}

fn sees_every_mapping(wanted: Option<Backend>) -> Result<()> {
    let mut workload = Workload::start("c/mappings")?;
    let target = Target::open(i32::try_from(workload.pid())?)?;
    let heap = target.regions().into_iter().find(|region| region.name == "[heap]");
    let now = clock_gettime(ClockId::Monotonic);
    let now_ns = u64::try_from(now.tv_sec)? * 1_000_000_000 + u64::try_from(now.tv_nsec)?;
    let mut recording = Recording::new(now_ns, heap.map(|region| region.range.end_addr));
    let watched = Watched { process: target.namespaced_pid()?, ..Watched::default() };
    let mut tracer = Tracer::attach(&watched, wanted, StackRate::Auto, false)?;
    let backend = tracer.backend();
    ensure!(wanted.is_none_or(|wanted| wanted == backend), "{backend:?} was attached");

    let truth = workload.ask("map")?;
    tracer.drain(&mut recording, |_| Unwound { addrs: vec![1], ending: Ending::Root });
    let summary = tracer.summary(&recording)?;
    let lost: Vec<_> = summary.lost.iter().filter(|row| row.count > 0).map(|row| &*row.cause).collect();
    // That a mapping was refused is not to be seen from the lock.
    let may_be_lost: &[&str] = if backend == Backend::Tracepoint { &["calls_unplaced"] } else { &[] };
    ensure!(lost == may_be_lost, "lost: {:?}", summary.lost);
    // One that was asked for may be blind to a call, and then it says so: nothing else stands in for it.
    if wanted.is_some() && summary.probes.iter().any(|probe| !probe.attached) {
        return Ok(());
    }
    let recorded = joined(recording.mappings().map(|(range, _)| range).collect());
    let told = joined(ranges(&truth)?);
    ensure!(recorded == told, "recorded {recorded:x?}\nthe program says {told:x?}");
    ensure!(summary.events.protections >= 2, "two calls of mprotect gave {:?}", summary.events);
    Ok(())
}

fn ranges(truth: &Value) -> Result<Vec<AddrRange>> {
    let ranges = truth["mapped"].as_array().context("the answer has an array `mapped`")?;
    let end = |range: &Value, index: usize| range[index].as_u64().context("an address is a number");
    let range = |range: &Value| AddrRange::new(end(range, 0)?, end(range, 1)?).context("a range has bytes");
    ranges.iter().map(range).collect()
}

/// In order, and neighbours as one: the kernel joins mappings too.
fn joined(mut ranges: Vec<AddrRange>) -> Vec<AddrRange> {
    ranges.sort_unstable_by_key(|range| range.start_addr);
    let mut joined: Vec<AddrRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end_addr >= range.start_addr => {
                last.end_addr = last.end_addr.max(range.end_addr);
            }
            _ => joined.push(range),
        }
    }
    joined
}
