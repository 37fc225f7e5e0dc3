//! What the names of functions tell: which are a runtime's, an allocator's or a library's, and what is asked of them by
//! calling them.
//!
//! The surprise: demangled names are no identifiers. Those of C++ templates begin with the type they return, those of
//! Rust's trait functions with the type that has the trait.

/// What runtimes, allocators and C libraries are made of, by how the names start.
const PLUMBING_PREFIXES: &[&str] = &[
    // Go, and its cgo glue.
    "runtime.",
    "internal/runtime/",
    "internal/bytealg.",
    "runtime/internal/",
    "runtime/cgo",
    "internal/race.",
    "sync/atomic.",
    "internal/poll.",
    "internal/syscall/",
    "syscall.",
    "golang.org/x/sys/unix.",
    "_rt0_",
    "_cgo_",
    "_cgoexp_",
    "x_cgo_",
    "crosscall",
    // Sanitizers.
    "__tsan",
    "__sanitizer",
    "__interceptor_",
    // C and its allocators.
    "_int_",
    "__libc_",
    "__GI_",
    "__mmap",
    "__memset_",
    "__memcpy_",
    "__memmove_",
    "__pthread_",
    "__default_morecore",
    "je_",
    "_rjem_",
    "__malloc_",
    "mi_malloc",
    "mi_heap_",
    "_mi_",
    "tc_malloc",
    "tcmalloc::",
    // C++ and Rust.
    "operator new",
    "std::",
    "__gnu_cxx::",
    "alloc::",
    "core::",
    "hashbrown::",
    "__rust_",
    "__rustc",
    "__rdl_",
];

/// The same, where the start of the name would take program code along.
const PLUMBING_NAMES: &[&str] = &[
    // Assembly of Go's race detector, private to its file and so without a package.
    "racecall",
    "racecalladdr",
    "racecallatomic",
    "racefuncenter",
    "racefuncexit",
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
    "valloc",
    "strdup",
    "strndup",
    "brk",
    "sbrk",
    "mmap",
    "mmap64",
    "mremap",
    "memset",
    "memcpy",
    "memmove",
    "bzero",
    "sysmalloc",
    "sysmalloc_mmap",
    "arena_get2",
    "new_heap",
    "grow_heap",
    "tcache_init",
    "ptmalloc_init",
    "pthread_create",
    "start_thread",
    "clone",
    "clone3",
    "_start",
];

/// Whether it works for whoever called it.
pub fn is_plumbing(name: &str) -> bool {
    let bare = without_version(name);
    let is_prefixed = |name: &str| PLUMBING_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_prefixed(own_name(name))
        || PLUMBING_NAMES.contains(&bare)
        || name.contains("._Cfunc_")
        || name.starts_with('<') && is_of_rusts_library(name, is_prefixed)
}

/// What stands before the parameters of a C++ function and behind the type it returns, which the names of templates
/// have: "void std::vector<int>::f<int>(int)". Other names are whole.
fn own_name(name: &str) -> &str {
    let (mut start, mut depth) = (0, 0_usize);
    for (at, letter) in name.char_indices() {
        match letter {
            '(' if depth == 0 && at > start && !name[at..].starts_with("(anonymous") => break,
            '<' | '(' | '[' | '{' => depth += 1,
            '>' | ')' | ']' | '}' => depth = depth.saturating_sub(1),
            // Its own name may have spaces and brackets: "operator new", "operator->".
            ' ' if depth == 0 && name[start..at].ends_with("operator") => break,
            ' ' if depth == 0 => start = at + 1,
            _ => {}
        }
    }
    &name[start..]
}

/// "<alloc::vec::Vec<T> as Clone>::clone", "<T as alloc::slice::ConvertVec>::to_vec": a type of Rust's own library; or
/// one that has no name of its own, like a type parameter, and does what a trait of the library says.
fn is_of_rusts_library(name: &str, is_library: impl Fn(&str) -> bool) -> bool {
    let no_name = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let mut of_type = name.trim_start_matches(no_name);
    while let Some((_, rest)) =
        of_type.split_once(' ').filter(|(word, _)| ["dyn", "mut", "const"].contains(word))
    {
        of_type = rest.trim_start_matches(no_name);
    }
    let head = of_type.split(|letter| no_name(letter) && letter != ':').next().unwrap_or("");
    let of_trait = name.split_once(" as ").map(|(_, of_trait)| of_trait);
    is_library(head) || !head.contains("::") && of_trait.is_some_and(is_library)
}

/// Whether it is how memory is asked for in native code.
pub fn is_allocation(name: &str) -> bool {
    const CALLS: [&str; 9] = [
        "malloc",
        "calloc",
        "realloc",
        "posix_memalign",
        "aligned_alloc",
        "memalign",
        "strdup",
        "new",
        "allocation",
    ];
    let is_go = GO_VERBS.iter().any(|(start, _)| name.starts_with(start));
    !is_go && verb(name).is_some_and(|verb| CALLS.contains(&verb))
}

