//! The origin: a server that answers as cheaply as one thread can, and counts. It speaks HTTP/1.1 with keep-alive, and
//! HTTP/2 where a connection begins with that.
//!
//! A request for `/bytes/N` is answered with N bytes, once its body has arrived; `/sum` with a sum over its body; `/echo`
//! with the request head as it arrived, which is how a proxy's edits are seen, and in [`ENDPOINT`] the address it arrived
//! at, which is how a proxy's choice is seen; `/unary`, over HTTP/2, as gRPC's with a message of [`UNARY_BYTES`]; `/count`
//! with what was counted so far, and is itself not counted. Each may have one more segment before it, for proxies to route
//! by. Anything else is a mistake of the caller's and closes the connection.

mod http2;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use wire::head::ResponseHead;

use self::http2::Http2;
use crate::http2::GRPC_PREFIX_BYTES;
use crate::message;
use crate::poll::{Interest, Poll};

/// What an origin has seen. The origin's thread writes, anybody may read.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Counts {
    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

/// The response header in which `/echo` tells the address that the request arrived at.
pub const ENDPOINT: &str = "x-endpoint";

/// Bytes of the message that `/unary` gives.
pub const UNARY_BYTES: usize = 128;

/// Tokens below are connections' slots, from here on listeners.
const LISTENERS: usize = usize::MAX / 2;
/// Room for what one read takes.
const BUFFER_BYTES: usize = 16 * 1024;
/// Longest body that `/bytes/N` gives.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The byte at a place of every body that is sent by [`serve`] and by those who prove that bodies pass whole. Its period
/// is a prime, so that a piece that is lost or moved shows.
pub fn body_byte(at: usize) -> u8 {
    (at % 251) as u8
}

/// What `/sum` tells of a body: FNV-1a over its bytes.
pub fn sum_of(body: &[u8]) -> u64 {
    add_to_sum(EMPTY_SUM, body)
}

const EMPTY_SUM: u64 = 0xcbf2_9ce4_8422_2325;

fn add_to_sum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Serves for ever on the listeners, on this thread. Ends only by a failure of a listener or of epoll.
pub fn serve(listeners: &[TcpListener], counts: &Counts) -> io::Result<()> {
    let mut poll = Poll::new()?;
    for (number, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true)?;
        poll.add(listener, LISTENERS + number, Interest::Read)?;
    }
    let mut site = Site { counts, bodies: Vec::new(), unary: unary() };
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut ready = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.wait(None, &mut ready)?;
        for &token in &ready {
            if token >= LISTENERS {
                let stream = match listeners[token - LISTENERS].accept() {
                    Ok((stream, _)) => stream,
                    // The one who knocked has already gone.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                };
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let slot = free.pop().unwrap_or(connections.len());
                poll.add(&stream, slot, Interest::Read)?;
                let connection = Some(Connection::new(stream));
                if slot == connections.len() {
                    connections.push(connection)
                } else {
                    connections[slot] = connection
                }
                counts.connections.store(counts.connections() + 1, Relaxed);
            } else if let Some(connection) = &mut connections[token] {
                let was_waiting = connection.is_sending();
                if connection.turn(&mut buffer, &mut site).is_err() {
                    connections[token] = None;
                    free.push(token);
                } else if connection.is_sending() != was_waiting {
                    let interest = if was_waiting { Interest::Read } else { Interest::Write };
                    poll.change(&connection.stream, token, interest)?;
                }
            }
        }
    }
}

/// What there is to answer with.
struct Site<'a> {
    counts: &'a Counts,
    /// Whole answers by the length of their body, and whether they are the last on their connection; made at first use.
    bodies: Vec<(usize, bool, Rc<Whole>)>,
    unary: Rc<Whole>,
}

/// A whole answer.
struct Whole {
    /// As it is sent over HTTP/1.1.
    bytes: Box<[u8]>,
    /// Its head, as it is sent over HTTP/2.
    head: ResponseHead,
    /// Lines behind it.
    trailers: &'static [u8],
}

/// The answer to a request whose body has not arrived.
enum Reply {
    Whole(Rc<Whole>),
    /// A sum over the body, and what it is so far.
    Sum(u64),
    /// That of gRPC; the bytes of the request that have come, and those of its prefix.
    Unary {
        answer: Rc<Whole>,
        came: usize,
        prefix: [u8; GRPC_PREFIX_BYTES],
    },
}

impl Reply {
    /// Takes a part of the body.
    fn take(&mut self, part: &[u8]) {
        match self {
            Reply::Whole(_) => {}
            Reply::Sum(sum) => *sum = add_to_sum(*sum, part),
            Reply::Unary { came, prefix, .. } => {
                // A read may end within it.
                let left = prefix.get_mut(*came..).unwrap_or_default();
                left.iter_mut().zip(part).for_each(|(place, byte)| *place = *byte);
                *came += part.len();
            }
        }
    }

