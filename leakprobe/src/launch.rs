//! A program that is started to be watched: held before its first instruction, and once more before its end, while its
//! memory is still there to be read.
//!
//! The surprise: this is ptrace, which leakprobe touches no other process with. It is attached to the first thread
//! only, asks to be told of execve and of the exit, and passes every signal on. In between nothing is held.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use libc::c_int;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, pidfd_open, pidfd_send_signal,
    waitid, waitpid,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {program}: {error}")]
pub struct LaunchError {
    /// As typed.
    pub program: String,
    /// Why not.
    pub error: io::Error,
}

/// Why the program does not run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has replaced itself by another program, of which no instruction has run; at first, by what was asked for.
    Exec,
    /// It is about to end, and has its memory still.
    Exiting,
    /// It has ended.
    Gone,
}

/// A program that we started.
#[derive(Debug)]
pub struct Launched {
    pid: Pid,
    pidfd: Arc<OwnedFd>,
    stops: UnboundedReceiver<Stop>,
    /// `None`: it is never held again.
    resume: Option<mpsc::Sender<()>>,
    held: Option<Stop>,
    keeper: JoinHandle<Option<WaitStatus>>,
}

impl Launched {
    /// Starts it, and returns while it is held before its first instruction.
    ///
    /// # Errors
    /// [`LaunchError`] where there is no such program; others where the kernel does not let us.
    pub fn start(command: &[OsString]) -> Result<Self> {
        let (started, starting) = mpsc::channel();
        let (resume, resumed) = mpsc::channel();
        let (stop, stops) = unbounded_channel();
        let command = command.to_vec();
        // One thread does all: the kernel knows a tracer by its thread.
        let keeper = thread::spawn(move || keep(&command, &started, &stop, &resumed));
        let pid = starting.recv().context("start the program")??;
        let pidfd = Arc::new(pidfd_open(pid, PidfdFlags::empty()).context("open a pidfd of the program")?);
        Ok(Self { pid, pidfd, stops, resume: Some(resume), held: Some(Stop::Exec), keeper })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until it is held or has ended; at once where it is held.
    pub async fn stopped(&mut self) -> Stop {
        if self.held.is_none() {
            self.held = Some(self.stops.recv().await.unwrap_or(Stop::Gone));
        }
        self.held.unwrap_or(Stop::Gone)
    }

    /// What it is held for.
    pub fn held(&self) -> Option<Stop> {
        self.held
    }

    /// Lets it run on, where it is held.
    pub fn resume(&mut self) {
        if let (Some(Stop::Exec | Stop::Exiting), Some(resume)) = (self.held.take(), &self.resume) {
            // The keeper has gone where the program has.
            let _ = resume.send(());
        }
    }

    /// Ends it: for one that cannot be watched and has run no instruction.
    pub fn kill(&self) {
        // It may be gone.
        let _ = pidfd_send_signal(&*self.pidfd, Signal::KILL);
    }

    /// Lets it run without holding it any more, and waits for its end: the exit code of a shell, 128 and more for
    /// signals.
    pub fn wait(mut self) -> u8 {
        self.resume = None;
        let status = self.keeper.join().ok().flatten();
        let code = status.and_then(|it| it.exit_status().or(it.terminating_signal().map(|it| 128 + it)));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }

    /// From now on passes on what is sent to leakprobe alone. What a terminal sends, it sends to the program as well.
    ///
    /// # Errors
    /// Where the kernel refuses a handler.
    pub fn pass_signals_on(&self) -> io::Result<()> {
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2] {
            let pidfd = Arc::clone(&self.pidfd);
            let pass_on = move |info: &libc::siginfo_t| {
                // Positive where the kernel sent it: `SI_KERNEL` for the terminal's (include/uapi/asm-generic/siginfo.h).
                if info.si_code <= 0 {
                    let _ = pidfd_send_signal(&*pidfd, signal);
                }
            };
            // SAFETY: a comparison and one system call, which signal handlers may make.
            unsafe { signal_hook_registry::register_sigaction(signal.as_raw(), pass_on) }?;
        }
        Ok(())
    }
}

