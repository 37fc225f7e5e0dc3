//! One test machine: QEMU with an emulated processor, which boots Debian's kernels in seconds anywhere, tests included.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use leakprobe_tests::process::Process;
use leakprobe_tests::{Deadline, places};

use super::kernels::Kernel;

/// An emulated processor is so many times slower, on a machine that does other things as well.
const SLOWNESS: u32 = 10;

/// What a machine is to do.
pub(super) struct Task<'a> {
    pub kernel: Kernel,
    /// The one that leakprobe chooses, if none is named.
    pub backend: Option<&'a str>,
    /// As libtest's: a test is run if its name has any of these in it; all, if there is none.
    pub filter: &'a [String],
    /// Seen from here; then the machine is ended.
    pub longest: Duration,
}

/// What the disk holds, and where.
pub(super) struct Disk {
    pub image: PathBuf,
    /// The folder that holds the cache of this project.
    pub caches: PathBuf,
    pub leakprobe: PathBuf,
    pub tests: PathBuf,
}

/// What came of it.
pub(super) struct Ran {
    /// What libtest said.
    pub output: String,
    /// What the kernel said, or QEMU.
    pub console: String,
    pub seconds: f64,
    /// Why it did not end by itself.
    pub cut_short: Option<anyhow::Error>,
}

/// Boots, waits until the machine has switched itself off, and collects what was said.
pub(super) fn run(task: &Task<'_>, disk: &Disk) -> Result<Ran> {
    let image = task.kernel.image()?;
    let folder = places::target().join("vm");
    let name = format!("{}-{}", task.kernel.name, task.backend.unwrap_or("chosen"));
    let [console, output, complaints] =
        ["console", "output", "qemu"].map(|of| folder.join(format!("{name}.{of}")));
    for file in [&console, &output] {
        fs::write(file, "").with_context(|| format!("write {}", file.display()))?;
    }
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "3072"]);
    qemu.args(["-display", "none", "-no-reboot", "-device", "nvme,drive=root,serial=root", "-kernel"])
        .arg(image);
    // What the machine writes is thrown away.
    qemu.arg("-drive").arg(option("if=none,id=root,format=raw,snapshot=on,file=", &disk.image));
    qemu.arg("-serial").arg(option("file:", &console)).arg("-serial").arg(option("file:", &output));
    qemu.arg("-append").arg(kernel_command_line(task, disk));
    let file = fs::File::create(&complaints).with_context(|| format!("create {}", complaints.display()))?;
    qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let started = Instant::now();
    let mut process = Process::spawn(qemu, &format!("the test machine {name}"))?;
    let cut_short = process.wait(Deadline::after(task.longest)).err();
    // Ends it, if it has not ended.
    drop(process);
    let read = |path: &Path| {
        let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).replace('\r', ""))
    };
    let console = format!("{}{}", read(&complaints)?, read(&console)?);
    Ok(Ran { output: read(&output)?, console, seconds: started.elapsed().as_secs_f64(), cut_short })
}

fn option(prefix: &str, path: &Path) -> String {
    // QEMU takes a comma for the beginning of the next option, unless there are two.
    format!("{prefix}{}", path.display().to_string().replace(',', ",,"))
}

/// Words that the kernel does not know go into the environment of the first process.
fn kernel_command_line(task: &Task<'_>, disk: &Disk) -> String {
    let mut words = vec!["console=ttyS0 panic=-1 quiet root=/dev/nvme0n1 rootwait rw init=/init".to_owned()];
    words.push(task.kernel.words.to_owned());
    words.push(format!("LEAKPROBE_KERNEL={} LEAKPROBE_SLOWNESS={SLOWNESS}", task.kernel.name));
    words.push(format!("LEAKPROBE_CGROUPS={}", task.kernel.cgroups));
    words.push(format!("LEAKPROBE_REPOSITORY={}", places::repository().display()));
    words.push(format!("LEAKPROBE_BIN={}", disk.leakprobe.display()));
    words.push(format!("LEAKPROBE_TESTS={}", disk.tests.display()));
    words.push(format!("XDG_CACHE_HOME={}", disk.caches.display()));
    words.push(format!("LEAKPROBE_FILTER={}", task.filter.join(",")));
    words.extend(task.backend.map(|backend| format!("LEAKPROBE_BACKEND={backend}")));
    words.join(" ")
}
