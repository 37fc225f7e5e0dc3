//! How a report is written, and where: what all commands have in common that write one.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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

    /// How many owners, call sites and groups of goroutines a text shows at most [default: all owners, 10 call sites]
    #[arg(short = 'T', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub top: Option<u16>,

    /// Show every frame of each stack, the runtime's own included
    #[arg(long)]
    pub full_stacks: bool,

    /// When to use colour
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

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

impl Written {
    /// The report's form.
    pub fn format(&self) -> OutputFormat {
        if self.json { OutputFormat::Json } else { self.format }
    }
}
