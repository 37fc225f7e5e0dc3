//! All goroutines of a process, read from outside while it runs: how many do the same, and where.
//!
//! `runtime.allgs` lists them; each says its state and, unless it runs, where it left its stack (Go
//! `src/runtime/runtime2.go`, `g`; 1.19 to 1.27). What was caught between two states is read again, and
//! counted where that does not help. The surprise: no list of them is ever held, so
//! a million takes no more memory than a thousand.

mod bulk;
mod groups;
mod record;
mod walk;

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

use self::bulk::Wanted;
use self::groups::Groups;
pub use self::groups::{Group, StackPages};
pub use self::record::State;
use self::record::{Goroutine, Reading};
use self::walk::{Stack, Walker};
use super::code::GoCode;
use super::heap::{Slice, read_list};
use super::layout::GoroutineLayout;
use crate::claim::Gap;
use crate::target::memory::Memory;

/// More than this is no list of goroutines: their stacks alone would be 100 GB.
const MAX_GOROUTINES: u64 = 50_000_000;
/// Goroutines looked at together.
const BATCH: u64 = 1 << 16;
/// What is read of a stack at first; deeper words one by one.
const STACK_READ_BYTES: u64 = 8 << 10;
/// The list is moved when it grows, in microseconds.
const MAX_ATTEMPTS: usize = 16;
/// A goroutine that was torn is read again so often.
const MAX_REREADS: usize = 3;
/// Of garbage every one is torn.
const MAX_REREADS_IN_ALL: u64 = 20_000;
/// Names of reasons are short (Go `src/runtime/runtime2.go`, `waitReasonStrings`).
const MAX_REASON_BYTES: u64 = 64;
/// Start addresses remembered.
const MAX_STARTS: usize = 1 << 16;

/// Where things are.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The process.
    pub memory: &'a dyn Memory,
    /// How a goroutine is laid out.
    pub layout: &'a GoroutineLayout,
    /// Whose functions are on the stacks: the program's, and its plug-ins'.
    pub code: &'a [GoCode<'a>],
    /// `runtime.allgs`.
    pub allgs_addr: u64,
    /// `runtime.waitReasonStrings`, where it was found.
    pub reasons_addr: Option<u64>,
    /// Where their stacks are resident.
    pub stack_pages: &'a StackPages,
}

/// The goroutines of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goroutines {
    /// Those of the program, by what they do; most first.
    pub groups: Vec<Group>,
    /// Those of the program, as `runtime.NumGoroutine` counts.
    pub count: u64,
    /// Size of their stacks.
    pub stack_bytes: u64,
    /// The runtime's own.
    pub system: u64,
    /// Remains of ended ones, kept for new ones.
    pub dead: u64,
    /// Those that could not be read, or whose stack could not be walked to its end.
    pub torn: u64,
    /// What the numbers of wait reasons stand for.
    pub reasons: HashMap<u8, String>,
}

impl Goroutines {
    /// What is missing.
    pub fn gaps(&self) -> Vec<Gap> {
        if self.torn == 0 {
            return Vec::new();
        }
        let what = format!("the whole of {} of the goroutines", self.torn);
        let why = "they changed while they were read, or their stacks lead nowhere".to_owned();
        vec![Gap { what, why, bytes: None }]
    }
}

/// Reads them all; `now_ns` is the monotonic clock's.
///
/// # Errors
/// Where the list cannot be read, or is none.
pub fn read(sources: &Sources<'_>, now_ns: u64) -> Result<Goroutines> {
    let mut reader = Reader {
        sources: *sources,
        walker: Walker::new(sources.code, sources.layout.arch),
        groups: Groups::new(now_ns, sources.stack_pages),
        starts: HashMap::new(),
        totals: Goroutines::default(),
        rereads_left: MAX_REREADS_IN_ALL,
    };
    let len = reader.list()?.len;
    let mut index = 0;
    while index < len {
        let mut addrs = reader.piece(index, BATCH.min(len - index))?;
        index += addrs.len() as u64;
        addrs.sort_unstable();
        reader.read_batch(&addrs);
    }
    let Reader { groups, mut totals, .. } = reader;
    totals.groups = groups.into_sorted();
    totals.reasons = reasons(sources, &totals.groups);
    Ok(totals)
}

struct Reader<'a> {
    sources: Sources<'a>,
    walker: Walker<'a>,
    groups: Groups<'a>,
    /// Whether what starts there is the runtime's own.
    starts: HashMap<u64, bool>,
    totals: Goroutines,
    rereads_left: u64,
}

