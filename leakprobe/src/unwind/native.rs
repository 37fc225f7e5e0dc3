//! C, C++ and Rust frames by the unwind tables of their files, and where a file has none, by frame pointers that
//! prove themselves.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::Ending;
use super::registers::Registers;
use super::rule::FrameRule;
use super::tables::{Context, Tables};
use crate::address::AddrRange;
use crate::target::elf::ElfFile;
use crate::target::maps::Region;
use crate::target::modules::Module;
use crate::trace::decode::RawStack;

/// Rules kept; when there are more they are looked up again.
const MAX_RULES: usize = 1 << 16;
/// The longest call instruction that is looked for before a return address.
const MAX_CALL_BYTES: usize = 7;

/// Unwinds the code of a process's files.
pub struct NativeUnwinder {
    files: Vec<CodeFile>,
    /// Where the code of each of them lies, by address.
    code: Vec<(AddrRange, usize)>,
    /// Executable memory of no file: a just-in-time compiler's.
    anonymous: Vec<AddrRange>,
    context: Context,
    rules: HashMap<u64, Option<Arc<FrameRule>>>,
    calls: HashMap<u64, bool>,
}

/// A file, opened a second time: events are taken by one thread while another one reads the same files.
struct CodeFile {
    elf: Option<ElfFile>,
    load_bias: u64,
    tables: OnceCell<Tables>,
}

impl NativeUnwinder {
    /// `regions` is what was mapped when the files were opened.
    pub fn new(modules: &[Module], regions: &[Region]) -> Self {
        let file = |module: &Module| CodeFile {
            elf: module.open_again().ok(),
            load_bias: module.load_bias,
            tables: OnceCell::new(),
        };
        let ranges = modules.iter().enumerate();
        let ranges =
            ranges.flat_map(|(index, module)| module.code_ranges().into_iter().map(move |it| (it, index)));
        let mut code: Vec<(AddrRange, usize)> = ranges.collect();
        code.sort_unstable();
        let anonymous = regions.iter().filter(|region| region.executable && region.is_private_anonymous());
        Self {
            files: modules.iter().map(file).collect(),
            code,
            anonymous: anonymous.map(|region| region.range).collect(),
            context: Context::default(),
            rules: HashMap::new(),
            calls: HashMap::new(),
        }
    }

    /// Whether `addr` is in the code of a file; if not, what a stack that leads there ends with.
    pub fn check_code(&self, addr: u64) -> Result<(), Ending> {
        if self.file_of(addr).is_some() {
            Ok(())
        } else if self.anonymous.iter().any(|range| range.contains(addr)) {
            Err(Ending::Anonymous)
        } else {
            Err(Ending::Elsewhere)
        }
    }

    /// One frame outwards. Nothing is guessed: where nothing says how, the walk ends.
    pub fn step(&mut self, raw: &RawStack<'_>, at: &Registers) -> ControlFlow<Ending, Registers> {
        let Some(rule) = self.rule(at.code_addr()) else { return self.follow_frame_pointer(raw, at) };
        match rule.leave(raw, at) {
            Ok(Some(caller)) => ControlFlow::Continue(caller),
            Ok(None) => ControlFlow::Break(Ending::Root),
            Err(ending) => ControlFlow::Break(ending),
        }
    }

    /// Whether the tables say how the frame at `at` is left.
    pub fn covers(&mut self, at: &Registers) -> bool {
        self.rule(at.code_addr()).is_some()
    }

    fn rule(&mut self, addr: u64) -> Option<Arc<FrameRule>> {
        if let Some(rule) = self.rules.get(&addr) {
            return rule.clone();
        }
        let rule = self.file_index(addr).and_then(|index| {
            let file = &self.files[index];
            let tables = file.tables.get_or_init(|| file.elf.as_ref().map(Tables::read).unwrap_or_default());
            tables.rule(addr.wrapping_sub(file.load_bias), &mut self.context)
        });
        if self.rules.len() >= MAX_RULES {
            self.rules.clear();
        }
        let rule = rule.map(Arc::new);
        self.rules.insert(addr, rule.clone());
        rule
    }

    /// Code without tables may keep frame pointers. Where it uses the register for something else, what lies there is
    /// hardly a pointer up the stack to a pointer and the address after a call.
    fn follow_frame_pointer(&mut self, raw: &RawStack<'_>, at: &Registers) -> ControlFlow<Ending, Registers> {
        let bp = at.bp();
        let is_frame = bp >= at.sp && bp.is_multiple_of(8);
        let words = raw.memory_word(bp).zip(raw.memory_word(bp.wrapping_add(8)));
        match words.filter(|_| is_frame) {
            Some((saved_bp, ip)) if self.follows_a_call(ip) => {
                ControlFlow::Continue(Registers::new(ip, bp + 16, saved_bp, true))
            }
            _ => ControlFlow::Break(Ending::NoTables),
        }
    }

    /// Whether the instruction before `addr` is a call, as far as its bytes can tell.
    fn follows_a_call(&mut self, addr: u64) -> bool {
        if let Some(known) = self.calls.get(&addr) {
            return *known;
        }
        let is_call = self.file_of(addr).is_some_and(|file| {
            let start_svma = addr.wrapping_sub(file.load_bias).wrapping_sub(MAX_CALL_BYTES as u64);
            let mut before = [0; MAX_CALL_BYTES];
            file.elf.as_ref().is_some_and(|elf| elf.read_at_svma(start_svma, &mut before))
                && ends_with_call(&before)
        });
        if self.calls.len() >= MAX_RULES {
            self.calls.clear();
        }
        self.calls.insert(addr, is_call);
        is_call
    }

    fn file_of(&self, addr: u64) -> Option<&CodeFile> {
        self.file_index(addr).map(|index| &self.files[index])
    }

    fn file_index(&self, addr: u64) -> Option<usize> {
        let after = self.code.partition_point(|(range, _)| range.start_addr <= addr);
        let (range, index) = self.code[after.checked_sub(1)?];
        range.contains(addr).then_some(index)
    }
}

/// `call rel32` is five bytes that start with e8; `call r/m64` is two to seven that start with ff and a byte whose
/// middle three bits are 2 (Intel's manual, volume 2, CALL).
fn ends_with_call(bytes: &[u8]) -> bool {
    let from_end = |count: usize| bytes.len().checked_sub(count).map(|start| &bytes[start..]);
    let is_near = from_end(5).is_some_and(|bytes| bytes[0] == 0xe8);
    is_near
        || (2..=7)
            .any(|count| from_end(count).is_some_and(|bytes| bytes[0] == 0xff && (bytes[1] >> 3) & 7 == 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_bytes() {
        assert!(ends_with_call(&[0, 0, 0xe8, 1, 2, 3, 4]), "call rel32");
        assert!(ends_with_call(&[0, 0, 0, 0, 0, 0xff, 0xd0]), "call *%rax");
        assert!(ends_with_call(&[0, 0xff, 0x15, 1, 2, 3, 4]), "call *(%rip)");
        assert!(!ends_with_call(&[0x90; 7]) && !ends_with_call(&[0xff]));
    }
}
