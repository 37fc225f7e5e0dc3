//! Writes the manual pages into a folder, from what the command line says of itself: for `cargo xtask dist`.

#![expect(unused_crate_dependencies, reason = "the library's, not this program's")]

use anyhow::{Context, Result};
use clap::CommandFactory as _;
use leakprobe::cli::CommandLine;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).context("give the folder of the manual pages")?;
    clap_mangen::generate_to(CommandLine::command(), &folder)
        .with_context(|| format!("write the manual pages to {}", folder.display()))
}
