//! Programs that some verbs need and others do not, each in a package of Debian's.
//!
//! The surprise: Debian's packages of PostgreSQL and nginx start a server where the machine lets them. The tests start
//! their own.

use super::Need;
use crate::command::find_program;

/// A program, where it is if not on the path, and Debian's package of it.
type Program = (&'static str, Option<&'static str>, &'static str);

/// The programs that nobody here wrote, on which leakprobe is measured.
pub(super) const ORDINARY: [Program; 9] = [
    ("bash", None, "bash"),
    ("perl", None, "perl"),
    ("python3", Some("/usr/bin/python3"), "python3"),
    ("node", None, "nodejs"),
    // With the server's program, and without the package that starts one.
    ("redis-cli", None, "redis-tools"),
    ("postgres", Some("/usr/lib/postgresql"), "postgresql"),
    ("nginx", None, "nginx-light"),
    ("javac", None, "default-jdk-headless"),
    ("chromium", None, "chromium"),
];

/// What makes a container image without a daemon, and runs a container of it.
pub(super) const IMAGE_TOOLS: [Program; 4] = [
    ("umoci", None, "umoci"),
    ("skopeo", None, "skopeo"),
    ("runc", None, "runc"),
    ("strip", None, "binutils"),
];

/// Those of them that are not here.
pub(super) fn missing(programs: &[Program], why: &'static str) -> Vec<Need> {
    let is_here = |program: &str, path: Option<&str>| match path {
        Some(path) => std::path::Path::new(path).exists(),
        None => find_program(program).is_some(),
    };
    let missing = programs.iter().filter(|(program, path, _)| !is_here(program, *path));
    let need = |(program, _, package): &Program| Need {
        what: (*program).to_owned(),
        why,
        packages: vec![(*package).to_owned()],
        then: None,
        elsewhere: format!("{program}, from the machine's package manager"),
    };
    missing.map(need).collect()
}
