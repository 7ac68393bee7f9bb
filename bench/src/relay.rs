//! The raw relay: bytes from one socket to another, no HTTP at all. No proxy can cost less on this kernel; it is the
//! floor every measurement is read against.
//!
//! One thread, level-triggered epoll, one read and one write per message. Each downstream connection has an upstream
//! connection of its own.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::poll::{Interest, Poll};

/// The token of the listener; end `n` of the ends has the token `n`, and its other end is `n ^ 1`.
const LISTENER: usize = usize::MAX;
/// Room for what one read takes.
const BUFFER_BYTES: usize = 64 * 1024;

/// One of the two sockets of a connection.
struct End {
    stream: TcpStream,
    interest: Interest,
    /// Bytes from the other end that this socket did not take at once. While there are some, the other end is not read.
    unsent: Vec<u8>,
    /// This socket has given its last byte.
    is_finished: bool,
}

/// Relays for ever between `listener` and `upstream`, on this thread. Ends only by a failure of the listener, of epoll,
/// or of a connect.
pub fn serve(listener: &TcpListener, upstream: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut ends: Vec<Option<End>> = Vec::new();
    let mut ready = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.wait(None, &mut ready)?;
        for &token in &ready {
            if token == LISTENER {
                let downstream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                };
                for stream in [downstream, TcpStream::connect(upstream)?] {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    poll.add(&stream, ends.len(), Interest::Read)?;
                    ends.push(Some(End {
                        stream,
                        interest: Interest::Read,
                        unsent: Vec::new(),
                        is_finished: false,
                    }));
                }
            } else if turn(token, &mut ends, &poll, &mut buffer).is_err() {
                (ends[token], ends[token ^ 1]) = (None, None);
            }
        }
    }
}

/// Does what the socket is ready for. An error means that both ends are over.
fn turn(token: usize, ends: &mut [Option<End>], poll: &Poll, buffer: &mut [u8]) -> io::Result<()> {
    let pair = token & !1;
    let [Some(first), Some(second)] = &mut ends[pair..pair + 2] else { return Ok(()) };
    let (this, other) = if token == pair { (first, second) } else { (second, first) };
    if !this.unsent.is_empty() {
        let sent = write(&mut this.stream, &this.unsent)?;
        this.unsent.drain(..sent);
    } else if other.unsent.is_empty() && !this.is_finished {
        let received = match this.stream.read(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if received == 0 {
            this.is_finished = true;
            other.stream.shutdown(Shutdown::Write)?;
        }
        let sent = write(&mut other.stream, &buffer[..received])?;
        other.unsent.extend_from_slice(&buffer[sent..received]);
    }
    if this.is_finished && other.is_finished && this.unsent.is_empty() && other.unsent.is_empty() {
        return Err(ErrorKind::ConnectionAborted.into());
    }
    this.wait_for_what_is_next(other, poll, token)?;
    other.wait_for_what_is_next(this, poll, token ^ 1)
}

impl End {
    fn wait_for_what_is_next(&mut self, other: &End, poll: &Poll, token: usize) -> io::Result<()> {
        let interest = if !self.unsent.is_empty() {
            Interest::Write
        } else if self.is_finished || !other.unsent.is_empty() {
            Interest::None
        } else {
            Interest::Read
        };
        if interest != self.interest {
            self.interest = interest;
            poll.change(&self.stream, token, interest)?;
        }
        Ok(())
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relay on a thread of its own, which ends with the test's process; both ends of one connection through it.
    fn start() -> (TcpStream, TcpStream) {
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let downstream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let upstream = origin.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, upstream));
        (downstream, origin.accept().unwrap().0)
    }

    #[test]
    fn bytes_pass_both_ways_whole_while_the_reader_is_slow() {
        let (mut downstream, mut upstream) = start();
        let sent: Vec<u8> = (0..12_000_000_u32).map(|n| n as u8).collect();
        let theirs = sent.clone();
        let writer = std::thread::spawn(move || {
            upstream.write_all(&theirs).unwrap();
            upstream.shutdown(Shutdown::Write).unwrap();
            let mut heard = Vec::new();
            upstream.read_to_end(&mut heard).unwrap();
            heard
        });
        let mut received = Vec::new();
        downstream.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {} bytes, or other bytes", received.len(), sent.len());
        downstream.write_all(b"after the other half closed").unwrap();
        downstream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(writer.join().unwrap(), b"after the other half closed");
    }
}
