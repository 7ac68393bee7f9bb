//! The client: raw bytes out, answers read strictly, and how the connection ended.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::http::{BodyReader, Message, response_head};

/// How a connection ended, or that it did not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Fin,
    Reset,
    /// Nothing came for as long as the client waits.
    Silence,
}

/// What came in place of a response.
pub(crate) enum Answer {
    /// A response, whole.
    Whole(Message),
    /// The connection ended, or nothing more came, before a response was whole; what was there of it.
    Broken(Message, End),
    /// What came is no response.
    Malformed(String),
}

/// A connection to a proxy.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    bytes: Vec<u8>,
    at: usize,
    /// Status codes of interim responses before the last answer.
    pub(crate) interim: Vec<u16>,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr, patience: Duration) -> Client {
        Client::over(TcpStream::connect(to).expect("the proxy listens"), patience)
    }

    /// As [`Client::connect`], from an address that nobody else uses.
    pub(crate) fn connect_from(from: SocketAddr, to: SocketAddr, patience: Duration) -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&from.into()).expect("an address of loopback");
        socket.connect(&to.into()).expect("the proxy listens");
        Client::over(socket.into(), patience)
    }

    pub(crate) fn over(stream: TcpStream, patience: Duration) -> Client {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(patience)).expect("a socket");
        stream.set_write_timeout(Some(patience)).expect("a socket");
        Client { stream, bytes: Vec::new(), at: 0, interim: Vec::new() }
    }

    /// Sends; a proxy that has closed already is none of the sender's business.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// No more will be sent.
    pub(crate) fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Waits for an interim response; `None` when something else comes.
    pub(crate) fn next_interim(&mut self) -> Option<u16> {
        loop {
            match response_head(self.unread()) {
                Ok(Some((head, end))) if head.status() < 200 => {
                    self.at += end;
                    return Some(head.status());
                }
                Ok(None) if self.receive().is_none() => {}
                _ => return None,
            }
        }
    }

    /// The next response, which answers a request with `method`.
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        self.interim.clear();
        let mut message = Message::default();
        let head = loop {
            match response_head(&self.bytes[self.at..]) {
                Err(why) => return Answer::Malformed(format!("{why}: {}", self.unread().escape_ascii())),
                Ok(Some((head, end))) => {
                    self.at += end;
                    if head.status() >= 200 || head.status() == 101 {
                        break head;
                    }
                    self.interim.push(head.status());
                }
                Ok(None) => {
                    if let Some(end) = self.receive() {
                        return Answer::Broken(message, end);
                    }
                }
            }
        };
        let framing = match head.response_framing(method) {
            Ok(framing) => framing,
            Err(why) => return Answer::Malformed(why),
        };
        message.head = head;
        let mut reader = BodyReader::new(framing);
        loop {
            match reader.read(&self.bytes, &mut self.at, &mut message) {
                Err(why) => return Answer::Malformed(why),
                Ok(true) => return Answer::Whole(message),
                Ok(false) => {}
            }
            if let Some(end) = self.receive() {
                if end == End::Fin {
                    reader.on_close(&mut message);
                }
                return match message.is_whole {
                    true => Answer::Whole(message),
                    false => Answer::Broken(message, end),
                };
            }
        }
    }

    /// Whether anything has come that was not read yet.
    pub(crate) fn has_answer(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let is_there = self.stream.peek(&mut [0; 1]).is_ok();
        self.stream.set_nonblocking(false).expect("a socket");
        is_there
    }

    /// What comes after the answers: nothing but the end, one hopes.
    pub(crate) fn end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Some(end) = self.receive() {
                return (self.unread().to_vec(), end);
            }
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// Receives more; how the connection ended when nothing comes.
    fn receive(&mut self) -> Option<End> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Some(End::Fin),
            Ok(count) => {
                self.bytes.extend(&buffer[..count]);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(End::Silence),
            Err(_) => Some(End::Reset),
        }
    }
}
