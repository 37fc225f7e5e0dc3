//! Which Go built an executable, and with which settings: the `.go.buildinfo` record of its ELF file.
//!
//! Refuses to guess: an executable without the record is not Go for us, and a setting that the record
//! leaves out is unknown. The surprise: builds by other tools than the `go` command (Bazel) have a
//! version and no settings, so a race build of theirs cannot be told from here.

use std::fmt;

use anyhow::{Context as _, Result, bail};

use super::elf::ElfFile;

/// First bytes of the record (Go `cmd/link/internal/ld/data.go`, `buildinfo`; all versions since 1.13).
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The record lies at a multiple of this in the file's address space (same source).
const ALIGN_BYTES: usize = 16;
/// Magic, pointer size, flags and two pointers; inline strings follow it.
const HEADER_BYTES: usize = 32;
/// `runtime.buildVersion` of a release is some 10 bytes, of a development build some 60.
const MAX_VERSION_BYTES: u64 = 1024;
/// The module information lists every dependency; the largest seen are some 100 KiB.
const MAX_SETTINGS_BYTES: u64 = 16 << 20;
/// How far into the first writable segment the record is looked for: the linker puts it first.
const MAX_SEARCH_BYTES: u64 = 1 << 20;
/// Module information is wrapped in two of these (Go `cmd/go/internal/modload/build.go`, `infoStart`).
const SENTINEL_BYTES: usize = 16;

/// The version of Go and the settings that built an executable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoBuildInfo {
    /// As `runtime.Version()` says it: "go1.27.3", "devel go1.28-abcdef …", with experiments after a blank.
    pub version: String,
    /// Key and value of each build setting, in the record's order: ("-race", "true").
    pub settings: Vec<(String, String)>,
}

impl GoBuildInfo {
    /// Reads the record of `elf`; `None` where there is none: not a Go program, or one built before 1.13.
    ///
    /// # Errors
    /// Where there is a record and it contradicts itself.
    pub fn read(elf: &ElfFile) -> Result<Option<Self>> {
        let Some(record) = record_bytes(elf)? else { return Ok(None) };
        let flags = record[15];
        let (version, module) = if flags & 2 != 0 {
            inline_strings(&record[HEADER_BYTES..]).context("read the Go build record")?
        } else {
            pointed_strings(elf, &record).context("read the Go build record")?
        };
        Ok(Some(Self { version: text(version), settings: settings(&module) }))
    }

    /// The value of the setting called `key`; `None` where the record does not have it.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether the race detector is built in. False too where the record has no settings at all.
    pub fn race(&self) -> bool {
        self.setting("-race") == Some("true")
    }

    /// Whether it is a plug-in of a Go program: its code runs on that program's runtime.
    pub fn is_plugin(&self) -> bool {
        self.setting("-buildmode") == Some("plugin")
    }

    /// Whether cgo was on when the program was built; `None` where the record does not say.
    pub fn cgo(&self) -> Option<bool> {
        self.setting("CGO_ENABLED").map(|value| value == "1")
    }

    /// The release of Go; `None` where the version has another form.
    pub fn go_version(&self) -> Option<GoVersion> {
        GoVersion::parse(&self.version)
    }

    /// The `n` of Go 1.n; `None` where the version has another form.
    pub fn go_minor(&self) -> Option<u32> {
        self.go_version().map(|version| version.minor)
    }
}

/// Go 1.`minor`.`patch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoVersion {
    /// 27 in Go 1.27.3.
    pub minor: u32,
    /// 3 in Go 1.27.3; 0 before a release too.
    pub patch: u32,
}

impl GoVersion {
    /// Finds the release in what `runtime.Version()` says.
    pub fn parse(version: &str) -> Option<Self> {
        let (_, after) = version.split_once("go1.")?;
        let (minor, rest) = leading_number(after)?;
        let patch = rest.strip_prefix('.').and_then(leading_number).map_or(0, |(patch, _)| patch);
        Some(Self { minor, patch })
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.patch)
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((digits.parse().ok()?, rest))
}

