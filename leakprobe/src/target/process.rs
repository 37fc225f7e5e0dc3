//! Opening a process by its id, reading what /proc says of it, and asking whether it still runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::param::page_size;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::maps::{self, Region};
use super::memory::{Memory, ReadError};
use super::mounts;
use super::namespace::{NamespacedPid, PidNamespace};
use super::refusal::{TargetError, ensure_page_size, refused, thread_error};

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub tid: i32,
    /// Its id in its own, innermost PID namespace: what the process itself calls it.
    pub ns_tid: i32,
    /// Its name.
    pub comm: String,
}

/// Lines of /proc/PID/status that concern memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// VmHWM, the highest RSS so far.
    pub peak_rss_bytes: Option<u64>,
    /// VmRSS, as the kernel's counters say.
    pub rss_bytes: Option<u64>,
    /// RssAnon, RssFile and RssShmem, which VmRSS adds up.
    pub anon_bytes: Option<u64>,
    /// See `anon_bytes`.
    pub file_bytes: Option<u64>,
    /// See `anon_bytes`.
    pub shmem_bytes: Option<u64>,
    /// VmPTE, the page tables.
    pub page_table_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

/// Room for a piece of /proc/PID/smaps: a record with the longest path takes some 5 KiB.
const SMAPS_PIECE_BYTES: usize = 64 << 10;

/// Ids of the processes that are visible here.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// A process, held by a pidfd and by open files of its address space.
pub struct Target {
    pid: Pid,
    comm: String,
    exe_path: String,
    started_at: SystemTime,
    pidfd: OwnedFd,
    /// /proc/PID: reads through it fail once the process is gone, whoever has its id then.
    directory: OwnedFd,
    memory: File,
    pagemap: File,
    smaps: File,
}

impl Target {
    /// Opens the process.
    ///
    /// # Errors
    /// [`TargetError`] where there is none, it has no memory, or we may not.
    pub fn open(pid: i32) -> Result<Self> {
        ensure_page_size(page_size() as u64)?;
        let no_such = || TargetError::NoSuchProcess { pid };
        let id = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(no_such)?;
        let pidfd = pidfd_open(id, PidfdFlags::empty()).map_err(|errno| match errno {
            // EINVAL (or, since 6.15, ENOENT): the id is a thread's.
            Errno::INVAL | Errno::NOENT => thread_error(pid),
            _ => no_such(),
        })?;
        let directory = rustix::fs::open(
            format!("/proc/{pid}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|_| no_such())?;
        let stat = read_file(directory.as_fd(), "stat").map_err(|_| no_such())?;
        let (comm, start_ticks) = parse_stat(&stat).context("parse /proc/PID/stat")?;
        if has_no_memory(directory.as_fd()) {
            return Err(TargetError::KernelThread { pid, comm }.into());
        }
        let open = |name: &str| open_file(directory.as_fd(), name).map_err(|errno| refused(pid, name, errno));
        let target = Self {
            pid: id,
            started_at: boot_time()? + ticks(start_ticks),
            exe_path: read_link(directory.as_fd(), "exe"),
            memory: open("mem")?,
            pagemap: open("pagemap")?,
            smaps: open("smaps")?,
            comm,
            pidfd,
            directory,
        };
        // Alive now, so every file above was opened on the process the pidfd stands for.
        if target.has_exited() {
            return Err(TargetError::Exited { pid }.into());
        }
        Ok(target)
    }

    /// Its id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The kernel's short name of it.
    pub fn comm(&self) -> &str {
        &self.comm
    }

    /// The executable's path as the process sees it, " (deleted)" and all.
    pub fn exe_path(&self) -> &str {
        &self.exe_path
    }

    /// When it started; with the PID, what tells it from a later process of the same id.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Readable once the process has exited.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// /proc/PID/pagemap, open.
    pub fn pagemap(&self) -> &File {
        &self.pagemap
    }

    /// Whether the process (all its threads) has exited.
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&at_once)), Ok(ready) if ready > 0)
    }

    /// Hands /proc/PID/smaps to `visit` in the pieces in which the kernel yields it: some whole records each, read
    /// under one hold of the address space's lock (Linux `fs/seq_file.c`, `seq_read_iter`: what fits in a page).
    /// No pieces after an exit or an exec.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn smaps_pieces(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let mut file = &self.smaps;
        file.rewind().context("rewind /proc/PID/smaps")?;
        let mut piece = vec![0; SMAPS_PIECE_BYTES];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(len) => visit(&piece[..len]),
                Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| format!("read /proc/{}/smaps", self.pid())),
            }
        }
    }

    /// What is mapped now. Empty after an exit.
    pub fn regions(&self) -> Vec<Region> {
        let text = self.read("maps").unwrap_or_default();
        text.lines().filter_map(maps::parse_line).collect()
    }

    /// Its threads, by id. Empty after an exit.
    pub fn threads(&self) -> Vec<Thread> {
        let Ok(entries) = std::fs::read_dir(format!("/proc/self/fd/{}/task", raw(&self.directory))) else {
            return Vec::new();
        };
        let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let mut threads: Vec<Thread> = tids
            .map(|tid| {
                let comm = self.read(&format!("task/{tid}/comm")).unwrap_or_default();
                let status = self.read(&format!("task/{tid}/status")).unwrap_or_default();
                Thread {
                    tid,
                    ns_tid: innermost_tid(&status).unwrap_or(tid),
                    comm: comm.trim_end_matches('\n').to_owned(),
                }
            })
            .collect();
        threads.sort_by_key(|thread| thread.tid);
        threads
    }

    /// What it is called in its own PID namespace.
    ///
    /// # Errors
    /// Where the namespace may not be seen.
    pub fn namespaced_pid(&self) -> Result<NamespacedPid> {
        let namespace = PidNamespace::of(self.directory.as_fd())
            .with_context(|| format!("look at the PID namespace of process {}", self.pid()))?;
        let status = self.read("status").unwrap_or_default();
        let pid = innermost_tid(&status).unwrap_or(self.pid()).unsigned_abs();
        Ok(NamespacedPid { pid, namespace })
    }

    /// The memory lines of /proc/PID/status.
    pub fn status(&self) -> Status {
        parse_status(&self.read("status").unwrap_or_default())
    }

    /// The text of /proc/PID/cgroup.
    pub fn cgroup_text(&self) -> String {
        self.read("cgroup").unwrap_or_default()
    }

    /// Devices of the file systems in its mount namespace that keep their files in memory.
    pub fn in_memory_devices(&self) -> BTreeSet<(u32, u32)> {
        mounts::in_memory(&self.read("mountinfo").unwrap_or_default())
    }

    /// Opens the file mapped at a region, whatever its path says now: through /proc/PID/map_files, else
    /// through the process's own root. Only regular files: opening others may have effects.
    ///
    /// # Errors
    /// Where neither way leads to a regular file.
    pub fn open_mapped(&self, region: &Region) -> Result<File> {
        let range = region.range;
        let name = format!("map_files/{:x}-{:x}", range.start_addr, range.end_addr);
        let file = open_regular(self.directory.as_fd(), &name, None)
            .or_else(|_| {
                let root = self.open_root()?;
                open_regular(root.as_fd(), region.path(), Some(region.inode))
            })
            .with_context(|| format!("open {} of process {}", region.name, self.pid()))?;
        Ok(file)
    }

    fn open_root(&self) -> Result<OwnedFd, Errno> {
        openat(&self.directory, "root", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        read_file(self.directory.as_fd(), name)
    }
}

