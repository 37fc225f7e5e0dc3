//! The probes on trial: we make the calls ourselves and look whether they are recorded, with the addresses
//! that we know. What is attached proves nothing; what is recorded does.

use std::io;

use aya::maps::{MapData, RingBuf};
use rustix::mm::{Advice, MapFlags, MlockFlags, MprotectFlags, MremapFlags, ProtFlags};
use rustix::mm::{madvise, mlock, mlock_with, mmap_anonymous, mprotect, mremap, munlock, munmap};

use super::backend::Call;
use super::decode::{self, What};
use crate::address::{AddrRange, PAGE_BYTES};

const PAGES: usize = 4;

/// What we did, and so what should have been recorded.
struct Deeds {
    mapped: AddrRange,
    break_addr: u64,
}

/// Makes each call once, to no effect; the calls of which there is a true record. The probes must watch
/// this process; what waits in the ring buffer is taken out of it.
///
/// # Errors
/// Where a call fails, which each of them should be able to.
pub fn run(ring: &mut RingBuf<MapData>) -> io::Result<Vec<Call>> {
    let deeds = act()?;
    let mut seen = Vec::new();
    while let Some(bytes) = ring.next() {
        let recorded = decode::decode(&bytes).and_then(|event| recognize(event.what, &deeds));
        seen.extend(recorded);
    }
    Ok(seen)
}

fn act() -> io::Result<Deeds> {
    let page_bytes = PAGE_BYTES as usize;
    let (all, rest) = (PAGES * page_bytes, (PAGES - 1) * page_bytes);
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping that nobody else knows of; it is gone at the end.
    let mapped = unsafe {
        let start = mmap_anonymous(std::ptr::null_mut(), all, access, MapFlags::PRIVATE)?;
        start.cast::<u8>().write_volatile(1);
        mprotect(start, all, MprotectFlags::READ | MprotectFlags::WRITE)?;
        madvise(start, page_bytes, Advice::LinuxDontNeed)?;
        mlock(start, page_bytes)?;
        mlock_with(start, 2 * page_bytes, MlockFlags::empty())?;
        munlock(start, all)?;
        mremap(start, all, rest, MremapFlags::empty())?;
        munmap(start, rest)?;
        start as u64
    };
    // SAFETY: the break is set to where it is.
    let break_addr = unsafe {
        let end = libc::sbrk(0);
        if libc::brk(end) != 0 {
            return Err(io::Error::last_os_error());
        }
        end as u64
    };
    let mapped = AddrRange::with_len(mapped, all as u64)
        .ok_or_else(|| io::Error::other("a mapping at the end of memory"))?;
    Ok(Deeds { mapped, break_addr })
}

/// The call of which this is a true record.
fn recognize(what: What, deeds: &Deeds) -> Option<Call> {
    let start_addr = deeds.mapped.start_addr;
    let pages = |count: u64| AddrRange::with_len(start_addr, count * PAGE_BYTES);
    let all = PAGES as u64;
    match what {
        What::Map { range, .. } if Some(range) == pages(all) => Some(Call::Mmap),
        What::Unmap { range } if Some(range) == pages(all - 1) => Some(Call::Munmap),
        What::Remap { from, to } if from == pages(all) && Some(to) == pages(all - 1) => Some(Call::Mremap),
        What::Break { end_addr } if end_addr == deeds.break_addr => Some(Call::Brk),
        What::Advise { range, .. } if Some(range) == pages(1) => Some(Call::Madvise),
        What::Protect => Some(Call::Mprotect),
        What::Lock { range, .. } if Some(range) == pages(1) => Some(Call::Mlock),
        What::Lock { range, .. } if Some(range) == pages(2) => Some(Call::Mlock2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_can_be_made_and_change_nothing() {
        // SAFETY: asks only.
        let before = unsafe { libc::sbrk(0) } as u64;
        let deeds = act().unwrap();
        assert_eq!(deeds.mapped.len_bytes(), PAGES as u64 * PAGE_BYTES);
        assert_eq!(deeds.break_addr, before);
    }

    #[test]
    fn only_a_true_record_counts() {
        let mapped = AddrRange::new(0x1_0000, 0x1_4000).unwrap();
        let deeds = Deeds { mapped, break_addr: 0x9000 };
        assert_eq!(
            recognize(What::Map { range: mapped, protection: 3, flags: 0x22 }, &deeds),
            Some(Call::Mmap)
        );
        let elsewhere = AddrRange::new(0x2_0000, 0x2_4000).unwrap();
        assert_eq!(recognize(What::Map { range: elsewhere, protection: 3, flags: 0x22 }, &deeds), None);
        assert_eq!(recognize(What::Break { end_addr: 0x8000 }, &deeds), None);
    }
}
