//! A control plane in this process, `ringway run` as a process, and what else the stories need.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ringway::ca::{SVID_LIFE_DEFAULT, TRUST_DOMAIN_DEFAULT};
use ringway::server::{LEASE, Options, Server};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{PATIENCE, Port, children_of, until, until_gone};

/// A control plane and a proxy.
pub(crate) struct Mesh {
    pub(crate) folder: TempDir,
    proxy: PathBuf,
    server: Option<Server>,
    runtime: Runtime,
    ports: RefCell<Vec<Port>>,
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
        // A file of the repository: one that this test wrote might still be open in a process that another test is just
        // starting, and such a file cannot be run.
        Mesh::with_proxy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run/proxy.sh"))
    }

    pub(crate) fn with_proxy(proxy: PathBuf) -> Mesh {
        Mesh::with_documents(proxy, "")
    }

    pub(crate) fn with_documents(proxy: PathBuf, documents: &str) -> Mesh {
        Mesh::with_svid_life(proxy, documents, SVID_LIFE_DEFAULT)
    }

    pub(crate) fn with_svid_life(proxy: PathBuf, documents: &str, svid_life: Duration) -> Mesh {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("mesh");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("mesh.yaml"), documents).unwrap();
        let runtime = Runtime::new().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let data_dir = folder.path().join("control");
        let options = Options {
            config,
            socket: folder.path().join("control.sock"),
            listen: Some(any),
            api: any,
            data_dir,
            lease: LEASE,
            trust_domain: TRUST_DOMAIN_DEFAULT.to_owned(),
            svid_life,
            authority: None,
        };
        let server = runtime.block_on(Server::start(options)).unwrap();
        Mesh { folder, proxy, server: Some(server), runtime, ports: RefCell::default() }
    }

    /// A port that is this mesh's as long as it lives.
    pub(crate) fn port(&self) -> u16 {
        let port = Port::any();
        let number = port.number();
        self.ports.borrow_mut().push(port);
        number
    }

    /// `ringway run` for service `web`; `options` win over the usual ones.
    pub(crate) fn command(&self, options: &[&str], app: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command.arg("run");
        let control = if options.contains(&"--control") { String::new() } else { self.control() };
        let port = self.port().to_string();
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
        command.env("STAND_IN", std::env::current_exe().unwrap());
        command.env("STAND_IN_VERSION", env!("CARGO_PKG_VERSION"));
        command
    }

    pub(crate) fn run(&self, options: &[&str], app: &[&str]) -> Run {
        Run::start(self.command(options, app), 0)
    }

    /// With an application that listens when it is told to.
    pub(crate) fn run_listener(&self, options: &[&str]) -> Run {
        self.run_listener_on(self.port(), options)
    }

    pub(crate) fn run_listener_on(&self, port: u16, options: &[&str]) -> Run {
        let number = port.to_string();
        let options = [&["--port", &number], options].concat();
        let mut command = self.stand_in(&options, "stand_in_for_an_application");
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
        format!("unix:{}", self.server().socket().display())
    }

    /// Where other machines connect to.
    pub(crate) fn hosts(&self) -> String {
        self.server().hosts().unwrap().to_string()
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> String {
        format!("http://{}", self.server().api())
    }

    /// Writes the documents anew.
    pub(crate) fn write(&self, documents: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, documents).unwrap();
        fs::rename(new, self.folder.path().join("mesh/mesh.yaml")).unwrap();
    }

    /// Until so many proxies have written down everything that they have now.
    pub(crate) fn until_stored(&self, count: usize) {
        // A file with the last change in it has all that came before. Routes come behind what they lead to, and only they
        // name the host.
        let last = "the-last-change";
        let host = format!("{last}.mesh");
        let (new, mesh) = (self.folder.path().join("new"), self.folder.path().join("mesh"));
        let document = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {last}, namespace: default}}\nspec: {{ports: [{{port: 80}}]}}\n"
        );
        fs::write(&new, document).unwrap();
        fs::rename(new, mesh.join("last.yaml")).unwrap();
        let has_it = |file: &PathBuf| {
            file.extension().is_some_and(|extension| extension == "bin")
                && fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&host))
        };
        let data = self.folder.path().join("data");
        until(|| files_below(&data).iter().filter(|file| has_it(file)).count() == count);
    }

    /// Whether a workload drains and every proxy serves with that knowledge.
    pub(crate) fn everyone_knows_who_drains(&self) -> bool {
        let world = self.server().worlds().borrow().clone();
        world.registrations.values().any(|registration| registration.draining)
            && self.server().proxies().status(0).synced
    }

    /// The app of each proxy that the control plane knows, whether it is there or offline.
    pub(crate) fn proxies(&self) -> Vec<String> {
        self.server().proxies().status(0).proxies.into_iter().map(|proxy| proxy.app).collect()
    }

    /// A number on the page of metrics of the proxy before a workload of default/`service`, added up over its labels.
    pub(crate) fn metric(&self, service: &str, name: &str) -> u64 {
        let app = format!("default/{service}");
        let proxies = self.server().proxies().status(0).proxies;
        let proxy = proxies.iter().find(|proxy| proxy.app == app).expect("it has a proxy");
        let mut stream = std::net::TcpStream::connect(&proxy.admin).unwrap();
        stream.write_all(b"GET /stats/prometheus HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
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
        until_gone(self.pid());
        self.child.wait().unwrap().code().unwrap_or(-1)
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
