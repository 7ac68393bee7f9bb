//! Both ends of HTTP/2 on blocking sockets, for tests on a real kernel: `wire`'s own, which other tests hold against foreign
//! ones.

// Each test binary uses its own part.
#![allow(dead_code)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use wire::{
    Tick,
    head::{Method, RequestHead, RequestView, ResponseHead, ResponseView, Version},
    http1::{
        body::TrailerLimits,
        encode::{BodyOut, HeadEdits, ResponseEdits},
        parse::{self, Limits},
    },
    http2::{
        Config, Connection, Event,
        budget::{Allowance, FrameBounds},
        settings::Settings,
    },
};

const LIMITS: Limits =
    Limits { head_bytes_max: 60 * 1024, headers_count_max: 100, target_bytes_max: 8 * 1024 };

fn config() -> Config {
    let plenty = Allowance { most: u32::MAX, per_second: 0, per_use: 0 };
    Config {
        settings: Settings { streams_max: 100, ..Settings::default() },
        stream_window_bytes_max: 1 << 20,
        connection_window_bytes: 4 << 20,
        own_streams_max: 100,
        head: LIMITS,
        trailers: TrailerLimits { bytes_max: 16 * 1024, count_max: 100 },
        resets: plenty,
        chatter: plenty,
        frames: FrameBounds::NONE,
        keepalive: None,
    }
}

/// One end of a connection.
struct Link {
    stream: TcpStream,
    wire: Connection,
    received: Vec<u8>,
    done: usize,
    out: Vec<u8>,
}

/// What came, without borrowing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    Head(wire::http2::StreamKey),
    Data(wire::http2::StreamKey, usize, bool),
    /// Trailers, in so many bytes.
    Trailers(wire::http2::StreamKey, usize),
    Reset,
    Other,
    Closed,
}

impl Link {
    fn new(stream: TcpStream, is_server: bool) -> Link {
        stream.set_nodelay(true).unwrap();
        let wire = Connection::new(is_server, config(), Tick(0));
        Link { stream, wire, received: Vec::with_capacity(1 << 20), done: 0, out: Vec::new() }
    }

    fn flush(&mut self) {
        self.wire.take_output(&mut self.out);
        self.stream.write_all(&self.out).unwrap();
        self.out.clear();
    }

    fn next(&mut self) -> Came {
        loop {
            let rest = self.received.get(self.done..).unwrap_or_default();
            let (count, event) = self.wire.receive(rest, Tick(0)).unwrap();
            self.done += count;
            match event {
                Some(Event::Request { stream } | Event::Response { stream }) => return Came::Head(stream),
                Some(Event::Data { stream, bytes, ends }) => return Came::Data(stream, bytes.len(), ends),
                Some(Event::Trailers { stream }) => {
                    return Came::Trailers(stream, self.wire.trailers().len());
                }
                Some(Event::Reset { .. } | Event::TooLarge { .. }) => return Came::Reset,
                Some(_) => return Came::Other,
                None => {}
            }
            self.received.drain(..self.done);
            self.done = 0;
            self.flush();
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(count) if count > 0 => self.received.extend_from_slice(&piece[..count]),
                _ => return Came::Closed,
            }
        }
    }
}

/// A client with one connection.
pub(crate) struct StreamClient(Link);

impl StreamClient {
    pub(crate) fn connect(to: SocketAddr) -> StreamClient {
        StreamClient(Link::new(TcpStream::connect(to).unwrap(), false))
    }

    /// Sends a request, whose head is given as HTTP/1.1 has it; gives the status and how long body and trailers are.
    pub(crate) fn ask(&mut self, head: &[u8], body: &[u8]) -> (u16, usize, usize) {
        let link = &mut self.0;
        let mut request = RequestHead::default();
        parse::request(head, &LIMITS, &mut request).unwrap();
        let stream = link.wire.open().unwrap();
        let view = RequestView { head: &request, bytes: head };
        link.wire.send_request(stream, view, &HeadEdits::default(), b"http").unwrap();
        if !body.is_empty() {
            assert_eq!(link.wire.send_data(stream, body, true), body.len(), "longer than a frame");
        }
        link.flush();
        let (mut response, mut length, mut trailers) = (ResponseHead::default(), 0, 0);
        loop {
            match link.next() {
                Came::Head(_) => {
                    link.wire.take_response(&mut response);
                }
                Came::Data(_, count, _) => {
                    length += count;
                    link.wire.consume(stream, count);
                }
                Came::Trailers(_, count) => trailers = count,
                Came::Other => {}
                end => panic!("{end:?}"),
            }
            if link.wire.has_received_all(stream) {
                link.wire.release(stream);
                return (response.status, length, trailers);
            }
        }
    }
}

/// What a server answers: a head as HTTP/1.1 has it, a body, and trailer lines if there are any.
#[derive(Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) head: &'static [u8],
    pub(crate) body: &'static [u8],
    pub(crate) trailers: &'static [u8],
}

/// A server on threads of its own that answers every request so when it came whole.
pub(crate) fn stream_origin(answered: Answered) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(Link::new(stream.unwrap(), true), answered));
        }
    });
    address
}

fn serve(mut link: Link, Answered { head: bytes, body, trailers }: Answered) {
    let mut head = ResponseHead::default();
    parse::response(bytes, &LIMITS, Method::Get, &mut head).unwrap();
    loop {
        let stream = match link.next() {
            Came::Head(stream) | Came::Trailers(stream, _) => stream,
            Came::Data(stream, count, _) => {
                link.wire.consume(stream, count);
                stream
            }
            Came::Other | Came::Reset => continue,
            Came::Closed => return,
        };
        if link.wire.has_received_all(stream) {
            let edits = ResponseEdits {
                headers: &[],
                body: BodyOut::None,
                close: false,
                version: Version::Http11,
                method: Method::Get,
            };
            link.wire.send_response(stream, ResponseView { head: &head, bytes }, &edits, false);
            link.wire.send_data(stream, body, trailers.is_empty());
            if !trailers.is_empty() {
                link.wire.send_trailers(stream, trailers);
            }
            link.wire.release(stream);
            link.flush();
        }
    }
}
