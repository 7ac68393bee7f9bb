//! A control plane in this process, `ringway run` as a process, and what else the stories need.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringway::server::{LEASE, Listen, Options, Server};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Nothing here takes this long; it bounds a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane and a proxy.
pub(crate) struct Mesh {
    pub(crate) folder: TempDir,
    proxy: PathBuf,
    server: Option<Server>,
    runtime: Runtime,
}

/// What the control plane knows of a workload.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    pub(crate) address: SocketAddr,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
}

impl Mesh {
    /// With a proxy that carries nothing.
    pub(crate) fn start() -> Mesh {
        let mesh = Mesh::with_proxy(PathBuf::new());
        let proxy = mesh.folder.path().join("ringway-proxy");
        let this = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec echo ringway-proxy {}\nSTAND_IN_FOR_PROXY=$2 exec {} --exact \
             stand_in::stand_in_for_the_proxy --nocapture\n",
            env!("CARGO_PKG_VERSION"),
            this.display()
        );
        fs::write(&proxy, script).unwrap();
        fs::set_permissions(&proxy, fs::Permissions::from_mode(0o755)).unwrap();
        Mesh { proxy, ..mesh }
    }

    pub(crate) fn with_proxy(proxy: PathBuf) -> Mesh {
        Mesh::with_documents(proxy, "")
    }

    pub(crate) fn with_documents(proxy: PathBuf, documents: &str) -> Mesh {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mesh");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("mesh.yaml"), documents).unwrap();
        let runtime = Runtime::new().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let data_dir = folder.path().join("control");
        let options = Options { config, listen: Listen::Tcp(any), api: any, data_dir, lease: LEASE };
        let server = runtime.block_on(Server::start(options)).unwrap();
        Mesh { folder, proxy, server: Some(server), runtime }
    }

    /// `ringway run` for service `web`; `options` win over the usual ones.
    pub(crate) fn command(&self, options: &[&str], app: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("run");
        let control = if options.contains(&"--control") { String::new() } else { self.control() };
        let port = free_port().to_string();
        for (option, value) in [
            ("--name", "web"),
            ("--port", &port),
            ("--control", &control),
            ("--proxy-bin", self.proxy.to_str().unwrap()),
        ] {
            if !options.contains(&option) {
                command.args([option, value]);
            }
        }
        command.arg("--data-dir").arg(self.folder.path().join("data")).args(options).arg("--").args(app);
        command
    }

    pub(crate) fn run(&self, options: &[&str], app: &[&str]) -> Run {
        Run::start(self.command(options, app), 0)
    }

    /// With an application that listens when it is told to.
    pub(crate) fn run_listener(&self, options: &[&str]) -> Run {
        let port = match options {
            ["--port", port] => port.parse().unwrap(),
            _ => free_port(),
        };
        let mut command = self.stand_in(&["--port", &port.to_string()], "stand_in_for_an_application");
        command.env("STAND_IN_FOR_APPLICATION", port.to_string());
        Run::start(command, port)
    }

    /// `ringway run` with this executable as the application.
    pub(crate) fn stand_in(&self, options: &[&str], which: &str) -> Command {
        let this = std::env::current_exe().unwrap();
        let which = format!("stand_in::{which}");
        self.command(options, &[this.to_str().unwrap(), "--exact", &which, "--nocapture"])
    }

    /// `ringway gateway`.
    pub(crate) fn gateway(&self, gateway: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.args(["gateway", gateway, "--bind", "127.0.0.1", "--admin", "127.0.0.1:0"]);
        command.args(["--control", &self.control()]).arg("--proxy-bin").arg(&self.proxy);
        command.arg("--data-dir").arg(self.folder.path().join("data"));
        command
    }

    /// Ends it; proxies and workloads go on alone.
    pub(crate) fn stop_control_plane(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }

    /// Where it is.
    pub(crate) fn control(&self) -> String {
        self.server().listen().to_string()
    }

    /// Until so many proxies have written down what they have.
    pub(crate) fn until_stored(&self, count: usize) {
        let is_last_good = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "bin");
        until(|| {
            files_below(&self.folder.path().join("data")).iter().filter(|file| is_last_good(file)).count()
                == count
        });
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("the control plane runs")
    }

    pub(crate) fn registered(&self) -> HashMap<String, Known> {
        let world = self.server().worlds().borrow().clone();
        let known = world.registrations.values().map(|registration| {
            let (ready, draining) = (registration.ready, registration.draining);
            (registration.service.clone(), Known { address: registration.address, ready, draining })
        });
        known.collect()
    }

    pub(crate) fn registration(&self, service: &str) -> Known {
        self.registered().remove(service).expect("the service is registered")
    }

    pub(crate) fn until(&self, mut is_so: impl FnMut(&HashMap<String, Known>) -> bool) {
        let mut worlds = self.server().worlds();
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                while !is_so(&self.registered()) {
                    worlds.changed().await.unwrap();
                }
            })
            .await
            .unwrap_or_else(|_| panic!("still {:?}", self.registered()));
        });
    }
}

/// A running `ringway run`.
pub(crate) struct Run {
    pub(crate) child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    pub(crate) port: u16,
}

impl Run {
    pub(crate) fn start(mut command: Command, port: u16) -> Run {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Run { child, lines, seen: Vec::new(), port }
    }

    /// Waits for a line on standard error.
    pub(crate) fn until(&mut self, part: &str) -> String {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
        panic!("no {part:?} in {:#?}", self.seen);
    }

    /// Everything on standard error, to its end.
    pub(crate) fn rest(&mut self) -> String {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.write(&format!("{line}\n"));
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its input.
    pub(crate) fn close(&mut self) {
        self.child.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its exit code, -1 if a signal killed it.
    pub(crate) fn wait(&mut self) -> i32 {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    pub(crate) fn proxy(&self) -> Pid {
        let is_proxy = |pid: &Pid| {
            let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments);
            arguments.contains("stand_in_for_the_proxy") || arguments.contains("bootstrap.json")
        };
        children_of(self.pid()).into_iter().find(is_proxy).expect("the proxy runs")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It has ended unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again: the kernel tells nobody but a parent.
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain");
        std::thread::yield_now();
    }
}

pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    let file = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let children = fs::read_to_string(file).unwrap();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// A process that has ended and waits for its parent's question is gone, too.
pub(crate) fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path)),
            path => files.push(path),
        }
    }
    files.sort();
    files
}
