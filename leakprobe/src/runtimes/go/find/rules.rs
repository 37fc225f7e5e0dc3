//! Which variables of package `runtime` its functions name: what finds them in a program without symbols.
//!
//! Function names survive in the function table, and each of these functions handles the one variable in a way
//! that nothing else in it is handled. Refuses a function whose code has no such operand, or several. Compared
//! with the symbol tables of programs built by Go 1.19.8, 1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6 and
//! 1.27.3: executables, position-independent ones, with -race, with cgo, and for arm64. The surprise: the rules
//! are the same for all of them; only two distances from a field to its structure are not.

use std::collections::HashMap;

use super::super::image::{Arch, Image};
use super::super::layout::Layout;
use super::super::pclntab::Pclntab;
use super::Global;
use super::operands::{Operand, Use, operands};
use crate::target::elf::{ElfFile, Segment};

/// Functions of the runtime are shorter; a longer one is not read to its end.
const MAX_FUNCTION_BYTES: u64 = 16 << 10;

/// Which operand of the function it is. Only operands in writable data count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    /// The first one in the code.
    First,
    /// The last one in the code.
    Last,
    /// The one with the lowest address: a structure of several words, and nothing else, is named.
    Lowest,
    /// The lowest of those named once: all others are locks, taken and released.
    LowestNamedOnce,
    /// The only one both loaded and handed on as an address: to swap it atomically, or with its field behind.
    LoadedAndTaken,
    /// The only one handed on as an address whose next word is loaded: a list's head behind its lock.
    TakenAndNextLoaded,
    /// The lowest one written to.
    LowestStored,
    /// The only one handed on as an address more than once.
    TakenTwice,
}

/// How a variable is found.
struct Rule {
    global: Global,
    function: &'static str,
    pick: Pick,
}

static RULES: [Rule; 14] = [
    Rule { global: Global::Memstats, function: "runtime.newBucket", pick: Pick::First },
    Rule {
        global: Global::PersistentChunks,
        function: "runtime.persistentalloc1",
        pick: Pick::LoadedAndTaken,
    },
    Rule { global: Global::GcBitsArenas, function: "runtime.nextMarkBitArenaEpoch", pick: Pick::Lowest },
    Rule { global: Global::Allp, function: "runtime.preemptall", pick: Pick::Lowest },
    Rule { global: Global::Allgs, function: "runtime.forEachG", pick: Pick::LowestNamedOnce },
    Rule { global: Global::Allm, function: "runtime.mcommoninit", pick: Pick::LoadedAndTaken },
    Rule { global: Global::Work, function: "runtime.freeSomeWbufs", pick: Pick::TakenAndNextLoaded },
    Rule { global: Global::Buckhash, function: "runtime.stkbucket", pick: Pick::First },
    Rule { global: Global::Mbuckets, function: "runtime.mProf_FlushLocked", pick: Pick::First },
    Rule { global: Global::MemProfileCycle, function: "runtime.mProf_Flush", pick: Pick::First },
    Rule { global: Global::MemProfileRate, function: "runtime.profilealloc", pick: Pick::Last },
    Rule { global: Global::VgetrandomAlloc, function: "runtime.vgetrandomInit", pick: Pick::LowestStored },
    Rule { global: Global::WaitReasonStrings, function: "runtime.waitReason.String", pick: Pick::First },
    // Its methods are called one after the other, for which nothing else in there has any.
    Rule { global: Global::GcController, function: "runtime.gcControllerCommit", pick: Pick::TakenTwice },
];

impl Rule {
    /// How far into the variable the operand points.
    fn offset_bytes(&self, layout: &Layout) -> u64 {
        match self.global {
            Global::Memstats => layout.stats_buckhash_sys_offset,
            Global::Work => layout.work_buffers_offset,
            // `stateSize`, behind the list of states and its lock.
            Global::VgetrandomAlloc => 32,
            _ => 0,
        }
    }
}

/// The variables that the code of `elf` names, at the addresses stated in the file.
pub fn find(elf: &ElfFile, table: &Pclntab, layout: &Layout) -> Vec<(Global, u64)> {
    let named = functions(elf, table, layout.arch);
    let found = RULES.iter().filter_map(|rule| {
        let svma = rule.pick.operand(named.get(rule.function)?)?;
        Some((rule.global, svma.checked_sub(rule.offset_bytes(layout))?))
    });
    found.collect()
}

/// What each function of the rules names in writable data.
fn functions(elf: &ElfFile, table: &Pclntab, arch: Arch) -> HashMap<&'static str, Vec<Operand>> {
    let mut named = HashMap::new();
    for function in table.functions() {
        // Of several functions of one name the first: their number is the file's to choose, and decoding is slow.
        let rule = rule_for(function.name(), &named);
        let len_bytes = function.end_svma.saturating_sub(function.entry_svma).min(MAX_FUNCTION_BYTES);
        let code = rule.and_then(|_| Image::file_bytes_at(elf, function.entry_svma, len_bytes));
        let (Some(rule), Some(code)) = (rule, code) else { continue };
        let mut operands = operands(arch, code, function.entry_svma);
        operands.retain(|operand| elf.segments().iter().any(|segment| is_data(segment, operand.svma)));
        named.insert(rule.function, operands);
    }
    named
}

