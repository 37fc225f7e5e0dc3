//! What can be said of a process that ended in the window: its memory is gone, and with it every figure
//! of the kernel's, but what it had at the start and touched since is known.

use rangemap::RangeSet;

use crate::address::{AddrRange, PAGE_BYTES};
use crate::claim::Gap;
use crate::snapshot::{PageRun, RegionUsage, Residency, Snapshot};
use crate::target::Status;
use crate::target::maps::Region;
use crate::trace::recording::{Mapping, Recording};

/// `MAP_SHARED` or `MAP_SHARED_VALIDATE` (include/uapi/linux/mman.h).
const SHARED_FLAGS: u64 = 0x01;
const ANONYMOUS_FLAG: u64 = 0x20;

/// The snapshot at the start, with every page touched since and not given back.
pub fn snapshot(start: &Snapshot, recording: &Recording) -> Snapshot {
    let old: RangeSet<u64> = start
        .runs
        .iter()
        .filter(|run| run.residency != Residency::Swapped)
        .map(|run| run.range.start_addr..run.range.end_addr)
        .collect();
    let mut usages = start.usages.clone();
    let mut covered: RangeSet<u64> =
        usages.iter().map(|usage| usage.region.range.start_addr..usage.region.range.end_addr).collect();
    for (range, mapping) in recording.mappings() {
        add_mapping(&mut usages, &mut covered, range, mapping);
    }
    usages.sort_by_key(|usage| usage.region.range);
    let mut runs = start.runs.clone();
    for addr in recording.pages().filter(|addr| !old.contains(addr)) {
        let index = usages.partition_point(|usage| usage.region.range.end_addr <= addr);
        let Some(usage) = usages.get_mut(index).filter(|usage| usage.region.range.contains(addr)) else {
            continue; // touched without being mapped: the fault failed
        };
        usage.rss_bytes += PAGE_BYTES;
        runs.push(PageRun {
            range: AddrRange { start_addr: addr, end_addr: addr + PAGE_BYTES },
            residency: Residency::Resident,
        });
    }
    runs.sort_by_key(|run| run.range);
    // What the kernel counted then is no check on this.
    let counted =
        Status { rss_bytes: None, anon_bytes: None, file_bytes: None, shmem_bytes: None, ..start.status };
    Snapshot { usages, runs, status: counted, threads: start.threads.clone(), ..Snapshot::default() }
}

/// What the report says of such a snapshot.
pub fn gap() -> Gap {
    Gap {
        what: "resident memory at the end".to_owned(),
        why: "the process ended first; shown is what it had at the start and touched since, and what it gave back of the former is not known".to_owned(),
        bytes: None,
    }
}

/// Adds the parts of a new mapping that no known VMA covers.
fn add_mapping(
    usages: &mut Vec<RegionUsage>,
    covered: &mut RangeSet<u64>,
    range: AddrRange,
    mapping: &Mapping,
) {
    let span = range.start_addr..range.end_addr;
    let new: Vec<_> = covered.gaps(&span).collect();
    covered.insert(span);
    for part in new {
        let Some(range) = AddrRange::new(part.start, part.end) else { continue };
        let is_file = mapping.flags & ANONYMOUS_FLAG == 0 && mapping.flags != 0;
        usages.push(RegionUsage::new(Region {
            range,
            readable: true,
            writable: true,
            executable: false,
            shared: mapping.flags & SHARED_FLAGS != 0,
            file_offset: 0,
            device: (0, 0),
            inode: u64::from(is_file), // which file, nobody can tell any more
            name: String::new(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::decode::{Access, Event, What};

    #[test]
    fn touched_pages_of_new_mappings_are_added_and_failed_faults_are_not() {
        let mut recording = Recording::new(0, None);
        let event = |what| Event { what, time_ns: 5, entered_ns: 4, stack_weight: 0, stack: None };
        let range = AddrRange::new(0x10_0000, 0x20_0000).unwrap();
        recording.take(&event(What::Map { range, protection: 3, flags: 0x22 }), None);
        for addr in [0x10_0000, 0x10_1000, 0xdead_0000] {
            recording.take(&event(What::Fault { addr, by_kernel: false, access: Access::default() }), None);
        }
        let last = snapshot(&Snapshot::default(), &recording);
        assert_eq!(last.rss_bytes(), 2 * PAGE_BYTES);
        assert!(last.usages[0].region.is_private_anonymous());
    }
}
