//! What kills a pod is its cgroup's bill: limit, posts and the other processes on it, in a cgroup of our own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect, places};

const MIB: i64 = 1 << 20;
const LIMIT_BYTES: i64 = 256 * MIB;
/// What each step of the workloads touches.
const STEPS: i64 = 24;

/// A cgroup with the memory controller; removed when the value is, after the processes in it.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn create(name: &str) -> Result<Self> {
        let (root, limit_file) = hierarchy()?;
        let folder = root.join(name);
        fs::create_dir(&folder).with_context(|| format!("create the cgroup {}", folder.display()))?;
        let group = Self(folder);
        group.write(limit_file, &LIMIT_BYTES.to_string())?;
        Ok(group)
    }

    pub(crate) fn folder(&self) -> Result<&str> {
        self.0.to_str().context("a cgroup's folder in UTF-8")
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let file = self.0.join(file);
        fs::write(&file, text).with_context(|| format!("write {text} to {}", file.display()))
    }

    pub(crate) fn take_in(&self, workload: &Workload) -> Result<()> {
        self.write("cgroup.procs", &workload.pid().to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can be busy only while a process is in it, and then the test has failed already.
        fs::remove_dir(&self.0).ok();
    }
}

/// Root of the hierarchy with the memory controller, and the name of a limit in it.
fn hierarchy() -> Result<(PathBuf, &'static str)> {
    let separate = Path::new("/sys/fs/cgroup/memory");
    if separate.join("memory.limit_in_bytes").exists() {
        return Ok((separate.to_owned(), "memory.limit_in_bytes"));
    }
    let unified = Path::new("/sys/fs/cgroup");
    let control = unified.join("cgroup.subtree_control");
    fs::write(&control, "+memory").with_context(|| format!("write +memory to {}", control.display()))?;
    Ok((unified.to_owned(), "memory.max"))
}

#[test]
fn the_bill_has_its_limit_its_posts_and_its_other_processes() -> Result<()> {
    let group = Group::create(&format!("leakprobe-test-{}", std::process::id()))?;
    let mut target = Workload::start("c/memfd_leak")?;
    let mut other = Workload::start("c/mmap_leak")?;
    group.take_in(&target)?;
    group.take_in(&other)?;
    // Charged is what is touched from now on.
    let shared_bytes = expect::number(&target.ask(&format!("grow {STEPS}"))?, "/grown_bytes")?;
    let private_bytes = expect::number(&other.ask(&format!("grow {STEPS}"))?, "/grown_bytes")?;
    let report = Probe::start(&target, &["--duration", "0"])?.finish()?.report()?;
    let bill = report.pointer("/outside_rss/cgroup").context("the report has a bill")?;
    ensure!(expect::number(bill, "/limit")? == LIMIT_BYTES, "{bill}");
    // The kernel counts in batches of some dozen pages a processor.
    let slack_bytes = 2 * MIB;
    let posts =
        [("/current", shared_bytes + private_bytes), ("/shmem", shared_bytes), ("/anon", private_bytes)];
    for (post, truth_bytes) in posts {
        let found_bytes = expect::number(bill, post)?;
        let range = truth_bytes - slack_bytes..=truth_bytes + 4 * slack_bytes;
        ensure!(range.contains(&found_bytes), "{post}: {found_bytes}, in truth {truth_bytes}: {bill}");
    }
    ensure!(expect::number(bill, "/others/processes")? == 1, "{bill}");
    ensure!(expect::number(bill, "/others/largest/0/pid")? == i64::from(other.pid()), "{bill}");
    ensure!(expect::number(bill, "/others/rss")? >= private_bytes, "{bill}");
    Ok(())
}

#[test]
fn all_processes_of_a_container_are_summed_up() -> Result<()> {
    let id = format!("{:064x}", 0xbeef_0000_u64 + u64::from(std::process::id()));
    let group = Group::create(&format!("docker-{id}.scope"))?;
    let mut shared = Workload::start("c/memfd_leak")?;
    let mut private = Workload::start("c/malloc_leak")?;
    group.take_in(&shared)?;
    group.take_in(&private)?;
    let shared_bytes = expect::number(&shared.ask(&format!("grow {STEPS}"))?, "/leaked_bytes")?;
    let private_bytes = expect::number(&private.ask(&format!("grow {STEPS}"))?, "/leaked_bytes")?;
    for which in [["--cgroup", group.folder()?], ["--container", &id]] {
        let mut command = Command::new(places::leakprobe()?);
        command.args(which).arg("--json");
        let report = Probe::spawn(command)?.finish()?.report()?;
        ensure!(report["schema"] == "leakprobe.cgroup/1", "{report}");
        let pids: BTreeSet<i64> =
            (0..2).filter_map(|index| report["processes"][index]["pid"].as_i64()).collect();
        ensure!(pids == BTreeSet::from([shared.pid().into(), private.pid().into()]), "{which:?}: {pids:?}");
        let rows = report["components"].as_array().context("components")?;
        let held = |id: &str| {
            rows.iter().find(|row| row["id"] == id).map_or(0, |row| row["rss"].as_i64().unwrap_or(0))
        };
        for (id, truth_bytes) in [("shmem", shared_bytes), ("c.heap.inuse", private_bytes)] {
            let off = held(id).abs_diff(truth_bytes);
            ensure!(
                off <= expect::tolerance_bytes(truth_bytes.unsigned_abs()),
                "{id}: {off} bytes off in {rows:?}"
            );
        }
        let sum: i64 = rows.iter().filter_map(|row| row["rss"].as_i64()).sum();
        ensure!(sum + expect::number(&report, "/residual")? == expect::number(&report, "/rss")?, "{report}");
        // Both have libc's pages, and others have them as well.
        ensure!(expect::number(&report, "/pss")? < expect::number(&report, "/rss")?, "{report}");
        ensure!(expect::number(&report, "/memory/limit")? == LIMIT_BYTES, "{}", report["memory"]);
    }
    Ok(())
}
