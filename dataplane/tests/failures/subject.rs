//! What is tried: ringway-proxy on either driver, HAProxy, and a proxy of these tests that does everything wrong.

mod config;
mod process;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use socket2::Socket;

pub(crate) use self::process::Process;
use crate::{broken, recorder::reserve, world::World};

/// Which proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    IoUring,
    Epoll,
    /// HAProxy 2.8 as `deploy/setup.sh` fetches it.
    Haproxy,
    /// The proxy of these tests that does everything wrong.
    Broken,
}

/// What a row wants of a proxy of its own.
#[derive(Clone, Default)]
pub(crate) struct Setting {
    /// A program that changes what the proxy may and then becomes it, with its arguments.
    pub(crate) runner: Vec<String>,
    /// How long it waits for a downstream, whatever it waits for, and for the end of an exchange.
    pub(crate) wait: Option<Duration>,
    /// Where it logs requests.
    pub(crate) access_log: Option<PathBuf>,
    /// How many workers, in place of one.
    pub(crate) workers: Option<usize>,
    /// Clusters beside those of the world, each behind the path of its name: name, and what follows it in a bootstrap.
    pub(crate) clusters: Vec<(String, String)>,
}

/// A proxy under trial.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// Where it takes requests.
    pub(crate) address: SocketAddr,
    /// Where it takes bytes.
    pub(crate) tcp: Option<SocketAddr>,
    /// How long its clients wait for what comes next.
    pub(crate) patience: Duration,
    pub(crate) process: Process,
    _ports: Vec<Socket>,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::IoUring => "ringway io_uring",
            Kind::Epoll => "ringway epoll",
            Kind::Haproxy => "haproxy 2.8",
            Kind::Broken => "broken",
        }
    }

    /// It leads to all of the world, not only to the first origin.
    pub(crate) fn has_routes(self) -> bool {
        self != Kind::Broken
    }

    /// Inputs are also cut at every byte, and what it does must be what the rows say, not only safe.
    pub(crate) fn is_thorough(self) -> bool {
        matches!(self, Kind::IoUring | Kind::Epoll)
    }

    /// Whether it can be had so: the others know only what these rows compare.
    pub(crate) fn can_be(self, setting: &Setting) -> bool {
        let is_plain = setting.workers.is_none() && setting.clusters.is_empty();
        match self {
            Kind::IoUring | Kind::Epoll => true,
            Kind::Haproxy => is_plain && setting.access_log.is_none(),
            Kind::Broken => is_plain,
        }
    }
}

impl Subject {
    /// Starts it and waits until it takes requests.
    pub(crate) fn start(kind: Kind, setting: &Setting, world: &World) -> Subject {
        match kind {
            Kind::IoUring => Subject::ringway(kind, "io_uring", setting, world),
            Kind::Epoll => Subject::ringway(kind, "epoll", setting, world),
            Kind::Haproxy => Subject::haproxy(setting, world),
            Kind::Broken => Subject::broken(setting, world),
        }
    }

    fn ringway(kind: Kind, io: &str, setting: &Setting, world: &World) -> Subject {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bootstrap.yaml");
        let text = config::bootstrap(&folder.path().join("admin.sock"), setting, world);
        fs::write(&file, text).expect("a temporary file");
        // Another build of it, where one is named.
        let program = std::env::var_os("RINGWAY_PROXY");
        let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_ringway-proxy").into()));
        command.arg("-c").arg(&file).arg("--data-dir").arg(folder.path().join("data"));
        command.args(["--no-pin", "--io", io, "--exit-on-stdin-eof"]);
        command.arg("--workers").arg(setting.workers.unwrap_or(1).to_string());
        if let Some(path) = &setting.access_log {
            command.arg("--access-log").arg(path);
        }
        let mut process = Process::start(&command, &setting.runner, folder);
        process.says("control_thread: ready", PATIENCE).expect("ready in time");
        let page = process.ask("/listeners", PATIENCE).expect("an admin listener");
        let address = |name: &str| {
            let found = page.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
            found.unwrap_or_else(|| panic!("no {name} in {page}"))
        };
        process.descriptors_idle = process.descriptors();
        let (address, tcp) = (address("in::"), Some(address("tcp::")));
        Subject { kind, address, tcp, patience: PATIENCE, process, _ports: Vec::new() }
    }

