//! The walk on our own process, and on garbage.

use std::fs::File;

use leakprobe_ebpf::{EVENT_BYTES, STACK_HEAD_BYTES, Stack, kind};
use proptest::prelude::*;

use super::tables::{Context, Tables};
use super::*;
use crate::target::elf::ElfFile;
use crate::trace::decode::decode;

/// A record of a native thread with that stack.
fn record(ip: u64, sp: u64, bp: u64, stack: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; STACK_HEAD_BYTES];
    bytes[..4].copy_from_slice(&kind::FAULT_USER.to_le_bytes());
    bytes[24] = 1;
    for (offset, value) in [
        (std::mem::offset_of!(Stack, ip), ip),
        (std::mem::offset_of!(Stack, sp), sp),
        (std::mem::offset_of!(Stack, bp), bp),
    ] {
        bytes[EVENT_BYTES + offset..EVENT_BYTES + offset + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes[EVENT_BYTES + std::mem::offset_of!(Stack, form)] = 1;
    let len_bytes = u32::try_from(stack.len()).unwrap();
    let offset = EVENT_BYTES + std::mem::offset_of!(Stack, copy_bytes);
    bytes[offset..offset + 4].copy_from_slice(&len_bytes.to_le_bytes());
    bytes.extend_from_slice(stack);
    bytes
}

fn tables_of(eh_frame: Vec<u8>) -> Tables {
    Tables::of_sections(eh_frame, Vec::new(), Vec::new())
}

/// An `.eh_frame` of one function at 0x1000, of 0x100 bytes, with these call frame instructions.
fn eh_frame(instructions: &[u8]) -> Vec<u8> {
    let entry = |id: u32, body: &[u8]| {
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(8) + 4, 0);
        [u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec(), bytes].concat()
    };
    // Version 1, no augmentation, code factor 1, data factor -8, return address in 16; CFA = rsp + 8, saved at CFA - 8.
    let common = entry(0, &[1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1]);
    let body = [&0x1000_u64.to_le_bytes()[..], &0x100_u64.to_le_bytes(), instructions].concat();
    let function = entry(u32::try_from(common.len() + 4).unwrap(), &body);
    [common, function, vec![0; 4]].concat()
}

fn leave(tables: &Tables, at: &Registers, stack: &[u8]) -> Option<Result<Option<Registers>, Ending>> {
    let bytes = record(at.ip, at.sp, at.bp(), stack);
    let event = decode(&bytes).unwrap();
    let rule = tables.rule(at.code_addr(), &mut Context::default())?;
    Some(rule.leave(&event.stack.unwrap(), at))
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn a_frame_is_left_by_its_tables() {
    // After 4 bytes: CFA = rsp + 24, rbp saved at CFA - 16.
    let tables = tables_of(eh_frame(&[0x44, 0x0e, 24, 0x86, 2]));
    let at = |ip| Registers::new(ip, 0x7000, 5, false);
    let stack = words(&[1, 2, 0x1050, 4]);
    let first = leave(&tables, &at(0x1000), &stack).unwrap().unwrap().unwrap();
    assert_eq!((first.ip, first.sp, first.bp(), first.returned), (1, 0x7008, 5, true));
    let later = leave(&tables, &at(0x1008), &stack).unwrap().unwrap().unwrap();
    assert_eq!((later.ip, later.sp, later.bp()), (0x1050, 0x7018, 2));
    assert!(leave(&tables, &at(0x1100), &stack).is_none(), "behind the function");
    assert_eq!(leave(&tables, &at(0x1008), &stack[..16]), Some(Err(Ending::Depth)));
}

#[test]
fn an_expression_without_end_is_given_up() {
    // CFA by an expression that jumps to itself (DW_OP_skip -3).
    let tables = tables_of(eh_frame(&[0x0f, 3, 0x2f, 0xfd, 0xff]));
    let at = Registers::new(0x1000, 0x7000, 0, false);
    assert_eq!(leave(&tables, &at, &words(&[1, 2])), Some(Err(Ending::Tables)));
}

#[test]
fn tables_larger_than_any_real_one_are_refused() {
    let remembers = tables_of(eh_frame(&vec![0x0a; 1000])); // DW_CFA_remember_state without end
    let at = Registers::new(0x1000, 0x7000, 0, false);
    assert!(leave(&remembers, &at, &words(&[1, 2])).is_none());
    let long = tables_of(eh_frame(&vec![0; 100 << 10]));
    assert!(leave(&long, &at, &words(&[1, 2])).is_none());
    // A header as long as the section, whose augmentation ends nowhere: not gone through for each of its functions.
    let mut section = vec![1; 8 << 20];
    let len_bytes = u32::try_from(section.len() - 4).unwrap();
    section[..8].copy_from_slice(&[len_bytes.to_le_bytes(), [0; 4]].concat());
    for _ in 0..20_000 {
        let back = u32::try_from(section.len() + 4).unwrap();
        let entry = [20_u32.to_le_bytes(), back.to_le_bytes()].concat();
        section.extend([entry, words(&[0x1000, 0x100])].concat());
    }
    assert!(leave(&tables_of(section), &at, &words(&[1, 2])).is_none());
}

#[test]
fn what_lies_outside_all_code_is_no_frame() {
    let mut unwinder = Unwinder::new(&[], &[], Vec::new());
    let bytes = record(0x5000, 0x7000, 0, &words(&[1, 2, 3]));
    let unwound = unwinder.unwind(&decode(&bytes).unwrap().stack.unwrap());
    assert_eq!(unwound, Unwound { addrs: Vec::new(), ending: Ending::Elsewhere });
    let region = crate::target::maps::parse_line("5000-6000 rwxp 00000000 00:00 0 ").unwrap();
    let mut unwinder = Unwinder::new(&[], &[region], Vec::new());
    let unwound = unwinder.unwind(&decode(&bytes).unwrap().stack.unwrap());
    assert_eq!(unwound.ending, Ending::Anonymous);
}

proptest! {
    #[test]
    fn garbage_tables_never_panic(
        eh in proptest::collection::vec(any::<u8>(), 0..400), header in proptest::collection::vec(any::<u8>(), 0..80),
        stack in proptest::collection::vec(any::<u64>(), 0..40), svma: u64,
    ) {
        let tables = Tables::of_sections(eh.clone(), header, eh);
        for svma in [svma, 0x1000, svma % 400] {
            let _ = leave(&tables, &Registers::new(svma, 0x7000, 0x7010, false), &words(&stack));
        }
    }

    #[test]
    fn damaged_instructions_never_panic(
        instructions in proptest::collection::vec(any::<u8>(), 0..200),
        stack in proptest::collection::vec(any::<u64>(), 0..40), sp: u64, ip in 0x1000_u64..0x1100,
    ) {
        let _ = leave(&tables_of(eh_frame(&instructions)), &Registers::new(ip, sp, sp, true), &words(&stack));
    }
}

#[test]
fn libc_has_a_rule_for_all_of_its_functions() {
    let path = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path =
        path.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
    let elf = ElfFile::parse(File::open(path.expect("we are linked to libc")).unwrap()).unwrap();
    let tables = Tables::read(&elf);
    let mut context = Context::default();
    for name in ["malloc", "qsort", "printf", "pthread_create"] {
        let symbol = elf.exported(|other| other == name).unwrap().remove(0);
        let covered =
            (symbol.svma..symbol.svma + symbol.len_bytes).all(|it| tables.rule(it, &mut context).is_some());
        assert!(covered, "{name} is not covered");
    }
}
