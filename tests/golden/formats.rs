//! The forms that other tools read: pprof, folded stacks, flame graphs, Prometheus' text.

use std::fmt::Write as _;
use std::io::Read as _;

use expect_test::{ExpectFile, expect_file};
use flate2::read::GzDecoder;
use leakprobe::claim::Component;
use leakprobe::report::pprof::proto::{Location, Profile, Sample};
use leakprobe::report::{self, Format, HeapProfile, Measure, Report};
use prost::Message as _;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::{files, heap, malloc, plain, rendered, reports};

fn folded(report: &Report, measure: Measure) -> String {
    rendered(report, Format::Folded(measure), &plain(80))
}

#[track_caller]
fn check_lines(written: &str, expected: ExpectFile) {
    let is_control = |character: char| character.is_control() && character != '\n';
    assert!(!written.contains(is_control), "a control character in:\n{written}");
    expected.assert_eq(written);
}

/// The profile as pprof would read it.
fn profile(report: &Report) -> Profile {
    let mut compressed = Vec::new();
    report::write(report, Format::Pprof, &plain(80), &mut compressed)
        .expect("writing to memory does not fail");
    let mut message = Vec::new();
    GzDecoder::new(compressed.as_slice()).read_to_end(&mut message).expect("the profile is compressed");
    Profile::decode(message.as_slice()).expect("the profile is one")
}