    /// The answer, when all of the body has come; `None` when the body was not what it must be.
    fn end(self) -> Option<Rc<Whole>> {
        match self {
            Reply::Whole(answer) => Some(answer),
            Reply::Sum(sum) => Some(answer(format!("{sum:016x}").as_bytes(), "")),
            Reply::Unary { answer, came, prefix: [compression, length @ ..] } => {
                let announced = GRPC_PREFIX_BYTES + u32::from_be_bytes(length) as usize;
                (compression == 0 && came == announced).then_some(answer)
            }
        }
    }
}

impl Site<'_> {
    /// The reply to a request that came to `endpoint`, `None` when it asks for something that is not here.
    fn reply(&mut self, request_head: &[u8], is_last: bool, endpoint: &TcpStream) -> Option<Reply> {
        let path = request_head.split(|b| *b == b' ').nth(1)?;
        if path == b"/count" {
            return Some(Reply::Whole(answer(self.counted().as_bytes(), "")));
        }
        // One writer, so a load and a store.
        self.counts.requests.store(self.counts.requests() + 1, Relaxed);
        // The last two segments at most: what is before them is for proxies.
        let at = memchr::memrchr(b'/', path)?;
        let last = &path[at + 1..];
        match last {
            b"echo" => {
                let endpoint = endpoint.local_addr().map(|a: SocketAddr| a.to_string()).unwrap_or_default();
                return Some(Reply::Whole(answer(request_head, &format!("{ENDPOINT}: {endpoint}\r\n"))));
            }
            b"sum" => return Some(Reply::Sum(EMPTY_SUM)),
            b"unary" => {
                let answer = Rc::clone(&self.unary);
                return Some(Reply::Unary { answer, came: 0, prefix: [0; GRPC_PREFIX_BYTES] });
            }
            _ if !path[..at].ends_with(b"/bytes") => return None,
            _ => {}
        }
        let length = str::from_utf8(last).ok()?.parse().ok()?;
        if let Some((.., whole)) = self.bodies.iter().find(|(of, last, _)| (*of, *last) == (length, is_last))
        {
            return Some(Reply::Whole(Rc::clone(whole)));
        }
        if length > BODY_BYTES_MAX {
            return None;
        }
        let end = if is_last { "connection: close\r\n" } else { "" };
        let whole = answer(&(0..length).map(body_byte).collect::<Vec<u8>>(), end);
        self.bodies.push((length, is_last, Rc::clone(&whole)));
        Some(Reply::Whole(whole))
    }

    fn counted(&self) -> String {
        format!("{{\"requests\":{},\"connections\":{}}}\n", self.counts.requests(), self.counts.connections())
    }
}

/// A whole answer. `more` are header lines.
fn answer(body: &[u8], more: &str) -> Rc<Whole> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: application/octet-stream\r\n{more}content-length: {}\r\n\r\n",
        body.len()
    );
    whole(&head, body, b"")
}

/// The answer to a call of gRPC.
fn unary() -> Rc<Whole> {
    let head = "HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n";
    let message: Vec<u8> = (0..UNARY_BYTES).map(body_byte).collect();
    whole(head, &crate::http2::grpc_message(&message), crate::http2::GRPC_GOOD)
}

fn whole(head: &str, body: &[u8], trailers: &'static [u8]) -> Rc<Whole> {
    let bytes = [head.as_bytes(), body].concat().into();
    // It is not only the text above: an echo has lines of ours in it, but none of others.
    let head = crate::http2::response(head.as_bytes()).unwrap_or_default();
    Rc::new(Whole { bytes, head, trailers })
}

struct Connection {
    stream: TcpStream,
    /// The part of a request head that has arrived, when not all of it has.
    partial: Vec<u8>,
    /// The reply to give once this many more bytes of the request's body have arrived.
    body: Option<(usize, Reply)>,
    /// The running request is the last one on this connection.
    is_last: bool,
    /// Answers that the socket did not take at once.
    unsent: Vec<u8>,
    /// What it is from its preface on.
    http2: Option<Box<Http2>>,
}

