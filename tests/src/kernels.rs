//! What a kernel lacks, by `tests/kernels.toml`: the only reason for which a live test may leave something out.
//!
//! The surprise: the file is held to in both directions. A feature that is missing and does not stand there fails the
//! test, and on a kernel that is known by its version so does one that stands there and is not missing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::places;

/// Something that one kernel has and another has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// fentry and fexit on the functions of system calls.
    Fentry,
    /// The same on those of all eight calls.
    FentryEveryCall,
    /// kprobes on them.
    Kprobe,
    /// The tracepoints of the address space's lock, in the form that leakprobe uses.
    Tracepoint,
    /// Confidentiality of the kernel's memory, against root too (`lockdown=confidentiality`).
    Confidentiality,
    /// Huge pages that are set aside.
    Hugetlb,
    /// Merging of equal pages.
    Ksm,
    /// Swap that a test can add.
    Swap,
    /// File systems in layers, as containers have for their root.
    Overlay,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Fentry,
        Self::FentryEveryCall,
        Self::Kprobe,
        Self::Tracepoint,
        Self::Confidentiality,
        Self::Hugetlb,
        Self::Ksm,
        Self::Swap,
        Self::Overlay,
    ];

    /// As in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::FentryEveryCall => "fentry-every-call",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
            Self::Confidentiality => "confidentiality",
            Self::Hugetlb => "hugetlb",
            Self::Ksm => "ksm",
            Self::Swap => "swap",
            Self::Overlay => "overlay",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// How a line begins with which a test says what it left out; `cargo xtask vm` looks for it.
pub const NOT_HERE: &str = "not here: ";

/// The machine itself, among the kernels of the file.
pub const HOST: &str = "host";

/// What each kernel of the file lacks, and why.
#[derive(Clone, Debug, Default)]
pub struct Kernels(BTreeMap<String, BTreeMap<String, String>>);

impl Kernels {
    /// Reads `tests/kernels.toml`.
    ///
    /// # Errors
    /// Where it cannot be read, or names a feature that is none.
    pub fn read() -> Result<Self> {
        let path = places::repository().join("tests/kernels.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let kernels: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(text)?;
        for feature in kernels.values().flat_map(BTreeMap::keys) {
            ensure!(
                Feature::ALL.iter().any(|known| known.word() == feature),
                "there is no feature {feature}: the features are in tests/src/kernels.rs"
            );
        }
        Ok(Self(kernels))
    }

    /// Why a kernel lacks a feature; `None` where it has it.
    ///
    /// # Errors
    /// Where the file does not know the kernel.
    pub fn why_not(&self, kernel: &str, feature: Feature) -> Result<Option<&str>> {
        let lacks = self.0.get(kernel).with_context(|| {
            format!("there is no kernel {kernel} in tests/kernels.toml: say there what it lacks")
        })?;
        Ok(lacks.get(feature.word()).map(String::as_str))
    }
}

/// Whether this kernel has a feature, by what a test `found` when it tried: `Err` says what was missing. If it
/// has not, this is said, for the table of [`cargo xtask vm`](NOT_HERE).
///
/// # Errors
/// Where `tests/kernels.toml` says otherwise.
pub fn is_here(feature: Feature, found: Result<(), String>) -> Result<bool> {
    let kernel = places::kernel();
    match judge(&Kernels::read()?, &kernel, feature, found)? {
        None => Ok(true),
        Some(missing) => {
            #[expect(clippy::print_stdout, reason = "libtest keeps it with the test's name")]
            {
                println!("{NOT_HERE}{missing}");
            }
            Ok(false)
        }
    }
}

/// What is missing, where something is that may be.
fn judge(
    kernels: &Kernels,
    kernel: &str,
    feature: Feature,
    found: Result<(), String>,
) -> Result<Option<String>> {
    match (found, kernels.why_not(kernel, feature)?) {
        (Ok(()), Some(_)) if kernel != HOST => {
            bail!("kernel {kernel} has {feature}, and tests/kernels.toml says that it has not")
        }
        (Ok(()), _) => Ok(None),
        (Err(_), Some(why)) => Ok(Some(format!("{feature} ({why})"))),
        (Err(error), None) => {
            bail!("{feature} is missing on kernel {kernel}, and tests/kernels.toml does not say so: {error}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels() -> Kernels {
        Kernels::parse("[host]\nswap = \"a container\"\n[\"5.10\"]\nksm = \"not built\"\n").unwrap()
    }

    #[test]
    fn what_is_missing_must_stand_in_the_file() {
        let missing = |kernel, feature| judge(&kernels(), kernel, feature, Err("EPERM".to_owned()));
        assert_eq!(missing("5.10", Feature::Ksm).unwrap().unwrap(), "ksm (not built)");
        let error = missing("5.10", Feature::Swap).unwrap_err().to_string();
        assert!(error.contains("swap is missing on kernel 5.10") && error.contains("EPERM"), "{error}");
        assert!(missing("4.4", Feature::Swap).unwrap_err().to_string().contains("no kernel 4.4"));
    }

    #[test]
    fn what_stands_in_the_file_must_be_missing_where_the_kernel_is_known() {
        let here = |kernel, feature| judge(&kernels(), kernel, feature, Ok(()));
        assert_eq!(here("5.10", Feature::Swap).unwrap(), None);
        assert!(here("5.10", Feature::Ksm).is_err());
        assert_eq!(here(HOST, Feature::Swap).unwrap(), None);
    }

    #[test]
    fn the_file_names_known_features_only() {
        assert!(
            Kernels::parse("[host]\nswapp = \"\"\n").unwrap_err().to_string().contains("no feature swapp")
        );
        assert!(Kernels::read().unwrap().why_not(HOST, Feature::Fentry).unwrap().is_some());
    }
}
