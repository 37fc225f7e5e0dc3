//! `cargo xtask vm`: the live tests on other kernels, each with the backends it has, in test machines of QEMU.
//!
//! The programs are built on the host: the same tests are run there first, and what they built is on the machines' disk.

mod kernels;
mod machine;
mod results;
mod root;
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use leakprobe_tests::kernels::{Feature, HOST, Kernels};
use leakprobe_tests::{document, places};

use self::kernels::{KERNELS, Kernel};
use self::machine::{Disk, Task};
use self::table::Column;
use crate::command::{build_leakprobe, cargo, ensure_root, in_the_open, quietly};
use crate::setup::{self, Releases};

/// What `cargo xtask vm` was asked for.
pub(crate) struct Wanted {
    /// Names of kernels; all, if there are none.
    pub kernels: Vec<String>,
    /// Backends; the one that leakprobe chooses, if there are none.
    pub backends: Vec<String>,
    /// Every test with every backend that a kernel has, and the table in docs/.
    pub all: bool,
    /// As libtest's; a selection, if there are none.
    pub filter: Vec<String>,
}

/// What each kernel is tried with every time: what every backend that it has sees of mappings, that all give the same
/// answer, pages and their faults, a stack, and a runtime that is read. Every test here is paid for four times, each on a
/// processor that is emulated.
const CORNERS: [&str; 4] = [
    "backends::",
    "told_apart::a_leak_has_the_stack_that_made_it",
    "retention::a_huge_page_weighs_its_size",
    "goroutines::all_goroutines_are_counted_where_they_wait",
];

/// The four backends that can be forced, by the word of `--backend`.
const BACKENDS: [&str; 4] = ["fentry", "kprobe", "tracepoint", "syscalls"];

/// How long a machine may take, for a selection of the tests and for all.
const LONGEST: [Duration; 2] = [Duration::from_secs(900), Duration::from_secs(4 * 3600)];

pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::run(Releases::Corners)?;
    let live = Live::build()?;
    let filter = wanted.filter();
    let host = live.on_the_host(&filter)?;
    println!("{}", host.line());
    let mut columns = vec![host];
    columns.extend(on_machines(wanted, &filter, &live)?);
    let table = table::markdown(&columns);
    println!("{table}");
    if wanted.all {
        document::write_table(&places::repository().join("docs/kernels.md"), MARK, &table)?;
    }
    ensure_all_passed(&columns)
}

/// The step of `cargo xtask test`: the live tests have been run on the host by then.
pub(crate) fn corners() -> Result<()> {
    let wanted = Wanted { kernels: Vec::new(), backends: Vec::new(), all: false, filter: Vec::new() };
    ensure_all_passed(&on_machines(&wanted, &wanted.filter(), &Live::build()?)?)
}

/// What `document::write_table` looks for in docs/kernels.md.
const MARK: &str = "cargo xtask vm --all";

impl Wanted {
    fn filter(&self) -> Vec<String> {
        match (self.filter.is_empty(), self.all) {
            (false, _) => self.filter.clone(),
            (true, true) => Vec::new(),
            (true, false) => CORNERS.map(str::to_owned).to_vec(),
        }
    }

    fn kernels(&self) -> Result<Vec<Kernel>> {
        if self.kernels.is_empty() {
            return Ok(KERNELS.to_vec());
        }
        self.kernels.iter().map(|name| Kernel::by_name(name)).collect()
    }

    /// What a kernel is to be tried with; `None` is what leakprobe chooses.
    fn backends(&self, kernel: Kernel) -> Result<Vec<Option<String>>> {
        if !self.backends.is_empty() {
            return Ok(self.backends.iter().cloned().map(Some).collect());
        }
        if !self.all || kernel.only.is_some() {
            return Ok(vec![None]);
        }
        let kernels = Kernels::read()?;
        let mut backends = Vec::new();
        for backend in BACKENDS {
            let feature = Feature::ALL.into_iter().find(|feature| feature.word() == backend);
            let why_not = match feature {
                Some(feature) => kernels.why_not(kernel.name, feature)?,
                None => None,
            };
            backends.extend(why_not.is_none().then(|| Some(backend.to_owned())));
        }
        Ok(backends)
    }
}

