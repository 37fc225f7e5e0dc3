//! Live tests: leakprobe on real programs, on this kernel. They need root, BPF and the programs' compilers;
//! `cargo xtask test` sees to all of it. A machine that cannot run them fails them.
//!
//! They run one at a time (`--test-threads=1`): each measures what one process does.

mod allocators;
mod backends;
mod bad_luck;
mod cgroup;
mod chain;
mod containers;
mod cpp;
mod damage;
mod files;
mod garbage;
mod go_heap;
mod go_libraries;
mod goroutines;
mod growth;
mod harness;
mod heap_profile;
mod heap_slack;
mod inside;
mod kernel;
mod lazily_freed;
mod left_behind;
mod malloc;
mod matrix;
mod moving;
mod other_go;
mod pprof;
mod privileges;
mod race_and_cgo;
mod race_detector;
mod retention;
mod run;
mod sampled;
mod sanitizer_table;
mod sanitizers;
mod sanitizers_everywhere;
mod saved;
mod schema;
mod sites;
mod stacks;
mod stacks_table;
mod storms;
mod told_apart;
mod versions;
mod versions_table;
