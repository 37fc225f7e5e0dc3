//! Reports as the pipeline would hand them over, one function a situation.

use crate::{files, goroutines, heap, malloc, sampled};
use leakprobe::claim::{Component, Evidence};
use leakprobe::diagnose::diagnose;
use leakprobe::diagnose::trend::trend;
use leakprobe::report::{
    CallSite, Events, Frame, GoroutinesStarted, HeapProfile, OutsideRss, Probe, Report, RuntimeInfo, Tracing,
    Trend, Unaccounted,
};

use crate::parts::{
    KIB, MIB, base, gap, go, look_at, lost, native, outside, row, settle, site, thread, with_company,
};

/// Every report below.
pub fn all() -> [Report; 19] {
    [
        race_leak(),
        quiet_native(),
        native_leak(),
        sampled::sampled(),
        cgo_leak(),
        hardly_grows(),
        saw_tooth(),
        shrinks(),
        snapshot(),
        exited(),
        hostile(),
        residual(),
        unknowns(),
        goroutines::goroutine_leak(),
        heap::leak(),
        heap::snapshot(),
        malloc::retained(),
        malloc::objects(),
        files::many(),
    ]
}

/// An HTTP client and server without keep-alives, built with -race.
pub fn race_leak() -> Report {
    let mut report = base("api", "/srv/api", go("go1.27.3", true));
    report.target.runtime.goroutines_started = Some(GoroutinesStarted { in_window: 308_400, ever: 795_121 });
    report.components = vec![
        row(Component::TsanRuntime, 258 * MIB, Some(103_220 * KIB as i64), Evidence::Structure),
        row(Component::CHeapInUse, 14 * MIB, Some(0), Evidence::Structure),
        row(Component::GoRuntime, 12 * MIB, Some(100 * KIB as i64), Evidence::Structure),
        row(Component::FileExe, 9 * MIB, Some(0), Evidence::Mapping),
        row(Component::GoHeapIdle, 7 * MIB, Some(100 * KIB as i64), Evidence::Structure),
        row(Component::GoHeapInUse, 3 * MIB, Some(800 * KIB as i64), Evidence::Structure),
        row(Component::GoStacks, 3 * MIB, Some(600 * KIB as i64), Evidence::Structure),
        row(Component::TsanShadow, 10 * MIB, Some(200 * KIB as i64), Evidence::Layout),
        row(Component::TsanMeta, 3 * MIB, Some(8 * KIB as i64), Evidence::Layout),
        row(Component::FileLibs, 2 * MIB, Some(0), Evidence::Mapping),
        row(Component::ThreadStacks, 500 * KIB, Some(0), Evidence::Structure),
        row(Component::KernelSpecial, 8 * KIB, Some(0), Evidence::Mapping),
        row(Component::AnonUnknown, 800 * KIB, Some(16 * KIB as i64), Evidence::None),
    ];
    report.components[1].allocator = Some("glibc 2.36".to_owned());
    report.call_sites = race_call_sites();
    report.outside_rss = outside(341 * MIB, Some(512 * MIB));
    settle(&mut report);
    let slower_and_faster = |index: u64| (10 - index) * 10_500 * KIB + index % 3 * 700 * KIB;
    look_at(&mut report, &(0..=10).map(slower_and_faster).collect::<Vec<_>>());
    report
}

