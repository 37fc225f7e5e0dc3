//! `cargo xtask pictures`: the pictures of the README, made anew from a report of the demo, or from a saved one.
//!
//! What they show is what leakprobe wrote: the terminal's colours turned into SVG, the page photographed by Chromium.

use std::fs;
use std::path::{Path, PathBuf};

use anstyle_svg::{Term, WIN10_CONSOLE};
use anyhow::{Context, Result, ensure};
use leakprobe_tests::{Folder, Workload, places};

use crate::command::{cargo, command, ensure_root, find_program, in_the_open, quietly};

/// Owners and call sites in the terminal's picture: what fits on a screen.
const TOP: &str = "6";
const PAGE_SIZE: &str = "1200,900";

pub(crate) fn run(saved: Option<&Path>) -> Result<()> {
    let chromium = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(find_program);
    let chromium = chromium.context("find Chromium, which photographs the page: apt-get install chromium")?;
    in_the_open(cargo(&["build", "--quiet", "--package", "leakprobe"]))?;
    let leakprobe = word(&places::target().join("debug/leakprobe"))?;
    let folder = Folder::new("pictures")?;
    let report = match saved {
        Some(path) => word(path)?,
        None => watch_the_demo(&leakprobe, &folder)?,
    };
    let pictures = places::repository().join("docs/pictures");
    fs::create_dir_all(&pictures).with_context(|| format!("create {}", pictures.display()))?;

    let text = quietly(command(&leakprobe, &["render", &report, "--top", TOP, "--color", "always"]))?;
    let typed = format!("\x1b[1m$ sudo leakprobe {}\x1b[0m\n", pid(&report)?);
    let terminal = pictures.join("terminal.svg");
    fs::write(&terminal, drawn(&(typed + &text))?)
        .with_context(|| format!("write {}", terminal.display()))?;

    let page = folder.file("page.html")?;
    quietly(command(&leakprobe, &["render", &report, "--format", "html", "--output", &page]))?;
    photograph(&chromium, &page, &pictures.join("page.png"))?;
    println!("Look at the pictures in {}, then commit them.", pictures.display());
    Ok(())
}

/// Text with its colours. What is dim in a terminal can still be read there, and so it shall here.
fn drawn(text: &str) -> Result<String> {
    const DIM: &str = ".dimmed { opacity: 0.4; }";
    let picture = Term::new().palette(WIN10_CONSOLE).render_svg(text);
    ensure!(picture.contains(DIM), "anstyle-svg draws dim text in another way than it did");
    Ok(picture.replace(DIM, ".dimmed { opacity: 0.7; }"))
}

/// A report of the demo's service, saved.
fn watch_the_demo(leakprobe: &str, folder: &Folder) -> Result<String> {
    ensure_root("pictures", "it watches the demo's process; a saved report needs no root")?;
    let workload = Workload::start("go/race_http")?;
    let path = folder.file("report.json")?;
    println!("Watching the demo for ten seconds …");
    in_the_open(command(leakprobe, &[&workload.pid().to_string(), "--json", "--output", &path]))?;
    workload.end()?;
    Ok(path)
}

fn pid(report: &str) -> Result<i64> {
    let json = fs::read_to_string(report).with_context(|| format!("read {report}"))?;
    let report: serde_json::Value = serde_json::from_str(&json).context("read the report as JSON")?;
    report["target"]["pid"].as_i64().context("a report has target.pid")
}

/// With a profile of its own in memory, and as a user that may be root: the page is ours and loads nothing.
fn photograph(chromium: &Path, page: &str, picture: &Path) -> Result<()> {
    let folder = Folder::new("chromium")?;
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--hide-scrollbars",
        &format!("--window-size={PAGE_SIZE}"),
        &format!("--user-data-dir={}", folder.path().display()),
        &format!("--screenshot={}", picture.display()),
        &format!("file://{page}"),
    ];
    quietly(command(&word(chromium)?, &arguments))?;
    ensure!(picture.is_file(), "Chromium made no picture of {page}");
    Ok(())
}

fn word(path: &Path) -> Result<String> {
    let path: PathBuf = path.to_owned();
    path.into_os_string().into_string().ok().context("a path in UTF-8")
}
