//! What a stack is about: the innermost function a reader may have written, what it asked the runtime for,
//! and who called it.
//!
//! Runtimes, allocators and the C library are folded into a word: "go statement", "malloc", "append". It
//! goes by names alone and refuses to drop a frame it does not know. The surprise: a mistake here only makes
//! a line less telling; bytes and owners are decided elsewhere, and full stacks are never folded.

mod names;

use self::names::{is_allocation, is_go_library, is_plumbing, is_root, verb};
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
    let own = innermost_own(frames);
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

/// The innermost frame that works for nobody: neither by its name, nor because an allocator of the same file called it,
/// whatever that calls its parts.
fn innermost_own(frames: &[Frame]) -> Option<usize> {
    let mut from = 0;
    loop {
        let own = from + frames[from..].iter().position(|frame| !is_inner(frame))?;
        let module = &frames[own].module;
        let mut same_file = frames[own..].iter().take_while(|frame| frame.module == *module);
        match same_file.position(|frame| is_inner(frame) && is_allocation(name(frame))) {
            Some(entry) => from = own + entry + 1,
            None => return Some(own),
        }
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

    /// The function that a stack of these is shown to be about.
    fn shown<'a>(functions: &[&'a str]) -> Option<&'a str> {
        folded(functions).1
    }

    #[test]
    fn rusts_collections_are_not_the_program() {
        // As they were seen on stacks, generics and the outer frames cut.
        let map = [
            "core::ptr::copy_nonoverlapping",
            "hashbrown::raw::RawTableInner::resize_inner",
            "hashbrown::map::HashMap<K,V,S,A>::insert",
            "std::collections::hash::map::HashMap<K,V,S,A>::insert",
            "stacks::fill_map",
        ];
        let tree = [
            "_int_malloc",
            "__GI___libc_malloc",
            "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
            "alloc::collections::btree::map::BTreeMap<K,V,A>::insert",
            "stacks::fill_tree",
        ];
        let text = [
            "__memcpy_avx512_unaligned_erms",
            "<alloc::string::String as core::iter::traits::collect::Extend<alloc::string::String>>::extend",
            "<core::iter::adapters::map::Map<I,F> as core::iter::traits::iterator::Iterator>::fold",
            "stacks::fill_text",
        ];
        let from_elem = ["<T as alloc::vec::spec_from_elem::SpecFromElem>::from_elem", "app::buffers"];
        let to_vec = ["<&mut [u8] as alloc::slice::hack::ConvertVec>::to_vec", "app::copied"];
        assert_eq!(shown(&map), Some("stacks::fill_map"));
        assert_eq!(shown(&tree), Some("stacks::fill_tree"));
        assert_eq!(shown(&text), Some("stacks::fill_text"));
        assert_eq!(shown(&from_elem), Some("app::buffers"));
        assert_eq!(shown(&to_vec), Some("app::copied"));
        for own in [
            "<app::Cache as core::iter::traits::collect::Extend<u8>>::extend",
            "<&mut app::Cache as core::iter::traits::iterator::Iterator>::next",
            "<T as app::Store>::put",
        ] {
            assert_eq!(shown(&["malloc", own, "main"]), Some(own));
        }
    }

    #[test]
    fn templates_are_known_behind_the_type_they_return() {
        let grow =
            "void std::vector<app::Item, std::allocator<app::Item> >::_M_realloc_insert<app::Item>(int)";
        assert_eq!(shown(&["operator new(unsigned long)", grow, "app::fill()"]), Some("app::fill()"));
        for own in [
            "std::vector<int> app::made<int>(std::string (*)(int))",
            "(anonymous namespace)::leak_records(unsigned long)",
            "app::(anonymous namespace)::leak()",
            "app::List::operator->() const",
        ] {
            assert_eq!(shown(&["malloc", own, "main"]), Some(own));
        }
    }

    #[test]
    fn what_an_allocator_calls_is_the_allocator() {
        let frame = |module: &str, name: &str| {
            let (function, module) = (Some(name.to_owned()), Some(module.to_owned()));
            Frame { function, module, ..Frame::default() }
        };
        let stack = ["extent_grow", "arena_bin_malloc", "malloc"].map(|name| frame("libjemalloc.so.2", name));
        let leak = [frame("app", "leak"), frame("app", "main")];
        let of = |inner: &[Frame]| fold(&[inner, &leak].concat());
        assert_eq!((of(&stack).shown, of(&stack).verb), (Some(3), Some("malloc")));
        // A signal came meanwhile: its handler is the program's.
        let handler =
            [frame("app", "on_signal"), frame("libc.so.6", "__restore_rt"), frame("libc.so.6", "malloc")];
        assert_eq!(of(&handler).shown, Some(0));
        let linked_in = ["_rjem_je_arena_slab", "slab_of", "_rjem_malloc"].map(|name| frame("app", name));
        assert_eq!(of(&linked_in).shown, Some(3));
        assert_eq!(of(&[frame("app", "grow"), frame("app", "malloc_leak")]).shown, Some(0));
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