/// Where stacks begin, whoever they belong to.
pub fn is_root(name: &str) -> bool {
    const ROOTS: &[&str] = &["start_thread", "clone", "clone3", "_start", "runtime.goexit", "runtime.mcall"];
    let starts = ["runtime.mstart", "runtime.systemstack", "runtime.rt0_go", "_rt0_", "__libc_start"];
    name.is_empty() || ROOTS.contains(&name) || starts.iter().any(|start| name.starts_with(start))
}

/// "malloc@@GLIBC_2.2.5" is malloc.
fn without_version(name: &str) -> &str {
    name.split_once('@').map_or(name, |(bare, _)| bare)
}

/// What Go code asks of its runtime, by how the runtime's function is called.
const GO_VERBS: &[(&str, &str)] = &[
    ("runtime.newproc", "go statement"),
    ("runtime.makeslice", "make"),
    ("runtime.makemap", "make"),
    ("runtime.makechan", "make"),
    ("runtime.growslice", "append"),
    ("runtime.mapassign", "map insert"),
    ("internal/runtime/maps.", "map insert"),
    ("runtime.newobject", "new"),
    ("runtime.concatstring", "string"),
    ("runtime.slicebytetostring", "string"),
    ("runtime.stringtoslicebyte", "[]byte(string)"),
    ("runtime.mallocgc", "allocation"),
    ("runtime.morestack", "stack growth"),
    ("runtime.newstack", "stack growth"),
    ("runtime.racefunc", "traced calls"),
    ("racefunc", "traced calls"),
    ("racecallatomic", "traced atomics"),
    ("sync/atomic.", "traced atomics"),
    ("runtime.race", "race check"),
    ("racecall", "race check"),
    ("runtime.cgocall", "C code called"),
    ("syscall.Mmap", "mmap"),
    ("syscall.mmap", "mmap"),
    ("syscall.(*mmapper).Mmap", "mmap"),
    ("golang.org/x/sys/unix.Mmap", "mmap"),
    ("internal/poll.(*FD).Read", "read"),
    ("syscall.Read", "read"),
    ("syscall.read", "read"),
];

/// What native code asks of its C library, without underscores and aliases in front.
const NATIVE_VERBS: &[(&str, &str)] = &[
    ("malloc", "malloc"),
    ("calloc", "calloc"),
    ("realloc", "realloc"),
    ("posix_memalign", "posix_memalign"),
    ("aligned_alloc", "aligned_alloc"),
    ("memalign", "memalign"),
    ("strdup", "strdup"),
    ("strndup", "strdup"),
    ("je_malloc", "malloc"),
    ("rjem_malloc", "malloc"),
    ("rjem_calloc", "calloc"),
    ("rjem_realloc", "realloc"),
    ("rjem_rallocx", "realloc"),
    ("mi_malloc", "malloc"),
    ("tc_malloc", "malloc"),
    ("operator new", "new"),
    ("rust_alloc", "allocation"),
    ("rustc::__rust_alloc", "allocation"),
    ("rust_realloc", "allocation"),
    ("rustc::__rust_realloc", "allocation"),
    ("mmap", "mmap"),
    ("mremap", "mremap"),
    ("brk", "brk"),
    ("sbrk", "brk"),
    ("pthread_create", "pthread_create"),
    ("memset", "memset"),
    ("memcpy", "memcpy"),
    ("memmove", "memmove"),
];

/// What is asked of a runtime or a library by calling it; none where it is neither.
pub fn verb(name: &str) -> Option<&'static str> {
    let find = |table: &'static [(&str, &str)], name: &str| {
        table.iter().find(|(start, _)| name.starts_with(start)).map(|(_, verb)| *verb)
    };
    find(GO_VERBS, name).or_else(|| {
        let bare = name.strip_prefix("__GI_").unwrap_or(name).trim_start_matches('_');
        let bare = bare.strip_prefix("libc_").or(bare.strip_prefix("interceptor_")).unwrap_or(bare);
        find(NATIVE_VERBS, bare)
    })
}

/// First path elements of Go's standard library. A module of one's own may be called like one of them; then
/// its callers are shown less readily, no more.
const GO_LIBRARY: &[&str] = &[
    "archive",
    "bufio",
    "bytes",
    "cmp",
    "compress",
    "container",
    "context",
    "crypto",
    "database",
    "debug",
    "encoding",
    "errors",
    "expvar",
    "flag",
    "fmt",
    "go",
    "hash",
    "html",
    "image",
    "index",
    "internal",
    "io",
    "iter",
    "log",
    "maps",
    "math",
    "mime",
    "net",
    "os",
    "path",
    "plugin",
    "reflect",
    "regexp",
    "runtime",
    "slices",
    "sort",
    "strconv",
    "strings",
    "structs",
    "sync",
    "syscall",
    "testing",
    "text",
    "time",
    "unicode",
    "unique",
    "unsafe",
    "vendor",
    "weak",
];

/// Whether a function of a Go program belongs to Go's library. C has no dots in names: those never do.
pub fn is_go_library(name: &str) -> bool {
    let first = name.split(['/', '.']).next().unwrap_or("");
    first.len() < name.len() && GO_LIBRARY.contains(&first)
}
