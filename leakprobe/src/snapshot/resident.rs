//! The target's memory for those who read all of a large structure: what is not resident is not read.
//!
//! Reading a page that was never touched gives the target a page table, reading one in swap fetches it. So
//! the page map is asked first, piece by piece, for what it says grows old within milliseconds.

use super::pagemap::{self, Residency};
use crate::address::AddrRange;
use crate::target::Target;
use crate::target::memory::{Memory, ReadError, fill_or_zero};

/// Memory of a process whose [`Memory::read_resident`] leaves alone what is not in memory.
pub struct ResidentMemory<'a>(pub &'a Target);

impl Memory for ResidentMemory<'_> {
    fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.0.read_exact(addr, buf)
    }

    fn read_resident(&self, addr: u64, buf: &mut [u8]) -> bool {
        let Some(wanted) = AddrRange::with_len(addr, buf.len() as u64) else {
            buf.fill(0);
            return false;
        };
        let pages = wanted.touched_pages();
        let runs = pages.map_or_else(Vec::new, |pages| pagemap::read_range(self.0.pagemap(), pages));
        let mut filled_to = 0;
        for run in runs.iter().filter(|run| run.residency != Residency::Swapped) {
            let Some(there) = run.range.intersection(&wanted) else { continue };
            let start = (there.start_addr - addr) as usize;
            let end = (there.end_addr - addr) as usize;
            if start < filled_to {
                continue; // the kernel's list never overlaps
            }
            buf[filled_to..start].fill(0);
            fill_or_zero(self.0, there.start_addr, &mut buf[start..end]);
            filled_to = end;
        }
        buf[filled_to..].fill(0);
        filled_to > 0
    }
}
