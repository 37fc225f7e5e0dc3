//! The ordinary programs: how each is started, given something to hold, and ended.
//!
//! Each says by itself when it is ready; which process is then looked at is not always the one that was started.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use leakprobe_tests::lines::Lines;
use leakprobe_tests::process::Process;
use leakprobe_tests::{Deadline, Folder, places};
use rustix::process::Signal;

/// A program as the distribution ships it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Bash,
    Perl,
    Python,
    Node,
    Redis,
    Postgres,
    Nginx,
    Java,
    Cargo,
    Chromium,
    ChromiumPage,
}

/// A program that holds something.
pub(super) struct Running {
    pid: u32,
    /// In the order in which they are to end; before their folder goes.
    processes: Vec<Process>,
    /// Kept open: the other ends of pipes that nobody writes to any more.
    _pipes: Vec<Lines>,
    _folder: Option<Folder>,
}

impl Running {
    /// Of the process that is looked at.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks them to end, and waits.
    pub(super) fn end(mut self) -> Result<()> {
        for process in &mut self.processes {
            process.signal(Signal::TERM)?;
            process.wait(Deadline::usual())?;
        }
        Ok(())
    }
}

const BASH: &str = "words=({1..200000}); echo ready; read -r _";
const PERL: &str = r#"$| = 1; my @held = map { "string $_" } 1..1000000; print "ready\n"; <STDIN>"#;
const PYTHON: &str = "held = [(i,) for i in range(1000000)]; print('ready', flush=True); input()";
const NODE: &str = "const held = []; for (let i = 0; i < 1e6; i++) held.push({i}); \
    console.log('ready'); process.stdin.on('data', () => console.log(held.length))";
const PAGE: &str =
    "<script>window.held = []; for (let i = 0; i < 1e6; i++) held.push({i}); console.log('ready')</script>";
/// The last line waits until stdin ends.
const SESSION: &str = "create table held as select g, repeat('x', 20) from generate_series(1, 1000000) g;\n\
    select sum(g) from held;\nselect 'backend', pg_backend_pid();\n\\! cat\n";

impl Program {
    pub(super) const ALL: [Self; 11] = [
        Self::Bash,
        Self::Perl,
        Self::Python,
        Self::Node,
        Self::Redis,
        Self::Postgres,
        Self::Nginx,
        Self::Java,
        Self::Cargo,
        Self::Chromium,
        Self::ChromiumPage,
    ];

    /// What it holds, or does.
    pub(super) fn doing(self) -> &'static str {
        match self {
            Self::Bash => "an array of 200,000 words",
            Self::Perl => "a list of a million strings",
            Self::Python => "a list of a million tuples",
            Self::Node => "an array of a million objects",
            Self::Redis => "300,000 keys",
            Self::Postgres => "a session that made a table of a million rows",
            Self::Nginx => "a worker, idle",
            Self::Java => "two million arrays",
            Self::Cargo => "about to check this project",
            Self::Chromium => "the browser's own process",
            Self::ChromiumPage => "the process of a page with a million objects",
        }
    }

    /// The first number with a dot in what it says of its version.
    pub(super) fn version(self) -> Result<String> {
        let (program, argument) = match self {
            Self::Bash => (PathBuf::from("bash"), "--version"),
            Self::Perl => ("perl".into(), "--version"),
            Self::Python => ("/usr/bin/python3".into(), "--version"),
            Self::Node => ("node".into(), "--version"),
            Self::Redis => ("redis-cli".into(), "--version"),
            Self::Postgres => (postgres("postgres")?, "--version"),
            Self::Nginx => ("nginx".into(), "-v"),
            Self::Java => ("java".into(), "-version"),
            Self::Cargo => ("cargo".into(), "--version"),
            Self::Chromium | Self::ChromiumPage => ("chromium".into(), "--version"),
        };
        let output = Command::new(&program).arg(argument).output();
        let output = output.with_context(|| format!("ask {} for its version", program.display()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let is_version =
            |word: &&str| word.contains('.') && word.starts_with(|letter: char| letter.is_ascii_digit());
        let mut words = said.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
        words.find(is_version).map(str::to_owned).with_context(|| format!("find a version in {said:?}"))
    }

    /// Starts it and waits until it is ready. It must be installed: `cargo xtask ordinary` sees to that.
    pub(super) fn start(self) -> Result<Running> {
        match self {
            Self::Bash => says_ready("bash", &["-c", BASH]),
            Self::Perl => says_ready("perl", &["-e", PERL]),
            Self::Python => says_ready("/usr/bin/python3", &["-c", PYTHON]),
            Self::Node => says_ready("node", &["-e", NODE]),
            Self::Java => {
                let source = places::repository().join("tests/workloads/java/Hold.java");
                says_ready("java", &["-Xmx512m", source.to_str().context("the repository's path is UTF-8")?])
            }
            Self::Redis => start_redis(),
            Self::Postgres => start_postgres(),
            Self::Nginx => start_nginx(),
            Self::Cargo => start_cargo(),
            Self::Chromium => start_chromium(false),
            Self::ChromiumPage => start_chromium(true),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bash => "bash",
            Self::Perl => "perl",
            Self::Python => "python3",
            Self::Node => "node",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Nginx => "nginx",
            Self::Java => "java",
            Self::Cargo => "cargo",
            Self::Chromium | Self::ChromiumPage => "chromium",
        })
    }
}