fn race_call_sites() -> Vec<CallSite> {
    let dial = &[
        ("net/http.(*Transport).dialConn", "/usr/local/go/src/net/http/transport.go", 1782),
        ("net/http.(*Transport).dialConnFor", "/usr/local/go/src/net/http/transport.go", 1485),
        ("main.flood", "/build/api/main.go", 31),
        ("runtime.goexit", "/usr/local/go/src/runtime/asm_amd64.s", 1700),
    ];
    let serve = &[
        ("net/http.(*Server).Serve", "/usr/local/go/src/net/http/server.go", 3454),
        ("net/http.Serve", "/usr/local/go/src/net/http/server.go", 2880),
        ("main.serve.gowrap1", "/build/api/main.go", 19),
    ];
    let pool = &[(
        "github.com/example-corp/platform-libraries/internal/workerpool.(*Pool[go.shape.string]).submitWithRetry",
        "/build/api/vendor/github.com/example-corp/platform-libraries/internal/workerpool/pool.go",
        204,
    )];
    let cache = &[
        ("main.(*cache).put", "/build/api/cache.go", 58),
        ("main.handle", "/build/api/main.go", 77),
        ("net/http.HandlerFunc.ServeHTTP", "/usr/local/go/src/net/http/server.go", 2294),
    ];
    let growing: &[&str] = &["runtime.memclrNoHeapPointers", "runtime.mallocgc", "runtime.growslice"];
    vec![
        // Two ways in which TSan allocates for one go statement: one line for a reader.
        site(Component::TsanRuntime, 52 * MIB, &[TSAN_ALLOC, GO_STATEMENT].concat(), dial),
        site(Component::TsanRuntime, 22 * MIB, &[TSAN_ALLOC, GO_STATEMENT].concat(), serve),
        site(
            Component::TsanRuntime,
            9 * MIB,
            &[&["__tsan::TraceSwitchPartImpl"], GO_STATEMENT].concat(),
            dial,
        ),
        site(Component::TsanRuntime, 8 * MIB, &[TSAN_ALLOC, GO_STATEMENT].concat(), pool),
        site(Component::GoHeapInUse, 1400 * KIB, growing, cache),
        site(
            Component::GoHeapInUse,
            90 * KIB,
            &["runtime.memclrNoHeapPointers"],
            &[("runtime.gcBgMarkWorker", "", 0)],
        ),
        CallSite {
            note: Some("the kernel made huge pages".into()),
            ..site(Component::TsanRuntime, 3 * MIB, &[], &[])
        },
    ]
}

const TSAN_ALLOC: &[&str] =
    &["__sanitizer::internal_memset", "__tsan::Alloc", "__tsan_go_start", "runtime.racecall"];
const GO_STATEMENT: &[&str] = &[
    "runtime.racegostart",
    "runtime.newproc1",
    "runtime.newproc.func1",
    "runtime.systemstack",
    "runtime.newproc",
];

/// A C server that does nothing but hold what it has.
pub fn quiet_native() -> Report {
    let mut report = base("nginx", "/usr/sbin/nginx", native());
    report.components = vec![
        row(Component::CHeapInUse, 5400 * KIB, Some(0), Evidence::Structure),
        row(Component::FileLibs, 3 * MIB, Some(0), Evidence::Mapping),
        row(Component::FileExe, 1200 * KIB, Some(0), Evidence::Mapping),
        row(Component::ThreadStacks, 132 * KIB, Some(0), Evidence::Structure),
        row(Component::KernelSpecial, 4 * KIB, Some(0), Evidence::Mapping),
        row(Component::CMmap, 0, Some(0), Evidence::Neighbour),
    ];
    report.tracing.events = Events { faults: 3, mappings: 0, ..Events::default() };
    settle(&mut report);
    report
}

/// A C program that loses blocks of malloc.
pub fn native_leak() -> Report {
    let mut report = base("ingestd", "/opt/ingest/bin/ingestd", native());
    report.components = vec![
        row(Component::CHeapInUse, 640 * MIB, Some(20_600 * KIB as i64), Evidence::Structure),
        row(Component::FileMapped, 80 * MIB, Some(2 * MIB as i64), Evidence::Mapping),
        row(Component::FileLibs, 9 * MIB, Some(0), Evidence::Mapping),
        row(Component::CMmap, 4 * MIB, Some(-(MIB as i64)), Evidence::MappedBy),
        row(Component::ThreadStacks, 2 * MIB, Some(0), Evidence::Structure),
        row(Component::FileExe, MIB, Some(0), Evidence::Mapping),
    ];
    report.components[0].allocator = Some("glibc 2.36".to_owned());
    let exe = Some("/opt/ingest/bin/ingestd");
    let library = Some("/usr/lib/x86_64-linux-gnu/libxml2.so.2.9.14");
    let leak = site(
        Component::CHeapInUse,
        18 * MIB,
        &["_int_malloc", "__GI___libc_malloc"],
        &[
            ("parse_record", "/src/ingest/record.c", 412),
            ("batch_run", "/src/ingest/batch.c", 97),
            ("main", "/src/ingest/main.c", 60),
        ],
    );
    let mut library_site = site(
        Component::CHeapInUse,
        1800 * KIB,
        &["malloc"],
        &[("xmlStrndup", "", 0), ("read_config", "", 0)],
    );
    library_site.frames[1].module = library.map(str::to_owned);
    library_site.frames[2].module = exe.map(str::to_owned);
    let mut unwound_badly = site(Component::CHeapInUse, 500 * KIB, &["_int_malloc", "malloc"], &[]);
    unwound_badly.note = Some("the stack ends here".into());
    let mut nameless = site(Component::FileMapped, 2 * MIB, &[], &[("", "", 0)]);
    nameless.frames[0] =
        Frame { address: 0x7f12_3456_789a, module: library.map(str::to_owned), ..Frame::default() };
    report.call_sites = vec![leak, library_site, unwound_badly, nameless];
    report.outside_rss = outside(900 * MIB, None);
    report.outside_rss.cgroup = report.outside_rss.cgroup.map(with_company);
    settle(&mut report);
    report
}

