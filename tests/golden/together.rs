//! The processes of a cgroup, summed up.

use expect_test::expect_file;
use leakprobe::claim::Gap;
use leakprobe::report::together::Together;
use leakprobe::report::{CgroupMemory, Format, write_document};

use crate::{plain, reports};

fn a_container() -> Together {
    let members = [(reports::race_leak(), Some(317 << 20)), (reports::native_leak(), Some(38 << 20))];
    let tool = members[0].0.tool.clone();
    let memory = CgroupMemory {
        current: Some(401 << 20),
        limit: Some(512 << 20),
        file: Some(9 << 20),
        ..CgroupMemory::default()
    };
    let gone = Gap { what: "process 99".to_owned(), why: "process 99 exited".to_owned(), bytes: None };
    Together::of(tool, "/docker/3f2a9c0d81b4".to_owned(), Some(memory), members.to_vec(), vec![gone])
}

#[test]
fn processes_of_a_container() {
    let mut text = Vec::new();
    write_document(&a_container(), Format::Text, &plain(80), &mut text).expect("memory can be written to");
    expect_file!["expect/together_80.txt"].assert_eq(&String::from_utf8(text).expect("text is UTF-8"));
}

#[test]
fn the_sum_is_that_of_its_parts() {
    let all = a_container();
    assert_eq!(all.rss, all.processes.iter().map(|process| process.rss).sum::<u64>());
    let rows: u64 = all.components.iter().map(|sum| sum.rss).sum();
    assert_eq!(rows.cast_signed() + all.residual, all.rss.cast_signed());
    assert_eq!(all.pss, Some(355 << 20));
}
