//! One workload on a running subject: warm up, measure, and refuse a measurement with an error in it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bench::load::{self, Load, Outcome, Pace, Until, request};
use bench::message;

use super::balance;
use super::record::{Added, Idle, Record};
use super::stand::{Running, Stand};
use super::workload::{Setup, Workload};
use super::{Error, Wrong};
use crate::process::{self, Process, ProcessorTime};

/// Upstream connections may be this many times the downstream ones before keep-alive is doubted: one each, and those
/// that were idle for a moment when their neighbour asked.
const UPSTREAM_PER_DOWNSTREAM_MAX: u64 = 2;
/// Pause before the memory of idle connections is read.
const SETTLE: Duration = Duration::from_secs(1);
/// The good status, the only one.
const GOOD: u16 = 200;

impl Stand<'_> {
    /// Puts one workload on a running subject, first to warm it up, then to measure.
    pub(super) fn measure(
        &self,
        running: &Running,
        workload: Workload,
        name: &str,
        round: usize,
    ) -> Result<Record, Error> {
        if workload.setup() == Setup::Workers {
            return balance::measure(self, running, workload, name, round);
        }
        // They stay open until the measurement is over.
        let held = self.hold_idle(running, workload)?;
        let idle = if held.is_empty() { None } else { Some(idle_memory(running, held.len())?) };
        let warm = workload.load(running.address, &running.plan, elapsed(self.arguments.warm));
        let before = self.read(running)?;
        let warmed = self.put(running, workload, &warm)?;
        let capacity = self.read(running)?.requests_since(&before) as f64 / warmed.elapsed.as_secs_f64();
        let mut load = Load { until: elapsed(self.arguments.seconds), ..warm };
        if workload == Workload::Latency {
            load.pace = Pace::Open(self.arguments.rate.unwrap_or(capacity * self.arguments.share));
        }
        let before = self.read(running)?;
        let outcome = self.put(running, workload, &load)?;
        let after = self.read(running)?;
        let requests = after.requests_since(&before);
        let opened = after.connections - before.connections;
        self.check(running, workload, &outcome, requests, opened)?;
        let direct = match workload {
            Workload::Latency => {
                Some(self.put(running, workload, &Load { target: self.origin.plain, ..load.clone() })?)
            }
            _ => None,
        };
        let cpu = after.processor_time.as_ref().zip(before.processor_time.as_ref());
        let cpu = cpu.map(|(after, before)| after.since(before));
        Ok(Record {
            subject: name.to_owned(),
            workload: workload.name(),
            round,
            requests,
            seconds: outcome.elapsed.as_secs_f64(),
            others: after.others_since(&before, self.cores_count),
            cpu_us_per_request: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / requests as f64),
            latency: (&outcome).into(),
            added: direct.map(|direct| Added::new(&outcome, &direct, capacity, load.pace)),
            upstream_connections: opened,
            idle,
            workers: None,
            idle_rss_kb: running.memory.rss_kb,
            idle_pss_kb: running.memory.pss_kb,
            ready_ms: running.ready.as_secs_f64() * 1e3,
        })
    }

    /// Puts load on a running subject, or beside it; errors in it are errors of the comparison.
    pub(super) fn put(&self, running: &Running, workload: Workload, load: &Load) -> Result<Outcome, Error> {
        let outcome = load::run(load)?;
        self.refuse_errors(running, workload, &outcome)?;
        Ok(outcome)
    }

    /// An error of a load on a subject is one of the comparison.
    pub(super) fn refuse_errors(
        &self,
        running: &Running,
        workload: Workload,
        outcome: &Outcome,
    ) -> Result<(), Error> {
        if !outcome.is_all(GOOD) || outcome.answers == 0 {
            return Err(wrong(running, workload, Wrong::Answers(outcome.statuses.clone(), outcome.errors)));
        }
        if outcome.closed_by_peer > 0 {
            return Err(wrong(running, workload, Wrong::Closed(outcome.closed_by_peer)));
        }
        Ok(())
    }

    /// What the origin counted must be what the load counted, and upstream connections must have been kept.
    pub(super) fn check(
        &self,
        running: &Running,
        workload: Workload,
        outcome: &Outcome,
        requests: u64,
        opened: u64,
    ) -> Result<(), Error> {
        if requests != outcome.answers {
            return Err(wrong(running, workload, Wrong::Miscounted { requests, answers: outcome.answers }));
        }
        // Some use an upstream connection for one request at a time, whatever it speaks.
        let downstream = workload.connections_count() * workload.streams_count();
        let is_kept = opened <= UPSTREAM_PER_DOWNSTREAM_MAX * downstream as u64;
        let must_keep = running.subject.kind.speaks_http() && workload.keeps_upstream_connections();
        if must_keep && !is_kept {
            return Err(wrong(running, workload, Wrong::NoKeepAlive { opened, downstream }));
        }
        Ok(())
    }

    /// Opens connections that have one answer each and then say nothing, if the workload has any.
    pub(super) fn hold_idle(&self, running: &Running, workload: Workload) -> Result<Vec<TcpStream>, Error> {
        if workload != Workload::Idle {
            return Ok(Vec::new());
        }
        let request = request::get(&running.plan.path("bytes/128"));
        let held =
            (0..self.idle_connections(running.subject.kind)).map(|_| used_connection(running, &request));
        Ok(held.collect::<io::Result<Vec<TcpStream>>>()?)
    }

    /// All counters at one moment.
    pub(super) fn read(&self, running: &Running) -> io::Result<Reading> {
        Ok(Reading {
            processor_time: running.process.as_ref().map(Process::processor_time).transpose()?,
            requests: self.counts.requests(),
            connections: self.counts.connections(),
            machine_time: process::machine_time()?,
            own_time: process::own_time(),
            at: Instant::now(),
        })
    }
}

