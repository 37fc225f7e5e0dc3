//! Capturing what user space needs to unwind a thread later: registers, frames, bytes of its stacks.
//!
//! What is copied is chosen by rules of thumb; what is believed is decided in user space, which unwinds
//! exactly and only looks up here the memory it needs. A wrong guess costs a shorter stack, never a
//! wrong one.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_kernel, bpf_probe_read_user};
use leakprobe_ebpf::{CALLER_COPY_BYTES, ChainLink, MAX_FRAMES, STACK_COPY_BYTES, Stack};

use crate::maps::{
    GO_HEAP_END, GO_HEAP_START, GO_TEXT_END, GO_TEXT_START, RACE_CALL_END, RACE_CALL_START, RACE_TEXT_END,
    RACE_TEXT_START, Scratch,
};
use crate::regs;

/// How much of [`Stack`] is worth sending.
pub enum Extent {
    /// Registers and frames.
    Frames,
    /// And the bytes at the stack pointer.
    Native,
    /// And what is needed to reach Go code.
    Whole,
}

const PAGE_MASK: u64 = 4095;
/// Words of the stack looked at for the way back to Go.
const SCANNED_WORDS: usize = 160;
/// How far up its own stack the race detector's caller may be.
const SAME_STACK_BYTES: u64 = 64 << 10;

/// Fills `scratch.record.stack`; `None` where not even the registers can be had.
#[inline(always)]
pub fn capture<const INTO_GO: bool, C: EbpfContext>(
    ctx: &C,
    scratch: &mut Scratch,
    known_regs: *const u8,
) -> Option<Extent> {
    let stack = &mut scratch.record.stack;
    stack.copy_bytes = 0;
    stack.caller_copy_bytes = 0;
    stack.chain_count = 0;
    stack.caller_sp = 0;
    // SAFETY: the buffer is MAX_FRAMES words long.
    let got_bytes = unsafe {
        bpf_get_stack(
            ctx.as_ptr(),
            stack.frames.as_mut_ptr().cast(),
            (MAX_FRAMES * 8) as u32,
            u64::from(BPF_F_USER_STACK),
        )
    };
    stack.frame_count = if got_bytes > 0 { got_bytes as u32 / 8 } else { 0 };
    if !read_regs(&mut scratch.regs, known_regs) {
        stack.ip = stack.frames[0];
        stack.sp = 0;
        stack.bp = 0;
        stack.r12 = 0;
        return (stack.frame_count > 0).then_some(Extent::Frames);
    }
    stack.ip = scratch.regs[regs::IP];
    stack.sp = scratch.regs[regs::SP];
    stack.bp = scratch.regs[regs::BP];
    stack.r12 = scratch.regs[regs::R12];
    if is_go_text(stack.ip) {
        return Some(Extent::Frames); // Go code always keeps frame pointers
    }
    copy_stack(stack);
    if !INTO_GO || GO_TEXT_END.load() == 0 {
        return Some(Extent::Native);
    }
    if RACE_CALL_END.load() != 0 {
        copy_race_caller(stack);
    }
    follow_goroutine(stack);
    Some(Extent::Whole)
}

#[inline(always)]
fn read_regs(to: &mut [u64; regs::WORDS], known: *const u8) -> bool {
    let from = if known.is_null() { regs::current_addr() as *const u8 } else { known };
    if from.is_null() {
        return false;
    }
    // SAFETY: the helper checks `from`; `to` is as long as said.
    unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), (regs::WORDS * 8) as u32, from.cast()) == 0 }
}

/// Copies upwards from the stack pointer: to the end of its page, then, if it is there, the rest from
/// the next page. One read across both would fail as a whole where the second is missing.
#[inline(always)]
fn copy_stack(stack: &mut Stack) {
    let to = stack.copy.as_mut_ptr();
    let first_bytes = (PAGE_MASK + 1) - (stack.sp & PAGE_MASK);
    // SAFETY: at most a page is written, and `copy` is a page long.
    if unsafe { bpf_probe_read_user(to.cast(), first_bytes as u32, stack.sp as *const _) } != 0 {
        return;
    }
    stack.copy_bytes = first_bytes as u32;
    let rest_bytes = stack.sp & PAGE_MASK;
    // SAFETY: both parts together are a page; the verifier, which cannot see that, is content with the
    // map's slack behind the record.
    let rest = unsafe {
        bpf_probe_read_user(
            to.add(first_bytes as usize).cast(),
            rest_bytes as u32,
            (stack.sp + first_bytes) as *const _,
        )
    };
    if rest == 0 {
        stack.copy_bytes = STACK_COPY_BYTES as u32;
    }
}

