//! Why no probe could be attached, told from what the kernel said.

use aya::programs::ProgramError;

/// Why no probe could be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// leakprobe was built without its kernel side.
    #[error("this leakprobe was built without its kernel side: run `cargo xtask setup`, then build it again")]
    NoObject,
    /// tracefs is neither mounted nor mountable.
    #[error(
        "tracefs is not mounted and mounting it failed ({error}): run `mount -t tracefs nodev /sys/kernel/tracing`"
    )]
    NoTracefs {
        /// The mount's error.
        error: std::io::Error,
    },
    /// The kernel refused for want of a privilege.
    #[error(
        "the kernel refuses BPF programs ({error}): run as root, or with CAP_BPF and CAP_PERFMON (kernels before 5.8: CAP_SYS_ADMIN), outside lockdown=confidentiality"
    )]
    NotPermitted {
        /// The refusal.
        error: String,
    },
    /// The backend that was asked for does not work here.
    #[error(
        "the backend {backend} does not work here: {error}; leave --backend out to have the best one that does"
    )]
    Backend {
        /// Its word.
        backend: &'static str,
        /// Why.
        error: Box<AttachError>,
    },
    /// The kernel has no BPF ring buffer, through which events come.
    #[error(
        "this kernel has no BPF ring buffer, so nothing can be watched here: it takes Linux 5.8 or newer; `--duration 0` looks at the process once, without watching it"
    )]
    NoRingBuffer,
    /// The kernel lacks something.
    #[error("this kernel cannot run the probes: {error}")]
    KernelLacks {
        /// What it said.
        error: String,
    },
}

impl AttachError {
    /// Whether more privileges would help, and not another kernel.
    pub fn is_for_want_of_privilege(&self) -> bool {
        match self {
            Self::NotPermitted { .. } => true,
            Self::NoTracefs { error } => error.kind() == std::io::ErrorKind::PermissionDenied,
            Self::Backend { error, .. } => error.is_for_want_of_privilege(),
            Self::NoObject | Self::NoRingBuffer | Self::KernelLacks { .. } => false,
        }
    }
}

/// An error where the kernel has no ring buffer; `is_supported` is what it said when it was asked. What it does not say
/// is for loading to find out.
pub(super) fn ensure_ring_buffer<E>(is_supported: &Result<bool, E>) -> Result<(), AttachError> {
    if matches!(is_supported, Ok(false)) { Err(AttachError::NoRingBuffer) } else { Ok(()) }
}

/// Sorts a refusal: a privilege that is missing, or a kernel that cannot.
pub(crate) fn refusal(error: impl std::error::Error + 'static) -> AttachError {
    let text = chain(&error);
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = source {
        // It has looked at the program, so nobody was in its way; that it says EACCES too means nothing.
        if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref()
            && let Some(verdict) = verdict(&verifier_log.to_string())
        {
            return AttachError::KernelLacks { error: format!("the verifier refuses a program: {verdict}") };
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return AttachError::NotPermitted { error: text };
        }
        source = error.source();
    }
    AttachError::KernelLacks { error: text }
}

/// What the verifier has against a program: the end of its log, but for its figures (Linux kernel/bpf/verifier.c,
/// `print_verification_stats`). `None` where it has said nothing.
fn verdict(log: &str) -> Option<String> {
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed"];
    const LINES: usize = 2;
    let said = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> =
        said.filter(|line| !FIGURES.iter().any(|figure| line.starts_with(figure))).collect();
    let last = &said[said.len().saturating_sub(LINES)..];
    (!last.is_empty()).then(|| last.join("; "))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_before_5_8_is_told_what_it_lacks() {
        let error = ensure_ring_buffer::<()>(&Ok(false)).unwrap_err();
        assert!(!error.is_for_want_of_privilege());
        let words = error.to_string();
        assert!(words.contains("no BPF ring buffer") && words.contains("Linux 5.8"), "{words}");
        assert!(words.contains("--duration 0"), "{words}");
    }

    #[test]
    fn the_verifier_is_quoted_by_its_last_words() {
        let log = "17: (79) r7 = *(u64 *)(r6 +0)\nfunc '__x64_sys_mremap' arg0 type FWD is not a struct\n\
            invalid bpf_context access off=0 size=8\nverification time 22645 usec\nstack depth 96+0\n\
            processed 19 insns (limit 1000000) max_states_per_insn 0\n";
        let words =
            "func '__x64_sys_mremap' arg0 type FWD is not a struct; invalid bpf_context access off=0 size=8";
        assert_eq!(verdict(log).as_deref(), Some(words));
        assert_eq!(verdict("processed 0 insns\n"), None);
        assert_eq!(verdict(""), None);
    }

    #[test]
    fn a_kernel_that_has_one_or_does_not_say_is_tried() {
        assert!(ensure_ring_buffer::<()>(&Ok(true)).is_ok());
        assert!(ensure_ring_buffer(&Err("EPERM")).is_ok());
    }
}
