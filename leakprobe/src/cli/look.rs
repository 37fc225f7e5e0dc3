//! A look at a process: which one, how long, how closely.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{MAX_DURATION, parse_duration, parse_size};
use super::written::Written;
use crate::trace::backend::Backend;
use crate::trace::rate::StackRate;

const USUAL_DURATION: Duration = Duration::from_secs(10);

/// A look at a process that runs.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Which one.
    #[command(flatten)]
    which: Which,

    /// How long, how closely.
    #[command(flatten)]
    pub look: Look,

    /// The report's form and place.
    #[command(flatten)]
    pub written: Written,
}

/// One of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// The process to look at
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,

    /// The same, as an option
    #[arg(short = 'p', long = "pid", id = "pid_option", value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pid_option: Option<i32>,

    /// The process of that name, or whose executable has it, if there is only one
    #[arg(short = 'n', long)]
    name: Option<String>,

    /// All processes of a cgroup and of those below it, by its folder or its path: a snapshot of each, and their sum
    #[arg(long, value_name = "PATH", conflicts_with_all = ["duration", "watch", "fail_on_growth"])]
    cgroup: Option<PathBuf>,

    /// The same for a container, by the beginning of its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["duration", "watch", "fail_on_growth"])]
    container: Option<String>,
}

/// Who is to be looked at, as it was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen<'a> {
    /// A process by its id.
    Pid(i32),
    /// A process by its name.
    Name(&'a str),
    /// The processes of a cgroup.
    Cgroup(&'a Path),
    /// The processes of a container.
    Container(&'a str),
}

/// A program to be started and watched from its first instruction on.
#[derive(Args, Debug)]
pub struct Run {
    /// How long, how closely.
    #[command(flatten)]
    pub look: Look,

    /// The report's form and place; stderr in place of stdout, which is the program's.
    #[command(flatten)]
    pub written: Written,

    /// The program and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

/// How long, how closely, and what is said meanwhile.
#[derive(Args, Debug)]
pub struct Look {
    /// How long to watch: 30s, 2m; 0 takes a snapshot only [default: 10s; with run and --watch until its end]
    #[arg(short, long, value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Watch until ^C, or for --duration, and say each minute how it grows
    #[arg(long)]
    pub watch: bool,

    /// Exit with code 1 if it grew by so much: 10MiB, 512k
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub fail_on_growth: Option<u64>,

    /// Where to see system calls, instead of the best place that works here
    #[arg(long, value_enum)]
    pub backend: Option<BackendChoice>,

    /// Which page faults and mappings keep their stack: auto, all, or 1/N
    #[arg(long, value_name = "RATE", default_value = "auto", value_parser = str::parse::<StackRate>)]
    pub stack_rate: StackRate,

    /// No progress on stderr
    #[arg(short, long)]
    pub quiet: bool,

    /// Show what the kernel programs log
    #[arg(short, long)]
    pub verbose: bool,
}

/// Where to see the system calls that change the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// fentry and fexit on the kernel's functions
    Fentry,
    /// kprobes and kretprobes on them
    Kprobe,
    /// Tracepoints of the address space's lock (Linux 6.14)
    Tracepoint,
    /// Tracepoints of system calls, which slow down every process of the machine a little
    Syscalls,
}

impl From<BackendChoice> for Backend {
    fn from(choice: BackendChoice) -> Self {
        match choice {
            BackendChoice::Fentry => Self::Fentry,
            BackendChoice::Kprobe => Self::Kprobe,
            BackendChoice::Tracepoint => Self::Tracepoint,
            BackendChoice::Syscalls => Self::Syscalls,
        }
    }
}

impl Arguments {
    /// Who is to be looked at.
    pub fn chosen(&self) -> Chosen<'_> {
        let Which { pid, pid_option, name, cgroup, container } = &self.which;
        let pid = pid.or(*pid_option).map(Chosen::Pid);
        let name = name.as_deref().map(Chosen::Name);
        let cgroup = cgroup.as_deref().map(Chosen::Cgroup);
        let container = container.as_deref().map(Chosen::Container);
        pid.or(name).or(cgroup).or(container).expect("clap requires one of them")
    }

    /// How long to watch.
    pub fn duration(&self) -> Duration {
        self.look.duration.unwrap_or(if self.look.watch { MAX_DURATION } else { USUAL_DURATION })
    }
}

impl Run {
    /// How long to watch at most.
    pub fn duration(&self) -> Duration {
        self.look.duration.unwrap_or(MAX_DURATION)
    }
}
