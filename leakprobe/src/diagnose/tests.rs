//! Tests of the rules: each raises its finding where it should, and none where it should not.

use super::trend::Verdict;
use super::*;
use crate::runtimes::go::Collector;

const MIB: u64 = 1 << 20;

fn holding(component: Component, rss_mib: u64, growth_kib: Option<i64>) -> Holding<'static> {
    let growth_bytes = growth_kib.map(|kib| kib << 10);
    Holding {
        component,
        rss_bytes: rss_mib * MIB,
        growth_bytes,
        lazy_free_bytes: Some(0),
        allocator: None,
        slack_bytes: None,
        huge_bytes: Some(0),
        reclaimable_bytes: 0,
        copied_bytes: 0,
        largest_file: None,
    }
}

fn facts(holdings: Vec<Holding<'_>>) -> Facts<'_> {
    Facts {
        rss_bytes: holdings.iter().map(|holding| holding.rss_bytes).sum(),
        rss_growth_bytes: holdings.iter().map(|holding| holding.growth_bytes).sum(),
        window_seconds: 10.0,
        holdings,
        ..Facts::default()
    }
}

fn ids(facts: &Facts<'_>) -> Vec<Word> {
    diagnose(facts).iter().map(|finding| finding.id.clone()).collect()
}

#[test]
fn each_grower_has_its_finding_and_only_it() {
    let expected = [
        (Component::GoHeapInUse, "go-heap-growth"),
        (Component::GoMmap, "go-mmap-growth"),
        (Component::CHeapInUse, "c-heap-leak"),
        (Component::CMmap, "c-mmap-growth"),
        (Component::ThreadStacks, "thread-stacks"),
        (Component::FileMapped, "file-backed"),
        (Component::Shmem, "shmem-growth"),
    ];
    for (component, id) in expected {
        let grower = holding(component, 40, Some(30 << 10));
        let others = [holding(Component::FileExe, 30, Some(64)), holding(Component::AnonUnknown, 1, Some(0))];
        assert_eq!(ids(&facts([vec![grower], others.to_vec()].concat())), [id]);
    }
}

#[test]
fn garbage_within_the_collectors_room_is_no_leak() {
    let mut heap = facts(vec![holding(Component::GoHeapInUse, 18, Some(8 << 10))]);
    heap.live_bytes = Some(8 * MIB);
    assert_eq!(ids(&heap), ["go-heap-growth"], "nobody knows how far it may grow");
    heap.collector = Some(Collector { gc_percent: Some(100), memory_limit: None });
    assert_eq!(ids(&heap), [""; 0]);
    heap.collector = Some(Collector { gc_percent: Some(50), memory_limit: None });
    assert_eq!(ids(&heap), ["go-heap-growth"]);
    // What outlived a collection is no garbage.
    heap.collector = Some(Collector { gc_percent: Some(100), memory_limit: None });
    heap.live_growth_bytes = Some(7 * MIB);
    assert_eq!(ids(&heap), ["go-heap-growth"]);
    heap.live_growth_bytes = Some(2 * MIB);
    assert_eq!(ids(&heap), [""; 0], "samples err by so much");
}

#[test]
fn an_idle_heap_is_no_leak() {
    let peak_is_over =
        facts(vec![holding(Component::GoHeapIdle, 90, None), holding(Component::GoHeapInUse, 110, None)]);
    assert_eq!(ids(&peak_is_over), ["go-heap-idle"]);
    let small =
        facts(vec![holding(Component::GoHeapIdle, 60, None), holding(Component::GoHeapInUse, 10, None)]);
    assert_eq!(ids(&small), [""; 0]);
    // Between two collections objects take idle pages.
    let reused = facts(vec![
        holding(Component::GoHeapIdle, 20, Some(-(6 << 10))),
        holding(Component::GoHeapInUse, 40, Some(6 << 10)),
    ]);
    assert_eq!(ids(&reused), [""; 0]);
}

fn blocks(growth_kib: Option<i64>, trimmable_mib: u64) -> Option<MallocFacts> {
    Some(MallocFacts {
        arenas: 1,
        in_use_growth_bytes: growth_kib.map(|kib| kib << 10),
        in_use_growth_blocks: growth_kib.map(|kib| kib * 5),
        trimmable_bytes: Some(trimmable_mib * MIB),
        top_grower: growth_kib.map(|kib| SizeGrowth { size_bytes: 208, blocks: kib * 4, bytes: kib << 10 }),
    })
}

#[test]
fn blocks_that_are_not_freed_are_told_from_those_malloc_keeps() {
    let mut leak = facts(vec![
        holding(Component::CHeapInUse, 90, Some(20 << 10)),
        holding(Component::CHeapFree, 2, Some(0)),
    ]);
    leak.malloc = blocks(Some(20 << 10), 2);
    assert_eq!(ids(&leak), ["c-heap-leak"]);
    let expected = "102,400 blocks more are in use, 20,480 KiB, most of it in 81,920 of up to 208 B";
    assert!(diagnose(&leak)[0].evidence.contains(&expected.to_owned()), "{:?}", diagnose(&leak));
    // The same pages, and hardly more blocks on them: malloc spreads them.
    leak.malloc = blocks(Some(200), 2);
    assert_eq!(ids(&leak), ["c-heap-retention"]);
    // Blocks take the place of freed ones.
    let mut reused = facts(vec![
        holding(Component::CHeapInUse, 60, Some(6 << 10)),
        holding(Component::CHeapFree, 40, Some(-(6 << 10))),
    ]);
    reused.malloc = blocks(Some(6 << 10), 30);
    assert_eq!(ids(&reused), [""; 0]);
}

#[test]
fn a_peak_that_is_over_leaves_free_pages_or_scattered_blocks() {
    let mut peak_is_over =
        facts(vec![holding(Component::CHeapInUse, 7, Some(0)), holding(Component::CHeapFree, 290, Some(0))]);
    peak_is_over.malloc = blocks(Some(0), 290);
    assert_eq!(ids(&peak_is_over), ["c-heap-retention"]);
    assert!(diagnose(&peak_is_over)[0].summary.contains("kept by malloc"));
    let mut scattered = facts(vec![
        Holding { slack_bytes: Some(250 * MIB), ..holding(Component::CHeapInUse, 290, Some(0)) },
        holding(Component::CHeapFree, 7, Some(0)),
    ]);
    scattered.malloc = blocks(Some(0), 7);
    let finding = &diagnose(&scattered)[0];
    assert_eq!(
        (finding.id.as_ref(), finding.bytes, finding.owner),
        ("c-heap-retention", 257 * MIB, Component::CHeapInUse)
    );
    assert!(finding.summary.contains("blocks in use on its pages"));
}

#[test]
fn little_growth_raises_nothing() {
    let warm_up = facts(vec![
        holding(Component::GoHeapInUse, 40, Some(900)),
        holding(Component::CHeapInUse, 9, Some(100)),
    ]);
    assert_eq!(ids(&warm_up), [""; 0]);
    // 2 MiB are not why a process grows by 40.
    let beside = facts(vec![
        holding(Component::CHeapInUse, 90, Some(2 << 10)),
        holding(Component::AnonUnknown, 60, Some(40 << 10)),
    ]);
    assert_eq!(ids(&beside), [""; 0]);
    let unknown = facts(vec![holding(Component::CHeapInUse, 40, None)]);
    assert_eq!(ids(&unknown), [""; 0]);
}

#[test]
fn the_race_detector_is_told_from_its_sum_and_its_stacks() {
    let tsan = || {
        vec![
            holding(Component::TsanRuntime, 40, Some(600)),
            holding(Component::TsanMeta, 5, Some(600)),
            holding(Component::GoHeapInUse, 60, Some(100)),
        ]
    };
    let mut race = Facts { is_go: true, race: Some(true), ..facts(tsan()) };
    assert!(diagnose(&race)[0].summary.contains("traces and clocks grow"));
    // 1,200 KiB of growth by 3,600 goroutines: 341 B each.
    race.goroutines = Some(GoroutinesStarted { in_window: 3_600, ever: 1_234_567 });
    let functions = vec!["__tsan::Alloc", "runtime.newproc.func1", "main.flood"];
    race.sites = vec![Site { component: Component::TsanRuntime, bytes: MIB, cause: None, functions }];
    let finding = &diagnose(&race)[0];
    assert_eq!(
        (finding.id.as_ref(), finding.owner, finding.bytes),
        ("go-race-detector", Component::TsanRuntime, 45 * MIB)
    );
    assert!(finding.summary.contains("every goroutine ever started leaves ~341 B"));
    assert!(finding.evidence.iter().any(|line| line.contains("1,234,567 ever")));
    // As much growth by few goroutines is not theirs.
    race.goroutines = Some(GoroutinesStarted { in_window: 100, ever: 100 });
    assert!(diagnose(&race)[0].summary.contains("traces and clocks grow"));
    // In a C program the same components are no race build of Go, but a sanitizer's.
    assert_eq!(ids(&facts(tsan())), ["sanitizer-build"]);
}

#[test]
fn the_race_detectors_leaks_are_told_apart() {
    let race = |runtime_mib: i64, shadow_mib: i64, heap_mib: i64| Facts {
        is_go: true,
        race: Some(true),
        ..facts(vec![
            holding(Component::TsanRuntime, 80, Some(runtime_mib << 10)),
            holding(Component::TsanShadow, 80, Some(shadow_mib << 10)),
            holding(Component::GoHeapInUse, 60, Some(heap_mib << 10)),
        ])
    };
    let told = |facts: &Facts<'_>| {
        let finding = diagnose(facts).into_iter().find(|it| it.id == "go-race-detector").unwrap();
        (finding.confidence, finding.references[0].clone(), finding.summary)
    };
    let inside = told(&race(20, 1, 0));
    assert_eq!((inside.0, inside.1.as_ref()), (Confidence::Possible, "golang/go#26813"));
    let mut alive = race(64, 1, 0);
    alive.goroutine_growth = Some(400);
    let alive = told(&alive);
    assert!(
        alive.0 == Confidence::Likely && alive.2.contains("each goroutine alive costs it ~166 KiB"),
        "{alive:?}"
    );
    let mut started = race(20, 1, 0);
    started.goroutines = Some(GoroutinesStarted { in_window: 60_000, ever: 90_000 });
    let started = told(&started);
    assert_eq!((started.0, started.1.as_ref()), (Confidence::Certain, "golang/go#63276"));
    // The heap leaks, and the shadow grows twice as fast.
    let heap = race(1, 40, 20);
    assert_eq!(ids(&heap), ["go-heap-growth", "go-race-detector"]);
    assert!(told(&heap).2.contains("shadow grows with the memory"));
    // Nothing but the shadow grows: then that is the news.
    assert_eq!(ids(&race(1, 40, 0)), ["go-race-detector"]);
}