/// Starts the program, holds it where it is to be held, and reaps it.
fn keep(
    command: &[OsString],
    started: &mpsc::Sender<Result<Pid>>,
    stop: &UnboundedSender<Stop>,
    resumed: &mpsc::Receiver<()>,
) -> Option<WaitStatus> {
    let pid = match start_held(command) {
        Ok(pid) => pid,
        Err(error) => {
            let _ = started.send(Err(error));
            return None;
        }
    };
    let _ = started.send(Ok(pid));
    // Where nobody listens any more, or nobody answers, it runs on.
    let _ = resumed.recv();
    run_on(pid, libc::PTRACE_CONT, 0);
    loop {
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).ok()??;
        let Some(signal) = status.stopping_signal() else {
            let _ = stop.send(Stop::Gone);
            return Some(status);
        };
        match event(status) {
            0 => run_on(pid, libc::PTRACE_CONT, signal),
            // A stop as job control makes it: it lasts until SIGCONT.
            libc::PTRACE_EVENT_STOP if is_job_control(signal) => run_on(pid, libc::PTRACE_LISTEN, 0),
            event @ (libc::PTRACE_EVENT_EXEC | libc::PTRACE_EVENT_EXIT) => {
                let why = if event == libc::PTRACE_EVENT_EXEC { Stop::Exec } else { Stop::Exiting };
                if stop.send(why).is_ok() {
                    let _ = resumed.recv();
                }
                run_on(pid, libc::PTRACE_CONT, 0);
            }
            _ => run_on(pid, libc::PTRACE_CONT, 0),
        }
    }
}

/// The program, held behind its execve.
fn start_held(command: &[OsString]) -> Result<Pid> {
    let (program, arguments) = command.split_first().context("a program is to be started")?;
    let (mut ready, ready_sender) = io::pipe().context("create a pipe")?;
    let (go_receiver, mut go) = io::pipe().context("create a pipe")?;
    let mut command = Command::new(program);
    command.args(arguments);
    let (ready_fd, go_fd, ours_fd) = (ready_sender.as_raw_fd(), go_receiver.as_raw_fd(), go.as_raw_fd());
    // SAFETY: system calls only, on descriptors that the child has copies of until it executes.
    unsafe { command.pre_exec(move || wait_for_tracer(ready_fd, go_fd, ours_fd)) };
    // It returns when the program was executed, which waits for us.
    let spawner = thread::spawn(move || {
        let spawned = command.spawn();
        drop((ready_sender, go_receiver));
        spawned
    });
    let mut number = [0; 4];
    let seized = ready.read_exact(&mut number).and_then(|()| {
        let pid = i32::from_ne_bytes(number);
        ptrace(libc::PTRACE_SEIZE, pid, libc::PTRACE_O_TRACEEXEC.cast_unsigned() as usize)?;
        go.write_all(&[1])?;
        Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::InvalidData.into())
    });
    // Without us it gives up.
    drop(go);
    let held = seized.and_then(|pid| hold_at_exec(pid).map(|()| pid));
    let program = program.to_string_lossy().into_owned();
    let spawned = spawner.join().map_err(|_| io::Error::other("the thread that starts it panicked"));
    let spawned = spawned.and_then(|spawned| spawned);
    spawned.and(held).map_err(|error| LaunchError { program, error }.into())
}

