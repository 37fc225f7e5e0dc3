//! The rules that find the Go runtime's variables by the code of a program without symbols, tried on programs
//! that have symbols: both must name the same addresses. Needs Go; neither root nor leakprobe.
//!
//! Built by the newest Go; with LEAKPROBE_VERSIONS=all by every one, as `cargo xtask test --all` has it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use leakprobe::runtimes::go::find::{self, Global, Program};
use leakprobe::runtimes::go::image::Arch;
use leakprobe::runtimes::go::layout::{GoroutineLayout, Layout};
use leakprobe::runtimes::go::pclntab::Pclntab;
use leakprobe::target::build_info::GoBuildInfo;
use leakprobe::target::elf::ElfFile;
use leakprobe_tests::compile::{self, GoBuild, Kind, Symbols};
use leakprobe_tests::places;

const KINDS: [Kind; 6] = [Kind::Plain, Kind::Pie, Kind::Race, Kind::Cgo, Kind::Shared, Kind::Arm64];

type Addresses = BTreeMap<Global, u64>;

#[test]
fn code_names_the_variables_that_symbols_name() -> Result<()> {
    let mut differences = Vec::new();
    for version in versions() {
        for kind in KINDS {
            let build = GoBuild { version, kind, symbols: Symbols::Table };
            let program = compile::go_workload("go/heap_truth", build)?;
            let (by_symbol, by_code) = variables(&program).with_context(|| format!("read {build}"))?;
            ensure!(by_symbol.contains_key(&Global::Allgs), "{build} has no symbols");
            // The heap is found by its content.
            let wanted = by_symbol.iter().filter(|(global, _)| **global != Global::Mheap);
            let missed = wanted.filter(|(global, svma)| by_code.get(global) != Some(svma));
            let missed: Vec<String> = missed.map(|(global, svma)| told(*global, *svma, &by_code)).collect();
            println!("{build}: {} of {} variables missed", missed.len(), by_symbol.len() - 1);
            differences.extend(missed.into_iter().map(|missed| format!("{build}: {missed}")));
        }
    }
    ensure!(differences.is_empty(), "code and symbols differ:\n{}", differences.join("\n"));
    Ok(())
}

fn told(global: Global, svma: u64, by_code: &Addresses) -> String {
    let found = by_code.get(&global).map_or_else(|| "nowhere".to_owned(), |svma| format!("at {svma:#x}"));
    format!("{} is at {svma:#x} and was found {found}", global.symbol())
}

/// By the symbol table and by the code of a program.
fn variables(program: &Path) -> Result<(Addresses, Addresses)> {
    let elf = ElfFile::parse(File::open(program)?)?;
    let build = GoBuildInfo::read(&elf)?.context("it has no build record")?;
    let go_minor = build.go_minor().context("it has no version")?;
    let arch = Arch::of(&elf)?;
    let layout = Layout::for_version(go_minor, arch).context("its version is unknown")?;
    let goroutine_layout = GoroutineLayout::for_version(go_minor, arch).context("its version is unknown")?;
    let pclntab = Pclntab::parse(&elf, &build)?.context("it has no function table")?;
    let program = Program {
        elf: &elf,
        load_bias: 0,
        pclntab: Some(&pclntab),
        layout: &layout,
        goroutine_layout: &goroutine_layout,
    };
    let by_code = find::by_code(&program).into_iter().collect();
    Ok((find::symbols(&elf)?.into_iter().collect(), by_code))
}

fn versions() -> Vec<&'static str> {
    if places::all_versions() { places::GO_VERSIONS.to_vec() } else { vec![places::NEWEST_GO] }
}
