//! Whole connections: two ends joined in memory, and frames made by hand against one end.

mod budgets;
mod flow;
mod frames;
mod heads;
mod leaving;
mod steady;
mod stories;

use std::{collections::BTreeMap, format, string::String, vec::Vec};

use super::{
    Config, Connection, Event, StreamKey,
    budget::{Allowance, FrameBounds},
    error::{ConnectionError, ErrorCode},
    frame::{FRAME_HEAD_BYTES, FrameHead, Kind, PREFACE},
    hpack::tests::Random,
    settings::Settings,
};
use crate::{
    Tick,
    head::{Method, RequestHead, RequestView, ResponseHead, ResponseView, Version},
    http1::{
        body::TrailerLimits,
        encode::{Answer, BodyOut, Edit, HeadEdits, ResponseEdits},
        parse::{self, Limits, Parsed},
    },
};

/// Small, so that stories reach every bound.
fn config() -> Config {
    Config {
        settings: Settings { streams_max: 8, ..Settings::default() },
        stream_window_bytes_max: 256 * 1024,
        connection_window_bytes: 128 * 1024,
        own_streams_max: 8,
        head: Limits { head_bytes_max: 40_000, headers_count_max: 20, target_bytes_max: 2000 },
        trailers: TrailerLimits { bytes_max: 300, count_max: 4 },
        resets: Allowance { most: 20, per_second: 10, per_use: 0 },
        chatter: Allowance { most: 100, per_second: 10, per_use: 5 },
        frames: FrameBounds {
            empty_max: 1,
            priority_per_stream_max: 10,
            window_updates_per_data_max: 2,
            answers_max: 50,
        },
        keepalive: None,
    }
}

/// One end, and what it has told, one line for each event.
struct End {
    wire: Connection,
    now: Tick,
    /// By stream id.
    keys: BTreeMap<u32, StreamKey>,
    told: Vec<String>,
    error: Option<ConnectionError>,
    /// Gives back what comes at once.
    consumes: bool,
    received: Vec<u8>,
}

impl End {
    /// One that has nothing to send yet.
    fn new(is_server: bool, config: Config) -> End {
        let now = Tick(1_000_000_000_000);
        let wire = Connection::new(is_server, config, now);
        End {
            wire,
            now,
            keys: BTreeMap::new(),
            told: Vec::new(),
            error: None,
            consumes: true,
            received: Vec::new(),
        }
    }

    /// A server that has the preface and the settings of its client, and has said what it says then.
    fn server(config: Config) -> End {
        let mut end = End::new(true, config);
        end.receive(&[&PREFACE[..], &settings(&[])].concat());
        assert_eq!(end.take_told(), ["settings"]);
        end.take();
        end
    }

    /// A client that has the settings of its server, and has asked: GET, HEAD, POST (not ended) and CONNECT, on 1 to 7.
    fn client(config: Config) -> End {
        let mut end = End::new(false, config);
        end.receive(&settings(&[]));
        for method in ["GET / ", "HEAD / ", "POST / ", "CONNECT a:1 "] {
            let framing = if method == "POST / " { "transfer-encoding: chunked\r\n" } else { "" };
            let host = if method == "CONNECT a:1 " { "a:1" } else { "a" };
            end.ask(&format!("{method}HTTP/1.1\r\nhost: {host}\r\n{framing}\r\n"));
        }
        end.take_told();
        end.take();
        end
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        let received = core::mem::take(&mut self.received);
        let mut done = 0;
        while self.error.is_none() {
            let (count, event) = match self.wire.receive(&received[done..], self.now) {
                Ok(received) => received,
                Err(error) => {
                    self.told.push(format!("error {error:?}"));
                    return self.error = Some(error);
                }
            };
            done += count;
            match event {
                None => break,
                Some(event) => self.note(event),
            }
        }
        self.received = received[done..].to_vec();
    }

    fn id(&mut self, key: StreamKey) -> u32 {
        let id = self.wire.streams.get(key).unwrap().id;
        self.keys.insert(id, key);
        id
    }

