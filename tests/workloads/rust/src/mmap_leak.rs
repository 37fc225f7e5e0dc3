//! Maps anonymous memory past the allocator and keeps it, touched page by page.

mod contract;

#[inline(never)]
fn leak_mapping(steps: usize) -> usize {
    let bytes = steps * contract::STEP_BYTES;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping of our own, written within its length and never unmapped.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), bytes, access, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED, "map {bytes} bytes");
        for offset in (0..bytes).step_by(4096) {
            start.cast::<u8>().add(offset).write_volatile(1);
        }
    }
    bytes
}

fn main() {
    contract::leak("rust/mmap_leak", 3, leak_mapping);
}
