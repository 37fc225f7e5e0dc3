//! The disk of the test machines: leakprobe, the live tests, the programs they watch, and the libraries of all of them,
//! at the same paths as on the host, so that nothing has to be told where anything is. No compiler, no distribution.
//!
//! The surprise: a disk with ext4 and not the usual archive in memory, whose files would be shared memory to the kernel.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::places;

use crate::command::{ask, command, find_program, quietly};
use crate::setup::unpacked::files_in;

/// What the tests run besides what was built for them.
const TOOLS: [&str; 13] = [
    "sh", "bash", "cat", "true", "false", "unshare", "nsenter", "setpriv", "mount", "umount", "mkswap",
    "swapon", "swapoff",
];

/// Libraries that the tests preload, and the one that names itself: musl's is its own loader.
const LIBRARIES: [&str; 4] =
    ["libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2", "ld-musl-x86_64.so.1"];

/// What the tests read of the repository.
const DATA: [&str; 3] = ["docs/report.schema.json", "tests/kernels.toml", "fuzz/found"];

/// What the tests run of the oldest Go.
const GO_TOOLS: [&str; 2] = ["bin/go", "pkg/tool/linux_amd64/pprof"];

/// Its size; what is not written takes no room on the host.
const DISK: &str = "8G";

const INIT: &str = include_str!("init.sh");

/// Makes the disk; says where it is.
pub(super) fn build(leakprobe: &Path, tests: &Path) -> Result<PathBuf> {
    let folder = places::target().join("vm");
    let root = folder.join("root");
    remove(&root)?;
    for path in files(leakprobe, tests)? {
        let below =
            path.strip_prefix("/").with_context(|| format!("{} is no absolute path", path.display()))?;
        place(&path, &root.join(below))?;
    }
    let busybox = find_program("busybox").context("find busybox, with which the test machines begin")?;
    place(&busybox, &root.join("bin/busybox"))?;
    for empty in ["proc", "sys", "dev", "tmp", "root", "run"] {
        let path = root.join(empty);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT).with_context(|| format!("write {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", init.display()))?;
    let image = folder.join("root.ext4");
    remove(&image)?;
    let mut mke2fs = command("mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]);
    mke2fs.arg(&root).arg(&image).arg(DISK);
    quietly(mke2fs).context("make the disk of the test machines")?;
    remove(&root)?;
    Ok(image)
}

/// Everything that goes onto the disk.
fn files(leakprobe: &Path, tests: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut programs = vec![leakprobe.to_owned(), tests.to_owned()];
    collect_workloads(&places::target().join("workloads"), &mut programs)?;
    for tool in TOOLS {
        let path = find_program(tool);
        programs.push(path.with_context(|| format!("find {tool}, which the tests run"))?);
    }
    let go = places::go_root(places::OLDEST_GO)?;
    programs.extend(GO_TOOLS.map(|tool| go.join(tool)));
    let known = ask("ldconfig", &["-p"]).unwrap_or_default();
    programs.extend(LIBRARIES.iter().filter_map(|library| library_path(library, &known)));
    let mut files = libraries_of(&programs)?;
    files.extend(programs);
    for data in DATA {
        let path = places::repository().join(data);
        files.extend(if path.is_dir() { files_in(&path)? } else { vec![path] });
    }
    Ok(files)
}

/// Programs and libraries below a folder; what cargo keeps for itself is in folders of these names.
fn collect_workloads(folder: &Path, programs: &mut Vec<PathBuf>) -> Result<()> {
    const NO_PROGRAMS: [&str; 6] = ["scratch", "deps", "build", "examples", "incremental", ".fingerprint"];
    for path in files_in(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !NO_PROGRAMS.contains(&name.as_str()) {
                collect_workloads(&path, programs)?;
            }
        } else if is_elf(&path)? {
            programs.push(path);
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut start = [0; 4];
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(std::io::Read::read_exact(&mut file, &mut start).is_ok() && start == *b"\x7fELF")
}

fn library_path(name: &str, known: &str) -> Option<PathBuf> {
    let listed = known.lines().find(|line| line.trim_start().starts_with(name));
    let path = listed.and_then(|line| line.split_once(" => ")).map(|(_, path)| PathBuf::from(path));
    path.or_else(|| Some(Path::new("/lib").join(name)).filter(|path| path.is_file()))
}

fn libraries_of(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    // It fails where any of them is static.
    let output = Command::new("ldd").args(programs).output().context("run ldd")?;
    let libraries = libraries_in(&String::from_utf8_lossy(&output.stdout));
    ensure!(!libraries.is_empty(), "ldd finds no library of {} programs", programs.len());
    Ok(libraries)
}

/// What ldd says is loaded.
fn libraries_in(text: &str) -> BTreeSet<PathBuf> {
    let loaded = text.lines().filter_map(|line| line.strip_prefix('\t'));
    let path = |line: &str| line.split(' ').find(|word| word.starts_with('/')).map(PathBuf::from);
    loaded.filter_map(path).collect()
}

/// Puts a file, or what a link leads to, at a path.
fn place(path: &Path, target: &Path) -> Result<()> {
    let source = path.canonicalize().with_context(|| format!("find {}", path.display()))?;
    let folder = target.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // A link costs nothing, where both are on one disk.
    if fs::hard_link(&source, target).is_err() {
        fs::copy(&source, target)
            .with_context(|| format!("copy {} to {}", source.display(), target.display()))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\
/bin/sh:
\tlinux-vdso.so.1 (0x00007ffe)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f)
/bin/busybox:
\tnot a dynamic executable
/x:
\tlibasan.so.8 => not found
";
        let found: Vec<_> = libraries_in(text).into_iter().collect();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_preloaded_library_is_found_in_the_cache_of_the_loader() {
        let known = "\tlibjemalloc.so.2 (libc6,x86-64) => /lib/x86_64-linux-gnu/libjemalloc.so.2\n";
        let found = library_path("libjemalloc.so.2", known);
        assert_eq!(found, Some(PathBuf::from("/lib/x86_64-linux-gnu/libjemalloc.so.2")));
        assert_eq!(library_path("libnothing.so.1", known), None);
    }
}
