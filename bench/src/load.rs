//! The load: one thread that keeps N keep-alive connections busy, and times every answer.
//!
//! Closed loop ([`Pace::Closed`]): each connection sends its next request when it has its answer. That finds what a
//! proxy costs; its latencies say little, for a slow answer delays the requests behind it. Open loop ([`Pace::Open`]):
//! requests have an absolute schedule, and latency counts from the moment a request was *meant* to be sent, also when
//! every connection was busy then. That is the latency a user sees.
//!
//! An answer must be a 200 whose body is as long as it says. Anything else, and every broken connection, is an error;
//! its connection is not replaced. A measurement with an error is no measurement: the caller decides what to do with it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::message;
use crate::poll::{Interest, Poll};

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// As soon as a connection has its answer.
    Closed,
    /// At this many requests per second, whatever the answers do.
    Open(f64),
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many answers.
    Answers(u64),
}

/// A load to put on an address.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) target: SocketAddr,
    pub(crate) connections_count: usize,
    /// One whole request, sent again and again.
    pub(crate) request: Vec<u8>,
    pub(crate) pace: Pace,
    pub(crate) until: Until,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Good answers.
    pub(crate) answers: u64,
    /// Bad answers and broken connections.
    pub(crate) errors: u64,
    pub(crate) elapsed: Duration,
    /// Latency of good answers in nanoseconds, to three digits.
    pub(crate) latency: Histogram<u64>,
}

/// Longest latency that is told from a longer one.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Longest time without a single answer before the rest counts as errors.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest sleep without a look at the clock.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Room for what one read takes.
const BUFFER_BYTES: usize = 64 * 1024;

/// A request, with the head and the body it needs. `body_bytes` is sent, when it is not 0, with a `POST`.
pub(crate) fn request(path: &str, body_bytes: usize) -> Vec<u8> {
    let mut request = if body_bytes == 0 {
        format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\nuser-agent: bench\r\naccept: */*\r\n\r\n")
    } else {
        format!(
            "POST {path} HTTP/1.1\r\nhost: bench.test\r\nuser-agent: bench\r\naccept: */*\r\n\
             content-type: application/octet-stream\r\ncontent-length: {body_bytes}\r\n\r\n"
        )
    }
    .into_bytes();
    request.resize(request.len() + body_bytes, b'x');
    request
}

/// Puts the load on its target from this thread and returns when it has ended and every request has its answer. An
/// error means that the load could not begin: a connection was refused.
pub(crate) fn run(load: &Load) -> io::Result<Outcome> {
    let mut generator = Generator::connect(load)?;
    let mut ready = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let started = Instant::now();
    let mut schedule = Schedule { pace: load.pace, started, sent: 0 };
    let mut heard = started;
    loop {
        let now = Instant::now();
        let is_over = match load.until {
            Until::Elapsed(time) => now - started >= time,
            Until::Answers(count) => schedule.sent >= count,
        };
        if generator.is_dead() || (is_over && generator.running_count == 0) {
            break;
        }
        if now - heard > SILENCE_MAX {
            generator.outcome.errors += generator.running_count as u64;
            break;
        }
        if !is_over {
            generator.send_due(&mut schedule, now)?;
        }
        // When all are busy or the load is over, what comes next is an answer, not the time of a request.
        let waits_for_time = !is_over && !generator.idle.is_empty();
        generator.poll.wait(Some(schedule.pause(Instant::now(), waits_for_time)), &mut ready)?;
        let now = Instant::now();
        for &token in &ready {
            if generator.turn(token, now, &mut buffer)? {
                heard = now;
            }
        }
    }
    generator.outcome.elapsed = started.elapsed();
    Ok(generator.outcome)
}

/// All connections of a running load.
struct Generator<'a> {
    load: &'a Load,
    poll: Poll,
    /// By token; `None` when broken.
    connections: Vec<Option<Connection>>,
    /// Tokens of the connections without a running request, the longest idle first.
    idle: VecDeque<usize>,
    running_count: usize,
    outcome: Outcome,
}

