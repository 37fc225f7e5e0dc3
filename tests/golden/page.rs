//! The page: what is in it, and that nothing from a process becomes markup.

use data_encoding::BASE64;
use expect_test::expect_file;
use leakprobe::report::html::SCRIPT_HASH;
use leakprobe::report::{Format, Report};
use sha2::{Digest as _, Sha256};

use crate::{check, goroutines, heap, plain, rendered, reports};

fn page(report: &Report) -> String {
    rendered(report, Format::Html, &plain(80))
}

fn script(page: &str) -> &str {
    let script = page.split_once("<script>").expect("the page has a script").1;
    script.split_once("</script>").expect("the script ends").0
}

#[test]
fn pages() {
    check(&reports::race_leak(), Format::Html, &plain(80), expect_file!["expect/race.html"]);
    check(&reports::snapshot(), Format::Html, &plain(80), expect_file!["expect/snapshot.html"]);
    check(&goroutines::goroutine_leak(), Format::Html, &plain(80), expect_file!["expect/goroutines.html"]);
    check(&heap::leak(), Format::Html, &plain(80), expect_file!["expect/heap_leak.html"]);
}

#[test]
fn the_policy_allows_the_pages_script() {
    let hash = Sha256::digest(script(&page(&reports::race_leak())));
    assert_eq!(SCRIPT_HASH, format!("sha256-{}", BASE64.encode(&hash)));
}

#[test]
fn pages_load_nothing() {
    for report in reports::all() {
        let page = page(&report);
        for word in ["src=", "url(", "@import", "<link", "<iframe", "<object", "<img"] {
            assert!(!page.contains(word), "{word} in the page of {}", report.target.comm);
        }
        // Only what a reader may click leads elsewhere.
        assert_eq!(
            page.matches("://").count(),
            page.matches("href=\"https://github.com/golang/go/issues/").count()
        );
    }
}

#[test]
fn names_stay_text() {
    let attack = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>";
    let mut report = heap::leak();
    report.target.comm = attack.to_owned();
    report.target.exe = attack.to_owned();
    report.window.started_at = attack.to_owned();
    report.components[0].label = attack.to_owned().into();
    report.heap_profile.note = Some(attack.to_owned().into());
    for site in &mut report.call_sites {
        site.frames[0].function = Some(attack.to_owned());
        site.frames[0].file = Some(attack.to_owned());
        site.note = Some(attack.to_owned().into());
    }
    for site in &mut report.heap_profile.sites {
        site.note = Some(attack.to_owned().into());
    }
    report.goroutines = goroutines::goroutine_leak().goroutines;
    report.goroutines[0].state = attack.to_owned().into();
    report.goroutines[1].wait_reason = Some(attack.to_owned());
    report.findings = reports::race_leak().findings;
    for finding in &mut report.findings {
        finding.id = attack.to_owned().into();
        finding.summary = attack.to_owned();
        finding.remedy = attack.to_owned();
        finding.evidence.push(attack.to_owned());
        finding.references.push(attack.to_owned().into());
    }
    let page = page(&report);
    assert_eq!((page.matches("<script").count(), page.matches("<img").count()), (1, 0), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
}
