//! The types that cross from the kernel to user space, each defined once, here.
//!
//! No `bool`, `enum`, `Option` or `usize`: only fixed-width integers with named padding, so that any
//! bit pattern is a value and user space can check it. A record is an [`Event`], and where
//! [`Event::stack_weight`] is not zero a [`Stack`] follows it, cut to what is used of it.

#![no_std]

/// Kinds of [`Event`]. Zero is none of them.
pub mod kind {
    /// A page fault taken in user mode. `addr`: what was touched; `low_arg`: the hardware's error code, of which
    /// bit 0 says that the page was there and bit 1 that it was written to.
    pub const FAULT_USER: u32 = 1;
    /// A page fault the kernel took on the process's behalf, in read(2) for example. Fields as above.
    pub const FAULT_KERNEL: u32 = 2;
    /// mmap(2) succeeded. `addr`: its result; `args`: length, protection, flags; `low_arg`: file descriptor.
    pub const MMAP: u32 = 3;
    /// munmap(2) succeeded. `addr`; `args`: length.
    pub const MUNMAP: u32 = 4;
    /// mremap(2) succeeded. `addr`: the old address; `args`: old length, new length, result.
    pub const MREMAP: u32 = 5;
    /// brk(2) succeeded. `addr`: the new break.
    pub const BRK: u32 = 6;
    /// madvise(2) succeeded. `addr`; `args`: length, advice.
    pub const MADVISE: u32 = 7;
    /// mprotect(2) succeeded. `addr`; `args`: length, protection.
    pub const MPROTECT: u32 = 8;
    /// A thread of the process exited. No arguments.
    pub const THREAD_EXIT: u32 = 9;
    /// The process replaced itself by execve(2): every address from before is void. No arguments.
    pub const EXEC: u32 = 10;
    /// mlock(2) succeeded. `addr`; `args`: length.
    pub const MLOCK: u32 = 11;
    /// mlock2(2) succeeded. `addr`; `args`: length, flags.
    pub const MLOCK2: u32 = 12;
}

/// Advice to madvise(2) that fills memory without a fault, and so has a stack of its own: `MADV_POPULATE_READ`,
/// `MADV_POPULATE_WRITE` and `MADV_COLLAPSE` (include/uapi/asm-generic/mman-common.h).
pub const FILLING_ADVICE: [u64; 3] = [22, 23, 25];

/// Slots of the `COUNTERS` map: how often something was seen or lost, summed over processors.
pub mod counter {
    /// Faults of the process that the probes saw, recorded or not.
    pub const FAULTS_SEEN: u32 = 0;
    /// Faults not recorded since the ring buffer was full.
    pub const FAULTS_RING_FULL: u32 = 1;
    /// System calls not recorded since the ring buffer was full.
    pub const CALLS_RING_FULL: u32 = 2;
    /// System calls whose arguments found no room between entry and exit.
    pub const CALLS_PENDING_FULL: u32 = 3;
    /// System calls that had entered before the probes were attached.
    pub const CALLS_UNPAIRED: u32 = 4;
    /// Exits of threads and exec not recorded since the ring buffer was full.
    pub const EXITS_RING_FULL: u32 = 5;
    /// Stacks left out since the ring buffer was more than half full; their event was recorded.
    pub const STACKS_RING_BUSY: u32 = 6;
    /// Stacks of which not even the registers could be read.
    pub const STACKS_UNREADABLE: u32 = 7;
    /// Events dropped inside the kernel program because its scratch memory was missing: never, in theory.
    pub const SCRATCH_MISSING: u32 = 8;
    /// Stacks left out since another one was being captured on the same processor.
    pub const STACKS_SCRATCH_BUSY: u32 = 9;
    /// System calls of whose success or result the kernel's own tracepoints say nothing.
    pub const CALLS_UNPLACED: u32 = 10;
    /// System calls whose return no probe saw: the thread is in another one already.
    pub const CALLS_UNRETURNED: u32 = 11;
    /// System calls whose arguments could not be read.
    pub const CALLS_UNREADABLE: u32 = 12;
    /// System calls of the process that a stack is kept of, one in so many, recorded or not.
    pub const CALLS_SEEN: u32 = 13;
    /// How many slots there are.
    pub const SLOTS: u32 = 14;
}

/// One thing that happened to the process's memory. 64 bytes; a fault without a stack is cut to the first
/// [`FAULT_BYTES`], since faults come by the million and what follows says nothing of them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    /// One of [`kind`].
    pub kind: u32,
    /// Thread that did it, as the process's own PID namespace numbers it.
    pub tid: u32,
    /// CLOCK_MONOTONIC when it was recorded, in nanoseconds: for system calls, on their return.
    pub time_ns: u64,
    /// The address it is about, by kind.
    pub addr: u64,
    /// How many events this one's stack stands for; 0 where no stack follows.
    pub stack_weight: u32,
    /// By kind: the low half of an argument of which nobody needs more.
    pub low_arg: u32,
    /// When the system call was entered, in nanoseconds; `time_ns` for everything else. What an unmap
    /// removed, it removed after this moment: pages touched later than it may be new.
    pub entered_ns: u64,
    /// By kind.
    pub args: [u64; 3],
}

/// Most return addresses in a list of frames, and links in a chain.
pub const MAX_FRAMES: usize = 128;
/// Bytes copied from the stack pointer of native code upwards, where the stack is so deep.
pub const STACK_COPY_BYTES: usize = 16 << 10;
/// Bytes copied from the stack pointer of Go code: further up, frame pointers lead on.
pub const GO_COPY_BYTES: usize = 4096;
/// Bytes copied from the other stack of a thread that has two.
pub const OTHER_COPY_BYTES: usize = 4096;

