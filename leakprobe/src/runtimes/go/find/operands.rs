//! The addresses that machine code names: what it loads, stores, and takes the address of.
//!
//! Only addresses that the instructions state themselves, not those they compute. Refuses to follow registers
//! from one instruction to the next. The surprise: an atomic access looks like taking the address, and the
//! collector's write barrier flag turns up everywhere.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::super::image::Arch;
use super::arm64;

/// What an instruction does with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// Puts it into a register.
    Address,
    /// Reads what is there, or reads and changes it.
    Load,
    /// Writes there.
    Store,
}

/// An address that an instruction names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Operand {
    /// What is done with it.
    pub used: Use,
    /// As stated in the file.
    pub svma: u64,
}

/// The addresses that `code`, which lies at `code_svma`, names; in its order.
pub fn operands(arch: Arch, code: &[u8], code_svma: u64) -> Vec<Operand> {
    match arch {
        Arch::Amd64 => amd64(code, code_svma),
        Arch::Arm64 => arm64::operands(code, code_svma),
    }
}

fn amd64(code: &[u8], code_svma: u64) -> Vec<Operand> {
    let mut decoder = Decoder::with_ip(64, code, code_svma, DecoderOptions::NONE);
    let mut found = Vec::new();
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() || instruction.memory_base() != Register::RIP {
            continue;
        }
        let used = match instruction.mnemonic() {
            Mnemonic::Lea => Use::Address,
            mnemonic if instruction.op0_kind() == OpKind::Memory && is_move(mnemonic) => Use::Store,
            _ => Use::Load,
        };
        found.push(Operand { used, svma: instruction.ip_rel_memory_address() });
    }
    found
}

/// The moves with which Go's compiler stores: whatever else has memory as its first operand reads it too.
fn is_move(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Mov | Mnemonic::Movups | Mnemonic::Movss | Mnemonic::Movsd)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_each_instruction_does_with_its_address() {
        #[rustfmt::skip]
        let code = [
            0x48, 0x8b, 0x0d, 0x10, 0x00, 0x00, 0x00,       // mov rcx, [rip+0x10]
            0x48, 0x89, 0x05, 0x10, 0x00, 0x00, 0x00,       // mov [rip+0x10], rax
            0x48, 0x8d, 0x05, 0xf0, 0xff, 0xff, 0xff,       // lea rax, [rip-0x10]
            0x83, 0x3d, 0x20, 0x00, 0x00, 0x00, 0x00,       // cmp dword [rip+0x20], 0
            0xf0, 0x0f, 0xc1, 0x0d, 0x30, 0x00, 0x00, 0x00, // lock xadd [rip+0x30], ecx
            0x48, 0x8b, 0x44, 0x24, 0x08,                   // mov rax, [rsp+8]
        ];
        let found = operands(Arch::Amd64, &code, 0x1000);
        let expected = [
            (Use::Load, 0x1017),
            (Use::Store, 0x101e),
            (Use::Address, 0x1005),
            (Use::Load, 0x103c),
            (Use::Load, 0x1054),
        ];
        let found: Vec<(Use, u64)> = found.iter().map(|operand| (operand.used, operand.svma)).collect();
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            code in proptest::collection::vec(any::<u8>(), 0..200),
            code_svma: u64,
            is_arm: bool,
        ) {
            let arch = if is_arm { Arch::Arm64 } else { Arch::Amd64 };
            prop_assert!(operands(arch, &code, code_svma).len() <= code.len());
        }
    }
}
