//! C, C++ and Rust frames by the `.eh_frame` of their files, through framehop.

use std::ops::Range;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Unwinder as _};

use super::{Registers, Step};
use crate::address::AddrRange;
use crate::target::elf::ElfFile;
use crate::target::modules::Module;
use crate::trace::decode::RawStack;

/// framehop, with the unwind tables of the target's files.
pub struct NativeUnwinder {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
    spans: Vec<AddrRange>,
}

impl NativeUnwinder {
    /// Reads the tables; a file without any is left out.
    pub fn new(modules: &[Module]) -> Self {
        let mut unwinder = UnwinderX86_64::new();
        let mut spans = Vec::new();
        for module in modules {
            let Some(sections) = sections(&module.elf) else { continue };
            let range = module.span.start_addr..module.span.end_addr;
            unwinder.add_module(framehop::Module::new(
                module.path.clone(),
                range,
                module.load_bias,
                sections,
            ));
            spans.push(module.span);
        }
        Self { unwinder, cache: CacheX86_64::new(), spans }
    }

    /// Whether unwind tables cover the file mapped at `addr`.
    pub fn covers(&self, addr: u64) -> bool {
        self.spans.iter().any(|span| span.contains(addr))
    }

    /// One frame outwards. Nothing is guessed: outside the files with tables, the walk ends.
    pub fn step(&mut self, raw: &RawStack<'_>, at: Registers) -> Step {
        if !self.covers(at.ip) {
            return Step::Lost;
        }
        let address = if at.returned {
            let Some(address) = FrameAddress::from_return_address(at.ip) else { return Step::Root };
            address
        } else {
            FrameAddress::from_instruction_pointer(at.ip)
        };
        let mut registers = UnwindRegsX86_64::new(at.ip, at.sp, at.bp);
        let mut read_stack = |addr: u64| raw.memory_word(addr).ok_or(());
        match self.unwinder.unwind_frame(address, &mut registers, &mut self.cache, &mut read_stack) {
            Ok(Some(ip)) => {
                Step::To(Registers { ip, sp: registers.sp(), bp: registers.bp(), returned: true })
            }
            Ok(None) => Step::Root,
            Err(_) => Step::Lost,
        }
    }
}

fn sections(elf: &ElfFile) -> Option<ExplicitModuleSectionInfo<Vec<u8>>> {
    let span = |name: &str| -> Option<Range<u64>> {
        let section = elf.section(name)?;
        Some(section.svma..section.svma.checked_add(section.len_bytes)?)
    };
    let data = |name: &str| elf.section_data(name).ok().flatten();
    Some(ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: span(".text"),
        eh_frame_svma: span(".eh_frame"),
        eh_frame: Some(data(".eh_frame")?),
        eh_frame_hdr_svma: span(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        got_svma: span(".got"),
        ..Default::default()
    })
}