/// A process, what it says from now on, and the line with which it said that it is ready.
struct Ready {
    process: Process,
    said: Lines,
    line: String,
}

/// Starts `command` and waits for a line with `text` in it, on its stderr or its stdout.
fn until_it_says(mut command: Command, name: &str, text: &str, is_on_stderr: bool) -> Result<Ready> {
    command.process_group(0).stdin(Stdio::piped());
    if is_on_stderr {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
    } else {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
    }
    let mut process = Process::spawn(command, name)?;
    let mut said = match process.child.stderr.take() {
        Some(stderr) => Lines::new(stderr),
        None => Lines::new(process.child.stdout.take().context("stdout is a pipe")?),
    };
    let line = line_with(&mut said, name, text)?;
    Ok(Ready { process, said, line })
}

fn line_with(said: &mut Lines, name: &str, text: &str) -> Result<String> {
    let awaited = format!("{name}'s line with {text:?}");
    let mut last = String::new();
    while let Some(line) = said.next(&awaited, Deadline::usual())? {
        if line.contains(text) {
            return Ok(line);
        }
        last = line;
    }
    bail!("wait for {awaited}: it ended first; the last it said was {last:?}")
}

fn says_ready(program: &str, arguments: &[&str]) -> Result<Running> {
    let mut command = Command::new(program);
    command.args(arguments);
    let ready = until_it_says(command, program, "ready", false)?;
    Ok(Running {
        pid: ready.process.pid(),
        processes: vec![ready.process],
        _pipes: vec![ready.said],
        _folder: None,
    })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    Ok(())
}

fn start_redis() -> Result<Running> {
    let folder = Folder::new("redis")?;
    let socket = folder.file("socket")?;
    // Debian's package of the server is a link to this program, and starts a server of the machine's.
    let server = folder.path().join("redis-server");
    std::os::unix::fs::symlink("/usr/bin/redis-check-rdb", &server).context("link redis-server")?;
    let mut command = Command::new(server);
    command.args(["--port", "0", "--unixsocket", &socket, "--save", "", "--enable-debug-command", "yes"]);
    let ready = until_it_says(command, "redis", "eady to accept connections", false)?;
    run(Command::new("redis-cli").args(["-s", &socket, "debug", "populate", "300000"]))?;
    Ok(Running {
        pid: ready.process.pid(),
        processes: vec![ready.process],
        _pipes: vec![ready.said],
        _folder: Some(folder),
    })
}

/// Where Debian keeps a program of the newest PostgreSQL.
fn postgres(program: &str) -> Result<PathBuf> {
    let releases = fs::read_dir("/usr/lib/postgresql").context("look for PostgreSQL")?;
    let programs = releases.filter_map(|release| Some(release.ok()?.path().join("bin").join(program)));
    programs.filter(|path| path.is_file()).max().with_context(|| format!("find PostgreSQL's {program}"))
}

/// The user that Debian's package makes: PostgreSQL refuses to be root.
fn postgres_ids() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let user = users.lines().find(|line| line.starts_with("postgres:")).context("find the user postgres")?;
    let mut ids = user.split(':').skip(2).map(str::parse);
    let (uid, gid) = ids.next().zip(ids.next()).context("find the ids of the user postgres")?;
    Ok((uid?, gid?))
}

