//! The stand the subjects are measured on: cores, descriptors, the origin; and how one is started there.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bench::origin::{self, Counts};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use super::config::{self, Place};
use super::plan::{Origin, Plan};
use super::subject::{Kind, Programs, Subject};
use super::workload::Setup;
use super::{Arguments, Error, proof};
use crate::process::{self, Memory, Process};

/// Longest time from start to the first good answer.
const READY_MAX: Duration = Duration::from_secs(20);
/// Pause before memory is read: what a program does after its start is done.
const SETTLE: Duration = Duration::from_millis(500);
/// Descriptors that a process of ours or of a subject's may need beside those of idle connections.
const OTHER_DESCRIPTORS: u64 = 1000;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// All that the subjects share.
pub(super) struct Stand<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) programs: Programs,
    pub(super) origin: Origin,
    pub(super) counts: Arc<Counts>,
    /// Goes with everything in it when the comparison ends.
    pub(super) folder: tempfile::TempDir,
    /// Where subjects run.
    subject_cores: Vec<usize>,
    /// Where the load runs, and the origin.
    load_cores: Vec<usize>,
    /// Of the machine, also those that this process was not given.
    pub(super) cores_count: usize,
    /// Descriptors that each process may have.
    descriptors_max: u64,
    launched: AtomicU64,
}

/// A subject that has proved that it does the work.
pub(super) struct Running {
    pub(super) subject: Subject,
    /// `None` when there is nothing between load and origin.
    pub(super) process: Option<Process>,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) plan: Plan,
    pub(super) memory: Memory,
    pub(super) ready: Duration,
}

/// Who runs on which cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cores {
    /// The subject has one for itself, origin and load share another.
    Apart,
    /// All are on the load's. Then the subject runs only while the load waits, and what a turn of a loop finds does not
    /// depend on how fast anybody is: for counts of instructions.
    Together,
    /// All are on both, so that no worker of a subject has a core that is busier than another's.
    Mixed,
}

impl<'a> Stand<'a> {
    pub(super) fn start(arguments: &'a Arguments, cores: Cores) -> io::Result<Self> {
        let cores_count = process::cores_count()?;
        let (proxy, load) = (arguments.proxy_core, arguments.load_core);
        let (subject_cores, load_cores) = match cores {
            Cores::Apart => (vec![proxy], vec![load]),
            Cores::Together => (vec![load], vec![load]),
            Cores::Mixed => (vec![proxy, load], vec![proxy, load]),
        };
        process::pin_to(&load_cores)?;
        // Subjects inherit it.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let everywhere = listen_on_all_of_loopback()?;
        let origin = Origin { plain: listener.local_addr()?, many: everywhere.local_addr()?.port() };
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        // It inherits this thread's cores, and ends with the process.
        std::thread::spawn(move || {
            if let Err(error) = origin::serve(&[listener, everywhere], &theirs) {
                eprintln!("bench: the origin failed: {error}");
            }
        });
        Ok(Self {
            arguments,
            programs: Programs {
                ringway_proxy: std::path::absolute(&arguments.ringway_proxy)?,
                peers: std::path::absolute(&arguments.peers)?,
                relay_on_glommio: std::path::absolute(&arguments.relay_on_glommio)?,
            },
            origin,
            counts,
            folder: tempfile::Builder::new().prefix("ringway-bench-").tempdir()?,
            subject_cores,
            load_cores,
            cores_count,
            descriptors_max: limit.maximum.unwrap_or(u64::MAX),
            launched: AtomicU64::new(0),
        })
    }

