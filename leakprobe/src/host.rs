//! The report's plain facts: host, process, threads, cgroup. And the clock the probes use.

use rustix::time::{ClockId, clock_gettime};

use crate::Request;
use crate::account::{Account, held, rfc3339, stacks};
use crate::address::PAGE_BYTES;
use crate::look::Look;
use crate::report::{
    HeapProfile, Host, OutsideRss, Report, RuntimeInfo, SCHEMA, TargetInfo, Tool, Tracing, Trend, Window,
};
use crate::runtimes::Runtimes;
use crate::snapshot::RegionUsage;
use crate::target::maps::Region;
use crate::target::{Target, cgroup};

/// A kernel thread stack on x86_64 (Linux `arch/x86/include/asm/page_64_types.h`, THREAD_SIZE).
const KERNEL_STACK_BYTES: u64 = 16 << 10;

/// CLOCK_MONOTONIC in nanoseconds: what `bpf_ktime_get_ns` reads.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The most memory that leakprobe itself has had resident.
pub fn own_peak_rss_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The end of the brk heap, where there is one.
pub fn brk_addr(regions: &[Region]) -> Option<u64> {
    regions.iter().filter(|region| region.name == "[heap]").map(|region| region.range.end_addr).max()
}

/// A report with everything but what the window saw.
pub fn report(
    request: &Request,
    target: &Target,
    runtimes: &Runtimes,
    account: &Account,
    end: &Look,
) -> Report {
    let uname = rustix::system::uname();
    let allocator = end.allocator.clone();
    let components = account.rows(allocator.as_deref());
    Report {
        schema: SCHEMA.into(),
        tool: Tool { version: env!("CARGO_PKG_VERSION").to_owned(), arguments: request.arguments.clone() },
        host: Host {
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            page_size: PAGE_BYTES,
            backend: "none".into(),
        },
        target: target_info(target, runtimes, end, allocator),
        window: Window { started_at: String::new(), seconds: 0.0 },
        rss: account.rss(&end.snapshot),
        growth: Trend::default(),
        timeline: Vec::new(),
        residual: account.end.residual_bytes(),
        heap_profile: HeapProfile::none(),
        heap_classes: held::heap_classes(end),
        unaccounted: account.unaccounted(&components),
        components,
        malloc: account.malloc.clone(),
        call_sites: Vec::new(),
        goroutines: Vec::new(),
        goroutine_totals: None,
        threads: stacks::threads(end),
        findings: Vec::new(),
        outside_rss: outside_rss(target, end),
        tracing: Tracing::default(),
        gaps: Vec::new(),
    }
}

fn target_info(target: &Target, runtimes: &Runtimes, end: &Look, allocator: Option<String>) -> TargetInfo {
    let cgroup = cgroup::parse(&target.cgroup_text());
    TargetInfo {
        pid: target.pid(),
        comm: target.comm().to_owned(),
        exe: target.exe_path().to_owned(),
        started_at: rfc3339(target.started_at()),
        threads: end.snapshot.status.threads,
        threads_growth: None,
        container_id: cgroup
            .as_ref()
            .and_then(|cgroup| cgroup::container_id(&cgroup.path))
            .map(str::to_owned),
        cgroup: cgroup.map(|cgroup| cgroup.path),
        runtime: RuntimeInfo {
            kind: if runtimes.build.is_some() { "go" } else { "native" }.into(),
            version: runtimes.build.as_ref().map(|build| build.version.clone()),
            race: runtimes.build.as_ref().map(|build| build.race()),
            cgo: runtimes.build.as_ref().and_then(|build| build.cgo()),
            stripped: runtimes.exe_is_stripped,
            goroutines_started: None,
            collector: end.collector,
            allocator,
        },
        ended: None,
    }
}

fn outside_rss(target: &Target, end: &Look) -> OutsideRss {
    OutsideRss {
        page_tables: end.snapshot.status.page_table_bytes,
        kernel_stacks: end.snapshot.status.threads.map(|threads| threads * KERNEL_STACK_BYTES),
        hugetlb: Some(end.snapshot.usages.iter().map(|usage| usage.hugetlb_bytes).sum()),
        device: Some(device_bytes(&end.snapshot.usages)),
        cgroup: cgroup::parse(&target.cgroup_text()).and_then(|cgroup| cgroup::memory(&cgroup, target.pid())),
    }
}

/// Address space mapped to devices' own memory, which has no pages to count.
fn device_bytes(usages: &[RegionUsage]) -> u64 {
    let mapped = usages.iter().filter(|usage| usage.pfn_mapped && !usage.region.is_kernel_special());
    mapped.map(|usage| usage.region.range.len_bytes()).sum()
}
