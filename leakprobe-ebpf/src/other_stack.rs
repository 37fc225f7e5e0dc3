//! The other stack of a thread: of Go's threads, which have two, and of one whose signal handler has its own.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use leakprobe_ebpf::{ChainLink, GoParts, MAX_FRAMES, OTHER_COPY_BYTES, Stack};

use crate::maps::{
    GO_CURG_OFFSET, GO_HEAP_END, GO_HEAP_START, GO_MACHINES, GO_SCHED_BP_OFFSET, GO_SCHED_PC_OFFSET,
    GO_SCHED_SP_OFFSET, GO_STACK_OFFSET, GO_TEXT_END, GO_TEXT_START, RACE_CALL_END, RACE_CALL_START,
    RACE_TEXT_END, RACE_TEXT_START,
};
use crate::stack::{PAGE_BYTES, PAGE_MASK, SAVED_R12};

/// Words of the stack looked at for the way back to Go.
const SCANNED_WORDS: usize = 160;
/// Frames of Go in which a call from C is looked for, where the thread is not known.
const CALLBACK_FRAMES: usize = 32;
/// How far up its own stack the race detector's caller may be.
const SAME_STACK_BYTES: u64 = 64 << 10;

/// What is known of Go, at the beginning of the tail.
#[inline(always)]
fn parts(stack: &mut Stack) -> &mut GoParts {
    // SAFETY: the tail is longer than that, aligned as its structure is, and any bytes are one.
    unsafe { &mut *stack.tail.as_mut_ptr().cast::<GoParts>() }
}

#[inline(always)]
fn parts_of(stack: &Stack) -> &GoParts {
    // SAFETY: as above.
    unsafe { &*stack.tail.as_ptr().cast::<GoParts>() }
}

/// What is not known of Go, to begin with.
#[inline(always)]
pub fn clear_parts(stack: &mut Stack) {
    let parts = parts(stack);
    parts.machine = 0;
    parts.left_pc = 0;
    parts.left_sp = 0;
    parts.left_bp = 0;
    parts.race_sp = 0;
    parts.other_sp = 0;
}

/// A thread of Go has two stacks: the goroutine's, and its own, on which C and the runtime run. Copies the beginning
/// of the one that it is not on now, and follows the goroutine's frame pointers.
#[inline(always)]
pub fn find_other_stack<const INTO_GO: bool>(stack: &mut Stack, tid: u32) {
    clear_parts(stack);
    // SAFETY: nobody removes entries while the probes run.
    let machine = unsafe { GO_MACHINES.get(tid) }.copied().unwrap_or(0);
    parts(stack).machine = machine;
    let in_go = is_go_text(stack.ip);
    let goroutine = if machine == 0 { 0 } else { read_word(machine + GO_CURG_OFFSET.load()) };
    if INTO_GO && !in_go && RACE_CALL_END.load() != 0 {
        let caller_sp = race_caller_sp(stack);
        if caller_sp != 0 {
            parts(stack).race_sp = caller_sp;
            // The runtime, on the thread's own stack, had the goroutine leave its stack before it called.
            let left_bp = if is_goroutine_stack(caller_sp) { 0 } else { read_left(stack, goroutine) };
            let is_copied = caller_sp.wrapping_sub(stack.sp) < u64::from(stack.copy_bytes);
            let other_sp = if left_bp != 0 && is_copied { parts_of(stack).left_sp } else { caller_sp };
            copy_other(stack, other_sp);
            let start_addr = if left_bp != 0 { left_bp } else { chain_start(stack) };
            follow_chain(stack, start_addr);
            return;
        }
    }
    let bounds = goroutine + GO_STACK_OFFSET.load();
    let is_on_goroutine = goroutine != 0 && stack.sp >= read_word(bounds) && stack.sp < read_word(bounds + 8);
    let mut left_bp = 0;
    if is_on_goroutine {
        let scheduler = read_word(machine); // m.g0, the first field
        copy_other(stack, read_word(scheduler + GO_SCHED_SP_OFFSET.load()));
    } else if goroutine != 0 {
        left_bp = read_left(stack, goroutine);
        let left_sp = parts_of(stack).left_sp;
        copy_other(stack, left_sp);
    }
    let start_addr = if is_on_goroutine || (in_go && left_bp == 0) {
        stack.bp
    } else if left_bp != 0 {
        left_bp
    } else if INTO_GO {
        chain_start(stack)
    } else {
        0
    };
    follow_chain(stack, start_addr);
    if machine == 0 && in_go {
        let other_sp = crossing(stack);
        copy_other(stack, other_sp);
    }
}

