//! A small table made by hand, and what garbage does to it.

use proptest::prelude::*;

use super::*;

pub const TEXT_SVMA: u64 = 0x40_1000;

/// A table of the Go 1.20 form under construction.
struct Builder {
    names: Vec<u8>,
    files: Vec<u8>,
    values: Vec<u8>,
}

impl Builder {
    fn name(&mut self, text: &str) -> u32 {
        push_text(&mut self.names, text)
    }

    fn values(&mut self, bytes: &[u8]) -> u32 {
        let offset = u32::try_from(self.values.len()).unwrap();
        self.values.extend(bytes);
        offset
    }
}

fn push_text(texts: &mut Vec<u8>, text: &str) -> u32 {
    let offset = u32::try_from(texts.len()).unwrap();
    texts.extend(text.as_bytes());
    texts.push(0);
    offset
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The table: `main.outer` of 0x40 bytes, into which `main.inner` is inlined at 0x10..0x20, and `runtime.racecall`,
/// written in assembly, of 0x20 bytes.
fn table() -> (Vec<u8>, Vec<u8>) {
    let mut builder = Builder { names: vec![], files: vec![], values: vec![0] };
    let [outer, inner, racecall] = ["main.outer", "main.inner", "runtime.racecall"].map(|n| builder.name(n));
    let source = push_text(&mut builder.files, "/src/main.go");
    let assembly = push_text(&mut builder.files, "/go/src/runtime/race_amd64.s");
    let frame = builder.values(&[2, 8, 112, 0x30, 111, 8, 0]); // 0 to 0x08, 56 to 0x38, then 0
    let file = builder.values(&[2, 0x40, 0]);
    let line = builder.values(&[2 * 11, 0x10, 2 * 20, 0x10, 39, 0x20, 0]); // 10, 30 at 0x10..0x20, 10
    let inline_index = builder.values(&[0, 0x10, 2, 0x10, 1, 0x20, 0]); // -1, 0 at 0x10..0x20, -1
    let mut funcdata = vec![0xee; 8];
    funcdata.extend(words(&[0, inner, 0x0c, 28]));

    let list_bytes = 2 * 8 + 4;
    let mut records = vec![];
    let mut list = vec![];
    let outer_offset = list_bytes;
    let kinds = u32::from_le_bytes([0, 0, 0, 4]);
    let outer_record = [0, outer, 0, 0, frame, file, line, 3, 0, 9, kinds];
    records.extend(words(&outer_record));
    records.extend(words(&[0, 0, inline_index, ABSENT, ABSENT, ABSENT, 8]));
    let racecall_offset = list_bytes + u32::try_from(records.len()).unwrap();
    let kinds = u32::from_le_bytes([0, 4, 0, 0]);
    records.extend(words(&[0x40, racecall, 0, 0, 0, file, 0, 0, 1, 0, kinds]));
    list.extend(words(&[0, outer_offset, 0x40, racecall_offset, 0x60]));

    let units = words(&[source, assembly]);
    let mut out = vec![0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
    let parts = [builder.names, units, builder.files, builder.values, [list, records].concat()];
    let mut fields = vec![2_u64, 2, 0];
    let mut offset = 72;
    for part in &parts {
        fields.push(offset);
        offset += u64::try_from(part.len()).unwrap();
    }
    out.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    out.extend(parts.concat());
    (out, funcdata)
}

const ABSENT: u32 = u32::MAX;

fn text() -> AddrRange {
    AddrRange::with_len(TEXT_SVMA, 0x60).unwrap()
}

pub fn parsed() -> Pclntab {
    let (table, funcdata) = table();
    Pclntab::from_bytes(table, text(), funcdata).unwrap()
}

#[test]
fn functions_are_found_by_address() {
    let pclntab = parsed();
    let outer = pclntab.lookup(TEXT_SVMA + 0x3f).unwrap();
    assert_eq!((outer.name(), outer.entry_svma, outer.end_svma), ("main.outer", TEXT_SVMA, TEXT_SVMA + 0x40));
    assert!(!outer.is_asm() && !outer.is_in_runtime());
    let racecall = pclntab.lookup(TEXT_SVMA + 0x40).unwrap();
    assert!(racecall.is_asm() && racecall.is_in_runtime());
    assert_eq!(racecall.role(), Role::RaceCall);
    assert_eq!(racecall.file(), Some("/go/src/runtime/race_amd64.s"));
    assert!(pclntab.lookup(TEXT_SVMA - 1).is_none());
    assert!(pclntab.lookup(TEXT_SVMA + 0x60).is_none());
    assert_eq!(pclntab.functions().count(), 2);
}

#[test]
fn frames_open_and_close() {
    let pclntab = parsed();
    let bytes = |offset| pclntab.frame_bytes(TEXT_SVMA + offset);
    assert_eq!(
        [bytes(0), bytes(7), bytes(8), bytes(0x37), bytes(0x38)].map(Option::unwrap),
        [0, 0, 56, 56, 0]
    );
    assert_eq!(bytes(0x40), None, "no table: nothing is known, which is not 0");
}

#[test]
fn inlined_calls_come_first() {
    let pclntab = parsed();
    let file = Some("/src/main.go");
    let outer = |line| GoFrame { function: "main.outer", file, line: Some(line), inlined: false };
    assert_eq!(pclntab.frames_at(TEXT_SVMA), [outer(10)]);
    let inner = GoFrame { function: "main.inner", file, line: Some(30), inlined: true };
    assert_eq!(pclntab.frames_at(TEXT_SVMA + 0x10), [inner, outer(10)]);
    assert_eq!(pclntab.frames_at(TEXT_SVMA + 0x20), [outer(10)]);
}

#[test]
fn without_funcdata_nothing_is_expanded() {
    let pclntab = Pclntab::from_bytes(table().0, text(), vec![]).unwrap();
    let frames = pclntab.frames_at(TEXT_SVMA + 0x10);
    assert_eq!((frames.len(), frames[0].function, frames[0].line), (1, "main.outer", Some(30)));
}

#[test]
fn an_inline_tree_that_runs_in_circles_ends() {
    let (table, mut funcdata) = table();
    funcdata[16..20].copy_from_slice(&0x12_u32.to_le_bytes());
    let pclntab = Pclntab::from_bytes(table, text(), funcdata).unwrap();
    assert_eq!(pclntab.frames_at(TEXT_SVMA + 0x10).len(), 101);
}

/// Asks for everything a table can be asked for.
fn exercise(pclntab: &Pclntab) {
    for function in pclntab.functions().take(100) {
        let _ = function.file();
        let _ = function.frames_at(function.entry_svma);
    }
    for svma in (TEXT_SVMA - 2..TEXT_SVMA + 0x64).chain([0, u64::MAX]) {
        let _ = pclntab.frame_bytes(svma);
        let _ = pclntab.frames_at(svma);
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(pclntab) = Pclntab::from_bytes(data, text(), vec![]) {
            exercise(&pclntab);
        }
    }

    #[test]
    fn a_damaged_table_never_panics(
        changes in proptest::collection::vec((0_usize..400, any::<u8>()), 1..12), cut in 0_usize..400,
    ) {
        let (mut table, mut funcdata) = table();
        for (place, value) in changes {
            let table_bytes = table.len();
            if place < table_bytes {
                table[place] = value;
            } else if let Some(byte) = funcdata.get_mut(place - table_bytes) {
                *byte = value;
            }
        }
        table.truncate(cut.max(72));
        if let Ok(pclntab) = Pclntab::from_bytes(table, text(), funcdata) {
            exercise(&pclntab);
        }
    }
}
