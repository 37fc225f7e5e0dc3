//! `/proc/PID/smaps`: the kernel's figures of each VMA.

use memchr::memchr;

use crate::target::maps::{self, Region};

/// A VMA and its figures, in bytes (Linux `Documentation/filesystems/proc.rst`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionUsage {
    /// The VMA.
    pub region: Region,
    /// Rss.
    pub rss_bytes: u64,
    /// Anonymous: of `rss_bytes`, not backed by a file (any more).
    pub anonymous_bytes: u64,
    /// LazyFree: of `rss_bytes`, given back with MADV_FREE and not taken yet.
    pub lazy_free_bytes: u64,
    /// AnonHugePages, ShmemPmdMapped and FilePmdMapped: of `rss_bytes`, mapped as huge pages.
    pub huge_bytes: u64,
    /// THPeligible: huge pages, of whatever size, may be mapped here.
    pub huge_eligible: bool,
    /// Swap.
    pub swap_bytes: u64,
    /// A hugetlb mapping, whose pages are in no RSS.
    pub hugetlb: bool,
    /// Private_Hugetlb and Shared_Hugetlb: what of it is in memory.
    pub hugetlb_bytes: u64,
    /// Private_Clean and Shared_Clean: of `rss_bytes`, unchanged since they were read.
    pub clean_bytes: u64,
    /// Locked: of `rss_bytes`, never swapped or dropped; of shared pages the process's share only.
    pub locked_bytes: u64,
    /// KSM: of `rss_bytes`, shared with pages of equal content; `None` where the kernel does not say.
    pub ksm_bytes: Option<u64>,
    /// A device's own memory, mapped (`VM_PFNMAP`): it has no pages that RSS could count.
    pub pfn_mapped: bool,
}

impl RegionUsage {
    /// A VMA of which nothing is resident.
    pub fn new(region: Region) -> Self {
        Self {
            region,
            rss_bytes: 0,
            anonymous_bytes: 0,
            lazy_free_bytes: 0,
            huge_bytes: 0,
            huge_eligible: false,
            swap_bytes: 0,
            hugetlb: false,
            hugetlb_bytes: 0,
            clean_bytes: 0,
            locked_bytes: 0,
            ksm_bytes: None,
            pfn_mapped: false,
        }
    }

    fn take(&mut self, name: &[u8], bytes: u64) {
        match name {
            b"Rss" => self.rss_bytes = bytes,
            b"Anonymous" => self.anonymous_bytes = bytes,
            b"LazyFree" => self.lazy_free_bytes = bytes,
            b"AnonHugePages" | b"ShmemPmdMapped" | b"FilePmdMapped" => self.huge_bytes += bytes,
            b"Swap" => self.swap_bytes = bytes,
            b"Private_Clean" | b"Shared_Clean" => self.clean_bytes += bytes,
            b"Private_Hugetlb" | b"Shared_Hugetlb" => self.hugetlb_bytes += bytes,
            b"Locked" => self.locked_bytes = bytes,
            b"KSM" => self.ksm_bytes = Some(bytes),
            b"KernelPageSize" => self.hugetlb = bytes > crate::address::PAGE_BYTES,
            _ => {}
        }
    }
}

/// Parses a piece of the text, whole records, and adds its VMAs to `usages`. Lines of unknown form or name are
/// passed over: kernels add some.
pub fn parse(text: &[u8], usages: &mut Vec<RegionUsage>) {
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(memchr(b'\n', rest).unwrap_or(rest.len()));
        rest = after.get(1..).unwrap_or_default();
        // A VMA's head line begins with its address, in small letters.
        if !line.first().is_some_and(u8::is_ascii_uppercase) {
            usages.extend(maps::parse_line(&String::from_utf8_lossy(line)).map(RegionUsage::new));
        } else if let Some(usage) = usages.last_mut() {
            take_line(usage, line);
        }
    }
}

/// Of a process with many VMAs there are millions of these lines, and most of them say 0.
fn take_line(usage: &mut RegionUsage, line: &[u8]) {
    if line.ends_with(b" 0 kB") && !line.starts_with(b"KSM:") {
        return;
    }
    if let Some(flags) = line.strip_prefix(b"VmFlags: ") {
        // Two letters each.
        usage.pfn_mapped = flags.chunks(3).any(|flag| flag.starts_with(b"pf"));
    } else if let Some(flag) = line.strip_prefix(b"THPeligible:") {
        usage.huge_eligible = flag.trim_ascii() == b"1";
    } else if let Some((name, bytes)) = parse_figure(line) {
        usage.take(name, bytes);
    }
}

/// "Rss:                 132 kB", in bytes.
fn parse_figure(line: &[u8]) -> Option<(&[u8], u64)> {
    let (name, figure) = line.split_at(line.iter().position(|byte| *byte == b':')?);
    let digits = figure.strip_suffix(b" kB")?.get(1..)?.trim_ascii_start();
    let kib = digits.iter().try_fold(0_u64, |kib, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        kib.checked_mul(10)?.checked_add(u64::from(digit))
    });
    Some((name, kib.filter(|_| !digits.is_empty())?.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "\
c000000000-c000400000 rw-p 00000000 00:00 0 
Size:               4096 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                1132 kB
Pss:                1132 kB
Shared_Clean:         12 kB
Private_Clean:         4 kB
Private_Dirty:      1116 kB
Anonymous:          1132 kB
KSM:                   8 kB
LazyFree:             64 kB
THPeligible:           1
AnonHugePages:         0 kB
Swap:                  8 kB
Locked:               16 kB
VmFlags: rd wr mr mw me ac sd 
7f0000000000-7f0000200000 rw-s 00000000 00:0f 7    /anon_hugepage (deleted)
KernelPageSize:     2048 kB
Rss:                   0 kB
Shared_Hugetlb:     2048 kB
Private_Hugetlb:    4096 kB
7f0000400000-7f0000500000 rw-s e0000000 00:05 9    /dev/gpu0
KernelPageSize:        4 kB
Rss:                   0 kB
VmFlags: rd wr sh mr mw me ms io pf de dd 
";

    #[test]
    fn figures_belong_to_the_line_above_them() {
        let mut usages = Vec::new();
        parse(SAMPLE.as_bytes(), &mut usages);
        assert_eq!(usages.len(), 3);
        assert_eq!((usages[0].rss_bytes, usages[0].lazy_free_bytes), (1132 << 10, 64 << 10));
        assert_eq!((usages[0].swap_bytes, usages[0].hugetlb), (8 << 10, false));
        assert_eq!((usages[0].clean_bytes, usages[0].locked_bytes), (16 << 10, 16 << 10));
        assert_eq!((usages[0].ksm_bytes, usages[1].ksm_bytes), (Some(8 << 10), None));
        assert_eq!((usages[1].hugetlb, usages[1].hugetlb_bytes), (true, 6 << 20));
        assert_eq!((usages[0].huge_eligible, usages[1].huge_eligible), (true, false));
        assert_eq!(usages.iter().map(|usage| usage.pfn_mapped).collect::<Vec<_>>(), [false, false, true]);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(text in "(.*\n){0,8}", bytes: Vec<u8>) {
            parse(text.as_bytes(), &mut Vec::new());
            parse(&bytes, &mut Vec::new());
        }
    }
}
