//! CPython's small objects: `obmalloc` keeps them in pools of one size each, inside arenas mapped for them
//! alone. Larger objects and lists' arrays are malloc's.
//!
//! A pool proves itself: its header repeats the pool's size less the object's (CPython
//! `Objects/obmalloc.c`, `struct pool_header`, 3.3 to 3.13; pools of 16 KiB since 3.10, of 4 KiB before).
//! Refuses what is not the size of an arena's worth of such headers. The surprise: nothing points to the
//! arenas that a stripped interpreter would give away, and nothing needs to: looking is cheap.

use super::{Reader, claim};
use crate::address::AddrRange;
use crate::claim::{Component, Evidence, Findings, Slack};

/// Size of a pool, newer first.
const POOL_BYTES: [u64; 2] = [16 << 10, 4 << 10];
/// `struct pool_header`.
const HEADER_BYTES: usize = 48;
/// Objects are a multiple of this long, and no longer than [`MAX_OBJECT_BYTES`].
const ALIGNMENT_BYTES: u64 = 16;
const MAX_OBJECT_BYTES: u64 = 512;
/// An arena is 1 MiB since Python 3.10, 256 KiB before: so much may lie unused behind a pool.
const MAX_ARENA_BYTES: u64 = 1 << 20;
/// Fewer pools than this in a row may be chance.
const MIN_POOLS: usize = 4;
/// Pools looked at: 64 GiB of them.
const MAX_POOLS: u64 = 1 << 22;

/// A pool and how much of it holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pool {
    addr: u64,
    dead_bytes: u64,
}

pub fn claims(reader: &Reader<'_>) -> Findings {
    let mut findings = Findings::default();
    if reader.exporter(["PyObject_Malloc"]).is_none() {
        return findings;
    }
    let mut pools_left = MAX_POOLS;
    for range in reader.free.ranges() {
        for pool_bytes in POOL_BYTES {
            let pools = pools_in(reader, *range, pool_bytes, &mut pools_left);
            if pools.len() < MIN_POOLS {
                continue;
            }
            claim_arenas(*range, pool_bytes, &pools, &mut findings);
            break;
        }
    }
    findings
}

fn pools_in(reader: &Reader<'_>, range: AddrRange, pool_bytes: u64, pools_left: &mut u64) -> Vec<Pool> {
    let mut pools = Vec::new();
    let Some(first_addr) = range.start_addr.checked_next_multiple_of(pool_bytes) else { return pools };
    let mut addr = first_addr;
    while range.end_addr.saturating_sub(addr) >= pool_bytes && *pools_left > 0 {
        *pools_left -= 1;
        if reader.is_resident(addr) {
            let header = reader.memory.read_vec(addr, HEADER_BYTES).unwrap_or_default();
            pools.extend(parse(&header, addr, pool_bytes));
        }
        addr += pool_bytes;
    }
    pools
}

/// `ref.count`, `freeblock`, `nextpool`, `prevpool`, then `arenaindex`, `szidx`, `nextoffset`,
/// `maxnextoffset` of four bytes each.
fn parse(header: &[u8], addr: u64, pool_bytes: u64) -> Option<Pool> {
    let word = |offset: usize| Some(u32::from_le_bytes(*header.get(offset..)?.first_chunk()?));
    let long = |offset: usize| Some(u64::from_le_bytes(*header.get(offset..)?.first_chunk()?));
    let (count, size_index) = (u64::from(word(0)?), u64::from(word(36)?));
    let (next_offset, last_offset) = (u64::from(word(40)?), u64::from(word(44)?));
    let object_bytes = (size_index + 1) * ALIGNMENT_BYTES;
    let free_addr = long(8)?;
    let is_pool = object_bytes <= MAX_OBJECT_BYTES
        && last_offset == pool_bytes - object_bytes
        && (HEADER_BYTES as u64..=pool_bytes).contains(&next_offset)
        && count.checked_mul(object_bytes)? <= pool_bytes - HEADER_BYTES as u64
        && (free_addr == 0 || free_addr.checked_sub(addr).is_some_and(|offset| offset < pool_bytes));
    // Checked above: the objects and the header fit.
    is_pool.then(|| Pool { addr, dead_bytes: pool_bytes - HEADER_BYTES as u64 - count * object_bytes })
}