/// Notes where a goroutine left its stack; its frame pointer there, 0 where it is not known.
#[inline(always)]
fn read_left(stack: &mut Stack, goroutine: u64) -> u64 {
    if goroutine == 0 {
        return 0;
    }
    let left_bp = read_word(goroutine + GO_SCHED_BP_OFFSET.load());
    let parts = parts(stack);
    parts.left_pc = read_word(goroutine + GO_SCHED_PC_OFFSET.load());
    parts.left_sp = read_word(goroutine + GO_SCHED_SP_OFFSET.load());
    parts.left_bp = left_bp;
    left_bp
}

/// Where a chain of frame pointers leaves the goroutine's stack for the thread's own, on which C called Go; 0 if it does
/// not.
#[inline(always)]
fn crossing(stack: &Stack) -> u64 {
    for index in 1..CALLBACK_FRAMES {
        if index >= stack.chain_count as usize {
            break;
        }
        let frame_addr = parts_of(stack).chain[index].frame_addr;
        if !is_goroutine_stack(frame_addr) {
            return frame_addr;
        }
    }
    0
}

/// Where Go called the race detector; 0 if it is not found.
///
/// `racecall` (Go's runtime/race_amd64.s) keeps its caller's stack pointer in r12, which the C ABI
/// preserves: it is there still, or was pushed onto this stack.
#[inline(always)]
fn race_caller_sp(stack: &Stack) -> u64 {
    if is_race_caller(stack.saved[SAVED_R12]) {
        return stack.saved[SAVED_R12];
    }
    for index in 0..SCANNED_WORDS {
        if (index + 1) * 8 > stack.copy_bytes as usize {
            break;
        }
        let word = copied_word(stack, index);
        if (is_goroutine_stack(word) || word.wrapping_sub(stack.sp) < SAME_STACK_BYTES)
            && is_race_caller(word)
        {
            return word;
        }
    }
    0
}

/// Copies the beginning of the other stack, to the end of its page and then the rest, as far as it is there.
#[inline(always)]
pub fn copy_other(stack: &mut Stack, other_sp: u64) {
    if other_sp == 0 {
        return;
    }
    let to = parts(stack).other_copy.as_mut_ptr();
    let first_bytes = PAGE_BYTES - (other_sp & PAGE_MASK);
    // SAFETY: at most a page is written, and `other_copy` is a page long.
    if unsafe { bpf_probe_read_user(to.cast(), first_bytes as u32, other_sp as *const _) } != 0 {
        return;
    }
    parts(stack).other_sp = other_sp;
    stack.other_copy_bytes = first_bytes as u32;
    let to = parts(stack).other_copy.as_mut_ptr();
    // SAFETY: both parts together are a page; behind it, the verifier sees the copy of the first stack.
    let rest = unsafe {
        bpf_probe_read_user(
            to.add(first_bytes as usize).cast(),
            (other_sp & PAGE_MASK) as u32,
            (other_sp + first_bytes) as *const _,
        )
    };
    if rest == 0 {
        stack.other_copy_bytes = OTHER_COPY_BYTES as u32;
    }
}

/// Where the frame pointers of the goroutine start for which native code runs, by rules of thumb: the saved
/// frame pointer that the first Go function below (`systemstack`'s callee, or C's first frame) pushed.
#[inline(always)]
fn chain_start(stack: &Stack) -> u64 {
    let parts = parts_of(stack);
    for index in 0..SCANNED_WORDS {
        if (index + 2) * 8 > stack.other_copy_bytes as usize {
            break;
        }
        // SAFETY: both words are inside `other_copy`, checked above and by the constant bound.
        let (word, above) = unsafe {
            let at = parts.other_copy.as_ptr().cast::<u64>().add(index);
            (at.read(), at.add(1).read())
        };
        // On the goroutine's own stack, what lies below the caller is no frame of it any more. A saved
        // frame pointer has the return address above it; other pointers to frames do not.
        let below = is_goroutine_stack(parts.other_sp) && word <= parts.other_sp;
        if !below && is_go_text(above) && is_go_frame(word) {
            return word;
        }
    }
    // C code may have left the register alone; on the way from the race detector it is mostly stale.
    if is_go_frame(stack.bp) {
        return stack.bp;
    }
    for index in 0..SCANNED_WORDS {
        if (index + 1) * 8 > stack.copy_bytes as usize {
            break;
        }
        let word = copied_word(stack, index);
        if is_go_frame(word) {
            return word;
        }
    }
    0
}

