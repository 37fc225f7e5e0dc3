//! What runs in the target at one moment: its files, its runtimes, and what the probes have to know of them.

use anyhow::Result;

use crate::address::AddrRange;
use crate::claim::Gap;
use crate::host;
use crate::runtimes::Runtimes;
use crate::runtimes::code::CodeRoles;
use crate::runtimes::go::GoRuntime;
use crate::runtimes::go::goroutines::{Goroutines, StackPages};
use crate::target::Target;
use crate::target::modules::{self, Module};
use crate::trace::Watched;
use crate::unwind::Unwinder;

/// Go's arenas follow each other; no window is long enough for the heap to grow by more.
const HEAP_ROOM_BYTES: u64 = 1 << 40;

/// The files and runtimes of a process.
pub struct Scene {
    /// The files whose code it runs.
    pub modules: Vec<Module>,
    /// What they are.
    pub runtimes: Runtimes,
    /// What could not be read of them.
    pub gaps: Vec<Gap>,
}

impl Scene {
    /// As it is now.
    pub fn now(target: &Target) -> Self {
        let (modules, mut gaps) = modules::open_all(target, &target.regions());
        let (runtimes, unread) = Runtimes::find(target, &modules);
        gaps.extend(unread);
        Self { modules, runtimes, gaps }
    }

    /// Whether it is a Go program whose runtime is not there yet.
    pub fn awaits_go(&self) -> bool {
        self.runtimes.build.is_some() && self.runtimes.go.is_empty()
    }

    /// Which code is whose.
    pub fn code_roles(&self) -> CodeRoles {
        self.runtimes.code_roles(&self.modules, &self.runtimes.race_text(&self.modules))
    }

    /// Unwinds its stacks.
    pub fn unwinder(&self, target: &Target) -> Unwinder<'_> {
        Unwinder::new(&self.modules, &target.regions(), self.runtimes.go_code())
    }

    /// What the goroutines of each Go runtime do now, whose stacks lie on `stack_pages`. What cannot be read is a gap.
    pub fn goroutines(
        &self,
        target: &Target,
        stack_pages: &StackPages,
        gaps: &mut Vec<Gap>,
    ) -> Vec<Goroutines> {
        let mut all = Vec::new();
        for go in &self.runtimes.go {
            match go.goroutines(target, &self.runtimes.plugins, stack_pages, host::monotonic_ns()) {
                Ok(found) => {
                    gaps.extend(found.gaps());
                    all.push(found);
                }
                Err(error) => {
                    gaps.push(Gap { what: "goroutines".to_owned(), why: format!("{error:#}"), bytes: None });
                }
            }
        }
        all
    }

    /// What the kernel side needs to know.
    ///
    /// # Errors
    /// Where the process has no id here.
    pub fn watched(&self, target: &Target) -> Result<Watched> {
        let race_text = self.runtimes.race_text(&self.modules);
        let hull = race_text.first().zip(race_text.last());
        // The kernel side knows one: the executable's, or else the first library's.
        let go = self.runtimes.go.first();
        Ok(Watched {
            process: target.namespaced_pid()?,
            go_text: go.and_then(|go| go.text_range()),
            race_text: hull.and_then(|(first, last)| AddrRange::new(first.start_addr, last.end_addr)),
            race_calls: go.and_then(|go| go.race_call_range()),
            go_fields: go.and_then(GoRuntime::thread_fields),
            go_heap: go.and_then(|go| stack_range(&go.heap_ranges(target).ok()?)),
        })
    }
}

/// Where goroutine stacks may lie: from the heap's first arena to well beyond its last, since it grows.
fn stack_range(heap: &[AddrRange]) -> Option<AddrRange> {
    AddrRange::new(heap.first()?.start_addr, heap.last()?.end_addr.checked_add(HEAP_ROOM_BYTES)?)
}
