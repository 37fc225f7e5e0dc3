//! What was mapped past every allocator: anonymous memory, files, shared memory.

use super::{Confidence, Facts, Finding, Growth, is_percent_of, mib};
use crate::claim::Component;
use crate::diagnose::facts::Holding;

/// From here on copies are all that counts, and before [`SOME_PERCENT`] nothing.
const ALL_PERCENT: u64 = 90;
const SOME_PERCENT: u64 = 10;

const FIND_MUNMAP: &str = "Look at the call sites above: each mapping needs its munmap. Whether these are leaked or kept \
                           on purpose cannot be told yet.";

pub(super) fn go_growth(facts: &Facts<'_>) -> Option<Finding> {
    let rule = Growth {
        id: "go-mmap-growth",
        summary: "Go code maps memory past the runtime; no heap profile will ever show it.",
        confidence: Confidence::Possible,
        remedy: FIND_MUNMAP,
        references: &[],
    };
    rule.of(facts, Component::GoMmap)
}

pub(super) fn c_growth(facts: &Facts<'_>) -> Option<Finding> {
    let rule = Growth {
        id: "c-mmap-growth",
        summary: "Native code maps memory and fills it: no malloc and no Go profile sees it.",
        confidence: Confidence::Possible,
        remedy: FIND_MUNMAP,
        references: &[],
    };
    rule.of(facts, Component::CMmap)
}

pub(super) fn shmem_growth(facts: &Facts<'_>) -> Option<Finding> {
    let rule = Growth {
        id: "shmem-growth",
        summary: "Shared memory grows; it lives until it is deleted and everyone unmaps it.",
        confidence: Confidence::Likely,
        remedy: "Find who should delete it: memfd and tmpfs files (ls -l /proc/PID/fd, /dev/shm), System V \
                 segments (ipcs -m).",
        references: &[],
    };
    let mut finding = rule.of(facts, Component::Shmem)?;
    finding.evidence.extend(largest_file(facts, Component::Shmem));
    Some(finding)
}

/// Pages of files are the kernel's to take back, but for those that a private mapping has copied.
pub(super) fn file_backed(facts: &Facts<'_>) -> Option<Finding> {
    let row = facts.row(Component::FileMapped)?;
    if !facts.is_notable_growth(row.growth_bytes) && !facts.is_much(row.rss_bytes) {
        return None;
    }
    let copied = |percent| is_percent_of(row.copied_bytes, row.rss_bytes.max(1), percent);
    let (summary, remedy) = if copied(ALL_PERCENT) {
        (
            "These are private copies of file pages: only munmap gives them back.",
            "Unmap what is done, or map it shared if the changes should reach the file.",
        )
    } else if copied(SOME_PERCENT) {
        (
            "Pages of mapped files: the kernel takes them back, but for private copies.",
            "Unmap what is done and was written to, or map it shared if the changes should reach the file.",
        )
    } else {
        (
            "These are pages of mapped files: the kernel takes them back. No leak.",
            "Leave them be, unless they are written faster than the disk takes them. To see less RSS, read \
             the files instead of mapping them, or madvise(MADV_DONTNEED) what is done.",
        )
    };
    let mut evidence = vec!["the mappings name files that are not code".to_owned()];
    evidence.extend(largest_file(facts, Component::FileMapped));
    evidence.push(kinds_of_pages(row));
    Some(Finding {
        id: "file-backed".into(),
        owner: Component::FileMapped,
        bytes: row.rss_bytes,
        growth: row.growth_bytes,
        summary: summary.to_owned(),
        confidence: Confidence::Certain,
        evidence,
        remedy: remedy.to_owned(),
        references: Vec::new(),
    })
}

/// "20 MiB are as on disk, 4 MiB private copies, 3 MiB to be written back".
fn kinds_of_pages(row: &Holding<'_>) -> String {
    let to_write_bytes = row.rss_bytes.saturating_sub(row.reclaimable_bytes).saturating_sub(row.copied_bytes);
    let kinds = [
        (row.reclaimable_bytes, "as on disk"),
        (row.copied_bytes, "private copies"),
        (to_write_bytes, "to be written back first"),
    ];
    let kinds = kinds.into_iter().filter(|(bytes, _)| mib(*bytes) > 0);
    kinds.map(|(bytes, what)| format!("{} MiB {what}", mib(bytes))).collect::<Vec<_>>().join(", ")
}

/// "most is of /var/lib/db.idx".
fn largest_file(facts: &Facts<'_>, component: Component) -> Option<String> {
    facts.row(component)?.largest_file.map(|path| format!("most of it is {path}"))
}
