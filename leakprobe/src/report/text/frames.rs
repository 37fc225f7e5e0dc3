//! What a stack is about: the innermost function a reader may have written, what it asked the runtime for,
//! and who called it.
//!
//! Runtimes, allocators and the C library are folded into a word: "go statement", "malloc", "append". It
//! goes by names alone and refuses to drop a frame it does not know. The surprise: a mistake here only makes
//! a line less telling; bytes and owners are decided elsewhere, and full stacks are never folded.

use crate::report::{Frame, GOROUTINES, HEAP_PROFILE};

/// A stack, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// What the innermost shown function asked for.
    pub verb: Option<&'static str>,
    /// Index of the innermost shown frame; none where nothing outside the allocator was seen.
    pub shown: Option<usize>,
    /// Indices of the callers worth showing, innermost first.
    pub callers: Vec<usize>,
}

/// The verb where nothing was called: the function touched the memory itself.
const FIRST_TOUCH: &str = "first touch";

/// "make in main.cache": what was called and by whom, as `named`; none where there is nothing to say. `source` is that
/// of the stacks, as of call sites.
pub fn in_short(frames: &[Frame], source: &str, named: impl Fn(&Frame) -> String) -> Option<String> {
    let fold = fold(frames).told_by(source);
    let shown = fold.shown.and_then(|index| frames.get(index)).map(named);
    match (fold.verb, shown) {
        (Some(verb), Some(function)) => Some(format!("{verb} in {function}")),
        (Some(verb), None) => Some(verb.to_owned()),
        (None, shown) => shown,
    }
}

impl Fold {
    /// Who is on a stack of the heap profile allocated, whatever else touched the page first; and goroutines have their
    /// stacks whatever they call.
    pub fn told_by(self, source: &str) -> Self {
        let verb = match source {
            HEAP_PROFILE if self.verb == Some(FIRST_TOUCH) => Some("allocation"),
            GOROUTINES => self.shown.map(|_| "goroutines"),
            _ => self.verb,
        };
        Self { verb, ..self }
    }
}

/// Folds a stack, innermost frame first.
pub fn fold(frames: &[Frame]) -> Fold {
    let own = frames.iter().position(|frame| !is_inner(frame));
    // A stack that is all runtime is a runtime's thread: its outermost function says which.
    let shown = own.or_else(|| frames.iter().rposition(|frame| !is_root(name(frame))));
    let inner = &frames[..shown.unwrap_or(frames.len())];
    let verb = inner.iter().rev().find_map(|frame| verb(name(frame)));
    let shown_name = shown.map_or("", |index| name(&frames[index]));
    if own.is_none() && verb.is_none() && self::verb(shown_name).is_some() {
        return Fold { verb: self::verb(shown_name), shown: None, callers: Vec::new() };
    }
    Fold {
        verb: verb.or(own.map(|_| FIRST_TOUCH)),
        shown,
        callers: shown.map_or(Vec::new(), |at| callers(frames, at)),
    }
}

/// The program's own callers; where there are none, the next caller of any kind.
fn callers(frames: &[Frame], shown: usize) -> Vec<usize> {
    let outer = || (shown + 1..frames.len()).filter(|index| !is_inner(&frames[*index]));
    let own: Vec<usize> = outer().filter(|index| !is_go_library(name(&frames[*index]))).collect();
    if own.is_empty() { outer().take(1).collect() } else { own }
}

/// A frame that works for whoever called it: by its name, or nameless in a stripped C library.
fn is_inner(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or("");
    let library = module.rsplit('/').next().unwrap_or("");
    let is_c_library = ["libc.so", "libc-2", "ld-linux", "libc.musl", "ld-musl"];
    match &frame.function {
        Some(function) => is_plumbing(function),
        None => is_c_library.iter().any(|start| library.starts_with(start)),
    }
}

fn name(frame: &Frame) -> &str {
    frame.function.as_deref().unwrap_or("")
}