/// The record's bytes and what follows them; at least [`HEADER_BYTES`] long.
fn record_bytes(elf: &ElfFile) -> Result<Option<Vec<u8>>> {
    if let Some(data) = elf.section_data(".go.buildinfo")?
        && let Some(offset) = find_magic(&data)
    {
        return Ok(Some(data[offset..].to_vec()));
    }
    let Some(segment) = elf.segments().iter().find(|segment| segment.writable && !segment.executable) else {
        return Ok(None);
    };
    let searched_bytes = segment.file_bytes.min(MAX_SEARCH_BYTES);
    let start_offset = segment.file_offset;
    let data = elf.file_bytes(start_offset..start_offset.saturating_add(searched_bytes))?;
    let Some(offset) = find_magic(data) else { return Ok(None) };
    let record_offset = start_offset.saturating_add(u64::try_from(offset)?);
    // The strings may reach beyond what was searched.
    let rest_bytes = segment.file_bytes.saturating_sub(u64::try_from(offset)?);
    let record_bytes = rest_bytes.min(MAX_SETTINGS_BYTES + MAX_VERSION_BYTES + 64);
    Ok(Some(elf.file_bytes(record_offset..record_offset.saturating_add(record_bytes))?.to_vec()))
}

/// Where in `data` a whole header starts.
fn find_magic(data: &[u8]) -> Option<usize> {
    let last = data.len().checked_sub(HEADER_BYTES)?;
    (0..=last).step_by(ALIGN_BYTES).find(|&offset| data[offset..].starts_with(MAGIC))
}

/// Since Go 1.18 the two strings follow the header, each with its length in front.
fn inline_strings(data: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let (version, rest) = counted_bytes(data, MAX_VERSION_BYTES).context("the version")?;
    let (module, _) = counted_bytes(rest, MAX_SETTINGS_BYTES).context("the settings")?;
    Ok((version.to_vec(), module.to_vec()))
}

fn counted_bytes(data: &[u8], max_bytes: u64) -> Result<(&[u8], &[u8])> {
    let (len_bytes, rest) = uvarint(data).context("no length")?;
    if len_bytes > max_bytes {
        bail!("a length of {len_bytes} bytes");
    }
    rest.split_at_checked(usize::try_from(len_bytes)?).context("cut short")
}

/// An unsigned number in Go's variable-length form (Go `encoding/binary/varint.go`), and what follows it.
fn uvarint(data: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, &byte) in data.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(u32::try_from(7 * index).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, &data[index + 1..]));
        }
    }
    None
}

/// Before Go 1.18 the header pointed at two Go strings elsewhere in the data segment.
fn pointed_strings(elf: &ElfFile, record: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    if record[14] != 8 || record[15] & 1 != 0 {
        bail!("pointers of {} bytes, flags {:#x}", record[14], record[15]);
    }
    let version = pointed_string(elf, word(record, 16)?, MAX_VERSION_BYTES).context("the version")?;
    // A program built without modules has no settings: a nil pointer or an empty string.
    let module = pointed_string(elf, word(record, 24)?, MAX_SETTINGS_BYTES).unwrap_or_default();
    Ok((version, module))
}

/// What the Go string header at `header_svma` points to.
fn pointed_string(elf: &ElfFile, header_svma: u64, max_bytes: u64) -> Result<Vec<u8>> {
    let header = bytes_at_svma(elf, header_svma, 16)?;
    let (data_svma, len_bytes) = (word(header, 0)?, word(header, 8)?);
    if len_bytes > max_bytes {
        bail!("a length of {len_bytes} bytes");
    }
    Ok(bytes_at_svma(elf, data_svma, len_bytes)?.to_vec())
}

fn bytes_at_svma(elf: &ElfFile, svma: u64, len_bytes: u64) -> Result<&[u8]> {
    for segment in elf.segments() {
        let Some(offset) = svma.checked_sub(segment.svma) else { continue };
        if offset.checked_add(len_bytes).is_some_and(|end| end <= segment.file_bytes) {
            let start_offset = segment.file_offset.saturating_add(offset);
            return elf.file_bytes(start_offset..start_offset.saturating_add(len_bytes));
        }
    }
    bail!("{len_bytes} bytes at {svma:#x} are not in the file")
}