/// What looks like a head, where a connection is one of HTTP/2.
const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, partial: Vec::new(), body: None, is_last: false, unsent: Vec::new(), http2: None }
    }

    fn is_sending(&self) -> bool {
        !self.unsent.is_empty() || self.http2.as_ref().is_some_and(|http2| http2.is_sending())
    }

    /// Does what the socket is ready for. An error means the connection is over, for whatever reason.
    fn turn(&mut self, buffer: &mut [u8], site: &mut Site<'_>) -> io::Result<()> {
        if let Some(http2) = self.http2.as_mut().filter(|http2| http2.is_sending()) {
            return http2.send(&self.stream);
        }
        if self.is_sending() {
            let unsent = std::mem::take(&mut self.unsent);
            return self.send(&unsent);
        }
        let received = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::ConnectionAborted.into()),
            Ok(received) => received,
            // The event was for the connection that had this slot before.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(http2) = &mut self.http2 {
            return http2.receive(&buffer[..received], &self.stream, site);
        }
        if self.partial.is_empty() {
            return self.receive(&buffer[..received], site);
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(&buffer[..received]);
        self.receive(&partial, site)
    }

    fn receive(&mut self, mut bytes: &[u8], site: &mut Site<'_>) -> io::Result<()> {
        loop {
            let (missing, mut reply) = match self.body.take() {
                Some(body) => body,
                None if bytes.is_empty() => return Ok(()),
                None => {
                    let Some(request) = message::first_in(bytes) else {
                        self.partial = bytes.to_vec();
                        return Ok(());
                    };
                    let (head, rest) = bytes.split_at(request.head_bytes);
                    if head == PREFACE_HEAD {
                        let http2 = self.http2.insert(Box::default());
                        return http2.receive(bytes, &self.stream, site);
                    }
                    bytes = rest;
                    self.is_last = message::header(head, "connection") == Some("close");
                    let reply = site.reply(head, self.is_last, &self.stream).ok_or(ErrorKind::NotFound)?;
                    (request.body_bytes, reply)
                }
            };
            let (body, rest) = bytes.split_at(missing.min(bytes.len()));
            bytes = rest;
            reply.take(body);
            if missing > body.len() {
                self.body = Some((missing - body.len(), reply));
                return Ok(());
            }
            let answer = reply.end().filter(|answer| answer.trailers.is_empty());
            self.send(&answer.ok_or(ErrorKind::InvalidData)?.bytes)?;
        }
    }

    /// Sends behind what is still unsent, and keeps what the socket does not take.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match self.stream.write(if self.unsent.is_empty() { bytes } else { &[] }) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        if self.is_last && self.unsent.is_empty() {
            // Closing is what was asked for; nothing that was sent is lost by it.
            return Err(ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An origin on a thread of its own, which ends with the test's process.
    fn start() -> (TcpStream, Arc<Counts>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        let counts = Arc::new(Counts::default());
        let theirs = Arc::clone(&counts);
        std::thread::spawn(move || serve(&[listener], &theirs));
        (stream, counts)
    }

    fn receive(stream: &mut TcpStream) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).unwrap();
            assert_ne!(n, 0, "closed after {} bytes", received.len());
            received.extend_from_slice(&part[..n]);
            if let Some(answer) = message::first_in(&received)
                && received.len() >= answer.bytes()
            {
                return received.split_off(answer.head_bytes);
            }
        }
    }

    #[test]
    fn a_request_split_at_any_byte_gets_the_same_answer_and_counts_once() {
        let (mut stream, counts) = start();
        let request = b"POST /bytes/7 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        for at in 0..request.len() {
            stream.write_all(&request[..at]).unwrap();
            stream.write_all(&request[at..]).unwrap();
            assert_eq!(receive(&mut stream), [0, 1, 2, 3, 4, 5, 6]);
        }
        assert_eq!(counts.requests(), request.len() as u64);
        assert_eq!(counts.connections(), 1);
    }

    #[test]
    fn a_body_larger_than_the_socket_takes_at_once_arrives_whole() {
        let (mut stream, _) = start();
        stream.write_all(b"GET /bytes/8000000 HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(receive(&mut stream).len(), 8_000_000);
    }

    #[test]
    fn asking_for_the_count_is_not_counted() {
        let (mut stream, _) = start();
        stream.write_all(b"GET /echo HTTP/1.1\r\nx-a: 1\r\n\r\n").unwrap();
        assert_eq!(receive(&mut stream), b"GET /echo HTTP/1.1\r\nx-a: 1\r\n\r\n");
        stream.write_all(b"GET /count HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(receive(&mut stream), b"{\"requests\":1,\"connections\":1}\n");
    }

    #[test]
    fn a_sum_is_of_the_whole_body_and_a_segment_for_proxies_changes_nothing() {
        let (mut stream, _) = start();
        let body: Vec<u8> = (0..100_000).map(body_byte).collect();
        stream.write_all(b"POST /route-7/sum HTTP/1.1\r\ncontent-length: 100000\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
        assert_eq!(receive(&mut stream), format!("{:016x}", sum_of(&body)).as_bytes());
        stream.write_all(b"GET /route-7/bytes/300 HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(receive(&mut stream), body[..300]);
    }

    #[test]
    fn the_last_request_on_a_connection_is_answered_before_the_connection_is_closed() {
        let (mut stream, _) = start();
        stream.write_all(b"GET /bytes/5000000 HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!(receive(&mut stream).len(), 5_000_000);
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn a_request_for_something_else_closes_the_connection() {
        let (mut stream, _) = start();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn a_call_split_at_any_byte_gets_its_answer() {
        let call = crate::http2::grpc_message(b"abc");
        for at in 0..=call.len() {
            let mut reply = Reply::Unary { answer: unary(), came: 0, prefix: [0; GRPC_PREFIX_BYTES] };
            reply.take(&call[..at]);
            reply.take(&call[at..]);
            assert!(reply.end().is_some(), "{at}");
            let mut reply = Reply::Unary { answer: unary(), came: 0, prefix: [0; GRPC_PREFIX_BYTES] };
            reply.take(&call[..at]);
            assert_eq!(reply.end().is_some(), at == call.len());
        }
    }
}
