//! The connections of a load over HTTP/2: several requests at a time on each, and what is due on one in one write.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use wire::Tick;
use wire::head::ResponseHead;
use wire::http2::{self as wire_http2, Event, StreamKey};

use super::connection::Broken;
use super::schedule::{Next, Schedule};
use super::{Engine, Load, Outcome};
use crate::http2::{self, GRPC_GOOD, Request};
use crate::poll::{Interest, Poll};

/// All connections of a running load.
pub(super) struct Streams<'a> {
    load: &'a Load,
    requests: Vec<Request>,
    poll: Poll,
    /// By token.
    connections: Vec<Connection>,
    /// The token of a connection for each stream that it may still have, the longest idle first.
    idle: VecDeque<usize>,
    /// Tokens of connections on which something was begun in this turn.
    begun: Vec<usize>,
    running_count: usize,
    outcome: Outcome,
}

struct Connection {
    stream: TcpStream,
    wire: wire_http2::Connection,
    /// Received, and not whole.
    partial: Vec<u8>,
    /// Output that the socket did not take at once, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// By the place of their streams.
    running: Vec<Option<Running>>,
    /// Memory for the next response head.
    head: ResponseHead,
    has_begun: bool,
}

/// A request whose answer is not complete.
#[derive(Clone, Copy, Debug)]
struct Running {
    stream: StreamKey,
    which: u32,
    /// When it was meant to be sent.
    intended: Instant,
    /// When its turn came.
    begun: Instant,
    /// Bytes of its body that have been sent.
    sent: usize,
    /// 0 before it is known.
    status: u16,
    /// It ends as an answer of gRPC must.
    is_good_grpc: bool,
}

impl<'a> Streams<'a> {
    pub(super) fn connect(load: &'a Load, streams_count: usize) -> io::Result<Self> {
        let requests: Option<Vec<Request>> = load.requests.all().map(Request::read).collect();
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(load.connections_count);
        for token in 0..load.connections_count {
            let connection = Connection::connect(load.target)?;
            poll.add(&connection.stream, token, Interest::Read)?;
            connections.push(connection);
        }
        let idle = (0..streams_count).flat_map(|_| 0..connections.len()).collect();
        Ok(Self {
            load,
            requests: requests.ok_or(ErrorKind::InvalidInput)?,
            poll,
            connections,
            idle,
            begun: Vec::new(),
            running_count: 0,
            outcome: Outcome::default(),
        })
    }

    /// Sends what a connection has; waits for the socket where it does not take it.
    fn flush(&mut self, token: usize) -> io::Result<()> {
        let connection = &mut self.connections[token];
        let was_sending = connection.is_sending();
        match connection.send() {
            Ok(()) if connection.is_sending() == was_sending => Ok(()),
            Ok(()) => {
                let interest = if was_sending { Interest::Read } else { Interest::Write };
                Ok(self.poll.change(&connection.stream, token, interest)?)
            }
            Err(_) => self.replace(token, Broken::Connection),
        }
    }

    /// A connection has ended, or is given up: so are its requests.
    fn replace(&mut self, token: usize, broken: Broken) -> io::Result<()> {
        let connection = &mut self.connections[token];
        let lost = connection.running.iter().flatten().count();
        self.running_count -= lost;
        match broken {
            _ if lost == 0 => self.outcome.closed_by_peer += 1,
            Broken::Connect => self.outcome.errors.connect += lost as u64,
            Broken::Connection => self.outcome.errors.broken += lost as u64,
            Broken::Answer => self.outcome.errors.malformed += lost as u64,
        }
        self.idle.extend((0..lost).map(|_| token));
        *connection = Connection::connect(self.load.target)?;
        Ok(self.poll.add(&connection.stream, token, Interest::Read)?)
    }

    /// A request is over.
    fn end(&mut self, token: usize, stream: StreamKey, now: Instant, is_whole: bool) {
        let connection = &mut self.connections[token];
        let Some(running) = connection.running.get_mut(stream.index()).and_then(Option::take) else { return };
        connection.wire.release(stream);
        self.running_count -= 1;
        self.idle.push_back(token);
        let is_good_end = running.is_good_grpc || !self.load.requests.are_grpc();
        match running.status {
            0 => self.outcome.errors.broken += 1,
            _ if !is_whole => self.outcome.errors.broken += 1,
            200 if !is_good_end => self.outcome.errors.malformed += 1,
            status => self.outcome.answered(status, now - running.intended),
        }
    }