/// What is counted beside a load.
pub(super) struct Reading {
    /// The subject's; absent without a process.
    pub(super) processor_time: Option<ProcessorTime>,
    /// At the origin.
    pub(super) requests: u64,
    pub(super) connections: u64,
    machine_time: Duration,
    own_time: Duration,
    at: Instant,
}

impl Reading {
    pub(super) fn requests_since(&self, earlier: &Self) -> u64 {
        self.requests - earlier.requests
    }

    /// The part of all cores that neither the subject nor load and origin had: what others did, and what was stolen.
    pub(super) fn others_since(&self, earlier: &Self, cores: usize) -> f64 {
        let subject = match (&self.processor_time, &earlier.processor_time) {
            (Some(now), Some(then)) => now.since(then),
            _ => Duration::ZERO,
        };
        let ours = self.own_time - earlier.own_time + subject;
        let others = (self.machine_time - earlier.machine_time).saturating_sub(ours);
        others.as_secs_f64() / (self.at - earlier.at).as_secs_f64() / cores as f64
    }
}

fn elapsed(seconds: f64) -> Until {
    Until::Elapsed(Duration::from_secs_f64(seconds))
}

/// The memory of a subject while so many connections say nothing.
fn idle_memory(running: &Running, connections: usize) -> io::Result<Idle> {
    std::thread::sleep(SETTLE);
    let memory = running.process.as_ref().map(Process::memory).transpose()?.unwrap_or_default();
    Ok(Idle { connections, rss_kb: memory.rss_kb, pss_kb: memory.pss_kb })
}

/// A connection that has had an answer.
fn used_connection(running: &Running, request: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(running.address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request)?;
    let mut part = [0; 4096];
    let mut received = Vec::new();
    while message::first_in(&received).is_none_or(|answer| received.len() < answer.bytes()) {
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => received.extend_from_slice(&part[..n]),
        }
    }
    Ok(stream)
}

fn wrong(running: &Running, workload: Workload, wrong: Wrong) -> Error {
    Error::Wrong { subject: running.subject.name.clone(), workload: workload.name(), wrong }
}
