//! Two services under a load generator's load, alone and watched: how many requests a second they answer.
//!
//! The surprise: server and generator share the machine's processors, and leakprobe takes what it needs from the
//! same. So the rate is all that counts, and leakprobe's own time in user mode is told beside it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use leakprobe_tests::lines::Lines;
use leakprobe_tests::process::Process;
use leakprobe_tests::{Deadline, Workload, places};

use super::machine::user_seconds;
use super::requests::print_bills;
use super::watcher::{Kind, Watcher};
use super::{Samples, flush};
use crate::command::{find_program, quietly};

/// Requests of each kind that redis-benchmark sends: some seconds.
const REDIS_REQUESTS: u32 = 200_000;

/// A Go HTTP server under wrk.
pub(super) fn http(leakprobe: &Path, rounds: u32) -> Result<()> {
    if find_program("wrk").is_none() {
        println!("There is no wrk here, so no Go server under it.");
        return Ok(());
    }
    let workload = Workload::start("go/http_server")?;
    let address = workload.hello["address"].as_str().context("the server tells its address")?;
    let mut load = Command::new("wrk");
    load.args(["--threads", "1", "--connections", "16", "--duration", "5s", &format!("http://{address}/a")]);
    let title = "A GO HTTP SERVER under wrk";
    compare(title, workload.pid(), &mut load, wrk_rate, leakprobe, rounds)?;
    workload.end()?;
    Ok(())
}

/// A Redis under redis-benchmark.
pub(super) fn redis(leakprobe: &Path, rounds: u32) -> Result<()> {
    // Debian's package of the server is a link to this program, and starts a server of the machine's.
    let Some(program) = find_program("redis-check-rdb").filter(|_| find_program("redis-benchmark").is_some())
    else {
        println!("There is no redis-benchmark here, so no Redis under it.");
        return Ok(());
    };
    let folder = places::target().join(format!("bench-redis-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let measured = redis_in(&folder, &program, leakprobe, rounds);
    fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    measured
}

fn redis_in(folder: &Path, program: &Path, leakprobe: &Path, rounds: u32) -> Result<()> {
    const READY: &str = "Ready to accept connections";
    let server = folder.join("redis-server");
    symlink(program, &server).with_context(|| format!("link {}", server.display()))?;
    // Free a moment ago: nobody else is handed it so soon.
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    let port = listener.local_addr().context("find a free port")?.port().to_string();
    drop(listener);
    let mut command = Command::new(server);
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process::spawn(command, "redis-server")?;
    let mut messages = Lines::new(process.child.stdout.take().context("stdout is a pipe")?);
    loop {
        let line = messages.next("Redis' line that it is ready", Deadline::usual())?;
        if line.context("Redis ended before it was ready")?.contains(READY) {
            break;
        }
    }
    let mut load = Command::new("redis-benchmark");
    load.args(["-p", &port, "-t", "set,get", "-c", "16", "-r", "100000", "-d", "100", "--csv"]);
    load.args(["-n", &REDIS_REQUESTS.to_string()]);
    compare("REDIS under redis-benchmark", process.pid(), &mut load, redis_rate, leakprobe, rounds)
}

/// Each watched load between two that nobody watches.
fn compare(
    title: &str,
    pid: u32,
    load: &mut Command,
    rate_in: fn(&str) -> Option<f64>,
    leakprobe: &Path,
    rounds: u32,
) -> Result<()> {
    println!("{title}, requests a second, watched ÷ alone, {rounds} rounds");
    let rate = || {
        let mut again = Command::new(load.get_program());
        again.args(load.get_args());
        let output = quietly(again)?;
        rate_in(&output).with_context(|| format!("find the rate in what the load generator said:\n{output}"))
    };
    rate()?; // caches, pools and connections
    let (mut ratios, mut alone_rates, mut user_percents) =
        (Samples::default(), Samples::default(), Samples::default());
    let mut bills = Vec::new();
    let mut before = rate()?;
    for round in 0..rounds {
        let watcher = Watcher::start(Kind::Leakprobe, leakprobe, pid)?;
        let watcher_pid = watcher.leakprobe_pid().context("leakprobe has a pid")?;
        let (started, used_seconds) = (Instant::now(), user_seconds(watcher_pid)?);
        let watched = rate()?;
        let user_percent =
            (user_seconds(watcher_pid)? - used_seconds) / started.elapsed().as_secs_f64() * 100.0;
        bills.push(watcher.stop()?);
        let after = rate()?;
        let alone = f64::midpoint(before, after);
        println!(
            "  round {}: alone {alone:.0} /s, watched {watched:.0} /s, ratio {:.3}, {user_percent:.1} % of a core",
            round + 1,
            watched / alone
        );
        flush()?;
        ratios.push(watched / alone);
        alone_rates.push(alone);
        user_percents.push(user_percent);
        before = after;
    }
    ensure!(!bills.is_empty(), "nothing was measured");
    println!("                          min median    max");
    println!("  ratio                {}   (alone: {:.0} a second)", ratios.shown(), alone_rates.median());
    println!(
        "  leakprobe in user mode {:.1} % of a core while it watched, at most {:.1} %",
        user_percents.median(),
        user_percents.most()
    );
    print_bills(&bills);
    Ok(())
}

/// "Requests/sec:  12345.67".
fn wrk_rate(output: &str) -> Option<f64> {
    output.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"))?.trim().parse().ok()
}

/// `"SET","12345.67",…` a line for each kind of request: as many requests of each, so their times add up.
fn redis_rate(output: &str) -> Option<f64> {
    let rate = |line: &str| line.split(',').nth(1)?.trim_matches('"').parse::<f64>().ok();
    let rates: Vec<f64> = output.lines().filter_map(rate).collect();
    let seconds_each: f64 = rates.iter().map(|rate| 1.0 / rate).sum();
    (!rates.is_empty()).then(|| rates.len() as f64 / seconds_each)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let wrk = "Running 5s test\n  12 requests in 5.00s, 1.2MB read\nRequests/sec:   3021.50\nTransfer/sec: 1MB\n";
        assert_eq!(wrk_rate(wrk), Some(3021.5));
        let redis =
            "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"100.00\",\"0.2\"\n\"GET\",\"300.00\",\"0.1\"\n";
        assert_eq!(redis_rate(redis), Some(150.0));
        assert_eq!((wrk_rate(""), redis_rate("")), (None, None));
    }
}
