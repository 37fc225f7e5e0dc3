//! Capturing what user space needs to unwind a thread later: registers, frames, bytes of its stacks.
//!
//! What is copied is chosen by rules of thumb; what is believed is decided in user space, which unwinds
//! exactly and only looks up here the memory it needs. A wrong guess costs a shorter stack, never a
//! wrong one.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_USER_STACK;
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_kernel, bpf_probe_read_user};
use leakprobe_ebpf::{GO_COPY_BYTES, GoParts, MAX_FRAMES, STACK_COPY_BYTES, Stack, form};

use crate::maps::{GO_TEXT_END, Scratch};
use crate::other_stack::{clear_parts, copy_other, find_other_stack, is_go_text};
use crate::regs;

/// Where r12 is in [`Stack::saved`].
pub const SAVED_R12: usize = 2;
pub const PAGE_BYTES: u64 = 4096;
pub const PAGE_MASK: u64 = 4095;
/// Words of a signal handler's stack looked at for what it interrupted.
const SCANNED_FOR_SIGNAL_WORDS: usize = 1024;
/// Where the stack pointer is in `struct ucontext` (Linux `arch/x86/include/uapi/asm/sigcontext.h`).
const SIGNAL_SP_WORD: usize = 20;

/// Fills `scratch.record.stack`; says how much of its tail is used, or `None` where not even the registers can be had.
#[inline(always)]
pub fn capture<const INTO_GO: bool, C: EbpfContext>(
    ctx: &C,
    scratch: &mut Scratch,
    known_regs: *const u8,
) -> Option<usize> {
    let tid = scratch.owner;
    let stack = &mut scratch.record.stack;
    stack.copy_bytes = 0;
    stack.other_copy_bytes = 0;
    stack.chain_count = 0;
    if !read_regs(&mut scratch.regs, known_regs) {
        return frames_only(ctx, stack);
    }
    let words = &scratch.regs;
    stack.ip = words[regs::IP];
    stack.sp = words[regs::SP];
    stack.bp = words[regs::BP];
    stack.saved = [
        words[regs::BX],
        words[regs::R10],
        words[regs::R12],
        words[regs::R13],
        words[regs::R14],
        words[regs::R15],
    ];
    if GO_TEXT_END.load() == 0 {
        stack.form = form::NATIVE;
        copy_stack::<{ STACK_COPY_BYTES as u64 / PAGE_BYTES }>(stack, 0);
        let interrupted_sp = interrupted_sp(stack);
        if interrupted_sp == 0 {
            return Some(stack.copy_bytes as usize);
        }
        stack.form = form::GO;
        stack.copy_bytes = 0;
        copy_stack::<{ STACK_COPY_BYTES as u64 / PAGE_BYTES }>(stack, size_of::<GoParts>());
        clear_parts(stack);
        copy_other(stack, interrupted_sp);
        return Some(size_of::<GoParts>() + stack.copy_bytes as usize);
    }
    stack.form = form::GO;
    if is_go_text(stack.ip) {
        copy_stack::<{ GO_COPY_BYTES as u64 / PAGE_BYTES }>(stack, size_of::<GoParts>());
    } else {
        copy_stack::<{ STACK_COPY_BYTES as u64 / PAGE_BYTES }>(stack, size_of::<GoParts>());
    }
    find_other_stack::<INTO_GO>(stack, tid);
    Some(size_of::<GoParts>() + stack.copy_bytes as usize)
}

/// Where a signal interrupted the thread, if its handler runs on a stack of its own; 0 if not.
///
/// The kernel keeps the state above the handler's frames (`struct ucontext`): flags, a null link, the stack's place, flags
/// and size as sigaltstack(2) was told, then the registers. The place is what it is known by.
#[inline(always)]
fn interrupted_sp(stack: &Stack) -> u64 {
    for index in 0..SCANNED_FOR_SIGNAL_WORDS {
        if (index + SIGNAL_SP_WORD + 1) * 8 > stack.copy_bytes as usize {
            break;
        }
        // SAFETY: all words are inside the copy, checked above and by the constant bound.
        let [link, start, size, sp] = unsafe {
            let at = stack.tail.as_ptr().cast::<u64>().add(index);
            [at.add(1).read(), at.add(2).read(), at.add(4).read(), at.add(SIGNAL_SP_WORD).read()]
        };
        let is_on_it = start != 0 && size != 0 && stack.sp.wrapping_sub(start) < size;
        if link == 0 && is_on_it && sp.wrapping_sub(start) >= size {
            return sp;
        }
    }
    0
}

/// Without registers the kernel's own walk along the frame pointers is all there is.
#[inline(always)]
fn frames_only<C: EbpfContext>(ctx: &C, stack: &mut Stack) -> Option<usize> {
    stack.form = form::FRAMES;
    stack.sp = 0;
    stack.bp = 0;
    stack.saved = [0; 6];
    let len_bytes = (MAX_FRAMES * 8) as u32;
    // SAFETY: the buffer is longer than that.
    let got_bytes = unsafe {
        bpf_get_stack(ctx.as_ptr(), stack.tail.as_mut_ptr().cast(), len_bytes, u64::from(BPF_F_USER_STACK))
    };
    if got_bytes < 8 {
        return None;
    }
    stack.chain_count = got_bytes as u32 / 8;
    // SAFETY: the buffer has a first word; it is aligned as its structure is.
    stack.ip = unsafe { stack.tail.as_ptr().cast::<u64>().read() };
    Some(MAX_FRAMES * 8)
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

/// Copies upwards from the stack pointer into the tail at `offset`: to the end of its page, then page by page, as
/// long as there are any. One read across the stack's end would fail as a whole.
#[inline(always)]
fn copy_stack<const PAGES: u64>(stack: &mut Stack, offset: usize) {
    // SAFETY: the tail has room for so many pages behind every offset it is called with.
    let to = unsafe { stack.tail.as_mut_ptr().add(offset) };
    let first_bytes = PAGE_BYTES - (stack.sp & PAGE_MASK);
    // SAFETY: at most a page is written.
    if unsafe { bpf_probe_read_user(to.cast(), first_bytes as u32, stack.sp as *const _) } != 0 {
        return;
    }
    stack.copy_bytes = first_bytes as u32;
    for page in 0..PAGES {
        let done_bytes = first_bytes + page * PAGE_BYTES;
        let is_last = page == PAGES - 1;
        let more_bytes = if is_last { stack.sp & PAGE_MASK } else { PAGE_BYTES };
        // SAFETY: all parts together are so many pages; the verifier, which cannot see that of the last one, is content
        // with the map's slack behind the record.
        let more = unsafe {
            bpf_probe_read_user(
                to.add(done_bytes as usize).cast(),
                more_bytes as u32,
                (stack.sp + done_bytes) as *const _,
            )
        };
        if more != 0 {
            break;
        }
        stack.copy_bytes = (done_bytes + more_bytes) as u32;
    }
}
