//! Reading the target's memory. The one trait of the product: live here, a list of bytes in tests.

use std::fmt;

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
