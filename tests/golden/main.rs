//! What the report looks like: finished reports in, text and JSON out, compared with `expect/`.
//!
//! `UPDATE_EXPECT=1 cargo test -p leakprobe-tests --test golden` writes the files anew; read the diff. The
//! findings are not made up: each report is diagnosed here as the pipeline does it.

mod comparison;
mod files;
mod formats;
mod goroutines;
mod heap;
mod malloc;
mod page;
mod parts;
mod reports;
mod sampled;
mod saved;
mod schema;
mod together;

use expect_test::{ExpectFile, expect_file};
use leakprobe::report::{self, Format, GoroutineTotals, Report, Style};
use unicode_width::UnicodeWidthStr as _;

fn plain(width_columns: usize) -> Style {
    Style { width_columns, color: false, full_stacks: false, top: None }
}

fn rendered(report: &Report, format: Format, style: &Style) -> String {
    let mut out = Vec::new();
    report::write(report, format, style, &mut out).expect("writing to memory does not fail");
    String::from_utf8(out).expect("reports are UTF-8")
}

/// Compares the report in this format with the file, and holds it to what every report must keep to.
#[track_caller]
fn check(report: &Report, format: Format, style: &Style, expected: ExpectFile) {
    let written = rendered(report, format, style);
    let is_newline_or_color = |character| character == '\n' || (style.color && character == '\x1b');
    let controls = |character: char| character.is_control() && !is_newline_or_color(character);
    assert!(!written.contains(controls), "a control character in:\n{written}");
    assert!(written.ends_with('\n') && !written.ends_with("\n\n"));
    if format == Format::Text && !style.color {
        for line in written.lines() {
            assert!(line.width() <= style.width_columns, "wider than the terminal: {line:?}");
            assert_eq!(line, line.trim_end(), "spaces at the end of a line");
        }
    }
    expected.assert_eq(&written);
}

#[track_caller]
fn check_text(report: &Report, width_columns: usize, expected: ExpectFile) {
    check(report, Format::Text, &plain(width_columns), expected);
}

#[test]
fn a_race_build_that_leaks() {
    let report = reports::race_leak();
    check_text(&report, 80, expect_file!["expect/race_80.txt"]);
    check_text(&report, 120, expect_file!["expect/race_120.txt"]);
    check_text(&report, 72, expect_file!["expect/race_72.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/race.json"]);
}

#[test]
fn a_race_build_with_full_stacks_and_colours() {
    let report = reports::race_leak();
    let full = Style { full_stacks: true, ..plain(100) };
    check(&report, Format::Text, &full, expect_file!["expect/race_full_stacks_100.txt"]);
    let color = Style { color: true, ..plain(80) };
    check(&report, Format::Text, &color, expect_file!["expect/race_color_80.txt"]);
}

#[test]
fn only_so_much_as_was_asked_for() {
    let top = Style { top: Some(2), ..plain(80) };
    check(&reports::race_leak(), Format::Text, &top, expect_file!["expect/race_top_2_80.txt"]);
}

#[test]
fn colours_change_no_letter() {
    let report = reports::race_leak();
    let colored = rendered(&report, Format::Text, &Style { color: true, ..plain(80) });
    let mut bare = String::new();
    for (index, part) in colored.split('\x1b').enumerate() {
        bare.push_str(if index == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) });
    }
    assert_eq!(bare, rendered(&report, Format::Text, &plain(80)));
}

#[test]
fn a_quiet_native_process() {
    check_text(&reports::quiet_native(), 80, expect_file!["expect/quiet_native_80.txt"]);
}

#[test]
fn a_native_process_that_leaks() {
    check_text(&reports::native_leak(), 80, expect_file!["expect/native_leak_80.txt"]);
}

#[test]
fn stacks_that_were_sampled() {
    let report = sampled::sampled();
    check_text(&report, 80, expect_file!["expect/sampled_80.txt"]);
    check_text(&report, 72, expect_file!["expect/sampled_72.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/sampled.json"]);
}

#[test]
fn an_owner_other_than_the_largest_grows() {
    check_text(&reports::cgo_leak(), 80, expect_file!["expect/cgo_leak_80.txt"]);
}

#[test]
fn little_growth_and_shrinking() {
    check_text(&reports::hardly_grows(), 80, expect_file!["expect/hardly_grows_80.txt"]);
    check_text(&reports::saw_tooth(), 80, expect_file!["expect/saw_tooth_80.txt"]);
    check_text(&reports::shrinks(), 80, expect_file!["expect/shrinks_80.txt"]);
}