/// Walks frame pointers, across stacks where they lead there.
#[inline(always)]
fn follow_chain(stack: &mut Stack, start_addr: u64) {
    let mut frame_addr = start_addr;
    let mut count = 0;
    for index in 0..MAX_FRAMES {
        let Some(link) = read_link(frame_addr) else { break };
        parts(stack).chain[index] = ChainLink { frame_addr, return_addr: link[1] };
        count = index as u32 + 1;
        if link[0] == frame_addr {
            break;
        }
        frame_addr = link[0];
    }
    stack.chain_count = count;
}

/// A word of the target's memory, 0 where it cannot be read.
#[inline(always)]
fn read_word(addr: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the helper checks the address.
    if unsafe { bpf_probe_read_user((&raw mut word).cast(), 8, addr as *const _) } == 0 { word } else { 0 }
}

#[inline(always)]
fn copied_word(stack: &Stack, index: usize) -> u64 {
    // SAFETY: every caller's index is below SCANNED_WORDS, inside the copy; the tail is aligned as its structure is.
    unsafe { stack.tail.as_ptr().add(size_of::<GoParts>()).cast::<u64>().add(index).read() }
}

/// A saved frame pointer and the return address above it; `None` outside user space or Go's text.
#[inline(always)]
fn read_link(frame_addr: u64) -> Option<[u64; 2]> {
    if frame_addr == 0 || frame_addr & 7 != 0 {
        return None;
    }
    let mut link = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: the helper checks the address; `link` is 16 bytes long, and zeroed by the helper where it fails.
    let (read, link) = unsafe {
        let read = bpf_probe_read_user(link.as_mut_ptr().cast(), 16, frame_addr as *const _);
        (read, link.assume_init())
    };
    (read == 0 && is_go_text(link[1])).then_some(link)
}

#[inline(always)]
fn is_go_frame(word: u64) -> bool {
    is_goroutine_stack(word) && read_link(word).is_some()
}

/// Whether the word at `sp` is the return address of a call into the race functions: the instruction
/// before it is `call rel32` (opcode e8) and goes there.
#[inline(always)]
fn is_race_caller(sp: u64) -> bool {
    if sp & 7 != 0 || sp < 4096 {
        return false;
    }
    let mut return_addr = 0u64;
    // SAFETY: the helper checks the address.
    if unsafe { bpf_probe_read_user((&raw mut return_addr).cast(), 8, sp as *const _) } != 0 {
        return false;
    }
    if !is_go_text(return_addr) {
        return false;
    }
    let mut call = [0u8; 8];
    // SAFETY: the helper checks the address; text is mapped readable.
    if unsafe { bpf_probe_read_user(call.as_mut_ptr().cast(), 5, (return_addr - 5) as *const _) } != 0 {
        return false;
    }
    let relative = i32::from_le_bytes([call[1], call[2], call[3], call[4]]);
    let callee = return_addr.wrapping_add(relative as i64 as u64);
    call[0] == 0xe8 && (RACE_CALL_START.load()..RACE_CALL_END.load()).contains(&callee)
}

#[inline(always)]
pub fn is_go_text(addr: u64) -> bool {
    let in_text = addr >= GO_TEXT_START.load() && addr < GO_TEXT_END.load();
    in_text && !(addr >= RACE_TEXT_START.load() && addr < RACE_TEXT_END.load())
}

#[inline(always)]
fn is_goroutine_stack(word: u64) -> bool {
    word & 7 == 0 && word >= GO_HEAP_START.load() && word < GO_HEAP_END.load()
}
