//! How far the answer can be trusted: what was seen, what was lost, what could not be read.
//!
//! Every counter that is not zero is named and every gap has its bytes; nothing here is good or bad news
//! about the process, but for its cgroup. The surprise: it also says which process this was, for reports
//! that are read a week later.

use std::io;

use super::cgroup;
use super::headline::is_snapshot;
use super::layout::{Page, Paint};
use super::units::{GLUE, change, count, counted, size, size_or_unknown};
use crate::claim::Gap;
use crate::report::{Report, TargetInfo, Tracing};

/// Gaps shown; JSON has all of them.
const GAPS_MAX: usize = 8;

/// From here on, and from this part of the RSS, what the kernel's counters are off by is told.
const COUNTERS_OFF_MIN_BYTES: u64 = 1 << 20;
const COUNTERS_OFF_MIN_PART: u64 = 100;

/// What can be dropped, is locked or shared is worth a word from so many bytes on, and so large a part of RSS.
const MENTIONED_MIN_BYTES: u64 = 4 << 20;
const MENTIONED_PARTS: u64 = 5;

/// Writes the block.
pub fn write(page: &mut Page<'_>, report: &Report) -> io::Result<()> {
    page.blank()?;
    let mut sentences = Vec::new();
    if !is_snapshot(report) {
        sentences.extend(traced(&report.tracing));
    }
    sentences.extend(super::goroutines::sentence(report));
    sentences.extend(report.heap_profile.note.as_deref().map(str::to_owned));
    sentences.extend(beside_rss(report));
    sentences.extend(cgroup::sentences(report));
    let undisturbed = match report.tool.has_started_it() {
        true => "The process was held before its first instruction and before its end, and never in between.",
        false => "The process was never stopped.",
    };
    sentences.push(undisturbed.to_owned());
    page.prose(Paint::Plain, "", &sentences.join(" "))?;
    lost(page, &report.tracing)?;
    gaps(page, &report.gaps)?;
    page.prose(Paint::Dim, "", &identity(report))
}

/// "23,541 faults, 1,201 mappings seen, 0 lost, every stack kept."
fn traced(tracing: &Tracing) -> Vec<String> {
    let faults = counted(tracing.events.faults, "fault", "faults");
    let mappings = counted(tracing.events.mappings, "mapping", "mappings");
    let lost = tracing.lost.iter().map(|row| row.count).fold(0, u64::saturating_add);
    let mut parts = vec![faults, format!("{mappings} seen"), format!("{}{GLUE}lost", count(lost))];
    match tracing.stack_sample_rate {
        Some(1) => parts.push("every stack kept".to_owned()),
        Some(rate) => parts.push(format!(
            "1 stack kept in up to {} faults, sizes scaled up: ± holds for 95 of 100 rows",
            count(rate)
        )),
        None => parts.push("stack sampling unknown".to_owned()),
    }
    let mut sentences = vec![format!("{}.", parts.join(", "))];
    if let Some(bytes) = tracing.own_peak_rss {
        sentences.push(format!("leakprobe itself took {} at most.", size(bytes)));
    }
    if tracing.stacks_truncated > 0 {
        let stacks = counted(tracing.stacks_truncated, "stack ends", "stacks end");
        let causes = tracing.stacks_truncated_by.iter();
        let causes: Vec<String> =
            causes.map(|row| format!("{} in {}", count(row.count), row.cause)).collect();
        let causes = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(", ")) };
        sentences.push(format!("{stacks} early{causes}."));
    }
    for probe in tracing.probes.iter().filter(|probe| !probe.attached) {
        let why = probe.error.as_deref().unwrap_or("no reason given");
        sentences.push(format!("Not attached: {} ({why}).", probe.name));
    }
    sentences
}

/// What was lost, by the counter that says so; nothing where nothing was.
fn lost(page: &mut Page<'_>, tracing: &Tracing) -> io::Result<()> {
    let causes = tracing.lost.iter().filter(|row| row.count > 0);
    let causes: Vec<String> = causes.map(|row| format!("{} {}", count(row.count), row.cause)).collect();
    if causes.is_empty() {
        return Ok(());
    }
    let text = format!("Lost: {}. Growth by call site may miss as much.", causes.join(", "));
    page.prose(Paint::Notice, "  ", &text)
}