/// The server, and a client whose session is looked at.
fn start_postgres() -> Result<Running> {
    let (uid, gid) = postgres_ids()?;
    // Not below the repository, which another user may not be able to enter.
    let folder = Folder::in_temporary("postgres")?;
    std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).context("give PostgreSQL its folder")?;
    let data = folder.file("data")?;
    let place = folder.path().to_str().context("the path of the temporary folder is UTF-8")?;
    let as_postgres = |program: PathBuf| {
        let mut command = Command::new(program);
        command.uid(uid).gid(gid).current_dir(folder.path());
        command
    };
    run(as_postgres(postgres("initdb")?).args(["-D", &data, "--no-sync", "-A", "trust"]))?;
    let mut server = as_postgres(postgres("postgres")?);
    server.args(["-D", &data, "-k", place, "-c", "listen_addresses="]);
    let server = until_it_says(server, "postgres", "ready to accept connections", true)?;
    let asks = folder.path().join("asks");
    fs::write(&asks, SESSION).context("write what the session asks")?;
    let mut session = as_postgres(postgres("psql")?);
    session
        .args(["-h", place, "-X", "-q", "-A", "-t", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(&asks);
    let session = until_it_says(session, "psql", "backend|", false)?;
    let pid = session.line.trim_start_matches("backend|").parse().context("read the session's process id")?;
    Ok(Running {
        pid,
        processes: vec![session.process, server.process],
        _pipes: vec![session.said, server.said],
        _folder: Some(folder),
    })
}

fn start_nginx() -> Result<Running> {
    const WORKER: &str = "start worker process ";
    let folder = Folder::new("nginx")?;
    let (settings, socket) = (folder.file("settings")?, folder.file("socket")?);
    let text = format!(
        "error_log stderr notice; pid {}; worker_processes 1; events {{}} \
         http {{ access_log off; server {{ listen unix:{socket}; }} }}",
        folder.file("pid")?
    );
    fs::write(&settings, text).context("write nginx's settings")?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder.path()).args(["-c", &settings, "-g", "daemon off;"]);
    let ready = until_it_says(command, "nginx", WORKER, true)?;
    let pid = ready.line.rsplit(' ').next().unwrap_or_default();
    Ok(Running {
        pid: pid.parse().with_context(|| format!("read the worker's process id from {:?}", ready.line))?,
        processes: vec![ready.process],
        _pipes: vec![ready.said],
        _folder: Some(folder),
    })
}

/// Stops it where it starts its first compiler: what it knows of the project it has in memory then.
fn start_cargo() -> Result<Running> {
    let folder = Folder::new("cargo")?;
    let (told, held) = (folder.file("told")?, folder.file("held")?);
    run(Command::new("mkfifo").args([&told, &held]))?;
    // Both ends open, so that nobody waits for the other and there is no end.
    let open = |path: &str| {
        let file = File::options().read(true).write(true).open(path);
        file.with_context(|| format!("open {path}"))
    };
    let (mut said, held_open) = (Lines::new(open(&told)?), Lines::new(open(&held)?));
    let wrapper = folder.file("wrapper")?;
    // Cargo asks the compiler what it is first, of a crate called ___.
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *-vV*|*___*) exec \"$@\";; esac\necho ready >'{told}'\nread -r _ <'{held}'\nexit 1\n"
    );
    fs::write(&wrapper, text).context("write the compiler's wrapper")?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700))
        .context("make the wrapper executable")?;
    let mut command = Command::new("cargo");
    command.args(["check", "--quiet", "--offline", "--package", "xtask", "--target-dir"]).arg(folder.path());
    command.current_dir(places::repository()).env("RUSTC_WRAPPER", &wrapper);
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = Process::spawn(command, "cargo")?;
    line_with(&mut said, "cargo's compiler", "ready")?;
    Ok(Running {
        pid: process.pid(),
        processes: vec![process],
        _pipes: vec![said, held_open],
        _folder: Some(folder),
    })
}

fn start_chromium(is_page_wanted: bool) -> Result<Running> {
    let folder = Folder::new("chromium")?;
    let page = folder.file("page.html")?;
    fs::write(&page, PAGE).context("write the page")?;
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]);
    command.arg(format!("--user-data-dir={}", folder.path().display())).arg(format!("file://{page}"));
    let ready = until_it_says(command, "chromium", "\"ready\"", true)?;
    let browser = ready.process.pid();
    let pid = if is_page_wanted { largest_page(browser)? } else { browser };
    Ok(Running { pid, processes: vec![ready.process], _pipes: vec![ready.said], _folder: Some(folder) })
}

/// The process of a page, among all that descend from the browser's, that has most memory.
fn largest_page(browser: u32) -> Result<u32> {
    let mut family = vec![browser];
    let mut largest = None;
    while let Some(pid) = family.pop() {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        family.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        let said = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if said.split(|byte| *byte == 0 || *byte == b' ').any(|word| word == b"--type=renderer") {
            largest = largest
                .max(resident_pages(Path::new(&format!("/proc/{pid}/statm"))).map(|pages| (pages, pid)));
        }
    }
    Ok(largest.context("find the process of a page")?.1)
}

fn resident_pages(statm: &Path) -> Option<u64> {
    fs::read_to_string(statm).ok()?.split(' ').nth(1)?.parse().ok()
}
