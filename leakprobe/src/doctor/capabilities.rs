//! Which capabilities leakprobe needs, and what for. Each was tried by taking away all the others, on 6.18
//! (tests/live/privileges.rs).

/// A capability, by its bit (Linux `include/uapi/linux/capability.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    bit: u32,
    /// As "CAP_BPF".
    pub name: &'static str,
}

/// Stood in for BPF, PERFMON and CHECKPOINT_RESTORE before they were split off (Linux 5.8 and 5.9), and still does.
const SYS_ADMIN: Capability = Capability { bit: 21, name: "CAP_SYS_ADMIN" };
const SYS_PTRACE: Capability = Capability { bit: 19, name: "CAP_SYS_PTRACE" };
const DAC_READ_SEARCH: Capability = Capability { bit: 2, name: "CAP_DAC_READ_SEARCH" };
const PERFMON: Capability = Capability { bit: 38, name: "CAP_PERFMON" };
const BPF: Capability = Capability { bit: 39, name: "CAP_BPF" };
const CHECKPOINT_RESTORE: Capability = Capability { bit: 40, name: "CAP_CHECKPOINT_RESTORE" };

/// What a capability is for.
pub struct Need {
    /// Which one.
    pub capability: Capability,
    /// What cannot be done without it.
    pub without: &'static str,
    /// Whether it stands in the way of a window, or of any report of a process of another user.
    pub is_essential: bool,
    is_in_sys_admin: bool,
}

/// All that leakprobe makes use of.
pub const NEEDS: [Need; 6] = [
    need(SYS_PTRACE, "other users' processes cannot be read", true),
    need(DAC_READ_SEARCH, "other users' files in /proc cannot be opened, nor tracefs", true),
    Need { is_in_sys_admin: true, ..need(BPF, "no probe can be loaded", true) },
    Need { is_in_sys_admin: true, ..need(PERFMON, "no probe can be attached", true) },
    Need {
        is_in_sys_admin: true,
        ..need(
            CHECKPOINT_RESTORE,
            "files that were deleted or replaced since cannot be read for names",
            false,
        )
    },
    need(SYS_ADMIN, "pages given back with MADV_FREE cannot be told from others", false),
];

const fn need(capability: Capability, without: &'static str, is_essential: bool) -> Need {
    Need { capability, without, is_essential, is_in_sys_admin: false }
}

impl Need {
    /// Whether a set of capabilities (`CapEff` of /proc/PID/status) meets it.
    pub fn is_met(&self, set: u64) -> bool {
        self.capability.is_in(set) || self.is_in_sys_admin && SYS_ADMIN.is_in(set)
    }
}

impl Capability {
    fn is_in(self, set: u64) -> bool {
        set >> self.bit & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_stands_in_for_what_was_split_off() {
        let unmet = |set: u64| NEEDS.iter().filter(|need| !need.is_met(set)).count();
        assert_eq!((unmet(0), unmet(u64::MAX)), (NEEDS.len(), 0));
        assert_eq!(unmet(1 << SYS_ADMIN.bit), 2);
        assert_eq!(unmet(!(1 << SYS_ADMIN.bit)), 1);
    }
}
