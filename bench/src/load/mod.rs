//! The load: one thread that puts requests on N connections and times every answer.
//!
//! Closed loop ([`Pace::Closed`]): each connection sends its next request when it has its answer. That finds what a
//! proxy costs; its latencies say little, for a slow answer delays the requests behind it. Open loop ([`Pace::Open`]):
//! requests have an absolute schedule, and latency counts from the moment a request was *meant* to be sent, also when
//! every connection was busy then. That is the latency a user sees.
//!
//! No request is lost from sight: each one of the schedule ends as a good answer or in one of the kinds of [`Errors`].

mod answer;
mod connection;
mod outcome;
pub mod request;
mod schedule;
mod streams;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use self::connection::{Broken, Connection, Received};
pub use self::outcome::{Errors, Outcome, WINDOW, Window};
pub use self::request::Requests;
use self::schedule::{Next, Schedule};
pub use self::schedule::{Pace, Until};
use self::streams::Streams;
use crate::poll::{Interest, Poll};

/// A load to put on an address.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub target: SocketAddr,
    /// How many connections there are.
    pub connections_count: usize,
    /// What is spoken on them, and how many requests may run at once on each.
    pub protocol: Protocol,
    /// What is sent.
    pub requests: Requests,
    /// When the next request is sent.
    pub pace: Pace,
    /// When the load ends.
    pub until: Until,
    /// A new connection for each request; of HTTP/1.1.
    pub is_connecting_anew: bool,
    /// Longest time that an answer may take. It is looked at some twenty times a second.
    pub answer_max: Duration,
}

/// What is spoken on the connections of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time.
    Http1,
    /// HTTP/2 without asking whether it is understood.
    Http2 {
        /// Requests at a time.
        streams_count: usize,
    },
}

/// Longest sleep without a look at what takes too long.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Room for what one read takes.
const BUFFER_BYTES: usize = 64 * 1024;

/// Puts the load on its target and returns when every request has its answer or is given up. An error means that the
/// load could not begin: a connection was refused, or there are too few descriptors.
pub fn run(load: &Load) -> io::Result<Outcome> {
    // A thread of its own, for it changes its timers, and children of the caller's would inherit that.
    let ended = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The kernel may otherwise let us oversleep by 50 µs, which would be the proxy's latency in every percentile.
            rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
            match load.protocol {
                Protocol::Http1 => drive(load, &mut Generator::connect(load)?),
                Protocol::Http2 { streams_count } => drive(load, &mut Streams::connect(load, streams_count)?),
            }
        });
        thread.join()
    });
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What puts requests on connections, as their protocol has it.
trait Engine {
    /// Sends every request that is due, as far as there is room for it. Gives what comes next.
    fn send_due(&mut self, schedule: &mut Schedule, now: Instant) -> io::Result<Next>;
    /// Does what a socket is ready for.
    fn turn(&mut self, token: usize, now: Instant, buffer: &mut [u8]) -> io::Result<()>;
    /// Gives up requests whose answer takes too long.
    fn give_up(&mut self, now: Instant);
    /// Requests whose answer is not complete.
    fn running_count(&self) -> usize;
    /// Where sockets are waited for.
    fn poll(&mut self) -> &mut Poll;
    /// What has come of it so far.
    fn outcome(&mut self) -> &mut Outcome;
}

fn drive(load: &Load, engine: &mut impl Engine) -> io::Result<Outcome> {
    let mut ready = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let own_before = own_time();
    let started = Instant::now();
    let mut schedule = Schedule::new(load.pace, load.until, started);
    let mut swept = started;
    let mut window_end = started + WINDOW;
    loop {
        let now = Instant::now();
        let wait = match engine.send_due(&mut schedule, now)? {
            Next::Over if engine.running_count() == 0 => break,
            Next::At(at) => at.saturating_duration_since(now).min(PAUSE_MAX),
            // All are busy, or the rest is to listen.
            Next::Due(_) | Next::Over => PAUSE_MAX,
        };
        engine.poll().wait(Some(wait), &mut ready)?;
        let now = Instant::now();
        while window_end <= now {
            // What comes after the schedule's end are stragglers.
            if schedule.end().is_none_or(|end| window_end <= end) {
                engine.outcome().end_window();
            }
            window_end += WINDOW;
        }
        for &token in &ready {
            engine.turn(token, now, &mut buffer)?;
        }
        if now - swept > PAUSE_MAX {
            swept = now;
            engine.give_up(now);
            if schedule.end().is_some_and(|end| now > end + load.answer_max) {
                break;
            }
        }
    }
    let running_count = engine.running_count() as u64;
    let mut outcome = std::mem::take(engine.outcome());
    outcome.errors.unanswered += running_count;
    outcome.errors.unsent = schedule.unsent();
    outcome.elapsed = started.elapsed();
    outcome.own_time = own_time().saturating_sub(own_before);
    Ok(outcome)
}

/// All connections of a running load.
struct Generator<'a> {
    load: &'a Load,
    poll: Poll,
    /// By token; `None` where there is none at the moment.
    connections: Vec<Option<Connection>>,
    /// Tokens without a running request, the longest idle first.
    idle: VecDeque<usize>,
    running_count: usize,
    outcome: Outcome,
}

