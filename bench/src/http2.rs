//! What our ends of HTTP/2 connections have in common, and a client that waits. They stand on `wire`, as the proxy does:
//! here costs are compared. That the protocol is spoken rightly is shown by those who share no code with it, the peers'
//! own ends and h2load.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use wire::Tick;
use wire::head::{Framing, RequestHead, RequestView, ResponseHead};
use wire::http1::body::TrailerLimits;
use wire::http1::encode::HeadEdits;
use wire::http1::parse::{self, Limits, Parsed};
use wire::http2::budget::{Allowance, FrameBounds};
use wire::http2::settings::Settings;
use wire::http2::{Config, Connection, Event, StreamKey};

/// Streams that our ends take at a time: more than any workload has.
const STREAMS_MAX: u32 = 256;
/// What a stream and a connection may have on their way: so much that few frames say that there may be more.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 24;
/// Longest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most headers of one.
const HEADERS_COUNT_MAX: usize = 100;
/// Bytes before a message of gRPC: whether it is compressed, and its length.
pub const GRPC_PREFIX_BYTES: usize = 5;
/// What ends an answer of gRPC that is a good one.
pub const GRPC_GOOD: &[u8] = b"grpc-status: 0\r\n";

const LIMITS: Limits = Limits {
    head_bytes_max: HEAD_BYTES_MAX,
    headers_count_max: HEADERS_COUNT_MAX,
    target_bytes_max: HEAD_BYTES_MAX,
};

/// A new end of a connection. Who is measured is trusted: nothing is counted against it.
pub(crate) fn connection(is_server: bool) -> Connection {
    let allowance = Allowance { most: u32::MAX, per_second: u32::MAX, per_use: 0 };
    let config = Config {
        settings: Settings {
            streams_max: STREAMS_MAX,
            window_bytes: STREAM_WINDOW_BYTES,
            ..Settings::default()
        },
        stream_window_bytes_max: STREAM_WINDOW_BYTES,
        connection_window_bytes: CONNECTION_WINDOW_BYTES,
        own_streams_max: STREAMS_MAX,
        head: LIMITS,
        trailers: TrailerLimits { bytes_max: HEAD_BYTES_MAX, count_max: HEADERS_COUNT_MAX },
        resets: allowance,
        chatter: allowance,
        frames: FrameBounds::NONE,
        keepalive: None,
    };
    Connection::new(is_server, config, Tick::default())
}

/// A request, read once from the text that it would be over HTTP/1.1. A body of unknown length lies behind it as it is.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: RequestHead,
    text: Box<[u8]>,
}

impl Request {
    /// `None` when the text is no request.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let mut head = RequestHead::default();
        let parsed = parse::request(text, &LIMITS, &mut head).ok()?;
        (parsed == Parsed::Complete).then(|| Self { head, text: text.into() })
    }

    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.head.framing, Framing::None | Framing::Length(0))
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.text[self.head.end as usize..]
    }

    /// Begins a stream with the head, if the peer allows one more.
    pub(crate) fn begin(&self, wire: &mut Connection) -> Option<StreamKey> {
        let stream = wire.open()?;
        let view = RequestView { head: &self.head, bytes: &self.text };
        wire.send_request(stream, view, &HeadEdits::default(), b"http").ok()?;
        Some(stream)
    }
}

/// Reads a response head that was written here.
pub(crate) fn response(text: &[u8]) -> Option<ResponseHead> {
    let mut head = ResponseHead::default();
    parse::response(text, &LIMITS, wire::head::Method::Get, &mut head).ok()?;
    Some(head)
}

/// A message of gRPC that is not compressed, with what comes before it.
pub fn grpc_message(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// An answer as a [`Client`] gives it.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The head as HTTP/1.1 would have it, and the body behind it.
    pub whole: Vec<u8>,
    /// Trailer lines.
    pub trailers: Vec<u8>,
}

/// A client with one request at a time, which waits for the answer.
pub struct Client {
    stream: TcpStream,
    wire: Connection,
    /// Received, and not whole.
    input: Vec<u8>,
}

impl Client {
    /// On a connection on which nothing was said.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, wire: connection(false), input: Vec::new() }
    }

    /// The answer to a request, which is given as it would be over HTTP/1.1.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        let request = Request::read(request).ok_or(ErrorKind::InvalidInput)?;
        let stream = request.begin(&mut self.wire).ok_or(ErrorKind::ResourceBusy)?;
        let mut unsent = request.body();
        let mut answer = Answer::default();
        let mut is_over = false;
        let mut part = vec![0; 64 * 1024];
        while !is_over {
            loop {
                if request.has_body() && !self.wire.has_sent_all(stream) {
                    let sent = self.wire.send_data(stream, unsent, true);
                    unsent = &unsent[sent..];
                }
                let mut output = Vec::new();
                self.wire.take_output(&mut output);
                if output.is_empty() {
                    break;
                }
                self.stream.write_all(&output)?;
            }
            match self.stream.read(&mut part)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&part[..count]),
            }
            is_over = self.receive(stream, &mut answer)?;
        }
        self.wire.release(stream);
        Ok(answer)
    }

    /// Takes what has come; whether the answer is over.
    fn receive(&mut self, stream: StreamKey, answer: &mut Answer) -> io::Result<bool> {
        let mut done = 0;
        loop {
            let (count, event) =
                self.wire.receive(&self.input[done..], Tick::default()).map_err(io::Error::other)?;
            done += count;
            match event {
                None => break,
                Some(Event::Response { .. }) => {
                    answer.whole = self.wire.take_response(&mut ResponseHead::default()).to_vec();
                }
                Some(Event::Data { bytes, .. }) => {
                    answer.whole.extend_from_slice(bytes);
                    self.wire.consume(stream, bytes.len());
                }
                Some(Event::Trailers { .. }) => answer.trailers = self.wire.trailers().to_vec(),
                Some(Event::Reset { .. } | Event::GoAway { .. }) => {
                    return Err(ErrorKind::ConnectionReset.into());
                }
                Some(_) => {}
            }
        }
        self.input.drain(..done);
        Ok(self.wire.has_received_all(stream))
    }
}
