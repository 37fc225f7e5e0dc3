//! The heap profile without pprof: `runtime.mbuckets` by allocation stack, scaled as `runtime/pprof` does it.
//!
//! Refuses a list with anything but memory buckets of sane sizes. Checked against what `runtime/pprof` writes in
//! the same program. The surprise: the profile is as of the collection before the last, so it lags behind the
//! spans, and in a program that cannot reach `runtime.MemProfile` the linker switches it off altogether.
//!
//! What a reader of the profile sees (Go `src/runtime/mprof.go`, 1.19 to 1.27): the active cycle, and of those to
//! come the one whose number is current, which the reader would flush first. The other two hold what no sweep has
//! compared with its frees yet: they are kept apart, as what may be in use for all that is known.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};

use super::find::Global;
use super::heap::{read_list, read_words};
use super::metadata::Reader;

/// Allocation sites: the largest programs have some ten thousand.
const MAX_BUCKETS: usize = 1 << 20;
/// `GODEBUG=profstackdepth` allows no more (Go `src/runtime/runtime1.go`), and two frames for the runtime itself.
const MAX_STACK_WORDS: u64 = 1024 + 2;
/// Addresses kept of all stacks together: 32 MiB.
const MAX_KEPT_WORDS: usize = 1 << 22;
/// A `bucket`: next, allnext, typ, hash, size, nstk (Go `src/runtime/mprof.go`, 1.19 to 1.27). The stack
/// follows, and then a `memRecord`.
const BUCKET_BYTES: u64 = 48;
/// `memProfile`, the type of a bucket.
const MEMORY_BUCKET: u64 = 1;
/// No object and no number of objects is larger.
const MAX_SANE: u64 = 1 << 48;
/// Cycles that are not published yet: `memRecord.future`.
const FUTURE_CYCLES: usize = 3;
/// How often the profile is read again where a collection ended meanwhile.
const MAX_ATTEMPTS: usize = 4;

/// What the program's own heap profile would show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapProfile {
    /// Mean number of bytes between two samples; 0 where the program keeps no profile.
    pub rate_bytes: u64,
    /// Bytes in use.
    pub in_use_bytes: u64,
    /// Objects in use.
    pub in_use_objects: u64,
    /// The same by allocation stack, most bytes first.
    pub sites: Vec<HeldSite>,
    /// Bytes by allocation stack with the cycles that are not published: never less than were in use by then.
    pub counted: HashMap<Box<[u64]>, u64>,
    /// Collections ended all the while it was read: it is of more than one cycle.
    pub is_torn: bool,
    /// The process has other Go heaps, of which it says nothing.
    pub has_others: bool,
}

/// Objects in use that one stack allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSite {
    /// Return addresses, innermost first: one for each call of the source, inlined ones too. Empty for stacks
    /// beyond those that are kept.
    pub stack: Box<[u64]>,
    /// Their bytes.
    pub bytes: u64,
    /// Their number.
    pub objects: u64,
}

impl HeapProfile {
    /// Whether the program keeps one.
    pub fn is_kept(&self) -> bool {
        self.rate_bytes > 0
    }
}

/// Reads the profile: one that is not kept where the program switched it off.
pub fn read(reader: &Reader<'_>) -> Result<HeapProfile> {
    let rate = reader.memory.read_u64(reader.globals.addr(Global::MemProfileRate)?)?.cast_signed();
    let Some(rate_bytes) = u64::try_from(rate).ok().filter(|rate| *rate > 0) else {
        return Ok(HeapProfile::default());
    };
    let mut attempts_left = MAX_ATTEMPTS;
    loop {
        let before = cycle_word(reader)?;
        let current = before.map(|word| usize::try_from(word >> 1)).transpose()?;
        let profile = read_buckets(reader, rate_bytes, current.map(|number| number % FUTURE_CYCLES))?;
        attempts_left -= 1;
        let is_torn = cycle_word(reader)? != before;
        if attempts_left == 0 || !is_torn {
            return Ok(HeapProfile { is_torn, ..profile });
        }
    }
}

/// `mProfCycle`: the number of the current cycle, above a bit that is set when it is flushed. `None` where it is
/// nowhere.
fn cycle_word(reader: &Reader<'_>) -> Result<Option<u32>> {
    let Ok(addr) = reader.globals.addr(Global::MemProfileCycle) else { return Ok(None) };
    Ok(Some(reader.memory.read_u32(addr)?))
}

