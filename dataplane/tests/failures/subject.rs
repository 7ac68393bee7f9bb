//! What is tried: ringway-proxy on either driver, HAProxy, and a proxy of these tests that does everything wrong.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use socket2::Socket;
use tempfile::TempDir;

use crate::{
    broken,
    recorder::reserve,
    world::{TIMEOUT, World},
};

/// A proxy under trial.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Where it takes requests.
    pub(crate) address: SocketAddr,
    /// Where it takes bytes.
    pub(crate) tcp: Option<SocketAddr>,
    /// It leads to all of the world, not only to the first origin.
    pub(crate) has_routes: bool,
    /// How long its clients wait for what comes next.
    pub(crate) patience: Duration,
    /// Inputs are also cut at every byte, and what it does must be what the rows say, not only safe.
    pub(crate) is_thorough: bool,
    process: Option<Process>,
}

/// A child process with what it said.
struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
    /// Descriptors that it holds when nobody is connected.
    descriptors_idle: usize,
    _ports: Vec<Socket>,
}

impl Subject {
    /// `ringway-proxy` with one worker on this driver; an error when the driver is not what it runs on.
    pub(crate) fn ringway(io: &'static str, world: &World) -> Subject {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let admin = folder.path().join("admin.sock");
        let file = folder.path().join("bootstrap.yaml");
        fs::write(&file, bootstrap(&admin, world)).expect("a temporary file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-proxy"));
        command.arg("-c").arg(&file).arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--workers", "1", "--no-pin", "--io", io, "--exit-on-stdin-eof"]);
        let (mut process, lines) = Process::start(command, folder, Vec::new());
        while !lines.recv_timeout(PATIENCE).expect("ready in time").contains("control_thread: ready") {}
        let page = ask(&admin, "/listeners").expect("an admin listener");
        let address = |name: &str| {
            let found = page.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
            found.unwrap_or_else(|| panic!("no {name} in {page}"))
        };
        process.descriptors_idle = process.descriptors();
        let name = if io == "epoll" { "ringway epoll" } else { "ringway io_uring" };
        Subject {
            name,
            address: address("in::"),
            tcp: Some(address("tcp::")),
            has_routes: true,
            patience: PATIENCE,
            is_thorough: true,
            process: Some(process),
        }
    }

    /// HAProxy 2.8 as `deploy/setup.sh` fetches it.
    pub(crate) fn haproxy(world: &World) -> Subject {
        let program = cache().join("peers/bin/haproxy");
        assert!(program.exists(), "no {}: deploy/setup.sh test fetches it", program.display());
        let folder = tempfile::tempdir().expect("a temporary folder");
        // It listens beside these, as SO_REUSEADDR allows.
        let [(first, address), (second, tcp)] = [reserve(), reserve()];
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, haproxy_config(address, tcp, world)).expect("a temporary file");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        let (process, _) = Process::start(command, folder, vec![first, second]);
        while std::net::TcpStream::connect(address).is_err() {
            thread::park_timeout(Duration::from_millis(2));
        }
        Subject {
            name: "haproxy 2.8",
            address,
            tcp: Some(tcp),
            has_routes: true,
            patience: HASTE,
            is_thorough: false,
            process: Some(process),
        }
    }

    /// The proxy of these tests that does everything wrong.
    pub(crate) fn broken(world: &World) -> Subject {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let origin = world.origin.address;
        thread::spawn(move || broken::run(&listener, origin));
        Subject {
            name: "broken",
            address,
            tcp: None,
            has_routes: false,
            patience: HASTE / 4,
            is_thorough: false,
            process: None,
        }
    }

    /// What is wrong with the process itself, of whose connections only `upstream` are open: it ended, panicked, does not
    /// answer its admin listener, or keeps descriptors or memory.
    pub(crate) fn trouble(&mut self, upstream: usize) -> Option<String> {
        let process = self.process.as_mut()?;
        if let Some(status) = process.child.try_wait().expect("a child") {
            return Some(format!("it ended: {status}"));
        }
        let said = process.said.lock().expect("no reader panics");
        if let Some(line) = said.iter().find(|line| line.contains("panicked")) {
            return Some(line.clone());
        }
        if !self.is_thorough {
            return None;
        }
        match ask(&process.folder.path().join("admin.sock"), "/ready") {
            Some(page) if page.contains("LIVE") => {}
            page => return Some(format!("it is not ready: {page:?}")),
        }
        let allowed = process.descriptors_idle + upstream;
        let until = Instant::now() + PATIENCE;
        while process.descriptors() > allowed {
            if Instant::now() > until {
                let (count, idle) = (process.descriptors(), process.descriptors_idle);
                return Some(format!("{count} descriptors, {idle} of its own and {upstream} connections"));
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        let kib = process.resident_kib();
        (kib > RESIDENT_KIB_MAX).then(|| format!("{kib} KiB of memory"))
    }

    /// Ends it; what it said when that was not a clean end.
    pub(crate) fn stop(mut self) -> Option<String> {
        let mut process = self.process.take()?;
        let pid = Pid::from_raw(process.child.id().cast_signed()).expect("a process");
        // It may have ended by itself, which its status tells.
        let _ = kill_process(pid, Signal::TERM);
        let status = process.child.wait().expect("a child");
        let is_clean = status.success() || !self.is_thorough;
        (!is_clean).then(|| format!("{status}: {:?}", process.said.lock().expect("no reader panics").last()))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

/// How long a client waits for Ringway: longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client waits for the others, which are seen to leave one waiting.
const HASTE: Duration = Duration::from_millis(600);
/// What the process may hold after all these trials: a debug build idles at a third of it.
const RESIDENT_KIB_MAX: usize = 96 * 1024;

impl Process {
    fn start(mut command: Command, folder: TempDir, ports: Vec<Socket>) -> (Process, Receiver<String>) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let said = Arc::<Mutex<Vec<String>>>::default();
        let (sender, lines) = channel();
        let (stderr, to) = (child.stderr.take().expect("piped"), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                to.lock().expect("no reader panics").push(line.clone());
                // Nobody listens any more once it is ready.
                let _ = sender.send(line);
            }
        });
        (Process { child, said, folder, descriptors_idle: 0, _ports: ports }, lines)
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = |line: &str| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok();
        status.lines().find_map(kib).unwrap_or_default()
    }
}

