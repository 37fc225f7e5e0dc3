//! The piece of the target's memory that the walk is at: 1 MiB at a time, and only what is resident.

use crate::address::PAGE_BYTES;
use crate::target::memory::Memory;

/// How much is read at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// `prev_size` and `size` of a chunk (malloc.c, `struct malloc_chunk`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// Size of the chunk before, where that is free.
    pub(super) prev_bytes: u64,
    size_and_flags: u64,
}

impl Header {
    const PREV_IN_USE: u64 = 1;
    const IS_MAPPED: u64 = 2;
    const NOT_MAIN: u64 = 4;
    const FLAGS: u64 = 7;

    /// Length of the chunk.
    pub(super) fn chunk_bytes(self) -> u64 {
        self.size_and_flags & !Self::FLAGS
    }

    /// Whether the chunk before is in use, or in a cache that does not say so.
    pub(super) fn is_prev_in_use(self) -> bool {
        self.size_and_flags & Self::PREV_IN_USE != 0
    }

    pub(super) fn is_mapped(self) -> bool {
        self.size_and_flags & Self::IS_MAPPED != 0
    }

    pub(super) fn is_of_other_arena(self) -> bool {
        self.size_and_flags & Self::NOT_MAIN != 0
    }
}

/// See the module.
pub(super) struct Window<'a> {
    memory: &'a dyn Memory,
    start_addr: u64,
    bytes: Vec<u8>,
    /// There is nothing but zeroes in it.
    is_blank: bool,
}

impl<'a> Window<'a> {
    pub(super) fn new(memory: &'a dyn Memory) -> Self {
        Self { memory, start_addr: 0, bytes: Vec::new(), is_blank: true }
    }

    /// Forgets what was read: the target has moved on.
    pub(super) fn close(&mut self) {
        self.bytes.clear();
    }

    /// The header of the chunk at `addr`, moving on to there; `end_addr` is where the heap ends.
    #[inline]
    pub(super) fn header(&mut self, addr: u64, end_addr: u64) -> Header {
        if let Some(header) = self.at(addr) {
            return header;
        }
        self.move_to(addr, end_addr);
        self.at(addr).unwrap_or_default()
    }

    /// The header at `addr`, staying where it is.
    pub(super) fn peek(&self, addr: u64) -> Header {
        let mut bytes = [0; 16];
        self.copy(addr, &mut bytes);
        header_in(&bytes)
    }

    /// The word at `addr`, staying where it is.
    #[inline]
    pub(super) fn word(&self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        match self.inside(addr, 8) {
            Some(there) => bytes.copy_from_slice(there),
            None => self.copy(addr, &mut bytes),
        }
        u64::from_le_bytes(bytes)
    }

    /// Fills `bytes` from `addr`, staying where it is.
    pub(super) fn copy(&self, addr: u64, bytes: &mut [u8]) {
        match self.inside(addr, bytes.len()) {
            Some(there) => bytes.copy_from_slice(there),
            None => {
                self.memory.read_resident(addr, bytes);
            }
        }
    }

    /// Where the window ends, if there is nothing in it at all.
    pub(super) fn blank_to(&self, addr: u64) -> Option<u64> {
        let end_addr = self.start_addr.saturating_add(self.bytes.len() as u64);
        (self.is_blank && (self.start_addr..end_addr).contains(&addr)).then_some(end_addr)
    }

    fn move_to(&mut self, addr: u64, end_addr: u64) {
        self.start_addr = addr - addr % PAGE_BYTES;
        // The header at the end itself, the top chunk's, is of interest too.
        let len_bytes = end_addr.saturating_add(16).saturating_sub(self.start_addr).min(WINDOW_BYTES);
        self.bytes.resize(usize::try_from(len_bytes).unwrap_or(0), 0);
        self.is_blank = !self.memory.read_resident(self.start_addr, &mut self.bytes);
    }

    #[inline]
    fn at(&self, addr: u64) -> Option<Header> {
        Some(header_in(self.inside(addr, 16)?.first_chunk()?))
    }

    #[inline]
    fn inside(&self, addr: u64, len: usize) -> Option<&[u8]> {
        let offset = usize::try_from(addr.checked_sub(self.start_addr)?).ok()?;
        self.bytes.get(offset..offset.checked_add(len)?)
    }
}

fn header_in(bytes: &[u8; 16]) -> Header {
    let (prev, size) = bytes.split_at(8);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    Header { prev_bytes: word(prev), size_and_flags: word(size) }
}
