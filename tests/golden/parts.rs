//! What the reports of `reports.rs` are put together from.

use leakprobe::claim::{Component, Evidence, Gap};
use leakprobe::diagnose::diagnose;
use leakprobe::diagnose::trend::trend;
use leakprobe::report::{
    CallSite, CgroupMemory, Collector, ComponentRow, Events, FAULTS, Frame, HeapProfile, Host, LostRow,
    Member, Moment, Others, OutsideRss, Probe, Report, Rss, RssCounters, RuntimeInfo, SCHEMA, TargetInfo,
    ThreadRow, Tool, Tracing, Trend, Unaccounted, Window,
};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// A report of ten seconds without anything in it.
pub fn base(comm: &str, exe: &str, runtime: RuntimeInfo) -> Report {
    Report {
        schema: SCHEMA.into(),
        tool: Tool { version: "0.1.0".to_owned(), arguments: vec!["12345".to_owned()] },
        host: Host {
            kernel: "6.18.5".to_owned(),
            arch: "x86_64".to_owned(),
            page_size: 4096,
            backend: "tracepoint".into(),
        },
        target: TargetInfo {
            pid: 12345,
            comm: comm.to_owned(),
            exe: exe.to_owned(),
            started_at: "2026-08-21T09:00:00Z".to_owned(),
            threads: Some(12),
            threads_growth: Some(0),
            container_id: Some("3f2a9c0d81b4e6f7a5c3".to_owned()),
            cgroup: Some("/system.slice/api.scope".to_owned()),
            runtime,
            ended: None,
        },
        window: Window { started_at: "2026-08-21T12:00:00Z".to_owned(), seconds: 10.004 },
        rss: Rss::default(),
        growth: Trend::default(),
        timeline: Vec::new(),
        components: Vec::new(),
        residual: 0,
        heap_profile: HeapProfile::none(),
        heap_classes: Vec::new(),
        unaccounted: Unaccounted { bytes: None, growth: None, owner: None },
        malloc: None,
        call_sites: Vec::new(),
        goroutines: Vec::new(),
        goroutine_totals: None,
        threads: vec![thread(12345, comm, Some(132 * KIB))],
        findings: Vec::new(),
        outside_rss: OutsideRss::default(),
        tracing: Tracing {
            events: Events {
                faults: 23_541,
                mappings: 1201,
                unmappings: 310,
                locks: 0,
                protections: 12,
                thread_exits: 0,
            },
            lost: vec![lost("ring_buffer_full", 0), lost("stack_missing", 0)],
            stack_sample_rate: Some(1),
            call_stack_sample_rate: Some(1),
            own_peak_rss: Some(33 << 20),
            stacks_truncated: 0,
            stacks_truncated_by: Vec::new(),
            probes: vec![Probe {
                name: "exceptions:page_fault_user".to_owned(),
                attached: true,
                error: None,
            }],
        },
        gaps: Vec::new(),
    }
}

/// A thread, whose stack was found where its resident bytes are known.
pub fn thread(tid: i32, comm: &str, stack_rss: Option<u64>) -> ThreadRow {
    ThreadRow {
        tid,
        comm: comm.to_owned(),
        stack_rss,
        stack_size: stack_rss.map(|_| 8 * MIB),
        guard_size: None,
        signal_stack_rss: None,
        signal_stack_size: None,
        runs: None,
    }
}

/// Makes the totals follow from the rows, sorts these, and diagnoses.
pub fn settle(report: &mut Report) {
    report.components.sort_by_key(|row| std::cmp::Reverse(row.rss));
    let end = report.components.iter().map(|row| row.rss).sum();
    let growth: Option<i64> = report.components.iter().map(|row| row.growth).sum();
    let start = growth.and_then(|growth| end_minus(end, growth));
    let counters = RssCounters { rss: Some(end), difference: Some(0), ..RssCounters::default() };
    report.rss = Rss { start, end, growth, peak: Some(end + MIB), counters, ..Rss::default() };
    if let Some(heap) = report.components.iter().find(|row| row.id == Component::GoHeapInUse) {
        let growth = growth.zip(heap.growth).map(|(all, heap)| all - heap);
        let owner = report.components.iter().map(|row| row.id).find(|id| *id != Component::GoHeapInUse);
        report.unaccounted = Unaccounted { bytes: Some(end - heap.rss), growth, owner };
    }
    report.findings = diagnose(&report.facts());
}

