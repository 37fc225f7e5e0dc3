//! Containers: the process has a PID namespace, a user namespace, a network and a root of its own, and leakprobe is
//! outside of them or inside.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::compile::{self, GoBuild, Kind, Symbols};
use leakprobe_tests::folder::Folder;
use leakprobe_tests::kernels::{Feature, is_here};
use leakprobe_tests::places::NEWEST_GO;
use leakprobe_tests::{Probe, Workload, expect, places};

use crate::chain::{Chain, End, follow};
use crate::sites;

/// What a container's runtime takes away from its processes, but for the root.
const CONTAINER: [&str; 7] =
    ["--mount", "--mount-proc", "--net", "--ipc", "--uts", "--user", "--map-root-user"];

#[test]
fn a_process_in_a_container_is_seen_from_outside() -> Result<()> {
    let mut workload = Workload::start_contained(&CONTAINER, &compile::workload("c/mmap_leak")?)?;
    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth_bytes = workload.grow(20)?;
    let report = probe.report_now()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", truth_bytes)?;
    sites::are_of(&report, "leak_mapping", truth_bytes)
}

/// Go's threads are told by the numbers that the process itself has for them.
#[test]
fn go_and_c_call_each_other_in_a_container() -> Result<()> {
    let build = GoBuild { version: NEWEST_GO, kind: Kind::Cgo, symbols: Symbols::Stripped };
    let workload = Workload::start_contained(&CONTAINER, &compile::go_workload("go/stacks", build)?)?;
    let outermost = End::Named("main.callbackOutermost");
    let chain = Chain { verb: "callback", innermost: End::INNERMOST, outermost };
    let complaints = follow(workload, &[chain], &[])?.0.complaints();
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// As in `kubectl debug` with a target, or a sidecar: leakprobe shares the process's namespaces, not the node's.
#[test]
fn a_process_is_seen_from_inside_its_container() -> Result<()> {
    let mut workload =
        Workload::start_contained(&["--mount", "--mount-proc"], &compile::workload("c/mmap_leak")?)?;
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &workload.pid().to_string(), "--mount", "--pid"]).arg(places::leakprobe()?);
    inside.args(["--pid", "1", "--duration", "3s", "--format", "json"]);
    let mut probe = Probe::spawn(inside)?;
    probe.wait_until_watching()?;
    let truth_bytes = workload.grow(20)?;
    let report = probe.finish()?.report()?;
    ensure!(report["target"]["pid"] == 1, "the process is called {}", report["target"]["pid"]);
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", truth_bytes)
}

/// The executable lies in an overlay that only the container sees, and is replaced while it runs.
#[test]
fn an_executable_of_an_overlay_that_was_replaced_is_still_read() -> Result<()> {
    let known = fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    let found = if known.contains("\toverlay\n") { Ok(()) } else { Err("no such file system".to_owned()) };
    if !is_here(Feature::Overlay, found)? {
        return Ok(());
    }
    let folder = Folder::new("overlay")?;
    let program = compile::workload("c/mmap_leak")?;
    for part in ["layers", "merged"] {
        fs::create_dir(folder.path().join(part)).with_context(|| format!("create {part}"))?;
    }
    let script = folder.path().join("contain.sh");
    fs::write(&script, CONTAIN).with_context(|| format!("write {}", script.display()))?;
    let place = folder.path().display().to_string();
    let shell = ["--mount", "sh", script.to_str().context("a path in UTF-8")?, &place];
    let mut workload = Workload::start_contained(&shell, &program)?;
    let pid = workload.pid().to_string();
    let mut replace = Command::new("nsenter");
    replace.args(["--target", &pid, "--mount", "sh", "-c", "rm \"$1\" && echo another > \"$1\"", "sh"]);
    replace.arg(folder.path().join("merged/leaks"));
    let replaced = replace.status().context("replace the executable")?;
    ensure!(replaced.success(), "replacing the executable in its container: {replaced}");

    let mut probe = Probe::start(&workload, &["--duration", "60s"])?;
    probe.wait_until_watching()?;
    let truth_bytes = workload.grow(20)?;
    let report = probe.report_now()?;
    let exe = report["target"]["exe"].as_str().context("target.exe")?;
    ensure!(exe.ends_with("/leaks (deleted)"), "the executable is called {exe}");
    expect::ledger_balances(&report)?;
    sites::are_of(&report, "leak_mapping", truth_bytes)
}

/// A root of its own, with this machine's libraries below and the program on top.
const CONTAIN: &str = r#"set -e
mount -t tmpfs none "$1/layers"
mkdir "$1/layers/upper" "$1/layers/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" "$1/merged"
cp "$2" "$1/merged/leaks"
mount -t proc proc "$1/merged/proc"
exec chroot "$1/merged" /leaks
"#;
