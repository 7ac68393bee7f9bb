//! HTTP/2 as these tests speak it: frames by hand, so that they can be wrong in any way, on either side of a proxy.
//!
//! Heads go out as literals that no table keeps. What comes is decompressed by `wire`, whose HPACK is held to the suites and
//! the peers of others elsewhere; all else is read here, strictly.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use wire::http2::hpack::Decoder;

use crate::{
    client::{Answer, End},
    http::Message,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GO_AWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const PADDED: u8 = 0x8;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest payload of a frame.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// A field: name and value.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// One end of a connection.
pub(crate) struct Peer {
    stream: TcpStream,
    bytes: Vec<u8>,
    decoder: Decoder,
    /// The block that is not whole yet: its stream, whether it ends that, and its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    pub(crate) streams: BTreeMap<u32, Got>,
    /// What the other end said last: the last stream that it takes, and why it leaves.
    pub(crate) go_away: Option<(u32, u32)>,
    /// How it ended.
    pub(crate) end: Option<End>,
    /// Whether room is made for what comes as soon as it is there.
    pub(crate) makes_room: bool,
}

/// What came on one stream.
#[derive(Clone, Default)]
pub(crate) struct Got {
    pub(crate) message: Message,
    pub(crate) interim: Vec<u16>,
    pub(crate) reset: Option<u32>,
    has_head: bool,
}

/// What became of a stream.
pub(crate) enum Outcome {
    Whole(Message),
    Reset(u32, Message),
    /// Its connection ended, after GOAWAY with this code.
    Gone(Option<u32>, End),
    Silence(Message),
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field block.
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            string(text, &mut out);
        }
    }
    out
}

/// A string of HPACK, as it is.
pub(crate) fn string(text: &[u8], out: &mut Vec<u8>) {
    // Seven bits are for the length, and more of it follows where they do not hold it.
    match text.len() {
        length @ 0..127 => out.push(u8::try_from(length).expect("below 127")),
        length => {
            out.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                out.push(u8::try_from(rest % 128).expect("below 128") | 128);
                rest /= 128;
            }
            out.push(u8::try_from(rest).expect("below 128"));
        }
    }
    out.extend(text);
}

/// A head in as many frames as it needs.
pub(crate) fn head(stream: u32, ends: bool, fields: &[Field<'_>]) -> Vec<u8> {
    let block = block(fields);
    let mut parts = block.chunks(PAYLOAD_BYTES_MAX).peekable();
    let (mut out, mut kind) = (Vec::new(), HEADERS);
    while let Some(part) = parts.next() {
        let ends = if ends && kind == HEADERS { END_STREAM } else { 0 };
        let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
        out.extend(frame(kind, ends | last, stream, part));
        kind = CONTINUATION;
    }
    out
}

/// A setting in a frame of its own.
pub(crate) fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub(crate) fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(GO_AWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// The fields of a request with an id, to which more may be added.
pub(crate) fn request<'a>(method: &'a str, path: &'a str, id: &'a str) -> Vec<Field<'a>> {
    vec![
        (b":method", method.as_bytes()),
        (b":scheme", b"http"),
        (b":authority", b"a"),
        (b":path", path.as_bytes()),
        (b"x-id", id.as_bytes()),
    ]
}

