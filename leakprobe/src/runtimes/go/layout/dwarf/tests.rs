//! Debug information made by hand: what Go writes, what it would not, and garbage.

use proptest::prelude::*;

use super::*;

/// A table of abbreviations: 1 a unit, 2 a structure with members, 3 a member, 4 a base type, 5 another name.
const ABBREVIATIONS: &[u8] = &[
    1, 0x11, 1, 0x03, 0x08, 0, 0, // compile_unit: name
    2, 0x13, 1, 0x03, 0x08, 0x0b, 0x0f, 0, 0, // structure_type: name, byte_size
    3, 0x0d, 0, 0x03, 0x08, 0x38, 0x0f, 0x49, 0x10, 0, 0, // member: name, location, type
    4, 0x24, 0, 0x03, 0x08, 0x0b, 0x0f, 0, 0, // base_type: name, byte_size
    5, 0x16, 0, 0x03, 0x08, 0x49, 0x10, 0, 0, // typedef: name, type
    0,
];

/// Writes units of DWARF 4, with the offsets of entries that are referred to.
#[derive(Default)]
struct Section(Vec<u8>);

impl Section {
    fn text(&mut self, text: &str) {
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn start_unit(&mut self, name: &str) -> usize {
        let start = self.0.len();
        self.0.extend([0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1]);
        self.text(name);
        start
    }

    fn end_unit(&mut self, start: usize) {
        self.0.push(0);
        let len = u32::try_from(self.0.len() - start - 4).unwrap();
        self.0[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    fn base(&mut self, name: &str, size: u8) -> u32 {
        let offset = u32::try_from(self.0.len()).unwrap();
        self.0.push(4);
        self.text(name);
        self.0.push(size);
        offset
    }

    fn alias(&mut self, name: &str, target: u32) -> u32 {
        let offset = u32::try_from(self.0.len()).unwrap();
        self.0.push(5);
        self.text(name);
        self.0.extend(target.to_le_bytes());
        offset
    }

    fn structure(&mut self, name: &str, size: u8, members: &[(&str, u8, u32)]) -> u32 {
        let offset = u32::try_from(self.0.len()).unwrap();
        self.0.push(2);
        self.text(name);
        self.0.push(size);
        for (name, offset, target) in members {
            self.0.push(3);
            self.text(name);
            self.0.push(*offset);
            self.0.extend(target.to_le_bytes());
        }
        self.0.push(0);
        offset
    }
}

/// A unit of something else, one of package runtime without types, and the one with them.
fn section() -> Vec<u8> {
    let mut section = Section::default();
    let other = section.start_unit("main");
    let number = section.base("uint16", 2);
    section.structure("runtime.mspan", 9, &[("nelems", 3, number)]);
    section.end_unit(other);
    let assembly = section.start_unit("runtime");
    section.end_unit(assembly);
    let types = section.start_unit("runtime");
    let number = section.base("uint16", 2);
    let number = section.alias("runtime.index", number);
    let inner = section.structure("struct { runtime.nelems uint16 }", 6, &[("nelems", 4, number)]);
    section.structure("runtime.mspan", 100, &[("inner", 40, inner), ("nelems", 50, number)]);
    section.end_unit(types);
    section.0
}

fn types(section: &[u8]) -> Result<Types> {
    Types::scan(section, ABBREVIATIONS, vec!["mspan", "gone"])
}

#[test]
fn members_and_sizes_by_path() {
    let types = types(&section()).unwrap();
    assert_eq!(types.place("mspan.nelems"), Some(50), "that of package main is another");
    assert_eq!(types.place("mspan.inner.nelems"), Some(44));
    assert_eq!(types.place("sizeof(mspan)"), Some(100));
    assert_eq!(types.place("sizeof(mspan.nelems)"), Some(2), "by its other name");
    assert_eq!(types.place("mspan.gone | mspan.inner"), Some(40));
    assert_eq!(
        (types.place("mspan.gone"), types.place("gone.field"), types.place("sizeof(gone)")),
        (None, None, None)
    );
}

#[test]
fn names_that_run_in_circles_end() {
    let mut section = Section::default();
    let unit = section.start_unit("runtime");
    let itself = u32::try_from(section.0.len()).unwrap();
    section.alias("runtime.circle", itself);
    section.structure("runtime.mspan", 8, &[("nelems", 0, itself)]);
    section.end_unit(unit);
    let types = types(&section.0).unwrap();
    assert_eq!(types.place("mspan.nelems"), None);
}

#[test]
fn only_units_with_a_wanted_type_are_kept() {
    assert_eq!(types(&section()).unwrap().units.len(), 1, "not the one of an assembly file");
}

#[test]
fn units_share_the_reading_of_their_abbreviations() {
    // A table that takes long, and many units of package runtime: each unit alone is within bounds.
    let mut abbreviations = ABBREVIATIONS[..ABBREVIATIONS.len() - 1].to_vec();
    for code in 128_u64..128 + 16_000 {
        let low = u8::try_from(code & 0x7f).unwrap() | 0x80;
        let high = [code >> 7, code >> 14].map(|bits| u8::try_from(bits & 0x7f).unwrap());
        abbreviations.extend([low, high[0] | 0x80, high[1], 0x13, 0, 0, 0]);
    }
    abbreviations.push(0);
    let mut section = Section::default();
    for _ in 0..20_000 {
        let unit = section.start_unit("runtime");
        section.end_unit(unit);
    }
    let mut types = Types::scan(section.0.as_slice(), &abbreviations, vec!["mspan"]).unwrap();
    assert!(types.units.is_empty());
    let mut tables = Tables::new(&abbreviations);
    assert!(Rc::ptr_eq(&tables.at(0).unwrap(), &tables.at(0).unwrap()));
    assert_eq!(tables.read, 1);
    // What was made to be read again and again ends.
    let ends = (0..=MAX_TABLES).map(|count| tables.at(7 * (1 + count % 2))).any(|table| table.is_err());
    assert!(ends);
    types.attributes_left = 0;
    let unit =
        Unit { start_offset: 0, bytes: section.0, abbreviations: Tables::new(&abbreviations).at(0).unwrap() };
    assert!(types.add(unit, &mut vec!["mspan"]).is_err(), "no attribute more");
}

#[test]
fn more_units_than_a_program_has_are_refused() {
    let mut section = Section::default();
    for _ in 0..=MAX_UNITS {
        let unit = section.start_unit("main");
        section.end_unit(unit);
    }
    assert!(types(&section.0).is_err());
}

#[test]
fn a_unit_or_a_table_that_is_too_large_is_refused() {
    let mut section = section();
    // The second unit starts behind the first, and claims more than it has.
    let first_bytes = unit_len_bytes(&section).unwrap();
    let len = u32::try_from(MAX_RUNTIME_BYTES).unwrap();
    section[first_bytes..first_bytes + 4].copy_from_slice(&len.to_le_bytes());
    assert!(types(&section).is_err());
    let endless = [&ABBREVIATIONS[..ABBREVIATIONS.len() - 1], &vec![1; MAX_TABLE_BYTES]].concat();
    assert!(Tables::new(&endless).at(0).is_err());
}

proptest! {
    #[test]
    fn garbage_never_panics(section in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(types) = types(&section) {
            prop_assert!(types.place("mspan.nelems").is_none_or(|place| place < u32::MAX));
        }
    }

    #[test]
    fn damage_never_panics(damage in proptest::collection::vec((0_usize..1000, any::<u8>()), 1..6)) {
        let mut section = section();
        let len = section.len();
        for (place, byte) in damage {
            section[place % len] = byte;
        }
        if let Ok(types) = types(&section) {
            for path in ["mspan.nelems", "mspan.inner.nelems", "sizeof(mspan.nelems)"] {
                types.place(path);
            }
        }
        section.truncate(len / 2);
        let _ = types(&section);
    }

    #[test]
    fn damaged_abbreviations_never_panic(damage in proptest::collection::vec((0_usize..1000, any::<u8>()), 1..6)) {
        let mut abbreviations = ABBREVIATIONS.to_vec();
        let len = abbreviations.len();
        for (place, byte) in damage {
            abbreviations[place % len] = byte;
        }
        let section = section();
        if let Ok(types) = Types::scan(section.as_slice(), &abbreviations, vec!["mspan"]) {
            types.place("mspan.inner.nelems");
        }
    }
}