    fn note(&mut self, event: Event<'_>) {
        let line = match event {
            Event::Request { stream } => {
                let mut head = RequestHead::default();
                let text = shown(self.wire.take_request(&mut head));
                format!("request {}: {text}", self.id(stream))
            }
            Event::TooLarge { stream, error } => format!("too large {}: {error:?}", self.id(stream)),
            Event::Response { stream } => {
                let mut head = ResponseHead::default();
                let text = shown(self.wire.take_response(&mut head));
                format!("response {}: {text}", self.id(stream))
            }
            Event::Data { stream, bytes, ends } => {
                if self.consumes {
                    self.wire.consume(stream, bytes.len());
                }
                let text = format!("{}{}", bytes.escape_ascii(), if ends { " end" } else { "" });
                let begin = format!("data {}: ", self.id(stream));
                if let Some(last) = self.told.last_mut().filter(|last| last.starts_with(&begin)) {
                    last.push_str(&text);
                    return;
                }
                begin + &text
            }
            Event::Trailers { stream } => {
                let lines = shown(self.wire.trailers());
                format!("trailers {}: {lines}", self.id(stream))
            }
            Event::Reset { stream, code } => format!("reset {} {}", self.id(stream), name_of(code)),
            Event::Window { stream: Some(stream) } => format!("window {}", self.id(stream)),
            Event::Window { stream: None } => "window".into(),
            Event::Settings => "settings".into(),
            Event::GoAway { code } => format!("goaway {}", name_of(code)),
        };
        self.told.push(line);
    }

    /// What was told since the last time.
    fn take_told(&mut self) -> Vec<String> {
        core::mem::take(&mut self.told)
    }

    fn take(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.wire.take_output(&mut out);
        out
    }

    /// The frames that were sent since the last time, one line for each.
    fn sent(&mut self) -> Vec<String> {
        let out = self.take();
        frames(out.strip_prefix(&PREFACE[..]).unwrap_or(&out)).iter().map(Frame::shown).collect()
    }

    // ---- what an owner does ----

    /// Sends a request on a new stream; its id.
    fn ask(&mut self, text: &str) -> u32 {
        let key = self.wire.open().unwrap();
        self.send_request(key, text)
    }

    fn send_request(&mut self, key: StreamKey, text: &str) -> u32 {
        let mut head = RequestHead::default();
        let limits = Limits { head_bytes_max: 1 << 20, headers_count_max: 256, target_bytes_max: 1 << 20 };
        assert_eq!(parse::request(text.as_bytes(), &limits, &mut head), Ok(Parsed::Complete), "{text}");
        let view = RequestView { head: &head, bytes: text.as_bytes() };
        self.wire.send_request(key, view, &HeadEdits::default(), b"http").unwrap();
        self.id(key)
    }

    /// Sends a response head.
    fn answer(&mut self, id: u32, text: &str, ends: bool) {
        let mut head = ResponseHead::default();
        let limits = Limits { head_bytes_max: 1 << 20, headers_count_max: 256, target_bytes_max: 0 };
        let parsed = parse::response(text.as_bytes(), &limits, Method::Get, &mut head);
        assert_eq!(parsed, Ok(Parsed::Complete), "{text}");
        let edits = ResponseEdits {
            headers: &[],
            body: BodyOut::None,
            close: false,
            version: Version::Http11,
            method: Method::Get,
        };
        let view = ResponseView { head: &head, bytes: text.as_bytes() };
        self.wire.send_response(self.keys[&id], view, &edits, ends);
    }

    fn data(&mut self, id: u32, bytes: &[u8], ends: bool) -> usize {
        self.wire.send_data(self.keys[&id], bytes, ends)
    }

    fn trailers(&mut self, id: u32, lines: &str) {
        self.wire.send_trailers(self.keys[&id], lines.as_bytes());
    }

    fn release(&mut self, id: u32) {
        self.wire.release(self.keys.remove(&id).unwrap());
    }

    fn release_all(&mut self) {
        core::mem::take(&mut self.keys).into_values().for_each(|key| self.wire.release(key));
    }
}

/// Two ends, and a network between them that cuts what it carries.
struct Pair {
    client: End,
    server: End,
    random: Random,
    piece_bytes_max: usize,
}