/// Finds where Go called the race detector, and copies its stack from there.
///
/// `racecall` (Go's runtime/race_amd64.s) keeps its caller's stack pointer in r12, which the C ABI
/// preserves: it is there still, or was pushed onto this stack.
#[inline(always)]
fn copy_race_caller(stack: &mut Stack) {
    let mut caller_sp = 0;
    if is_race_caller(stack.r12) {
        caller_sp = stack.r12;
    } else {
        for index in 0..SCANNED_WORDS {
            if (index + 1) * 8 > stack.copy_bytes as usize {
                break;
            }
            let word = copied_word(stack, index);
            if (is_goroutine_stack(word) || word.wrapping_sub(stack.sp) < SAME_STACK_BYTES)
                && is_race_caller(word)
            {
                caller_sp = word;
                break;
            }
        }
    }
    if caller_sp == 0 {
        return;
    }
    let to_page_end = (PAGE_MASK + 1) - (caller_sp & PAGE_MASK);
    let to = stack.caller_copy.as_mut_ptr();
    for len_bytes in [CALLER_COPY_BYTES as u64, to_page_end.min(CALLER_COPY_BYTES as u64)] {
        // SAFETY: neither length exceeds `caller_copy`.
        if unsafe { bpf_probe_read_user(to.cast(), len_bytes as u32, caller_sp as *const _) } == 0 {
            stack.caller_sp = caller_sp;
            stack.caller_copy_bytes = len_bytes as u32;
            break;
        }
    }
}

/// Walks the frame pointers of the goroutine for which native code runs. Its first link is the saved
/// frame pointer that the first Go function below (`systemstack`'s callee, or C's first frame) pushed.
#[inline(always)]
fn follow_goroutine(stack: &mut Stack) {
    let mut frame_addr = 0;
    for index in 0..SCANNED_WORDS {
        if (index + 2) * 8 > stack.caller_copy_bytes as usize {
            break;
        }
        // SAFETY: both words are inside `caller_copy`, checked above and by the constant bound.
        let (word, above) = unsafe {
            let at = stack.caller_copy.as_ptr().cast::<u64>().add(index);
            (at.read(), at.add(1).read())
        };
        // On the goroutine's own stack, what lies below the caller is no frame of it any more. A saved
        // frame pointer has the return address above it; other pointers to frames do not.
        let below = is_goroutine_stack(stack.caller_sp) && word <= stack.caller_sp;
        if !below && is_go_text(above) && is_go_frame(word) {
            frame_addr = word;
            break;
        }
    }
    // C code may have left the register alone; on the way from the race detector it is mostly stale.
    if frame_addr == 0 && is_go_frame(stack.bp) {
        frame_addr = stack.bp;
    }
    if frame_addr == 0 {
        for index in 0..SCANNED_WORDS {
            if (index + 1) * 8 > stack.copy_bytes as usize {
                break;
            }
            let word = copied_word(stack, index);
            if is_go_frame(word) {
                frame_addr = word;
                break;
            }
        }
    }
    let mut count = 0;
    for index in 0..MAX_FRAMES {
        let Some(link) = read_link(frame_addr) else { break };
        stack.chain[index] = ChainLink { frame_addr, return_addr: link[1] };
        count = index as u32 + 1;
        if link[0] <= frame_addr {
            break;
        }
        frame_addr = link[0];
    }
    stack.chain_count = count;
}

#[inline(always)]
fn copied_word(stack: &Stack, index: usize) -> u64 {
    // SAFETY: every caller's index is below SCANNED_WORDS, inside `copy`.
    unsafe { stack.copy.as_ptr().cast::<u64>().add(index).read() }
}

/// A saved frame pointer and the return address above it; `None` outside user space or Go's text.
#[inline(always)]
fn read_link(frame_addr: u64) -> Option<[u64; 2]> {
    if frame_addr == 0 || frame_addr & 7 != 0 {
        return None;
    }
    let mut link = [0u64; 2];
    // SAFETY: the helper checks the address; `link` is 16 bytes long.
    let read = unsafe { bpf_probe_read_user(link.as_mut_ptr().cast(), 16, frame_addr as *const _) };
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
fn is_go_text(addr: u64) -> bool {
    let in_text = addr >= GO_TEXT_START.load() && addr < GO_TEXT_END.load();
    in_text && !(addr >= RACE_TEXT_START.load() && addr < RACE_TEXT_END.load())
}

#[inline(always)]
fn is_goroutine_stack(word: u64) -> bool {
    word & 7 == 0 && word >= GO_HEAP_START.load() && word < GO_HEAP_END.load()
}
