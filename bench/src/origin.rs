//! The origin: an HTTP/1.1 keep-alive server that answers as cheaply as one thread can, and counts.
//!
//! A request for `/bytes/N` is answered with N bytes, once its body has arrived; `/echo` with the request head as it
//! arrived, which is how a proxy's edits are seen; `/count` with what was counted so far, and is itself not counted.
//! Anything else is a mistake of the caller's and closes the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::message;
use crate::poll::{Interest, Poll};

/// What an origin has seen. The origin's thread writes, anybody may read.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Counts {
    /// Requests answered so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

/// The token of the listener; a connection's is the index of its slot.
const LISTENER: usize = usize::MAX;
/// Room for what one read takes.
const BUFFER_BYTES: usize = 16 * 1024;
/// Longest body that `/bytes/N` gives.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Serves for ever on `listener`, on this thread. Ends only by a failure of the listener or of epoll.
pub(crate) fn serve(listener: &TcpListener, counts: &Counts) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut site = Site { counts, bodies: Vec::new() };
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut ready = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.wait(None, &mut ready)?;
        for &token in &ready {
            if token == LISTENER {
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    // The one who knocked has already gone.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                };
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                // Slots are not reused: an origin lives no longer than a measurement.
                poll.add(&stream, connections.len(), Interest::Read)?;
                connections.push(Some(Connection::new(stream)));
                counts.connections.store(connections.len() as u64, Relaxed);
            } else if let Some(connection) = &mut connections[token] {
                let was_waiting = connection.is_sending();
                if connection.turn(&mut buffer, &mut site).is_err() {
                    connections[token] = None;
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
    /// Whole answers by the length of their body; made at first use.
    bodies: Vec<(usize, Rc<[u8]>)>,
}

impl Site<'_> {
    /// The answer to a request, `None` when it asks for something that is not here.
    fn answer(&mut self, request_head: &[u8]) -> Option<Rc<[u8]>> {
        let path = request_head.split(|b| *b == b' ').nth(1)?;
        if path == b"/count" {
            return Some(answer(self.counted().as_bytes()));
        }
        // One writer, so a load and a store.
        self.counts.requests.store(self.counts.requests() + 1, Relaxed);
        if path == b"/echo" {
            return Some(answer(request_head));
        }
        let length = str::from_utf8(path.strip_prefix(b"/bytes/")?).ok()?.parse().ok()?;
        if let Some((_, whole)) = self.bodies.iter().find(|(of, _)| *of == length) {
            return Some(Rc::clone(whole));
        }
        if length > BODY_BYTES_MAX {
            return None;
        }
        let whole = answer(&vec![b'x'; length]);
        self.bodies.push((length, Rc::clone(&whole)));
        Some(whole)
    }

    fn counted(&self) -> String {
        format!("{{\"requests\":{},\"connections\":{}}}\n", self.counts.requests(), self.counts.connections())
    }
}

fn answer(body: &[u8]) -> Rc<[u8]> {
    let mut whole = format!(
        "HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    whole.extend_from_slice(body);
    whole.into()
}

struct Connection {
    stream: TcpStream,
    /// The part of a request head that has arrived, when not all of it has.
    partial: Vec<u8>,
    /// The answer to give once this many more bytes of the request's body have arrived.
    body: Option<(usize, Rc<[u8]>)>,
    /// Answers that the socket did not take at once.
    unsent: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self { stream, partial: Vec::new(), body: None, unsent: Vec::new() }
    }

    fn is_sending(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Does what the socket is ready for. An error means the connection is over, for whatever reason.
    fn turn(&mut self, buffer: &mut [u8], site: &mut Site<'_>) -> io::Result<()> {
        if self.is_sending() {
            let unsent = std::mem::take(&mut self.unsent);
            return self.send(&unsent);
        }
        let received = self.stream.read(buffer)?;
        if received == 0 {
            return Err(ErrorKind::ConnectionAborted.into());
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
            let (missing, answer) = match self.body.take() {
                Some(body) => body,
                None if bytes.is_empty() => return Ok(()),
                None => {
                    let Some(request) = message::first_in(bytes) else {
                        self.partial = bytes.to_vec();
                        return Ok(());
                    };
                    let (head, rest) = bytes.split_at(request.head_bytes);
                    bytes = rest;
                    (request.body_bytes, site.answer(head).ok_or(ErrorKind::NotFound)?)
                }
            };
            if missing > bytes.len() {
                self.body = Some((missing - bytes.len(), answer));
                return Ok(());
            }
            bytes = &bytes[missing..];
            self.send(&answer)?;
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
        std::thread::spawn(move || serve(&listener, &theirs));
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
            assert_eq!(receive(&mut stream), b"xxxxxxx");
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
    fn a_request_for_something_else_closes_the_connection() {
        let (mut stream, _) = start();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
}
