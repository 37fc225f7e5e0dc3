//! Forgets boxes of a few hundred bytes.

mod contract;

const BOX_BYTES: usize = 512;

#[inline(never)]
fn leak_boxes(steps: usize) -> usize {
    for _ in 0..steps * contract::STEP_BYTES / BOX_BYTES {
        // As long as malloc's chunks are with their header.
        std::mem::forget(std::hint::black_box(vec![b'x'; BOX_BYTES - 8].into_boxed_slice()));
    }
    steps * contract::STEP_BYTES
}

fn main() {
    contract::leak("rust/heap_leak", 3, leak_boxes);
}
