//! Address ranges of the target's address space.

use std::fmt;

/// Size of a base page in bytes. x86_64 has no other; arm64 with 16 or 64 KiB pages is not handled yet.
pub const PAGE_BYTES: u64 = 4096;

/// Size in bytes of a huge page as mapped by one page-middle-directory entry on x86_64.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// A half-open range of addresses in the target: `start_addr..end_addr`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    /// First address inside.
    pub start_addr: u64,
    /// First address after.
    pub end_addr: u64,
}

impl AddrRange {
    /// The range, or `None` where it would be empty or inside out.
    pub fn new(start_addr: u64, end_addr: u64) -> Option<Self> {
        (start_addr < end_addr).then_some(Self { start_addr, end_addr })
    }

    /// `len_bytes` bytes from `start_addr`; `None` where that is empty or wraps around.
    pub fn with_len(start_addr: u64, len_bytes: u64) -> Option<Self> {
        Self::new(start_addr, start_addr.checked_add(len_bytes)?)
    }

    /// Length in bytes; never zero.
    pub fn len_bytes(&self) -> u64 {
        self.end_addr - self.start_addr
    }

    /// Whether `addr` lies inside.
    pub fn contains(&self, addr: u64) -> bool {
        (self.start_addr..self.end_addr).contains(&addr)
    }

    /// What both ranges cover, if anything.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        Self::new(self.start_addr.max(other.start_addr), self.end_addr.min(other.end_addr))
    }

    /// The whole pages inside this range: a page only partly covered is left out.
    pub fn whole_pages(&self) -> Option<Self> {
        let start_addr = self.start_addr.checked_next_multiple_of(PAGE_BYTES)?;
        Self::new(start_addr, self.end_addr & !(PAGE_BYTES - 1))
    }

    /// The pages this range touches: a page only partly covered is included.
    pub fn touched_pages(&self) -> Option<Self> {
        let end_addr = self.end_addr.checked_next_multiple_of(PAGE_BYTES)?;
        Self::new(self.start_addr & !(PAGE_BYTES - 1), end_addr)
    }
}

impl fmt::Debug for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start_addr, self.end_addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_round_inwards_and_outwards() {
        let range = AddrRange::new(0x1001, 0x4fff).unwrap();
        assert_eq!(range.whole_pages(), AddrRange::new(0x2000, 0x4000));
        assert_eq!(range.touched_pages(), AddrRange::new(0x1000, 0x5000));
        assert_eq!(AddrRange::new(0x1001, 0x1fff).unwrap().whole_pages(), None);
    }

    #[test]
    fn ranges_at_the_end_of_the_address_space_do_not_wrap() {
        assert_eq!(AddrRange::with_len(u64::MAX, 2), None);
        assert_eq!(AddrRange::new(u64::MAX - 1, u64::MAX).unwrap().touched_pages(), None);
    }
}
