//! The catalogue of causes: one function a rule, one line in [`RULES`].
//!
//! A rule answers "does this cause fit?" from [`Facts`] alone. It refuses to guess: growth that has two
//! explanations is reported with both. The surprise: summaries are single lines of at most 80 columns,
//! because the third line of the report is one of them.

mod malloc;

use super::{Facts, Finding, GROWTH_MIN_BYTES, GoroutinesStarted, HOLDS_MUCH_MIN_BYTES, is_percent_of};
use crate::claim::Component;

/// Every cause known so far.
pub const RULES: [fn(&Facts<'_>) -> Option<Finding>; 11] = [
    go_race_detector,
    go_heap_growth,
    go_heap_idle,
    go_mmap_growth,
    malloc::leak,
    malloc::retention,
    c_mmap_growth,
    thread_stacks,
    file_backed,
    shmem_growth,
    madv_free,
];

/// Fewer goroutines started say nothing of what each costs.
const GOROUTINES_MIN: u64 = 1000;
/// `__tsan::ThreadContext`, which every goroutine leaves for good.
const CONTEXT_BYTES: u64 = 240;
const MAX_GOROUTINE_COST_BYTES: u64 = 1500;

/// Freed lazily, this share of the RSS makes the RSS itself misleading.
const LAZY_FREE_MIN_PERCENT: u64 = 10;

/// The race detector keeps a context for every goroutine ever started: its thread registry reuses one only
/// beyond a quarantine of 2^32-1, which is never. The revision that Go 1.27 carries:
/// <https://github.com/llvm/llvm-project/blob/51bfeff0e4b0/compiler-rt/lib/sanitizer_common/sanitizer_thread_registry.cpp>
fn go_race_detector(facts: &Facts<'_>) -> Option<Finding> {
    let sum = facts.sum(Component::is_tsan)?;
    let is_cause = facts.is_notable_growth(sum.growth_bytes) || facts.is_much(sum.rss_bytes);
    if !facts.is_go || !is_cause {
        return None;
    }
    let built = match facts.race {
        Some(true) => "the build information says -race",
        _ => "it has TSan's memory regions",
    };
    let mut evidence = vec![built.to_owned()];
    evidence.extend(facts.growth_evidence(sum.growth_bytes));
    let summary = match goroutine_cost(facts, sum.growth_bytes) {
        Some((cost_bytes, started)) => {
            evidence.push(format!(
                "{} goroutines started in {:.0} s, {} ever, each with a context that is never freed",
                grouped(started.in_window),
                facts.window_seconds,
                grouped(started.ever)
            ));
            format!("It was built with -race: every goroutine ever started leaves ~{cost_bytes} B behind.")
        }
        None => "It was built with -race: the race detector keeps most of what it once took.".to_owned(),
    };
    let seen = sites_of(facts, Component::is_tsan);
    let under_go = bytes_under(facts, Component::is_tsan, "runtime.newproc");
    if under_go > 0 {
        let percent = under_go as f64 / seen as f64 * 100.0;
        evidence.push(format!("{percent:.0} % of the detector's new memory was touched under go statements"));
    }
    Some(Finding {
        id: "go-race-detector".into(),
        owner: sum.largest,
        bytes: sum.rss_bytes,
        growth: sum.growth_bytes,
        summary,
        evidence,
        remedy: "Run a build without -race; the race detector cannot give this memory back. Until then \
                 restart it in time and start fewer goroutines (keep-alives, worker pools)."
            .to_owned(),
        references: vec!["golang/go#63276".into(), "golang/go#37233".into()],
    })
}

/// What each goroutine left behind in the race detector, where goroutines explain its growth: a context of
/// 240 bytes and a piece of trace each, measured between 300 and 400 bytes with Go 1.21, 1.23 and 1.27. More
/// than some times that is growth of another kind.
fn goroutine_cost(facts: &Facts<'_>, growth_bytes: Option<i64>) -> Option<(u64, GoroutinesStarted)> {
    let started = facts.goroutines.filter(|started| started.in_window >= GOROUTINES_MIN)?;
    let cost_bytes = u64::try_from(growth_bytes?).ok()? / started.in_window;
    (CONTEXT_BYTES..=MAX_GOROUTINE_COST_BYTES).contains(&cost_bytes).then_some((cost_bytes, started))
}

/// Objects that take the place of idle pages are no growth of the process.
fn go_heap_growth(facts: &Facts<'_>) -> Option<Finding> {
    let is_heap = |owner| matches!(owner, Component::GoHeapInUse | Component::GoHeapIdle);
    let heap_growth_bytes = facts.sum(is_heap)?.growth_bytes;
    if heap_growth_bytes.is_none_or(|bytes| bytes < GROWTH_MIN_BYTES as i64) {
        return None;
    }
    let Some(live_bytes) = facts.live_growth_bytes else {
        return growth(
            facts,
            Component::GoHeapInUse,
            "go-heap-growth",
            "The Go heap grows; a leak and garbage awaiting collection look alike so far.",
            "Watch longer than a few collections. If it goes on, compare two heap profiles (go tool pprof \
             -diff_base); if they stay small, look for pools, goroutines and a high GOGC.",
            &[],
        );
    };
    let mut finding = growth(
        facts,
        Component::GoHeapInUse,
        "go-heap-growth",
        "The Go heap grows by objects that outlive collections: a leak, or a cache.",
        "Look at the call sites above: who keeps what they allocate, and should it be kept? A cache needs a bound.",
        &[],
    )?;
    finding
        .evidence
        .push(format!("its heap profile gained {} MiB between two collections", live_bytes >> 20));
    Some(finding)
}

fn go_heap_idle(facts: &Facts<'_>) -> Option<Finding> {
    let sum = facts.sum(|owner| owner == Component::GoHeapIdle)?;
    facts.is_much(sum.rss_bytes).then(|| Finding {
        id: "go-heap-idle".into(),
        owner: Component::GoHeapIdle,
        bytes: sum.rss_bytes,
        growth: sum.growth_bytes,
        summary: "Much of it is Go heap that was freed and not yet returned: no leak.".to_owned(),
        evidence: vec![format!("{} MiB of resident pages in no span of the Go heap", sum.rss_bytes >> 20)],
        remedy: "Leave it be if the load comes back: the next garbage fills it. Else set GOMEMLIMIT, lower \
                 GOGC, or call debug.FreeOSMemory after the peak."
            .to_owned(),
        references: vec!["golang/go#41818".into()],
    })
}

fn go_mmap_growth(facts: &Facts<'_>) -> Option<Finding> {
    growth(
        facts,
        Component::GoMmap,
        "go-mmap-growth",
        "Go code maps memory past the runtime; no heap profile will ever show it.",
        "Look at the call sites above: each mapping needs its munmap. Whether these are leaked or kept on \
         purpose cannot be told yet.",
        &[],
    )
}

fn c_mmap_growth(facts: &Facts<'_>) -> Option<Finding> {
    growth(
        facts,
        Component::CMmap,
        "c-mmap-growth",
        "Native code maps memory and fills it: no malloc and no Go profile sees it.",
        "Look at the call sites above: each mapping needs its munmap. Whether these are leaked or kept on \
         purpose cannot be told yet.",
        &[],
    )
}

fn thread_stacks(facts: &Facts<'_>) -> Option<Finding> {
    let sum = facts.sum(|component| component == Component::ThreadStacks)?;
    if !facts.is_notable_growth(sum.growth_bytes) && !facts.is_much(sum.rss_bytes) {
        return None;
    }
    let mut evidence: Vec<String> = facts.growth_evidence(sum.growth_bytes).into_iter().collect();
    if let Some(threads) = facts.threads.filter(|threads| *threads > 0) {
        let each_kib = sum.rss_bytes / threads / 1024;
        evidence.push(format!("{threads} threads, {each_kib} KiB of stack each on average"));
    }
    Some(Finding {
        id: "thread-stacks".into(),
        owner: Component::ThreadStacks,
        bytes: sum.rss_bytes,
        growth: sum.growth_bytes,
        summary: "Thread stacks: many threads, or deep calls whose pages are never given back.".to_owned(),
        evidence,
        remedy: "Bound the number of threads (in Go: of concurrent cgo and blocking system calls), and keep \
                 large buffers off their stacks."
            .to_owned(),
        references: if facts.is_go { vec!["golang/go#71150".into()] } else { Vec::new() },
    })
}

fn file_backed(facts: &Facts<'_>) -> Option<Finding> {
    let sum = facts.sum(|component| component == Component::FileMapped)?;
    if !facts.is_notable_growth(sum.growth_bytes) && !facts.is_much(sum.rss_bytes) {
        return None;
    }
    Some(Finding {
        id: "file-backed".into(),
        owner: Component::FileMapped,
        bytes: sum.rss_bytes,
        growth: sum.growth_bytes,
        summary: "These are pages of mapped files: the kernel takes them back. No leak.".to_owned(),
        evidence: vec!["the mappings name files that are not code".to_owned()],
        remedy:
            "Leave them be, unless they are written faster than the disk takes them. To see less RSS, read \
                 the files instead of mapping them, or madvise(MADV_DONTNEED) what is done."
                .to_owned(),
        references: Vec::new(),
    })
}

fn shmem_growth(facts: &Facts<'_>) -> Option<Finding> {
    growth(
        facts,
        Component::Shmem,
        "shmem-growth",
        "Shared memory grows; it lives until it is deleted and everyone unmaps it.",
        "Find who should delete it: memfd and tmpfs files (ls -l /proc/PID/fd, /dev/shm), System V \
         segments (ipcs -m).",
        &[],
    )
}

fn madv_free(facts: &Facts<'_>) -> Option<Finding> {
    let lazy_free = |holding: &super::Holding<'_>| holding.lazy_free_bytes.unwrap_or(0);
    let bytes = facts.holdings.iter().map(lazy_free).sum();
    if bytes < HOLDS_MUCH_MIN_BYTES || !is_percent_of(bytes, facts.rss_bytes, LAZY_FREE_MIN_PERCENT) {
        return None;
    }
    Some(Finding {
        id: "madv-free".into(),
        owner: facts.holdings.iter().max_by_key(|holding| lazy_free(holding))?.component,
        bytes,
        growth: None,
        summary: "Part of it is freed already (MADV_FREE): the kernel takes it when it needs it.".to_owned(),
        evidence: vec![format!("smaps counts {} MiB as LazyFree", bytes >> 20)],
        remedy: if facts.is_go {
            "Leave it be; to see it in the RSS, GODEBUG=madvdontneed=1, the default from Go 1.16 on."
        } else {
            "Leave it be; to see it in the RSS, have the allocator use MADV_DONTNEED."
        }
        .to_owned(),
        references: if facts.is_go { vec!["golang/go#42330".into()] } else { Vec::new() },
    })
}

/// A component that makes a notable part of the growth, for reasons that are not told apart yet.
fn growth(
    facts: &Facts<'_>,
    component: Component,
    id: &'static str,
    summary: &str,
    remedy: &str,
    references: &[&'static str],
) -> Option<Finding> {
    let sum = facts.sum(|owner| owner == component)?;
    facts.is_notable_growth(sum.growth_bytes).then(|| Finding {
        id: id.into(),
        owner: component,
        bytes: sum.rss_bytes,
        growth: sum.growth_bytes,
        summary: summary.to_owned(),
        evidence: facts.growth_evidence(sum.growth_bytes).into_iter().collect(),
        remedy: remedy.to_owned(),
        references: references.iter().map(|&name| name.into()).collect(),
    })
}

/// New bytes of these components that have a stack.
fn sites_of(facts: &Facts<'_>, is_meant: impl Fn(Component) -> bool) -> u64 {
    facts.sites.iter().filter(|site| is_meant(site.component)).map(|site| site.bytes).sum()
}

/// New bytes of these components whose stack passes the function or one of its closures.
fn bytes_under(facts: &Facts<'_>, is_meant: impl Fn(Component) -> bool, function: &str) -> u64 {
    let passes = |name: &&str| {
        name.strip_prefix(function).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let sites = facts.sites.iter().filter(|site| is_meant(site.component));
    sites.filter(|site| site.functions.iter().any(passes)).map(|site| site.bytes).sum()
}

/// 1234567 → "1,234,567".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let starts = digits.len() % 3;
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 3 == starts {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
