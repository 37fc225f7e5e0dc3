//! A report whose goroutines wait for ever.

use leakprobe::claim::{Component, Evidence};
use leakprobe::report::{CallSite, GOROUTINES, GoroutineGroup, GoroutineTotals, Report};

use crate::parts::{KIB, MIB, base, go, row, settle, site};

/// A service whose workers wait for ever on a channel that nobody sends to.
pub fn goroutine_leak() -> Report {
    let mut report = base("jobs", "/srv/jobs", go("go1.27.3", false));
    report.components = vec![
        row(Component::GoHeapInUse, 310 * MIB, Some(12 * MIB as i64), Evidence::Structure),
        row(Component::GoStacks, 199 * MIB, Some(7 * MIB as i64), Evidence::Structure),
        row(Component::FileExe, 9 * MIB, Some(0), Evidence::Mapping),
    ];
    let group = |count,
                 growth,
                 state: &'static str,
                 reason: Option<&str>,
                 functions: &[(&str, &str, u32)],
                 creator| {
        let frames = |placed| site(Component::GoHeapInUse, 0, &[], placed).frames;
        GoroutineGroup {
            count,
            growth: Some(growth),
            state: state.into(),
            wait_reason: reason.map(str::to_owned),
            waiting_seconds: reason.map(|_| 7300.0),
            stack_bytes: count * 2 * KIB,
            stack_rss: count * 2 * KIB,
            stack_growth: Some(count * 64),
            frames: frames(functions),
            created_by: frames(&[creator]).pop(),
        }
    };
    let parked = ("runtime.gopark", "/usr/local/go/src/runtime/proc.go", 462);
    let worker = ("main.worker", "/build/jobs/worker.go", 17);
    let start = ("main.start", "/build/jobs/main.go", 40);
    let boot = ("runtime.newproc", "", 0);
    report.goroutines = vec![
        group(101_204, 11_200, "waiting", Some("chan receive"), &[parked, worker], start),
        group(
            312,
            -4,
            "waiting",
            Some("IO wait"),
            &[parked, ("net/http.(*conn).serve", "server.go", 9)],
            start,
        ),
        group(9, 0, "syscall", None, &[("syscall.Syscall", "", 0), ("main.main", "main.go", 3)], boot),
        group(2, 1, "running", None, &[], start),
        group(1, 0, "runnable", None, &[worker], start),
        group(1, 0, "leaked", Some("select"), &[parked, worker], start),
    ];
    let told = CallSite {
        source: GOROUTINES.into(),
        faults: 0,
        weight: 0.0,
        ..site(Component::GoStacks, 0, &[], &[])
    };
    let frames = site(Component::GoStacks, 0, &[], &[parked, worker, start]).frames;
    let others = "stacks of goroutines that ended, kept for new ones, or of the runtime's own";
    report.call_sites = vec![
        CallSite { bytes: 6 * MIB, frames, ..told.clone() },
        CallSite { bytes: MIB, note: Some(others.into()), ..told },
    ];
    let totals = GoroutineTotals {
        count: 101_529,
        growth: Some(11_197),
        stack_bytes: 203_058 * KIB,
        system: 6,
        dead: 40,
    };
    report.goroutine_totals = Some(totals);
    settle(&mut report);
    report
}