impl Pair {
    fn new(piece_bytes_max: usize) -> Pair {
        Pair::of(config(), config(), piece_bytes_max)
    }

    fn of(client: Config, server: Config, piece_bytes_max: usize) -> Pair {
        let (client, server) = (End::new(false, client), End::new(true, server));
        let mut pair = Pair { client, server, random: Random::new(piece_bytes_max as u64), piece_bytes_max };
        pair.run();
        assert_eq!(pair.client.take_told()[0], "settings");
        pair.server.take_told();
        pair
    }

    /// Carries what there is to carry, until both have said all.
    fn run(&mut self) {
        loop {
            let (up, down) = (self.client.take(), self.server.take());
            if up.is_empty() && down.is_empty() {
                return;
            }
            for (bytes, end) in [(up, &mut self.server), (down, &mut self.client)] {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, behind) =
                        rest.split_at((1 + self.random.below(self.piece_bytes_max)).min(rest.len()));
                    end.receive(piece);
                    rest = behind;
                }
            }
        }
    }
}

/// Lines of a head, without its empty one, and `|` for their ends.
fn shown(head: &[u8]) -> String {
    let text = head.strip_suffix(b"\r\n\r\n").or(head.strip_suffix(b"\r\n")).unwrap_or(head);
    format!("{}", text.escape_ascii()).replace("\\r\\n", "|")
}

fn name_of(code: ErrorCode) -> &'static str {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES.get(code.0 as usize).copied().unwrap_or("?")
}

// ---- frames made by hand ----

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// END_STREAM, or ACK.
const END: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// HEADERS that are whole.
fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// A GET that is ended.
fn get(stream: u32) -> Vec<u8> {
    headers(stream, END, GET)
}

/// A POST that is not.
fn post(stream: u32) -> Vec<u8> {
    headers(stream, 0, &[(":method", "POST"), GET[1], GET[2], GET[3]])
}

const GET: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

fn data(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn ping(flags: u8) -> Vec<u8> {
    frame(PING, flags, 0, b"pingpong")
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &values.iter().flat_map(value).collect::<Vec<u8>>())
}

/// A field block of literals that no table keeps, whatever bytes they have. Every character is one byte.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let bytes: Vec<u8> = text.chars().map(|c| c as u8).collect();
            if bytes.len() < 127 {
                block.push(bytes.len() as u8);
            } else {
                block.push(127);
                let mut rest = bytes.len() - 127;
                while rest >= 128 {
                    block.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(&bytes);
        }
    }
    block
}

/// A frame that was sent.
struct Frame {
    head: FrameHead,
    payload: Vec<u8>,
}

/// The frames of `bytes`, which hold nothing else.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut rest = bytes;
    let mut frames = Vec::new();
    while let Some((head, behind)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() {
        let head = FrameHead::read(head);
        let (payload, behind) = behind.split_at(head.length as usize);
        frames.push(Frame { head, payload: payload.to_vec() });
        rest = behind;
    }
    assert!(rest.is_empty(), "{rest:?}");
    frames
}

impl Frame {
    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(*self.payload[at..].first_chunk().unwrap())
    }

    fn shown(&self) -> String {
        let FrameHead { length, kind, flags, stream } = self.head;
        let end = if flags & END != 0 { " end" } else { "" };
        let ack = if flags & END != 0 { " ack" } else { "" };
        match kind {
            Kind::Data => format!("DATA {stream} {length}{end}"),
            Kind::Headers => format!("HEADERS {stream}{end}"),
            Kind::Continuation => format!("CONTINUATION {stream}"),
            Kind::RstStream => format!("RST_STREAM {stream} {}", name_of(ErrorCode(self.number(0)))),
            Kind::Settings => format!("SETTINGS{ack}"),
            Kind::Ping => format!("PING{ack}"),
            Kind::GoAway => format!("GOAWAY {} {}", self.number(0), name_of(ErrorCode(self.number(4)))),
            Kind::WindowUpdate => format!("WINDOW_UPDATE {stream} {}", self.number(0)),
            Kind::Priority | Kind::PushPromise | Kind::Unknown => format!("{kind:?} {stream}"),
        }
    }
}
