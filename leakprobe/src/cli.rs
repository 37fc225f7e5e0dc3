//! What was typed: the commands. What they have in common is in the files below.

mod look;
mod values;
mod written;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use self::look::{Arguments, BackendChoice, Chosen, Look, Run};
pub use self::values::MAX_DURATION;
pub use self::written::{ColorChoice, OutputFormat, StacksOf, Written};

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
    /// Start a program and watch it from its first instruction on
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Write a saved report (--format json) in another form
    Render(Render),
    /// Compare two saved reports: of one process, or of two
    Diff(Diff),
    /// Say what this kernel, these privileges and this container allow
    Doctor(Doctor),
    /// What a finding means, how it is known, what to do
    Explain(Explain),
    /// Write the completions of a shell to standard output
    Completions(Completions),
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

/// What leakprobe can do here.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Try to read this process, and not all of them
    #[arg(value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: Option<i32>,

    /// The checkup's form and place: text and json.
    #[command(flatten)]
    pub written: Written,
}

/// The page of a finding.
#[derive(Args, Debug)]
pub struct Explain {
    /// The finding's id, as below "WHAT TO DO"; without one, all are listed
    #[arg(value_name = "ID")]
    pub id: Option<String>,
}

/// Completions.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

const RUN_HELP: &str = "\
The report comes when the program ends, at ^C or after --duration; it goes to standard error, or where
--output says. Signals sent to leakprobe are passed on, and its exit code is the program's: 128 and the
signal's number where one ended it, 126 or 127 where it cannot be started. What the program forks is not
followed, what it executes is. Debuggers cannot attach to it meanwhile.

Examples:
  leakprobe run -- ./server --flag                  until it ends
  leakprobe run --json -o report.json -- make test  with the report in a file
  leakprobe run -d 30s -- ./server                  the first 30 seconds; then it runs on unwatched";

const EXAMPLES: &str = "\
Examples:
  leakprobe 12345                                who owns its memory, what grew in 10 s
  leakprobe --pid 12345 --duration 60s           look longer, for a slow leak
  leakprobe 12345 --duration 0                   snapshot only: attaches no probe
  leakprobe 12345 --json --output report.json    for scripts
  leakprobe 12345 --watch                        until ^C, with a line a minute
  leakprobe 12345 -d 5m --fail-on-growth 20MiB   for a test: exit code 1 if it grew
  leakprobe --name api-server                    by name, if only one process has it
  leakprobe --container 4f5e6d7c                 all processes of a container, summed up
  leakprobe run -- ./server --flag               from its first instruction on, until it ends
  leakprobe render report.json                   a saved report again, for people
  leakprobe render report.json -f pprof -o mem.pb.gz     then: go tool pprof mem.pb.gz
  leakprobe render report.json -f html -o report.html    for a browser
  leakprobe diff before.json after.json          what became more
  leakprobe doctor                               what is possible on this machine
  leakprobe explain c-heap-leak                  what a finding means, what to do

Exit codes: 0 done, 1 grew by --fail-on-growth, 2 usage, 3 no such process,
4 not permitted, 5 the kernel lacks what is needed, 6 internal error.";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    fn parsed(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    fn look(line: &str) -> Result<Arguments, clap::Error> {
        parsed(line).map(|line| line.arguments)
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_long_look_lasts_until_it_is_ended() {
        let duration = |line| look(line).map(|look| look.duration()).unwrap();
        assert_eq!(duration("leakprobe 12"), Duration::from_secs(10));
        assert_eq!(duration("leakprobe 12 --watch"), MAX_DURATION);
        assert_eq!(duration("leakprobe 12 --watch -d 5m"), Duration::from_secs(300));
    }

    #[test]
    fn a_target_is_chosen_once() {
        let chosen =
            |line, expected: Chosen<'_>| assert_eq!(look(line).unwrap().chosen(), expected, "{line}");
        chosen("leakprobe 12", Chosen::Pid(12));
        chosen("leakprobe --pid 12", Chosen::Pid(12));
        chosen("leakprobe -n api -d 1s", Chosen::Name("api"));
        chosen("leakprobe --container 4f5e", Chosen::Container("4f5e"));
        chosen("leakprobe --cgroup /system.slice", Chosen::Cgroup("/system.slice".as_ref()));
        let none = [
            "leakprobe --container 4f5e -d 5s",
            "leakprobe",
            "leakprobe 0",
            "leakprobe 1 --pid 2",
            "leakprobe 1 --name api",
        ];
        for line in none {
            assert!(look(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_command_needs_no_pid_and_a_pid_no_command() {
        let has_command = |line| parsed(line).map(|line| line.command.is_some());
        assert!(has_command("leakprobe render report.json --format text").unwrap());
        assert!(!has_command("leakprobe 12 --format text").unwrap());
        assert!(has_command("leakprobe 12 render report.json").is_err());
        assert!(has_command("leakprobe render").is_err());
        assert!(has_command("leakprobe explain").unwrap());
    }

    #[test]
    fn what_is_run_keeps_its_own_options() {
        let line = parsed("leakprobe run -d 1s -- server --json -d 2").unwrap();
        let Some(Command::Run(run)) = line.command else { panic!("{line:?}") };
        assert_eq!(run.duration(), Duration::from_secs(1));
        assert_eq!(run.command, ["server", "--json", "-d", "2"]);
        assert!(parsed("leakprobe run").is_err() && parsed("leakprobe run --").is_err());
    }
}