/// As `go tool pprof -raw` shows it, a sample a line.
fn raw(profile: &Profile) -> String {
    let text = |index: i64| profile.strings[usize::try_from(index).expect("an index")].as_str();
    let mut raw = String::new();
    for comment in &profile.comments {
        writeln!(raw, "# {}", text(*comment)).expect("strings grow");
    }
    let kinds: Vec<String> =
        profile.sample_types.iter().map(|kind| format!("{}/{}", text(kind.name), text(kind.unit))).collect();
    writeln!(raw, "{}, first {}", kinds.join(" "), text(profile.default_sample_type)).expect("strings grow");
    for mapping in &profile.mappings {
        writeln!(raw, "{}: {}", mapping.id, text(mapping.filename)).expect("strings grow");
    }
    let function = |id: u64| {
        let function = profile.functions.iter().find(|function| function.id == id).expect("it is listed");
        (text(function.name), text(function.filename))
    };
    let place = |location: &Location| {
        let lines = location.lines.iter().map(|line| match function(line.function_id) {
            (name, "") => name.to_owned(),
            (name, file) => format!("{name} {file}:{}", line.line),
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            format!("{:#x} of {}", location.address, location.mapping_id)
        } else {
            lines.join(" in ")
        }
    };
    for sample in &profile.samples {
        let values: Vec<String> = sample.values.iter().map(i64::to_string).collect();
        let label = &sample.labels[0];
        let owner = format!("{}={}", text(label.key), text(label.text));
        let places: Vec<String> =
            sample.location_ids.iter().map(|id| place(location(profile, *id))).collect();
        writeln!(raw, "{} [{owner}] {}", values.join(" "), places.join(" < ")).expect("strings grow");
    }
    raw
}

fn location(profile: &Profile, id: u64) -> &Location {
    profile.locations.iter().find(|location| location.id == id).expect("it is listed")
}

fn total(profile: &Profile, kind: &str) -> i64 {
    let is_meant = |name: i64| profile.strings[usize::try_from(name).expect("an index")] == kind;
    let index = profile.sample_types.iter().position(|it| is_meant(it.name)).expect("the profile has it");
    profile.samples.iter().map(|sample: &Sample| sample.values[index]).sum()
}

#[test]
fn profiles_for_pprof() {
    let check = |report: &Report, expected| check_lines(&raw(&profile(report)), expected);
    check(&reports::race_leak(), expect_file!["expect/race.pprof.txt"]);
    check(&heap::leak(), expect_file!["expect/heap_leak.pprof.txt"]);
    check(&files::many(), expect_file!["expect/files.pprof.txt"]);
    check(&malloc::retained(), expect_file!["expect/retained.pprof.txt"]);
    check(&reports::snapshot(), expect_file!["expect/snapshot.pprof.txt"]);
    check(&reports::hostile(), expect_file!["expect/hostile.pprof.txt"]);
}

#[test]
fn what_is_held_adds_up_to_rss_in_every_form() {
    for report in reports::all() {
        // Below zero it has no stack.
        let all = report.rss.end as i64 - report.residual.min(0);
        assert_eq!(total(&profile(&report), "inuse_space"), all, "{}", report.target.comm);
        let lines = folded(&report, Measure::Held);
        let bytes = |line: &str| line.rsplit_once(' ').and_then(|(_, bytes)| bytes.parse::<i64>().ok());
        let bytes = lines.lines().map(|line| bytes(line).expect("a line ends with its bytes")).sum::<i64>();
        assert_eq!(bytes, all, "{lines}");
    }
}

#[test]
fn what_grew_is_what_the_call_sites_say_or_more() {
    for report in reports::all().iter().filter(|report| report.rss.growth.is_some()) {
        let row = |id: Component| {
            let row = report.components.iter().find(|row| row.id == id);
            row.and_then(|row| row.growth).unwrap_or(0).max(0)
        };
        let sites = |id: Component| {
            let sites = report.call_sites.iter().filter(|site| site.component == id);
            sites.map(|site| site.bytes as i64).sum::<i64>()
        };
        let expected: i64 = Component::ALL.into_iter().map(|id| sites(id).max(row(id))).sum();
        assert_eq!(total(&profile(report), "growth_space"), expected, "{}", report.target.comm);
    }
}

#[test]
fn a_profile_of_more_than_is_resident_is_shared_out() {
    let mut report = heap::leak();
    let in_use = report.heap_profile.in_use.map(|bytes| bytes * 3);
    let mut sites = report.heap_profile.sites.clone();
    for site in &mut sites {
        site.bytes *= 3;
    }
    report.heap_profile = HeapProfile { in_use, sites, ..report.heap_profile };
    assert_eq!(total(&profile(&report), "inuse_space"), report.rss.end as i64);
    check_lines(&folded(&report, Measure::Held), expect_file!["expect/heap_shared_out.folded"]);
}

#[test]
fn folded_stacks() {
    check_lines(&folded(&reports::race_leak(), Measure::Growth), expect_file!["expect/race_growth.folded"]);
    check_lines(&folded(&reports::race_leak(), Measure::Held), expect_file!["expect/race_held.folded"]);
    check_lines(&folded(&heap::leak(), Measure::Held), expect_file!["expect/heap_leak_held.folded"]);
    check_lines(&folded(&files::many(), Measure::Held), expect_file!["expect/files_held.folded"]);
    check_lines(&folded(&reports::hostile(), Measure::Growth), expect_file!["expect/hostile_growth.folded"]);
    assert_eq!(folded(&reports::snapshot(), Measure::Growth), "");
}

#[test]
fn growth_comes_first_where_there_is_any() {
    assert_eq!(Measure::usual(&reports::race_leak()), Measure::Growth);
    assert_eq!(Measure::usual(&reports::snapshot()), Measure::Held);
    assert_eq!(Measure::usual(&reports::quiet_native()), Measure::Held);
}

/// The texts of a picture, and whether it is XML.
fn texts(svg: &str) -> Vec<String> {
    let mut reader = Reader::from_str(svg);
    let mut texts = vec![String::new()];
    let mut elements = 0;
    loop {
        match reader.read_event().expect("the picture is XML") {
            Event::Start(_) | Event::End(_) | Event::Empty(_) => {
                elements += 1;
                texts.push(String::new());
            }
            Event::Text(text) => {
                let last = texts.last_mut().expect("there is one");
                last.push_str(&text.decode().expect("the picture is UTF-8"));
            }
            Event::GeneralRef(entity) => {
                let last = texts.last_mut().expect("there is one");
                write!(last, "&{};", entity.decode().expect("the picture is UTF-8")).expect("strings grow");
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert!(elements > 10, "an empty picture");
    texts.retain(|text| !text.trim().is_empty());
    texts
}

#[test]
fn flame_graphs() {
    let svg = |report: &Report, measure| rendered(report, Format::Svg(measure), &plain(80));
    // The style sheet and the script are inferno's; the texts are ours.
    let ours = |svg: &str| {
        let texts = texts(svg).into_iter().filter(|text| !text.contains("font-family"));
        texts.map(|text| text + "\n").collect::<String>()
    };
    let race = svg(&reports::race_leak(), Measure::Growth);
    check_lines(&ours(&race), expect_file!["expect/race.svg.txt"]);
    let hostile = svg(&reports::hostile(), Measure::Growth);
    check_lines(&ours(&hostile), expect_file!["expect/hostile.svg.txt"]);
    let mut attacked = reports::hostile();
    attacked.target.comm = "</text><script>alert(1)</script>".to_owned();
    attacked.call_sites[0].frames[2].function = Some("a\"/><script>alert(2)</script><!--]]>".to_owned());
    let scripts = |svg: &str| svg.matches("<script").count();
    let attacked = svg(&attacked, Measure::Growth);
    assert_eq!((scripts(&attacked), texts(&attacked).len() > 10), (scripts(&race), true));
    let nothing = svg(&reports::snapshot(), Measure::Growth);
    assert!(nothing.contains("(nothing)"), "{nothing}");
}

#[test]
fn metrics() {
    let prometheus = |report: &Report| rendered(report, Format::Prometheus, &plain(80));
    check_lines(&prometheus(&reports::race_leak()), expect_file!["expect/race.prom"]);
    check_lines(&prometheus(&reports::hostile()), expect_file!["expect/hostile.prom"]);
    check_lines(&prometheus(&reports::unknowns()), expect_file!["expect/unknowns.prom"]);
}

#[test]
fn no_metric_is_written_twice() {
    let mut report = reports::race_leak();
    report.components.extend(report.components.clone());
    report.findings.extend(report.findings.clone());
    let written = rendered(&report, Format::Prometheus, &plain(80));
    let mut names: Vec<&str> = written.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{written}");
}
