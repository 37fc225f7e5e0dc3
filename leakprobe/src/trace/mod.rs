//! What the window sees: probes in the kernel, the ring buffer, what was lost.
//!
//! The only module that knows aya. What is watched with every backend is in [`probes`], where the system calls
//! are seen in [`backend`].

pub mod backend;
pub mod decode;
pub mod fills;
pub mod holders;
pub mod probes;
pub mod rate;
pub mod recording;
mod refusal;
mod summary;
pub mod tracefs;
mod trial;
pub mod unwound;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap as BpfHashMap, MapData, MapError, MapType, PerCpuArray, RingBuf};
use aya::sys::is_map_supported;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use leakprobe_ebpf::{RING_BYTES, Settings, counter};

use self::backend::Backend;
use self::decode::RawStack;
use self::rate::{Sampler, StackRate};
use self::recording::{Ending, Recording, Unwound};
pub use self::refusal::AttachError;
pub(crate) use self::refusal::refusal;
pub use self::summary::{LostRow, Probe, Tracing};
use crate::address::AddrRange;
use crate::runtimes::go::ThreadFields;
use crate::target::namespace::NamespacedPid;

/// The kernel side, as build.rs made it; empty where there was no BPF toolchain.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/leakprobe-kernel"));

/// What the kernel keeps of each record in the ring buffer (Linux `include/uapi/linux/bpf.h`, `BPF_RINGBUF_HDR_SZ`).
const RECORD_HEADER_BYTES: usize = 8;

/// No process has this id.
const NOBODY: NamespacedPid = NamespacedPid { pid: u32::MAX, namespace: None };

/// What the kernel side needs to know of the target.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    /// The process.
    pub process: NamespacedPid,
    /// Go's text.
    pub go_text: Option<AddrRange>,
    /// The race detector's C++ code.
    pub race_text: Option<AddrRange>,
    /// The functions through which Go enters the race detector.
    pub race_calls: Option<AddrRange>,
    /// Where goroutine stacks may lie.
    pub go_heap: Option<AddrRange>,
    /// Where fields of Go's threads and goroutines lie.
    pub go_fields: Option<ThreadFields>,
}

/// Probes that are attached, until this is dropped or the process dies, however it dies: they hang on
/// file descriptors of ours and are never pinned.
pub struct Tracer {
    /// Dropping it detaches and unloads.
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    settings: Array<MapData, Settings>,
    go_machines: BpfHashMap<MapData, u32, u64>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    backend: Backend,
    probes: Vec<Probe>,
    watched: NamespacedPid,
    counted_on_trial: Vec<u64>,
    /// What probes before these missed.
    missed_before: u64,
    faults: Sampler,
    calls: Sampler,
    /// What the kernel side was told last.
    told: Option<(u32, u32)>,
    last_tick: Instant,
}

impl Tracer {
    /// Loads the programs and attaches them, on system calls by the backend that is wanted, or else the best
    /// one; what could not be attached is in the report.
    ///
    /// # Errors
    /// Where page faults or system calls cannot be seen: without them there is nothing to watch.
    pub fn attach(
        watched: &Watched,
        wanted: Option<Backend>,
        stack_rate: StackRate,
        verbose: bool,
    ) -> Result<Self, AttachError> {
        if OBJECT.is_empty() {
            return Err(AttachError::NoObject);
        }
        lift_memlock_limit();
        refusal::ensure_ring_buffer(&is_map_supported(MapType::RingBuf))?;
        let mut ebpf = load(watched, verbose).map_err(refusal)?;
        let mut ring = take_map(&mut ebpf, "EVENTS")?;
        let mut settings: Array<MapData, Settings> = take_map(&mut ebpf, "SETTINGS")?;
        let logger = if verbose { EbpfLogger::init(&mut ebpf).ok() } else { None };
        let ourselves = NamespacedPid::ours().map_err(refusal)?;
        settings.set(0, settings_for(ourselves, (1, 1), true), 0).map_err(refusal)?;
        let mut probes = probes::attach_always(&mut ebpf)?;
        let chosen = backend::attach(&mut ebpf, &mut ring, wanted)?;
        probes.extend(chosen.probes);
        let counters = take_map(&mut ebpf, "COUNTERS")?;
        // What we did ourselves since the last trial is not the target's: nobody is watched while it is thrown away.
        settings.set(0, settings_for(NOBODY, (1, 1), true), 0).map_err(refusal)?;
        while ring.next().is_some() {}
        let mut tracer = Self {
            ring,
            counted_on_trial: counts(&counters).map_err(refusal)?,
            counters,
            settings,
            go_machines: take_map(&mut ebpf, "GO_MACHINES")?,
            logger,
            backend: chosen.backend,
            probes,
            watched: watched.process,
            faults: Sampler::new(stack_rate),
            calls: Sampler::new(stack_rate),
            told: None,
            missed_before: 0,
            last_tick: Instant::now(),
            ebpf,
        };
        tracer.tell_periods();
        Ok(tracer)
    }

