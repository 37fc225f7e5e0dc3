//! `cargo xtask codegen`: writes the table of where the Go runtime's structures have their fields, from the debug
//! information of a program built with every Go that is installed.
//!
//! A test compares the same way (`tests/layouts`), and this verb only tells it to write; without a version that the
//! table was made from it refuses.

use anyhow::Result;

use crate::command::{cargo, in_the_open};

const LAYOUTS: [&str; 6] = ["test", "--quiet", "--package", "leakprobe-tests", "--test", "layouts"];

/// Compares the table with every Go that is installed.
pub(crate) fn check() -> Result<()> {
    in_the_open(cargo(&LAYOUTS))
}

/// Writes it.
pub(crate) fn write() -> Result<()> {
    let mut test = cargo(&LAYOUTS);
    test.env("LEAKPROBE_WRITE_LAYOUTS", "1");
    in_the_open(test)?;
    println!("Written. Read the diff before you commit it.");
    Ok(())
}
