//! Which program hangs where: the one place that attaches and detaches.

use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::{FEntry, FExit, KProbe, Program, ProgramError, ProgramType, RawTracePoint, TracePoint};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Btf, Ebpf, EbpfError};

use super::{AttachError, Probe, refusal};

/// A program of the BPF object, and where it is to run.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The program's name.
    pub program: String,
    /// Where it runs.
    pub place: Place,
}

/// A place in the kernel.
#[derive(Clone, Debug)]
pub enum Place {
    /// Where a function begins, by the trampoline of BPF.
    Fentry(String),
    /// Where it ends.
    Fexit(String),
    /// Where a function begins, by a breakpoint or ftrace.
    Kprobe(String),
    /// Where it ends.
    Kretprobe(String),
    /// A tracepoint, with its record built: category and name.
    Tracepoint(&'static str, String),
    /// A tracepoint, with the arguments that the kernel's code gives it.
    RawTracepoint(&'static str, &'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fentry(function) => write!(formatter, "fentry:{function}"),
            Self::Fexit(function) => write!(formatter, "fexit:{function}"),
            Self::Kprobe(function) => write!(formatter, "kprobe:{function}"),
            Self::Kretprobe(function) => write!(formatter, "kretprobe:{function}"),
            Self::Tracepoint(category, name) => write!(formatter, "{category}:{name}"),
            Self::RawTracepoint(category, name) => write!(formatter, "{category}:{name}"),
        }
    }
}

impl Hook {
    /// Loads the program and attaches it. `btf` describes the kernel, for [`Place::Fentry`] and [`Place::Fexit`].
    pub fn attach(&self, ebpf: &mut Ebpf, btf: Option<&Btf>) -> Result<(), EbpfError> {
        let program = ebpf.program_mut(&self.program).ok_or(ProgramError::NotLoaded)?;
        match &self.place {
            Place::Fentry(function) => {
                let program: &mut FEntry = program.try_into()?;
                program.load(function, btf.ok_or(ProgramError::NotLoaded)?)?;
                program.attach()?;
            }
            Place::Fexit(function) => {
                let program: &mut FExit = program.try_into()?;
                program.load(function, btf.ok_or(ProgramError::NotLoaded)?)?;
                program.attach()?;
            }
            Place::Kprobe(function) | Place::Kretprobe(function) => {
                let program: &mut KProbe = program.try_into()?;
                program.load()?;
                program.attach(function, 0)?;
            }
            Place::Tracepoint(category, name) => {
                let program: &mut TracePoint = program.try_into()?;
                program.load()?;
                program.attach(category, name)?;
            }
            Place::RawTracepoint(_, name) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                program.attach(name)?;
            }
        }
        Ok(())
    }

    /// Takes the program out of the kernel, if it is there.
    pub fn detach(&self, ebpf: &mut Ebpf) {
        // A program that was never loaded has nothing to unload.
        let _ = match ebpf.program_mut(&self.program) {
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            Some(Program::RawTracePoint(program)) => program.unload(),
            _ => Ok(()),
        };
    }

    /// Its row in the report.
    pub fn row(&self, error: Option<String>) -> Probe {
        Probe { name: self.place.to_string(), attached: error.is_none(), error }
    }
}

/// Page faults, which are needed for a window to make sense, then what ends the process. Raw tracepoints
/// with every backend: nothing is cheaper.
const ALWAYS: [(&str, &str, &str); 4] = [
    ("fault_user", "exceptions", "page_fault_user"),
    ("fault_kernel", "exceptions", "page_fault_kernel"),
    ("thread_exit", "sched", "sched_process_exit"),
    ("process_exec", "sched", "sched_process_exec"),
];

/// Attaches the probes that every backend has.
///
/// # Errors
/// Where the page-fault probe could not be attached.
pub fn attach_always(ebpf: &mut Ebpf) -> Result<Vec<Probe>, AttachError> {
    let mut probes = Vec::new();
    for (program, category, tracepoint) in ALWAYS {
        let hook = Hook { program: program.to_owned(), place: Place::RawTracepoint(category, tracepoint) };
        match hook.attach(ebpf, None) {
            Err(error) if program == ALWAYS[0].0 => return Err(refusal(error)),
            attached => probes.push(hook.row(attached.err().map(|error| error.to_string()))),
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

/// Whether the kernel describes its own types (BTF).
pub fn has_kernel_types() -> bool {
    std::path::Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Whether the kernel has `bpf_task_pt_regs` (Linux 5.15) and its own BTF, which the verifier needs for it.
/// Without, tracepoints have stacks by frame pointers only.
pub fn has_task_regs() -> bool {
    has_kernel_types()
        && is_helper_supported(ProgramType::RawTracePoint, BpfHelper::BPF_FUNC_task_pt_regs).unwrap_or(false)
}