fn word(data: &[u8], offset: usize) -> Result<u64> {
    let bytes = data.get(offset..).and_then(|rest| rest.first_chunk()).context("cut short")?;
    Ok(u64::from_le_bytes(*bytes))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines `build<TAB>key=value` of the module information (Go `runtime/debug/mod.go`, since 1.18).
fn settings(module: &[u8]) -> Vec<(String, String)> {
    let inner_end = module.len().saturating_sub(SENTINEL_BYTES);
    let inner = module.get(SENTINEL_BYTES..inner_end).unwrap_or_default();
    String::from_utf8_lossy(inner)
        .lines()
        .filter_map(|line| line.strip_prefix("build\t"))
        .filter_map(|setting| {
            let (key, value) = split_setting(setting)?;
            Some((unquoted(key), unquoted(value)))
        })
        .collect()
}

/// Key and value, still quoted; an equals sign inside a quoted key separates nothing.
fn split_setting(setting: &str) -> Option<(&str, &str)> {
    let from = if setting.starts_with('"') { setting.get(1..)?.find('"')? + 2 } else { 0 };
    let equals = from + setting.get(from..)?.find('=')?;
    Some((&setting[..equals], &setting[equals + 1..]))
}

/// Keys and values with blanks or quotes in them are quoted as Go source would.
fn unquoted(word: &str) -> String {
    let Some(inner) = word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return word.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            },
            plain => plain,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn module_text(lines: &str) -> Vec<u8> {
        [&[b'<'; SENTINEL_BYTES][..], lines.as_bytes(), &[b'>'; SENTINEL_BYTES][..]].concat()
    }

    #[test]
    fn the_settings_of_a_race_build() {
        let module = module_text(
            "path\texample.com/prog\nmod\texample.com/prog\t(devel)\t\nbuild\t-buildmode=exe\nbuild\t-race=true\n\
             build\tCGO_ENABLED=1\nbuild\t-ldflags=\"-s -w -X \\\"main.v=1\\\"\"\n",
        );
        let info = GoBuildInfo { version: "go1.27.3".to_owned(), settings: settings(&module) };
        assert!(info.race());
        assert_eq!(info.cgo(), Some(true));
        assert_eq!(info.setting("-ldflags"), Some("-s -w -X \"main.v=1\""));
        assert_eq!(info.settings.len(), 4);
    }

    #[test]
    fn what_the_record_leaves_out_is_unknown() {
        let info = GoBuildInfo { version: "go1.21.13".to_owned(), settings: settings(b"") };
        assert!(!info.race());
        assert_eq!(info.cgo(), None);
    }

    #[test]
    fn the_minor_version_of_every_form() {
        let minor = |version: &str| GoBuildInfo { version: version.to_owned(), settings: vec![] }.go_minor();
        assert_eq!(minor("go1.27.3"), Some(27));
        assert_eq!(minor("go1.23rc1"), Some(23));
        assert_eq!(minor("go1.24.11 X:nocoverageredesign"), Some(24));
        assert_eq!(minor("devel go1.28-0123abcd Mon Nov 2 2026"), Some(28));
        assert_eq!(minor("devel +0123abcd"), None);
    }

    #[test]
    fn the_patch_release() {
        let release = |minor, patch| Some(GoVersion { minor, patch });
        assert_eq!(GoVersion::parse("go1.24.11 X:nocoverageredesign"), release(24, 11));
        assert_eq!(GoVersion::parse("go1.27"), release(27, 0));
        assert_eq!(GoVersion::parse("go1.27rc2"), release(27, 0));
        assert_eq!(GoVersion::parse("devel go1.28-0123abcd Mon Nov 2 2026"), release(28, 0));
        assert_eq!(GoVersion::parse("go1.99999999999"), None);
    }

    #[test]
    fn strings_inside_the_record() {
        let mut record = vec![8, b'g', b'o', b'1', b'.', b'2', b'7', b'.', b'3'];
        record.extend([3, b'a', b'b', b'c', 0, 0]);
        let (version, module) = inline_strings(&record).unwrap();
        assert_eq!((version.as_slice(), module.as_slice()), (&b"go1.27.3"[..], &b"abc"[..]));
        assert!(inline_strings(&record[..11]).is_err(), "cut in the second string");
        assert!(inline_strings(&[0xff; 40]).is_err(), "a length without end");
        assert!(inline_strings(&[0xff, 0xff, 0x7f]).is_err(), "a length beyond all reason");
    }

    #[test]
    fn not_a_go_program() {
        let own = ElfFile::parse(std::fs::File::open("/proc/self/exe").unwrap()).unwrap();
        assert_eq!(GoBuildInfo::read(&own).unwrap(), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = inline_strings(&data);
            let _ = settings(&data);
            let _ = find_magic(&data);
            let _ = split_setting(&String::from_utf8_lossy(&data));
        }
    }
}
