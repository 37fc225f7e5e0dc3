//! Go's function table, `.gopclntab`: for an instruction its function, file and line, the calls inlined
//! there, and the size of the frame. It survives stripping: the runtime itself needs it to unwind.
//!
//! Read for Go 1.18 to 1.27 on amd64 and arm64; older tables have other magic numbers and are refused. So
//! are tables whose magic number an obfuscator changed. The surprise: with Go's own linker the table also
//! names the C functions of the race detector, which have neither frame sizes nor lines.
//!
//! Programs split into several text sections (32-bit ARM and ppc64 only) and plugins are not handled: only
//! the executable's own module is read. Checked against `go tool addr2line`, `runtime.CallersFrames` and
//! the DWARF frame tables of programs built by Go 1.19, 1.21, 1.24, 1.26 and 1.27.

mod frames;
mod locate;
mod pcvalue;

use anyhow::{Context as _, Result, bail};

use crate::address::AddrRange;
use crate::target::build_info::GoBuildInfo;
use crate::target::elf::ElfFile;

pub use frames::GoFrame;

/// Names of instantiated generic functions are the longest; a longer one is hostile or broken.
const MAX_NAME_BYTES: usize = 1 << 16;

/// The table of one executable. Addresses in and out are those stated in the file.
pub struct Pclntab {
    /// From the header to the last function record.
    table: Vec<u8>,
    /// What funcdata offsets count from; empty where it was not found.
    funcdata: Vec<u8>,
    text_svma: AddrRange,
    header: Header,
}

/// Where the parts of the table start, counted from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// Go 1.20 added the line of the `func` keyword to function records and inlined calls.
    has_start_line: bool,
    /// Length of the shortest instruction, the unit of instruction counts.
    quantum_bytes: u32,
    /// How many functions there are.
    functions: usize,
    names_offset: usize,
    /// File numbers by compilation unit.
    units_offset: usize,
    files_offset: usize,
    /// What [`pcvalue`] decodes.
    values_offset: usize,
    functions_offset: usize,
}

impl Header {
    const LEN_BYTES: u64 = 72;
}

/// A function of the table.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    table: &'a Pclntab,
    record: Record,
    name: &'a str,
    /// Its first instruction.
    pub entry_svma: u64,
    /// Just after its last: where the next function starts.
    pub end_svma: u64,
}

/// `runtime._func` (Go `src/runtime/runtime2.go`), as far as it is used.
#[derive(Clone, Copy)]
struct Record {
    frame_bytes_offset: u32,
    file_offset: u32,
    line_offset: u32,
    unit: u32,
    flags: u8,
    pcdata_count: u32,
    funcdata_count: u8,
    /// Where the offsets of the pcdata tables follow the record, those of funcdata after them.
    pcdata_offset: usize,
}

/// What an unwinder has to treat apart. Functions are known by name: the numbers Go gives them
/// (`abi.FuncID`) change with every version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No caller: `goexit`, `mstart`, `rt0_go` and the program's entry.
    Outermost,
    /// `systemstack` runs a function on the thread's own stack.
    SystemStack,
    /// `mcall` too, and leaves the goroutine for good, as a rule.
    Scheduler,
    /// `systemstack_switch` is never executed: its address marks a goroutine whose stack was left.
    SystemStackSwitch,
    /// `asmcgocall` calls C on the thread's own stack.
    CgoCall,
    /// `cgocallback` and `racecallbackthunk` are where C calls Go.
    CgoCallback,
    /// `morestack` runs on the thread's own stack while a goroutine's grows.
    Morestack,
    /// `racecall` calls the race detector, in C, on the thread's own stack.
    RaceCall,
    /// `sigtramp`, called by the kernel.
    SignalHandler,
    /// What a signal handler returns to, and with it to whatever was interrupted.
    SignalReturn,
    /// Anything else.
    Ordinary,
}

impl Pclntab {
    /// Finds the table in `elf`, which `build` says is a Go program; `None` where there is no table.
    ///
    /// # Errors
    /// Where there is one and it is cut short, or nothing in the file points at it.
    pub fn parse(elf: &ElfFile, build: &GoBuildInfo) -> Result<Option<Self>> {
        locate::locate(elf, build.go_minor()).context("read the Go function table")
    }

