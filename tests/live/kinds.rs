//! The kinds of memory that the kernel counts in its own ways: huge pages set aside or made by itself, what KSM merged,
//! swap, locks, and rings. Each test changes the machine as little as it can, and puts it back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::kernels::{self, Feature};
use leakprobe_tests::{Folder, Probe, Workload, expect};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A setting of the kernel, put back when the value is dropped.
struct Setting {
    path: &'static Path,
    before: String,
}

impl Setting {
    fn change(path: &'static str, value: u64) -> Result<Self> {
        let path = Path::new(path);
        let before = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let setting = Self { path, before };
        fs::write(path, value.to_string()).with_context(|| format!("write {value} to {}", path.display()))?;
        Ok(setting)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        fs::write(self.path, self.before.trim()).ok();
    }
}

/// A file the kernel swaps to, until the value is dropped.
struct SwapFile {
    path: PathBuf,
    _folder: Folder,
}

impl SwapFile {
    fn switch_on(bytes: u64) -> Result<Self> {
        let folder = Folder::new("swap")?;
        let path = folder.path().join("swap");
        let zeroes = vec![0; usize::try_from(bytes)?];
        fs::write(&path, zeroes).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .context("make the swap file root's alone")?;
        run("mkswap", &[&path])?;
        // Before any other, where there is one.
        run("swapon", &[Path::new("-p"), Path::new("32767"), &path])?;
        Ok(Self { path, _folder: folder })
    }
}

