//! What stderr shows while leakprobe works: one line when the watch begins, then one that is rewritten.

use std::io::{self, IsTerminal as _, Write as _};

use leakprobe::cli::{Look, MAX_DURATION};
use leakprobe::report::{Trend, Verdict};
use leakprobe::watch::Progress;

/// The progress line. Not a terminal: only the first line, for whoever waits for it.
pub struct Line {
    quiet: bool,
    /// A line a minute.
    minutes: bool,
    rewrites: bool,
    /// What ends a window that has no set length.
    ends: &'static str,
    shown: bool,
}

impl Line {
    /// While a process is looked at.
    pub fn for_a_process(look: &Look) -> Self {
        let rewrites = io::stderr().is_terminal();
        Self { quiet: look.quiet, minutes: look.watch, rewrites, ends: "until ^C", shown: false }
    }

    /// While a program runs that may write to stderr itself: nothing is rewritten there.
    pub fn for_a_program(look: &Look) -> Self {
        Self { quiet: look.quiet, minutes: look.watch, rewrites: false, ends: "until it ends", shown: false }
    }

    /// Shows how far it is. A closed stderr is no reason to stop.
    pub fn show(&mut self, progress: Progress) {
        if self.quiet {
            return;
        }
        match progress {
            Progress::Watching { pid, duration } => {
                let window = match duration {
                    MAX_DURATION => self.ends.to_owned(),
                    _ => format!("for {} s, ^C ends early", duration.as_secs_f64()),
                };
                let _ = writeln!(io::stderr(), "leakprobe: watching {pid} {window}");
            }
            Progress::Tick { elapsed, rss_bytes, growth_bytes } if self.rewrites => {
                let _ = write!(
                    io::stderr(),
                    "\r\x1b[K{:3.0} s  RSS {:.1} MiB, {:+.1} MiB so far",
                    elapsed.as_secs_f64(),
                    mib(rss_bytes as f64),
                    mib(growth_bytes as f64),
                );
                self.shown = true;
            }
            Progress::Minute { elapsed, rss_bytes, growth_bytes, trend } if self.minutes => {
                self.clear();
                let _ = writeln!(
                    io::stderr(),
                    "{:4} min  RSS {:.1} MiB  {:+.1} MiB  {}",
                    elapsed.as_secs() / 60,
                    mib(rss_bytes as f64),
                    mib(growth_bytes as f64),
                    words(&trend),
                );
            }
            Progress::Tick { .. } | Progress::Minute { .. } => {}
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// How it grew since the window began.
fn words(trend: &Trend) -> String {
    match (trend.verdict, trend.per_second.zip(trend.uncertainty)) {
        (Verdict::Grows, Some((per_second, off))) => {
            format!("grows by {:.1} ± {:.1} MiB/min", mib(per_second * 60.0), mib(off * 60.0))
        }
        (Verdict::Unknown, _) => "too early to say".to_owned(),
        (Verdict::Steady, _) => "steady".to_owned(),
        (Verdict::RisesAndFalls, _) => "rises and falls, no trend".to_owned(),
        (Verdict::LevelsOff, _) => "levelling off".to_owned(),
        (Verdict::GrewOnce, _) => "grew in one step".to_owned(),
        (Verdict::GrewUnevenly, _) => "grows unevenly".to_owned(),
        (Verdict::Shrinks, _) => "shrinks".to_owned(),
        (Verdict::Grows, None) => "grows".to_owned(),
    }
}

/// Sends what the kernel programs log to stderr.
pub fn log_to_stderr() {
    struct Stderr;
    impl log::Log for Stderr {
        /// The libraries' own debugging is not what was asked for.
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            !metadata.target().starts_with("aya") || metadata.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record<'_>) {
            if !self.enabled(record.metadata()) {
                return;
            }
            let _ = writeln!(io::stderr(), "leakprobe: kernel: {}", record.args());
        }
        fn flush(&self) {}
    }
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}
