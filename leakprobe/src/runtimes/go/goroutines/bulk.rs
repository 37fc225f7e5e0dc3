//! Many small reads as few large ones: neighbours are read together, with what lies between them.
//!
//! Refuses nothing: what cannot be read together is tried alone. The surprise: the gap between two
//! neighbours is always less than a page, so that no page is read that holds none of them. Reading a page
//! that the target never touched would give it a page table entry.

use crate::address::PAGE_BYTES;
use crate::target::memory::Memory;

/// What is read at once.
const MAX_READ_BYTES: u64 = 1 << 20;

/// A stretch of memory that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its first byte.
    pub addr: u64,
    /// Its length; not more than [`MAX_READ_BYTES`].
    pub len_bytes: u64,
}

impl Wanted {
    fn end_addr(self) -> u64 {
        self.addr.saturating_add(self.len_bytes)
    }
}

/// Reads all of `wanted`, sorted by address, and hands each over by its index: `None` where it cannot be read.
pub fn read(memory: &dyn Memory, wanted: &[Wanted], mut found: impl FnMut(usize, Option<&[u8]>)) {
    let mut buffer = Vec::new();
    let mut start = 0;
    while start < wanted.len() {
        let end = end_of_run(wanted, start);
        let run = &wanted[start..end];
        let base_addr = run[0].addr;
        let end_addr = run.iter().map(|piece| piece.end_addr()).max().unwrap_or(base_addr);
        let is_read = fill(memory, &mut buffer, base_addr, end_addr - base_addr);
        for (index, piece) in (start..).zip(run) {
            if is_read {
                found(index, slice(&buffer, piece.addr - base_addr, piece.len_bytes));
            } else {
                let alone = run.len() > 1 && fill(memory, &mut buffer, piece.addr, piece.len_bytes);
                found(index, slice(&buffer, 0, piece.len_bytes).filter(|_| alone));
            }
        }
        start = end;
    }
}

/// Index after the last piece that is read together with the one at `start`.
fn end_of_run(wanted: &[Wanted], start: usize) -> usize {
    let base_addr = wanted[start].addr;
    let mut end_addr = wanted[start].end_addr();
    let mut end = start + 1;
    while let Some(piece) = wanted.get(end) {
        let is_near = piece.addr >= base_addr && piece.addr.saturating_sub(end_addr) < PAGE_BYTES;
        let longer_addr = end_addr.max(piece.end_addr());
        if !is_near || longer_addr - base_addr > MAX_READ_BYTES {
            break;
        }
        end_addr = longer_addr;
        end += 1;
    }
    end
}

fn fill(memory: &dyn Memory, buffer: &mut Vec<u8>, addr: u64, len_bytes: u64) -> bool {
    let Ok(len) = usize::try_from(len_bytes.min(MAX_READ_BYTES)) else { return false };
    buffer.resize(len, 0);
    memory.read_exact(addr, buffer).is_ok()
}

fn slice(buffer: &[u8], offset: u64, len_bytes: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    buffer.get(start..start.checked_add(usize::try_from(len_bytes).ok()?)?)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::target::memory::ReadError;

    /// Each byte is the low one of its address; counts the reads and refuses those of one address.
    struct Counting {
        refused_addr: u64,
        reads: RefCell<Vec<(u64, usize)>>,
    }

    impl Memory for Counting {
        fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
            self.reads.borrow_mut().push((addr, buf.len()));
            if (addr..addr.saturating_add(buf.len() as u64)).contains(&self.refused_addr) {
                return Err(ReadError { addr, len_bytes: buf.len() });
            }
            for (byte, addr) in buf.iter_mut().zip(addr..) {
                *byte = addr.to_le_bytes()[0];
            }
            Ok(())
        }
    }

    fn reads(refused_addr: u64, wanted: &[Wanted]) -> (Vec<bool>, Vec<(u64, usize)>) {
        let memory = Counting { refused_addr, reads: RefCell::default() };
        let mut found = Vec::new();
        read(&memory, wanted, |index, bytes| {
            assert_eq!(index, found.len());
            if let Some(bytes) = bytes {
                assert_eq!(bytes.len() as u64, wanted[index].len_bytes);
                assert_eq!(bytes.first().copied().unwrap_or(0), wanted[index].addr.to_le_bytes()[0]);
            }
            found.push(bytes.is_some());
        });
        assert_eq!(found.len(), wanted.len());
        (found, memory.reads.into_inner())
    }

    #[test]
    fn neighbours_are_read_together_and_pages_between_are_not() {
        let wanted = [0x1010, 0x1201, 0x2f00, 0x5000].map(|addr| Wanted { addr, len_bytes: 16 });
        let (found, reads) = reads(0, &wanted);
        assert_eq!(found, [true; 4]);
        assert_eq!(reads, [(0x1010, 0x201), (0x2f00, 16), (0x5000, 16)]);
    }

    #[test]
    fn one_that_cannot_be_read_takes_no_other_with_it() {
        let wanted = [0x1010, 0x1200, 0x1300].map(|addr| Wanted { addr, len_bytes: 16 });
        assert_eq!(reads(0x1204, &wanted).0, [true, false, true]);
    }

    proptest! {
        #[test]
        fn every_piece_is_answered(pieces in proptest::collection::vec((any::<u64>(), 1_u64..8192), 0..50), near: bool) {
            let addr = |addr: u64| if near { addr % (1 << 16) } else { addr };
            let mut wanted: Vec<Wanted> =
                pieces.iter().map(|&(raw, len_bytes)| Wanted { addr: addr(raw), len_bytes }).collect();
            wanted.sort_by_key(|piece| piece.addr);
            let memory = Counting { refused_addr: 0x8000, reads: RefCell::default() };
            let mut found = 0;
            read(&memory, &wanted, |_, _| found += 1);
            prop_assert_eq!(found, wanted.len());
        }
    }
}
