//! A proxy as a child process: what it said, what it holds, what its admin listener tells.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::TempDir;

/// A running proxy, killed when dropped.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    /// What it says from now on.
    lines: Mutex<Receiver<String>>,
    stdout: Mutex<Option<ChildStdout>>,
    pub(crate) folder: TempDir,
    /// Descriptors that it holds when nobody is connected.
    pub(super) descriptors_idle: usize,
}

impl Process {
    /// Starts it under `runner`, a program that changes what it may and then becomes it.
    pub(super) fn start(command: &Command, runner: &[String], folder: TempDir) -> Process {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let mut words = runner.iter().map(AsRef::as_ref).chain(words);
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{runner:?} {command:?}: {error}"));
        let said = Arc::<Mutex<Vec<String>>>::default();
        let (sender, lines) = channel();
        let (stderr, to) = (child.stderr.take().expect("piped"), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                to.lock().expect("no reader panics").push(line.clone());
                // Nobody listens any more when it is about to be killed.
                let _ = sender.send(line);
            }
        });
        let stdout = Mutex::new(child.stdout.take());
        Process { child, said, lines: Mutex::new(lines), stdout, folder, descriptors_idle: 0 }
    }

    /// Waits until it says this, and gives the line; an error with all that it said when it does not.
    pub(crate) fn says(&self, text: &str, patience: Duration) -> Result<String, String> {
        let lines = self.lines.lock().expect("no reader panics");
        let until = Instant::now() + patience;
        loop {
            match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(_) => return Err(format!("{text:?} was not said, but {:?}", self.said())),
            }
        }
    }

    /// All that it said.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.lock().expect("no reader panics").clone()
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a process")
    }

    /// Its standard output, which nobody reads otherwise.
    pub(crate) fn take_stdout(&self) -> ChildStdout {
        self.stdout.lock().expect("nobody panics").take().expect("taken once")
    }

    pub(super) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Tells it to end and waits until it has.
    pub(super) fn end(&mut self) -> ExitStatus {
        // It may have ended by itself, which its status tells.
        let _ = kill_process(self.id(), Signal::TERM);
        self.child.wait().expect("a child")
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Changes how many descriptors it may have from now on; gives what it might before.
    pub(crate) fn limit_descriptors(&self, most: u64) -> u64 {
        let limit = |current| Rlimit { current: Some(current), maximum: self.descriptors_limit().maximum };
        let before = prlimit(Some(self.id()), Resource::Nofile, limit(most)).expect("a child of ours");
        before.current.unwrap_or(u64::MAX)
    }

    fn descriptors_limit(&self) -> Rlimit {
        let text = fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap_or_default();
        let words = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
        let mut numbers = words.split_whitespace().map(|word| word.parse().ok());
        Rlimit { current: numbers.next().flatten(), maximum: numbers.next().flatten() }
    }

    pub(crate) fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = |line: &str| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok();
        status.lines().find_map(kib).unwrap_or_default()
    }

    /// Where its admin listener is, if it has one.
    pub(super) fn admin(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// GET on the admin listener.
    pub(crate) fn ask(&self, path: &str, patience: Duration) -> Option<String> {
        ask(&self.admin(), path, patience)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(admin: &Path, path: &str, patience: Duration) -> Option<String> {
    let mut stream = UnixStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
