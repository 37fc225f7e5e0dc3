//! Where the system calls that change the address space are seen. Four places, best first; which one serves
//! is found out by attaching to it and making each call ourselves, never by the kernel's version: a probe
//! that is attached may never run, where the compiler has inlined the function, for one.
//!
//! All four send the same events. What differs is what they cost the machine (docs/overhead.md).

use std::fmt;
use std::path::Path;

use aya::maps::{MapData, RingBuf};
use aya::{Btf, Ebpf};

use super::probes::{Hook, Place};
use super::{AttachError, Probe, refusal, tracefs, trial};

/// The kernel's functions behind the system calls, but for the call's name
/// (arch/x86/include/asm/syscall_wrapper.h).
const FUNCTION_PREFIX: &str = "__x64_sys_";

/// A way to see system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// fentry and fexit on the kernel's functions.
    Fentry,
    /// kprobe and kretprobe on them.
    Kprobe,
    /// The tracepoints of the address space's lock, and the one of the search for room in it.
    Tracepoint,
    /// The tracepoints of system calls.
    Syscalls,
}

impl Backend {
    /// All of them, best first.
    pub const ALL: [Self; 4] = [Self::Fentry, Self::Kprobe, Self::Tracepoint, Self::Syscalls];

    /// As in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Syscalls => "syscalls",
        }
    }

    /// The lock's tracepoints do not see madvise, which mostly does without the lock.
    fn is_to_see(self, call: Call) -> bool {
        self != Self::Tracepoint || call != Call::Madvise
    }

    /// What must be attached to see these calls, in groups of which each sees some by itself.
    fn groups(self, calls: &[Call]) -> Vec<Group> {
        if self == Self::Tracepoint {
            return vec![Group { hooks: lock_hooks(), calls: calls.to_vec() }];
        }
        calls.iter().map(|&call| Group { hooks: self.hooks(call), calls: vec![call] }).collect()
    }

    fn hooks(self, call: Call) -> Vec<Hook> {
        let function = format!("{FUNCTION_PREFIX}{call}");
        let hook = |program: &str, place| Hook { program: format!("{program}_{call}"), place };
        match self {
            Self::Fentry => {
                vec![hook("fentry", Place::Fentry(function.clone())), hook("fexit", Place::Fexit(function))]
            }
            Self::Kprobe => vec![
                hook("kprobe", Place::Kprobe(function.clone())),
                hook("kretprobe", Place::Kretprobe(function)),
            ],
            Self::Tracepoint => lock_hooks(),
            Self::Syscalls => vec![
                hook("enter", Place::Tracepoint("syscalls", format!("sys_enter_{call}"))),
                hook("exit", Place::Tracepoint("syscalls", format!("sys_exit_{call}"))),
            ],
        }
    }
}

fn lock_hooks() -> Vec<Hook> {
    let hook = |program: &str, place| Hook { program: program.to_owned(), place };
    vec![
        hook("area_found", Place::Tracepoint("mmap", "vm_unmapped_area".to_owned())),
        hook("lock_released", Place::RawTracepoint("mmap_lock", "mmap_lock_released")),
        hook("lock_acquired", Place::RawTracepoint("mmap_lock", "mmap_lock_acquire_returned")),
    ]
}

/// A system call that changes the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// mmap(2).
    Mmap,
    /// munmap(2).
    Munmap,
    /// mremap(2).
    Mremap,
    /// brk(2).
    Brk,
    /// madvise(2).
    Madvise,
    /// mprotect(2).
    Mprotect,
    /// mlock(2).
    Mlock,
    /// mlock2(2).
    Mlock2,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Mmap,
        Self::Munmap,
        Self::Mremap,
        Self::Brk,
        Self::Madvise,
        Self::Mprotect,
        Self::Mlock,
        Self::Mlock2,
    ];
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mmap => "mmap",
            Self::Munmap => "munmap",
            Self::Mremap => "mremap",
            Self::Brk => "brk",
            Self::Madvise => "madvise",
            Self::Mprotect => "mprotect",
            Self::Mlock => "mlock",
            Self::Mlock2 => "mlock2",
        })
    }
}

/// Probes that are of use only together, and the calls they are to see.
struct Group {
    hooks: Vec<Hook>,
    calls: Vec<Call>,
}

/// The backend that serves, and its probes.
pub struct Chosen {
    /// The best one that sees anything.
    pub backend: Backend,
    /// Its probes, and those of others where it is blind.
    pub probes: Vec<Probe>,
}

