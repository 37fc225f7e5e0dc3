//! Reports of Go programs whose heap is what matters.

use leakprobe::claim::{Component, Evidence};
use leakprobe::report::{
    CallSite, HEAP_PROFILE, HeapClass, HeapProfile, HeldSite, Report, SMALLER_SITES, Tracing,
};

use crate::parts::{KIB, MIB, base, go, row, settle, site};

const CACHE: &[(&str, &str, u32)] = &[
    ("example.com/shop/catalog.(*Cache).put", "/src/shop/catalog/cache.go", 88),
    ("example.com/shop/catalog.(*Cache).Load", "/src/shop/catalog/cache.go", 61),
    ("main.handle", "/src/shop/main.go", 120),
    ("net/http.HandlerFunc.ServeHTTP", "net/http/server.go", 2294),
];
const INDEX: &[(&str, &str, u32)] =
    &[("main.buildIndex", "/src/shop/index.go", 17), ("main.main", "/src/shop/main.go", 40)];

fn allocated(bytes: u64, inner: &[&str], outer: &[(&str, &str, u32)]) -> CallSite {
    let site = site(Component::GoHeapInUse, bytes, inner, outer);
    CallSite { source: HEAP_PROFILE.into(), faults: 0, weight: 0.0, ..site }
}

fn held(bytes: u64, growth: i64, inner: &[&str], outer: &[(&str, &str, u32)]) -> HeldSite {
    let frames = allocated(bytes, inner, outer).frames;
    HeldSite { bytes, objects: bytes / 512, growth: Some(growth), frames, note: None }
}

fn class(object_bytes: Option<u64>, objects: u64, spans: u64, span_bytes: u64) -> HeapClass {
    let bytes = objects * object_bytes.unwrap_or(100 * KIB);
    HeapClass { object_bytes, objects, bytes, spans, slack: span_bytes - bytes }
}

/// A service with a cache that only grows, and a heap full of holes.
pub fn leak() -> Report {
    let mut report = base("shop", "/app/shop", go("go1.27.3", false));
    report.window.seconds = 60.0;
    report.components = vec![
        row(Component::GoHeapInUse, 420 * MIB, Some(30 * MIB as i64), Evidence::Structure),
        row(Component::GoHeapIdle, 35 * MIB, Some(-(2 * MIB as i64)), Evidence::Structure),
        row(Component::FileExe, 12 * MIB, Some(0), Evidence::Mapping),
        row(Component::GoStacks, 3 * MIB, Some(2 * MIB as i64), Evidence::Structure),
    ];
    report.components[0].slack = Some(151 * MIB);
    let put = &["runtime.mallocgc", "runtime.makeslice"];
    report.call_sites = vec![
        allocated(31 * MIB, put, CACHE),
        allocated(MIB, &[], INDEX),
        site(Component::GoStacks, 2 * MIB, &["runtime.newproc"], &[("main.main", "/src/shop/main.go", 44)]),
    ];
    let smaller =
        HeldSite { note: Some(SMALLER_SITES.into()), frames: Vec::new(), ..held(9 * MIB, 0, &[], &[]) };
    report.heap_profile = HeapProfile {
        in_use: Some(260 * MIB),
        in_use_objects: Some(532_480),
        growth: Some(29 * MIB as i64),
        rate: Some(512 * KIB),
        source: "mbuckets".into(),
        note: None,
        sites: vec![
            held(190 * MIB, 31 * MIB as i64, put, CACHE),
            held(60 * MIB, MIB as i64, &[], INDEX),
            held(MIB, -(3 * MIB as i64), &["runtime.mallocgc", "runtime.mapassign"], INDEX),
            smaller,
        ],
    };
    report.heap_classes = vec![
        class(Some(512), 310_000, 38_000, 38_000 * 8 * KIB),
        class(Some(2048), 20_000, 5100, 5100 * 8 * KIB),
        class(None, 400, 400, 45 * MIB),
    ];
    settle(&mut report);
    report
}

/// The same, looked at once.
pub fn snapshot() -> Report {
    let mut report = leak();
    report.window.seconds = 0.0;
    report.host.backend = "none".into();
    report.tracing = Tracing::default();
    report.call_sites = Vec::new();
    report.heap_profile.growth = None;
    for site in &mut report.heap_profile.sites {
        site.growth = None;
    }
    for row in &mut report.components {
        row.growth = None;
    }
    settle(&mut report);
    report
}
