//! The checked-in table of Go's structures against the debug information that every installed Go writes, for amd64 and
//! arm64. `cargo xtask codegen` makes the same test write the table.
//!
//! The surprise: which versions are compared depends on which are installed; `cargo xtask setup` brings the one that
//! builds the workloads, and that one must be there.

mod toolchains;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use leakprobe::runtimes::go::image::Arch;
use leakprobe::runtimes::go::layout::candidates;
use leakprobe::runtimes::go::layout::dwarf::Types;
use leakprobe::runtimes::go::layout::fields::Places as _;
use leakprobe::runtimes::go::layout::table::{self, Row};
use leakprobe::runtimes::go::layout::{self, GoroutineLayout, Layout};
use leakprobe::target::build_info::{GoBuildInfo, GoVersion};
use leakprobe::target::elf::ElfFile;
use leakprobe_tests::places;

use toolchains::Toolchain;

const TABLE: &str = "leakprobe/src/runtimes/go/layout/table.txt";
/// Set by `cargo xtask codegen`.
const WRITE: &str = "LEAKPROBE_WRITE_LAYOUTS";

#[test]
fn the_table_is_what_debug_information_says() {
    let rows = measured_rows().unwrap();
    let path = places::repository().join(TABLE);
    let table = fs::read_to_string(&path).unwrap();
    let known = table::parse(&table).unwrap();
    if std::env::var_os(WRITE).is_some() {
        all_known_are_measured(&known, &rows).unwrap();
        fs::write(&path, table::render(&rows)).unwrap();
        return;
    }
    let missing = not_measured(&known, &rows);
    if !missing.is_empty() {
        // Not `eprintln!`: the harness would keep it to itself.
        let text = format!("Not compared, since they are not in the cache: Go {}\n", missing.join(", "));
        io::stderr().write_all(text.as_bytes()).unwrap();
    }
    for row in &rows {
        let version = row.versions[0];
        // A release that the table was not made from has the row of its neighbours.
        let expected = candidates::likely(&known, version).unwrap()[0];
        assert_eq!(expected.places, row.places, "Go {version}: run `cargo xtask codegen`");
    }
}

#[test]
fn every_measured_version_makes_whole_layouts() {
    for row in table::rows() {
        for arch in [Arch::Amd64, Arch::Arm64] {
            Layout::from_places(arch, &row.on(arch)).unwrap();
            GoroutineLayout::from_places(arch, &row.on(arch)).unwrap();
        }
    }
}

#[test]
fn the_table_reads_as_it_is_written() {
    let path = places::repository().join(TABLE);
    assert_eq!(table::render(&table::rows()), fs::read_to_string(path).unwrap());
}

#[test]
fn debug_information_reads_the_same_however_it_is_compressed() {
    let toolchain = toolchains::installed().unwrap().pop().unwrap();
    let plain = toolchain.program_uncompressed("amd64").unwrap();
    let expected = read(&toolchain.program("amd64").unwrap(), &toolchain).unwrap();
    assert!(expected.iter().filter(|(_, place)| place.is_some()).count() > 40, "{expected:?}");
    assert_eq!(read(&plain, &toolchain).unwrap(), expected);
    // As ELF has it, and as Go had it before 1.19: in sections called .zdebug_….
    for kind in ["zlib-gabi", "zlib-gnu"] {
        let compressed = plain.with_file_name(kind);
        let mut objcopy = Command::new("objcopy");
        objcopy.arg(format!("--compress-debug-sections={kind}")).arg(&plain).arg(&compressed);
        assert!(objcopy.status().unwrap().success());
        assert_eq!(read(&compressed, &toolchain).unwrap(), expected, "{kind}");
    }
}

/// What every installed Go says, ascending by version.
fn measured_rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for toolchain in toolchains::installed()? {
        let mut places: BTreeMap<String, [Option<u32>; 2]> = BTreeMap::new();
        for (index, arch) in ["amd64", "arm64"].into_iter().enumerate() {
            let program = toolchain.program(arch)?;
            for (path, place) in read(&program, &toolchain)? {
                places.entry(path).or_default()[index] = place;
            }
        }
        places.retain(|_, pair| *pair != [None; 2]);
        rows.push(Row { versions: vec![toolchain.version], places });
    }
    Ok(rows)
}

fn read(program: &Path, toolchain: &Toolchain) -> Result<Vec<(String, Option<u32>)>> {
    let elf = ElfFile::parse(File::open(program)?)?;
    let built_by = GoBuildInfo::read(&elf)?.and_then(|build| build.go_version());
    ensure!(built_by == Some(toolchain.version), "{} is of Go {built_by:?}", program.display());
    let paths = layout::paths();
    let types = Types::read(&elf, &paths)?.with_context(|| format!("no DWARF in {}", program.display()))?;
    Ok(paths.into_iter().map(|path| (path.to_owned(), types.place(path))).collect())
}

/// The releases that the table was made from and the cache does not have.
fn not_measured(known: &[Row], measured: &[Row]) -> Vec<String> {
    let is_measured = |version: &&GoVersion| measured.iter().any(|row| row.versions.contains(version));
    let known = known.iter().flat_map(|row| &row.versions);
    known.filter(|version| !is_measured(version)).map(ToString::to_string).collect()
}

/// Writing without one of the versions would lose it.
fn all_known_are_measured(known: &[Row], measured: &[Row]) -> Result<()> {
    let missing = not_measured(known, measured).join(", ");
    ensure!(missing.is_empty(), "Go {missing}: in the table and not in the cache, nothing written");
    Ok(())
}

#[test]
fn releases_that_are_not_in_the_cache_are_named() {
    let known = table::rows();
    assert!(not_measured(&known, &known).is_empty());
    assert_eq!(not_measured(&known, &known[1..]), ["1.19.8"]);
    assert!(all_known_are_measured(&known, &known[1..]).is_err());
}
