//! The tracepoint backend: which program hangs on which tracepoint.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::{Program, ProgramError, RawTracePoint, TracePoint};
use aya::{Ebpf, EbpfError};

use super::{AttachError, Probe, refusal};

/// How the report calls this backend.
pub const BACKEND: &str = "tracepoint";

/// Program, and the raw tracepoint it hangs on. The first is needed for a window to make sense.
const RAW: [(&str, &str, &str); 4] = [
    ("fault_user", "exceptions", "page_fault_user"),
    ("fault_kernel", "exceptions", "page_fault_kernel"),
    ("thread_exit", "sched", "sched_process_exit"),
    ("process_exec", "sched", "sched_process_exec"),
];

/// System calls, each with a program on its entry and one on its return.
const CALLS: [&str; 6] = ["mmap", "munmap", "mremap", "brk", "madvise", "mprotect"];

/// Attaches all probes.
///
/// # Errors
/// Where the page-fault probe could not be attached.
pub fn attach(ebpf: &mut Ebpf) -> Result<Vec<Probe>, AttachError> {
    let mut probes = Vec::new();
    for (program, category, tracepoint) in RAW {
        let attached = attach_raw(ebpf, program, tracepoint);
        match attached {
            Err(error) if program == RAW[0].0 => return Err(refusal(error)),
            attached => probes.push(probe(format!("{category}:{tracepoint}"), attached)),
        }
    }
    for call in CALLS {
        for side in ["enter", "exit"] {
            let attached = attach_call(ebpf, &format!("{side}_{call}"), &format!("sys_{side}_{call}"));
            probes.push(probe(format!("syscalls:sys_{side}_{call}"), attached));
        }
    }
    Ok(probes)
}

/// How often the kernel skipped a program since it ran on that processor already (`recursion_misses` in
/// /proc/PID/fdinfo; Linux 5.12). Left out is the probe on kernel-mode faults: it interrupts itself when
/// its own capture of a stack takes a fault, and those are none of the target's.
pub fn missed_runs(ebpf: &Ebpf) -> u64 {
    let others = ebpf.programs().filter(|(name, _)| *name != "fault_kernel");
    others.filter_map(|(_, program)| missed_runs_of(program)).sum()
}

fn missed_runs_of(program: &Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// Whether the kernel has `bpf_task_pt_regs` (Linux 5.15) and its own BTF, which the verifier needs for it.
/// Without, system calls and kernel-mode faults have stacks by frame pointers only.
pub fn has_task_regs() -> bool {
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return false;
    }
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or("").split(|char: char| !char.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
    (next(), next()) >= (5, 15)
}

fn attach_raw(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), EbpfError> {
    let program: &mut RawTracePoint = program(ebpf, name)?.try_into()?;
    program.load()?;
    program.attach(tracepoint)?;
    Ok(())
}

fn attach_call(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<(), EbpfError> {
    let program: &mut TracePoint = program(ebpf, name)?.try_into()?;
    program.load()?;
    program.attach("syscalls", tracepoint)?;
    Ok(())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)
}

fn probe(name: String, attached: Result<(), EbpfError>) -> Probe {
    Probe { name, attached: attached.is_ok(), error: attached.err().map(|error| error.to_string()) }
}
