//! Threads with their stacks, and the stacks of threads that are no more.

use std::collections::HashMap;

use crate::address::AddrRange;
use crate::look::Look;
use crate::report::{PartRow, ThreadRow};
use crate::runtimes::threads::ThreadStack;

/// Threads with the resident bytes of their stacks.
pub fn threads(end: &Look) -> Vec<ThreadRow> {
    let stacks: HashMap<i32, &ThreadStack> =
        end.stacks.iter().filter_map(|stack| Some((stack.tid?, stack))).collect();
    let threads = end.snapshot.threads.iter();
    threads
        .map(|thread| {
            let stack = stacks.get(&thread.ns_tid);
            let signal_stack = end.signal_stacks.get(&thread.ns_tid);
            ThreadRow {
                tid: thread.tid,
                comm: thread.comm.clone(),
                stack_rss: stack.map(|stack| end.snapshot.resident_bytes_in(stack.range)),
                stack_size: stack.map(|stack| stack.range.len_bytes()),
                guard_size: stack.and_then(|stack| stack.guard_bytes),
                signal_stack_rss: signal_stack.map(|range| end.snapshot.resident_bytes_in(*range)),
                signal_stack_size: signal_stack.map(AddrRange::len_bytes),
                runs: runs(end, thread.ns_tid).map(Into::into),
            }
        })
        .collect()
}

/// Whose code a thread is for, where Go's list of its threads was read.
fn runs(look: &Look, ns_tid: i32) -> Option<&'static str> {
    let is_go = look.go_threads.as_ref()?.contains(&ns_tid);
    Some(if is_go { "go" } else { "native" })
}

/// The stacks of threads that run, and those that glibc keeps of threads that have exited.
pub(super) fn parts(start: Option<&Look>, end: &Look) -> Vec<PartRow> {
    let resident = |look: &Look, is_living: bool| -> u64 {
        let stacks = look.stacks.iter().filter(|stack| stack.tid.is_some() == is_living);
        stacks.map(|stack| look.snapshot.resident_bytes_in(stack.range)).sum()
    };
    let part = |(what, is_living): (&'static str, bool)| {
        let rss = resident(end, is_living);
        PartRow {
            what: what.into(),
            rss,
            growth: start.map(|start| super::signed(rss, resident(start, is_living))),
        }
    };
    [("living", true), ("exited", false)].into_iter().map(part).collect()
}
