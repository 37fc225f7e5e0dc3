//! `/proc/PID/mountinfo`: which file systems keep their files in memory.

use std::collections::BTreeSet;

/// File systems without a disk behind them: their pages go to swap or stay. ("devtmpfs" is one of them.)
const IN_MEMORY: [&str; 3] = ["tmpfs", "ramfs", "devtmpfs"];

/// Devices (major, minor) of such file systems, as /proc/PID/maps states them. Lines of another form are passed
/// over. (Linux `Documentation/filesystems/proc.rst`, section 3.5.)
pub fn in_memory(mountinfo: &str) -> BTreeSet<(u32, u32)> {
    let device = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let (major, minor) = mount.split(' ').nth(2)?.split_once(':')?;
        let is_in_memory = IN_MEMORY.contains(&file_system.split(' ').next()?);
        is_in_memory.then_some((major.parse().ok()?, minor.parse().ok()?))
    };
    mountinfo.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_file_systems_in_memory() {
        let text = "\
25 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
31 25 0:26 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=1k
32 25 0:27 / /a\\040b rw - tmpfs none rw
33 25 0:28 / /proc rw - proc proc rw
garbage
";
        assert_eq!(in_memory(text), BTreeSet::from([(0, 26), (0, 27)]));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "(.*\n){0,8}") {
            let _ = in_memory(&text);
        }
    }
}