/// In the child: says who it is, and executes nothing before it is told to.
fn wait_for_tracer(ready: c_int, go: c_int, ours: c_int) -> io::Result<()> {
    let pid = std::process::id().to_ne_bytes();
    let mut word = [0_u8; 1];
    // SAFETY: the buffers are as long as is said. The end of the pipe that is ours is closed, or the child would wait
    // for ever where leakprobe is killed.
    let is_told = unsafe {
        libc::close(ours);
        libc::write(ready, pid.as_ptr().cast(), pid.len());
        libc::read(go, word.as_mut_ptr().cast(), 1)
    };
    if is_told == 1 { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Waits until it is held behind execve. Where that failed it ends, which is for the spawner to see and to reap.
fn hold_at_exec(pid: Pid) -> io::Result<()> {
    let any = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), any)?.is_some_and(|status| status.stopped() || status.trapped()) {
        let status = waitpid(Some(pid), WaitOptions::empty())?.map(|(_, status)| status);
        match status.map_or(0, event) {
            libc::PTRACE_EVENT_EXEC => {
                let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACEEXIT;
                return ptrace(
                    libc::PTRACE_SETOPTIONS,
                    pid.as_raw_nonzero().get(),
                    options.cast_unsigned() as usize,
                );
            }
            0 => run_on(pid, libc::PTRACE_CONT, status.and_then(WaitStatus::stopping_signal).unwrap_or(0)),
            _ => run_on(pid, libc::PTRACE_CONT, 0),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// `PTRACE_EVENT_*` of a stop; 0 where a signal is about to be delivered (ptrace(2)).
fn event(status: WaitStatus) -> c_int {
    status.as_raw() >> 16
}

fn is_job_control(signal: c_int) -> bool {
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// Where it was killed meanwhile there is nobody to run on, which the next wait finds out.
fn run_on(pid: Pid, request: libc::c_uint, signal: c_int) {
    let _ = ptrace(request, pid.as_raw_nonzero().get(), signal.cast_unsigned() as usize);
}

fn ptrace(request: libc::c_uint, pid: i32, data: usize) -> io::Result<()> {
    // SAFETY: none of these requests reads or writes memory of ours.
    let result = unsafe { libc::ptrace(request, pid, ptr::null_mut::<u8>(), data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(words: &[&str]) -> Result<Launched> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        Launched::start(&words)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn it_is_held_before_it_runs_and_before_it_ends() {
        let mut launched = start(&["sh", "-c", "exit 7"]).unwrap();
        let comm = || std::fs::read_to_string(format!("/proc/{}/comm", launched.pid())).unwrap();
        assert_eq!((comm().as_str(), launched.held()), ("sh\n", Some(Stop::Exec)));
        let memory = || std::fs::read_to_string(format!("/proc/{}/maps", launched.pid())).unwrap();
        assert!(memory().contains("/sh") || memory().contains("dash"), "{}", memory());
        launched.resume();
        assert_eq!(runtime().block_on(launched.stopped()), Stop::Exiting);
        let memory = std::fs::read_to_string(format!("/proc/{}/maps", launched.pid())).unwrap();
        assert!(memory.contains("libc"), "its memory is still there: {memory}");
        launched.resume();
        assert_eq!(launched.wait(), 7);
    }

    #[test]
    fn a_program_that_executes_another_one_is_held_again() {
        let mut launched = start(&["sh", "-c", "exec true"]).unwrap();
        launched.resume();
        assert_eq!(runtime().block_on(launched.stopped()), Stop::Exec);
        assert_eq!(std::fs::read_to_string(format!("/proc/{}/comm", launched.pid())).unwrap(), "true\n");
        assert_eq!(launched.wait(), 0);
    }

    #[test]
    fn what_cannot_be_run_is_told_as_the_kernel_tells_it() {
        let error = start(&["/no such program"]).unwrap_err();
        let error = error.downcast_ref::<LaunchError>().unwrap();
        assert_eq!(error.error.kind(), io::ErrorKind::NotFound);
        let error = start(&["/etc/passwd"]).unwrap_err();
        assert_eq!(
            error.downcast_ref::<LaunchError>().unwrap().error.kind(),
            io::ErrorKind::PermissionDenied
        );
    }

    #[test]
    fn signals_reach_it_and_end_it_as_ever() {
        let launched = start(&["sh", "-c", "kill -TERM $$; exit 3"]).unwrap();
        assert_eq!(launched.wait(), 128 + 15);
        let launched = start(&["sh", "-c", "trap 'exit 5' TERM; kill -TERM $$; exit 3"]).unwrap();
        assert_eq!(launched.wait(), 5);
        let launched = start(&["sh", "-c", "exit 3"]).unwrap();
        launched.kill();
        assert_eq!(launched.wait(), 128 + 9);
    }
}
