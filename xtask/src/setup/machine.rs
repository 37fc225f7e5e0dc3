//! What every machine of a developer has, and a fresh one may lack: compilers of C and C++, allocators to preload, and a
//! machine inside the machine for other kernels.

use super::Need;
use crate::command::{ask, find_program};

pub(super) fn missing() -> Vec<Need> {
    let mut needs = Vec::new();
    if ask("gcc", &["-x", "c", "-include", "stdio.h", "-fsyntax-only", "/dev/null"]).is_none() {
        needs.push(Need {
            what: "gcc and the C library's headers".to_owned(),
            why: "which build the C programs that the tests watch, and the C part of the Go ones",
            packages: ["gcc", "libc6-dev"].map(str::to_owned).to_vec(),
            then: None,
            elsewhere: "gcc and the C library's headers, from the machine's package manager".to_owned(),
        });
    }
    if ask("g++", &["-x", "c++", "-include", "memory", "-fsyntax-only", "/dev/null"]).is_none() {
        needs.push(Need {
            what: "g++ and the C++ library's headers".to_owned(),
            why: "which build the C++ programs that the tests watch",
            packages: vec!["g++".to_owned()],
            then: None,
            elsewhere: "g++ and the C++ library's headers, from the machine's package manager".to_owned(),
        });
    }
    if find_program("qemu-system-x86_64").is_none() {
        needs.push(Need {
            what: "qemu-system-x86_64".to_owned(),
            why: "which runs the tests on other kernels",
            packages: vec!["qemu-system-x86".to_owned()],
            then: None,
            elsewhere: "qemu-system-x86_64, from the machine's package manager".to_owned(),
        });
    }
    if !busybox_is_static() {
        needs.push(Need {
            what: "a static busybox".to_owned(),
            why: "which is the whole system in a test machine of QEMU",
            packages: vec!["busybox-static".to_owned()],
            then: None,
            elsewhere: "a static busybox, from the machine's package manager".to_owned(),
        });
    }
    needs.extend(allocators());
    if find_program("musl-gcc").is_none() {
        needs.push(Need {
            what: "musl and its compiler".to_owned(),
            why: "which build the programs whose C library is not glibc",
            packages: vec!["musl-tools".to_owned()],
            then: None,
            elsewhere: "musl-gcc, from the machine's package manager".to_owned(),
        });
    }
    needs
}

/// Libraries that the tests preload, and Debian's packages of them.
const ALLOCATORS: [(&str, &str); 3] = [
    ("libjemalloc.so.2", "libjemalloc2"),
    ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    ("libmimalloc.so.2", "libmimalloc2.0"),
];

fn allocators() -> Option<Need> {
    let known = ask("ldconfig", &["-p"]).unwrap_or_default();
    let missing = ALLOCATORS.iter().filter(|(library, _)| !known.contains(library));
    let packages: Vec<String> = missing.map(|(_, package)| (*package).to_owned()).collect();
    (!packages.is_empty()).then(|| Need {
        what: "jemalloc, tcmalloc and mimalloc".to_owned(),
        why: "which the tests preload in malloc's place",
        packages,
        then: None,
        elsewhere: "the three libraries, from the machine's package manager".to_owned(),
    })
}

/// A dynamic busybox would need a C library beside it in the test machine.
fn busybox_is_static() -> bool {
    let Some(busybox) = find_program("busybox").and_then(|path| path.to_str().map(str::to_owned)) else {
        return false;
    };
    // ldd fails on a static program, and succeeds with this sentence on a static one that is relocatable.
    ask("ldd", &[&busybox]).is_none_or(|libraries| libraries.contains("statically linked"))
}