/// A frame as the frame-pointer chain of a Go stack has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ChainLink {
    /// Where the saved frame pointer lies (the frame's own frame pointer).
    pub frame_addr: u64,
    /// The return address above it.
    pub return_addr: u64,
}

/// What follows [`Stack`]'s head.
pub mod form {
    /// No registers were to be had: `frames` at the head's end.
    pub const FRAMES: u32 = 0;
    /// A thread on its only stack, in a process without Go: the stack's bytes at the head's end.
    pub const NATIVE: u32 = 1;
    /// A process with Go, or a signal handler on a stack of its own: [`super::GoParts`], then the stack's bytes.
    pub const GO: u32 = 2;
}

/// The state of a thread at an event: what user space needs to unwind it afterwards. The stack's bytes come last,
/// as many as there are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stack {
    /// User-mode instruction pointer.
    pub ip: u64,
    /// User-mode stack pointer.
    pub sp: u64,
    /// User-mode frame pointer (rbp).
    pub bp: u64,
    /// rbx, r10, r12, r13, r14, r15. In r12 Go's `racecall` keeps its caller's stack pointer.
    pub saved: [u64; 6],
    /// One of [`form`].
    pub form: u32,
    /// Bytes copied from `sp` upwards.
    pub copy_bytes: u32,
    /// Entries of [`GoParts::chain`], or of the list of frames.
    pub chain_count: u32,
    /// Bytes of [`GoParts::other_copy`].
    pub other_copy_bytes: u32,
    /// By `form`.
    pub tail: [u8; STACK_TAIL_BYTES],
}

/// What else is known of a thread that may run Go code.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GoParts {
    /// Go's `m` of the thread; 0 where user space has not said which that is.
    pub machine: u64,
    /// Where the goroutine left its stack for the one that the thread is on (`g.sched`: pc, sp, bp); 0 where it did not.
    pub left_pc: u64,
    /// See `left_pc`.
    pub left_sp: u64,
    /// See `left_pc`.
    pub left_bp: u64,
    /// The stack pointer of `racecall`'s caller; 0 if not found.
    pub race_sp: u64,
    /// Where `other_copy` was copied from; 0 for nowhere.
    pub other_sp: u64,
    /// A chain of frame pointers on the goroutine's stack.
    pub chain: [ChainLink; MAX_FRAMES],
    /// The bytes from `other_sp` upwards.
    pub other_copy: [u8; OTHER_COPY_BYTES],
}

/// Length of an event and the head of its stack.
pub const STACK_HEAD_BYTES: usize = EVENT_BYTES + core::mem::offset_of!(Stack, tail);
/// Room for everything that may follow the head.
pub const STACK_TAIL_BYTES: usize = size_of::<GoParts>() + STACK_COPY_BYTES;
/// Length of a fault without a stack: the event up to where system calls' fields begin.
pub const FAULT_BYTES: usize = core::mem::offset_of!(Event, entered_ns);
/// Length of an event.
pub const EVENT_BYTES: usize = size_of::<Event>();

/// What user space changes while the probes run.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Settings {
    /// One fault in so many gets a stack; 1 is all of them, 0 counts as 1.
    pub fault_stack_period: u32,
    /// The same of system calls that map, move or fill memory.
    pub call_stack_period: u32,
    /// Thread group id of the process that is watched, in its own PID namespace: ourselves while the probes are on
    /// trial.
    pub watched_tgid: u32,
    /// 1 where these rates are to be kept in a burst, too.
    pub is_fixed: u32,
    /// The device number of that namespace's file, as the kernel has it.
    pub namespace_dev: u64,
    /// Its inode number; 0 for the initial namespace.
    pub namespace_inode: u64,
}

/// What is known of a system call between its entry and its return.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingCall {
    /// When it was entered, or had the lock of the address space.
    pub entered_ns: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Where the kernel keeps the user's registers; 0 where the probe does not know.
    pub regs_addr: u64,
    /// The free area that the kernel found for it last.
    pub area_addr: u64,
    /// How many bytes it looked for; 0 where it did not look.
    pub area_bytes: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// How it looked: bit 0 for downwards.
    pub area_flags: u32,
}

/// Bytes of the ring buffer: some 200,000 faults without stacks.
pub const RING_BYTES: u32 = 8 << 20;
/// User space is woken early once so many bytes wait; before that, its own timer finds them.
pub const RING_WAKE_BYTES: u64 = RING_BYTES as u64 / 8;
/// No stacks once so many bytes wait, to keep room for the events themselves.
pub const RING_BUSY_BYTES: u64 = RING_BYTES as u64 / 2;
/// Threads of Go whose `m` is known to the probes.
pub const GO_THREADS: u32 = 16_384;
/// System calls of the process that may be under way at once.
pub const PENDING_CALLS: u32 = 16_384;

const _: () = assert!(EVENT_BYTES == 64 && FAULT_BYTES == 32);
const _: () = assert!(size_of::<ChainLink>() == 16);
const _: () = assert!(size_of::<GoParts>() == 48 + 2048 + 4096);
const _: () = assert!(size_of::<Stack>() == 88 + STACK_TAIL_BYTES);
const _: () = assert!(size_of::<Settings>() == 32 && size_of::<PendingCall>() == 88);
const _: () = assert!(RING_BYTES.is_power_of_two());

#[cfg(not(target_arch = "bpf"))]
mod user_space {
    // SAFETY: `repr(C)`, integers only, no implicit padding: every bit pattern is a value.
    unsafe impl aya::Pod for super::Settings {}
}
