//! Subjects measured beside one another, on equal work.
//!
//! Each round starts every subject anew in random order, one of them twice (that pair shows what a difference must
//! exceed to be one). The subject has one core for itself, origin and load share another. First equal work is proved,
//! then each workload is warmed up and measured: processor time of all threads of the subject from the kernel, divided
//! by the requests the origin counted. A single error ends the comparison: there are no numbers for wrong answers.

mod count;
mod proof;
mod report;
mod subject;
mod workload;

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::report::Record;
use self::subject::{Place, Programs, Subject};
use self::workload::Workload;
use crate::load::{self, Outcome, Until};
use crate::origin::{self, Counts};
use crate::process::{self, Memory, Process};

/// Measures subjects beside one another.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["get-32", "get-128"])]
    workload: Vec<Workload>,
    #[arg(long, value_delimiter = ',', value_name = "[NAME=]KIND[@PROGRAM]",
          default_values = ["ringway", "ringway-epoll", "haproxy", "nginx", "envoy", "relay"],
          help = "ringway, ringway-epoll, haproxy, nginx, envoy, relay, direct; another build of one: new=ringway@PATH")]
    subjects: Vec<Subject>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    #[arg(long, default_value_t = 3.0, help = "How long each measurement takes, in seconds")]
    seconds: f64,
    #[arg(long, default_value_t = 1.0, help = "How long each is warmed up, in seconds")]
    warm: f64,
    #[arg(long, default_value_t = 3000.0, help = "Requests per second of the workload `open`")]
    rate: f64,
    #[arg(long, default_value_t = 1, help = "Prefix routes in the configuration; the last one is hit")]
    routes: usize,
    #[arg(
        long,
        value_name = "NAME",
        help = "The subject that ratios are to, measured twice in each round [default: haproxy, else the first]"
    )]
    baseline: Option<String>,
    #[arg(long, default_value_t = 0, help = "The subject's core")]
    proxy_core: usize,
    #[arg(long, default_value_t = 1, help = "The core of origin and load")]
    load_core: usize,
    #[arg(long, default_value = "target/release/ringway-proxy")]
    ringway_proxy: PathBuf,
    #[arg(long, default_value = ".cache/peers/bin", help = "The folder with envoy, haproxy and nginx")]
    peers: PathBuf,
    #[arg(long, help = "Seed of the order; printed, so that an order can be had again")]
    seed: Option<u64>,
    #[arg(
        long,
        value_name = "SUBJECT",
        help = "Count this subject's instructions per request instead, under valgrind"
    )]
    callgrind: Option<Subject>,
    #[arg(
        long,
        value_name = "SUBJECT",
        help = "Count this subject's system calls per request instead, under strace"
    )]
    syscalls: Option<Subject>,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{subject} could not be started from {program}: {source}", program = program.display())]
    Start { subject: String, program: PathBuf, source: io::Error },
    #[error("{subject} gave no good answer within {waited:?}; it said:\n{said}")]
    NotReady { subject: String, waited: Duration, said: String },
    #[error("{subject} ended before it was ready; it said:\n{said}")]
    Ended { subject: String, said: String },
    #[error("{subject} does not do the same work: {source}")]
    Unequal { subject: String, source: proof::Difference },
    #[error("{subject}, {workload}: {errors} errors beside {answers} good answers")]
    Wrong { subject: String, workload: &'static str, errors: u64, answers: u64 },
    #[error("{subject}, {workload}: the origin counted {counted} requests, the load {answers} answers")]
    Miscounted { subject: String, workload: &'static str, counted: u64, answers: u64 },
    #[error(
        "{subject}, {workload}: {opened} upstream connections for {downstream} downstream ones, no keep-alive"
    )]
    NoKeepAlive { subject: String, workload: &'static str, opened: u64, downstream: usize },
    #[error("no subject is called {name}; there are: {subjects}")]
    NoBaseline { name: String, subjects: String },
    #[error("two subjects are called {name}; give one another name: NAME=KIND[@PROGRAM]")]
    SameName { name: String },
    #[error("{tool} gave no count for {subject}")]
    NoCount { subject: String, tool: &'static str },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Longest time from start to the first good answer.
const READY_MAX: Duration = Duration::from_secs(20);
/// Pause before memory is read: what a program does after its start is done.
const SETTLE: Duration = Duration::from_millis(500);
/// Upstream connections may be this many times the downstream ones before keep-alive is doubted: one each, and those
/// that were idle for a moment when their neighbour asked.
const UPSTREAM_PER_DOWNSTREAM_MAX: u64 = 2;

/// Measures and prints, as the arguments say.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    let bench = Bench::start(arguments)?;
    if let Some(subject) = &arguments.callgrind {
        return count::instructions(&bench, subject);
    }
    if let Some(subject) = &arguments.syscalls {
        return count::system_calls(&bench, subject);
    }
    let seed = arguments.seed.unwrap_or_else(clock_seed);
    let mut order = Order { state: seed };
    let baseline = baseline_of(arguments)?;
    let mut subjects: Vec<(&Subject, String)> =
        arguments.subjects.iter().map(|s| (s, s.name.clone())).collect();
    subjects.push((baseline, report::twin_of(&baseline.name)));
    print_json(&bench.conditions(seed)?)?;
    let mut records = Vec::new();
    for round in 0..arguments.rounds {
        order.shuffle(&mut subjects);
        for (subject, name) in &subjects {
            eprintln!("round {} of {}: {name}", round + 1, arguments.rounds);
            let mut running = bench.launch(subject, &[])?;
            for workload in &arguments.workload {
                let record = bench.measure(&mut running, *workload, name, round)?;
                print_json(&record)?;
                records.push(record);
            }
        }
    }
    eprintln!("{}", report::table(&records, &baseline.name));
    Ok(())
}

/// The subject that ratios are to. Names are what records are told apart by, so each must be there once.
fn baseline_of(arguments: &Arguments) -> Result<&Subject, Error> {
    let subjects = &arguments.subjects;
    for (number, subject) in subjects.iter().enumerate() {
        if subjects[..number].iter().any(|other| other.name == subject.name) {
            return Err(Error::SameName { name: subject.name.clone() });
        }
    }
    let named = |name: &str| subjects.iter().find(|subject| subject.name == name);
    let found = match &arguments.baseline {
        Some(name) => named(name),
        None => named("haproxy").or(subjects.first()),
    };
    found.ok_or_else(|| Error::NoBaseline {
        name: arguments.baseline.clone().unwrap_or_default(),
        subjects: subjects.iter().map(|subject| subject.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// All that the subjects share: the origin, the folder for their files, where their programs are.
struct Bench<'a> {
    arguments: &'a Arguments,
    programs: Programs,
    origin: SocketAddr,
    counts: Arc<Counts>,
    /// Goes with everything in it when the comparison ends.
    folder: tempfile::TempDir,
    /// Of the machine, also those that this process was not given.
    cores_count: usize,
}

/// A subject that has proved that it does the work.
struct Running {
    subject: Subject,
    /// `None` when there is nothing between load and origin.
    process: Option<Process>,
    address: SocketAddr,
    memory: Memory,
    ready: Duration,
}

impl<'a> Bench<'a> {
    fn start(arguments: &'a Arguments) -> io::Result<Self> {
        let cores_count = std::thread::available_parallelism().map_or(1, usize::from);
        process::pin_to(arguments.load_core)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let origin = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        // It inherits this thread's core, and ends with the process.
        std::thread::spawn(move || {
            if let Err(error) = origin::serve(&listener, &theirs) {
                eprintln!("bench: the origin failed: {error}");
            }
        });
        let programs = Programs {
            ringway_proxy: std::path::absolute(&arguments.ringway_proxy)?,
            peers: std::path::absolute(&arguments.peers)?,
        };
        let folder = tempfile::Builder::new().prefix("ringway-bench-").tempdir()?;
        Ok(Self { arguments, programs, origin, counts, folder, cores_count })
    }

    /// Starts a subject behind `wrapper` (a program and its arguments, or nothing), waits until it answers and proves
    /// that its work is equal.
    fn launch(&self, subject: &Subject, wrapper: &[String]) -> Result<Running, Error> {
        let folder = self.folder.path().join(&subject.name);
        fs::create_dir_all(&folder)?;
        let place = Place {
            folder: folder.clone(),
            listen: free_address()?,
            admin: free_address()?,
            origin: self.origin,
            routes_count: self.arguments.routes,
        };
        let mut running = Running {
            subject: subject.clone(),
            process: None,
            address: place.listen,
            memory: Memory::default(),
            ready: Duration::ZERO,
        };
        let Some(program) = subject.program(&self.programs)? else {
            running.address = self.origin;
            return Ok(running);
        };
        let words: Vec<String> = wrapper
            .iter()
            .cloned()
            .chain([program.to_string_lossy().into_owned()])
            .chain(subject.kind.configure(&place)?)
            .collect();
        let said = fs::File::create(subject::log_path(&folder))?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let started = Instant::now();
        let mut process =
            Process::start(&mut command, self.arguments.proxy_core, self.arguments.load_core)
                .map_err(|source| Error::Start { subject: subject.name.clone(), program, source })?;
        // Under valgrind everything takes some fifty times as long.
        let ready_max = if wrapper.is_empty() { READY_MAX } else { READY_MAX * 10 };
        while !proof::answers(place.listen) {
            let said = || fs::read_to_string(subject::log_path(&folder)).unwrap_or_default();
            if process.has_ended()? {
                return Err(Error::Ended { subject: subject.name.clone(), said: said() });
            }
            if started.elapsed() > ready_max {
                let (subject, waited) = (subject.name.clone(), started.elapsed());
                return Err(Error::NotReady { subject, waited, said: said() });
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        running.ready = started.elapsed();
        std::thread::sleep(SETTLE);
        running.memory = process.memory()?;
        running.process = Some(process);
        proof::prove(subject.kind, place.listen)
            .map_err(|source| Error::Unequal { subject: subject.name.clone(), source })?;
        Ok(running)
    }

    /// Puts one workload on a running subject, first to warm it up, then to measure.
    fn measure(
        &self,
        running: &mut Running,
        workload: Workload,
        name: &str,
        round: usize,
    ) -> Result<Record, Error> {
        let time = |seconds: f64| Until::Elapsed(Duration::from_secs_f64(seconds));
        self.put_load(running, workload, time(self.arguments.warm))?;
        let before = running.process.as_ref().map(Process::processor_time).transpose()?;
        let (requests_before, connections_before) = (self.counts.requests(), self.counts.connections());
        let outcome = self.put_load(running, workload, time(self.arguments.seconds))?;
        let after = running.process.as_ref().map(Process::processor_time).transpose()?;
        let requests = self.counts.requests() - requests_before;
        let opened = self.counts.connections() - connections_before;
        let connections_count = workload.load(self.origin, self.arguments.rate, time(0.0)).connections_count;
        let (subject, workload_name) = (running.subject.name.clone(), workload.name());
        if requests != outcome.answers {
            let (counted, answers) = (requests, outcome.answers);
            return Err(Error::Miscounted { subject, workload: workload_name, counted, answers });
        }
        if running.subject.kind.speaks_http()
            && opened > UPSTREAM_PER_DOWNSTREAM_MAX * connections_count as u64
        {
            let downstream = connections_count;
            return Err(Error::NoKeepAlive { subject, workload: workload_name, opened, downstream });
        }
        let cpu = before.zip(after).map(|(before, after)| after.since(&before));
        Ok(Record {
            subject: name.to_owned(),
            workload,
            round,
            requests,
            seconds: outcome.elapsed.as_secs_f64(),
            cpu_us_per_request: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests as f64),
            p50_us: outcome.latency_us(0.5),
            p99_us: outcome.latency_us(0.99),
            p999_us: outcome.latency_us(0.999),
            upstream_connections: opened,
            idle_rss_kb: running.memory.rss_kb,
            idle_pss_kb: running.memory.pss_kb,
            ready_ms: running.ready.as_secs_f64() * 1e3,
        })
    }

    /// Puts load on a running subject; errors in it are errors of the comparison.
    fn put_load(&self, running: &Running, workload: Workload, until: Until) -> Result<Outcome, Error> {
        let outcome = load::run(&workload.load(running.address, self.arguments.rate, until))?;
        if outcome.errors > 0 || outcome.answers == 0 {
            let (subject, workload) = (running.subject.name.clone(), workload.name());
            return Err(Error::Wrong { subject, workload, errors: outcome.errors, answers: outcome.answers });
        }
        Ok(outcome)
    }

    /// What a reader needs to judge the numbers.
    fn conditions(&self, seed: u64) -> Result<serde_json::Value, Error> {
        let mut versions = serde_json::Map::new();
        let mut work = serde_json::Map::new();
        for subject in &self.arguments.subjects {
            let version = subject.version(&self.programs).map_err(|source| {
                let program = subject.program(&self.programs).ok().flatten().unwrap_or_default();
                Error::Start { subject: subject.name.clone(), program, source }
            })?;
            versions.insert(subject.name.clone(), version.into());
            let running = self.launch(subject, &[])?;
            let seen = proof::prove(subject.kind, running.address)
                .map_err(|source| Error::Unequal { subject: subject.name.clone(), source })?;
            work.insert(subject.name.clone(), serde_json::json!(seen));
        }
        let commit =
            Command::new("git").args(["describe", "--always", "--dirty"]).stderr(Stdio::null()).output();
        let commit = commit.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
        Ok(serde_json::json!({
            "conditions": {
                "commit": commit,
                "kernel": read_first_line(Path::new("/proc/sys/kernel/osrelease")),
                "processor": processor(),
                "cores": self.cores_count,
                // Beside two pinned cores, anything above 2 is somebody else's work in the numbers.
                "load_average": read_first_line(Path::new("/proc/loadavg")),
                "seed": seed,
                "rounds": self.arguments.rounds,
                "seconds": self.arguments.seconds,
                "routes": self.arguments.routes,
                "rate_of_open": self.arguments.rate,
                "versions": versions,
                "headers_seen": work,
            }
        }))
    }
}

/// The order of subjects: a permutation per round from a seed (splitmix64 and Fisher–Yates).
struct Order {
    state: u64,
}

impl Order {
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn clock_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|t| t.as_nanos() as u64).unwrap_or(0)
}

/// A loopback address whose port was free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn print_json(value: &impl serde::Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)
}

fn read_first_line(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("").to_owned()
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_and_comes_again_from_its_seed() {
        let shuffled = |seed| {
            let mut items: Vec<u32> = (0..20).collect();
            Order { state: seed }.shuffle(&mut items);
            items
        };
        let mut sorted = shuffled(7);
        assert_eq!(sorted, shuffled(7));
        assert_ne!(sorted, shuffled(8));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<u32>>());
    }
}
