//! How evenly the workers of a subject share what comes to them.
//!
//! Load, origin and subject have all cores together, so that no worker has a core that others use more than another's.
//! Connections that stay come one after another, while those before them are already in use: a subject that looks at what
//! its workers do when it gives a connection to one has something to look at. What a worker did is its processor time; a
//! wait is none of it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use bench::load::request::{self, Random};
use bench::load::{self, Load, Outcome, Pace, Until};

use super::record::{Record, Workers};
use super::stand::{Running, Stand};
use super::subject::Kind;
use super::workload::Workload;
use super::{Error, shuffle};
use crate::process::ProcessorTime;

/// Requests per second of all connections together, where nobody says another number: both of two cores have time left
/// with any of the subjects, so that no connection gets less than its rate.
const RATE: f64 = 8000.0;
/// Time between two connections that stay.
const APART: Duration = Duration::from_millis(150);
/// What each of eight uneven connections does of the whole.
const UNEVEN: [f64; 8] = [8.0, 4.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0];

/// Measures for the time that the arguments say, once all connections are there and warm.
pub(super) fn measure(
    stand: &Stand<'_>,
    running: &Running,
    workload: Workload,
    name: &str,
    round: usize,
) -> Result<Record, Error> {
    let measured = Duration::from_secs_f64(stand.arguments.seconds);
    let loads = loads(stand, running, workload, round);
    let settled = APART * loads.len() as u32 + Duration::from_secs_f64(stand.arguments.warm);
    let begun = stand.read(running)?;
    let (outcome, before, after, said) = thread::scope(|scope| {
        let started: Vec<_> = (0..)
            .zip(&loads)
            .map(|(number, load)| {
                let until = Until::Elapsed(settled + measured - APART * number);
                scope.spawn(move || {
                    thread::sleep(APART * number);
                    load::run(&Load { until, ..load.clone() })
                })
            })
            .collect();
        thread::sleep(settled);
        let before = stand.read(running)?;
        let said_before = Said::of(running)?;
        thread::sleep(measured);
        let after = stand.read(running)?;
        // By now the last requests are being answered and connections end, so those are of the beginning.
        let requests = Said::of(running)?.requests_since(&said_before);
        let said = Said { requests, ..said_before };
        let mut all = Outcome::default();
        for load in started {
            all.add(&load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok::<_, io::Error>((all, before, after, said))
    })?;
    stand.refuse_errors(running, workload, &outcome)?;
    let ended = stand.read(running)?;
    let opened = ended.connections - begun.connections;
    stand.check(running, workload, &outcome, ended.requests_since(&begun), opened)?;
    let requests = after.requests_since(&before);
    let used = |after: &ProcessorTime, before: &ProcessorTime| {
        (after.since(before), workers_of(running, after, before))
    };
    let (cpu, cpu_ms) = match (&after.processor_time, &before.processor_time) {
        (Some(after), Some(before)) => used(after, before),
        _ => (Duration::ZERO, Vec::new()),
    };
    // Those that do not stay say nothing.
    let connections = said.connections.filter(|_| workload != Workload::WorkersShort);
    Ok(Record {
        subject: name.to_owned(),
        workload: workload.name(),
        round,
        requests,
        seconds: measured.as_secs_f64(),
        others: after.others_since(&before, stand.cores_count),
        cpu_us_per_request: Some(cpu.as_secs_f64() * 1e6 / requests as f64),
        latency: (&outcome).into(),
        added: None,
        upstream_connections: opened,
        idle: None,
        workers: Some(Workers { cpu_ms, connections, requests: said.requests }),
        idle_rss_kb: running.memory.rss_kb,
        idle_pss_kb: running.memory.pss_kb,
        ready_ms: running.ready.as_secs_f64() * 1e3,
    })
}

/// One load for each connection that stays, in the order in which they come. That is another one in each round, and the
/// same for all subjects of a round.
fn loads(stand: &Stand<'_>, running: &Running, workload: Workload, round: usize) -> Vec<Load> {
    let load = workload.load(running.address, &running.plan, Until::Requests(0));
    let rate = stand.arguments.rate.unwrap_or(RATE);
    let mut shares = match workload {
        Workload::WorkersShort => return vec![Load { pace: Pace::Open(rate / 2.0), ..load }],
        Workload::WorkersUneven => UNEVEN,
        _ => [1.0; UNEVEN.len()],
    };
    shuffle(&mut Random { state: round as u64 }, &mut shares);
    let unit = rate / shares.iter().sum::<f64>();
    let of_share =
        |share: &f64| Load { connections_count: 1, pace: Pace::Open(unit * share), ..load.clone() };
    shares.iter().map(of_share).collect()
}

/// Milliseconds that each worker used.
fn workers_of(running: &Running, after: &ProcessorTime, before: &ProcessorTime) -> Vec<f64> {
    let threads = running.process.as_ref().zip(running.subject.kind.worker_threads());
    let threads = threads.map(|(process, prefix)| process.threads_named(prefix)).unwrap_or_default();
    threads.iter().map(|thread| after.of_thread_since(*thread, before).as_secs_f64() * 1e3).collect()
}

/// What the workers say of themselves.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    /// Downstream connections.
    connections: Option<Vec<u64>>,
    /// Requests so far.
    requests: Option<Vec<u64>>,
}

impl Said {
    fn of(running: &Running) -> io::Result<Self> {
        Ok(match running.subject.kind {
            Kind::Ringway | Kind::RingwayEpoll => Self::on_cores_page(&page(running.admin, "/cores")?),
            Kind::Envoy => Self::in_stats(&page(running.admin, "/stats?filter=worker_.*cx_active")?),
            _ => Self::default(),
        })
    }

    fn on_cores_page(page: &str) -> Self {
        let json = page.find('{').zip(page.rfind('}')).and_then(|(from, to)| page.get(from..=to));
        let page: serde_json::Value =
            json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let of_each =
            |field: &str| page["cores"].as_array()?.iter().map(|core| core[field].as_u64()).collect();
        Self { connections: of_each("connections"), requests: of_each("requests") }
    }

    /// Of lines like `listener.127.0.0.1_80.worker_0.downstream_cx_active: 4`.
    fn in_stats(page: &str) -> Self {
        let lines = page.lines().filter(|line| line.contains(".worker_"));
        let connections =
            lines.filter_map(|line| line.split_once("downstream_cx_active: ")?.1.trim().parse().ok());
        Self { connections: Some(connections.collect()), requests: None }
    }

    fn requests_since(&self, earlier: &Self) -> Option<Vec<u64>> {
        let both = self.requests.as_ref()?.iter().zip(earlier.requests.as_ref()?);
        Some(both.map(|(now, then)| now - then).collect())
    }
}

/// A page of a subject's admin listener, its head included.
fn page(admin: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.write_all(&request::last_on_its_connection(path))?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_read_from_what_each_subject_says_of_them() {
        let cores = "HTTP/1.1 200 OK\r\n\r\n{\"cores\": [{\"connections\": 3, \"requests\": 7}, \
                     {\"connections\": 5, \"requests\": 9}]}\n";
        let said = Said { connections: Some(vec![3, 5]), requests: Some(vec![7, 9]) };
        assert_eq!(Said::on_cores_page(cores), said);
        assert_eq!(Said::on_cores_page("HTTP/1.1 503 No\r\n\r\n"), Said::default());
        let earlier = Said { requests: Some(vec![1, 2]), ..Said::default() };
        assert_eq!(said.requests_since(&earlier), Some(vec![6, 7]));
        let stats = "HTTP/1.1 200 OK\r\n\r\n\
                     listener.127.0.0.1_1.worker_0.downstream_cx_active: 4\r\n\
                     listener.127.0.0.1_1.worker_1.downstream_cx_active: 2\r\n\
                     listener.admin.main_thread.downstream_cx_active: 1\r\n";
        assert_eq!(Said::in_stats(stats).connections, Some(vec![4, 2]));
    }
}
