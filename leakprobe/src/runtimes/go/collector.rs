//! How Go's collector is set: `runtime.gcController`.
//!
//! Refuses values that the runtime never has. The surprise: the variable says what holds now; `debug.SetGCPercent` and
//! `debug.SetMemoryLimit` change it, while the environment still says what the program was started with.

use anyhow::{Context as _, Result, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::find::Global;
use super::metadata::Reader;
use crate::target::memory::Memory;

/// `gcControllerState.gcPercent`, 4 bytes: the first field (Go `src/runtime/mgcpacer.go`, 1.19.8 and 1.27.3).
const GC_PERCENT_OFFSET: u64 = 0;
/// `gcControllerState.memoryLimit`, the second one (likewise).
const MEMORY_LIMIT_OFFSET: u64 = 8;
/// `math.MaxInt64`, the limit that is none.
const NO_LIMIT_BYTES: u64 = i64::MAX as u64;

/// How Go's collector is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collector {
    /// GOGC: by how many percent the heap may grow between two collections; null where that is off.
    pub gc_percent: Option<u32>,
    /// GOMEMLIMIT, in bytes; null where there is none.
    pub memory_limit: Option<u64>,
}

/// Reads the settings.
///
/// # Errors
/// Where the variable was not found, cannot be read, or holds no settings.
pub(super) fn read(reader: &Reader<'_>) -> Result<Collector> {
    read_at(reader.memory, reader.globals.addr(Global::GcController)?)
}

/// Reads the settings of a collector at `addr`.
///
/// # Errors
/// Where nothing can be read there, or it is none.
pub(super) fn read_at(memory: &dyn Memory, addr: u64) -> Result<Collector> {
    settings(
        memory.read_u32(addr.wrapping_add(GC_PERCENT_OFFSET))?.cast_signed(),
        memory.read_u64(addr.wrapping_add(MEMORY_LIMIT_OFFSET))?,
    )
}

/// What the two fields mean.
///
/// # Errors
/// Where they hold what the runtime never has there.
fn settings(gc_percent: i32, limit_bytes: u64) -> Result<Collector> {
    // Off is -1 (`readGOGC`, and `setGCPercent` of anything below 0).
    ensure!(gc_percent >= -1, "GOGC of {gc_percent}");
    ensure!((1..=NO_LIMIT_BYTES).contains(&limit_bytes), "a memory limit of {limit_bytes:#x}");
    let gc_percent = (gc_percent >= 0).then(|| u32::try_from(gc_percent)).transpose();
    Ok(Collector {
        gc_percent: gc_percent.context("GOGC fits")?,
        memory_limit: Some(limit_bytes).filter(|bytes| *bytes < NO_LIMIT_BYTES),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_and_unlimited_are_none() {
        let set = |percent, limit| settings(percent, limit).ok().map(|it| (it.gc_percent, it.memory_limit));
        assert_eq!(set(100, NO_LIMIT_BYTES), Some((Some(100), None)));
        assert_eq!(set(-1, 1 << 30), Some((None, Some(1 << 30))));
        assert_eq!(set(0, 1 << 30), Some((Some(0), Some(1 << 30))));
        assert_eq!(set(-2, 1 << 30), None);
        assert_eq!(set(100, 0), None);
        assert_eq!(set(100, u64::MAX), None);
    }
}