fn on_machines(wanted: &Wanted, filter: &[String], live: &Live) -> Result<Vec<Column>> {
    let started = Instant::now();
    let caches = places::cache()?;
    let disk = Disk {
        image: root::build(&live.leakprobe, &live.tests)?,
        caches: caches.parent().context("the cache lies in a folder")?.to_owned(),
        leakprobe: live.leakprobe.clone(),
        tests: live.tests.clone(),
    };
    println!("The machines' disk is made, {:.0} s.", started.elapsed().as_secs_f64());
    let mut columns = Vec::new();
    for kernel in wanted.kernels()? {
        for backend in wanted.backends(kernel)? {
            let backend = backend.as_deref();
            let longest = LONGEST[usize::from(wanted.all)];
            let only = kernel.only.map(|only| vec![only.to_owned()]);
            let filter = only.as_deref().unwrap_or(filter);
            let column = on_machine(&Task { kernel, backend, filter, longest }, &disk)?;
            println!("{}", column.line());
            columns.push(column);
        }
    }
    Ok(columns)
}

fn on_machine(task: &Task<'_>, disk: &Disk) -> Result<Column> {
    let ran = machine::run(task, disk)?;
    let column = Column {
        kernel: task.kernel.name.to_owned(),
        backend: task.backend.unwrap_or(CHOSEN).to_owned(),
        seconds: ran.seconds,
        verdicts: results::parse(&ran.output),
    };
    let last = ran.console.lines().rev().take(20).collect::<Vec<_>>();
    let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
    if let Some(error) = ran.cut_short {
        println!("{error:#}; the kernel said last:\n{last}");
    }
    ensure!(
        !column.verdicts.is_empty(),
        "run the tests on Linux {}: none was run; the machine said:\n{}\n{last}",
        task.kernel.name,
        ran.output
    );
    Ok(column)
}

const CHOSEN: &str = "chosen";

/// Fails with every test that did.
fn ensure_all_passed(columns: &[Column]) -> Result<()> {
    let mut failures = Vec::new();
    for column in columns {
        failures.extend(
            column
                .failures()
                .map(|(test, reason)| format!("{} {}: {test}: {reason}", column.kernel, column.backend)),
        );
    }
    ensure!(failures.is_empty(), "{} tests failed:\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}

/// leakprobe and its live tests, built.
struct Live {
    leakprobe: PathBuf,
    tests: PathBuf,
}

impl Live {
    fn build() -> Result<Self> {
        ensure_root("vm", "the live tests read other processes' memory and load BPF programs")?;
        let leakprobe = build_leakprobe()?;
        let build = ["test", "--quiet", "--package", "leakprobe-tests", "--test", "live", "--no-run"];
        in_the_open(cargo(&build))?;
        let messages = quietly(cargo(&[build.as_slice(), &["--message-format=json"]].concat()))?;
        let tests =
            messages.lines().find_map(executable).context("cargo does not say where the live tests are")?;
        Ok(Self { leakprobe, tests })
    }

    fn on_the_host(&self, filter: &[String]) -> Result<Column> {
        let started = Instant::now();
        let mut tests = std::process::Command::new(&self.tests);
        tests.args(["--test-threads=1", "--show-output"]).args(filter);
        tests.env("LEAKPROBE_BIN", &self.leakprobe).env("RUST_LIB_BACKTRACE", "0");
        let output =
            tests.current_dir(places::repository().join("tests")).output().context("run the live tests")?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let verdicts = results::parse(&output);
        ensure!(!verdicts.is_empty(), "no test is called {}; libtest said:\n{output}", filter.join(" or "));
        let seconds = started.elapsed().as_secs_f64();
        Ok(Column { kernel: HOST.to_owned(), backend: CHOSEN.to_owned(), seconds, verdicts })
    }
}

/// The path in a message of cargo's, if it is of a test program.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["executable"].as_str().map(PathBuf::from)
}