impl Peer {
    /// A client that has said what it begins with, and `settings` behind it.
    pub(crate) fn connect(to: SocketAddr, patience: Duration, settings: &[u8]) -> Peer {
        let stream = TcpStream::connect(to).expect("the proxy listens");
        let mut peer = Peer::over(stream, patience);
        let all_streams_share = window_update(0, (1 << 31) - 1 - 65_535);
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, b""), settings, &all_streams_share].concat());
        peer
    }

    /// A server; its client must begin as one.
    pub(crate) fn accept(stream: TcpStream, patience: Duration, settings: &[u8]) -> io::Result<Peer> {
        let mut peer = Peer::over(stream, patience);
        let mut preface = [0; 24];
        peer.stream.read_exact(&mut preface)?;
        if preface != PREFACE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        peer.send(&[&frame(SETTINGS, 0, 0, b""), settings].concat());
        Ok(peer)
    }

    fn over(stream: TcpStream, patience: Duration) -> Peer {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(patience)).expect("a socket");
        stream.set_write_timeout(Some(patience)).expect("a socket");
        Peer {
            stream,
            bytes: Vec::new(),
            decoder: Decoder::new(4096),
            block: None,
            streams: BTreeMap::new(),
            go_away: None,
            end: None,
            makes_room: true,
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends; whether all of it was taken. One that has closed already is none of the sender's business.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Receives until this holds; whether it does.
    pub(crate) fn until(&mut self, mut holds: impl FnMut(&Peer) -> bool) -> bool {
        loop {
            if holds(self) {
                return true;
            }
            if self.end.is_some() {
                return false;
            }
            self.receive();
        }
    }

    /// Waits for what becomes of a stream.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        let is_over = |got: &Got| got.message.is_whole || got.reset.is_some();
        self.until(|peer| peer.streams.get(&stream).is_some_and(is_over));
        let Got { message, reset, .. } = self.streams.get(&stream).cloned().unwrap_or_default();
        match (reset, self.end) {
            _ if message.is_whole => Outcome::Whole(message),
            (Some(code), _) => Outcome::Reset(code, message),
            (None, None | Some(End::Silence)) => Outcome::Silence(message),
            (None, Some(end)) => Outcome::Gone(self.go_away.map(|(_, code)| code), end),
        }
    }

    /// The same as an answer.
    pub(crate) fn answer(&mut self, stream: u32) -> Answer {
        match self.outcome(stream) {
            Outcome::Whole(message) => Answer::Whole(message),
            Outcome::Reset(_, message) => Answer::Broken(message, End::Reset),
            Outcome::Gone(_, end) => Answer::Broken(Message::default(), end),
            Outcome::Silence(message) => Answer::Broken(message, End::Silence),
        }
    }

    /// Receives once.
    fn receive(&mut self) {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.end = Some(End::Fin),
            Ok(count) => self.bytes.extend(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.end = Some(End::Silence),
            Err(_) => self.end = Some(End::Reset),
        }
        while let Some(head) = self.bytes.first_chunk::<9>() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if self.bytes.len() < 9 + length {
                return;
            }
            let payload: Vec<u8> = self.bytes.drain(..9 + length).skip(9).collect();
            self.take(kind, flags, stream, &payload);
        }
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let number = |at: usize| {
            payload.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four))
        };
        match kind {
            DATA => {
                assert_eq!(flags & PADDED, 0, "nobody pads here");
                let got = self.streams.entry(stream).or_default();
                got.message.body.extend(payload);
                got.message.is_whole |= flags & END_STREAM != 0;
                if self.makes_room && !payload.is_empty() {
                    let more = u32::try_from(payload.len()).expect("a frame");
                    self.send(&[window_update(0, more), window_update(stream, more)].concat());
                }
            }
            HEADERS | CONTINUATION => {
                let (stream, ends, mut block) =
                    self.block.take().unwrap_or((stream, flags & END_STREAM != 0, Vec::new()));
                block.extend(payload);
                if flags & END_HEADERS == 0 {
                    self.block = Some((stream, ends, block));
                } else {
                    self.take_fields(stream, ends, &block);
                }
            }
            RST_STREAM => self.streams.entry(stream).or_default().reset = Some(number(0)),
            SETTINGS if flags & ACK == 0 => {
                self.send(&frame(SETTINGS, ACK, 0, b""));
            }
            PING if flags & ACK == 0 => {
                self.send(&frame(PING, ACK, 0, payload));
            }
            GO_AWAY => self.go_away = Some((number(0), number(4))),
            _ => {}
        }
    }

    fn take_fields(&mut self, stream: u32, ends: bool, block: &[u8]) {
        let mut fields = Vec::new();
        let decoded = self.decoder.decode(block, usize::MAX, &mut |field| {
            fields.push((field.name().to_vec(), field.value().to_vec()));
        });
        decoded.expect("a proxy compresses as it should");
        let got = self.streams.entry(stream).or_default();
        got.message.is_whole |= ends;
        if got.has_head {
            return got.message.trailers = fields;
        }
        let pseudo = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name.as_bytes());
            found.map(|(_, value)| value.clone())
        };
        let head = &mut got.message.head;
        head.first = match pseudo(":status") {
            Some(status) => [b"HTTP/2".to_vec(), status, Vec::new()],
            None => [":method", ":path", ":authority"].map(|name| pseudo(name).unwrap_or_default()),
        };
        match head.status() {
            status @ 100..200 => got.interim.push(status),
            _ => {
                got.has_head = true;
                head.headers = fields.into_iter().filter(|(name, _)| !name.starts_with(b":")).collect();
            }
        }
    }
}