/// Attaches the probes on system calls: of the best backend that works here, or of the one that is wanted.
/// Where a call is not seen though its probes are attached, the next backend sees to it.
///
/// # Errors
/// Where no backend works; the error is what the last one said.
pub fn attach(
    ebpf: &mut Ebpf,
    ring: &mut RingBuf<MapData>,
    wanted: Option<Backend>,
) -> Result<Chosen, AttachError> {
    let mut missing: Vec<Missed> =
        Call::ALL.into_iter().map(|call| Missed { call, why: SILENT.to_owned() }).collect();
    let mut chosen: Option<Chosen> = None;
    let mut refused = None;
    for backend in Backend::ALL.into_iter().filter(|backend| wanted.is_none_or(|wanted| wanted == *backend)) {
        // The lock's tracepoints see all calls or none: beside another backend they would see some twice.
        if missing.is_empty() || (backend == Backend::Tracepoint && chosen.is_some()) {
            continue;
        }
        let calls: Vec<Call> = missing.iter().map(|missed| missed.call).collect();
        match try_out(ebpf, ring, backend, &calls) {
            Ok(found) => {
                missing = found.missed;
                chosen.get_or_insert(Chosen { backend, probes: Vec::new() }).probes.extend(found.probes);
            }
            Err(error) => {
                log::debug!("backend {}: {error}", backend.word());
                refused = Some(error);
            }
        }
    }
    match (chosen, refused) {
        (Some(mut chosen), _) => {
            chosen.probes.extend(missing.into_iter().map(unseen));
            Ok(chosen)
        }
        (None, Some(error)) if wanted.is_none() => Err(error),
        (None, error) => Err(AttachError::Backend {
            backend: wanted.map_or("none", Backend::word),
            error: Box::new(error.unwrap_or(AttachError::KernelLacks { error: SILENT.to_owned() })),
        }),
    }
}

/// What a backend turned out to see.
struct Found {
    probes: Vec<Probe>,
    /// Calls that it should have seen and did not.
    missed: Vec<Missed>,
}

/// A call that is not seen.
struct Missed {
    call: Call,
    why: String,
}

const SILENT: &str = "its probes are attached, and did not see the calls made to test them";

/// Attaches a backend's probes and keeps those that see the calls we make.
///
/// # Errors
/// Where none does.
fn try_out(
    ebpf: &mut Ebpf,
    ring: &mut RingBuf<MapData>,
    backend: Backend,
    calls: &[Call],
) -> Result<Found, AttachError> {
    let btf = match backend {
        Backend::Fentry => Some(kernel_types()?),
        Backend::Kprobe => None,
        Backend::Tracepoint => {
            has_cheap_lock_tracepoints(&tracefs::find()?)?;
            None
        }
        Backend::Syscalls => {
            tracefs::find()?;
            None
        }
    };
    let mut refused: Vec<(Vec<Call>, AttachError)> = Vec::new();
    let mut attached = Vec::new();
    for group in backend.groups(calls) {
        match group.hooks.iter().try_for_each(|hook| hook.attach(ebpf, btf.as_ref())) {
            Ok(()) => attached.push(group),
            Err(error) => {
                group.hooks.iter().for_each(|hook| hook.detach(ebpf));
                let error = refusal(error);
                // What a whole kind of program is refused for is the same for each call.
                if attached.is_empty() {
                    return Err(error);
                }
                refused.push((group.calls, error));
            }
        }
    }
    let seen = trial::run(ring).map_err(|error| {
        attached.iter().flat_map(|group| &group.hooks).for_each(|hook| hook.detach(ebpf));
        AttachError::KernelLacks { error: error.to_string() }
    })?;
    let missed = |call: &Call| backend.is_to_see(*call) && !seen.contains(call);
    let mut probes = Vec::new();
    for group in attached {
        if group.calls.iter().any(missed) {
            group.hooks.iter().for_each(|hook| hook.detach(ebpf));
        } else {
            probes.extend(group.hooks.iter().map(|hook| hook.row(None)));
        }
    }
    if probes.is_empty() {
        let refused = refused.pop().map(|(_, error)| error);
        return Err(refused.unwrap_or(AttachError::KernelLacks { error: SILENT.to_owned() }));
    }
    let why = |call: Call| {
        let refusal = refused.iter().find(|(calls, _)| calls.contains(&call));
        refusal.map_or_else(|| SILENT.to_owned(), |(_, error)| error.to_string())
    };
    let missed = calls.iter().copied().filter(missed);
    Ok(Found { probes, missed: missed.map(|call| Missed { call, why: why(call) }).collect() })
}

fn kernel_types() -> Result<Btf, AttachError> {
    Btf::from_sys_fs().map_err(|error| AttachError::KernelLacks { error: error.to_string() })
}

/// Before Linux 6.14 these tracepoints look up the name of the process's cgroup each time, which costs
/// more than what they spare, and have other arguments.
fn has_cheap_lock_tracepoints(tracefs: &Path) -> Result<(), AttachError> {
    let lacks = |error: String| AttachError::KernelLacks { error };
    let path = tracefs.join("events/mmap_lock/mmap_lock_released/format");
    let format =
        std::fs::read_to_string(&path).map_err(|error| lacks(format!("{}: {error}", path.display())))?;
    if format.contains("memcg_id") {
        Ok(())
    } else {
        Err(lacks("mmap_lock:* are of an older kind".to_owned()))
    }
}

fn unseen(missed: Missed) -> Probe {
    Probe { name: format!("{}(2)", missed.call), attached: false, error: Some(missed.why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_own_two_programs() {
        for backend in [Backend::Fentry, Backend::Kprobe, Backend::Syscalls] {
            let groups = backend.groups(&Call::ALL);
            let mut programs: Vec<_> =
                groups.iter().flat_map(|group| &group.hooks).map(|hook| hook.program.clone()).collect();
            programs.sort_unstable();
            programs.dedup();
            assert_eq!(programs.len(), 2 * Call::ALL.len(), "{backend:?}");
        }
    }

    #[test]
    fn the_lock_serves_all_calls_or_none() {
        let groups = Backend::Tracepoint.groups(&Call::ALL);
        assert!(groups.len() == 1 && groups[0].calls == Call::ALL && groups[0].hooks.len() == 3);
    }
}