impl Reader<'_> {
    fn list(&self) -> Result<Slice> {
        let mut list = Slice::read(self.sources.memory, self.sources.allgs_addr);
        for _ in 1..MAX_ATTEMPTS {
            if list.is_ok() {
                break;
            }
            list = Slice::read(self.sources.memory, self.sources.allgs_addr);
        }
        let list = list.context("read runtime.allgs")?;
        if list.len > MAX_GOROUTINES {
            bail!("{} goroutines in runtime.allgs", list.len);
        }
        Ok(list)
    }

    /// Addresses of `len` goroutines from number `index` on. The list only grows, and moves when it does.
    fn piece(&self, index: u64, len: u64) -> Result<Vec<u64>> {
        for _ in 0..MAX_ATTEMPTS {
            let list = self.list()?;
            let addr = index.checked_mul(8).and_then(|bytes| list.data_addr.checked_add(bytes));
            let piece = read_list(self.sources.memory, addr.context("runtime.allgs is nowhere")?, len);
            if self.list()?.data_addr == list.data_addr {
                return piece.context("read the list of goroutines");
            }
        }
        bail!("the list of goroutines moved each time it was read");
    }

    /// `addrs` are sorted.
    fn read_batch(&mut self, addrs: &[u64]) {
        let Sources { memory, layout, .. } = self.sources;
        let len_bytes = layout.read_bytes() as u64;
        let wanted: Vec<Wanted> = addrs.iter().map(|&addr| Wanted { addr, len_bytes }).collect();
        let mut stopped: Vec<(u64, Goroutine, Wanted)> = Vec::new();
        bulk::read(memory, &wanted, |index, bytes| {
            let addr = addrs[index];
            match bytes.map_or(Reading::Torn, |bytes| record::parse(bytes, layout)) {
                Reading::Live(goroutine) => match used_stack(&goroutine) {
                    Some(used) => stopped.push((addr, goroutine, used)),
                    None => self.count(&goroutine, &[]),
                },
                Reading::Dead => self.totals.dead += 1,
                Reading::Torn => self.read_again(addr),
            }
        });
        stopped.sort_unstable_by_key(|(_, _, used)| used.addr);
        let wanted: Vec<Wanted> = stopped.iter().map(|(_, _, used)| *used).collect();
        let mut code_addrs = Vec::new();
        bulk::read(memory, &wanted, |index, bytes| {
            let (addr, goroutine, used) = &stopped[index];
            match self.walk(goroutine, used.addr, bytes.unwrap_or_default(), &mut code_addrs) {
                true => self.count(goroutine, &code_addrs),
                false => self.read_again(*addr),
            }
        });
    }

    /// One by itself, a few times: it may have been caught while it changed.
    fn read_again(&mut self, addr: u64) {
        let Sources { memory, layout, .. } = self.sources;
        let mut last = None;
        for _ in 0..MAX_REREADS {
            if self.rereads_left == 0 {
                break;
            }
            self.rereads_left -= 1;
            let Ok(bytes) = memory.read_vec(addr, layout.read_bytes()) else { continue };
            let goroutine = match record::parse(&bytes, layout) {
                Reading::Live(goroutine) => goroutine,
                Reading::Dead => {
                    self.totals.dead += 1;
                    return;
                }
                Reading::Torn => continue,
            };
            let mut code_addrs = Vec::new();
            let whole = used_stack(&goroutine)
                .is_none_or(|used| self.walk(&goroutine, used.addr, &[], &mut code_addrs));
            if whole {
                self.count(&goroutine, &code_addrs);
                return;
            }
            last = Some((goroutine, code_addrs));
        }
        self.totals.torn += 1;
        // What is known of it counts: a goroutine whose stack ends early is one nevertheless.
        if let Some((goroutine, code_addrs)) = last {
            self.count(&goroutine, &code_addrs);
        }
    }

    fn walk(&mut self, goroutine: &Goroutine, start_addr: u64, bytes: &[u8], found: &mut Vec<u64>) -> bool {
        found.clear();
        let stack = Stack { memory: self.sources.memory, range: goroutine.stack, start_addr, bytes };
        goroutine.saved.is_none_or(|saved| self.walker.walk(saved, &stack, found))
    }

    fn count(&mut self, goroutine: &Goroutine, code_addrs: &[u64]) {
        if self.is_system(goroutine.start_addr) {
            self.totals.system += 1;
            return;
        }
        self.totals.count += 1;
        self.totals.stack_bytes = self.totals.stack_bytes.saturating_add(goroutine.stack.len_bytes());
        self.groups.add(goroutine, code_addrs);
    }

    fn is_system(&mut self, start_addr: u64) -> bool {
        if let Some(is_system) = self.starts.get(&start_addr) {
            return *is_system;
        }
        let is_system = self.walker.function_name(start_addr).is_some_and(is_system);
        if self.starts.len() < MAX_STARTS {
            self.starts.insert(start_addr, is_system);
        }
        is_system
    }
}

/// What of its stack a goroutine that does not run may be using, as far as it is read at once.
fn used_stack(goroutine: &Goroutine) -> Option<Wanted> {
    let addr = goroutine.saved?.sp;
    let len_bytes = goroutine.stack.end_addr.checked_sub(addr)?.min(STACK_READ_BYTES);
    Some(Wanted { addr, len_bytes })
}

/// Go `src/runtime/traceback.go`, `isSystemGoroutine`, as far as it does not depend on the moment.
fn is_system(function: &str) -> bool {
    function.starts_with("runtime.")
        && !matches!(function, "runtime.main" | "runtime.corostart" | "runtime.handleAsyncEvent")
}

fn reasons(sources: &Sources<'_>, groups: &[Group]) -> HashMap<u8, String> {
    let mut reasons = HashMap::new();
    for reason in groups.iter().filter_map(|group| group.reason) {
        let known = || reason_at(sources.memory, sources.reasons_addr?, reason);
        reasons.entry(reason).or_insert_with(|| known().unwrap_or_else(|| format!("wait reason {reason}")));
    }
    reasons
}

/// An element of `waitReasonStrings`: the address and the length of a text.
fn reason_at(memory: &dyn Memory, table_addr: u64, reason: u8) -> Option<String> {
    let element_addr = table_addr.checked_add(u64::from(reason) * 16)?;
    let [text_addr, len_bytes] = super::heap::read_words(memory, element_addr).ok()?;
    if !(1..=MAX_REASON_BYTES).contains(&len_bytes) {
        return None;
    }
    String::from_utf8(memory.read_vec(text_addr, usize::try_from(len_bytes).ok()?).ok()?).ok()
}

#[cfg(test)]
mod tests;