impl Memory for Target {
    fn read_exact(&self, addr: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read_exact_at(buf, addr).map_err(|_| ReadError { addr, len_bytes: buf.len() })
    }
}

fn raw(fd: &OwnedFd) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(fd)
}

/// Never blocks and never becomes anything's controlling terminal, whatever it is that is opened.
fn open_file(directory: BorrowedFd<'_>, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    openat(directory, name, flags, Mode::empty()).map(File::from)
}

/// Opens a regular file and nothing else: looked at first, through a descriptor that opens nothing, for
/// opening a device or a pipe may have effects. `inode` is given for a path that the target names: it is
/// followed inside its own root only, and must lead to that very file.
fn open_regular(directory: BorrowedFd<'_>, name: &str, inode: Option<u64>) -> Result<File, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = match inode {
        None => openat(directory, name, flags, Mode::empty())?,
        Some(_) => openat2(directory, name, flags, Mode::empty(), ResolveFlags::IN_ROOT)?,
    };
    let stat = fstat(&found)?;
    let is_same = inode.is_none_or(|inode| inode == stat.st_ino);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_same {
        return Err(Errno::NOENT);
    }
    open_file(rustix::fs::CWD, &format!("/proc/self/fd/{}", raw(&found)))
}

fn read_file(directory: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    open_file(directory, name)?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_link(directory: BorrowedFd<'_>, name: &str) -> String {
    rustix::fs::readlinkat(directory, name, Vec::new())
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// A kernel thread has no mm, so its status has no Vm lines (Linux `fs/proc/array.c`, `proc_pid_status`).
/// A zombie has none either: it has exited.
fn has_no_memory(directory: BorrowedFd<'_>) -> bool {
    let status = read_file(directory, "status").unwrap_or_default();
    let is_zombie = status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
    !is_zombie && !status.is_empty() && !status.contains("\nVmSize:")
}

/// Name and start time (field 22, in clock ticks since boot). The name may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(String, u64)> {
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    let start_ticks = stat.get(end + 1..)?.split_whitespace().nth(19)?.parse().ok()?;
    Some((stat.get(start + 1..end)?.to_owned(), start_ticks))
}

/// The last number of the NSpid line: the id in the innermost PID namespace (Linux 4.1).
fn innermost_tid(status: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

fn parse_status(text: &str) -> Status {
    let number = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let bytes = |name| number(name)?.checked_mul(1024);
    Status {
        peak_rss_bytes: bytes("VmHWM"),
        rss_bytes: bytes("VmRSS"),
        anon_bytes: bytes("RssAnon"),
        file_bytes: bytes("RssFile"),
        shmem_bytes: bytes("RssShmem"),
        page_table_bytes: bytes("VmPTE"),
        threads: number("Threads"),
    }
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_secs_f64(count as f64 / per_second as f64)
}

fn boot_time() -> Result<SystemTime> {
    let stat = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.context("find btime in /proc/stat")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses() {
        let fields: Vec<String> = (3..=25).map(|field| field.to_string()).collect();
        let stat = format!("12 (a) (b) {}", fields.join(" "));
        assert_eq!(parse_stat(&stat), Some(("a) (b".to_owned(), 22)));
    }

    #[test]
    fn status_lines_are_kib() {
        let status = parse_status("Name:\tx\nVmHWM:\t    12 kB\nVmRSS:\t 8 kB\nThreads:\t3\n");
        assert_eq!(status.peak_rss_bytes, Some(12 * 1024));
        assert_eq!((status.threads, status.page_table_bytes), (Some(3), None));
    }

    #[test]
    fn we_can_be_opened_and_read() {
        let target = Target::open(i32::try_from(std::process::id()).unwrap()).unwrap();
        let value = 0x1234_5678_9abc_def0u64;
        let read = target.read_u64(std::ptr::from_ref(&value).addr() as u64);
        assert_eq!(read, Ok(value));
        assert!(!target.has_exited() && !target.threads().is_empty());
        assert!(target.read_u64(8).is_err());
    }
}
