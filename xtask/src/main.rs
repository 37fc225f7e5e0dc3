//! `cargo xtask VERB`: set-up, demo, tests and benchmarks.
fn main() {}
