//! Where the fields of a goroutine, `runtime.g`, lie, by Go version.
//!
//! Taken from the DWARF of programs built by Go 1.19.8, 1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6
//! and 1.27.3 for linux/amd64 and linux/arm64, which do not differ in them. As with [`super::layout`], 1.20
//! and what is newer than the table get the nearest row, and each goroutine read by it has to prove itself.

use super::image::Arch;

/// `g.stack`: lowest address, and the one after the highest.
pub const STACK_OFFSET: usize = 0;
/// `g.sched`, a `gobuf`.
pub const SCHED_OFFSET: usize = 56;
/// `gobuf.sp`.
pub const GOBUF_SP_OFFSET: usize = 0;
/// `gobuf.pc`.
pub const GOBUF_PC_OFFSET: usize = 8;

/// The fields that moved between versions. All are offsets in `g` in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoroutineLayout {
    /// Which registers a stack is left by.
    pub arch: Arch,
    /// `g.sched.lr`.
    pub lr_offset: usize,
    /// `g.sched.bp`.
    pub bp_offset: usize,
    /// `g.syscallsp`; `syscallpc` follows.
    pub syscallsp_offset: usize,
    /// `g.syscallbp`, since Go 1.23.
    pub syscallbp_offset: Option<usize>,
    /// `g.atomicstatus`.
    pub status_offset: usize,
    /// `g.waitsince`.
    pub waitsince_offset: usize,
    /// `g.waitreason`.
    pub waitreason_offset: usize,
    /// `g.gopc`: the `go` statement it came from.
    pub gopc_offset: usize,
    /// `g.startpc`: its function.
    pub startpc_offset: usize,
}

impl GoroutineLayout {
    /// The row for Go 1.`minor`, or the nearest one; `None` before 1.19.
    pub fn for_version(minor: u32, arch: Arch) -> Option<Self> {
        let row = match minor {
            ..=18 => return None,
            19 => GO_1_19,
            20..=22 => GO_1_21,
            23..=24 => GO_1_23,
            25 => GO_1_25,
            26.. => GO_1_26,
        };
        Some(Self { arch, ..row })
    }

    /// How much of a goroutine is read: up to the last field that is used.
    pub fn read_bytes(&self) -> usize {
        self.startpc_offset + 8
    }
}

const GO_1_19: GoroutineLayout = GoroutineLayout { gopc_offset: 296, startpc_offset: 312, ..GO_1_21 };

const GO_1_21: GoroutineLayout = GoroutineLayout {
    arch: Arch::Amd64,
    lr_offset: SCHED_OFFSET + 40,
    bp_offset: SCHED_OFFSET + 48,
    syscallsp_offset: 112,
    syscallbp_offset: None,
    status_offset: 144,
    waitsince_offset: 168,
    waitreason_offset: 176,
    gopc_offset: 280,
    startpc_offset: 296,
};

/// Go 1.23 added `syscallbp`.
const GO_1_23: GoroutineLayout = GoroutineLayout {
    syscallbp_offset: Some(128),
    status_offset: 152,
    waitsince_offset: 176,
    waitreason_offset: 184,
    gopc_offset: 288,
    startpc_offset: 304,
    ..GO_1_21
};

/// Go 1.25 took `ret` out of `gobuf`.
const GO_1_25: GoroutineLayout = GoroutineLayout {
    lr_offset: SCHED_OFFSET + 32,
    bp_offset: SCHED_OFFSET + 40,
    syscallsp_offset: 104,
    syscallbp_offset: Some(120),
    ..GO_1_21
};

const GO_1_26: GoroutineLayout = GoroutineLayout { gopc_offset: 288, startpc_offset: 304, ..GO_1_25 };

#[cfg(test)]
mod tests {
    use super::*;

    /// What DWARF says: sched.bp, syscallsp, atomicstatus, waitsince, waitreason, gopc, startpc.
    const DWARF: [(u32, [usize; 7]); 8] = [
        (19, [104, 112, 144, 168, 176, 296, 312]),
        (21, [104, 112, 144, 168, 176, 280, 296]),
        (22, [104, 112, 144, 168, 176, 280, 296]),
        (23, [104, 112, 152, 176, 184, 288, 304]),
        (24, [104, 112, 152, 176, 184, 288, 304]),
        (25, [96, 104, 144, 168, 176, 280, 296]),
        (26, [96, 104, 144, 168, 176, 288, 304]),
        (27, [96, 104, 144, 168, 176, 288, 304]),
    ];

    #[test]
    fn rows_are_those_of_the_debug_information() {
        for (minor, offsets) in DWARF {
            let row = GoroutineLayout::for_version(minor, Arch::Arm64).unwrap();
            let read = [
                row.bp_offset,
                row.syscallsp_offset,
                row.status_offset,
                row.waitsince_offset,
                row.waitreason_offset,
                row.gopc_offset,
                row.startpc_offset,
            ];
            assert_eq!(read, offsets, "1.{minor}");
            assert_eq!(row.lr_offset + 8, row.bp_offset, "1.{minor}");
            assert_eq!(row.syscallbp_offset.is_some(), minor >= 23, "1.{minor}");
        }
        assert_eq!(GoroutineLayout::for_version(18, Arch::Amd64), None);
    }

    #[test]
    fn other_versions_get_the_nearest_row() {
        let row = |minor| GoroutineLayout::for_version(minor, Arch::Amd64);
        assert_eq!((row(20), row(40)), (row(21), row(27)));
    }
}
