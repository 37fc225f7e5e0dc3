//! `/proc/PID/maps` lines: which address ranges are mapped, how, and from what.

use crate::address::AddrRange;

/// One VMA, as /proc/PID/maps and the head lines of /proc/PID/smaps describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The addresses.
    pub range: AddrRange,
    /// Mapped readable.
    pub readable: bool,
    /// Mapped writable.
    pub writable: bool,
    /// Mapped executable.
    pub executable: bool,
    /// `MAP_SHARED`, the `s` in the fourth column.
    pub shared: bool,
    /// Offset in bytes of `range.start_addr` in the file.
    pub file_offset: u64,
    /// Device of the file as (major, minor); (0, 0) where there is no file.
    pub device: (u32, u32),
    /// Inode of the file; 0 where there is no file.
    pub inode: u64,
    /// Path or name in the last column, octal escapes left as they are; empty for nameless memory.
    pub name: String,
}

impl Region {
    /// Whether the memory is private and backed by no file: nameless, `[heap]`, `[stack]`, `[anon:…]`, and what is
    /// mapped privately from /dev/zero, which the kernel makes anonymous (`drivers/char/mem.c`, `mmap_zero`; 5.10 to
    /// 6.18).
    pub fn is_private_anonymous(&self) -> bool {
        let has_no_file = self.inode == 0 || self.name == "/dev/zero";
        has_no_file && !self.shared && !self.is_kernel_special()
    }

    /// vdso, vvar, vsyscall and the like, which the kernel maps into every process.
    pub fn is_kernel_special(&self) -> bool {
        ["[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"].contains(&self.name.as_str())
    }

    /// The path with the kernel's " (deleted)" mark cut off.
    pub fn path(&self) -> &str {
        self.name.strip_suffix(" (deleted)").unwrap_or(&self.name)
    }
}

/// Parses one line of /proc/PID/maps (Linux `fs/proc/task_mmu.c`, `show_vma_header_prefix`).
/// `None` where the line has another form.
pub fn parse_line(line: &str) -> Option<Region> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = AddrRange::new(hex(start)?, hex(end)?)?;
    let perms: &[u8; 4] = fields.next()?.as_bytes().try_into().ok()?;
    let file_offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    Some(Region {
        range,
        readable: perms[0] == b'r',
        writable: perms[1] == b'w',
        executable: perms[2] == b'x',
        shared: perms[3] == b's',
        file_offset,
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode,
        name: fields.next().unwrap_or("").trim_start_matches(' ').to_owned(),
    })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_with_spaces_and_deleted() {
        let line =
            "7f1c2a000000-7f1c2a021000 rw-p 00001000 fe:01 1234                       /tmp/a b (deleted)";
        let region = parse_line(line).unwrap();
        assert_eq!(region.range, AddrRange::new(0x7f1c_2a00_0000, 0x7f1c_2a02_1000).unwrap());
        assert_eq!((region.writable, region.executable, region.shared), (true, false, false));
        assert_eq!((region.device, region.inode, region.file_offset), ((0xfe, 1), 1234, 0x1000));
        assert_eq!(region.path(), "/tmp/a b");
    }

    #[test]
    fn a_nameless_region() {
        let region = parse_line("c000000000-c000400000 rw-p 00000000 00:00 0 ").unwrap();
        assert!(region.is_private_anonymous() && region.name.is_empty());
    }

    /// With five levels of page tables, user space has 56 bits, of which it gets the upper ones if it asks for them
    /// (Documentation/arch/x86/x86_64/5level-paging.rst).
    #[test]
    fn an_address_of_five_levels_of_page_tables() {
        let region = parse_line("ffff1c2a000000-ffff1c2a021000 rw-p 00000000 00:00 0 ").unwrap();
        assert_eq!(region.range.start_addr, 0x00ff_ff1c_2a00_0000);
        assert_eq!(region.range.len_bytes(), 0x2_1000);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(line in ".*") {
            let _ = parse_line(&line);
        }
    }
}
