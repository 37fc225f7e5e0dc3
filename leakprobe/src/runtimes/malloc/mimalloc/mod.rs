//! mimalloc 2 and 3: pages of blocks of one size, each with lists of its free ones.
//!
//! Version 2 keeps the descriptions of pages at the start of each segment of 32 MiB, which is known by where it lies
//! and by a chain that adds up. Version 3 has a map from addresses to descriptions, which is known by what it
//! leads to. Refuses builds that encode the free lists (`MI_SECURE`, `MI_DEBUG`): their pages count as in use, with
//! the share of them that is free. The surprise: no version is asked for. The descriptions are told apart by their
//! own sums, since a static mimalloc says nowhere which it is.
//!
//! Facts: mimalloc 2.0.9, 2.3.2 and 3.3.2, `include/mimalloc/types.h`, `segment.c`, `page-map.c`; tried with Debian's
//! library and with the crate, whose own visit of the heap (`mi_heap_visit_blocks`) is what is found.

mod page;
mod page_map;
mod segments;

use self::page::Survey;
use super::anonymous::AnonymousMemory;
use super::census::Census;
use crate::address::AddrRange;
use crate::claim::Findings;
use crate::target::memory::Memory;

/// Claims what mimalloc holds of `free`, the memory that nobody else owns, and counts its blocks; its variables are
/// in `variables`. No census where neither segments nor a page map were found.
pub fn read(
    memory: &dyn Memory,
    variables: &[AddrRange],
    free: &AnonymousMemory,
) -> (Findings, Option<Census>) {
    let mut survey = Survey::new(memory, free);
    let is_there =
        page_map::read(memory, variables, free, &mut survey) || segments::read(memory, free, &mut survey);
    let (findings, census) = survey.finish();
    (findings, is_there.then_some(census))
}

#[cfg(test)]
mod tests;