    /// Where system calls are seen.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The probes, with those that saw nothing of what they were tried on.
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// The window begins: growth counts from here, at a rate that fits what was seen since attaching.
    ///
    /// # Errors
    /// Where the counters cannot be read.
    pub fn begin(&mut self) -> Result<()> {
        self.adapt()?;
        self.faults.begin();
        self.calls.begin();
        Ok(())
    }

    /// Tells the probes which of Go's threads is which. What finds no room is looked for by rules of thumb.
    pub fn know_go_threads(&mut self, machines: impl IntoIterator<Item = (u32, u64)>) {
        for (tid, machine_addr) in machines {
            if self.go_machines.insert(tid, machine_addr, 0).is_err() {
                break;
            }
        }
    }

    /// Takes what waits in the ring buffer into `recording`, unwinding each stack at once: captured, it
    /// is a thousand times larger than unwound. At most a whole ring buffer of it: events may come as fast
    /// as they are taken.
    pub fn drain(&mut self, recording: &mut Recording, mut unwind: impl FnMut(&RawStack<'_>) -> Unwound) {
        let mut left_bytes = RING_BYTES as usize;
        while left_bytes > 0 {
            let Some(bytes) = self.ring.next() else { break };
            left_bytes = left_bytes.saturating_sub(bytes.len() + RECORD_HEADER_BYTES);
            match decode::decode(&bytes) {
                Some(event) => {
                    let unwound = event.stack.as_ref().map(&mut unwind);
                    recording.take(&event, unwound);
                }
                None => recording.take_undecodable(),
            }
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Records no more from here on; what waits in the ring buffer stays there.
    ///
    /// # Errors
    /// Where the probes cannot be told.
    pub fn end(&mut self) -> Result<()> {
        self.watched = NOBODY;
        self.told = None;
        self.tell_periods();
        self.told.map(drop).context("tell the probes to record no more")
    }

    /// Counts what `earlier` probes lost of the same process as its own.
    ///
    /// # Errors
    /// Where their counters cannot be read.
    pub fn add_losses_of(&mut self, earlier: &Self) -> Result<()> {
        for slot in 0..counter::SLOTS {
            let before = &mut self.counted_on_trial[slot as usize];
            *before = before.wrapping_sub(earlier.count(slot)?);
        }
        self.missed_before += earlier.missed_runs();
        Ok(())
    }

    fn missed_runs(&self) -> u64 {
        probes::missed_runs(&self.ebpf) + self.missed_before
    }

    /// Adapts the share of events that get a stack to how many there are. Called a few times a second.
    ///
    /// # Errors
    /// Where the counters cannot be read.
    pub fn adapt(&mut self) -> Result<()> {
        let elapsed_seconds = self.last_tick.elapsed().as_secs_f64();
        self.last_tick = Instant::now();
        self.faults.adapt(self.count(counter::FAULTS_SEEN)?, elapsed_seconds);
        self.calls.adapt(self.count(counter::CALLS_SEEN)?, elapsed_seconds);
        self.tell_periods();
        Ok(())
    }

    /// What the report says of the probes.
    ///
    /// # Errors
    /// Where the counters cannot be read: then nothing can be said of losses.
    pub fn summary(&self, recording: &Recording) -> Result<Tracing> {
        let mut lost = Vec::new();
        for (slot, cause) in LOSSES {
            lost.push(LostRow { cause: cause.into(), count: self.count(slot)? });
        }
        lost.push(LostRow { cause: "probes_busy".into(), count: self.missed_runs() });
        lost.push(LostRow { cause: "records_undecodable".into(), count: recording.undecodable() });
        lost.push(LostRow { cause: "stacks_table_full".into(), count: recording.stacks_refused() });
        lost.push(LostRow { cause: "mappings_table_full".into(), count: recording.mappings_refused() });
        lost.push(LostRow { cause: "fills_table_full".into(), count: recording.fills_refused() });
        lost.push(LostRow { cause: "pages_table_full".into(), count: recording.pages_refused() });
        Ok(Tracing {
            events: recording.events().clone(),
            lost,
            // In a burst the probes thin out by themselves.
            stack_sample_rate: Some(u64::from(
                self.faults.sparsest_period.max(recording.sparsest_fault_weight()),
            )),
            call_stack_sample_rate: Some(u64::from(
                self.calls.sparsest_period.max(recording.sparsest_call_weight()),
            )),
            own_peak_rss: None,
            stacks_truncated: recording.stacks_truncated(),
            stacks_truncated_by: truncated_by(recording),
            probes: self.probes.clone(),
        })
    }

    fn tell_periods(&mut self) {
        let periods = (self.faults.period, self.calls.period);
        // A failure leaves the old rate: stacks carry their own weight, so nothing is wrong with them.
        let settings = settings_for(self.watched, periods, self.faults.is_fixed());
        if self.told != Some(periods) && self.settings.set(0, settings, 0).is_ok() {
            self.told = Some(periods);
        }
    }

    fn count(&self, slot: u32) -> Result<u64> {
        let now = sum(&self.counters, slot).context("read the probes' counters")?;
        Ok(now.wrapping_sub(self.counted_on_trial[slot as usize]))
    }
}

impl AsFd for Tracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Why stacks ended early, where some did.
fn truncated_by(recording: &Recording) -> Vec<LostRow> {
    let row =
        |ending: Ending| LostRow { cause: ending.words().into(), count: recording.stacks_ended(ending) };
    Ending::EARLY.into_iter().map(row).filter(|row| row.count > 0).collect()
}

/// Every way in which the kernel side can lose something, by the name it has in the report.
const LOSSES: [(u32, &str); 12] = [
    (counter::FAULTS_RING_FULL, "faults_ring_full"),
    (counter::CALLS_RING_FULL, "calls_ring_full"),
    (counter::CALLS_PENDING_FULL, "calls_pending_full"),
    (counter::CALLS_UNPAIRED, "calls_unpaired"),
    (counter::CALLS_UNRETURNED, "calls_unreturned"),
    (counter::CALLS_UNREADABLE, "calls_unreadable"),
    (counter::CALLS_UNPLACED, "calls_unplaced"),
    (counter::EXITS_RING_FULL, "exits_ring_full"),
    (counter::STACKS_RING_BUSY, "stacks_ring_busy"),
    (counter::STACKS_UNREADABLE, "stacks_unreadable"),
    (counter::STACKS_SCRATCH_BUSY, "stacks_scratch_busy"),
    (counter::SCRATCH_MISSING, "scratch_missing"),
];
const _: () = assert!(LOSSES.len() + 2 == counter::SLOTS as usize); // all but what was seen

fn load(watched: &Watched, verbose: bool) -> Result<Ebpf, aya::EbpfError> {
    let bounds =
        |range: Option<AddrRange>| range.map_or((0u64, 0u64), |range| (range.start_addr, range.end_addr));
    let (text_start, text_end) = bounds(watched.go_text);
    let (race_text_start, race_text_end) = bounds(watched.race_text);
    let (race_start, race_end) = bounds(watched.race_calls);
    let (heap_start, heap_end) = bounds(watched.go_heap);
    let field = |offset: fn(&ThreadFields) -> u64| watched.go_fields.as_ref().map_or(0, offset);
    let has_task_regs = u32::from(probes::has_task_regs());
    let log_level: u8 = if verbose { 0xff } else { 0 };
    EbpfLoader::new()
        .override_global("HAS_TASK_REGS", &has_task_regs, true)
        .override_global("GO_TEXT_START", &text_start, true)
        .override_global("GO_TEXT_END", &text_end, true)
        .override_global("RACE_TEXT_START", &race_text_start, true)
        .override_global("RACE_TEXT_END", &race_text_end, true)
        .override_global("RACE_CALL_START", &race_start, true)
        .override_global("RACE_CALL_END", &race_end, true)
        .override_global("GO_CURG_OFFSET", &field(|it| it.curg_offset), true)
        .override_global("GO_STACK_OFFSET", &field(|it| it.stack_offset), true)
        .override_global("GO_SCHED_PC_OFFSET", &field(|it| it.sched_pc_offset), true)
        .override_global("GO_SCHED_SP_OFFSET", &field(|it| it.sched_sp_offset), true)
        .override_global("GO_SCHED_BP_OFFSET", &field(|it| it.sched_bp_offset), true)
        .override_global("GO_HEAP_START", &heap_start, true)
        .override_global("GO_HEAP_END", &heap_end, true)
        .override_global(aya_log::LEVEL, &log_level, false)
        .load(OBJECT)
}

/// All counters, each summed over the processors.
fn counts(counters: &PerCpuArray<MapData, u64>) -> Result<Vec<u64>, MapError> {
    (0..counter::SLOTS).map(|slot| sum(counters, slot)).collect()
}

fn sum(counters: &PerCpuArray<MapData, u64>, slot: u32) -> Result<u64, MapError> {
    Ok(counters.get(&slot, 0)?.iter().sum())
}

/// `periods`: of page faults, and of system calls.
fn settings_for(watched: NamespacedPid, periods: (u32, u32), is_fixed: bool) -> Settings {
    let namespace = watched.namespace;
    Settings {
        fault_stack_period: periods.0,
        call_stack_period: periods.1,
        watched_tgid: watched.pid,
        is_fixed: u32::from(is_fixed),
        namespace_dev: namespace.map_or(0, |namespace| namespace.dev),
        namespace_inode: namespace.map_or(0, |namespace| namespace.inode),
    }
}

/// Kernels before 5.11 charge maps against the limit of locked memory. Later ones do not, and there a
/// refusal (it takes CAP_SYS_RESOURCE) means nothing.
fn lift_memlock_limit() {
    let unlimited = rustix::process::Rlimit { current: None, maximum: None };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
}

fn take_map<T: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &str) -> Result<T, AttachError> {
    ebpf.take_map(name)
        .and_then(|map| T::try_from(map).ok())
        .ok_or_else(|| AttachError::KernelLacks { error: format!("the BPF object has no map {name}") })
}
