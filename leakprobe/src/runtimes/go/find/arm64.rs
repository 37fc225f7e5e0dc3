//! The addresses that AArch64 code names: pairs of `ADRP`, which makes the address of a page, and the
//! instruction right after it.
//!
//! Go's assembler emits such a pair in one piece (Go `cmd/internal/obj/arm64`), so nothing but the next
//! instruction is looked at; a third one only where the pair leaves the address in the assembler's own register.
//! Encodings: Arm Architecture Reference Manual for A-profile, C6.2.

use super::operands::{Operand, Use};

/// The register in which Go's assembler makes addresses for its own use, `REGTMP`.
const SCRATCH_REGISTER: u32 = 27;

/// A register that holds an address, whole or its page.
#[derive(Clone, Copy)]
struct Held {
    register: u32,
    svma: u64,
}

/// The addresses that `code`, which lies at `code_svma`, names; in its order.
pub fn operands(code: &[u8], code_svma: u64) -> Vec<Operand> {
    let mut found = Vec::new();
    let mut held: Option<Held> = None;
    for (offset, bytes) in (0_u64..).step_by(4).zip(code.as_chunks().0) {
        let word = u32::from_le_bytes(*bytes);
        let before = held.take();
        if let Some(page) = page_address(word, code_svma.wrapping_add(offset)) {
            held = Some(page);
            continue;
        }
        let Some(before) = before else { continue };
        if let Some((used, offset_bytes)) = access(word, before.register) {
            found.push(Operand { used, svma: before.svma.wrapping_add_signed(offset_bytes) });
        } else if let Some(whole) = addition(word, before) {
            if whole.register == SCRATCH_REGISTER {
                held = Some(whole); // the access follows
            } else {
                found.push(Operand { used: Use::Address, svma: whole.svma });
            }
        }
    }
    found
}

/// `ADRP Xd, label`: the page that is so many pages away from the instruction's own.
fn page_address(word: u32, svma: u64) -> Option<Held> {
    if word & 0x9f00_0000 != 0x9000_0000 {
        return None;
    }
    let pages = (bits(word, 5, 19) << 2) | bits(word, 29, 2);
    let page_svma = svma & !0xfff;
    Some(Held { register: bits(word, 0, 5), svma: page_svma.wrapping_add_signed(signed(pages, 21) << 12) })
}

/// `ADD Xd, Xn, #imm` where Xn is the register held.
fn addition(word: u32, held: Held) -> Option<Held> {
    if word & 0xff80_0000 != 0x9100_0000 || bits(word, 5, 5) != held.register {
        return None;
    }
    let shift = 12 * bits(word, 22, 1);
    let addend = u64::from(bits(word, 10, 12)) << shift;
    Some(Held { register: bits(word, 0, 5), svma: held.svma.wrapping_add(addend) })
}

/// A load or store with `base` as its base register: what it is, and the offset it adds.
fn access(word: u32, base: u32) -> Option<(Use, i64)> {
    if bits(word, 5, 5) != base {
        return None;
    }
    let is_vector = bits(word, 26, 1) == 1;
    let size = bits(word, 30, 2);
    match word & 0x3b80_0000 {
        // LDP and STP, and LDPSW, with a signed offset.
        0x2900_0000 => {
            let scale = if is_vector { 2 + size } else { 2 + (size >> 1) };
            let used = if bits(word, 22, 1) == 1 { Use::Load } else { Use::Store };
            Some((used, signed(bits(word, 15, 7), 7) << scale))
        }
        // LDR and STR of all sizes, with an unsigned offset.
        0x3900_0000 | 0x3980_0000 => {
            let operation = bits(word, 22, 2);
            let is_quad = is_vector && operation & 2 != 0;
            let is_store = operation == 0 || (is_quad && operation == 2);
            let scale = if is_quad { 4 } else { size };
            Some((if is_store { Use::Store } else { Use::Load }, i64::from(bits(word, 10, 12)) << scale))
        }
        _ => None,
    }
}

fn bits(word: u32, first: u32, count: u32) -> u32 {
    (word >> first) & ((1 << count) - 1)
}

/// A number of so many bits, in two's complement.
fn signed(value: u32, bit_count: u32) -> i64 {
    let unused = 32 - bit_count;
    i64::from((value << unused).cast_signed() >> unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &[u32], code_svma: u64) -> Vec<(Use, u64)> {
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        operands(&code, code_svma).iter().map(|operand| (operand.used, operand.svma)).collect()
    }

    // Encoded by `llvm-mc -triple=aarch64`.
    const ADRP_X27_PLUS_0X123: u32 = 0xf000_091b;
    const ADRP_X0_MINUS_1: u32 = 0xf0ff_ffe0;
    const ADD_X0_X0_0XABC: u32 = 0x912a_f000;
    const ADD_X27_X27_0XABC: u32 = 0x912a_f37b;
    const LDR_X1_X27_0X10: u32 = 0xf940_0b61;
    const LDR_W1_X27_0X10: u32 = 0xb940_1361;
    const STRB_W1_X27_0X10: u32 = 0x3900_4361;
    const STR_Q0_X27_0X10: u32 = 0x3d80_0760;
    const LDP_X1_X2_X27_MINUS_8: u32 = 0xa97f_8b61;
    const NOP: u32 = 0xd503_201f;

    #[test]
    fn pairs_make_an_address() {
        assert_eq!(found(&[ADRP_X27_PLUS_0X123, LDR_X1_X27_0X10], 0x1_0004), [(Use::Load, 0x13_3010)]);
        assert_eq!(found(&[ADRP_X27_PLUS_0X123, LDR_W1_X27_0X10], 0x1_0004), [(Use::Load, 0x13_3010)]);
        assert_eq!(found(&[ADRP_X27_PLUS_0X123, STRB_W1_X27_0X10], 0x1_0004), [(Use::Store, 0x13_3010)]);
        assert_eq!(found(&[ADRP_X27_PLUS_0X123, STR_Q0_X27_0X10], 0x1_0004), [(Use::Store, 0x13_3010)]);
        assert_eq!(found(&[ADRP_X0_MINUS_1, ADD_X0_X0_0XABC], 0x1_0ffc), [(Use::Address, 0xfabc)]);
    }

    #[test]
    fn the_assemblers_own_register_is_followed() {
        let code = [ADRP_X27_PLUS_0X123, ADD_X27_X27_0XABC, LDP_X1_X2_X27_MINUS_8];
        assert_eq!(found(&code, 0x1_0000), [(Use::Load, 0x13_3ab4)]);
    }

    #[test]
    fn what_is_no_pair_is_nothing() {
        assert_eq!(found(&[ADRP_X27_PLUS_0X123, NOP, LDR_X1_X27_0X10], 0), []);
        assert_eq!(found(&[ADRP_X0_MINUS_1, LDR_X1_X27_0X10], 0), []);
        assert_eq!(found(&[ADD_X0_X0_0XABC], 0), []);
    }
}