/// Claims the pools, and what lies between them and around them as far as an arena reaches: pools that were
/// not used yet, and what is left of an arena before its first pool.
fn claim_arenas(range: AddrRange, pool_bytes: u64, pools: &[Pool], findings: &mut Findings) {
    let mut before_addr = range.start_addr;
    for near in pools.chunk_by(|a, b| b.addr - a.addr <= MAX_ARENA_BYTES) {
        let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
        let start_addr = before_addr.max(first.addr.saturating_sub(pool_bytes));
        let end_addr = range.end_addr.min(last.addr.saturating_add(MAX_ARENA_BYTES));
        let hull = AddrRange::new(start_addr, end_addr);
        findings.claims.extend(hull.map(|hull| claim(hull, Component::PythonHeap, Evidence::Neighbour)));
        before_addr = end_addr;
    }
    for row in pools.chunk_by(|a, b| b.addr - a.addr == pool_bytes) {
        let Some(first) = row.first() else { continue };
        let Some(range) = AddrRange::with_len(first.addr, row.len() as u64 * pool_bytes) else { continue };
        findings.claims.push(claim(range, Component::PythonHeap, Evidence::Structure));
        let dead_bytes = row.iter().map(|pool| pool.dead_bytes).sum();
        findings.slack.push(Slack { range, dead_bytes });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDR: u64 = 0x7f00_0000_4000;

    fn header(count: u32, free_addr: u64, size_index: u32, next_offset: u32, last_offset: u32) -> Vec<u8> {
        let mut bytes = u64::from(count).to_le_bytes().to_vec();
        bytes.extend(free_addr.to_le_bytes());
        bytes.extend([0; 16]);
        for word in [3, size_index, next_offset, last_offset] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_pool_knows_its_size_twice() {
        let pool = header(100, ADDR + 0x100, 1, 16_384, 16_384 - 32);
        assert_eq!(parse(&pool, ADDR, 16 << 10), Some(Pool { addr: ADDR, dead_bytes: 16_384 - 48 - 3200 }));
        assert_eq!(parse(&pool, ADDR, 4 << 10), None, "of another version");
        assert_eq!(parse(&pool, ADDR + 0x4000, 16 << 10), None, "a block of another pool");
        assert_eq!(parse(&[0; 48], ADDR, 16 << 10), None, "never used");
        assert_eq!(parse(&pool[..47], ADDR, 16 << 10), None, "cut");
    }

    #[test]
    fn what_an_arena_reaches_belongs_to_it() {
        let range = AddrRange::new(ADDR - 0x2000, ADDR + (8 << 20)).unwrap();
        let pools: Vec<Pool> =
            (0..4).map(|index| Pool { addr: ADDR + index * 0x4000, dead_bytes: 16 }).collect();
        let mut findings = Findings::default();
        claim_arenas(range, 0x4000, &pools, &mut findings);
        let hull = AddrRange::new(ADDR - 0x2000, ADDR + 0xc000 + (1 << 20)).unwrap();
        assert_eq!(findings.claims[0], claim(hull, Component::PythonHeap, Evidence::Neighbour));
        assert_eq!(findings.claims[1].range, AddrRange::new(ADDR, ADDR + 0x10000).unwrap());
        assert_eq!(findings.slack[0].dead_bytes, 64);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), addr: u64) {
            if let Some(pool) = parse(&bytes, addr, 16 << 10) {
                prop_assert!(pool.dead_bytes <= 16 << 10);
            }
        }
    }
}