/// A Go program whose cgo half leaks, slowly, under a much larger Go heap.
pub fn cgo_leak() -> Report {
    let mut report = base("thumbnailer", "/app/thumbnailer", go("go1.25.5", false));
    report.window.seconds = 60.0;
    report.components = vec![
        row(Component::GoHeapInUse, 1900 * MIB, Some(-(3 * MIB as i64)), Evidence::Structure),
        row(Component::CHeapInUse, 210 * MIB, Some(9 * MIB as i64), Evidence::Structure),
        row(Component::GoRuntime, 40 * MIB, Some(300 * KIB as i64), Evidence::Structure),
        row(Component::FileExe, 20 * MIB, Some(0), Evidence::Mapping),
        row(Component::ThreadStacks, 3 * MIB, Some(64 * KIB as i64), Evidence::Structure),
    ];
    report.call_sites = vec![site(
        Component::CHeapInUse,
        8 * MIB,
        &["_int_malloc", "malloc"],
        &[
            ("decode_frame", "/src/thumb/decode.c", 77),
            ("runtime.asmcgocall", "", 0),
            ("runtime.cgocall", "", 0),
            ("main._Cfunc_decode_frame", "_cgo_gotypes.go", 44),
            ("main.(*Thumbnailer).Render", "/src/thumb/render.go", 120),
            ("main.main", "/src/thumb/main.go", 33),
        ],
    )];
    report.heap_profile =
        HeapProfile { in_use: Some(1430 * MIB), source: "mbuckets".into(), ..HeapProfile::none() };
    settle(&mut report);
    report
}

/// A Go service in which a little moves from here to there.
pub fn hardly_grows() -> Report {
    let mut report = base("scheduler", "/app/scheduler", go("go1.26.6", false));
    report.components = vec![
        row(Component::GoHeapInUse, 61 * MIB, Some(300 * KIB as i64), Evidence::Structure),
        row(Component::FileExe, 30 * MIB, Some(24 * KIB as i64), Evidence::Mapping),
        row(Component::GoRuntime, 5 * MIB, Some(-(40 * KIB as i64)), Evidence::Structure),
    ];
    let growing = &["runtime.memclrNoHeapPointers", "runtime.mallocgc", "runtime.newobject"];
    report.call_sites = vec![site(
        Component::GoHeapInUse,
        300 * KIB,
        growing,
        &[("main.tick", "/src/scheduler/tick.go", 12)],
    )];
    settle(&mut report);
    report
}

/// A Go service between two collections, whose heap happens to be larger at the window's end.
pub fn saw_tooth() -> Report {
    let mut report = hardly_grows();
    report.components[0].growth = Some(12 * MIB as i64);
    settle(&mut report);
    look_at(&mut report, &[12, 8, 4, 0, 16, 12, 8, 4, 0, 16, 12, 8, 4, 0].map(|mib| mib * MIB));
    report
}

/// A native program that gives back more than it takes.
pub fn shrinks() -> Report {
    let mut report = native_leak();
    report.components[1].growth = Some(-(61 * MIB as i64));
    settle(&mut report);
    report
}

/// The race build again, looked at once.
pub fn snapshot() -> Report {
    let mut report = race_leak();
    report.window.seconds = 0.0;
    report.host.backend = "none".into();
    report.tracing = Tracing::default();
    report.call_sites = Vec::new();
    report.rss.start = None;
    report.rss.growth = None;
    report.unaccounted.growth = None;
    for row in &mut report.components {
        row.growth = None;
    }
    report.timeline = Vec::new();
    report.growth = Trend::default();
    report.findings = diagnose(&report.facts());
    report
}

