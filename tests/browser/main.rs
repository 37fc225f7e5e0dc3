//! The page in a browser: what it shows is what the JSON says, it can be read by everybody and by keyboard, and it fits.
//!
//! `cargo xtask test --all` runs these: they need Chromium, and axe-core for the rules of accessibility.

#![expect(unused_crate_dependencies, reason = "those of the other tests")]

mod chromium;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use leakprobe::report::{Format, Report, Style, write};
use leakprobe_tests::{Folder, places};
use serde_json::Value;

use self::chromium::Chromium;

/// Reports that the golden tests keep.
const REPORTS: [&str; 4] = ["race", "heap_leak", "snapshot", "goroutines"];
const SCHEMES: [&str; 2] = ["light", "dark"];
const WIDTHS: [u32; 2] = [1280, 420];

/// What axe finds wrong, one line a rule. Contrast with a striped or overlaid ground it cannot judge, and says so apart.
const AXE: &str =
    "axe.run().then((found) => found.violations.map((rule) => rule.id + ' on ' + rule.nodes[0].html))";

struct Page {
    report: Value,
    path: PathBuf,
    _folder: Folder,
}

impl Page {
    fn of(name: &str, test: &str) -> Result<Self> {
        let json = places::repository().join(format!("tests/golden/expect/{name}.json"));
        let json = fs::read(&json).with_context(|| format!("read {}", json.display()))?;
        let report = Report::from_json(&json).with_context(|| format!("read the report {name}"))?;
        let style = Style { width_columns: 80, color: false, full_stacks: false, top: None };
        let mut page = Vec::new();
        write(&report, Format::Html, &style, &mut page).context("write the page")?;
        let folder = Folder::new(&format!("page-{test}-{name}"))?;
        let path = folder.path().join("page.html");
        fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { report: serde_json::from_slice(&json)?, path, _folder: folder })
    }
}

#[test]
fn nothing_is_wrong_with_it_for_those_who_do_not_see_it() -> Result<()> {
    let axe = places::axe()?;
    let axe = fs::read_to_string(&axe).with_context(|| format!("read {}", axe.display()))?;
    let mut browser = Chromium::start("axe")?;
    for name in REPORTS {
        let page = Page::of(name, "axe")?;
        for (scheme, width) in SCHEMES.into_iter().flat_map(|scheme| WIDTHS.map(|width| (scheme, width))) {
            browser.open(&page.path, scheme, width)?;
            browser.evaluate(&axe)?;
            let wrong = browser.evaluate(AXE)?;
            ensure!(wrong == Value::Array(Vec::new()), "{name}, {scheme}, {width} wide: {wrong:#}");
        }
    }
    Ok(())
}

#[test]
fn its_figures_are_those_of_the_json() -> Result<()> {
    let mut browser = Chromium::start("figures")?;
    for name in REPORTS {
        let page = Page::of(name, "figures")?;
        browser.open(&page.path, "light", 1280)?;
        let total = browser.evaluate("document.querySelector('.ledger tfoot tr:last-child td').title")?;
        ensure!(total == format!("{} bytes", page.report["rss"]["end"]), "{name}: RSS is {total}");
        let rows = browser.evaluate(
            "[...document.querySelectorAll('.ledger tbody tr:not(.part) td[title]')].map((cell) => parseInt(cell.title))",
        )?;
        let sum: i64 = rows.as_array().into_iter().flatten().filter_map(Value::as_i64).sum();
        let rss = page.report["rss"]["end"].as_i64().context("rss.end")?;
        let residual = page.report["residual"].as_i64().context("residual")?;
        ensure!(sum + residual == rss, "{name}: the rows add up to {sum}, with {residual} to {rss}");
        let looks = page.report["timeline"].as_array().map_or(0, Vec::len);
        let drawn = browser.evaluate("document.querySelectorAll('.plot polyline').length")?;
        ensure!((looks > 1) == (drawn != 0), "{name}: {looks} looks, {drawn} lines");
    }
    Ok(())
}

#[test]
fn it_fits_a_telephone() -> Result<()> {
    let mut browser = Chromium::start("width")?;
    for name in REPORTS {
        let page = Page::of(name, "width")?;
        browser.open(&page.path, "light", 420)?;
        let wide = browser.evaluate("document.documentElement.scrollWidth")?;
        ensure!(wide.as_u64().is_some_and(|pixels| pixels <= 420), "{name}: {wide} pixels of 420");
    }
    Ok(())
}

#[test]
fn a_keyboard_goes_through_the_flame_graph() -> Result<()> {
    const FOCUSED: &str = "document.activeElement.getAttribute('aria-label')";
    let page = Page::of("race", "keyboard")?;
    let mut browser = Chromium::start("keyboard")?;
    browser.open(&page.path, "light", 1280)?;
    let first =
        browser.evaluate(&format!("document.querySelector('.flame [tabindex=\"0\"]').focus(); {FOCUSED}"))?;
    ensure!(first.is_string(), "nothing in the flame graph takes the focus");
    browser.press("ArrowDown", 40)?;
    let below = browser.evaluate(FOCUSED)?;
    ensure!(below.is_string() && below != first, "{below} is where it was");
    let widened = "document.querySelectorAll('.flame .full').length";
    browser.press("Enter", 13)?;
    ensure!(browser.evaluate(widened)? == 2, "Enter widens the step and the one above it");
    browser.press("Escape", 27)?;
    ensure!(browser.evaluate(widened)? == 0, "Escape goes back");
    browser.press("ArrowUp", 38)?;
    ensure!(browser.evaluate(FOCUSED)? == first, "the way back is the way there");
    Ok(())
}
