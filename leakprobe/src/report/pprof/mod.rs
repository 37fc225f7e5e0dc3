//! A profile for `go tool pprof`: what is held, in bytes and objects, and what grew.
//!
//! `inuse_space` adds up to RSS, with the owner as outermost step and as label `component`. Names and lines are in the
//! profile: pprof need not find the program. The surprise: `inuse_objects` counts only where something counted, the Go
//! heap's profile and malloc's blocks; pprof has no word for unknown.

pub mod proto;
mod tables;

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use self::proto::{Profile, ValueType};
use self::tables::Tables;
use super::Report;
use super::escape::printable;
use super::stacks::samples;

/// Writes the profile, compressed as pprof wants it.
pub fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let mut compressed = GzEncoder::new(out, Compression::default());
    compressed.write_all(&profile(report).encode_to_vec())?;
    compressed.finish()?.flush()
}

/// The report as a profile. What grew is in it where it is known.
fn profile(report: &Report) -> Profile {
    let mut tables = Tables::new();
    // pprof takes the first file for the program.
    tables.mapping(&report.target.exe);
    let has_growth = report.rss.growth.is_some();
    let mut kinds = vec![("inuse_objects", "count"), ("inuse_space", "bytes")];
    kinds.extend(has_growth.then_some(("growth_space", "bytes")));
    let sample_types =
        kinds.iter().map(|(name, unit)| ValueType { name: tables.text(name), unit: tables.text(unit) });
    let sample_types = sample_types.collect();
    let samples = samples(report).iter().map(|sample| tables.sample(sample, has_growth)).collect();
    let comments = comments(report).iter().map(|comment| tables.text(&printable(comment))).collect();
    let default_sample_type = tables.text("inuse_space");
    Profile {
        sample_types,
        samples,
        time_nanos: started_nanos(report),
        duration_nanos: (report.window.seconds * 1e9) as i64,
        comments,
        default_sample_type,
        mappings: tables.mappings(),
        locations: tables.locations(),
        functions: tables.functions(),
        strings: tables.strings(),
    }
}

fn comments(report: &Report) -> [String; 3] {
    let target = &report.target;
    [
        format!("leakprobe {} on {} (pid {}), {}", report.tool.version, target.comm, target.pid, target.exe),
        "inuse_space: resident bytes, which add up to RSS; inuse_objects: objects of Go's heap profile and blocks of \
         malloc; growth_space: resident at the end of the window and not at its start"
            .to_owned(),
        format!("RSS {} bytes, residual {} bytes", report.rss.end, report.residual),
    ]
}

/// 0 where the report does not say: pprof shows no time then.
fn started_nanos(report: &Report) -> i64 {
    let time = humantime::parse_rfc3339_weak(&report.window.started_at).ok();
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    i64::try_from(since.unwrap_or(Duration::ZERO).as_nanos()).unwrap_or(0)
}
