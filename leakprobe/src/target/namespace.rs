//! How a process in a PID namespace of its own, as in a container, is told from others.
//!
//! The kernel knows a process by one number in each PID namespace it can be seen from, and BPF programs are given the
//! one of the initial namespace, which nobody inside a container can learn. What both sides can know is the number
//! in the process's own, innermost namespace, with the namespace's device and inode
//! (`bpf_get_ns_current_pid_tgid`, Linux 5.7).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, CWD, Stat, major, minor, statat};

/// The kernel's own device numbers have the minor number in so many low bits (Linux `include/linux/kdev_t.h`).
const MINOR_BITS: u32 = 20;

/// A process by its number in its own PID namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NamespacedPid {
    /// Its number there.
    pub pid: u32,
    /// Which namespace that is; none for the initial one.
    pub namespace: Option<PidNamespace>,
}

/// A PID namespace other than the initial one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidNamespace {
    /// Device number of its file, as the kernel has it.
    pub dev: u64,
    /// The file's inode number.
    pub inode: u64,
}

impl PidNamespace {
    /// The initial namespace's inode number (Linux `include/linux/proc_ns.h`, `PROC_PID_INIT_INO`).
    pub const INITIAL_INODE: u64 = 0xEFFF_FFFC;

    /// That of a process by its folder in /proc; none for the initial one.
    ///
    /// # Errors
    /// Where it may not be seen: it takes what reading the process's memory takes.
    pub fn of(directory: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        Ok(Self::from_stat(&statat(directory, "ns/pid", AtFlags::empty())?))
    }

    fn from_stat(stat: &Stat) -> Option<Self> {
        let dev = u64::from(major(stat.st_dev)) << MINOR_BITS | u64::from(minor(stat.st_dev));
        (stat.st_ino != Self::INITIAL_INODE).then_some(Self { dev, inode: stat.st_ino })
    }
}

impl NamespacedPid {
    /// This very process.
    ///
    /// # Errors
    /// Where /proc is not mounted.
    pub fn ours() -> io::Result<Self> {
        let namespace = PidNamespace::from_stat(&statat(CWD, "/proc/self/ns/pid", AtFlags::empty())?);
        Ok(Self { pid: std::process::id(), namespace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_ourselves() {
        let ours = NamespacedPid::ours().unwrap();
        assert_eq!(ours.pid, std::process::id());
        let link = std::fs::read_link("/proc/self/ns/pid").unwrap();
        let inode = ours.namespace.map_or(PidNamespace::INITIAL_INODE, |namespace| namespace.inode);
        assert_eq!(link.to_str(), Some(format!("pid:[{inode}]").as_str()));
    }

    #[test]
    fn a_device_number_as_the_kernel_has_it() {
        let mut stat = statat(CWD, "/proc/self/ns/pid", AtFlags::empty()).unwrap();
        (stat.st_dev, stat.st_ino) = (rustix::fs::makedev(3, 0x12345), 7);
        assert_eq!(PidNamespace::from_stat(&stat), Some(PidNamespace { dev: 0x31_2345, inode: 7 }));
    }
}
