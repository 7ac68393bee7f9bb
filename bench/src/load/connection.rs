//! One connection of a load: at most one request at a time on it, none waits for anything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::answer::{Malformed, Reader};

/// A connection, perhaps with a request on it.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) running: Option<Running>,
    /// Since when it has had its last answer and waits for the other side to close it.
    pub(super) ending: Option<Instant>,
    reader: Reader,
}

/// A request whose answer is not complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    /// Which request it is.
    pub(super) which: u32,
    /// When it was meant to be sent.
    pub(super) intended: Instant,
    /// When its turn came.
    pub(super) begun: Instant,
    /// Bytes of it that the socket has not taken.
    unsent: usize,
}

/// What a read brought.
#[derive(Clone, Copy, Debug)]
pub(super) enum Received {
    /// Nothing that completes an answer.
    Part,
    /// The answer of the running request.
    Answer { status: u16, is_last: bool, running: Running },
    /// The other side has closed the connection, and no request was on it.
    End,
}

/// Why a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It never came to be.
    Connect,
    /// It ended or failed before the answer was complete.
    Connection,
    /// What came is no answer.
    Answer,
}

impl Connection {
    /// Connects and waits for it.
    pub(super) fn connect(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(target)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self::new(stream))
    }

    /// Begins to connect. What is sent before the connection is there waits for it.
    pub(super) fn begin(target: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        Ok(Self::new(socket.into()))
    }

    fn new(stream: TcpStream) -> Self {
        Self { stream, running: None, ending: None, reader: Reader::default() }
    }

    /// Whether part of a request waits for the socket to take it.
    pub(super) fn is_sending(&self) -> bool {
        self.running.is_some_and(|running| running.unsent > 0)
    }

    /// Begins to send a request.
    pub(super) fn send(
        &mut self,
        request: &[u8],
        which: u32,
        intended: Instant,
        now: Instant,
    ) -> Result<(), Broken> {
        self.running = Some(Running { which, intended, begun: now, unsent: request.len() });
        self.send_rest(request)
    }

    /// Sends what the socket takes of the rest.
    pub(super) fn send_rest(&mut self, request: &[u8]) -> Result<(), Broken> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match self.stream.write(&request[request.len() - running.unsent..]) {
            Ok(sent) => running.unsent -= sent,
            Err(error) if is_nothing_yet(&error) => {}
            Err(error) if is_of_connecting(&error) => return Err(Broken::Connect),
            Err(_) => return Err(Broken::Connection),
        }
        Ok(())
    }

    /// Reads once.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Broken> {
        let received = match self.stream.read(buffer) {
            Ok(received) => received,
            Err(error) if is_nothing_yet(&error) => return Ok(Received::Part),
            Err(_) if self.running.is_none() => return Ok(Received::End),
            Err(_) => return Err(Broken::Connection),
        };
        let answer = match (received, self.running) {
            (0, None) => return Ok(Received::End),
            (_, None) => return Err(Broken::Answer),
            (0, Some(_)) => self.reader.end().map(Some),
            (_, Some(_)) => self.reader.receive(&buffer[..received]),
        };
        match answer {
            Ok(Some(answer)) => match self.running.take() {
                Some(running) => {
                    Ok(Received::Answer { status: answer.status, is_last: answer.is_last, running })
                }
                None => Err(Broken::Answer),
            },
            Ok(None) => Ok(Received::Part),
            Err(Malformed::Truncated) => Err(Broken::Connection),
            Err(_) => Err(Broken::Answer),
        }
    }
}

/// Whether to try again when the socket is ready.
fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether an error tells that the connection never was.
fn is_of_connecting(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)
}
