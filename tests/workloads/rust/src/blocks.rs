//! What `c/blocks` does, through the allocator of a Rust program: glibc's, jemalloc or mimalloc, linked statically.
//!
//! The surprise: what the allocator says of itself is asked of its C functions, which are in the program anyway.

use std::ffi::c_void;
use std::io::{BufRead, Write};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCKS: usize = 60_000;
const RUN_BLOCKS: usize = 4000;
const SIZES: [usize; 8] = [12, 44, 108, 188, 316, 668, 1148, 1628];

/// Blocks and their bytes.
#[derive(Default)]
struct Truth {
    blocks: usize,
    bytes: usize,
}

#[cfg(feature = "jemalloc")]
mod allocator {
    use super::{Truth, c_void};

    unsafe extern "C" {
        fn _rjem_mallctl(name: *const i8, old: *mut c_void, len: *mut usize, new: *mut c_void, new_len: usize) -> i32;
        #[link_name = "_rjem_malloc_usable_size"]
        pub fn usable_size(block: *const c_void) -> usize;
    }

    fn statistic(name: &std::ffi::CStr) -> usize {
        let (mut epoch, mut value, mut len) = (1_u64, 0_usize, size_of::<usize>());
        // SAFETY: the names are C strings, and the values as long as their lengths say.
        unsafe {
            _rjem_mallctl(c"epoch".as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), (&raw mut epoch).cast(), 8);
            _rjem_mallctl(name.as_ptr(), (&raw mut value).cast(), &raw mut len, std::ptr::null_mut(), 0);
        }
        value
    }

    /// Bytes in use, and in pages of which something is.
    pub fn told() -> (Truth, usize) {
        (Truth { blocks: 0, bytes: statistic(c"stats.allocated") }, statistic(c"stats.active"))
    }
}

#[cfg(feature = "mimalloc")]
mod allocator {
    use super::{Truth, c_void};

    #[repr(C)]
    pub struct Area {
        blocks: *mut c_void,
        reserved: usize,
        committed: usize,
        used: usize,
        block_size: usize,
        full_block_size: usize,
    }

    type Visitor = extern "C" fn(*const c_void, *const Area, *mut c_void, usize, *mut c_void) -> bool;

    unsafe extern "C" {
        #[cfg_attr(feature = "mimalloc2", link_name = "mi_heap_get_default")]
        fn mi_heap_main() -> *mut c_void;
        fn mi_heap_visit_blocks(heap: *mut c_void, blocks: bool, visitor: Visitor, argument: *mut c_void) -> bool;
        #[link_name = "mi_usable_size"]
        pub fn usable_size(block: *const c_void) -> usize;
    }

    extern "C" fn count(_: *const c_void, area: *const Area, _: *mut c_void, _: usize, truth: *mut c_void) -> bool {
        // SAFETY: both are live for the call, and nobody else has the second.
        let (area, truth) = unsafe { (&*area, &mut *truth.cast::<Truth>()) };
        truth.blocks += area.used;
        truth.bytes += area.used * area.full_block_size;
        true
    }

    /// What a visit of the heap counts.
    pub fn told() -> (Truth, usize) {
        let mut truth = Truth::default();
        // SAFETY: the visitor is given the truth it expects.
        unsafe { mi_heap_visit_blocks(mi_heap_main(), false, count, (&raw mut truth).cast()) };
        (truth, 0)
    }
}

#[cfg(not(any(feature = "jemalloc", feature = "mimalloc")))]
mod allocator {
    use super::{Truth, c_void};

    /// # Safety
    /// `block` is one of malloc's.
    pub unsafe fn usable_size(block: *const c_void) -> usize {
        // SAFETY: as the caller promises.
        unsafe { libc::malloc_usable_size(block.cast_mut()) }
    }

    /// What malloc counts as in use, headers included.
    pub fn told() -> (Truth, usize) {
        // SAFETY: it takes nothing.
        let info = unsafe { libc::mallinfo2() };
        (Truth { blocks: 0, bytes: info.uordblks + info.hblkhd }, 0)
    }
}

fn tell(blocks: &[Option<Box<[u8]>>]) {
    // SAFETY: the vector's elements are a block too.
    let mut held = Truth { blocks: 1, bytes: unsafe { allocator::usable_size(blocks.as_ptr().cast()) } };
    for block in blocks.iter().flatten() {
        held.blocks += 1;
        // SAFETY: a boxed slice is a block of the allocator's.
        held.bytes += unsafe { allocator::usable_size(block.as_ptr().cast()) };
    }
    let (told, active) = allocator::told();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{{\"blocks\":{},\"bytes\":{},\"told_blocks\":{},\"told_bytes\":{},\"active\":{}}}",
        held.blocks, held.bytes, told.blocks, told.bytes, active
    )
    .and_then(|()| out.flush())
    .expect("stdout is the harness's");
}

fn main() {
    let block = |number: usize| Some(vec![b'x'; SIZES[number * 7 % SIZES.len()]].into_boxed_slice());
    let mut blocks: Vec<Option<Box<[u8]>>> = (0..BLOCKS).map(block).collect();
    blocks.extend((0..3).map(|_| Some(vec![b'x'; 3 << 20].into_boxed_slice())));
    // The second quarter in runs of which one in eight is kept, the third quarter every other.
    for number in BLOCKS / 4..BLOCKS / 2 {
        if number % RUN_BLOCKS >= RUN_BLOCKS / 8 {
            blocks[number] = None;
        }
    }
    for number in (BLOCKS / 2..BLOCKS / 4 * 3).step_by(2) {
        blocks[number] = None;
    }
    // Of the last quarter each third, from another thread.
    let freed: Vec<_> = (BLOCKS / 4 * 3..BLOCKS).step_by(3).map(|number| blocks[number].take()).collect();
    std::thread::spawn(move || drop(freed)).join().expect("freeing does not panic");
    // Standard input and output take their buffers before the truth is told.
    let mut line = String::with_capacity(64);
    let mut input = std::io::stdin().lock();
    // Asking mimalloc has it collect what the other thread freed: not before somebody asks.
    println!("{{\"workload\":\"rust/blocks\"}}");
    while input.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        line.clear();
        tell(&blocks);
    }
}