impl Drop for SwapFile {
    fn drop(&mut self) {
        run("swapoff", &[&self.path]).ok();
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("run {program} {arguments:?}"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// What a test sets up, where this kernel lets it.
fn where_possible<T>(feature: Feature, set_up: Result<T>) -> Result<Option<T>> {
    let found = set_up.as_ref().map(drop).map_err(|error| format!("{error:#}"));
    Ok(if kernels::is_here(feature, found)? { Some(set_up?) } else { None })
}

/// Sets so many huge pages of 2 MiB aside, beside those that are.
fn set_huge_pages_aside(pages: u64) -> Result<Setting> {
    let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let count = || -> Result<u64> {
        let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        text.trim().parse().with_context(|| format!("read a number of pages from {path}"))
    };
    let wanted = count()? + pages;
    let setting = Setting::change(path, wanted)?;
    ensure!(count()? >= wanted, "the kernel has no room for {pages} huge pages: free some memory");
    Ok(setting)
}

/// Lets KSM run, and fast.
fn run_ksm() -> Result<[Setting; 2]> {
    let smaps = fs::read_to_string("/proc/self/smaps").context("read /proc/self/smaps")?;
    ensure!(smaps.contains("\nKSM:"), "this kernel does not say of a mapping what KSM merged of it");
    Ok([
        Setting::change("/sys/kernel/mm/ksm/pages_to_scan", 10_000)?,
        Setting::change("/sys/kernel/mm/ksm/run", 1)?,
    ])
}

/// Has the workload make something while it is watched: its answer, and the report.
fn watched(workload: &mut Workload, line: &str) -> Result<(Value, Value)> {
    let mut probe = Probe::start(workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth = workload.ask(line)?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    Ok((truth, report))
}

fn told(truth: &Value, what: &str) -> Result<u64> {
    Ok(expect::number(truth, &format!("/{what}"))?.unsigned_abs())
}

fn is_near(value: &Value, pointer: &str, truth: u64) -> Result<()> {
    let found = expect::number(value, pointer)?.unsigned_abs();
    ensure!(
        found.abs_diff(truth) <= expect::tolerance_bytes(truth),
        "{pointer} is {found}, in truth {truth}: {value}"
    );
    Ok(())
}

#[test]
fn huge_pages_set_aside_are_outside_rss_and_in_no_row() -> Result<()> {
    let Some(_pages) = where_possible(Feature::Hugetlb, set_huge_pages_aside(12))? else { return Ok(()) };
    let mut workload = Workload::start("c/kinds")?;
    let (truth, report) = watched(&mut workload, "hugetlb 12")?;
    let hugetlb = told(&truth, "hugetlb")?;
    ensure!(hugetlb == told(&truth, "touched")?, "the kernel did not give what was set aside: {truth}");
    ensure!(report["outside_rss"]["hugetlb"] == hugetlb, "{truth}: {}", report["outside_rss"]);
    expect::others_stayed(&report, "", MIB)
}

#[test]
fn equal_pages_that_ksm_merged_count_in_full_and_are_told() -> Result<()> {
    let Some(_settings) = where_possible(Feature::Ksm, run_ksm())? else { return Ok(()) };
    let mut workload = Workload::start("c/kinds")?;
    let (truth, report) = watched(&mut workload, "merge 16")?;
    let row = expect::component(&report, "c.mmap")?;
    is_near(row, "/rss", told(&truth, "touched")?)?;
    is_near(row, "/ksm", told(&truth, "merged")?)?;
    is_near(&report, "/rss/ksm", told(&truth, "merged")?)
}

/// What is in swap is in no RSS, and looking at it does not fetch it; what comes back has grown.
#[test]
fn swapped_memory_is_beside_its_row_and_grows_when_it_comes_back() -> Result<()> {
    let Some(_swap) = where_possible(Feature::Swap, SwapFile::switch_on(64 * MIB))? else { return Ok(()) };
    let mut workload = Workload::start("c/kinds")?;
    let (truth, report) = watched(&mut workload, "swap_out 24")?;
    let swapped = told(&truth, "swapped")?;
    ensure!(swapped > 16 * MIB, "the kernel swapped next to nothing: {truth}");
    is_near(&report, "/rss/swap", swapped)?;
    let row = expect::component(&report, "c.mmap")?;
    is_near(row, "/swap", swapped)?;
    is_near(row, "/rss", told(&truth, "touched")? - swapped)?;
    let after = told(&workload.ask("swapped")?, "swapped")?;
    ensure!(after + MIB > swapped, "looking fetched {} bytes from swap", swapped - after);
    let (truth, report) = watched(&mut workload, "swap_in")?;
    ensure!(told(&truth, "swapped")? < MIB, "it should be back: {truth}");
    is_near(&report, "/rss/swap", told(&truth, "swapped")?)?;
    expect::grew_most(&report, "c.mmap", swapped)
}

#[test]
fn locked_memory_is_told_by_row() -> Result<()> {
    let mut workload = Workload::start("c/kinds")?;
    let (truth, report) = watched(&mut workload, "lock 8")?;
    let row = expect::component(&report, "c.mmap")?;
    is_near(row, "/rss", told(&truth, "touched")?)?;
    is_near(row, "/locked", told(&truth, "locked")?)?;
    is_near(&report, "/rss/locked", told(&truth, "locked")?)
}

/// Rings are the kernel's pages, which RSS counts where they are pages; /dev/zero is a way to ask for anonymous memory.
#[test]
fn rings_are_devices_and_private_zeroes_are_nobodys_file() -> Result<()> {
    let mut workload = Workload::start("c/kinds")?;
    let (truth, report) = watched(&mut workload, "rings 8")?;
    let mapped = expect::component(&report, "file.mapped")?;
    let mut in_rss = 0;
    for file in mapped["files"].as_array().into_iter().flatten() {
        let name = file["path"].as_str().unwrap_or_default();
        if !name.starts_with("socket:[") && name != "anon_inode:[io_uring]" {
            continue;
        }
        ensure!(file["kind"] == "device" && file["reclaimable"] == 0, "{file}");
        in_rss += expect::number(file, "/rss")?.unsigned_abs();
    }
    // io_uring's ring has pages that RSS counts from Linux 6.10 on; before, it is mapped as a device's memory is.
    let outside = told(&report["outside_rss"], "device")?;
    let [packets, io, events] = ["packets", "io", "events"].map(|what| told(&truth, what));
    let (packets, io, events) = (packets?, io?, events?);
    ensure!(in_rss >= packets && outside >= events, "{truth}: {outside} outside RSS, and {mapped}");
    ensure!(in_rss + outside == packets + io + events, "{truth}: {outside} outside RSS, and {mapped}");
    is_near(expect::component(&report, "c.mmap")?, "/growth", told(&truth, "zeroes")?)
}

#[test]
fn huge_pages_made_by_the_kernel_are_told_by_row() -> Result<()> {
    let mut workload = Workload::start("c/kinds")?;
    let (truth, report) = watched(&mut workload, "huge 32")?;
    let huge = told(&truth, "huge")?;
    ensure!(huge > 0, "the kernel made no huge page: {truth}");
    expect::grew_most(&report, "c.mmap", told(&truth, "resident")?)?;
    let row = expect::component(&report, "c.mmap")?;
    ensure!(row["huge"] == huge && report["rss"]["huge"] == huge, "{truth}: {row}");
    let sites = report["call_sites"].as_array().into_iter().flatten();
    let by_touch: i64 =
        sites.filter(|site| site["component"] == "c.mmap").filter_map(|site| site["bytes"].as_i64()).sum();
    ensure!(
        by_touch.unsigned_abs().abs_diff(told(&truth, "resident")?) <= MIB,
        "the faults that made huge pages account for {by_touch}: {truth}"
    );
    Ok(())
}