    fn haproxy(setting: &Setting, world: &World) -> Subject {
        let program = cache().join("peers/bin/haproxy");
        assert!(program.exists(), "no {}: deploy/setup.sh test fetches it", program.display());
        let folder = tempfile::tempdir().expect("a temporary folder");
        // It listens beside these, as SO_REUSEADDR allows.
        let [(first, address), (second, tcp)] = [reserve(), reserve()];
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, config::haproxy(address, tcp, setting, world)).expect("a temporary file");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::start(&command, &setting.runner, folder);
        while TcpStream::connect(address).is_err() {
            thread::park_timeout(Duration::from_millis(2));
        }
        let _ports = vec![first, second];
        Subject { kind: Kind::Haproxy, address, tcp: Some(tcp), patience: HASTE, process, _ports }
    }

    fn broken(setting: &Setting, world: &World) -> Subject {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(broken::ARGUMENT).arg(world.origin.address.to_string());
        command.arg(folder.path().join("admin.sock")).args(&setting.access_log);
        let process = Process::start(&command, &setting.runner, folder);
        let line = process.says(broken::LISTENING, PATIENCE).expect("it listens in time");
        let address = line.strip_prefix(broken::LISTENING).and_then(|address| address.parse().ok());
        let (kind, address) = (Kind::Broken, address.expect("an address"));
        Subject { kind, address, tcp: None, patience: HASTE / 4, process, _ports: Vec::new() }
    }

    /// The sum of its metrics of this name; 0 where it has none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let value = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            labels.starts_with('{').then(|| value.parse::<f64>().ok()).flatten()
        };
        self.process
            .ask("/stats/prometheus", self.patience)
            .unwrap_or_default()
            .lines()
            .filter_map(value)
            .sum()
    }

    /// Waits until this holds; whether it does.
    pub(crate) fn soon(&self, mut holds: impl FnMut(&Subject) -> bool) -> bool {
        let until = Instant::now() + self.patience;
        while !holds(self) {
            if Instant::now() > until {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        true
    }

    /// What is wrong with the process itself, of whose connections only `upstream` are open: it ended, panicked, does not
    /// answer its admin listener, or keeps descriptors or memory.
    pub(crate) fn trouble(&mut self, upstream: usize) -> Option<String> {
        if let Some(status) = self.process.status() {
            return Some(format!("it ended: {status}"));
        }
        if let Some(line) = self.process.said().into_iter().find(|line| line.contains("panicked")) {
            return Some(line);
        }
        if !self.kind.is_thorough() {
            return None;
        }
        match self.process.ask("/ready", PATIENCE) {
            Some(page) if page.contains("LIVE") => {}
            page => return Some(format!("it is not ready: {page:?}")),
        }
        let idle = self.process.descriptors_idle;
        if !self.soon(|subject| subject.process.descriptors() <= idle + upstream) {
            let count = self.process.descriptors();
            return Some(format!("{count} descriptors, {idle} of its own and {upstream} connections"));
        }
        let kib = self.process.resident_kib();
        (kib > RESIDENT_KIB_MAX).then(|| format!("{kib} KiB of memory"))
    }

    /// Ends it; what it said when that was not a clean end.
    pub(crate) fn stop(mut self) -> Option<String> {
        let status = self.process.end();
        let is_clean = status.success() || !self.kind.is_thorough();
        (!is_clean).then(|| format!("{status}: {:?}", self.process.said().last()))
    }
}

/// How long a client waits for Ringway: longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client waits for the others, which are seen to leave one waiting.
const HASTE: Duration = Duration::from_millis(600);
/// What the process may hold after all these trials: a debug build idles at a third of it.
const RESIDENT_KIB_MAX: usize = 96 * 1024;

fn cache() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository");
    std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from)
}
