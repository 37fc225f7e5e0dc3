//! Every backend sees the same: a program maps, moves and unmaps in every way, and what is recorded as mapped
//! is what the program says, to the byte. And every backend gives the same answer.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use leakprobe::address::AddrRange;
use leakprobe::target::Target;
use leakprobe::trace::backend::Backend;
use leakprobe::trace::rate::StackRate;
use leakprobe::trace::recording::{Ending, Recording, Unwound};
use leakprobe::trace::{AttachError, Tracer, Watched};
use leakprobe_tests::kernels::{self, Feature};
use leakprobe_tests::{Probe, Workload, expect, places};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::sites::bytes_of;

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
    if is_blind(backend, wanted.is_some(), &summary.probes)? {
        return Ok(());
    }
    let recorded = joined(recording.mappings().map(|(range, _)| range).collect());
    let told = joined(ranges(&truth)?);
    ensure!(recorded == told, "recorded {recorded:x?}\nthe program says {told:x?}");
    ensure!(summary.events.protections >= 2, "two calls of mprotect gave {:?}", summary.events);
    Ok(())
}

/// fentry that was asked for may be blind to a call, and then says so: nothing else stands in for it. In the backend
/// that leakprobe chooses, another one does.
fn is_blind(backend: Backend, is_forced: bool, probes: &[leakprobe::trace::Probe]) -> Result<bool> {
    let blind = probes.iter().filter(|probe| !probe.attached);
    let blind: Vec<String> = blind
        .map(|probe| format!("{}: {}", probe.name, probe.error.as_deref().unwrap_or_default()))
        .collect();
    let unseen = if blind.is_empty() { Ok(()) } else { Err(blind.join("; ")) };
    if is_forced && backend == Backend::Fentry {
        return Ok(!kernels::is_here(Feature::FentryEveryCall, unseen)?);
    }
    unseen.map(|()| false).map_err(|unseen| anyhow!("{} does not see {unseen}", backend.word()))
}

#[test]
fn every_backend_gives_the_same_answer() -> Result<()> {
    let mut answers = Vec::new();
    for backend in Backend::ALL {
        let answered = answer(backend).with_context(|| format!("with the backend {}", backend.word()))?;
        let refusal = answered.as_ref().err().cloned();
        if let Some(feature) = feature(backend) {
            kernels::is_here(feature, refusal.map_or(Ok(()), Err))?;
        }
        answers.extend(answered.ok());
    }
    ensure!(!answers.is_empty(), "no backend works here");
    for answer in &answers {
        answer.is_near(&answers[0])?;
    }
    Ok(())
}

/// What one backend says of a program that maps and touches, in bytes.
struct Answer {
    backend: Backend,
    growth: u64,
    call_sites: u64,
    mappings: u64,
}

impl Answer {
    fn is_near(&self, other: &Self) -> Result<()> {
        let pairs = [(self.growth, other.growth), (self.call_sites, other.call_sites)];
        let are_near = pairs.iter().all(|(one, two)| one.abs_diff(*two) <= expect::tolerance_bytes(*two));
        ensure!(are_near && self.mappings == other.mappings, "these answers differ: {self}; {other}");
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, growth, call_sites, mappings } = self;
        write!(
            formatter,
            "{}: {growth} grown, {call_sites} at call sites, {mappings} mappings",
            backend.word()
        )
    }
}

/// What leakprobe says with a backend, or why it says that the backend does not work here.
fn answer(backend: Backend) -> Result<Result<Answer, String>> {
    let mut workload = Workload::start("c/mmap_leak")?;
    let mut command = Command::new(places::leakprobe()?);
    command.args(["--pid", &workload.pid().to_string(), "--duration", "600s", "--format", "json"]);
    command.args(["--stack-rate", "all", "--backend", backend.word()]);
    let mut probe = Probe::spawn(command)?;
    if let Err(error) = probe.wait_until_watching() {
        let error = format!("{error:#}");
        ensure!(error.contains(&format!("the backend {} does not work here", backend.word())), "{error}");
        return Ok(Err(error));
    }
    let truth = workload.grow(8)?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", truth)?;
    ensure!(report["host"]["backend"] == backend.word(), "the report says {}", report["host"]["backend"]);
    Ok(Ok(Answer {
        backend,
        growth: expect::growth(&report, "c.mmap")?.unsigned_abs(),
        call_sites: bytes_of(&report, "leak_mapping", None),
        mappings: expect::number(&report, "/tracing/events/mappings")?.unsigned_abs(),
    }))
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
