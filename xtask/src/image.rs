//! `cargo xtask image`: a container image that holds the static leakprobe and nothing else, made without a daemon, and
//! run in a container with the privileges that deploy/ asks for.
//!
//! The surprise: that container is proof of the manifest's privileges, not of the manifest: no cluster is at hand.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Probe, Workload, expect, places};
use serde_json::{Value, json};

use crate::command::{command, ensure_root, quietly_in};
use crate::setup::Releases;
use crate::{dist, setup};

/// As deploy/kubernetes.yaml and docs/containers.md have them.
const CAPABILITIES: [&str; 5] =
    ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE"];

pub(crate) fn run() -> Result<()> {
    ensure_root("image", "the image is tried in a container")?;
    setup::run(Releases::Corners)?;
    setup::image_tools()?;
    let version = env!("CARGO_PKG_VERSION");
    let folder = places::target().join("image");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    make(&folder, &dist::build_static()?, version)?;
    let archive = format!("leakprobe-{version}-image.tar");
    quietly_in(
        &folder,
        "skopeo",
        &[
            "copy",
            "--quiet",
            "oci:layout:leakprobe",
            &format!("docker-archive:{archive}:leakprobe:{version}"),
        ],
    )?;
    prove(&folder)?;
    println!("In {}: {archive}, for docker load, podman load or ctr image import.", folder.display());
    Ok(())
}

/// An image in the layout of the Open Container Initiative.
fn make(folder: &Path, program: &Path, version: &str) -> Result<()> {
    let staged = folder.join("leakprobe");
    fs::copy(program, &staged).with_context(|| format!("copy {}", program.display()))?;
    quietly_in(folder, "strip", &["--strip-debug", "leakprobe"])?;
    let image = "layout:leakprobe";
    quietly_in(folder, "umoci", &["init", "--layout", "layout"])?;
    quietly_in(folder, "umoci", &["new", "--image", image])?;
    quietly_in(folder, "umoci", &["insert", "--image", image, "leakprobe", "/leakprobe"])?;
    let version = format!("org.opencontainers.image.version={version}");
    quietly_in(
        folder,
        "umoci",
        &["config", "--image", image, "--config.entrypoint", "/leakprobe", "--config.label", &version],
    )?;
    fs::remove_file(&staged).with_context(|| format!("remove {}", staged.display()))
}

/// Watches a process of the machine from a container of that image, with just these capabilities.
fn prove(folder: &Path) -> Result<()> {
    println!("Watching a process from a container of the image …");
    quietly_in(folder, "umoci", &["unpack", "--image", "layout:leakprobe", "bundle"])?;
    let mut workload = Workload::start("c/mmap_leak")?;
    let config = folder.join("bundle/config.json");
    let text = fs::read_to_string(&config).with_context(|| format!("read {}", config.display()))?;
    let config_now: Value = serde_json::from_str(&text).context("read umoci's configuration")?;
    let configured = as_deployed(config_now, workload.pid())?;
    fs::write(&config, configured.to_string()).with_context(|| format!("write {}", config.display()))?;
    let name = format!("leakprobe-image-{}", std::process::id());
    let mut container = command("runc", &["run", "--bundle", "bundle", &name]);
    container.current_dir(folder);
    let mut probe = Probe::spawn(container)?;
    probe.wait_until_watching()?;
    let grown_bytes = workload.grow(4)?;
    let report = probe.finish()?.report()?;
    expect::ledger_balances(&report)?;
    expect::grew_most(&report, "c.mmap", grown_bytes)?;
    let backend = report["host"]["backend"].as_str().unwrap_or("none");
    ensure!(backend != "none", "the container attached no probe: {}", report["tracing"]);
    println!("It sees the process's memory, and its system calls by {backend}.");
    fs::remove_dir_all(folder.join("bundle")).context("remove the container's folder")
}

/// A container as in the manifest: the machine's processes, its tracefs, and these capabilities.
fn as_deployed(mut config: Value, pid: u32) -> Result<Value> {
    let sets = ["bounding", "effective", "permitted"];
    let capabilities: serde_json::Map<_, _> =
        sets.iter().map(|set| ((*set).to_owned(), json!(CAPABILITIES))).collect();
    let process = &mut config["process"];
    process["terminal"] = json!(false);
    process["args"] = json!(["/leakprobe", pid.to_string(), "--duration", "2s", "--json"]);
    process["capabilities"] = Value::Object(capabilities);
    let namespaces = config["linux"]["namespaces"].as_array_mut().context("namespaces are a list")?;
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let mounts = config["mounts"].as_array_mut().context("mounts are a list")?;
    mounts.push(json!({
        "destination": "/sys/kernel/tracing", "type": "bind", "source": "/sys/kernel/tracing",
        "options": ["rbind", "ro"],
    }));
    Ok(config)
}
