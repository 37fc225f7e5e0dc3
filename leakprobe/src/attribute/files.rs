//! What the rows of files and shared memory are made of: which file, and of an executable or library whether it
//! is text, data or .bss.
//!
//! A page of a private mapping that was written to is anonymous, though the mapping has a file's name: that is
//! data; what is the file's still is text, constants included. The surprise: where part of such a mapping belongs
//! to another owner (a sanitizer's variables in the executable), that part counts as written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ledger::{Ledger, Portion};
use super::mappings::Backing;
use crate::address::AddrRange;
use crate::claim::Component;
use crate::snapshot::{PageRun, RegionUsage, Snapshot, resident_bytes_in};
use crate::target::modules::{FileId, Module};

/// The kernel's mark of a file that has no name any more.
const DELETED: &str = " (deleted)";

/// What kind of memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Pages as the file has them.
    Text,
    /// Pages of a file's private mapping that were written to.
    Data,
    /// Variables without a value in the file.
    Bss,
}

impl Part {
    /// All of them, in the order in which a file has them.
    pub const ALL: [Self; 3] = [Self::Text, Self::Data, Self::Bss];

    /// The word in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Data => "data",
            Self::Bss => "bss",
        }
    }
}

/// A file, or shared memory of one name, in one row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The row.
    pub component: Component,
    /// As the kernel names it, without " (deleted)".
    pub path: String,
    /// Unlinked or replaced since it was mapped.
    pub is_deleted: bool,
}

/// What is resident of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileUse {
    /// Resident bytes by what they are.
    pub parts: BTreeMap<Part, u64>,
    /// Unchanged pages of a file on disk: the kernel can drop them and read them again.
    pub reclaimable_bytes: u64,
    /// What keeps its pages.
    pub backing: Backing,
    /// Whether some of its mappings are shared.
    pub is_shared: bool,
    /// How many VMAs have something of it resident.
    pub mappings: u64,
}

impl FileUse {
    /// Resident bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.parts.values().sum()
    }
}

/// What is resident of each file in `snapshot`, which `ledger` divides.
pub fn uses(
    snapshot: &Snapshot,
    ledger: &Ledger,
    modules: &[Module],
    in_memory: &BTreeSet<(u32, u32)>,
) -> BTreeMap<FileName, FileUse> {
    let bss = bss_ranges(modules, &snapshot.usages);
    let mut uses: BTreeMap<FileName, FileUse> = BTreeMap::new();
    for of_region in ledger.portions.chunk_by(|a, b| a.region_index == b.region_index) {
        let Some(usage) = of_region.first().and_then(|portion| snapshot.usages.get(portion.region_index))
        else {
            continue;
        };
        let backing = Backing::of(&usage.region, in_memory);
        let own_bytes: u64 = of_region.iter().map(|portion| portion.rss_bytes).sum();
        let mut unwritten_bytes = unwritten_bytes(usage, own_bytes);
        for portion in of_region {
            let text_bytes = unwritten_bytes.min(portion.rss_bytes);
            unwritten_bytes -= text_bytes;
            let file = uses.entry(name(usage, portion, &bss)).or_insert_with(|| FileUse {
                parts: BTreeMap::new(),
                reclaimable_bytes: 0,
                backing: if is_nameless(usage) { Backing::File } else { backing },
                is_shared: false,
                mappings: 0,
            });
            let rest = if is_nameless(usage) { Part::Bss } else { Part::Data };
            for (part, bytes) in [(Part::Text, text_bytes), (rest, portion.rss_bytes - text_bytes)] {
                *file.parts.entry(part).or_default() += bytes;
            }
            file.reclaimable_bytes += droppable_bytes(usage, backing).min(text_bytes);
            file.is_shared |= usage.region.shared;
            file.mappings += 1;
        }
    }
    uses
}

/// Of the files' `own_bytes` in a VMA, those that nobody wrote to.
fn unwritten_bytes(usage: &RegionUsage, own_bytes: u64) -> u64 {
    usage.rss_bytes.saturating_sub(usage.anonymous_bytes).min(own_bytes)
}

/// What the kernel can take of a VMA without writing anything anywhere.
fn droppable_bytes(usage: &RegionUsage, backing: Backing) -> u64 {
    if backing != Backing::File || is_nameless(usage) || usage.locked_bytes > 0 {
        return 0;
    }
    usage.clean_bytes
}

fn is_nameless(usage: &RegionUsage) -> bool {
    usage.region.is_private_anonymous()
}

fn name(usage: &RegionUsage, portion: &Portion, bss: &[(AddrRange, &str)]) -> FileName {
    let range = usage.region.range;
    let after = bss.partition_point(|(bss, _)| bss.end_addr <= range.start_addr);
    let of_module = bss.get(after).filter(|(bss, _)| is_nameless(usage) && bss.start_addr < range.end_addr);
    let full = of_module.map_or(usage.region.name.as_str(), |(_, path)| path);
    let path = full.strip_suffix(DELETED);
    FileName {
        component: portion.component,
        path: path.unwrap_or(full).to_owned(),
        is_deleted: path.is_some(),
    }
}