/// What is published; everything there is where nothing was published yet.
fn read_buckets(reader: &Reader<'_>, rate_bytes: u64, current: Option<usize>) -> Result<HeapProfile> {
    let mut published = Tally::default();
    let mut everything = Tally::default();
    let mut is_published = false;
    let mut bucket_addr = reader.memory.read_u64(reader.globals.addr(Global::Mbuckets)?)?;
    let mut buckets_left = MAX_BUCKETS;
    while bucket_addr != 0 {
        buckets_left = buckets_left.checked_sub(1).context("buckets without end")?;
        let bucket = Bucket::read(reader, bucket_addr)?;
        let flushed = current.and_then(|index| bucket.future.get(index).copied()).unwrap_or_default();
        let seen = bucket.active.plus(flushed);
        is_published |= seen != Cycle::default();
        published.add(&bucket, seen, rate_bytes);
        let all = bucket.future.into_iter().fold(bucket.active, Cycle::plus);
        everything.add(&bucket, all, rate_bytes);
        bucket_addr = bucket.next_addr;
    }
    let counted = everything.by_stack.iter().map(|(stack, (bytes, _))| (stack.clone(), *bytes)).collect();
    // Before the first collection the profile is whatever was counted so far.
    let shown = if is_published { published } else { everything };
    Ok(HeapProfile { counted, ..shown.into_profile(rate_bytes) })
}

/// `memRecordCycle`, as far as every version has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cycle {
    allocs: u64,
    frees: u64,
}

impl Cycle {
    fn plus(self, other: Self) -> Self {
        Self { allocs: self.allocs.wrapping_add(other.allocs), frees: self.frees.wrapping_add(other.frees) }
    }
}

struct Bucket {
    next_addr: u64,
    size_bytes: u64,
    stack: Vec<u64>,
    active: Cycle,
    future: [Cycle; FUTURE_CYCLES],
}

impl Bucket {
    fn read(reader: &Reader<'_>, addr: u64) -> Result<Self> {
        let [_, next_addr, kind, _, size_bytes, stack_words] = read_words(reader.memory, addr)?;
        if kind != MEMORY_BUCKET || size_bytes > MAX_SANE || stack_words > MAX_STACK_WORDS {
            bail!("a bucket of type {kind}, {size_bytes} bytes and {stack_words} callers at {addr:#x}");
        }
        let cycle_words = reader.layout.profile_cycle_bytes / 8;
        let words = stack_words + (1 + FUTURE_CYCLES as u64) * cycle_words;
        let mut stack = read_list(reader.memory, addr.wrapping_add(BUCKET_BYTES), words)?;
        let records = stack.split_off(usize::try_from(stack_words)?);
        let mut cycles = records.chunks_exact(usize::try_from(cycle_words)?);
        let mut cycle = || match cycles.next() {
            Some(&[allocs, frees, ..]) => Ok(Cycle { allocs, frees }),
            _ => bail!("a bucket without records at {addr:#x}"),
        };
        Ok(Self { next_addr, size_bytes, stack, active: cycle()?, future: [cycle()?, cycle()?, cycle()?] })
    }
}

/// Bytes and objects by stack.
#[derive(Default)]
struct Tally {
    by_stack: HashMap<Box<[u64]>, (u64, u64)>,
    kept_words: usize,
}

impl Tally {
    fn add(&mut self, bucket: &Bucket, cycle: Cycle, rate_bytes: u64) {
        let (objects, bytes) = scaled(cycle, bucket.size_bytes, rate_bytes);
        if objects == 0 {
            return;
        }
        let mut stack = bucket.stack.as_slice();
        if !self.by_stack.contains_key(stack) {
            if self.kept_words.saturating_add(stack.len()) > MAX_KEPT_WORDS {
                stack = &[];
            }
            self.kept_words += stack.len();
            self.by_stack.entry(stack.into()).or_default();
        }
        if let Some((sum_bytes, sum_objects)) = self.by_stack.get_mut(stack) {
            *sum_bytes = sum_bytes.saturating_add(bytes);
            *sum_objects = sum_objects.saturating_add(objects);
        }
    }

    fn into_profile(self, rate_bytes: u64) -> HeapProfile {
        let site = |(stack, (bytes, objects))| HeldSite { stack, bytes, objects };
        let mut sites: Vec<HeldSite> = self.by_stack.into_iter().map(site).collect();
        sites.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.stack.cmp(&b.stack)));
        HeapProfile {
            rate_bytes,
            in_use_bytes: sites.iter().fold(0, |sum: u64, site| sum.saturating_add(site.bytes)),
            in_use_objects: sites.iter().fold(0, |sum: u64, site| sum.saturating_add(site.objects)),
            sites,
            ..HeapProfile::default()
        }
    }
}

/// Objects and bytes in use that the samples of one size stand for. Go `src/runtime/pprof/protomem.go`,
/// `scaleHeapSample`: a sample of that size was taken with a probability of 1-exp(-size/rate).
fn scaled(cycle: Cycle, size_bytes: u64, rate_bytes: u64) -> (u64, u64) {
    let objects = cycle.allocs.wrapping_sub(cycle.frees);
    // Negative for a moment, where it changes while it is read.
    if objects == 0 || objects > MAX_SANE || size_bytes == 0 {
        return (0, 0);
    }
    let bytes = objects.saturating_mul(size_bytes);
    if rate_bytes == 1 {
        return (objects, bytes);
    }
    let scale = 1.0 / (1.0 - (-(size_bytes as f64) / rate_bytes as f64).exp());
    ((objects as f64 * scale) as u64, (bytes as f64 * scale) as u64)
}

#[cfg(test)]
mod tests;
