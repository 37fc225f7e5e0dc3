//! Who else was using the machine: a figure measured beside somebody's build says more about the build.

use std::fs;

use anyhow::{Context, Result};

/// CPU time used since boot, in the kernel's ticks.
pub(super) struct CpuTime {
    by_all: f64,
    by_workload: f64,
    available: f64,
}

impl CpuTime {
    pub(super) fn now(workload: u32) -> Result<Self> {
        let machine = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let path = format!("/proc/{workload}/stat");
        let process = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        parse(&machine, &process).with_context(|| format!("read the CPU times in /proc/stat and {path}"))
    }

    /// The part of the machine that went neither to the workload nor to idleness.
    pub(super) fn share_of_others_since(&self, before: &Self) -> f64 {
        let others = (self.by_all - before.by_all) - (self.by_workload - before.by_workload);
        (others / (self.available - before.available)).max(0.0)
    }
}

/// CPU time in user mode that a process has used, in seconds.
pub(super) fn user_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let process = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let (user_ticks, _) = ticks_of(&process).with_context(|| format!("read the CPU time in {path}"))?;
    Ok(user_ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// In user mode and in the kernel.
fn ticks_of(process: &str) -> Option<(f64, f64)> {
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th field.
    let mut fields = process.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut field = || fields.next()?.parse::<f64>().ok();
    Some((field()?, field()?))
}

fn parse(machine: &str, process: &str) -> Option<CpuTime> {
    let first = machine.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; what follows is part of these.
    let ticks: Vec<f64> = first.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
    let available: f64 = ticks.iter().sum();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let (in_user_mode, in_kernel) = ticks_of(process)?;
    let by_workload = in_user_mode + in_kernel;
    Some(CpuTime { by_all: available - idle, by_workload, available })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_neither_idles_nor_is_ours_is_others() {
        let process = |utime| format!("7 (a) b) R 1 1 1 0 -1 0 0 0 0 0 {utime} 5 0 0 20");
        let before = parse("cpu  100 0 0 900 0 0 0 0 0 0\n", &process(10)).unwrap();
        let after = parse("cpu  180 0 0 1020 0 0 0 0 0 0\n", &process(60)).unwrap();
        assert_eq!(after.share_of_others_since(&before), 30.0 / 200.0);
    }
}
