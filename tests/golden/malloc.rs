//! Reports of C programs whose blocks are what matters.

use leakprobe::claim::{Component, Evidence};
use leakprobe::report::{Blocks, BlocksGrowth, ClassRow, Malloc, Report, SizeClass};

use crate::parts::{KIB, MIB, base, native, row, settle, site};

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
        trimmable: Some(290 * MIB),
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

/// A C++ server that forgets its sessions: many of them in the place of what it freed before.
pub fn objects() -> Report {
    let mut report = base("gamed", "/opt/game/bin/gamed", native());
    report.components = vec![
        row(Component::CHeapInUse, 96 * MIB, Some(20 * MIB as i64), Evidence::Structure),
        row(Component::CHeapFree, 12 * MIB, Some(-9 * MIB as i64), Evidence::Structure),
        row(Component::FileLibs, 4 * MIB, Some(0), Evidence::Mapping),
    ];
    for malloc_row in &mut report.components[..2] {
        malloc_row.allocator = Some("glibc 2.36".to_owned());
    }
    report.call_sites = vec![site(
        Component::CHeapInUse,
        11 * MIB,
        &["_int_malloc", "malloc", "operator new(unsigned long)"],
        &[("net::Server::accept", "/src/net/server.cc", 88), ("main", "/src/main.cc", 41)],
    )];
    let growth = |blocks, bytes| Some(BlocksGrowth { blocks, bytes });
    let size = |size, blocks, bytes, growth| SizeClass { size, blocks, bytes, growth };
    let class = |class: &str, module: &str, blocks, bytes, growth| ClassRow {
        class: Some(class.to_owned()),
        module: Some(module.to_owned()),
        blocks,
        bytes,
        growth,
    };
    let (exe, library) = ("/opt/game/bin/gamed", "/opt/game/lib/libworld.so.3");
    report.malloc = Some(Malloc {
        arenas: 9,
        system: 108 * MIB,
        in_use: Blocks { blocks: 412_331, bytes: 80 * MIB },
        mapped: Blocks { blocks: 3, bytes: 13 * MIB },
        in_use_growth: growth(131_072, 20 * MIB as i64),
        reused: Some(9 * MIB),
        sizes: vec![
            size(32, 120_000, 120_000 * 32, growth(-12, -384)),
            size(176, 290_400, 290_400 * 176, growth(119_156, 119_156 * 176)),
            size(784, 1900, 1900 * 784, growth(0, 0)),
            size(4080, 31, 31 * 4080, growth(4, 16_320)),
            size(5 * MIB, 3, 13 * MIB, growth(0, 0)),
        ],
        classes: vec![
            class("net::Session", exe, 290_400, 290_400 * 176, growth(119_156, 119_156 * 176)),
            class("world::Chunk<world::\u{1b}[2JTile>", library, 3, 13 * MIB, growth(0, 0)),
            class("net::Listener", exe, 700, 548_800, growth(0, 0)),
            class("(anonymous namespace)::Timer", library, 80, 80 * KIB, growth(0, 0)),
            class("std::thread::_State_impl<(anonymous namespace)::Worker>", exe, 8, 384, growth(0, 0)),
            class("Config", exe, 1, 96, growth(0, 0)),
            class("Log", exe, 1, 64, growth(-2, -128)),
        ],
        unclassed: Blocks { blocks: 12, bytes: 384 },
        ..Malloc::default()
    });
    settle(&mut report);
    report
}