    /// A table held in `table`, of text that starts and ends at `text_svma`; `funcdata` is what starts
    /// at `moduledata.gofunc`, and may be empty: nothing is then known to be inlined.
    ///
    /// # Errors
    /// Where the header is not one of Go 1.18 to 1.27, or the list of functions is cut short.
    pub fn from_bytes(table: Vec<u8>, text_svma: AddrRange, funcdata: Vec<u8>) -> Result<Self> {
        let header = Header::parse(&table).context("no header of Go 1.18 or newer")?;
        let list_bytes = header.functions.checked_mul(8).and_then(|bytes| bytes.checked_add(4));
        let list_end = list_bytes.and_then(|bytes| header.functions_offset.checked_add(bytes));
        if list_end.is_none_or(|end| end > table.len()) {
            bail!("{} functions in a table of {} bytes", header.functions, table.len());
        }
        Ok(Self { table, funcdata, text_svma, header })
    }

    /// The text of Go code: first function to the end of the last. With external linking C code lies
    /// outside, with Go's own linker inside.
    pub fn text_svma(&self) -> AddrRange {
        self.text_svma
    }

    /// All functions that can be read, by address.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        (0..self.header.functions).filter_map(|index| self.function(index))
    }

    /// The function that has `svma` inside.
    pub fn lookup(&self, svma: u64) -> Option<Function<'_>> {
        let function = self.function(self.index_of(svma)?)?;
        (function.entry_svma..function.end_svma).contains(&svma).then_some(function)
    }

    /// The frame at `svma`: on amd64 the bytes from SP up to the return address. On arm64 the frame's
    /// length; the return address is at SP where that is not 0, and in the link register where it is.
    ///
    /// `None` in C code and where Go keeps no count.
    pub fn frame_bytes(&self, svma: u64) -> Option<u64> {
        self.lookup(svma)?.frame_bytes(svma)
    }

    /// Index of the last function that starts at or before `svma`.
    fn index_of(&self, svma: u64) -> Option<usize> {
        let offset = u32::try_from(svma.checked_sub(self.text_svma.start_addr)?).ok()?;
        let (mut low, mut high) = (0, self.header.functions);
        while low < high {
            let middle = low.midpoint(high);
            if self.entry_offset(middle)? <= offset { low = middle + 1 } else { high = middle }
        }
        low.checked_sub(1)
    }

    /// Where in the text function `index` starts; one past the last index gives the end of the last.
    fn entry_offset(&self, index: usize) -> Option<u32> {
        self.u32_at(self.header.functions_offset.checked_add(index.checked_mul(8)?)?)
    }

    fn function(&self, index: usize) -> Option<Function<'_>> {
        let text_svma = self.text_svma.start_addr;
        let entry_svma = text_svma.checked_add(self.entry_offset(index)?.into())?;
        let end_svma = text_svma.checked_add(self.entry_offset(index.checked_add(1)?)?.into())?;
        let place_offset = self.header.functions_offset.checked_add(index.checked_mul(8)?)?.checked_add(4)?;
        let record_offset = self.header.functions_offset.checked_add(usize_at(&self.table, place_offset)?)?;
        let name = self.name_at(self.u32_at(record_offset.checked_add(4)?)?)?;
        Some(Function { table: self, record: self.record_at(record_offset)?, name, entry_svma, end_svma })
    }

    /// Go `src/runtime/runtime2.go`, `_func`: entryOff, nameOff, args, deferreturn, pcsp, pcfile, pcln,
    /// npcdata, cuOffset, since 1.20 startLine, then funcID, flag, padding and nfuncdata, a byte each.
    fn record_at(&self, offset: usize) -> Option<Record> {
        let field = |field_offset: usize| self.u32_at(offset.checked_add(field_offset)?);
        let tail_offset = offset.checked_add(if self.header.has_start_line { 40 } else { 36 })?;
        let [_, flags, _, funcdata_count] = self.u32_at(tail_offset)?.to_le_bytes();
        Some(Record {
            frame_bytes_offset: field(16)?,
            file_offset: field(20)?,
            line_offset: field(24)?,
            pcdata_count: field(28)?,
            unit: field(32)?,
            flags,
            funcdata_count,
            pcdata_offset: tail_offset.checked_add(4)?,
        })
    }

    fn name_at(&self, name: u32) -> Option<&str> {
        text_at(&self.table, self.header.names_offset.checked_add(usize::try_from(name).ok()?)?)
    }

    /// The value for `svma` in one of a function's tables; 0 is the number of no table.
    fn value_at(&self, values: u32, entry_svma: u64, svma: u64) -> Option<i32> {
        if values == 0 {
            return None;
        }
        let offset = self.header.values_offset.checked_add(usize::try_from(values).ok()?)?;
        pcvalue::value_at(self.table.get(offset..)?, self.header.quantum_bytes, svma.checked_sub(entry_svma)?)
    }

    fn u32_at(&self, offset: usize) -> Option<u32> {
        u32_at(&self.table, offset)
    }
}