/// Where the files' .bss lie, by address, each with the file's name as the maps have it.
fn bss_ranges<'a>(modules: &'a [Module], usages: &'a [RegionUsage]) -> Vec<(AddrRange, &'a str)> {
    let mapped = usages.iter().map(|usage| &usage.region).filter(|region| region.inode != 0);
    let names: HashMap<FileId, &str> =
        mapped.map(|region| ((region.device, region.inode), region.name.as_str())).collect();
    let mut ranges = Vec::new();
    for module in modules {
        let name = names.get(&module.file_id).copied().unwrap_or(&module.path);
        let bss = module.elf.bss_ranges(module.load_bias);
        ranges.extend(bss.iter().filter_map(|range| Some((range.touched_pages()?, name))));
    }
    ranges.sort_unstable();
    ranges
}

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// As in the symbol table.
    pub name: String,
    /// Where it lies in the process.
    pub range: AddrRange,
}

/// The variables of which most is resident, with their resident bytes; of several names for the same bytes the
/// first one.
pub fn largest(mut variables: Vec<Variable>, runs: &[PageRun], count: usize) -> Vec<(Variable, u64)> {
    variables.sort_by(|a, b| (a.range, &a.name).cmp(&(b.range, &b.name)));
    variables.dedup_by_key(|variable| variable.range);
    let resident = |variable: Variable| {
        let bytes = resident_bytes_in(variable.range, runs);
        (variable, bytes)
    };
    let mut found: Vec<(Variable, u64)> = variables.into_iter().map(resident).collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.range.cmp(&b.0.range)));
    found.truncate(count);
    found.retain(|(_, bytes)| *bytes > 0);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attribute::ledger::Owners;
    use crate::attribute::mappings;
    use crate::snapshot::Residency;
    use crate::target::maps::parse_line;

    fn usage(line: &str, rss_bytes: u64, anonymous_bytes: u64, clean_bytes: u64) -> RegionUsage {
        RegionUsage { rss_bytes, anonymous_bytes, clean_bytes, ..RegionUsage::new(parse_line(line).unwrap()) }
    }

    fn uses_of(usages: Vec<RegionUsage>) -> Vec<(FileName, FileUse)> {
        let regions: Vec<_> = usages.iter().map(|usage| usage.region.clone()).collect();
        let claims = mappings::claims(&regions, &[], &BTreeSet::new());
        let snapshot = Snapshot { usages, ..Snapshot::default() };
        let ledger = Ledger::draw_up(&snapshot, &Owners::weigh(&claims));
        uses(&snapshot, &ledger, &[], &BTreeSet::new()).into_iter().collect()
    }

    #[test]
    fn a_file_is_what_all_its_mappings_hold() {
        let found = uses_of(vec![
            usage("10000-20000 r--p 00000000 fe:01 5 /a b (deleted)", 0x8000, 0, 0x8000),
            usage("20000-30000 rw-p 00010000 fe:01 5 /a b (deleted)", 0x8000, 0x3000, 0x2000),
            usage("30000-40000 rw-s 00000000 00:01 6 /memfd:x (deleted)", 0x1000, 0, 0x1000),
        ]);
        let [(file, in_file), (memfd, in_memfd)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((file.path.as_str(), file.is_deleted), ("/a b", true));
        assert_eq!(in_file.parts, BTreeMap::from([(Part::Text, 0xd000), (Part::Data, 0x3000)]));
        assert_eq!((in_file.reclaimable_bytes, in_file.mappings), (0xa000, 2));
        assert_eq!((memfd.component, in_memfd.backing), (Component::Shmem, Backing::Memfd));
        assert_eq!((in_memfd.rss_bytes(), in_memfd.reclaimable_bytes), (0x1000, 0));
        assert!(in_memfd.is_shared && !in_file.is_shared);
    }

    #[test]
    fn locked_pages_stay() {
        let file = usage("10000-20000 r--p 00000000 fe:01 5 /a", 0x8000, 0, 0x8000);
        let found = uses_of(vec![RegionUsage { locked_bytes: 0x8000, ..file }]);
        assert_eq!(found[0].1.reclaimable_bytes, 0);
    }

    #[test]
    fn variables_count_with_their_resident_bytes() {
        let variable = |name: &str, start_addr, end_addr| Variable {
            name: name.to_owned(),
            range: AddrRange { start_addr, end_addr },
        };
        let run = AddrRange { start_addr: 0x10000, end_addr: 0x13000 };
        let runs = [PageRun { range: run, residency: Residency::Resident }];
        let variables = vec![
            variable("untouched", 0x20000, 0x90000),
            variable("small", 0x10000, 0x10008),
            variable("large", 0x12000, 0x18000),
            variable("alias", 0x12000, 0x18000),
        ];
        let found = largest(variables, &runs, 3);
        let found: Vec<_> = found.iter().map(|(it, bytes)| (it.name.as_str(), *bytes)).collect();
        assert_eq!(found, [("alias", 0x1000), ("small", 8)]);
    }

    proptest! {
        #[test]
        fn the_files_add_up_to_their_rows(
            figures in proptest::collection::vec((0..64_u64, 0..64_u64, 0..64_u64), 1..6),
        ) {
            let line = |index: usize| format!("{:x}-{:x} rw-p 0 fe:01 5 /a", index << 20, (index + 1) << 20);
            let usages: Vec<_> = figures.iter().enumerate()
                .map(|(index, (rss, anonymous, clean))| usage(&line(index), *rss, *anonymous, *clean)).collect();
            let expected: u64 = figures.iter().map(|figure| figure.0).sum();
            let found = uses_of(usages);
            prop_assert_eq!(found.iter().map(|(_, found)| found.rss_bytes()).sum::<u64>(), expected);
            prop_assert!(found.iter().all(|(_, found)| found.reclaimable_bytes <= found.rss_bytes()));
        }
    }
}