/// What runtimes, allocators and C libraries are made of, by how the names start.
const PLUMBING_PREFIXES: &[&str] = &[
    // Go, and its cgo glue.
    "runtime.",
    "internal/runtime/",
    "runtime/internal/",
    "internal/race.",
    "sync/atomic.",
    "internal/poll.",
    "internal/syscall/",
    "syscall.",
    "golang.org/x/sys/unix.",
    "_rt0_",
    "_cgo_",
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
    "mi_malloc",
    "mi_heap_",
    "_mi_",
    "tc_malloc",
    "tcmalloc::",
    // C++ and Rust.
    "operator new",
    "std::",
    "<std::",
    "__gnu_cxx::",
    "alloc::",
    "<alloc::",
    "core::",
    "<core::",
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

fn is_plumbing(name: &str) -> bool {
    let bare = without_version(name);
    PLUMBING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PLUMBING_NAMES.contains(&bare)
        || name.contains("._Cfunc_")
}

/// Where stacks begin, whoever they belong to.
fn is_root(name: &str) -> bool {
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
    ("mi_malloc", "malloc"),
    ("tc_malloc", "malloc"),
    ("operator new", "new"),
    ("rust_alloc", "allocation"),
    ("mmap", "mmap"),
    ("mremap", "mremap"),
    ("brk", "brk"),
    ("sbrk", "brk"),
    ("pthread_create", "pthread_create"),
    ("memset", "memset"),
    ("memcpy", "memcpy"),
    ("memmove", "memmove"),
];

fn verb(name: &str) -> Option<&'static str> {
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
fn is_go_library(name: &str) -> bool {
    let first = name.split(['/', '.']).next().unwrap_or("");
    first.len() < name.len() && GO_LIBRARY.contains(&first)
}

/// The function without the directories of its package: "http.(*Transport).dialConn".
pub fn without_directories(function: &str) -> &str {
    // Type parameters and receivers hold paths of their own.
    let package_end = function.find(['[', '(', '<', ' ']).unwrap_or(function.len());
    match function[..package_end].rfind('/') {
        Some(slash) => &function[slash + 1..],
        None => function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verb, the shown function and the callers of a stack of these functions.
    fn folded<'a>(functions: &[&'a str]) -> (Option<&'static str>, Option<&'a str>, Vec<&'a str>) {
        let frame = |name: &&str| Frame { function: Some((*name).to_owned()), ..Frame::default() };
        let fold = fold(&functions.iter().map(frame).collect::<Vec<_>>());
        (
            fold.verb,
            fold.shown.map(|at| functions[at]),
            fold.callers.iter().map(|at| functions[*at]).collect(),
        )
    }

    #[test]
    fn the_race_detectors_inside_becomes_a_go_statement() {
        let stack = [
            "__sanitizer::internal_mmap",
            "__tsan::Alloc",
            "__tsan_go_start",
            "runtime.racecall",
            "runtime.racegostart",
            "runtime.newproc1",
            "runtime.newproc.func1",
            "runtime.systemstack",
            "runtime.newproc",
            "net/http.(*Transport).dialConn",
            "net/http.(*Client).do",
            "main.flood",
            "runtime.goexit",
        ];
        let expected = (Some("go statement"), Some("net/http.(*Transport).dialConn"), vec!["main.flood"]);
        assert_eq!(folded(&stack), expected);
    }

    #[test]
    fn what_the_program_called_is_the_verb() {
        let cases = [
            (
                vec!["memset", "__libc_calloc", "load", "main", "__libc_start_main"],
                "calloc",
                "load",
                vec!["main"],
            ),
            (vec!["_int_malloc", "__GI___libc_malloc", "grow"], "malloc", "grow", vec![]),
            (
                vec!["operator new(unsigned long)", "std::vector<int>::push_back", "fill()"],
                "new",
                "fill()",
                vec![],
            ),
            (vec!["fill", "main"], "first touch", "fill", vec!["main"]),
            (
                vec![
                    "malloc@@GLIBC_2.2.5",
                    "leak_c",
                    "runtime.asmcgocall",
                    "runtime.cgocall",
                    "main._Cfunc_leak_c",
                    "main.leak",
                ],
                "malloc",
                "leak_c",
                vec!["main.leak"],
            ),
            (
                vec!["runtime.memclrNoHeapPointers", "runtime.mallocgc", "runtime.growslice", "main.cache"],
                "append",
                "main.cache",
                vec![],
            ),
            (
                vec![
                    "internal/runtime/syscall.Syscall6",
                    "syscall.mmap",
                    "syscall.(*mmapper).Mmap",
                    "syscall.Mmap",
                    "main.mapped",
                ],
                "mmap",
                "main.mapped",
                vec![],
            ),
        ];
        for (stack, verb, shown, callers) in cases {
            assert_eq!(folded(&stack), (Some(verb), Some(shown), callers));
        }
    }

    #[test]
    fn a_stack_of_nothing_but_runtime_names_its_outermost_function() {
        let worker = ["runtime.memclrNoHeapPointers", "runtime.gcBgMarkWorker", "runtime.goexit"];
        assert_eq!(folded(&worker), (None, Some("runtime.gcBgMarkWorker"), vec![]));
        assert_eq!(folded(&["_int_malloc", "malloc"]), (Some("malloc"), None, vec![]));
        assert_eq!(folded(&[]), (None, None, vec![]));
    }

    #[test]
    fn without_callers_of_its_own_the_next_one_is_shown() {
        let handler =
            ["runtime.growslice", "main.handle", "net/http.HandlerFunc.ServeHTTP", "net/http.(*conn).serve"];
        assert_eq!(folded(&handler).2, ["net/http.HandlerFunc.ServeHTTP"]);
    }

    #[test]
    fn directories_go_and_type_parameters_stay() {
        assert_eq!(without_directories("github.com/a/b/pkg.(*T).M"), "pkg.(*T).M");
        assert_eq!(without_directories("a/b.F[github.com/x/y.T]"), "b.F[github.com/x/y.T]");
        assert_eq!(without_directories("main"), "main");
    }
}
