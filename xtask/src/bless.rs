//! `cargo xtask bless`: today's output becomes what the golden tests expect. The difference is for a
//! person to read in `git diff`, which is the whole point of golden tests.

use anyhow::Result;

use crate::command::{cargo, in_the_open};

/// The golden tests, in check or in blessing.
pub(crate) const GOLDEN: [&str; 6] = ["test", "--quiet", "--package", "leakprobe-tests", "--test", "golden"];

pub(crate) fn run() -> Result<()> {
    let mut golden = cargo(&GOLDEN);
    golden.env("UPDATE_EXPECT", "1");
    in_the_open(golden)?;
    println!("Blessed. Read `git diff` before you commit it.");
    Ok(())
}