impl<'a> Generator<'a> {
    fn connect(load: &'a Load) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(load.connections_count);
        for token in 0..load.connections_count {
            // One tells whether the target is there at all.
            if load.is_connecting_anew && token > 0 {
                connections.push(None);
                continue;
            }
            let connection = Connection::connect(load.target)?;
            poll.add(&connection.stream, token, Interest::Read)?;
            connections.push(Some(connection));
        }
        let idle = (0..connections.len()).collect();
        Ok(Self { load, poll, connections, idle, running_count: 0, outcome: Outcome::default() })
    }

    fn send(&mut self, token: usize, which: u32, intended: Instant, now: Instant) -> io::Result<()> {
        let slot = &mut self.connections[token];
        if slot.is_none() {
            let Ok(connection) = Connection::begin(self.load.target) else {
                self.outcome.errors.connect += 1;
                self.idle.push_back(token);
                return Ok(());
            };
            self.poll.add(&connection.stream, token, Interest::Read)?;
            *slot = Some(connection);
        }
        let Some(connection) = slot else { return Ok(()) };
        self.running_count += 1;
        match connection.send(self.load.requests.bytes(which), which, intended, now) {
            Ok(()) if connection.is_sending() => {
                self.poll.change(&connection.stream, token, Interest::Write)?;
            }
            Ok(()) => {}
            Err(broken) => self.fail(token, broken),
        }
        Ok(())
    }

    /// The other side has closed a connection without a request: after its last answer, or while it was idle.
    fn replace_closed(&mut self, token: usize) {
        if !self.load.is_connecting_anew {
            self.outcome.closed_by_peer += 1;
        }
        self.drop_connection(token);
    }

    fn fail(&mut self, token: usize, broken: Broken) {
        match broken {
            Broken::Connect => self.outcome.errors.connect += 1,
            Broken::Connection => self.outcome.errors.broken += 1,
            Broken::Answer => self.outcome.errors.malformed += 1,
        }
        self.drop_connection(token);
    }

    /// Drops a connection; its slot is idle afterwards, and connects anew when its turn comes.
    fn drop_connection(&mut self, token: usize) {
        let Some(connection) = self.connections[token].take() else { return };
        self.running_count -= usize::from(connection.running.is_some());
        if connection.running.is_some() || connection.ending.is_some() {
            self.idle.push_back(token);
        }
    }
}

impl Engine for Generator<'_> {
    fn send_due(&mut self, schedule: &mut Schedule, now: Instant) -> io::Result<Next> {
        // Each connection has one try: one that fails is idle again at once.
        for _ in 0..self.idle.len() {
            let Next::Due(intended) = schedule.next(now) else { break };
            let Some(token) = self.idle.pop_front() else { break };
            let which = self.load.requests.nth(schedule.sent());
            schedule.sent_one();
            self.outcome.began(now - intended);
            self.send(token, which, intended, now)?;
        }
        Ok(schedule.next(now))
    }

    fn turn(&mut self, token: usize, now: Instant, buffer: &mut [u8]) -> io::Result<()> {
        let Some(connection) = &mut self.connections[token] else { return Ok(()) };
        if connection.is_sending()
            && let Some(running) = connection.running
        {
            match connection.send_rest(self.load.requests.bytes(running.which)) {
                Ok(()) if connection.is_sending() => {}
                Ok(()) => self.poll.change(&connection.stream, token, Interest::Read)?,
                Err(broken) => self.fail(token, broken),
            }
            return Ok(());
        }
        match connection.receive(buffer) {
            Ok(Received::Part) => {}
            Ok(Received::Answer { status, is_last, running }) => {
                self.outcome.answered(status, now - running.intended);
                self.running_count -= 1;
                if is_last {
                    connection.ending = Some(now);
                    return Ok(());
                }
                if self.load.is_connecting_anew {
                    self.connections[token] = None;
                }
                self.idle.push_back(token);
            }
            Ok(Received::End) => self.replace_closed(token),
            Err(broken) => self.fail(token, broken),
        }
        Ok(())
    }

    /// Gives up requests whose answer takes too long, and connections that nobody closes after their last answer.
    fn give_up(&mut self, now: Instant) {
        let is_long = |since: Instant| now.saturating_duration_since(since) > self.load.answer_max;
        let given_up: Vec<(usize, bool)> = (self.connections.iter().enumerate())
            .filter_map(|(token, connection)| Some((token, connection.as_ref()?)))
            .filter_map(|(token, connection)| match (connection.running, connection.ending) {
                (Some(running), _) if is_long(running.begun) => Some((token, true)),
                (None, Some(since)) if is_long(since) => Some((token, false)),
                _ => None,
            })
            .collect();
        for (token, is_running) in given_up {
            self.outcome.errors.unanswered += u64::from(is_running);
            self.drop_connection(token);
        }
    }

    fn running_count(&self) -> usize {
        self.running_count
    }

    fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }

    fn outcome(&mut self) -> &mut Outcome {
        &mut self.outcome
    }
}

/// Processor time of this thread so far.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests;
