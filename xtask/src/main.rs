//! `cargo xtask VERB`: set-up, demo, tests and benchmarks, one module a verb.
//!
//! Every verb can be called on a fresh clone: each first brings what it needs.

#![expect(clippy::print_stdout, reason = "this program talks to the person who typed the verb")]

mod bench;
mod bless;
mod codegen;
mod command;
mod demo;
mod dist;
mod fuzz;
mod image;
mod pictures;
mod setup;
mod test;
mod tidy;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use setup::Releases;

/// Set-up, demo, tests and benchmarks of leakprobe.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building and testing need and this machine lacks
    Setup {
        /// For `test --all` too: every release of Go that the tables are measured on
        #[arg(long)]
        all: bool,
    },
    /// Watch a real Go service with the race detector, and see who owns its memory
    Demo {
        /// Leave the service running after the report, until Enter
        #[arg(long)]
        keep: bool,
    },
    /// Check and test everything (needs root)
    Test {
        /// The wide matrices too; writes the tables in docs/
        #[arg(long)]
        all: bool,
        /// Go on after a step that failed
        #[arg(long)]
        keep_going: bool,
    },
    /// Run live tests on other kernels, in QEMU, after the host (needs root)
    Vm {
        /// This kernel, as 5.10; may be given several times; all, if it is not given
        #[arg(long)]
        kernel: Vec<String>,
        /// With this backend, as leakprobe's --backend; the one that leakprobe chooses, if it is not given
        #[arg(long)]
        backend: Vec<String>,
        /// Every test with every backend that a kernel has; writes the table in docs/kernels.md
        #[arg(long)]
        all: bool,
        /// Tests with one of these in their names; a selection, if there is none
        filter: Vec<String>,
    },
    /// Make a container image of the static program, and try it in a container (needs root)
    Image,
    /// Damage what leakprobe reads in every way libFuzzer can think of (needs root and g++)
    Fuzz {
        /// For how long
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        minutes: u64,
    },
    /// Measure programs that nobody here wrote, and write their table in docs/ (needs root)
    Ordinary,
    /// Check the rules of the house that no compiler knows
    Tidy,
    /// Take today's output as what the golden tests expect
    Bless,
    /// Write the table of where Go's structures have their fields, from every Go that is here
    Codegen {
        /// Change nothing, and fail where the table is not what they say
        #[arg(long)]
        check: bool,
    },
    /// Make the README's pictures anew from the demo (needs root and Chromium)
    Pictures {
        /// From this saved report instead
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Build what is handed to others: a static program, an archive, a Debian package
    Dist,
    /// Measure what being watched costs, beside perf and bpftrace (needs root)
    Bench {
        /// How often each side is measured, in alternation
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Measure this and nothing else
        #[arg(value_enum)]
        only: Option<bench::Part>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup { all } => setup::run(if all { Releases::All } else { Releases::Corners }),
        Verb::Demo { keep } => demo::run(keep),
        Verb::Test { all, keep_going } => test::run(all, keep_going),
        Verb::Vm { kernel, backend, all, filter } => {
            vm::run(&vm::Wanted { kernels: kernel, backends: backend, all, filter })
        }
        Verb::Image => image::run(),
        Verb::Fuzz { minutes } => fuzz::run(minutes),
        Verb::Ordinary => test::ordinary(),
        Verb::Tidy => tidy::run(),
        Verb::Bless => bless::run(),
        Verb::Codegen { check: true } => codegen::check(),
        Verb::Codegen { check: false } => codegen::write(),
        Verb::Pictures { report } => pictures::run(report.as_deref()),
        Verb::Dist => dist::run(),
        Verb::Bench { rounds, only } => bench::run(rounds, only),
    }
}

#[cfg(test)]
mod tests {
    use leakprobe_tests::command_lines;

    use super::*;

    #[test]
    fn the_documents_name_only_verbs_that_there_are() {
        for command in command_lines::commands(&["cargo", "xtask"]).unwrap() {
            if let Err(error) = Arguments::try_parse_from(&command.words[1..]) {
                panic!("{}: {error}", command.place);
            }
        }
    }
}
