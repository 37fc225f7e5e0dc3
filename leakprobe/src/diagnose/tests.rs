//! Tests of the rules: each raises its finding where it should, and none where it should not.

use super::*;

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
    assert!(diagnose(&race)[0].summary.contains("keeps most of what"));
    // 1,200 KiB of growth by 3,600 goroutines: 341 B each.
    race.goroutines = Some(GoroutinesStarted { in_window: 3_600, ever: 1_234_567 });
    let functions = vec!["__tsan::Alloc", "runtime.newproc.func1", "main.flood"];
    race.sites = vec![Site { component: Component::TsanRuntime, bytes: MIB, functions }];
    let finding = &diagnose(&race)[0];
    assert_eq!(
        (finding.id.as_ref(), finding.owner, finding.bytes),
        ("go-race-detector", Component::TsanRuntime, 45 * MIB)
    );
    assert!(finding.summary.contains("every goroutine ever started leaves ~341 B"));
    assert!(finding.evidence.iter().any(|line| line.contains("1,234,567 ever")));
    // As much growth by few goroutines is not theirs.
    race.goroutines = Some(GoroutinesStarted { in_window: 100, ever: 100 });
    assert!(diagnose(&race)[0].summary.contains("keeps most of what"));
    // In a C program the same components are no race build of Go.
    assert_eq!(ids(&facts(tsan())), [""; 0]);
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
        one.cgroup = Some(Limit { current_bytes: 341 * MIB, limit_bytes: 512 * MIB });
        for finding in diagnose(&one) {
            assert!(finding.summary.chars().count() <= 80, "{}", finding.summary);
            assert!(finding.summary.ends_with('.') && finding.remedy.ends_with('.'));
        }
    }
}
