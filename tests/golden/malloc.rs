//! Reports of C programs whose blocks are what matters.

use leakprobe::claim::{Component, Evidence};
use leakprobe::report::{Blocks, BlocksGrowth, Malloc, Report, SizeClass};

use crate::parts::{MIB, base, native, row, settle};

/// A server after its peak: most of what it had is freed and with malloc.
pub fn retained() -> Report {
    let mut report = base("ingestd", "/opt/ingest/bin/ingestd", native());
    report.components = vec![
        row(Component::CHeapFree, 290 * MIB, Some(0), Evidence::Structure),
        row(Component::CHeapInUse, 7 * MIB, Some(0), Evidence::Structure),
        row(Component::FileLibs, 2 * MIB, Some(0), Evidence::Mapping),
    ];
    for malloc_row in &mut report.components[..2] {
        malloc_row.allocator = Some("glibc 2.36".to_owned());
    }
    report.components[1].slack = Some(2 * MIB);
    let blocks = |blocks, bytes| Blocks { blocks, bytes };
    report.malloc = Some(Malloc {
        arenas: 1,
        system: 297 * MIB,
        in_use: blocks(23_424, 4_872_192),
        in_use_growth: Some(BlocksGrowth::default()),
        thread_cached: blocks(7, 1456),
        binned: blocks(366, 306 * MIB),
        trimmable: 290 * MIB,
        sizes: vec![SizeClass {
            size: 208,
            blocks: 23_424,
            bytes: 4_872_192,
            growth: Some(BlocksGrowth::default()),
        }],
        ..Malloc::default()
    });
    settle(&mut report);
    report
}
