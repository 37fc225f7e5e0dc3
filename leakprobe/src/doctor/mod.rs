//! `leakprobe doctor`: what this kernel, these privileges and this container allow, and what that costs the answer.
//!
//! [`facts`] reads and tries, [`judge`] says what it means; the latter is pure. Probes are tried on ourselves, as
//! they are before each window: what the kernel's version or its configuration says is not asked.

mod capabilities;
mod facts;
mod judge;

use anyhow::Result;

pub use self::facts::{Facts, ProcessAccess, Trial};
pub use self::judge::{judge, refused_by};
use crate::report::checkup::Checkup;

/// Tries everything out: the memory and files of all processes, or of the one that is meant.
///
/// # Errors
/// [`TargetError`](crate::target::TargetError) where there is no such process.
pub fn examine(pid: Option<i32>) -> Result<Checkup> {
    Ok(judge(&Facts::gather(pid)?))
}

/// After a refusal: what it may come from, in a line each. Nothing is tried.
pub fn likely_causes() -> Vec<String> {
    let checks = refused_by(&Facts::read());
    checks.into_iter().map(|check| format!("{}: {}", check.name, check.found)).collect()
}
