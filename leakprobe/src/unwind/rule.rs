//! How a frame of native code is left: where the caller's registers are, as the unwind tables say.
//!
//! Everything here comes from the target's files, so expressions are short, run for so many steps at most, and
//! read nothing but what was captured.

use gimli::{
    CfaRule, Encoding, EndianSlice, Evaluation, EvaluationResult, Format, LittleEndian, Location,
    RegisterRule, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

use super::Ending;
use super::registers::{RETURN_ADDRESS, Registers};
use super::tables::BoundedStorage;
use crate::trace::decode::RawStack;

/// What an expression of a table looks like in memory.
type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// glibc's longest, of its signal frames, takes 5 bytes; that of its PLT, 11.
const MAX_EXPRESSION_BYTES: usize = 256;
/// Operations of one expression: enough for any without a loop.
const MAX_OPERATIONS: u32 = 256;
const ENCODING: Encoding = Encoding { address_size: 8, format: Format::Dwarf32, version: 4 };

/// How the frame at one instruction is left.
#[derive(Clone, Debug)]
pub struct FrameRule {
    cfa: Cfa,
    /// `None` where the tables say that there is no caller.
    return_address: Option<Place>,
    registers: Vec<(u16, Place)>,
    /// Whether the caller was interrupted by a signal: its address is then no return address.
    is_signal: bool,
}

/// The canonical frame address, from which everything counts.
#[derive(Clone, Debug)]
enum Cfa {
    Register(u16, i64),
    Expression(Box<[u8]>),
}

/// Where the caller's value of a register is.
#[derive(Clone, Debug)]
enum Place {
    Unknown,
    Same,
    AtCfa(i64),
    CfaPlus(i64),
    Register(u16),
    At(Box<[u8]>),
    Value(Box<[u8]>),
}

impl FrameRule {
    /// The rule of a row of the tables; `None` where it makes no sense.
    pub fn of<'a, S: UnwindSection<Slice<'a>>>(
        section: &S,
        row: &UnwindTableRow<usize, BoundedStorage>,
        is_signal: bool,
    ) -> Option<Self> {
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => Cfa::Register(register.0, *offset),
            CfaRule::Expression(expression) => Cfa::Expression(bytes_of(section, expression)?),
        };
        let mut return_address = None;
        let mut registers = Vec::new();
        for (register, rule) in row.registers() {
            let place = place_of(section, rule)?;
            match (register.0, place) {
                (RETURN_ADDRESS, Place::Unknown) => {}
                (RETURN_ADDRESS, place) => return_address = Some(place),
                (number, place) => registers.push((number, place)),
            }
        }
        Some(Self { cfa, return_address, registers, is_signal })
    }

    /// The caller's registers; `None` where there is no caller.
    pub fn leave(&self, raw: &RawStack<'_>, at: &Registers) -> Result<Option<Registers>, Ending> {
        let Some(return_address) = &self.return_address else { return Ok(None) };
        let cfa = match &self.cfa {
            Cfa::Register(number, offset) => {
                at.get(*number).and_then(|value| value.checked_add_signed(*offset)).ok_or(Ending::Tables)?
            }
            Cfa::Expression(bytes) => evaluate(bytes, None, raw, at)?,
        };
        let value = |place: &Place, number: u16| -> Result<Option<u64>, Ending> {
            Ok(match place {
                Place::Unknown => None,
                Place::Same => at.get(number),
                Place::AtCfa(offset) => {
                    Some(read(raw, cfa.checked_add_signed(*offset).ok_or(Ending::Tables)?)?)
                }
                Place::CfaPlus(offset) => cfa.checked_add_signed(*offset),
                Place::Register(other) => at.get(*other),
                Place::At(bytes) => Some(read(raw, evaluate(bytes, Some(cfa), raw, at)?)?),
                Place::Value(bytes) => Some(evaluate(bytes, Some(cfa), raw, at)?),
            })
        };
        let ip = value(return_address, RETURN_ADDRESS)?.ok_or(Ending::Tables)?;
        // A frame whose caller has no address is a thread's first.
        if ip == 0 {
            return Ok(None);
        }
        let mut caller = Registers { ip, sp: cfa, returned: !self.is_signal, ..at.preserved() };
        for (number, place) in &self.registers {
            match value(place, *number) {
                Ok(found) if *number == super::registers::RSP => caller.sp = found.ok_or(Ending::Tables)?,
                Ok(found) => caller.set(*number, found),
                // In an epilogue the place of what was popped already lies below the stack pointer.
                Err(_) if !at.returned => {}
                Err(ending) => return Err(ending),
            }
        }
        let goes_on = caller.sp > at.sp || (self.is_signal && caller.sp != at.sp) || !at.returned;
        if goes_on { Ok(Some(caller)) } else { Err(Ending::Tables) }
    }
}

fn place_of<'a, S: UnwindSection<Slice<'a>>>(section: &S, rule: &RegisterRule<usize>) -> Option<Place> {
    Some(match rule {
        RegisterRule::Undefined => Place::Unknown,
        RegisterRule::SameValue => Place::Same,
        RegisterRule::Offset(offset) => Place::AtCfa(*offset),
        RegisterRule::ValOffset(offset) => Place::CfaPlus(*offset),
        RegisterRule::Register(register) => Place::Register(register.0),
        RegisterRule::Expression(expression) => Place::At(bytes_of(section, expression)?),
        RegisterRule::ValExpression(expression) => Place::Value(bytes_of(section, expression)?),
        _ => return None,
    })
}

fn bytes_of<'a, S: UnwindSection<Slice<'a>>>(
    section: &S,
    expression: &UnwindExpression<usize>,
) -> Option<Box<[u8]>> {
    let bytes = expression.get(section).ok()?.0.slice();
    (bytes.len() <= MAX_EXPRESSION_BYTES).then(|| bytes.into())
}

/// A captured word, or what it means that there is none.
fn read(raw: &RawStack<'_>, addr: u64) -> Result<u64, Ending> {
    let missing = || if raw.is_beyond_copy(addr) { Ending::Depth } else { Ending::Tables };
    raw.memory_word(addr).ok_or_else(missing)
}

/// The value of an expression; those of registers start with the canonical frame address.
fn evaluate(bytes: &[u8], start: Option<u64>, raw: &RawStack<'_>, at: &Registers) -> Result<u64, Ending> {
    let mut evaluation = Evaluation::new(EndianSlice::new(bytes, LittleEndian), ENCODING);
    evaluation.set_max_iterations(MAX_OPERATIONS);
    if let Some(start) = start {
        evaluation.set_initial_value(start);
    }
    let mut result = evaluation.evaluate();
    loop {
        result = match result.map_err(|_| Ending::Tables)? {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                let value = at.get(register.0).ok_or(Ending::Tables)?;
                evaluation.resume_with_register(Value::Generic(value))
            }
            EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                evaluation.resume_with_memory(Value::Generic(read(raw, address)?))
            }
            _ => return Err(Ending::Tables),
        };
    }
    match evaluation.as_result().last().map(|piece| &piece.location) {
        Some(Location::Address { address }) => Ok(*address),
        _ => Err(Ending::Tables),
    }
}