impl<'a> Function<'a> {
    /// The name with its package path: `net/http.(*Transport).dialConn`, `main.main.func1`.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// See [`Pclntab::frame_bytes`].
    pub fn frame_bytes(&self, svma: u64) -> Option<u64> {
        let value = self.table.value_at(self.record.frame_bytes_offset, self.entry_svma, svma)?;
        u64::try_from(value).ok()
    }

    /// Whether the function is written in assembly (`abi.FuncFlagAsm`).
    pub fn is_asm(&self) -> bool {
        self.record.flags & 4 != 0
    }

    /// Whether the function sets SP to something unrelated (`abi.FuncFlagSPWrite`): its frame size, and
    /// so its caller, cannot be trusted.
    pub fn writes_sp(&self) -> bool {
        self.record.flags & 2 != 0
    }

    /// Whether nothing called the function (`abi.FuncFlagTopFrame`).
    pub fn is_outermost(&self) -> bool {
        self.record.flags & 1 != 0
    }

    /// Whether the function belongs to package `runtime` itself. Assembly that is private to its file
    /// (`racecall`, `gogo`) has no package in its name, so there the file decides.
    pub fn is_in_runtime(&self) -> bool {
        let private = self.is_asm() && !self.name.contains('.');
        self.name.starts_with("runtime.") || (private && self.file().is_some_and(is_in_runtime_folder))
    }

    /// What an unwinder has to know of the function.
    pub fn role(&self) -> Role {
        match self.name {
            "runtime.goexit" | "runtime.mstart" | "runtime.rt0_go" => Role::Outermost,
            "runtime.systemstack" => Role::SystemStack,
            "runtime.mcall" => Role::Scheduler,
            "runtime.systemstack_switch" => Role::SystemStackSwitch,
            "runtime.asmcgocall" | "runtime.asmcgocall_no_g" => Role::CgoCall,
            "runtime.cgocallback" | "runtime.racecallbackthunk" => Role::CgoCallback,
            "runtime.morestack" | "runtime.morestack_noctxt" => Role::Morestack,
            "runtime.racecall" => Role::RaceCall,
            "racecall" if self.is_in_runtime() => Role::RaceCall,
            "runtime.sigtramp" | "runtime.cgoSigtramp" => Role::SignalHandler,
            // A file-private function, called after what it is for since Go 1.20.
            name if name.starts_with("runtime.sigreturn") => Role::SignalReturn,
            name if name.starts_with("_rt0_") => Role::Outermost,
            _ => Role::Ordinary,
        }
    }
}

/// Whether the source file lies in the runtime's own folder; with `-trimpath` nothing precedes it.
fn is_in_runtime_folder(file: &str) -> bool {
    let folder = file.rsplit_once('/').map(|(folder, _)| folder);
    folder.is_some_and(|folder| folder == "runtime" || folder.ends_with("/src/runtime"))
}

fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    data.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(data: &[u8], offset: usize) -> Option<u64> {
    data.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn usize_at(data: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u32_at(data, offset)?).ok()
}

/// The zero-terminated text at `offset`; `None` where it is too long or no UTF-8, which Go names are.
fn text_at(data: &[u8], offset: usize) -> Option<&str> {
    let bytes = data.get(offset..)?;
    let bytes = &bytes[..bytes.len().min(MAX_NAME_BYTES)];
    let end = bytes.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

#[cfg(test)]
pub(super) mod tests;
