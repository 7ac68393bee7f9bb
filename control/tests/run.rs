//! `ringway run` as its users see it: a real process with a real control plane, a stand-in for the proxy that is this
//! very executable, and applications that are shell one-liners.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
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

#[test]
fn the_exit_code_is_the_applications() {
    let mesh = Mesh::start();
    for (app, code) in [
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -9 $$"], 128 + 9),
        (vec!["true"], 0),
        (vec!["/nowhere/my-app"], 127),
        (vec!["/etc/passwd"], 126),
    ] {
        let mut run = mesh.run(&[], &app);
        assert_eq!(run.wait(), code, "{app:?}: {}", run.rest());
    }
}

#[test]
fn the_application_is_told_where_the_mesh_is() {
    let mesh = Mesh::start();
    let script = "echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy $RINGWAY_PAY_80_ADDR $RINGWAY_BIG_LEDGER_SHOP_7000_ADDR";
    let local = free_port();
    let to = format!("big-ledger.shop:7000={local}");
    let mut run = mesh.run(&["--to", "pay:80", "--to", &to], &["sh", "-c", script]);
    assert_eq!(run.wait(), 0, "{}", run.rest());
    let mut told = String::new();
    run.child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    let told: Vec<&str> = told.split_whitespace().collect();
    let [upper, lower, no_upper, no_lower, pay, ledger] = told[..] else { panic!("{told:?}") };
    assert!(upper.starts_with("http://127.0.0.1:"), "{told:?}");
    assert_eq!((upper, no_upper), (lower, no_lower));
    assert_eq!(no_upper, "localhost,127.0.0.1,::1");
    assert!(pay.starts_with("127.0.0.1:") && pay != ledger, "{told:?}");
    assert_eq!(ledger, format!("127.0.0.1:{local}"));
}

#[test]
fn an_endpoint_takes_requests_only_while_the_application_accepts() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    run.until("registered");
    assert!(!mesh.registration("web").ready, "ready before its port accepts");
    run.say("listen");
    run.until("taking requests");
    mesh.until(|registered| registered.get("web").is_some_and(|web| web.ready));
    run.say("end");
    assert_eq!(run.wait(), 0, "{}", run.rest());
    mesh.until(HashMap::is_empty);
}

#[test]
fn a_signal_to_end_reaches_the_mesh_first_and_then_the_application() {
    let mesh = Mesh::start();
    let mut run = mesh.run(&[], &["sh", "-c", "trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done"]);
    let mut line = String::new();
    let mut stdout = BufReader::new(run.child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    mesh.until(|registered| registered.contains_key("web"));
    run.signal(Signal::TERM);
    mesh.until(|registered| registered.get("web").is_none_or(|web| web.draining));
    assert_eq!(run.wait(), 42, "{}", run.rest());
}

#[test]
fn a_dead_proxy_is_started_again_on_the_same_ports() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    run.say("listen");
    run.until("taking requests");
    mesh.until(|registered| registered.get("web").is_some_and(|web| web.ready));
    let before = mesh.registration("web");
    let first = run.proxy();
    kill_process(first, Signal::KILL).unwrap();
    run.until("was killed by signal 9; starting it again");
    run.until("proxy ready again");
    assert_ne!(run.proxy(), first);
    assert_eq!(mesh.registration("web"), before, "the outage changed the registration");
    // The stand-in listens where its bootstrap file says that the inbound listener is.
    drop(std::net::TcpStream::connect(before.address).unwrap());
    run.say("end");
    assert_eq!(run.wait(), 0, "{}", run.rest());
}

#[test]
fn nothing_outlives_a_killed_ringway() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    run.say("listen");
    run.until("taking requests");
    mesh.until(|registered| registered.contains_key("web"));
    let children = children_of(run.pid());
    assert_eq!(children.len(), 2, "the application and the proxy");
    let inbound = mesh.registration("web").address;
    run.signal(Signal::KILL);
    assert_eq!(run.wait(), -1);
    for child in children {
        until(|| is_gone(child));
    }
    drop(TcpListener::bind(inbound).expect("the port is free again"));

    // The next one takes over name and ports instead of fighting with the lease that still holds.
    let mut next = mesh.run_listener(&["--port", &run.port.to_string()]);
    next.until("registered");
    assert_eq!(mesh.registration("web").address, inbound);
    next.say("end");
    assert_eq!(next.wait(), 0, "{}", next.rest());
}