    /// Idle connections that a kind can hold, at most as many as are asked for. This process has one descriptor for each,
    /// the subject another; the relay has a second one, to the origin, which has one more here; HAProxy reserves a second
    /// one whether it is used or not.
    pub(super) fn idle_connections(&self, kind: Kind) -> usize {
        let each =
            if matches!(kind, Kind::Relay | Kind::Glommio | Kind::Haproxy | Kind::Direct) { 2 } else { 1 };
        let room = self.descriptors_max.saturating_sub(OTHER_DESCRIPTORS) / each;
        self.arguments.idle.min(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Starts a subject for a setup behind `wrapper` (a program and its arguments, or nothing), waits until it answers and
    /// proves that its work is equal.
    pub(super) fn launch(
        &self,
        subject: &Subject,
        setup: Setup,
        wrapper: &[String],
    ) -> Result<Running, Error> {
        process::pin_to(&self.load_cores)?;
        let number = self.launched.fetch_add(1, Relaxed);
        let folder = self.folder.path().join(format!("{}-{number}", subject.name));
        fs::create_dir_all(&folder)?;
        // A hundred more than are idle for those that are not.
        let connections_max = self.idle_connections(subject.kind) + 100;
        let plan = Plan::new(setup, self.origin, self.arguments.routes, connections_max);
        let workers = if setup == Setup::Workers { self.arguments.workers } else { 1 };
        let place =
            Place { folder: folder.clone(), listen: free_address()?, admin: free_address()?, workers };
        let mut running = Running {
            subject: subject.clone(),
            process: None,
            address: place.listen,
            admin: place.admin,
            plan,
            memory: Memory::default(),
            ready: Duration::ZERO,
        };
        let Some(program) = subject.program(&self.programs)? else {
            running.address = self.origin.plain;
            return Ok(running);
        };
        let words: Vec<String> = wrapper
            .iter()
            .cloned()
            .chain([program.to_string_lossy().into_owned()])
            .chain(config::write(subject.kind, &place, &running.plan)?)
            .collect();
        let log = folder.join("said.txt");
        let said = fs::File::create(&log)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let started = Instant::now();
        let mut process = Process::start(&mut command, &self.subject_cores, &self.load_cores)
            .map_err(|source| Error::Start { subject: subject.name.clone(), program, source })?;
        // Under valgrind everything takes some fifty times as long.
        let ready_max = if wrapper.is_empty() { READY_MAX } else { READY_MAX * 10 };
        wait_until_ready(&running, &mut process, &log, started + ready_max)?;
        running.ready = started.elapsed();
        std::thread::sleep(SETTLE);
        running.memory = process.memory()?;
        running.process = Some(process);
        proof::prove(subject.kind, running.address, &running.plan)
            .map_err(|source| Error::Unequal { subject: subject.name.clone(), source })?;
        Ok(running)
    }

    /// What a reader needs to judge the numbers.
    pub(super) fn conditions(&self, seed: u64) -> Result<serde_json::Value, Error> {
        let mut versions = serde_json::Map::new();
        let mut work = serde_json::Map::new();
        for subject in &self.arguments.subjects {
            let version = subject.version(&self.programs).map_err(|source| {
                let program = subject.program(&self.programs).ok().flatten().unwrap_or_default();
                Error::Start { subject: subject.name.clone(), program, source }
            })?;
            versions.insert(subject.name.clone(), version.into());
            let running = self.launch(subject, Setup::One, &[])?;
            let seen = proof::prove(subject.kind, running.address, &running.plan)
                .map_err(|source| Error::Unequal { subject: subject.name.clone(), source })?;
            work.insert(subject.name.clone(), serde_json::json!(seen));
        }
        Ok(serde_json::json!({
            "conditions": {
                "commit": commit(),
                "kernel": read_first_line(Path::new("/proc/sys/kernel/osrelease")),
                "processor": processor(),
                "cores": self.cores_count,
                "descriptors": self.descriptors_max,
                // Beside two pinned cores, anything above 2 is somebody else's work in the numbers.
                "load_average": read_first_line(Path::new("/proc/loadavg")),
                "seed": seed,
                "rounds": self.arguments.rounds,
                "seconds": self.arguments.seconds,
                "routes": self.arguments.routes,
                "versions": versions,
                "headers_seen": work,
            }
        }))
    }
}

fn wait_until_ready(
    running: &Running,
    process: &mut Process,
    log: &Path,
    until: Instant,
) -> Result<(), Error> {
    let began = Instant::now();
    while !proof::answers(running.address, &running.plan) {
        let said = || fs::read_to_string(log).unwrap_or_default();
        if process.has_ended()? {
            return Err(Error::Ended { subject: running.subject.name.clone(), said: said() });
        }
        if Instant::now() > until {
            let (subject, waited) = (running.subject.name.clone(), began.elapsed());
            return Err(Error::NotReady { subject, waited, said: said() });
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// A listener on every address of 127.0.0.0/8 and on none that others could reach.
fn listen_on_all_of_loopback() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind_device(Some(b"lo"))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A loopback address whose port was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// What is measured, as git calls it.
pub(super) fn commit() -> String {
    let described =
        Command::new("git").args(["describe", "--always", "--dirty"]).stderr(Stdio::null()).output();
    described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn read_first_line(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("").to_owned()
}

/// The name of the processor.
pub(super) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}