/// Looks within the window, one after the other, and what they say; the last is the RSS of the end.
pub fn look_at(report: &mut Report, below_the_end: &[u64]) {
    let pace = report.window.seconds / (below_the_end.len() - 1) as f64;
    let moment = |(index, below): (usize, &u64)| Moment {
        seconds: (index as f64 * pace * 1000.0).round() / 1000.0,
        rss: report.rss.end - below,
        anon: Some(report.rss.end - below - 9 * MIB),
        file: Some(9 * MIB),
        shmem: Some(0),
    };
    report.timeline = below_the_end.iter().enumerate().map(moment).collect();
    report.growth = trend(&report.timeline);
    report.findings = diagnose(&report.facts());
}

fn end_minus(end: u64, growth: i64) -> Option<u64> {
    end.checked_add_signed(-growth)
}

pub fn go(version: &str, race: bool) -> RuntimeInfo {
    RuntimeInfo {
        kind: "go".into(),
        version: Some(version.to_owned()),
        race: Some(race),
        cgo: Some(true),
        stripped: Some(false),
        goroutines_started: None,
        collector: Some(Collector { gc_percent: Some(100), memory_limit: None }),
        allocator: Some("glibc 2.36".to_owned()),
    }
}

pub fn native() -> RuntimeInfo {
    RuntimeInfo { kind: "native".into(), allocator: Some("glibc 2.36".to_owned()), ..RuntimeInfo::default() }
}

pub fn row(id: Component, rss: u64, growth: Option<i64>, evidence: Evidence) -> ComponentRow {
    ComponentRow {
        id,
        label: id.label().into(),
        rss,
        growth,
        r#virtual: rss.next_power_of_two(),
        slack: None,
        lazy_free: Some(0),
        huge: Some(0),
        swap: Some(0),
        locked: Some(0),
        ksm: Some(0),
        reclaimable: 0,
        parts: Vec::new(),
        files: Vec::new(),
        variables: Vec::new(),
        evidence,
        allocator: None,
    }
}

/// A call site of nameless-file inner frames and placed outer ones.
pub fn site(component: Component, bytes: u64, inner: &[&str], outer: &[(&str, &str, u32)]) -> CallSite {
    let bare =
        |name: &&str| Frame { function: Some((*name).to_owned()), address: 0x46_0000, ..Frame::default() };
    let placed = |(function, file, line): &(&str, &str, u32)| Frame {
        function: Some((*function).to_owned()),
        file: (!file.is_empty()).then(|| (*file).to_owned()),
        line: (*line > 0).then_some(*line),
        address: 0x47_0000,
        ..Frame::default()
    };
    let frames = inner.iter().map(bare).chain(outer.iter().map(placed)).collect();
    CallSite {
        component,
        source: FAULTS.into(),
        cause: None,
        bytes,
        error_bytes: None,
        lazy_free: 0,
        faults: bytes / 4096,
        weight: 1.0,
        frames,
        note: None,
    }
}

pub fn outside(current: u64, limit: Option<u64>) -> OutsideRss {
    let cgroup = CgroupMemory {
        current: Some(current),
        limit,
        file: Some(9 * MIB),
        kernel: Some(4 * MIB),
        ..CgroupMemory::default()
    };
    OutsideRss {
        page_tables: Some(1_400 * KIB),
        kernel_stacks: Some(192 * KIB),
        hugetlb: Some(0),
        device: Some(0),
        cgroup: Some(cgroup),
    }
}

/// The bill of a cgroup whose other processes hold memory too.
pub fn with_company(cgroup: CgroupMemory) -> CgroupMemory {
    let largest = vec![Member { pid: 4711, comm: "envoy\u{1b}[2J".to_owned(), rss: 96 * MIB }];
    let others = Others { processes: 3, rss: 120 * MIB, largest };
    CgroupMemory { file: Some(300 * MIB), shmem: Some(64 * MIB), others: Some(others), ..cgroup }
}

pub fn lost(cause: &'static str, count: u64) -> LostRow {
    LostRow { cause: cause.into(), count }
}

pub fn gap(what: &str, why: &str, bytes: Option<u64>) -> Gap {
    Gap { what: what.to_owned(), why: why.to_owned(), bytes }
}