#[test]
fn nothing_is_left_when_the_application_has_ended() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    run.say("listen");
    run.until("taking requests");
    let children = children_of(run.pid());
    run.say("end");
    assert_eq!(run.wait(), 0, "{}", run.rest());
    assert!(children.into_iter().all(is_gone));
    mesh.until(HashMap::is_empty);
    let left = files_below(&mesh.folder.path().join("data/run"));
    let names: Vec<_> = left.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(names, ["lock", "sidecar.json"]);
}

#[test]
fn what_cannot_work_is_said_and_nothing_is_started() {
    let mesh = Mesh::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let nobody = format!("127.0.0.1:{}", free_port());
    let away = ["--control", &nobody, "--control-timeout", "200ms"];
    for (options, never_ready, code, said) in [
        (&["--port", &port][..], false, 125, "is taken: stop what listens there"),
        (
            &["--to", "pay:80", "--to", "pay:80=81"],
            false,
            125,
            "two dependencies would both be RINGWAY_PAY_80_ADDR",
        ),
        (&["--proxy-bin", "/etc/passwd"], false, 125, "cannot run /etc/passwd --version: Permission denied"),
        (&away, true, 125, &format!("no control plane at {nobody} for 200ms: Connection refused")),
        (&["--control-timeout", "200ms"], true, 125, "the proxy was not ready within 200ms"),
        (&["--ready-timeout", "100ms"], false, 125, "nothing accepts on 127.0.0.1:"),
        (&["--control", "10.0.0.1:1"], false, 2, "10.0.0.1:1 is not on this machine"),
        (&["--to", "pay=1"], false, 2, "expected SERVICE:PORT or SERVICE:PORT=LOCALPORT"),
        (&["--label", "x"], false, 2, "expected KEY=VALUE"),
        (&["--name", "Web"], false, 2, "not a DNS label"),
    ] {
        let mut command = mesh.command(options, &["sleep", "60"]);
        if never_ready {
            command.env("STAND_IN_IS", "never ready");
        }
        let mut run = Run::start(command, 0);
        assert_eq!(run.wait(), code, "{options:?}");
        let rest = run.rest();
        assert!(rest.contains(said), "{options:?}: {said:?} not in {rest}");
    }
}

#[test]
fn an_application_starts_without_a_control_plane_when_the_proxy_is_ready_without() {
    let mesh = Mesh::start();
    let nobody = format!("127.0.0.1:{}", free_port());
    let mut run = mesh.run(&["--control", &nobody], &["sh", "-c", "read line; exit 3"]);
    run.until("the control plane is away (Connection refused");
    run.say("end");
    assert_eq!(run.wait(), 3, "{}", run.rest());
}

/// Not a test: what the proxy script becomes. Without its variable it does nothing.
#[test]
fn stand_in_for_the_proxy() {
    let Some(file) = std::env::var_os("STAND_IN_FOR_PROXY") else { return };
    let text = fs::read_to_string(file).unwrap();
    let bootstrap: serde_json::Value = serde_json::from_str(&text).unwrap();
    let admin = &bootstrap["admin"]["address"]["socket_address"];
    let admin = format!("{}:{}", admin["address"].as_str().unwrap(), admin["port_value"]);
    let inbound = bootstrap["node"]["metadata"]["ringway"]["inbound"].as_str().unwrap();
    let _inbound = TcpListener::bind(inbound).unwrap();
    let admin = TcpListener::bind(admin).unwrap();
    let answer = match std::env::var_os("STAND_IN_IS") {
        None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        Some(_) => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    };
    loop {
        let (mut stream, _) = admin.accept().unwrap();
        let mut head = [0; 1024];
        let _ = stream.read(&mut head);
        let _ = stream.write_all(answer.as_bytes());
    }
}

/// Not a test: an application that listens when told to, and ends when told to.
#[test]
fn stand_in_for_an_application() {
    let Some(port) = std::env::var_os("STAND_IN_FOR_APPLICATION") else { return };
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    let listener = (lines.next().as_deref() == Some("listen"))
        .then(|| TcpListener::bind(format!("127.0.0.1:{}", port.to_str().unwrap())).unwrap());
    if listener.is_some() {
        lines.next();
    }
}

