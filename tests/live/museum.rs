//! The museum of leaks: a real program for each finding, and beside it one that looks alike and has not that finding.
//!
//! What is asserted is what a person reads: the first three lines of the report on a terminal name the owner and the
//! cause. Programs do what they are told within the window and it ends then, so that no exhibit waits for a clock.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe::diagnose;
use leakprobe::report::{self, Format, Report, Style};
use leakprobe_tests::compile::{GoBuild, Kind};
use leakprobe_tests::probe::Outcome;
use leakprobe_tests::{Probe, Workload, places};

use crate::cgroup::Group;

/// What the third line is made for.
const TERMINAL: Style = Style { width_columns: 80, color: false, full_stacks: false, top: None };

/// When a program does what is exhibited.
enum When {
    /// Before leakprobe comes, which takes a snapshot.
    Before,
    /// While it watches.
    Watched,
}

/// A program, and what it does.
struct Exhibit {
    program: &'static str,
    /// So that what it does later is nothing new: pools filled, code loaded, pages touched.
    warmed_up_by: &'static [&'static str],
    shows: &'static [&'static str],
    when: When,
}

/// Does something while it is watched.
const fn watched(program: &'static str, shows: &'static [&'static str]) -> Exhibit {
    Exhibit { program, warmed_up_by: &[], shows, when: When::Watched }
}

/// Did something before it is looked at.
const fn looked_at(program: &'static str, shows: &'static [&'static str]) -> Exhibit {
    Exhibit { program, warmed_up_by: &[], shows, when: When::Before }
}

/// A report, and the first three lines of its text.
struct Told {
    report: Report,
    text: String,
}

impl Exhibit {
    fn run(&self) -> Result<Told> {
        self.run_in(&mut Workload::start(self.program)?)
    }

    /// The same program, built with Go's race detector.
    fn run_with_race_detector(&self) -> Result<Told> {
        let build = GoBuild { kind: Kind::Race, ..GoBuild::usual(self.program) };
        self.run_in(&mut Workload::start_built(self.program, build)?)
    }

    fn run_in(&self, workload: &mut Workload) -> Result<Told> {
        for command in self.warmed_up_by {
            workload.ask(command)?;
        }
        match self.when {
            When::Before => {
                self.show(workload)?;
                Told::of(&Probe::start(workload, &["--duration", "0"])?.finish()?.stdout)
            }
            When::Watched => during(workload, |workload| self.show(workload)),
        }
    }

    fn show(&self, workload: &mut Workload) -> Result<()> {
        self.shows.iter().try_for_each(|command| workload.ask(command).map(drop))
    }
}

/// Watches a program for as long as something is done.
fn during(workload: &mut Workload, act: impl FnOnce(&mut Workload) -> Result<()>) -> Result<Told> {
    let mut probe = Probe::start(workload, &["--duration", "600s"])?;
    probe.wait_until_watching()?;
    act(workload)?;
    probe.interrupt()?;
    Told::of(&probe.finish()?.stdout)
}

impl Told {
    fn of(json: &str) -> Result<Self> {
        let report = Report::from_json(json.as_bytes()).context("read leakprobe's report")?;
        let mut text = Vec::new();
        report::write(&report, Format::Text, &TERMINAL, &mut text)?;
        Ok(Self { report, text: String::from_utf8(text)? })
    }

    fn ids(&self) -> Vec<&str> {
        self.report.findings.iter().map(|finding| finding.id.as_ref()).collect()
    }

    /// The finding comes first, and the first three lines say all of these words.
    fn is(&self, id: &str, says: &[&str]) -> Result<()> {
        ensure!(self.ids().first() == Some(&id), "{id} is not the first of {:?}:\n{}", self.ids(), self.text);
        let answer: Vec<&str> = self.text.lines().take(3).collect();
        for words in says {
            ensure!(answer.iter().any(|line| line.contains(words)), "nobody says {words:?}:\n{}", self.text);
        }
        ensure!(self.text.contains(&format!("leakprobe explain {id}")), "{}", self.text);
        Ok(())
    }

    /// Some finding's evidence says these words, wherever the text breaks its lines.
    fn has_seen(&self, words: &str) -> Result<()> {
        let mut evidence = self.report.findings.iter().flat_map(|finding| &finding.evidence);
        ensure!(evidence.any(|line| line.contains(words)), "nothing says {words:?}:\n{}", self.text);
        Ok(())
    }

    fn is_not(&self, id: &str) -> Result<()> {
        ensure!(!self.ids().contains(&id), "{id} is a false alarm:\n{}", self.text);
        Ok(())
    }

    fn is_healthy(&self) -> Result<()> {
        ensure!(self.ids().is_empty(), "{:?} are false alarms:\n{}", self.ids(), self.text);
        Ok(())
    }
}

#[test]
fn race_detector_or_the_heap_that_it_watches() -> Result<()> {
    // It floods itself with connections; so many goroutines as it takes to be sure.
    let flooded = during(&mut Workload::start("go/race_http")?, |workload| {
        let requests = |workload: &mut Workload| -> Result<u64> {
            workload.ask("count")?["requests"].as_u64().context("a number of requests")
        };
        let enough = requests(workload)? + 4000;
        while requests(workload)? < enough {}
        Ok(())
    })?;
    flooded.is("go-race-detector", &["The race detector (TSan)", "every goroutine ever started leaves"])?;

    let heap = watched("go/museum", &["keep 24"]).run_with_race_detector()?;
    heap.is("go-heap-growth", &["The Go heap grows by objects that outlive collections"])?;
    ensure!(heap.ids() == ["go-heap-growth", "go-race-detector"], "{:?}", heap.ids());

    let alive = watched("go/goroutines", &["start 300"]).run_with_race_detector()?;
    alive.is("goroutine-leak", &["The race detector (TSan)", "wait on chan receive in main.receiveForEver"])
}

#[test]
fn goroutines_that_leak_or_end() -> Result<()> {
    let leak = watched("go/goroutines", &["start 3000"]).run()?;
    leak.is("goroutine-leak", &["Goroutines leak: 3,000 more wait on chan receive in main.receiveForEver"])?;
    Exhibit { warmed_up_by: &["work 2000"], ..watched("go/museum", &["work 50000"]) }.run()?.is_healthy()
}

#[test]
fn a_go_heap_that_leaks_or_is_collected() -> Result<()> {
    let leak = watched("go/museum", &["keep 32"]).run()?;
    leak.is("go-heap-growth", &["The Go heap owns", "make in main.filled"])?;
    ensure!(leak.text.contains("The Go heap grows by objects that outlive collections"), "{}", leak.text);
    Exhibit { warmed_up_by: &["waste 64"], ..watched("go/museum", &["waste 400"]) }.run()?.is_healthy()?;
    Exhibit { warmed_up_by: &["remember 4000"], ..watched("go/museum", &["remember 8000"]) }
        .run()?
        .is_healthy()
}

#[test]
fn a_go_heap_that_is_kept_or_returned() -> Result<()> {
    let kept = looked_at("go/museum", &["peak 120"]).run()?;
    kept.is("go-heap-idle", &["The idle Go heap", "freed and not yet returned: no leak"])?;
    kept.has_seen("GOGC=100, no GOMEMLIMIT")?;
    looked_at("go/museum", &["peak 120", "release"]).run()?.is_healthy()?;

    let lazy = looked_at("c/retention", &["free 200"]).run()?;
    lazy.is("madv-free", &["Part of it is freed already (MADV_FREE)"])?;
    looked_at("c/museum", &["discard 200"]).run()?.is_healthy()
}

#[test]
fn memory_mapped_past_every_allocator_or_unmapped() -> Result<()> {
    let go = watched("go/museum", &["map 12", "map 13"]).run()?;
    go.is("go-mmap-growth", &["Memory mapped by Go code", "main.mapPastTheRuntime"])?;
    watched("go/museum", &["unmap 12", "unmap 13"]).run()?.is_healthy()?;

    let native = watched("c/mmap_leak", &["grow 12", "grow 13"]).run()?;
    native.is("c-mmap-growth", &["Memory mapped by native code", "first touch in touch_every_page"])?;
    watched("c/museum", &["discard 12", "discard 13"]).run()?.is_healthy()
}

#[test]
fn a_c_heap_that_leaks_or_is_kept_by_malloc() -> Result<()> {
    let leak = watched("c/malloc_leak", &["grow 24"]).run()?;
    leak.is("c-heap-leak", &["The C heap (malloc)", "malloc in"])?;
    watched("c/museum", &["free 60"]).run()?.is_healthy()?;

    let in_go = watched("go/cgo_malloc", &["grow 24"]).run()?;
    in_go.is("c-heap-leak", &["The C heap (malloc)", "forget_block"])?;

    let kept = looked_at("c/malloc_retained", &[]).run()?;
    kept.is("c-heap-retention", &["Freed memory that malloc keeps", "kept by malloc: no leak"])?;
    let arenas = looked_at("c/museum", &["arenas 12"]).run()?;
    arenas.is("c-heap-retention", &["Freed memory that malloc keeps", "kept by malloc: no leak"])?;
    ensure!(arenas.text.contains("MALLOC_ARENA_MAX=2"), "{}", arenas.text);
    leak.is_not("c-heap-retention")?;
    kept.is_not("c-heap-leak")
}

#[test]
fn stacks_of_threads_and_of_those_that_exited() -> Result<()> {
    let threads = watched("c/thread_stacks", &["grow 20"]).run()?;
    threads.is("thread-stacks", &["Thread stacks own", "20 threads more, each with a stack"])?;
    let in_go = watched("go/museum", &["call 20"]).run()?;
    in_go.is("thread-stacks", &["Thread stacks own", "threads more, for C or system calls that block"])?;
    ensure!(in_go.text.contains("golang/go#71150"), "{}", in_go.text);
    looked_at("c/exited_threads", &[]).run()?.is_healthy()
}

#[test]
fn files_and_shared_memory_or_page_cache() -> Result<()> {
    let file = watched("c/file_map", &["grow 24"]).run()?;
    file.is("file-backed", &["Mapped files own", "the kernel takes them back. No leak"])?;
    let copied = watched("c/retention", &["copy 24"]).run()?;
    copied.is("file-backed", &["the growth is mapped files", "but for private copies"])?;
    watched("c/museum", &["read 24"]).run()?.is_healthy()?;

    let shared = watched("c/memfd_leak", &["grow 24"]).run()?;
    shared.is("shmem-growth", &["Shared memory owns", "it lives until it is deleted"])?;
    watched("c/museum", &["memfd 24"]).run()?.is_healthy()
}

#[test]
fn huge_pages_made_by_the_kernel_or_pages_that_were_touched() -> Result<()> {
    let made = watched("c/retention", &["collapse 24"]).run()?;
    made.is(
        "huge-page-inflation",
        &["Memory mapped by native code", "The kernel fills it up to huge pages"],
    )?;
    watched("c/retention", &["populate 24"]).run()?.is_not("huge-page-inflation")
}

#[test]
fn a_sanitizers_quarantine_or_a_leak_under_it() -> Result<()> {
    let quarantine = watched("c/asan_museum", &["free 60"]).run()?;
    quarantine.is(
        "sanitizer-build",
        &["Freed memory in ASan's quarantine", "what was freed waits in its quarantine. No leak"],
    )?;
    let leak = watched("c/asan_malloc_leak", &["grow 24"]).run()?;
    leak.is("c-heap-leak", &["The C heap under ASan", "forget_block"])
}

#[test]
fn a_cgroup_that_will_be_full() -> Result<()> {
    let group = Group::create(&format!("leakprobe-museum-{}", std::process::id()))?;
    let mut workload = Workload::start("c/mmap_leak")?;
    group.take_in(&workload)?;
    let soon = watched("c/mmap_leak", &["grow 24", "grow 24"]).run_in(&mut workload)?;
    ensure!(soon.ids() == ["c-mmap-growth", "cgroup-limit"], "{:?}", soon.ids());
    ensure!(soon.text.contains("At this rate its cgroup is full in"), "{}", soon.text);
    let calm = looked_at("c/mmap_leak", &[]).run_in(&mut workload)?;
    calm.is_not("cgroup-limit")?;
    workload.end()?;
    Ok(())
}

#[test]
fn healthy_programs_have_no_finding() -> Result<()> {
    watched("c/idle", &[]).run()?.is_healthy()?;
    let mut server = Workload::start("go/http_server")?;
    let address = server.hello["address"].as_str().context("its address")?.to_owned();
    ask_often(&address, 1000)?;
    during(&mut server, |_| ask_often(&address, 3000))?.is_healthy()
}

/// A steady client: one request after the other, each on a connection of its own.
fn ask_often(address: &str, times: usize) -> Result<()> {
    for _ in 0..times {
        let mut connection = TcpStream::connect(address).context("connect to the server")?;
        connection.write_all(b"GET /orders HTTP/1.1\r\nHost: museum\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "the server answered {answer}");
    }
    Ok(())
}

#[test]
fn every_finding_is_explained_by_the_command_that_reports_name() -> Result<()> {
    let explain = |arguments: &[&str]| -> Result<Outcome> {
        let mut command = Command::new(places::leakprobe()?);
        command.arg("explain").args(arguments);
        Probe::spawn(command)?.finish()
    };
    let listed = explain(&[])?.stdout;
    let listed_ids: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(listed_ids == diagnose::ids().collect::<Vec<_>>(), "{listed}");
    for id in listed_ids {
        let page = explain(&[id])?.stdout;
        ensure!(page.starts_with(&format!("# {id}: ")), "{page}");
    }
    let unknown = explain(&["no-such-thing"])?;
    ensure!(unknown.ended.code == Some(2), "{:?}", unknown.ended);
    ensure!(unknown.stderr.contains("leakprobe explain lists all"), "{}", unknown.stderr);
    Ok(())
}