fn waiting(count: u64, growth: i64, reason: &'static str) -> Blocked<'static> {
    Blocked {
        count,
        growth: Some(growth),
        reason,
        is_for_ever: false,
        longest_wait_seconds: Some(180.0),
        function: Some("main.worker"),
        creator: Some("main.serve"),
    }
}

fn go_with(blocked: Vec<Blocked<'static>>, heap_kib: i64) -> Facts<'static> {
    let mut facts = facts(vec![
        holding(Component::GoStacks, 20, Some(500)),
        holding(Component::GoHeapInUse, 60, Some(heap_kib)),
    ]);
    facts.is_go = true;
    facts.goroutine_count = Some(blocked.iter().map(|group| group.count).sum::<u64>() + 20);
    facts.goroutine_growth = blocked.iter().map(|group| group.growth).sum();
    facts.blocked = blocked;
    facts
}

#[test]
fn goroutines_that_become_more_in_one_place_leak() {
    let leak = go_with(vec![waiting(5000, 1200, "chan receive"), waiting(300, 10, "IO wait")], 6 << 10);
    // The heap that they hold is theirs.
    assert_eq!(ids(&leak), ["goroutine-leak", "go-heap-growth"]);
    let finding = &diagnose(&leak)[0];
    assert_eq!(finding.summary, "Goroutines leak: 1,200 more wait on chan receive in main.worker.");
    assert_eq!((finding.confidence, finding.owner), (Confidence::Likely, Component::GoStacks));
    let evidence = finding.evidence.join("; ");
    for part in ["+1,210 goroutines in 10 s, 5,320 in all", "go statement in main.serve", "waited for 3 min"]
    {
        assert!(evidence.contains(part), "{evidence}");
    }
    let select = go_with(vec![waiting(5000, 1200, "select")], 0);
    assert_eq!(diagnose(&select)[0].confidence, Confidence::Possible);
    let mut lost = go_with(vec![waiting(5000, 0, "chan send")], 0);
    lost.blocked[0].is_for_ever = true;
    lost.blocked[0].growth = None;
    lost.goroutine_growth = None;
    assert_eq!(diagnose(&lost)[0].confidence, Confidence::Certain);
    assert_eq!(diagnose(&lost)[0].summary, "Goroutines leak: 5,000 wait on chan send in main.worker.");
}

#[test]
fn busy_goroutines_are_no_leak() {
    for healthy in [
        vec![waiting(90, 90, "chan receive")],
        vec![waiting(5000, 150, "chan receive")],
        vec![waiting(2000, 1500, "IO wait")],
        vec![waiting(2000, -500, "chan receive"), waiting(2500, 500, "chan send")],
        vec![waiting(300, 120, "chan receive"), waiting(300, 120, "select"), waiting(300, 120, "chan send")],
    ] {
        assert_eq!(ids(&go_with(healthy.clone(), 0)), [""; 0], "{healthy:?}");
    }
}

#[test]
fn a_sanitizer_is_named_and_its_quarantine_is_no_leak() {
    let quarantine = |growth_kib| {
        facts(vec![
            holding(Component::AsanHeap, 20, Some(0)),
            holding(Component::AsanQuarantine, 30, Some(growth_kib)),
            holding(Component::AsanShadow, 12, Some(growth_kib / 8)),
        ])
    };
    for (growth_kib, word) in [(20 << 10, "quarantine. No leak."), (0, "what its checks cost")] {
        let findings = diagnose(&quarantine(growth_kib));
        assert_eq!((findings.len(), findings[0].id.as_ref()), (1, "sanitizer-build"));
        assert!(findings[0].summary.contains(word), "{}", findings[0].summary);
    }
    // A leak is one under a sanitizer, too, and comes first.
    let leak = facts(vec![
        holding(Component::AsanHeap, 40, Some(20 << 10)),
        holding(Component::AsanShadow, 12, Some(3 << 10)),
    ]);
    assert_eq!(ids(&leak), ["c-heap-leak", "sanitizer-build"]);
    let small =
        facts(vec![holding(Component::LsanHeap, 40, Some(0)), holding(Component::LsanRuntime, 4, Some(0))]);
    assert_eq!(ids(&small), [""; 0]);
}

#[test]
fn huge_pages_are_a_cause_where_the_kernel_made_them() {
    let huge =
        |component, rss, huge| Holding { huge_bytes: Some(huge * MIB), ..holding(component, rss, Some(0)) };
    // Half of it is huge, and half is alive: they may be the same.
    let unclear = Holding { slack_bytes: Some(100 * MIB), ..huge(Component::CHeapInUse, 200, 100) };
    assert_eq!(ids(&facts(vec![unclear])), ["c-heap-retention"]);
    let kept =
        facts(vec![huge(Component::GoHeapIdle, 200, 180), holding(Component::GoHeapInUse, 50, Some(0))]);
    assert_eq!(ids(&kept), ["go-heap-idle", "huge-page-inflation"]);
    assert_eq!(diagnose(&kept)[1].confidence, Confidence::Possible);
    let mut made = facts(vec![holding(Component::CHeapFree, 60, Some(40 << 10))]);
    made.sites = vec![Site {
        component: Component::CHeapFree,
        bytes: 39 * MIB,
        cause: Some("khugepaged"),
        functions: Vec::new(),
    }];
    made.malloc = blocks(Some(0), 60);
    let findings = diagnose(&made);
    let inflation = findings.iter().find(|it| it.id == "huge-page-inflation").expect("it is found");
    assert_eq!((inflation.confidence, inflation.growth), (Confidence::Likely, Some(39 << 20)));
}

#[test]
fn stacks_of_threads_that_exited_are_kept_on_purpose() {
    let mut stacks = facts(vec![holding(Component::ThreadStacks, 30, Some(20 << 10))]);
    (stacks.threads, stacks.thread_growth) = (Some(50), Some(40));
    assert!(diagnose(&stacks)[0].summary.contains("40 threads more"));
    stacks.exited_stack_bytes = 25 * MIB;
    let finding = &diagnose(&stacks)[0];
    assert!(finding.summary.contains("exited") && finding.confidence == Confidence::Certain);
    assert!(finding.evidence.iter().any(|line| line.contains("102 KiB of stack each")), "{finding:?}");
}

#[test]
fn copies_of_file_pages_are_not_the_kernels() {
    let mapped = |copied_mib: u64| Holding {
        copied_bytes: copied_mib * MIB,
        reclaimable_bytes: (88 - copied_mib) * MIB,
        largest_file: Some("/var/lib/db"),
        ..holding(Component::FileMapped, 90, Some(20 << 10))
    };
    assert!(diagnose(&facts(vec![mapped(0)]))[0].summary.contains("No leak"));
    let half = &diagnose(&facts(vec![mapped(45)]))[0];
    assert!(half.summary.contains("but for private copies"), "{half:?}");
    let kinds = "43 MiB as on disk, 45 MiB private copies, 2 MiB to be written back first";
    assert!(half.evidence.contains(&kinds.to_owned()), "{half:?}");
    let copies = &diagnose(&facts(vec![mapped(85)]))[0];
    assert!(
        copies.summary.contains("only munmap") && copies.evidence.iter().any(|it| it.contains("/var/lib/db"))
    );
}

#[test]
fn the_collectors_settings_are_in_the_advice() {
    let mut idle =
        facts(vec![holding(Component::GoHeapIdle, 90, None), holding(Component::GoHeapInUse, 110, None)]);
    let mut told = |gc_percent, memory_limit| {
        idle.collector = Some(Collector { gc_percent, memory_limit });
        let finding = diagnose(&idle).remove(0);
        format!("{} {}", finding.evidence.join("; "), finding.remedy)
    };
    assert!(told(Some(100), None).contains("GOGC=100, no GOMEMLIMIT"));
    assert!(told(None, None).contains("GOGC is off"));
    assert!(told(Some(100), Some(512 * MIB)).contains("lower GOMEMLIMIT"));
    assert!(told(Some(400), None).contains("lower GOGC, which"));
}

#[test]
fn a_snapshot_still_tells_what_is_held() {
    let mut race =
        facts(vec![holding(Component::TsanRuntime, 258, None), holding(Component::GoHeapInUse, 10, None)]);
    race.is_go = true;
    assert_eq!(ids(&race), ["go-race-detector"]);
    let mut lazy = facts(vec![holding(Component::CHeapInUse, 900, None)]);
    lazy.holdings[0].lazy_free_bytes = Some(400 * MIB);
    assert_eq!(ids(&lazy), ["madv-free"]);
}

#[test]
fn causes_come_by_growth_and_the_limit_after_them() {
    let mut both = facts(vec![
        holding(Component::CHeapInUse, 90, Some(10 << 10)),
        holding(Component::GoHeapInUse, 50, Some(30 << 10)),
    ]);
    both.cgroup = Some(Limit { current_bytes: 150 * MIB, limit_bytes: 512 * MIB });
    assert_eq!(ids(&both), ["go-heap-growth", "c-heap-leak", "cgroup-limit"]);
    assert!(diagnose(&both)[2].summary.contains("full in 91 seconds"));
}

fn until_full(limit: Limit, growth_bytes: i64, window_seconds: f64) -> Option<f64> {
    seconds_until_full(limit, growth_bytes, window_seconds, &Trend::default())
}

#[test]
fn what_rises_and_falls_is_no_growth_unless_it_exceeds_the_fall() {
    let mut heap = facts(vec![holding(Component::CMmap, 40, Some(12 << 10))]);
    heap.cgroup = Some(Limit { current_bytes: 150 * MIB, limit_bytes: 512 * MIB });
    heap.trend = Trend { verdict: Verdict::RisesAndFalls, largest_fall: 16 * MIB, ..Trend::default() };
    assert_eq!(ids(&heap), [""; 0]);
    heap.trend.largest_fall = 2 * MIB;
    assert_eq!(ids(&heap), ["c-mmap-growth"]);
    heap.trend.verdict = Verdict::Grows;
    assert_eq!(ids(&heap), ["c-mmap-growth", "cgroup-limit"]);
}

#[test]
fn the_limit_is_a_matter_of_time_only_where_something_grows() {
    let limit = Limit { current_bytes: 341 * MIB, limit_bytes: 512 * MIB };
    let seconds = until_full(limit, 107_584_717, 10.0).map(|seconds| seconds.round());
    assert_eq!(seconds, Some(17.0));
    assert_eq!(until_full(limit, 4096, 10.0), None);
    assert_eq!(until_full(limit, -107_584_717, 10.0), None);
    assert_eq!(until_full(limit, 107_584_717, 0.0), None);
    let full = Limit { current_bytes: 513 * MIB, limit_bytes: 512 * MIB };
    assert_eq!(until_full(full, 107_584_717, 10.0), Some(0.0));
}

#[test]
fn summaries_fit_the_third_line() {
    let everything = Component::ALL.map(|component| holding(component, 100, Some(100 << 10)));
    for holding in everything {
        let mut one = facts(vec![Holding { lazy_free_bytes: Some(90 * MIB), ..holding }]);
        one.is_go = true;
        one.threads = Some(4000);
        one.cgroup = Some(Limit { current_bytes: 341 * MIB, limit_bytes: 512 * MIB });
        for finding in diagnose(&one) {
            assert!(finding.summary.chars().count() <= 80, "{}", finding.summary);
            assert!(finding.summary.ends_with('.') && finding.remedy.ends_with('.'));
        }
    }
}
