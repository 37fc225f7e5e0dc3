//! What the code at an address is for: malloc, the race detector, the Go runtime, the program's own.
//!
//! Decided by the symbols of each file, once a file, and not by the names a report shows: those come
//! later and only for what is printed.

use rangemap::RangeMap;

use crate::address::AddrRange;
use crate::claim::Component;
use crate::target::elf::Symbol;
use crate::target::modules::Module;

/// What code is for, as far as the ownership of memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// malloc and its kin, `operator new`.
    Allocator,
    /// pthread_create, which maps stacks.
    ThreadCreation,
    /// The rest of the C library and the loader: works for its caller.
    CLibrary,
    /// C functions of the Go distribution between Go and the C library.
    CgoBridge,
    /// The C++ code of the race detector.
    RaceRuntime,
    /// The code of another sanitizer, whose memory that is.
    Sanitizer(Component),
    /// Package runtime and its internals.
    GoRuntime,
    /// The runtime's memmove and memclr, which touch memory for their caller.
    GoCopy,
    /// Other Go code.
    GoCode,
    /// Other native code.
    Native,
    /// No module is mapped there.
    Unknown,
}

const ALLOCATOR: [&str; 19] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "free",
    "malloc_trim",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
    "__libc_memalign",
    "_int_malloc",
    "_int_free",
    "sysmalloc",
    "_int_realloc",
];
/// `operator new`, plain and aligned, in their mangled forms' beginnings.
const ALLOCATOR_PREFIXES: [&str; 2] = ["_Znw", "_Zna"];
const THREAD_CREATION: [&str; 2] = ["pthread_create", "__pthread_create"];
const CGO_PREFIXES: [&str; 3] = ["x_cgo_", "_cgo_", "crosscall"];
/// A symbol without a length is taken to be this long at most.
const NAMELESS_BYTES: u64 = 64;

/// The roles of the code of all modules.
#[derive(Default)]
pub struct CodeRoles {
    by_addr: RangeMap<u64, Role>,
}

impl CodeRoles {
    /// Reads the symbols of `modules`; `go` adds the ranges of Go's functions and of the race detector.
    pub fn new(modules: &[Module], go: impl IntoIterator<Item = (AddrRange, Role)>) -> Self {
        let mut roles = Self::default();
        for module in modules {
            let rest = match module.name() {
                name if is_allocator(name) => Role::Allocator,
                name if is_c_library(name) => Role::CLibrary,
                _ => Role::Native,
            };
            roles.set(module.span, rest);
            let symbols = module.elf.symbols(|name| named_role(name).is_some()).unwrap_or_default();
            for symbol in symbols {
                let role = named_role(&symbol.name);
                if let (Some(role), Some(range)) = (role, symbol_range(&symbol, module.load_bias)) {
                    roles.set(range, role);
                }
            }
        }
        for (range, role) in go {
            roles.set(range, role);
        }
        roles
    }

    /// The role of the code at `addr`.
    pub fn at(&self, addr: u64) -> Role {
        self.by_addr.get(&addr).copied().unwrap_or(Role::Unknown)
    }

    fn set(&mut self, range: AddrRange, role: Role) {
        self.by_addr.insert(range.start_addr..range.end_addr, role);
    }
}

/// Whether that is the name of malloc or its kin.
pub fn is_allocator_name(name: &str) -> bool {
    named_role(name) == Some(Role::Allocator)
}

/// A library that does nothing but take malloc's place: what it maps is the C heap.
fn is_allocator(name: &str) -> bool {
    ["libjemalloc", "libtcmalloc", "libmimalloc"].iter().any(|library| name.starts_with(library))
}

/// The role of a Go function by its full name.
pub fn go_role(name: &str) -> Role {
    let is_copy =
        ["runtime.memmove", "runtime.memclr", "runtime.memequal", "runtime.duffcopy", "runtime.duffzero"]
            .iter()
            .any(|copy| name.starts_with(copy));
    if is_copy {
        return Role::GoCopy;
    }
    let in_runtime = ["runtime.", "runtime/", "internal/runtime/", "internal/bytealg.", "gogo", "callRet"];
    // Its path has changed twice, in Go 1.23 and 1.26.
    let calls = ["internal/runtime/syscall/linux.", "internal/runtime/syscall.", "runtime/internal/syscall."];
    let is_call = calls.iter().any(|prefix| name.starts_with(prefix));
    match in_runtime.iter().any(|prefix| name.starts_with(prefix)) {
        true if is_call => Role::GoCopy, // a system call made for whoever called
        true => Role::GoRuntime,
        false => Role::GoCode,
    }
}

fn named_role(name: &str) -> Option<Role> {
    let base = name.split('@').next().unwrap_or(name);
    if ALLOCATOR.contains(&base) || ALLOCATOR_PREFIXES.iter().any(|prefix| base.starts_with(prefix)) {
        return Some(Role::Allocator);
    }
    if THREAD_CREATION.contains(&base) {
        return Some(Role::ThreadCreation);
    }
    CGO_PREFIXES.iter().any(|prefix| base.starts_with(prefix)).then_some(Role::CgoBridge)
}

fn symbol_range(symbol: &Symbol, load_bias: u64) -> Option<AddrRange> {
    let len_bytes = if symbol.len_bytes == 0 { NAMELESS_BYTES } else { symbol.len_bytes };
    AddrRange::with_len(symbol.svma.checked_add(load_bias)?, len_bytes)
}

fn is_c_library(name: &str) -> bool {
    ["libc.so", "libc-2", "libc.musl", "ld-linux", "ld-musl", "ld-2", "libpthread", "libstdc++", "libgcc_s"]
        .iter()
        .any(|library| name.starts_with(library))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_roles() {
        assert_eq!(named_role("malloc@@GLIBC_2.2.5"), Some(Role::Allocator));
        assert_eq!(named_role("_ZnwmSt11align_val_t"), Some(Role::Allocator));
        assert_eq!(named_role("x_cgo_mmap"), Some(Role::CgoBridge));
        assert_eq!(named_role("malloc_leak"), None);
        assert_eq!(go_role("runtime.mallocgc"), Role::GoRuntime);
        assert_eq!(go_role("runtime.memclrNoHeapPointers"), Role::GoCopy);
        assert_eq!(go_role("internal/runtime/syscall.Syscall6"), Role::GoCopy);
        assert_eq!(go_role("internal/runtime/syscall/linux.Syscall6"), Role::GoCopy);
        assert_eq!(go_role("syscall.mmap"), Role::GoCode);
        assert_eq!(go_role("main.leak"), Role::GoCode);
    }
}