/// GET on the admin listener.
fn ask(admin: &Path, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(admin).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn cache() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository");
    std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from)
}

/// The bootstrap of Ringway.
fn bootstrap(admin: &Path, world: &World) -> String {
    let timeout = TIMEOUT.as_secs_f32();
    let endpoint = |address: &SocketAddr| {
        let (ip, port) = (address.ip(), address.port());
        format!("{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}")
    };
    let cluster = |name: &str, addresses: &[SocketAddr]| {
        let endpoints: Vec<String> = addresses.iter().map(endpoint).collect();
        let endpoints = endpoints.join(", ");
        format!(
            "  - {{name: {name}, type: STATIC, connect_timeout: {timeout}s, load_assignment: {{cluster_name: {name}, \
             endpoints: [{{lb_endpoints: [{endpoints}]}}]}}}}\n"
        )
    };
    let clusters = [
        cluster("origin", &[world.origin.address]),
        cluster("three", &world.three.each_ref().map(|origin| origin.address)),
        cluster("mute", &[world.mute.address]),
        cluster("refused", &[world.refused.1]),
        cluster("tcp", &[world.tcp.address]),
    ];
    let (admin, clusters) = (admin.display(), clusters.concat());
    format!(
        r#"
admin: {{address: {{pipe: {{path: {admin}}}}}}}
static_resources:
  listeners:
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: tcp
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{prefix: /silent}}, route: {{cluster: origin, timeout: {timeout}s}}}}
              - {{match: {{prefix: /three}}, route: {{cluster: three}}}}
              - {{match: {{prefix: /mute}}, route: {{cluster: mute}}}}
              - {{match: {{prefix: /refused}}, route: {{cluster: refused}}}}
              - {{match: {{prefix: /}}, route: {{cluster: origin}}}}
  clusters:
{clusters}"#
    )
}

/// The same for HAProxy.
fn haproxy_config(address: SocketAddr, tcp: SocketAddr, world: &World) -> String {
    let ms = TIMEOUT.as_millis();
    let [first, second, third] = world.three.each_ref().map(|origin| origin.address);
    let (origin, mute, refused) = (world.origin.address, world.mute.address, world.refused.1);
    let behind_tcp = world.tcp.address;
    format!(
        "global
  nbthread 1
defaults
  mode http
  timeout connect {ms}ms
  timeout client 10s
  timeout server 10s
  retries 0
  http-reuse always
frontend in
  bind {address}
  use_backend silent if {{ path_beg /silent }}
  use_backend three if {{ path_beg /three }}
  use_backend mute if {{ path_beg /mute }}
  use_backend refused if {{ path_beg /refused }}
  default_backend origin
backend origin
  server origin {origin}
backend silent
  timeout server {ms}ms
  server origin {origin}
backend three
  server first {first}
  server second {second}
  server third {third}
backend mute
  server mute {mute}
backend refused
  server refused {refused}
frontend tcp
  mode tcp
  bind {tcp}
  default_backend tcp
backend tcp
  mode tcp
  server tcp {behind_tcp}
"
    )
}