#[test]
fn a_snapshot() {
    let report = reports::snapshot();
    check_text(&report, 80, expect_file!["expect/snapshot_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/snapshot.json"]);
}

#[test]
fn a_target_that_exits_in_the_window() {
    check_text(&reports::exited(), 80, expect_file!["expect/exited_80.txt"]);
}

#[test]
fn names_that_attack_the_terminal() {
    let report = reports::hostile();
    check_text(&report, 80, expect_file!["expect/hostile_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/hostile.json"]);
    // Escaped for the terminal, and for a parser still what it was.
    let json: serde_json::Value =
        serde_json::from_str(&rendered(&report, Format::Json, &plain(80))).expect("the JSON parses");
    assert_eq!(json["target"]["comm"], report.target.comm.as_str());
    assert_eq!(json["target"]["exe"], report.target.exe.as_str());
}

#[test]
fn a_ledger_that_does_not_balance() {
    check_text(&reports::residual(), 80, expect_file!["expect/residual_80.txt"]);
}

#[test]
fn freed_memory_that_malloc_keeps() {
    check_text(&malloc::retained(), 80, expect_file!["expect/retained_80.txt"]);
    check(&malloc::retained(), Format::Json, &plain(80), expect_file!["expect/retained.json"]);
}

#[test]
fn objects_by_class() {
    let mut report = malloc::objects();
    check_text(&report, 80, expect_file!["expect/objects_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/objects.json"]);
    let blocks = report.malloc.as_mut().expect("malloc is there");
    blocks.reused = Some(4096);
    let text = rendered(&report, Format::Text, &plain(80));
    assert!(!text.contains("reused"), "{text}");
}

#[test]
fn goroutines_many_and_few() {
    let mut report = goroutines::goroutine_leak();
    check_text(&report, 80, expect_file!["expect/goroutines_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/goroutines.json"]);
    report.goroutine_totals =
        report.goroutine_totals.map(|totals| GoroutineTotals { count: 12, stack_bytes: 96 << 10, ..totals });
    let few = rendered(&report, Format::Text, &plain(80));
    assert!(!few.contains("GOROUTINES") && few.contains(" 12 goroutines. "), "{few}");
}

#[test]
fn a_go_heap_that_leaks() {
    let report = heap::leak();
    check_text(&report, 80, expect_file!["expect/heap_leak_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/heap_leak.json"]);
    let full = Style { full_stacks: true, ..plain(100) };
    check(&report, Format::Text, &full, expect_file!["expect/heap_leak_full_stacks_100.txt"]);
}

#[test]
fn a_snapshot_of_a_go_heap() {
    check_text(&heap::snapshot(), 80, expect_file!["expect/heap_snapshot_80.txt"]);
}

#[test]
fn a_heap_whose_objects_are_not_all_resident() {
    let sentence = "the profile counts whole";
    let mut report = heap::snapshot();
    assert!(!rendered(&report, Format::Text, &plain(80)).contains(sentence));
    report.heap_profile.in_use = report.heap_profile.in_use.map(|bytes| bytes * 2);
    let text = rendered(&report, Format::Text, &plain(80));
    assert!(text.contains(sentence), "{text}");
}

#[test]
fn files_and_shared_memory_by_name() {
    let report = files::many();
    check_text(&report, 80, expect_file!["expect/files_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/files.json"]);
}

#[test]
fn much_that_is_not_known() {
    let report = reports::unknowns();
    check_text(&report, 80, expect_file!["expect/unknowns_80.txt"]);
    check(&report, Format::Json, &plain(80), expect_file!["expect/unknowns.json"]);
}

#[test]
fn the_first_three_lines_are_the_answer_however_long_the_name() {
    for mut report in reports::all() {
        report.target.comm = "kube-controller".to_owned();
        report.target.pid = 4_194_304;
        let text = rendered(&report, Format::Text, &plain(80));
        let lines: Vec<&str> = text.lines().take(3).collect();
        assert!(lines[0].starts_with("kube-controller (pid 4194304") && lines[0].ends_with('.'), "{text}");
        assert!(
            [" own", " make"].iter().any(|verb| lines[1].contains(verb)) && lines[1].ends_with('.'),
            "{text}"
        );
        assert!(lines[2].ends_with('.') || lines[2].contains("leakprobe"), "{text}");
    }
}

#[test]
fn the_rows_of_every_report_add_up() {
    for report in reports::all() {
        let rows: i64 = report.components.iter().map(|row| row.rss as i64).sum();
        assert_eq!(rows + report.residual, report.rss.end as i64, "{}", report.target.comm);
    }
}
