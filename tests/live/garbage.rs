//! Real programs, damaged: every reader ends, with what it could still read or with an error, however the
//! structures of the target contradict each other. The fuzzer (`fuzz/`) finds new damage; this does the same
//! each time.

use anyhow::{Result, ensure};
use leakprobe_tests::compile::{GoBuild, Kind, Symbols};
use leakprobe_tests::places::{NEWEST_GO, OLDEST_GO};
use leakprobe_tests::{Workload, places};

use crate::damage::{Image, fill};

const SCRIPTS: u64 = 400;

fn damaged_in_many_ways(build: GoBuild) -> Result<()> {
    let workload = Workload::start_built("go/cgo_malloc", build)?;
    let image = Image::record(workload.pid())?;
    drop(workload);
    ensure!(image.pages_count() > 50, "only {} pages were read of {build}", image.pages_count());
    let sound = image.read_all(&image.damaged(&[]));
    ensure!(sound > 10, "the sound image of {build} has {sound} claims");
    for seed in 0..SCRIPTS {
        // Few changes leave most readers something to go on; many leave none.
        let changes = [1, 3, 10, 100][(seed % 4) as usize];
        let mut script = vec![0; 1 + 13 * changes];
        fill(&mut script, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        image.read_all(&image.damaged(&script));
        if seed % 8 == 0 {
            image.find_and_read_all(&image.damaged(&script));
        }
    }
    Ok(())
}

#[test]
fn a_damaged_program_with_race_detector_and_c_is_read_to_an_end() -> Result<()> {
    damaged_in_many_ways(GoBuild { version: NEWEST_GO, kind: Kind::Race, symbols: Symbols::Dwarf })
}

#[test]
fn a_damaged_stripped_program_is_read_to_an_end() -> Result<()> {
    damaged_in_many_ways(GoBuild { version: OLDEST_GO, kind: Kind::Cgo, symbols: Symbols::Stripped })
}

/// What the fuzzer found once is mended for good.
#[test]
fn what_the_fuzzer_found_is_read_to_an_end() -> Result<()> {
    let build = GoBuild { version: NEWEST_GO, kind: Kind::Race, symbols: Symbols::Dwarf };
    let workload = Workload::start_built("go/cgo_malloc", build)?;
    let image = Image::record(workload.pid())?;
    drop(workload);
    for entry in std::fs::read_dir(places::repository().join("fuzz/found"))? {
        let script = std::fs::read(entry?.path())?;
        image.find_and_read_all(&image.damaged(&script));
        image.read_all(&image.damaged(&script));
    }
    Ok(())
}
