//! A process whose memory is mostly files, shared memory and variables.

use leakprobe::attribute::mappings::Backing;
use leakprobe::claim::{Component, Evidence};
use leakprobe::report::{FileRow, OutsideRss, PartRow, Report, VariableRow};

use crate::parts::{KIB, MIB, base, native, outside, row, settle, thread};

/// A database with a large executable.
pub fn many() -> Report {
    let mut report = base("searchd", "/opt/search/bin/searchd", native());
    let mut exe = row(Component::FileExe, 61 * MIB, Some(0), Evidence::Mapping);
    exe.parts = vec![part("text", 14 * MIB, 0), part("data", MIB, 0), part("bss", 46 * MIB, 0)];
    exe.variables = vec![variable("word_table", 37 * MIB), variable("_ZN6search5cacheE", 8 * MIB)];
    exe.reclaimable = 14 * MIB;
    let mut mapped = row(Component::FileMapped, 140 * MIB, Some(24 * MIB as i64), Evidence::Mapping);
    mapped.files = vec![
        FileRow {
            growth: Some(24 * MIB as i64),
            ..file("/srv/search/index/2026/segment-000017.idx", 96 * MIB)
        },
        FileRow { deleted: true, copied: 3 * MIB, ..file("/srv/old\u{1b}[2J.idx", 40 * MIB) },
        file("/usr/lib/locale/locale-archive", 4 * MIB),
    ];
    mapped.reclaimable = 137 * MIB;
    let mut shared = row(Component::Shmem, 90 * MIB, Some(0), Evidence::Mapping);
    shared.files = vec![
        FileRow { kind: Some(Backing::Memfd), deleted: true, mappings: 12, ..file("/memfd:ring", 60 * MIB) },
        FileRow { kind: Some(Backing::Anonymous), deleted: true, ..file("/dev/zero", 30 * MIB) },
    ];
    let mut stacks = row(Component::ThreadStacks, 900 * KIB, Some(0), Evidence::Structure);
    stacks.parts = vec![part("living", 800 * KIB, 0), part("exited", 100 * KIB, 0)];
    report.components =
        vec![exe, mapped, shared, stacks, row(Component::CHeapInUse, 7 * MIB, Some(0), Evidence::Structure)];
    report.threads = vec![thread(12345, "searchd", Some(132 * KIB)), thread(12346, "merge", Some(668 * KIB))];
    settle(&mut report);
    report.rss.reclaimable = 151 * MIB;
    report.rss.locked = 64 * MIB;
    report.rss.ksm = Some(0);
    report.outside_rss = OutsideRss { hugetlb: Some(32 * MIB), ..outside(341 * MIB, Some(512 * MIB)) };
    report
}

fn part(what: &'static str, rss: u64, growth: i64) -> PartRow {
    PartRow { what: what.into(), rss, growth: Some(growth) }
}

fn variable(name: &str, rss: u64) -> VariableRow {
    let path = "/opt/search/bin/searchd".to_owned();
    VariableRow { name: Some(name.to_owned()), path, size: rss, rss }
}

fn file(path: &str, rss: u64) -> FileRow {
    FileRow {
        path: Some(path.to_owned()),
        kind: Some(Backing::File),
        files: 1,
        mappings: 1,
        rss,
        growth: Some(0),
        copied: 0,
        reclaimable: rss,
        deleted: false,
        shared: true,
    }
}
