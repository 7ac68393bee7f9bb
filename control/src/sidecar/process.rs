//! One proxy process that is kept alive: started, watched until it is ready, started again when it dies, drained.
//!
//! What it says goes to the caller's standard error or to a file; what becomes of it is a [`Life`] that anyone can
//! watch. An end before it was ever ready is final: starting it again would end the same way.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::admin;
use super::backoff::Backoff;
use super::tied;

/// First and longest wait before a dead proxy is started again.
const RESTART_FIRST: Duration = Duration::from_millis(50);
const RESTART_MAX: Duration = Duration::from_secs(10);

/// A proxy that was ready for this long is healthy again: its next end is a new one.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// The proxy itself ends at its drain timeout, and says goodbye to the control plane, which may take 2 s; after so much more
/// it is killed.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// First and longest pause between two looks at `/ready`.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// The proxy.
    pub proxy: PathBuf,
    /// Its bootstrap file.
    pub bootstrap: PathBuf,
    /// Where it keeps its last good configuration.
    pub data_dir: PathBuf,
    /// Its admin listener, as the bootstrap file says.
    pub admin: SocketAddr,
    /// More of its command line.
    pub arguments: Vec<String>,
    /// How long it may finish what it has when it is stopped.
    pub drain: Duration,
    /// Where its words go.
    pub output: Output,
}

/// Where the words of a process go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To our standard error; standard output belongs to the application.
    Stderr,
    /// To the end of a file.
    File(PathBuf),
}

/// What becomes of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Life {
    /// It runs, and serves nothing yet.
    Starting {
        /// Process id.
        pid: u32,
    },
    /// It serves.
    Ready {
        /// Process id.
        pid: u32,
        /// From its start.
        after: Duration,
    },
    /// It ended by itself and is started again.
    Down {
        /// How it ended.
        why: String,
        /// When it is started again.
        again_in: Duration,
    },
    /// It ended before it was ever ready; nothing starts it again.
    Failed {
        /// How it ended.
        why: String,
    },
    /// We ended it.
    Stopped,
}

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Drain,
    Now,
}

/// How a process ended that we ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It finished what it had, or there was nothing to end.
    Drained,
    /// It took too long and was killed.
    Killed,
}

/// A proxy process that is kept alive until [`Self::stop`]; dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    life: watch::Receiver<Life>,
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<Ending>,
}

impl Process {
    /// Starts it. The calling task must run on a thread that lives as long as the process (see [`tied`]).
    pub fn start(options: ProcessOptions) -> io::Result<Process> {
        let started = Started::spawn(&options)?;
        let (sender, life) = watch::channel(Life::Starting { pid: started.pid });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(supervise(options, started, sender, stopped));
        Ok(Process { life, stop, task })
    }

    /// What becomes of it: the present is seen, what comes is news.
    pub fn life(&self) -> watch::Receiver<Life> {
        let mut life = self.life.clone();
        life.mark_unchanged();
        life
    }

    /// Lets it finish what it has, for as long as its options say; then it is gone.
    pub async fn stop(self) -> Ending {
        self.end(Stop::Drain).await
    }

    /// Ends it at once.
    pub async fn kill(self) {
        self.end(Stop::Now).await;
    }

    async fn end(self, how: Stop) -> Ending {
        // If the task is at its end, there is nothing to stop.
        let _ = self.stop.send(how);
        self.task.await.unwrap_or(Ending::Drained)
    }
}

/// A process that runs.
struct Started {
    child: Child,
    pid: u32,
    /// The proxy ends when this does, should the tie be lost (a proxy with file capabilities).
    _stdin: Option<ChildStdin>,
}

