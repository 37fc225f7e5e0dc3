//! What `contract.h` is to the C programs: hello, one answer for each line on stdin, and the end of stdin is the end.

use std::io::{BufRead, Write};

pub const STEP_BYTES: usize = 1 << 20;

/// The whole life of a leak: some of it before the hello, the rest on demand. `leak` makes so many steps more resident
/// for good and says how many bytes that were.
pub fn leak(name: &str, first_steps: usize, leak: fn(usize) -> usize) {
    // SAFETY: PR_SET_THP_DISABLE takes integers only. A huge page would make 2 MiB resident for one byte.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    let mut leaked = leak(first_steps);
    let mut out = std::io::stdout().lock();
    let mut say = |answer: String| writeln!(out, "{answer}").and_then(|()| out.flush()).expect("a pipe");
    say(format!("{{\"workload\":\"{name}\",\"leaked_bytes\":{leaked}}}"));
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("stdin is a pipe");
        let steps = line.strip_prefix("grow ").and_then(|steps| steps.parse().ok()).expect("\"grow STEPS\"");
        let grown = leak(steps);
        leaked += grown;
        say(format!("{{\"grown_bytes\":{grown},\"leaked_bytes\":{leaked}}}"));
    }
}
