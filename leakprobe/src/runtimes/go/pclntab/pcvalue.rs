//! The tables that give a number for every instruction of a function: frame size, file, line.
//!
//! Go source: `src/runtime/symtab.go`, `step` and `pcvalue`; the encoding is the same from Go 1.2 to 1.27.

/// More steps than this no function has: a step covers one instruction at least.
const MAX_STEPS: usize = 1 << 20;

/// The value at the instruction `pc_offset` bytes into the function whose table starts `deltas`.
///
/// The table is a list of pairs: how much the value changes, then for how many instructions it holds
/// (in units of `quantum_bytes`). `None` where the table ends before the instruction, or is cut short.
pub fn value_at(deltas: &[u8], quantum_bytes: u32, pc_offset: u64) -> Option<i32> {
    let mut rest = deltas;
    let mut value = -1_i32;
    let mut end_offset = 0_u64;
    for step in 0..MAX_STEPS {
        let (value_delta, after_value) = uvarint(rest)?;
        if value_delta == 0 && step > 0 {
            return None;
        }
        let (pc_delta, after_pc) = uvarint(after_value)?;
        value = value.wrapping_add(zigzag(value_delta));
        end_offset = end_offset.checked_add(u64::from(pc_delta) * u64::from(quantum_bytes))?;
        if pc_offset < end_offset {
            return Some(value);
        }
        rest = after_pc;
    }
    None
}

/// A signed number stored with its sign in the lowest bit.
fn zigzag(encoded: u32) -> i32 {
    (encoded >> 1).cast_signed() ^ (encoded & 1).cast_signed().wrapping_neg()
}

/// An unsigned number of at most 32 bits, seven a byte, the lowest first; and what follows it.
fn uvarint(data: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u32;
    for (index, &byte) in data.iter().take(5).enumerate() {
        value |= u32::from(byte & 0x7f).checked_shl(7 * u32::try_from(index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &data[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_that_opens_and_closes() {
        // 0 for 4 bytes, then 24 (+24 is 48 in zigzag) for 200 bytes (0xc8 0x01), then 0 for 1 byte.
        let table = [2, 4, 48, 0xc8, 1, 47, 1, 0, 99];
        assert_eq!(value_at(&table, 1, 0), Some(0));
        assert_eq!(value_at(&table, 1, 3), Some(0));
        assert_eq!(value_at(&table, 1, 4), Some(24));
        assert_eq!(value_at(&table, 1, 203), Some(24));
        assert_eq!(value_at(&table, 1, 204), Some(0));
        assert_eq!(value_at(&table, 1, 205), None, "the table ends here");
        assert_eq!(value_at(&table, 4, 16), Some(24), "arm64 counts instructions of 4 bytes");
    }

    #[test]
    fn a_first_step_may_change_nothing() {
        assert_eq!(value_at(&[0, 5, 2, 1, 0], 1, 3), Some(-1));
        assert_eq!(value_at(&[0, 5, 2, 1, 0], 1, 5), Some(0));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(table in proptest::collection::vec(any::<u8>(), 0..100), pc: u64) {
            let _ = value_at(&table, 4, pc);
        }
    }
}