/// The rule for the function called `name`, unless it was followed already.
fn rule_for(name: &str, named: &HashMap<&'static str, Vec<Operand>>) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.function == name && !named.contains_key(rule.function))
}

fn is_data(segment: &Segment, svma: u64) -> bool {
    let offset = svma.checked_sub(segment.svma);
    segment.writable && offset.is_some_and(|offset| offset < segment.memory_bytes)
}

impl Pick {
    /// The address picked; `None` where the code does not have the form expected.
    fn operand(self, operands: &[Operand]) -> Option<u64> {
        let is = |used: Use, svma: u64| operands.contains(&Operand { used, svma });
        let all = operands.iter().map(|operand| operand.svma);
        match self {
            Self::First => operands.first().map(|operand| operand.svma),
            Self::Last => operands.last().map(|operand| operand.svma),
            Self::Lowest => all.min(),
            Self::LowestNamedOnce => {
                let times = |svma: u64| operands.iter().filter(|operand| operand.svma == svma).count();
                all.filter(|&svma| times(svma) == 1).min()
            }
            Self::LoadedAndTaken => only(all.filter(|&svma| is(Use::Load, svma) && is(Use::Address, svma))),
            Self::TakenAndNextLoaded => {
                only(all.filter(|&svma| is(Use::Address, svma) && is(Use::Load, svma.wrapping_add(8))))
            }
            Self::LowestStored => all.filter(|&svma| is(Use::Store, svma)).min(),
            Self::TakenTwice => {
                let taken = |svma: u64| {
                    operands.iter().filter(|it| **it == Operand { used: Use::Address, svma }).count()
                };
                only(all.filter(|&svma| taken(svma) > 1))
            }
        }
    }
}

/// The address that all of `svmas` are.
fn only(mut svmas: impl Iterator<Item = u64>) -> Option<u64> {
    let first = svmas.next()?;
    svmas.all(|other| other == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: u64 = 0x100;
    const LIST: u64 = 0x200;
    const FLAG: u64 = 0x300;

    fn operand(used: Use, svma: u64) -> Operand {
        Operand { used, svma }
    }

    #[test]
    fn a_slice_between_two_uses_of_its_lock() {
        let loads = [operand(Use::Load, LIST), operand(Use::Load, LIST + 8)];
        let code =
            [[operand(Use::Address, LOCK)].as_slice(), &loads, &[operand(Use::Address, LOCK)]].concat();
        assert_eq!(Pick::LowestNamedOnce.operand(&code), Some(LIST));
        assert_eq!(Pick::First.operand(&code), Some(LOCK));
        assert_eq!(Pick::Lowest.operand(&loads), Some(LIST));
    }

    #[test]
    fn a_head_that_is_loaded_and_swapped() {
        let code = [
            operand(Use::Load, FLAG),
            operand(Use::Address, LOCK),
            operand(Use::Load, LIST),
            operand(Use::Load, FLAG),
            operand(Use::Address, LIST),
        ];
        assert_eq!(Pick::LoadedAndTaken.operand(&code), Some(LIST));
        let twice = [code.as_slice(), &[operand(Use::Address, FLAG)]].concat();
        assert_eq!(Pick::LoadedAndTaken.operand(&twice), None, "two of them");
        let calls = [operand(Use::Address, FLAG), operand(Use::Load, LIST), operand(Use::Address, FLAG)];
        assert_eq!(Pick::TakenTwice.operand(&calls), Some(FLAG));
        let behind = [operand(Use::Address, LOCK), operand(Use::Load, FLAG), operand(Use::Load, LOCK + 8)];
        assert_eq!(Pick::TakenAndNextLoaded.operand(&behind), Some(LOCK));
    }

    #[test]
    fn a_function_is_decoded_once() {
        let mut named = HashMap::new();
        let rule = rule_for("runtime.newBucket", &named).unwrap();
        named.insert(rule.function, Vec::new());
        assert!(rule_for("runtime.newBucket", &named).is_none());
        assert!(rule_for("runtime.preemptall", &named).is_some());
        assert!(rule_for("main.main", &named).is_none());
    }

    #[test]
    fn a_function_that_names_nothing() {
        let picks = [Pick::First, Pick::Last, Pick::Lowest, Pick::LowestNamedOnce, Pick::LowestStored];
        let rest = [Pick::LoadedAndTaken, Pick::TakenAndNextLoaded, Pick::TakenTwice];
        for pick in picks.into_iter().chain(rest) {
            assert_eq!(pick.operand(&[]), None, "{pick:?}");
        }
    }
}