/// A control plane without documents, and a proxy that is none.
struct Mesh {
    folder: TempDir,
    server: Server,
    _runtime: Runtime,
}

/// What the control plane knows of a workload.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    address: SocketAddr,
    ready: bool,
    draining: bool,
}

impl Mesh {
    fn start() -> Mesh {
        let folder = tempfile::tempdir().unwrap();
        let proxy = folder.path().join("ringway-proxy");
        let this = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec echo ringway-proxy {}\nSTAND_IN_FOR_PROXY=$2 exec {} --exact \
             stand_in_for_the_proxy --nocapture\n",
            env!("CARGO_PKG_VERSION"),
            this.display()
        );
        fs::write(&proxy, script).unwrap();
        fs::set_permissions(&proxy, fs::Permissions::from_mode(0o755)).unwrap();
        let config = folder.path().join("mesh");
        fs::create_dir(&config).unwrap();
        let runtime = Runtime::new().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let data_dir = folder.path().join("control");
        let options = Options { config, listen: Listen::Tcp(any), api: any, data_dir, lease: LEASE };
        let server = runtime.block_on(Server::start(options)).unwrap();
        Mesh { folder, server, _runtime: runtime }
    }

    /// `ringway run` for service `web`; `options` win over the usual ones.
    fn command(&self, options: &[&str], app: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("run");
        let control = self.server.listen().to_string();
        let port = free_port().to_string();
        let proxy = self.folder.path().join("ringway-proxy");
        for (option, value) in [
            ("--name", "web"),
            ("--port", &port),
            ("--control", &control),
            ("--proxy-bin", proxy.to_str().unwrap()),
        ] {
            if !options.contains(&option) {
                command.args([option, value]);
            }
        }
        command.arg("--data-dir").arg(self.folder.path().join("data")).args(options).arg("--").args(app);
        command
    }

    fn run(&self, options: &[&str], app: &[&str]) -> Run {
        Run::start(self.command(options, app), 0)
    }

    /// With an application that listens when it is told to.
    fn run_listener(&self, options: &[&str]) -> Run {
        let port = match options {
            ["--port", port] => port.parse().unwrap(),
            _ => free_port(),
        };
        let this = std::env::current_exe().unwrap();
        let app = [this.to_str().unwrap(), "--exact", "stand_in_for_an_application", "--nocapture"];
        let mut command = self.command(&["--port", &port.to_string()], &app);
        command.env("STAND_IN_FOR_APPLICATION", port.to_string());
        Run::start(command, port)
    }

    fn registered(&self) -> HashMap<String, Known> {
        let world = self.server.worlds().borrow().clone();
        let known = world.registrations.values().map(|registration| {
            let (ready, draining) = (registration.ready, registration.draining);
            (registration.service.clone(), Known { address: registration.address, ready, draining })
        });
        known.collect()
    }

    fn registration(&self, service: &str) -> Known {
        self.registered().remove(service).expect("the service is registered")
    }

    fn until(&self, mut is_so: impl FnMut(&HashMap<String, Known>) -> bool) {
        let mut worlds = self.server.worlds();
        self._runtime.block_on(async {
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
struct Run {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    port: u16,
}

impl Run {
    fn start(mut command: Command, port: u16) -> Run {
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
    fn until(&mut self, part: &str) {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            let found = line.contains(part);
            self.seen.push(line);
            if found {
                return;
            }
        }
        panic!("no {part:?} in {:#?}", self.seen);
    }

    /// Everything on standard error, to its end.
    fn rest(&mut self) -> String {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its exit code, -1 if a signal killed it.
    fn wait(&mut self) -> i32 {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    fn proxy(&self) -> Pid {
        let is_proxy = |pid: &Pid| {
            let arguments = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains("stand_in_for_the_proxy")
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
fn until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain");
        std::thread::yield_now();
    }
}

fn children_of(parent: Pid) -> Vec<Pid> {
    let file = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let children = fs::read_to_string(file).unwrap();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// A process that has ended and waits for its parent's question is gone, too.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
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
