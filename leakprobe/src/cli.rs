//! What was typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::trace::backend::Backend;
use crate::trace::rate::StackRate;

/// Who owns a process's resident memory, who makes it grow, and from where.
///
/// Attaches to a running process for a few seconds, without stopping, signalling or changing it, and
/// says which part of the program, of its runtime or of the kernel owns each resident byte.
#[derive(Parser, Debug)]
#[command(
    version,
    max_term_width = 100,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    /// Something else than to look at a process.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The process and how to look at it, where there is no other command.
    #[command(flatten)]
    pub arguments: Arguments,
}

/// What leakprobe does besides looking at a process.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Write a saved report (--format json) in another form
    Render(Render),
    /// Compare two saved reports: of one process, or of two
    Diff(Diff),
}

/// A look at a process.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The process to look at
    #[arg(value_name = "PID", required_unless_present = "pid_option", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,

    /// The same, as an option
    #[arg(short = 'p', long = "pid", id = "pid_option", value_name = "PID", conflicts_with = "pid", value_parser = clap::value_parser!(i32).range(1..))]
    pid_option: Option<i32>,

    /// How long to watch: 30s, 2m; 0 takes a snapshot only [default: 10s]
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

    /// The report's form and place.
    #[command(flatten)]
    pub written: Written,

    /// No progress on stderr
    #[arg(short, long)]
    pub quiet: bool,

    /// Show what the kernel programs log
    #[arg(short, long)]
    pub verbose: bool,
}

/// A saved report in another form.
#[derive(Args, Debug)]
pub struct Render {
    /// The report, as JSON; - is standard input
    #[arg(value_name = "REPORT")]
    pub report: PathBuf,

    /// The new form and its place.
    #[command(flatten)]
    pub written: Written,
}

/// Two saved reports, compared.
#[derive(Args, Debug)]
pub struct Diff {
    /// The earlier report, as JSON
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,

    /// The later one; - is standard input
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,

    /// The comparison's form and place: text and json.
    #[command(flatten)]
    pub written: Written,
}

/// How a report is written, and where.
#[derive(Args, Debug)]
pub struct Written {
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,

    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,

    /// Write the report to a file instead of the terminal
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// What the stacks of folded and svg are of [default: growth, or held where no stack grew]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub stacks_of: Option<StacksOf>,

    /// Show every frame of each stack, the runtime's own included
    #[arg(long)]
    pub full_stacks: bool,

    /// When to use colour
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

const EXAMPLES: &str = "\
Examples:
  leakprobe 12345                                who owns its memory, what grew in 10 s
  leakprobe --pid 12345 --duration 60s           look longer, for a slow leak
  leakprobe 12345 --duration 0                   snapshot only: attaches no probe
  leakprobe 12345 --json --output report.json    for scripts
  leakprobe 12345 --watch                        until ^C, with a line a minute
  leakprobe 12345 -d 5m --fail-on-growth 20MiB   for a test: exit code 1 if it grew
  leakprobe render report.json                   a saved report again, for people
  leakprobe render report.json -f pprof -o mem.pb.gz     then: go tool pprof mem.pb.gz
  leakprobe render report.json -f html -o report.html    for a browser
  leakprobe diff before.json after.json          what became more

Exit codes: 0 done, 1 grew by --fail-on-growth, 2 usage, 3 no such process,
4 not permitted, 5 the kernel lacks what is needed, 6 internal error.";

/// Form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// Schema leakprobe.report/1
    Json,
    /// For go tool pprof, with a label `component`
    Pprof,
    /// Folded stacks: owner;root;…;leaf bytes
    Folded,
    /// A flame graph
    Svg,
    /// One page for a browser, which loads nothing
    Html,
    /// For node exporter's textfile collector; --output replaces the file in one step
    Prometheus,
}

/// What the stacks of `folded` and `svg` are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StacksOf {
    /// All that is resident
    Held,
    /// What is resident and was not when the window began
    Growth,
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

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Arguments {
    /// The process to look at.
    pub fn pid(&self) -> i32 {
        self.pid.or(self.pid_option).expect("clap requires one of them")
    }

    /// How long to watch.
    pub fn duration(&self) -> Duration {
        self.duration.unwrap_or(if self.watch { MAX_DURATION } else { USUAL_DURATION })
    }
}

impl Written {
    /// The report's form.
    pub fn format(&self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { self.format }
    }
}

const USUAL_DURATION: Duration = Duration::from_secs(10);

/// Nobody looks for longer at once, and a clock must be able to hold the end.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// A bare number is seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; try 10s, 2m or 0"))?,
    };
    if duration > MAX_DURATION {
        return Err("longer than a day: try 10s, 2m or 0".to_owned());
    }
    Ok(duration)
}

/// Units of a size, by powers of 1024, as in the report.
const UNITS: [&str; 5] = ["", "k", "m", "g", "t"];

/// "10MiB", "10M" and "10485760" are the same.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: try 10MiB, 512k or 1048576");
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim().to_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = UNITS.iter().position(|known| *known == unit).ok_or_else(wrong)?;
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * 1024_f64.powi(power as i32);
    if bytes < 1.0 || bytes > i64::MAX as f64 {
        return Err(wrong());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn durations_with_and_without_a_unit() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert!(parse_duration("-1").is_err() && parse_duration("soon").is_err());
        assert!(parse_duration("1e19").is_err() && parse_duration("25h").is_err());
    }

    #[test]
    fn sizes_with_and_without_a_unit() {
        for same in ["10MiB", "10M", "10mb", "10 MiB", "10485760", "10240k", "10485760B"] {
            assert_eq!(parse_size(same), Ok(10 << 20), "{same}");
        }
        assert_eq!(parse_size("1.5G"), Ok(3 << 29));
        for none in ["", "0", "-1", "MiB", "10 apples", "1e3", "99999999T", "0.1"] {
            assert!(parse_size(none).is_err(), "{none}");
        }
    }

    #[test]
    fn a_long_look_lasts_until_it_is_ended() {
        let parse = |words: &[&str]| CommandLine::try_parse_from(words).map(|it| it.arguments.duration());
        assert_eq!(parse(&["leakprobe", "12"]).unwrap(), USUAL_DURATION);
        assert_eq!(parse(&["leakprobe", "12", "--watch"]).unwrap(), MAX_DURATION);
        assert_eq!(parse(&["leakprobe", "12", "--watch", "-d", "5m"]).unwrap(), Duration::from_secs(300));
    }

    #[test]
    fn the_pid_is_given_once() {
        let parse = |words: &[&str]| CommandLine::try_parse_from(words).map(|it| it.arguments.pid());
        assert_eq!(parse(&["leakprobe", "12"]).unwrap(), 12);
        assert_eq!(parse(&["leakprobe", "--pid", "12"]).unwrap(), 12);
        assert!(parse(&["leakprobe"]).is_err());
        assert!(parse(&["leakprobe", "0"]).is_err());
        assert!(parse(&["leakprobe", "1", "--pid", "2"]).is_err());
    }

    #[test]
    fn a_command_needs_no_pid_and_a_pid_no_command() {
        let parse = |words: &[&str]| CommandLine::try_parse_from(words).map(|it| it.command.is_some());
        assert!(parse(&["leakprobe", "render", "report.json", "--format", "text"]).unwrap());
        assert!(!parse(&["leakprobe", "12", "--format", "text"]).unwrap());
        assert!(parse(&["leakprobe", "12", "render", "report.json"]).is_err());
        assert!(parse(&["leakprobe", "render"]).is_err());
    }
}
