//! The releases of clang that build programs with sanitizers, and the sanitizers' runtimes.
//!
//! The newest is that of the LLVM which bpf-linker needs anyway, so it adds little.

use leakprobe_tests::compile::sanitized::{NEWEST_CLANG, OLDEST_CLANG};

use super::{Need, Releases, apt};
use crate::command::ask;

pub(super) fn missing(releases: Releases) -> Vec<Need> {
    let versions: &[u32] = match releases {
        Releases::Newest => &[],
        Releases::Corners => &[NEWEST_CLANG],
        Releases::All => &[NEWEST_CLANG, OLDEST_CLANG],
    };
    versions.iter().filter(|version| !is_here(**version)).map(|version| need(*version)).collect()
}

fn is_here(version: u32) -> bool {
    let clang = format!("clang-{version}");
    ask(&clang, &["--version"]).is_some()
        && (!apt::is_here() || apt::is_installed(&format!("libclang-rt-{version}-dev")))
}

fn need(version: u32) -> Need {
    Need {
        what: format!("clang {version} with its sanitizers"),
        why: "which builds the sanitized programs that the tests watch",
        packages: vec![format!("clang-{version}"), format!("libclang-rt-{version}-dev")],
        then: None,
        elsewhere: format!("clang-{version} and its compiler-rt, from the machine's package manager"),
    }
}
