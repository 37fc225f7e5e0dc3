//! The bill of the process's cgroup: how near the limit is, and what else is on it.

use super::units::{counted, size, time};
use crate::diagnose::{Limit, seconds_until_full};
use crate::report::{CgroupMemory, Others, Report};

/// Further away than this a straight line says nothing.
const LIMIT_HORIZON_SECONDS: f64 = 30.0 * 86_400.0;
/// Posts of the bill smaller than this part of it are not worth a word.
const SMALLEST_PART: u64 = 20;
const SMALLEST_BYTES: u64 = 1 << 20;

/// Nothing where the process has no cgroup, or its bill cannot be read here.
pub fn sentences(report: &Report) -> Vec<String> {
    let Some(cgroup) = &report.outside_rss.cgroup else { return Vec::new() };
    let bill = total(report, cgroup);
    let posts = bill.is_some().then(|| posts(cgroup)).flatten();
    bill.into_iter().chain(posts).collect()
}

/// "Cgroup: 341 MiB of 512 MiB, full in 17 s at this rate."
fn total(report: &Report, cgroup: &CgroupMemory) -> Option<String> {
    let current_bytes = cgroup.current?;
    let Some(limit_bytes) = cgroup.limit else {
        return Some(format!("Cgroup: {}, no limit.", size(current_bytes)));
    };
    let limit = Limit { current_bytes, limit_bytes };
    let growth_bytes = report.rss.growth.unwrap_or(0);
    let until = match seconds_until_full(limit, growth_bytes, report.window.seconds, &report.growth) {
        _ if report.target.is_gone() => String::new(),
        Some(seconds) if seconds < 1.0 => ", full".to_owned(),
        Some(seconds) if seconds < LIMIT_HORIZON_SECONDS => {
            format!(", full in {} at this rate", time(seconds))
        }
        _ => String::new(),
    };
    Some(format!("Cgroup: {} of {}{until}.", size(current_bytes), size(limit_bytes)))
}

/// "On that bill: 40 MiB page cache, 12 MiB kernel memory; 3 other processes with 96 MiB, of which sidecar
/// (pid 99) 90 MiB." What is small is left out.
fn posts(cgroup: &CgroupMemory) -> Option<String> {
    let smallest_bytes = (cgroup.current? / SMALLEST_PART).max(SMALLEST_BYTES);
    let is_worth_a_word = |bytes: u64| bytes >= smallest_bytes;
    let shared_bytes = cgroup.shmem.unwrap_or(0);
    let page_cache = cgroup.file.map(|file| file.saturating_sub(shared_bytes));
    let memory = [
        (page_cache, "page cache"),
        (cgroup.shmem, "shared memory"),
        (cgroup.kernel, "kernel memory"),
        (cgroup.sockets, "socket buffers"),
    ];
    let memory =
        memory.into_iter().filter_map(|(bytes, what)| Some((bytes.filter(|b| is_worth_a_word(*b))?, what)));
    let memory: Vec<String> = memory.map(|(bytes, what)| format!("{} {what}", size(bytes))).collect();
    let others = cgroup.others.as_ref().filter(|others| is_worth_a_word(others.rss)).map(processes);
    let posts: Vec<String> =
        (!memory.is_empty()).then(|| memory.join(", ")).into_iter().chain(others).collect();
    (!posts.is_empty()).then(|| format!("On that bill: {}.", posts.join("; ")))
}

fn processes(others: &Others) -> String {
    let number = counted(others.processes, "other process", "other processes");
    let largest = others.largest.first().map_or_else(String::new, |largest| {
        let share = if others.processes > 1 { format!(" {}", size(largest.rss)) } else { String::new() };
        let introduction = if others.processes > 1 { ", of which " } else { ", " };
        format!("{introduction}{} (pid {}){share}", largest.comm, largest.pid)
    });
    format!("{number} with {}{largest}", size(others.rss))
}