async fn supervise(
    options: ProcessOptions,
    mut process: Started,
    life: watch::Sender<Life>,
    mut stop: oneshot::Receiver<Stop>,
) -> Ending {
    let mut backoff = Backoff::new(RESTART_FIRST, RESTART_MAX);
    let mut ever_ready = false;
    loop {
        let mut ready_for = None;
        let died = tokio::select! {
            died = live(&options, &mut process, &life, &mut ready_for) => died,
            // An error means that our handle was dropped.
            how = &mut stop => {
                let ending = end(process, how.unwrap_or(Stop::Now), options.drain).await;
                life.send_replace(Life::Stopped);
                return ending;
            }
        };
        ever_ready |= ready_for.is_some();
        if !ever_ready {
            life.send_replace(Life::Failed { why: died });
            return Ending::Drained;
        }
        if ready_for.is_some_and(|since: Instant| since.elapsed() >= HEALTHY_AFTER) {
            backoff.reset();
        }
        let mut why = died;
        process = loop {
            let again_in = backoff.next_wait();
            life.send_replace(Life::Down { why, again_in });
            tokio::select! {
                () = tokio::time::sleep(again_in) => {}
                _ = &mut stop => {
                    life.send_replace(Life::Stopped);
                    return Ending::Drained;
                }
            }
            match Started::spawn(&options) {
                Ok(started) => break started,
                Err(error) => why = format!("cannot be started: {error}"),
            }
        };
        life.send_replace(Life::Starting { pid: process.pid });
    }
}

/// One life, from its start to how it ended.
async fn live(
    options: &ProcessOptions,
    process: &mut Started,
    life: &watch::Sender<Life>,
    ready: &mut Option<Instant>,
) -> String {
    let started = Instant::now();
    let Started { child, pid, .. } = process;
    let exited = tokio::select! {
        status = child.wait() => Some(status),
        () = until_ready(options.admin) => None,
    };
    let status = match exited {
        Some(status) => status,
        None => {
            *ready = Some(Instant::now());
            life.send_replace(Life::Ready { pid: *pid, after: started.elapsed() });
            child.wait().await
        }
    };
    status.map_or_else(|error| format!("was lost: {error}"), describe)
}

async fn until_ready(admin: SocketAddr) {
    let mut pause = LOOK_FIRST;
    while !matches!(admin::ask(admin, "/ready").await, Ok((StatusCode::OK, _))) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// How a process ended, to follow its name.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

async fn end(mut process: Started, how: Stop, drain: Duration) -> Ending {
    let child = &mut process.child;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let Some(pid) = pid else { return Ending::Drained };
    // It is not reaped yet, so the id is still its own; an error means that it is about to be.
    if how == Stop::Drain && kill_process(pid, Signal::TERM).is_ok() {
        let drained = tokio::time::timeout(drain + DRAIN_GRACE, child.wait()).await;
        if drained.is_ok() {
            return Ending::Drained;
        }
    }
    // Ends and reaps it; an error means that it was already gone.
    let _ = child.kill().await;
    Ending::Killed
}

impl Started {
    fn spawn(options: &ProcessOptions) -> io::Result<Started> {
        let output = || -> io::Result<Stdio> {
            Ok(match &options.output {
                Output::Stderr => io::stderr().as_fd().try_clone_to_owned()?.into(),
                Output::File(file) => File::options().create(true).append(true).open(file)?.into(),
            })
        };
        let mut command = tied::command(&options.proxy);
        command.arg("-c").arg(&options.bootstrap).arg("--data-dir").arg(&options.data_dir);
        command.arg("--drain-timeout").arg(humantime::format_duration(options.drain).to_string());
        command.arg("--exit-on-stdin-eof").args(&options.arguments);
        command.stdin(Stdio::piped()).stdout(output()?).stderr(output()?);
        // Its own group: Ctrl-C in a terminal is for the application; the proxy goes when the application has gone.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = Command::from(command).kill_on_drop(true).spawn()?;
        let pid = child.id().ok_or(io::ErrorKind::NotFound)?;
        // Waiting for a child closes its input, so it is kept elsewhere.
        let _stdin = child.stdin.take();
        Ok(Started { child, pid, _stdin })
    }
}