impl<'a> Generator<'a> {
    fn connect(load: &'a Load) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(load.connections_count);
        for token in 0..load.connections_count {
            let stream = TcpStream::connect(load.target)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poll.add(&stream, token, Interest::Read)?;
            connections.push(Some(Connection::new(stream)));
        }
        let idle = (0..connections.len()).collect();
        Ok(Self { load, poll, connections, idle, running_count: 0, outcome: Outcome::new() })
    }

    /// Whether every connection has broken: each error is one.
    fn is_dead(&self) -> bool {
        self.outcome.errors >= self.connections.len() as u64
    }

    /// Sends every request that is due, as far as there are idle connections.
    fn send_due(&mut self, schedule: &mut Schedule, now: Instant) -> io::Result<()> {
        while let Some(intended) = schedule.due(now, self.load.until)
            && let Some(token) = self.idle.pop_front()
        {
            let Some(connection) = &mut self.connections[token] else { continue };
            schedule.sent += 1;
            self.running_count += 1;
            if connection.send(&self.load.request, intended).is_err() {
                self.fail(token);
            } else if connection.is_sending() {
                self.poll.change(&connection.stream, token, Interest::Write)?;
            }
        }
        Ok(())
    }

    /// Does what a socket is ready for. Whether an answer is complete.
    fn turn(&mut self, token: usize, now: Instant, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(connection) = &mut self.connections[token] else { return Ok(false) };
        if connection.is_sending() {
            if connection.send_rest(&self.load.request).is_err() {
                self.fail(token);
            } else if !connection.is_sending() {
                self.poll.change(&connection.stream, token, Interest::Read)?;
            }
            return Ok(false);
        }
        match connection.receive(buffer) {
            Ok(None) => return Ok(false),
            Ok(Some(intended)) => {
                self.outcome.record(now - intended);
                self.idle.push_back(token);
                self.running_count -= 1;
                return Ok(true);
            }
            Err(_) => self.fail(token),
        }
        Ok(false)
    }

    fn fail(&mut self, token: usize) {
        if self.connections[token].take().is_some_and(|connection| connection.intended.is_some()) {
            self.running_count -= 1;
        }
        self.outcome.errors += 1;
    }
}

impl Outcome {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3)
            .expect("three digits up to a minute are valid bounds");
        Self { answers: 0, errors: 0, elapsed: Duration::ZERO, latency }
    }

    fn record(&mut self, latency: Duration) {
        self.answers += 1;
        self.latency.saturating_record(latency.as_nanos() as u64);
    }

    /// Latency at a quantile (0.5 is the median), in microseconds.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// When the next request is meant to be sent.
struct Schedule {
    pace: Pace,
    started: Instant,
    sent: u64,
}

impl Schedule {
    /// The intended time of the next request when it is due.
    fn due(&self, now: Instant, until: Until) -> Option<Instant> {
        if let Until::Answers(count) = until
            && self.sent >= count
        {
            return None;
        }
        match self.pace {
            Pace::Closed => Some(now),
            Pace::Open(rate) => Some(self.next(rate)).filter(|at| *at <= now),
        }
    }

    /// How long there is nothing to do but to listen.
    fn pause(&self, now: Instant, waits_for_time: bool) -> Duration {
        match self.pace {
            Pace::Open(rate) if waits_for_time => {
                self.next(rate).saturating_duration_since(now).min(PAUSE_MAX)
            }
            _ => PAUSE_MAX,
        }
    }

    fn next(&self, rate: f64) -> Instant {
        self.started + Duration::from_secs_f64(self.sent as f64 / rate)
    }
}

