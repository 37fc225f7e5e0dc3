//! Why no probe could be attached, told from what the kernel said.

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
            Self::NoObject | Self::KernelLacks { .. } => false,
        }
    }
}

/// Sorts a refusal: a privilege that is missing, or a kernel that cannot.
pub(crate) fn refusal(error: impl std::error::Error + 'static) -> AttachError {
    let text = chain(&error);
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return AttachError::NotPermitted { error: text };
        }
        source = error.source();
    }
    AttachError::KernelLacks { error: text }
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
