//! Structures of one or a few mappings each, which the heap points at.

use anyhow::{Context as _, Result, bail};

use super::super::find::Global;
use super::super::heap::{Slice, read_list, read_words};
use super::{Reader, push_mapping};
use crate::address::AddrRange;

/// Levels of page summaries, and entries of the first; each level has 8 times those of the one before (Go
/// `src/runtime/mpagealloc_64bit.go`, `levelBits`, for 48 address bits: amd64 and arm64 on Linux).
const SUMMARY_LEVELS: u32 = 5;
const SUMMARY_FIRST_ENTRIES: u64 = 1 << 14;
/// Size of `pallocSum`.
const SUMMARY_BYTES: u64 = 8;
/// Entries of the first level of the bitmaps' index (`pallocChunksL1Bits`).
const BITMAP_TABLES: usize = 1 << 13;
/// 8,192 chunks (`pallocChunksL2Bits`) of two bitmaps of 512 bits (`pallocData`).
const BITMAP_TABLE_BYTES: u64 = (1 << 13) * 128;
/// Chunks of 4 MiB in 48 address bits.
const CHUNKS: u64 = 1 << 26;
/// `arenaL2Bits`: numbers of arenas of 64 MiB in 48 address bits.
const ARENAS: u64 = 1 << 22;
/// Arenas in use: 64 TiB of heap.
const MAX_ARENAS_IN_USE: u64 = 1 << 20;
/// A piece of persistent memory at least this long has a mapping of its own (Go `src/runtime/malloc.go`,
/// `persistentalloc1`, `maxBlock`).
const PERSISTENT_OWN_BYTES: u64 = 64 << 10;
/// Spans in the list: more than the heaviest heap has pages.
const MAX_SPANS: u64 = 1 << 36;
/// `buckHashSize` pointers (Go `src/runtime/mprof.go`).
const PROFILING_TABLE_BYTES: u64 = 179_999 * 8;

/// `mheap_.pages.summary`: how much is free, by ever larger blocks of address space.
pub fn page_summaries(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    for level in 0..SUMMARY_LEVELS {
        let offset = reader.layout.pages_offset + reader.layout.page_summary_offset + 24 * u64::from(level);
        let slice = reader.slice(offset)?;
        let entries = SUMMARY_FIRST_ENTRIES << (3 * level);
        if slice.capacity != entries {
            bail!("level {level} has {} entries and not {entries}", slice.capacity);
        }
        push_mapping(found, slice.data_addr, entries * SUMMARY_BYTES)?;
    }
    Ok(())
}

/// `mheap_.pages.chunks`: which pages are allocated, and which were returned to the kernel.
pub fn page_bitmaps(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let addr = reader.mheap_field(reader.layout.pages_offset + reader.layout.page_chunks_offset);
    let tables: Box<[u64; BITMAP_TABLES]> = Box::new(read_words(reader.memory, addr)?);
    for &table_addr in tables.iter().filter(|&&table_addr| table_addr != 0) {
        push_mapping(found, table_addr, BITMAP_TABLE_BYTES)?;
    }
    Ok(())
}

/// `mheap_.pages.scav.index.chunks`: since Go 1.21 a word for every chunk of address space, before a bit.
pub fn scavenge_index(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let slice = reader.slice(reader.layout.pages_offset + reader.layout.scavenge_chunks_offset)?;
    let len_bytes = match slice.capacity {
        CHUNKS => CHUNKS * 8,
        bytes if bytes == CHUNKS / 8 => bytes,
        other => bail!("{other} entries"),
    };
    push_mapping(found, slice.data_addr, len_bytes)
}

/// `mheap_.arenas[0]`: a pointer for every arena of the address space.
pub fn arena_index(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let index_addr = reader.memory.read_u64(reader.mheap_field(reader.layout.arenas_offset))?;
    push_mapping(found, index_addr, ARENAS * 8)
}

/// `heapArena` of each arena in use: what each of its pages holds.
pub fn heap_arenas(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let index_addr = reader.memory.read_u64(reader.mheap_field(reader.layout.arenas_offset))?;
    let lists = [Some(reader.layout.heap_arenas_offset), reader.layout.user_arenas_offset];
    for list_offset in lists.into_iter().flatten() {
        let slice = reader.slice(list_offset)?;
        if slice.len > MAX_ARENAS_IN_USE {
            bail!("{} arenas", slice.len);
        }
        let capacity_bytes = slice.capacity.checked_mul(8).context("no such capacity")?;
        if capacity_bytes >= PERSISTENT_OWN_BYTES {
            push_mapping(found, slice.data_addr, capacity_bytes)?;
        }
        for number in read_list(reader.memory, slice.data_addr, slice.len)? {
            if number >= ARENAS {
                bail!("arena number {number}");
            }
            let arena_addr = reader.memory.read_u64(index_addr.wrapping_add(number * 8))?;
            push_mapping(found, arena_addr, reader.layout.heap_arena_bytes)?;
        }
    }
    Ok(())
}

/// `mheap_.allspans`: a pointer to every span header.
pub fn all_spans(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    let slice = reader.slice(reader.layout.allspans_offset)?;
    if slice.capacity > MAX_SPANS {
        bail!("{} spans", slice.capacity);
    }
    push_mapping(found, slice.data_addr, slice.capacity * 8)
}

/// `buckhash`: the hash table of the heap, block and mutex profiles; not there before the first sample.
pub fn profiling_buckets(reader: &Reader<'_>, found: &mut Vec<AddrRange>) -> Result<()> {
    match reader.memory.read_u64(reader.globals.addr(Global::Buckhash)?)? {
        0 => Ok(()),
        table_addr => push_mapping(found, table_addr, PROFILING_TABLE_BYTES),
    }
}

impl Reader<'_> {
    /// Address of the field at `offset` of `mheap_`.
    fn mheap_field(&self, offset: u64) -> u64 {
        self.globals.mheap_addr().wrapping_add(offset)
    }

    /// The slice at `offset` of `mheap_`. Header and content are not replaced in one step, so one that was
    /// read while it grew is read again.
    fn slice(&self, offset: u64) -> Result<Slice> {
        let addr = self.mheap_field(offset);
        let mut before = Slice::read(self.memory, addr);
        for _ in 0..super::MAX_ATTEMPTS {
            let after = Slice::read(self.memory, addr);
            if let (Ok(before), Ok(after)) = (&before, &after)
                && before == after
            {
                return Ok(*after);
            }
            before = after;
        }
        before
    }
}