/// A target that ended while it was watched, on a machine that could not keep up.
pub fn exited() -> Report {
    let mut report = race_leak();
    report.target.ended = Some("exited".into());
    report.window.seconds = 3.24;
    report.tracing.lost =
        vec![lost("ring_buffer_full", 1412), lost("stack_missing", 0), lost("stack_table_full", 9)];
    report.tracing.stack_sample_rate = Some(16);
    report.tracing.stacks_truncated = 37;
    report.tracing.probes.push(Probe {
        name: "exceptions:page_fault_kernel".to_owned(),
        attached: false,
        error: Some("no such tracepoint".to_owned()),
    });
    report.gaps = vec![
        gap("residency of 0x7f0000000000-0x7f0000c00000", "the process was gone", Some(12 * MIB)),
        gap("stacks of threads", "the process was gone", None),
    ];
    report.rss.swap = 3 * MIB;
    report.timeline.truncate(4);
    report.growth = trend(&report.timeline);
    report.findings = diagnose(&report.facts());
    report
}

/// Names chosen to repaint, reorder and flood the terminal.
pub fn hostile() -> Report {
    let mut report = native_leak();
    report.target.comm = "\x1b[2J\x1b[31mroot\x07".to_owned();
    report.target.exe = "/srv/a\nRSS  0 B\r\u{202e}exe.txt\u{9b}1m".to_owned();
    report.target.runtime.allocator = Some("\x1b]0;owned\x07".to_owned());
    report.components[0].allocator =
        Some("je\u{200b}malloc\x1b[8m and a name that goes on and on and on".to_owned());
    report.call_sites[0].frames[2].function = Some(format!("{}\u{301}", "z\u{300}\x1b[A".repeat(60)));
    report.call_sites[0].frames[3].function = Some("日本語の関数名".repeat(12));
    report.call_sites[0].frames[3].file = Some(format!("/src/{}.c", "\u{2067}x".repeat(50)));
    report.call_sites[1].frames[1].module = Some("/lib/\x1b[31mlib\u{e0041}.so".to_owned());
    report.threads = vec![thread(7, "\x1b[0m", None)];
    report.gaps = vec![gap("region \x1b[1A\x1b[2K of 0x1000", "said\nso\u{85}", Some(4096))];
    report.tracing.probes[0].error = Some("\x1b[5mblink".to_owned());
    report.tracing.probes[0].attached = false;
    report
}

/// Rows and RSS that differ, both now and in the window.
pub fn residual() -> Report {
    let mut report = native_leak();
    report.rss.end -= 1200 * KIB;
    report.residual = -(1200 * KIB as i64);
    report.rss.growth = report.rss.growth.map(|bytes| bytes + 700 * KIB as i64);
    report.rss.lazy_free = 100 * MIB;
    report.components[0].lazy_free = Some(100 * MIB);
    let little = |index: u32| {
        site(Component::CHeapInUse, 96 * KIB, &["malloc"], &[("handle", "/src/ingest/handle.c", index)])
    };
    report.call_sites.extend((0..14).map(little));
    report.findings = diagnose(&report.facts());
    report
}

/// A stripped Go program whose heap was not found, interrupted before much was known.
pub fn unknowns() -> Report {
    let mut report = base("agent", "/agent", RuntimeInfo { kind: "go".into(), ..RuntimeInfo::default() });
    report.target.threads = None;
    report.target.container_id = None;
    report.target.ended = Some("interrupted".into());
    report.components = vec![
        row(Component::AnonUnknown, 90 * MIB, None, Evidence::None),
        row(Component::FileExe, 10 * MIB, None, Evidence::Mapping),
    ];
    report.tracing.stack_sample_rate = None;
    report.gaps =
        (0..11).map(|index| gap(&format!("span {index}"), "it changed while it was read", None)).collect();
    settle(&mut report);
    report.components[1].lazy_free = None;
    report.rss.start = None;
    report.rss.growth = None;
    report.rss.peak = None;
    report.unaccounted = Unaccounted { bytes: None, growth: None, owner: None };
    report.outside_rss = OutsideRss::default();
    report.findings = diagnose(&report.facts());
    report
}