/// What the process holds that the table does not show, or shows in a way that misleads.
fn beside_rss(report: &Report) -> Vec<String> {
    let mut sentences = Vec::new();
    if report.rss.lazy_free > 0 {
        sentences.push(format!("{} of it are freed already (MADV_FREE).", size(report.rss.lazy_free)));
    }
    sentences.extend(counters_off(report));
    let is_much = |bytes: u64| bytes >= MENTIONED_MIN_BYTES && bytes >= report.rss.end / MENTIONED_PARTS;
    if is_much(report.rss.reclaimable) {
        let bytes = size(report.rss.reclaimable);
        sentences.push(format!("{bytes} of RSS are unchanged pages of files, which the kernel can drop."));
    }
    if is_much(report.rss.locked) {
        sentences.push(format!("{} of RSS are locked in memory.", size(report.rss.locked)));
    }
    if let Some(bytes) = report.rss.ksm.filter(|bytes| is_much(*bytes)) {
        sentences.push(format!("{} of RSS are shared with equal pages (KSM).", size(bytes)));
    }
    if report.rss.swap > 0 {
        sentences.push(format!("{} more are swapped out.", size(report.rss.swap)));
    }
    let kernel = [
        (report.outside_rss.page_tables, "page tables"),
        (report.outside_rss.kernel_stacks, "kernel stacks"),
        (report.outside_rss.hugetlb.filter(|bytes| *bytes > 0), "hugetlb pages"),
        (report.outside_rss.device.filter(|bytes| *bytes > 0), "device memory mapped"),
    ];
    let kernel =
        kernel.iter().filter_map(|(bytes, what)| bytes.map(|bytes| format!("{} of {what}", size(bytes))));
    let kernel: Vec<String> = kernel.collect();
    if !kernel.is_empty() {
        sentences.push(format!("Outside RSS: {}.", kernel.join(", ")));
    }
    sentences
}

/// The kernel's counters, where they are far off: whoever has RSS from elsewhere has it from them.
fn counters_off(report: &Report) -> Option<String> {
    let (counted, difference) = (report.rss.counters.rss?, report.rss.counters.difference?);
    let is_large = difference.unsigned_abs() > COUNTERS_OFF_MIN_BYTES
        && difference.unsigned_abs() > report.rss.end / COUNTERS_OFF_MIN_PART;
    is_large.then(|| {
        let by = change(difference);
        format!(
            "The kernel's counter says {} (VmRSS, {by}): it is rough, or the process moved.",
            size(counted)
        )
    })
}

fn gaps(page: &mut Page<'_>, gaps: &[Gap]) -> io::Result<()> {
    for gap in gaps.iter().take(GAPS_MAX) {
        let bytes = size_or_unknown(gap.bytes);
        let size = if gap.bytes.is_some() { bytes } else { format!("size {bytes}") };
        page.prose(Paint::Notice, "  ", &format!("Not read: {} ({size}): {}", gap.what, gap.why))?;
    }
    match gaps.len().saturating_sub(GAPS_MAX) {
        0 => Ok(()),
        more => page.prose(Paint::Notice, "  ", &format!("{more} more gaps: --format json lists them")),
    }
}

/// "/srv/api, go1.27.3 -race, cgo, 12 threads, container 3f2a…; Linux 6.18.5, leakprobe 0.1.0".
fn identity(report: &Report) -> String {
    let mut parts = vec![report.target.exe.clone()];
    parts.extend(runtime(&report.target));
    parts.extend(report.target.threads.map(|threads| counted(threads, "thread", "threads")));
    let container = report.target.container_id.as_ref();
    parts.extend(container.map(|id| format!("container {}", id.chars().take(12).collect::<String>())));
    let (host, tool) = (&report.host, &report.tool);
    format!("{}; Linux {} {}, leakprobe {}", parts.join(", "), host.kernel, host.arch, tool.version)
}

fn runtime(target: &TargetInfo) -> Vec<String> {
    let runtime = &target.runtime;
    let race = if runtime.race == Some(true) { " -race" } else { "" };
    let version = match (&runtime.version, runtime.kind.as_ref()) {
        (Some(version), _) => Some(format!("{version}{race}")),
        (None, "go") => Some(format!("Go of unknown version{race}")),
        (None, _) => None,
    };
    let cgo = (runtime.cgo == Some(true)).then(|| "cgo".to_owned());
    let stripped = (runtime.stripped == Some(true)).then(|| "stripped".to_owned());
    [version, cgo, runtime.allocator.clone(), stripped].into_iter().flatten().collect()
}
