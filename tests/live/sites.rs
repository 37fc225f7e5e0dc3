//! What the call sites of a report say of a function.

use anyhow::{Result, ensure};
use serde_json::Value;

fn sites(report: &Value) -> impl Iterator<Item = &Value> {
    report["call_sites"].as_array().into_iter().flatten()
}

fn sum<'a>(sites: impl Iterator<Item = &'a Value>, field: &str) -> u64 {
    sites.filter_map(|site| site[field].as_u64()).sum()
}

/// Whether the function is on the call site's stack.
pub(crate) fn has_function(site: &Value, function: &str) -> bool {
    let mut frames = site["frames"].as_array().into_iter().flatten();
    frames.any(|frame| frame["function"] == function)
}

/// What stacks with this function hold, that became resident for this cause; `None` is a page fault.
pub(crate) fn bytes_of(report: &Value, function: &str, cause: Option<&str>) -> u64 {
    let is_meant = |site: &&Value| has_function(site, function) && site["cause"].as_str() == cause;
    sum(sites(report).filter(is_meant), "bytes")
}

/// What stacks of this source with this function hold.
pub(crate) fn bytes_from(report: &Value, source: &str, function: &str) -> u64 {
    let is_meant = |site: &&Value| site["source"] == source && has_function(site, function);
    sum(sites(report).filter(is_meant), "bytes")
}

/// At least 95 % of what was leaked is the function's.
pub(crate) fn are_of(report: &Value, function: &str, truth_bytes: u64) -> Result<()> {
    let bytes = bytes_of(report, function, None);
    ensure!(bytes * 100 >= truth_bytes * 95, "{function} has {bytes} of {truth_bytes} bytes");
    Ok(())
}

/// The bounds of all rows with this function, as if they were independent.
pub(crate) fn error_bytes_of(report: &Value, function: &str) -> Option<u64> {
    let errors = sites(report).filter(|site| has_function(site, function));
    let squares = errors.filter_map(|site| site["error_bytes"].as_f64()).map(|error| error * error);
    squares.reduce(|one, other| one + other).map(|squares| squares.sqrt().ceil() as u64)
}

/// What all call sites hold.
pub(crate) fn total_bytes(report: &Value) -> u64 {
    sum(sites(report), "bytes")
}
