//! Reading the target's memory. The one trait of the product: live here, a list of bytes in tests.

use std::fmt;

use crate::address::PAGE_BYTES;

/// Memory of a process that can be read and not written.
///
/// Reads are not atomic: the target runs on. Whoever follows pointers checks what it read.
pub trait Memory {
    /// Fills the whole of `buf` from `addr`.
    ///
    /// # Errors
    /// [`ReadError`] where any byte of it is not mapped, or the process is gone; `buf` is then undefined.
    fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError>;

    /// The little-endian 8-byte word at `addr`.
    ///
    /// # Errors
    /// As [`Memory::read_exact`].
    fn read_u64(&self, addr: u64) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.read_exact(addr, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The little-endian 4-byte word at `addr`.
    ///
    /// # Errors
    /// As [`Memory::read_exact`].
    fn read_u32(&self, addr: u64) -> Result<u32, ReadError> {
        let mut bytes = [0; 4];
        self.read_exact(addr, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// `len_bytes` bytes from `addr`. Callers bound the length: it comes from the target.
    ///
    /// # Errors
    /// As [`Memory::read_exact`].
    fn read_vec(&self, addr: u64, len_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; len_bytes];
        self.read_exact(addr, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `buf` from `addr`, with zero where nothing can be read; says whether anything could be. Where
    /// the reader can tell, a page that was never touched or is swapped out is not read either: reading
    /// would have the kernel make or fetch it.
    fn read_resident(&self, addr: u64, buf: &mut [u8]) -> bool {
        fill_or_zero(self, addr, buf)
    }
}

/// Fills `buf` from `addr`, with zero the pages that cannot be read; says whether any could be.
pub fn fill_or_zero(memory: &(impl Memory + ?Sized), addr: u64, buf: &mut [u8]) -> bool {
    if memory.read_exact(addr, buf).is_ok() {
        return true;
    }
    buf.fill(0);
    let mut is_anything_there = false;
    let mut offset = 0;
    while offset < buf.len() {
        let Some(addr) = addr.checked_add(offset as u64) else { break };
        let to_page_end = (PAGE_BYTES - addr % PAGE_BYTES) as usize;
        let piece_end = buf.len().min(offset + to_page_end);
        match memory.read_exact(addr, &mut buf[offset..piece_end]) {
            Ok(()) => is_anything_there = true,
            Err(_) => buf[offset..piece_end].fill(0),
        }
        offset = piece_end;
    }
    is_anything_there
}

/// A read of the target's memory that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ReadError {
    /// First byte that was asked for.
    pub addr: u64,
    /// How many bytes were asked for.
    pub len_bytes: usize,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} of the target cannot be read", self.len_bytes, self.addr)
    }
}

/// Memory made of listed pieces, for tests of the structures' readers.
#[cfg(test)]
pub mod canned {
    use super::{Memory, ReadError};

    /// Pieces of memory by start address; reads do not cross from one piece to the next.
    #[derive(Default)]
    pub struct Pieces(pub Vec<(u64, Vec<u8>)>);

    impl Memory for Pieces {
        fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
            let error = ReadError { addr, len_bytes: buf.len() };
            for (start_addr, bytes) in &self.0 {
                let Some(offset) = addr.checked_sub(*start_addr) else { continue };
                let Ok(offset) = usize::try_from(offset) else { continue };
                if let Some(piece) = offset.checked_add(buf.len()).and_then(|end| bytes.get(offset..end)) {
                    buf.copy_from_slice(piece);
                    return Ok(());
                }
            }
            Err(error)
        }
    }
}
