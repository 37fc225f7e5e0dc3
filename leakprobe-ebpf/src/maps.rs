//! Every map and every constant that user space sets, with what each costs and who writes it.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use leakprobe_ebpf::{Event, GO_THREADS, PENDING_CALLS, PendingCall, RING_BYTES, Settings, Stack, counter};

use crate::regs;

/// All events, in the order in which they were recorded. Written here, read by user space. When full,
/// events are dropped and counted.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// How often each [`counter`] happened, by processor. Written here, summed by user space.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::SLOTS, 0);

/// One entry that user space rewrites while the probes run.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// System calls under way, by thread: inserted on entry, taken out on return. When full, calls are
/// dropped and counted. Not preallocated: idle it costs nothing.
#[map]
pub static PENDING: HashMap<u64, PendingCall> =
    HashMap::with_max_entries(PENDING_CALLS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Go's `m` by thread, which leads to both stacks of a thread. Written by user space, which finds them in the target.
/// Where it is full or late, the probes look for the other stack by rules of thumb.
#[map]
pub static GO_MACHINES: HashMap<u32, u64> =
    HashMap::with_max_entries(GO_THREADS, aya_ebpf::bindings::BPF_F_NO_PREALLOC);

/// Room for one record with its stack, by processor: too large for the 512 bytes a BPF program has.
/// Whoever fills it has [`Scratch::owner`] set: reading the target's memory may itself take a fault, and
/// so run a program inside the program, and a kernel may preempt one program by another.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A record under construction.
#[repr(C)]
pub struct Scratch {
    /// What is sent, cut to length.
    pub record: StackedEvent,
    /// Thread for which it is being filled; 0 for none.
    pub owner: u32,
    /// Not used.
    pub padding: u32,
    /// User registers.
    pub regs: [u64; regs::WORDS],
    /// Never written: reads whose length the verifier cannot relate to their offset stay inside the map.
    pub slack: [u8; 4096],
}

/// An event and its stack, as they lie in the ring buffer.
#[repr(C)]
pub struct StackedEvent {
    /// The event.
    pub event: Event,
    /// Its stack.
    pub stack: Stack,
}

/// 1 where the kernel has `bpf_task_pt_regs` (Linux 5.15). Set at load, so that the verifier never
/// sees the call where it would refuse it.
#[unsafe(no_mangle)]
pub static HAS_TASK_REGS: Global<u32> = Global::new(0);
/// First address of Go's text; 0 in a process without Go.
#[unsafe(no_mangle)]
pub static GO_TEXT_START: Global<u64> = Global::new(0);
/// First address after Go's text.
#[unsafe(no_mangle)]
pub static GO_TEXT_END: Global<u64> = Global::new(0);
/// First address of the race detector's C++ code, which Go's own linker puts inside Go's text; 0 for none.
#[unsafe(no_mangle)]
pub static RACE_TEXT_START: Global<u64> = Global::new(0);
/// First address after it.
#[unsafe(no_mangle)]
pub static RACE_TEXT_END: Global<u64> = Global::new(0);
/// First address of the assembly functions through which Go enters the race detector; 0 without -race.
#[unsafe(no_mangle)]
pub static RACE_CALL_START: Global<u64> = Global::new(0);
/// First address after them.
#[unsafe(no_mangle)]
pub static RACE_CALL_END: Global<u64> = Global::new(0);
/// Offset of the goroutine that a thread runs, in Go's `m`.
#[unsafe(no_mangle)]
pub static GO_CURG_OFFSET: Global<u64> = Global::new(0);
/// Offset of a goroutine's stack bounds, in Go's `g`.
#[unsafe(no_mangle)]
pub static GO_STACK_OFFSET: Global<u64> = Global::new(0);
/// Offsets of what a goroutine saves of its registers when it leaves its stack.
#[unsafe(no_mangle)]
pub static GO_SCHED_PC_OFFSET: Global<u64> = Global::new(0);
/// Likewise.
#[unsafe(no_mangle)]
pub static GO_SCHED_SP_OFFSET: Global<u64> = Global::new(0);
/// Likewise.
#[unsafe(no_mangle)]
pub static GO_SCHED_BP_OFFSET: Global<u64> = Global::new(0);
/// First address where Go's heap, and so goroutine stacks, may lie.
#[unsafe(no_mangle)]
pub static GO_HEAP_START: Global<u64> = Global::new(0);
/// First address after that.
#[unsafe(no_mangle)]
pub static GO_HEAP_END: Global<u64> = Global::new(0);