struct Connection {
    stream: TcpStream,
    /// When the running request was meant to be sent; `None` when there is none.
    intended: Option<Instant>,
    /// Bytes of the request the socket has not taken.
    unsent: usize,
    /// The answer's bytes so far, when its head is not complete.
    partial: Vec<u8>,
    /// Bytes of the answer's body that are still to come, once its head is complete.
    missing: usize,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, intended: None, unsent: 0, partial: Vec::new(), missing: 0 }
    }

    fn is_sending(&self) -> bool {
        self.unsent > 0
    }

    fn send(&mut self, request: &[u8], intended: Instant) -> io::Result<()> {
        self.intended = Some(intended);
        self.unsent = request.len();
        self.send_rest(request)
    }

    fn send_rest(&mut self, request: &[u8]) -> io::Result<()> {
        match self.stream.write(&request[request.len() - self.unsent..]) {
            Ok(sent) => self.unsent -= sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads once. Gives the intended time of the running request when its answer is complete.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Instant>> {
        let received = self.stream.read(buffer)?;
        let bytes = &buffer[..received];
        if bytes.is_empty() || self.intended.is_none() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let body = if self.missing > 0 {
            bytes.len()
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            let bytes = if whole.is_empty() {
                bytes
            } else {
                whole.extend_from_slice(bytes);
                &whole
            };
            let Some(answer) = message::first_in(bytes) else {
                self.partial = bytes.to_vec();
                return Ok(None);
            };
            if message::status(bytes) != Some(200) {
                return Err(ErrorKind::InvalidData.into());
            }
            self.missing = answer.body_bytes;
            bytes.len() - answer.head_bytes
        };
        // More than was asked for is as wrong as a bad status.
        self.missing = self.missing.checked_sub(body).ok_or(ErrorKind::InvalidData)?;
        Ok(if self.missing == 0 { self.intended.take() } else { None })
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use super::*;
    use crate::origin::{self, Counts};

    fn load(target: SocketAddr, pace: Pace, until: Until) -> Load {
        Load { target, connections_count: 4, request: request("/bytes/100000", 70_000), pace, until }
    }

    #[test]
    fn every_request_of_a_load_has_its_answer_when_the_load_is_over() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        std::thread::spawn(move || origin::serve(&listener, &theirs));
        for (pace, until, answers) in [
            (Pace::Closed, Until::Answers(50), 50..=50),
            (Pace::Open(500.0), Until::Answers(50), 50..=50),
            (Pace::Open(500.0), Until::Elapsed(Duration::from_millis(100)), 1..=50),
            (Pace::Closed, Until::Elapsed(Duration::from_millis(50)), 1..=u64::MAX),
        ] {
            let before = counts.requests();
            let outcome = run(&load(address, pace, until)).unwrap();
            assert_eq!(outcome.errors, 0, "{pace:?} {until:?}");
            assert!(answers.contains(&outcome.answers), "{pace:?} {until:?}: {}", outcome.answers);
            assert_eq!(counts.requests() - before, outcome.answers);
            assert_eq!(outcome.latency.len(), outcome.answers);
        }
    }

    #[test]
    fn a_bad_answer_and_a_broken_connection_are_errors() {
        let answers: [&'static [u8]; 3] = [
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
        ];
        for answer in answers {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                for _ in 0..4 {
                    let (mut stream, _) = listener.accept().unwrap();
                    assert_ne!(stream.read(&mut [0; 4096]).unwrap(), 0);
                    stream.write_all(answer).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    // The rest of the request, so that closing sends no reset before the answer is read.
                    let _ = io::copy(&mut stream, &mut io::sink());
                }
            });
            let outcome = run(&load(address, Pace::Closed, Until::Answers(50))).unwrap();
            assert_eq!((outcome.answers, outcome.errors), (0, 4));
            server.join().unwrap();
        }
    }

    #[test]
    fn an_open_loop_keeps_its_schedule_through_a_stall() {
        let started = Instant::now();
        let mut schedule = Schedule { pace: Pace::Open(1000.0), started, sent: 0 };
        // Nothing could be sent for 3 ms; the requests that were due then keep the times they were meant for.
        let now = started + Duration::from_millis(3);
        let mut due = Vec::new();
        while let Some(intended) = schedule.due(now, Until::Answers(100)) {
            due.push((intended - started).as_millis());
            schedule.sent += 1;
        }
        assert_eq!(due, [0, 1, 2, 3]);
        assert_eq!(schedule.pause(now, true), Duration::from_millis(1));
        assert_eq!(schedule.pause(now, false), PAUSE_MAX);
    }
}