    /// Takes received bytes, and gives how many of them are done with.
    fn events(&mut self, token: usize, bytes: &[u8], now: Instant) -> Result<usize, Broken> {
        let mut done = 0;
        loop {
            let connection = &mut self.connections[token];
            let received = connection.wire.receive(&bytes[done..], Tick::default());
            let (count, event) = received.map_err(|_| Broken::Answer)?;
            done += count;
            let stream = match event {
                None => return Ok(done),
                Some(Event::Response { stream }) => {
                    connection.wire.take_response(&mut connection.head);
                    let status = connection.head.status;
                    if let Some(running) = connection.running_on(stream).filter(|_| status >= 200) {
                        running.status = status;
                    }
                    stream
                }
                Some(Event::Data { stream, bytes, .. }) => {
                    connection.wire.consume(stream, bytes.len());
                    stream
                }
                Some(Event::Trailers { stream }) => {
                    let is_good = connection.wire.trailers() == GRPC_GOOD;
                    if let Some(running) = connection.running_on(stream) {
                        running.is_good_grpc = is_good;
                    }
                    stream
                }
                Some(Event::Reset { stream, .. }) => {
                    self.end(token, stream, now, false);
                    continue;
                }
                Some(Event::Window { .. } | Event::Settings) => {
                    connection.send_bodies(&self.requests);
                    continue;
                }
                // Who leaves in the middle of a load has nothing more to say.
                Some(Event::GoAway { .. }) => return Err(Broken::Connection),
                Some(Event::Request { .. } | Event::TooLarge { .. }) => return Err(Broken::Answer),
            };
            if connection.wire.has_received_all(stream) {
                self.end(token, stream, now, true);
            }
        }
    }
}

impl Engine for Streams<'_> {
    fn send_due(&mut self, schedule: &mut Schedule, now: Instant) -> io::Result<Next> {
        // Each has one try.
        for _ in 0..self.idle.len() {
            let Next::Due(intended) = schedule.next(now) else { break };
            let Some(token) = self.idle.pop_front() else { break };
            let which = self.load.requests.nth(schedule.sent());
            let connection = &mut self.connections[token];
            if !connection.begin(&self.requests[which as usize], which, intended, now) {
                // It takes fewer streams than it is meant to have.
                self.idle.push_back(token);
                continue;
            }
            schedule.sent_one();
            self.outcome.began(now - intended);
            self.running_count += 1;
            if !std::mem::replace(&mut connection.has_begun, true) {
                self.begun.push(token);
            }
        }
        while let Some(token) = self.begun.pop() {
            self.connections[token].has_begun = false;
            self.flush(token)?;
        }
        Ok(schedule.next(now))
    }

    fn turn(&mut self, token: usize, now: Instant, buffer: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[token];
        if connection.is_sending() {
            return self.flush(token);
        }
        let received = match connection.stream.read(buffer) {
            Ok(0) => return self.replace(token, Broken::Connection),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(_) => return self.replace(token, Broken::Connection),
        };
        let mut partial = std::mem::take(&mut connection.partial);
        let result = if partial.is_empty() {
            self.events(token, &buffer[..received], now)
                .map(|done| partial.extend_from_slice(&buffer[done..received]))
        } else {
            partial.extend_from_slice(&buffer[..received]);
            self.events(token, &partial, now).map(|done| drop(partial.drain(..done)))
        };
        if let Err(broken) = result {
            return self.replace(token, broken);
        }
        let connection = &mut self.connections[token];
        connection.partial = partial;
        // In a closed loop the next requests go with what there is to send; else it goes alone.
        if connection.wire.has_output() && !std::mem::replace(&mut connection.has_begun, true) {
            self.begun.push(token);
        }
        Ok(())
    }

    fn give_up(&mut self, now: Instant) {
        for token in 0..self.connections.len() {
            let is_long =
                |running: &&Running| now.saturating_duration_since(running.begun) > self.load.answer_max;
            let streams: Vec<StreamKey> = (self.connections[token].running.iter().flatten())
                .filter(is_long)
                .map(|running| running.stream)
                .collect();
            for stream in streams {
                let connection = &mut self.connections[token];
                connection.running[stream.index()] = None;
                connection.wire.release(stream);
                self.running_count -= 1;
                self.outcome.errors.unanswered += 1;
                self.idle.push_back(token);
            }
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

impl Connection {
    fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(target)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            wire: http2::connection(false),
            partial: Vec::new(),
            output: Vec::new(),
            sent: 0,
            running: Vec::new(),
            head: ResponseHead::default(),
            has_begun: false,
        })
    }

    fn is_sending(&self) -> bool {
        self.sent < self.output.len()
    }

    fn running_on(&mut self, stream: StreamKey) -> Option<&mut Running> {
        self.running.get_mut(stream.index())?.as_mut()
    }

    /// Begins a request, if there may be one more.
    fn begin(&mut self, request: &Request, which: u32, intended: Instant, begun: Instant) -> bool {
        let Some(stream) = request.begin(&mut self.wire) else { return false };
        let sent = if request.has_body() { self.wire.send_data(stream, request.body(), true) } else { 0 };
        let running = Running { stream, which, intended, begun, sent, status: 0, is_good_grpc: false };
        if self.running.len() <= stream.index() {
            self.running.resize(stream.index() + 1, None);
        }
        self.running[stream.index()] = Some(running);
        true
    }

    /// Sends on with bodies that the windows did not take at once.
    fn send_bodies(&mut self, requests: &[Request]) {
        for running in self.running.iter_mut().flatten() {
            while !self.wire.has_sent_all(running.stream) {
                let rest = &requests[running.which as usize].body()[running.sent..];
                let sent = self.wire.send_data(running.stream, rest, true);
                running.sent += sent;
                if sent == 0 {
                    break;
                }
            }
        }
    }

    /// Sends what the socket takes.
    fn send(&mut self) -> io::Result<()> {
        if !self.is_sending() {
            self.output.clear();
            self.sent = 0;
            self.wire.take_output(&mut self.output);
        }
        if self.is_sending() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
