//! The calls at an instruction: the function it lies in, and what the compiler inlined there.
//!
//! Go source: `src/runtime/symtabinl.go`. Inlining forms a tree for each function; a table says which node
//! an instruction belongs to, and each node names an instruction of the call site, whose position and node
//! are looked up in turn.

use super::{Function, Pclntab, u32_at};

/// The pcdata table of indices into the inline tree, and the funcdata that holds the tree (Go
/// `src/internal/abi/symtab.go`, `PCDATA_InlTreeIndex` and `FUNCDATA_InlTree`).
const PCDATA_INLINE_INDEX: u32 = 2;
const FUNCDATA_INLINE_TREE: u8 = 3;
/// Offset of funcdata that a function does not have.
const ABSENT: u32 = u32::MAX;
/// The compiler's inlining budget ends long before calls nest this deep.
const MAX_INLINED: usize = 100;

/// One call of the source: what a line of a Go stack trace shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoFrame<'a> {
    /// With its package path.
    pub function: &'a str,
    /// As the compiler was told it; with `-trimpath` it starts with the module.
    pub file: Option<&'a str>,
    /// Counted from 1.
    pub line: Option<u32>,
    /// Whether the call is one the compiler inlined into the next frame of the list.
    pub inlined: bool,
}

/// A node of the inline tree (Go `src/runtime/symtabinl.go`, `inlinedCall`).
struct InlinedCall<'a> {
    function: &'a str,
    /// An instruction of the call site, counted from the function's entry.
    parent_offset: u64,
}

impl Pclntab {
    /// The calls at the instruction at `svma`, innermost first; empty outside of Go code. Of a return
    /// address the caller passes the address before it: the instruction after a call may be on another line.
    pub fn frames_at(&self, svma: u64) -> Vec<GoFrame<'_>> {
        self.lookup(svma).map(|function| function.frames_at(svma)).unwrap_or_default()
    }

    fn inlined_call(&self, tree_offset: usize, index: usize) -> Option<InlinedCall<'_>> {
        // 1.20: funcID and padding, nameOff, parentPc, startLine. Before: parent and funcID, file, line,
        // func_, parentPc.
        let (len_bytes, name_offset, parent_offset) =
            if self.header.has_start_line { (16, 4, 8) } else { (20, 12, 16) };
        let start = tree_offset.checked_add(index.checked_mul(len_bytes)?)?;
        let name = u32_at(&self.funcdata, start.checked_add(name_offset)?)?;
        let parent = u32_at(&self.funcdata, start.checked_add(parent_offset)?)?;
        Some(InlinedCall { function: self.name_at(name)?, parent_offset: parent.into() })
    }
}

impl<'a> Function<'a> {
    /// See [`Pclntab::frames_at`].
    pub fn frames_at(&self, svma: u64) -> Vec<GoFrame<'a>> {
        let mut frames = Vec::new();
        let mut call_svma = svma;
        while frames.len() < MAX_INLINED
            && let Some(call) = self.inlined_at(call_svma)
        {
            frames.push(self.frame(call.function, call_svma, true));
            // A node that points out of its function is broken: what is known so far stands.
            let parent_svma = self.entry_svma.saturating_add(call.parent_offset);
            if parent_svma >= self.end_svma {
                break;
            }
            call_svma = parent_svma;
        }
        frames.push(self.frame(self.name, call_svma, false));
        frames
    }

    /// The source file of the function's first instruction.
    pub fn file(&self) -> Option<&'a str> {
        self.file_at(self.entry_svma)
    }

    fn frame(&self, function: &'a str, svma: u64, inlined: bool) -> GoFrame<'a> {
        let line = self.table.value_at(self.record.line_offset, self.entry_svma, svma);
        GoFrame {
            function,
            file: self.file_at(svma),
            line: line.and_then(|line| u32::try_from(line).ok()),
            inlined,
        }
    }

    fn file_at(&self, svma: u64) -> Option<&'a str> {
        let table = self.table;
        let number = table.value_at(self.record.file_offset, self.entry_svma, svma)?;
        let index = self.record.unit.checked_add(u32::try_from(number).ok()?)?;
        let place_offset = usize::try_from(index).ok()?.checked_mul(4)?;
        let name = table.u32_at(table.header.units_offset.checked_add(place_offset)?)?;
        if name == ABSENT {
            return None;
        }
        super::text_at(&table.table, table.header.files_offset.checked_add(usize::try_from(name).ok()?)?)
    }

    /// The innermost inlined call that the instruction at `svma` is part of.
    fn inlined_at(&self, svma: u64) -> Option<InlinedCall<'a>> {
        if self.record.pcdata_count <= PCDATA_INLINE_INDEX
            || self.record.funcdata_count <= FUNCDATA_INLINE_TREE
        {
            return None;
        }
        let pcdata = |index: u32| {
            let place = usize::try_from(index).ok()?.checked_mul(4)?;
            self.table.u32_at(self.record.pcdata_offset.checked_add(place)?)
        };
        let tree = pcdata(self.record.pcdata_count.checked_add(FUNCDATA_INLINE_TREE.into())?)?;
        if tree == ABSENT {
            return None;
        }
        let index = self.table.value_at(pcdata(PCDATA_INLINE_INDEX)?, self.entry_svma, svma)?;
        self.table.inlined_call(usize::try_from(tree).ok()?, usize::try_from(index).ok()?)
    }
}
