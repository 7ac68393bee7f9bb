//! One end of an HTTP/2 connection between a peer that sends frames as it likes and owners of streams that do as they like:
//! what it tells and what it sends is the same however the bytes are cut, a stream's events come in their order, no window
//! is passed on either side, nothing of the connection's window is lost, and all that is sent can be read.
//!
//! Longer than 500 lines: one story from the steps to both ends, and a sixth of it are words.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wire::{
    Tick,
    head::{Method, RequestHead, RequestView, ResponseHead, ResponseView, Version},
    http1::{
        encode::{BodyOut, HeadEdits, ResponseEdits},
        parse::{self, Limits, Parsed},
    },
    http2::{
        Config, Connection, Event, Keepalive, StreamKey,
        budget::{Allowance, FrameBounds},
        error::{ConnectionError, ErrorCode},
        settings::Settings,
    },
};

use crate::{
    connection::{LIMITS, TRAILER_LIMITS},
    frames::{self, END_HEADERS, END_STREAM, Frame, kind},
    reference::hpack,
};

/// Steps: a frame is its type, flags, stream, how long it is, and its payload; the others are in [`World::step`].
pub const WORDS: &[&str] = &[
    // GET http a /, whole and ended, on 1, 3 and 5; and not ended.
    "\u{1}\u{5}\u{1}\u{6}\u{82}\u{86}\u{84}\u{41}\u{1}a",
    "\u{1}\u{5}\u{3}\u{6}\u{82}\u{86}\u{84}\u{41}\u{1}a",
    "\u{1}\u{5}\u{5}\u{4}\u{82}\u{86}\u{84}\u{be}",
    "\u{1}\u{4}\u{1}\u{6}\u{83}\u{86}\u{84}\u{41}\u{1}a",
    "\u{1}\u{4}\u{3}\u{6}\u{83}\u{86}\u{84}\u{41}\u{1}a",
    "\u{1}\u{4}\u{1}\u{b}\u{83}\u{86}\u{84}\u{41}\u{1}a\u{f}\u{d}\u{2}10",
    "\u{1}\u{4}\u{7}\u{b}\u{83}\u{86}\u{84}\u{41}\u{1}a\u{f}\u{d}\u{2}10",
    // In two frames.
    "\u{1}\u{0}\u{1}\u{2}\u{82}\u{86}\u{9}\u{4}\u{1}\u{4}\u{84}\u{41}\u{1}a",
    // 200, ended or not, and with a length; 103.
    "\u{1}\u{5}\u{1}\u{1}\u{88}",
    "\u{1}\u{4}\u{1}\u{1}\u{88}",
    "\u{1}\u{4}\u{1}\u{6}\u{88}\u{f}\u{d}\u{2}10",
    "\u{1}\u{4}\u{1}\u{5}\u{8}\u{3}103",
    // Trailers.
    "\u{1}\u{5}\u{1}\u{5}\u{0}\u{1}x\u{1}y",
    // DATA, some of it padded, or the end.
    "\u{0}\u{0}\u{1}\u{5}hello",
    "\u{0}\u{1}\u{1}\u{5}world",
    "\u{0}\u{1}\u{1}\u{0}",
    "\u{0}\u{0}\u{1}\u{0}",
    "\u{0}\u{8}\u{1}\u{4}\u{2}a\u{0}\u{0}",
    "\u{0}\u{8}\u{1}\u{0}",
    "\u{a}\u{0}\u{1}\u{3f}",
    "\u{a}\u{9}\u{1}\u{3f}",
    "\u{a}\u{0}\u{3}\u{20}",
    // PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, another.
    "\u{2}\u{0}\u{1}\u{5}\u{0}\u{0}\u{0}\u{0}\u{9}",
    "\u{2}\u{0}\u{1}\u{4}\u{0}\u{0}\u{0}\u{0}",
    "\u{3}\u{0}\u{1}\u{4}\u{0}\u{0}\u{0}\u{8}",
    "\u{4}\u{0}\u{0}\u{6}\u{0}\u{4}\u{0}\u{0}\u{0}\u{10}",
    "\u{4}\u{0}\u{0}\u{6}\u{0}\u{1}\u{0}\u{0}\u{0}\u{0}",
    "\u{4}\u{0}\u{0}\u{6}\u{0}\u{3}\u{0}\u{0}\u{0}\u{1}",
    "\u{4}\u{1}\u{0}\u{0}",
    "\u{6}\u{0}\u{0}\u{8}12345678",
    "\u{6}\u{1}\u{0}\u{8}rw-delay",
    "\u{6}\u{1}\u{0}\u{8}rw-alive",
    "\u{6}\u{1}\u{0}\u{8}rw-leave",
    "\u{7}\u{0}\u{0}\u{8}\u{0}\u{0}\u{0}\u{1}\u{0}\u{0}\u{0}\u{0}",
    "\u{8}\u{0}\u{0}\u{4}\u{0}\u{1}\u{0}\u{0}",
    "\u{8}\u{0}\u{1}\u{4}\u{0}\u{1}\u{0}\u{0}",
    "\u{8}\u{0}\u{1}\u{4}\u{0}\u{0}\u{0}\u{0}",
    "\u{8}\u{0}\u{1}\u{4}\u{7f}\u{ff}\u{ff}\u{ff}",
    "\u{b}\u{0}\u{1}\u{2}hi",
    // What owners do, and time.
    "\u{10}\u{0}\u{10}",
    "\u{11}\u{0}",
    "\u{12}\u{0}",
    "\u{13}\u{0}\u{0}",
    "\u{13}\u{0}\u{1}",
    "\u{14}\u{0}\u{30}",
    "\u{14}\u{1}\u{30}",
    "\u{15}\u{0}",
    "\u{16}\u{0}",
    "\u{17}\u{0}",
    "\u{17}\u{1}",
    "\u{17}\u{2}",
    "\u{18}\u{30}",
    "\u{19}\u{4}",
    "\u{f}",
];

/// Small, so that a few frames reach every bound.
pub const CONFIG: Config = Config {
    settings: Settings {
        table_bytes: 4096,
        streams_max: 4,
        window_bytes: 65_535,
        payload_bytes_max: 16 * 1024,
        head_bytes_max: u32::MAX,
        connect_protocol: false,
    },
    stream_window_bytes_max: 128 * 1024,
    connection_window_bytes: WINDOW_BYTES as u32,
    own_streams_max: 4,
    head: LIMITS,
    trailers: TRAILER_LIMITS,
    resets: Allowance { most: 5, per_second: 1, per_use: 0 },
    chatter: Allowance { most: 20, per_second: 5, per_use: 2 },
    frames: FrameBounds {
        empty_max: 2,
        priority_per_stream_max: 2,
        window_updates_per_data_max: 2,
        answers_max: 10,
    },
    keepalive: Some(Keepalive {
        interval: Some(Duration::from_secs(10)),
        idle_interval: None,
        timeout: Duration::from_secs(2),
    }),
};

const WINDOW_BYTES: i64 = 128 * 1024;

/// Judges steps; the first byte says which end it is.
pub fn run(bytes: &[u8]) {
    let Some((first, steps)) = bytes.split_first() else { return };
    let is_server = first % 2 == 0;
    let whole = World::run(is_server, steps, Cut::Never);
    for cut in [Cut::Everywhere, Cut::Random(policy::Rng::new(u64::from(*first)))] {
        let other = World::run(is_server, steps, cut);
        assert_eq!(other.len(), whole.len(), "{}", bytes.escape_ascii());
        for (at, (other, whole)) in other.iter().zip(&whole).enumerate() {
            assert_eq!(other, whole, "step {at} of {}", bytes.escape_ascii());
        }
    }
}

/// The frames of the peer among the steps.
pub fn frames_of(steps: &[u8]) -> Vec<Frame> {
    let (mut steps, mut frames) = (steps.iter().copied(), Vec::new());
    while let Some(kind) = steps.next().map(|step| step % STEPS) {
        let others = match kind {
            0..=14 => {
                frames.extend(next_frame(kind, &mut steps));
                0
            }
            15 => 0,
            16 | 19 | 20 => 2,
            _ => 1,
        };
        steps.by_ref().take(others).for_each(drop);
    }
    frames
}

/// The frame that a step of this kind sends; `None` where its steps end.
fn next_frame(kind: u8, steps: &mut impl Iterator<Item = u8>) -> Option<Frame> {
    // A type that has no meaning comes without flags.
    let flags = if kind <= 10 { steps.next()? } else { 0 };
    let kind = if kind <= 10 { kind } else { steps.next()? | 0x10 };
    let (stream, length) = (stream_of(steps.next()?), steps.next()?);
    if kind == 10 {
        let mut payload = vec![b'x'; (usize::from(length) * 256).min(16 * 1024)];
        if let Some(first) = payload.first_mut() {
            *first = length;
        }
        return Some(Frame::new(kind::DATA, flags, stream, payload));
    }
    let payload: Vec<u8> = steps.take(usize::from(length)).collect();
    Some(Frame::new(kind, flags, stream, payload))
}

/// Kinds of steps.
const STEPS: u8 = 26;

/// How the network cuts.
enum Cut {
    Never,
    Everywhere,
    Random(policy::Rng),
}

/// What was told. DATA of one stream in a row is one.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    Request(StreamKey, Vec<u8>),
    TooLarge(StreamKey),
    Response(StreamKey, Vec<u8>),
    Data(StreamKey, Vec<u8>, bool),
    Trailers(StreamKey, Vec<u8>),
    Reset(StreamKey, ErrorCode),
    Window(Option<StreamKey>),
    Settings,
    GoAway(ErrorCode),
    Error(ConnectionError),
}

/// What a step did: what was told, and what was sent.
type Done = (Vec<Told>, Vec<u8>);

/// A stream that was not released.
#[derive(Default)]
struct Live {
    /// The head that is not an interim one has come.
    has_head: bool,
    is_ended: bool,
    is_reset: bool,
    /// Bytes of DATA that were told and not consumed.
    held: usize,
}

struct World {
    is_server: bool,
    wire: Connection,
    now: Tick,
    cut: Cut,
    unread: Vec<u8>,
    /// The end of a frame that has not been delivered whole, and the frame.
    half: Option<(Vec<u8>, Frame)>,
    /// The next frame waits here for the one behind it.
    holds: bool,
    held: Vec<Frame>,
    told: Vec<Told>,
    live: BTreeMap<StreamKey, Live>,
    error: Option<ConnectionError>,
    peer: Peer,
}

/// What the peer knows, from what it has sent and received.
struct Peer {
    /// What it may send.
    window: i64,
    /// What it has let us send.
    send_window: i64,
    initial_window: i64,
    /// Of each stream, by how much its window differs from the initial one.
    streams: BTreeMap<u32, i64>,
    decoder: hpack::Decoder,
    /// A block that goes on.
    block: Option<(u32, Vec<u8>)>,
    /// Streams that we have reset, or ended.
    reset: BTreeSet<u32>,
    ended: BTreeSet<u32>,
    /// Streams that exist, or did.
    known: BTreeSet<u32>,
    last: u32,
}

impl World {
    fn run(is_server: bool, steps: &[u8], cut: Cut) -> Vec<Done> {
        let now = Tick(1_000_000_000);
        let mut world = World {
            is_server,
            wire: Connection::new(is_server, CONFIG, now),
            now,
            cut,
            unread: Vec::new(),
            half: None,
            holds: false,
            held: Vec::new(),
            told: Vec::new(),
            live: BTreeMap::new(),
            error: None,
            peer: Peer::new(),
        };
        let preface = if is_server { &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..] } else { b"" };
        world.deliver(&[preface, &Frame::new(kind::SETTINGS, 0, 0, []).bytes()].concat());
        let mut done = vec![world.end_step()];
        let mut steps = steps.iter().copied();
        while world.error.is_none() && world.step(&mut steps).is_some() {
            done.push(world.end_step());
        }
        if let Some((rest, frame)) = world.half.take().filter(|_| world.error.is_none()) {
            world.deliver(&rest);
            world.peer.on_frame(&frame);
        }
        done.push(world.end_step());
        world.end();
        done
    }

    /// Does the next step; `None` when there is none.
    fn step(&mut self, steps: &mut impl Iterator<Item = u8>) -> Option<()> {
        match steps.next()? % STEPS {
            kind @ 0..=14 => {
                let frame = next_frame(kind, steps)?;
                self.send(frame);
            }
            // The next frame comes together with the one behind it.
            15 => self.holds = true,
            16 => {
                let (key, count) = (self.any(steps.next()?), usize::from(steps.next()?) * 256);
                let Some(key) = key else { return Some(()) };
                let live = self.live.get_mut(&key)?;
                let count = count.min(live.held);
                live.held -= count;
                self.wire.consume(key, count);
            }
            17 => {
                if let Some(key) = self.any(steps.next()?) {
                    self.release(key);
                }
            }
            18 => {
                if let Some(key) = self.any(steps.next()?) {
                    self.wire.reset(key, ErrorCode::CANCEL);
                    self.live.get_mut(&key)?.is_reset = true;
                }
            }
            19 => {
                let (key, how) = (self.any(steps.next()?), steps.next()?);
                if let Some(key) = key.filter(|_| self.is_server) {
                    self.answer(key, how);
                }
            }
            20 => {
                let (which, length) = (steps.next()?, steps.next()?);
                if let Some(key) = self.any(which / 2) {
                    let bytes = vec![b'y'; usize::from(length) * 256];
                    let sent = self.wire.send_data(key, &bytes, which % 2 == 1);
                    assert!(sent <= bytes.len());
                }
            }
            21 => {
                if let Some(key) = self.any(steps.next()?) {
                    self.wire.send_trailers(key, b"X-Sum: 1\r\nother:  2 \r\n");
                }
            }
            22 => self.ask(steps.next()?),
            23 => match steps.next()? % 3 {
                0 => self.wire.announce_leaving(),
                1 => self.wire.leave(ErrorCode::NO_ERROR),
                _ => {
                    while let Some(key) = self.wire.next_refused() {
                        assert!(!self.is_server);
                        self.live.get_mut(&key).expect("a stream that is there").is_reset = true;
                    }
                }
            },
            24 => {
                // Half of a frame; the next step that sends sends the rest before.
                let at = usize::from(steps.next()?);
                let frame = Frame::new(kind::DATA, 0, 1, vec![b'z'; 40]);
                if self.half.is_none() {
                    let bytes = frame.bytes();
                    let (now, later) = bytes.split_at(at.min(bytes.len()));
                    self.peer.on_begin(&frame);
                    self.deliver(now);
                    self.half = Some((later.to_vec(), frame));
                }
            }
            _ => {
                self.now = self.now.after(Duration::from_millis(u64::from(steps.next()?) * 500));
                if let Err(error) = self.wire.on_timeout(self.now) {
                    self.fail(error);
                }
            }
        }
        Some(())
    }

    fn any(&self, which: u8) -> Option<StreamKey> {
        let keys: Vec<StreamKey> = self.live.keys().copied().collect();
        (!keys.is_empty()).then(|| keys[usize::from(which) % keys.len()])
    }

    fn send(&mut self, frame: Frame) {
        if let Some((rest, frame)) = self.half.take() {
            self.deliver(&rest);
            self.peer.on_frame(&frame);
        }
        self.held.push(frame);
        if std::mem::take(&mut self.holds) {
            return;
        }
        let frames = std::mem::take(&mut self.held);
        frames.iter().for_each(|frame| self.peer.on_begin(frame));
        self.deliver(&frames.iter().flat_map(Frame::bytes).collect::<Vec<u8>>());
        frames.iter().for_each(|frame| self.peer.on_frame(frame));
        let is_passed = self.peer.window < 0;
        assert!(!is_passed || self.error.is_some(), "more was taken than the window of the connection");
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.error.is_none() {
            let count = match &mut self.cut {
                Cut::Never => rest.len(),
                Cut::Everywhere => 1,
                Cut::Random(rng) => 1 + rng.below(rest.len() as u64) as usize,
            };
            let (piece, behind) = rest.split_at(count);
            rest = behind;
            self.unread.extend_from_slice(piece);
            self.receive();
        }
    }

    fn receive(&mut self) {
        let unread = std::mem::take(&mut self.unread);
        let mut done = 0;
        while self.error.is_none() {
            match self.wire.receive(&unread[done..], self.now) {
                Ok((count, None)) => {
                    done += count;
                    break;
                }
                Ok((count, Some(event))) => {
                    done += count;
                    self.note(event);
                }
                Err(error) => self.fail(error),
            }
        }
        self.unread = unread[done..].to_vec();
        // What is left is the beginning of one frame.
        let is_whole = matches!(self.unread[..], [0, a, b, ..] if self.unread.len() >= 9 + usize::from(a) * 256 + usize::from(b));
        assert!(self.error.is_some() || !is_whole, "a whole frame was left");
    }

    fn fail(&mut self, error: ConnectionError) {
        self.error = Some(error);
        self.told.push(Told::Error(error));
        assert_eq!(self.wire.receive(b"anything", self.now), Ok((0, None)));
    }

    fn note(&mut self, event: Event<'_>) {
        let told = match event {
            Event::Request { stream } => {
                let mut head = RequestHead::default();
                let text = self.wire.take_request(&mut head).to_vec();
                assert!(self.is_server && head.end as usize == text.len());
                let live = Live { has_head: true, ..Live::default() };
                assert!(self.live.insert(stream, live).is_none(), "a stream in the place of another");
                self.ended(stream);
                Told::Request(stream, text)
            }
            Event::TooLarge { stream, .. } => {
                let live = Live { has_head: true, ..Live::default() };
                assert!(self.live.insert(stream, live).is_none(), "a stream in the place of another");
                self.ended(stream);
                Told::TooLarge(stream)
            }
            Event::Response { stream } => {
                let mut head = ResponseHead::default();
                let text = self.wire.take_response(&mut head).to_vec();
                let live = self.alive(stream);
                assert!(!live.has_head);
                live.has_head = head.status >= 200;
                self.ended(stream);
                assert!(!self.is_server);
                Told::Response(stream, text)
            }
            Event::Data { stream, bytes, ends } => {
                let live = self.alive(stream);
                assert!(live.has_head, "DATA before a head");
                live.held += bytes.len();
                live.is_ended = ends;
                assert_eq!(self.wire.has_received_all(stream), ends);
                if let Some(Told::Data(last, all, ended)) = self.told.last_mut()
                    && *last == stream
                {
                    all.extend_from_slice(bytes);
                    *ended = ends;
                    return;
                }
                Told::Data(stream, bytes.to_vec(), ends)
            }
            Event::Trailers { stream } => {
                let live = self.alive(stream);
                assert!(live.has_head);
                live.is_ended = true;
                Told::Trailers(stream, self.wire.trailers().to_vec())
            }
            Event::Reset { stream, code } => {
                let live = self.live.get_mut(&stream).expect("a stream that is there");
                assert!(!live.is_reset, "it was reset before");
                live.is_reset = true;
                Told::Reset(stream, code)
            }
            Event::Window { stream } => {
                assert!(stream.is_none_or(|stream| self.live.contains_key(&stream)));
                Told::Window(stream)
            }
            Event::Settings => Told::Settings,
            Event::GoAway { code } => Told::GoAway(code),
        };
        self.told.push(told);
    }

    /// A stream of which more may be told.
    fn alive(&mut self, key: StreamKey) -> &mut Live {
        let live = self.live.get_mut(&key).expect("a stream that is there");
        assert!(!live.is_reset && !live.is_ended, "of a stream that is over");
        live
    }

    /// Takes note of whether a head was the end.
    fn ended(&mut self, key: StreamKey) {
        let is_ended = self.wire.has_received_all(key);
        self.live.get_mut(&key).expect("a stream that is there").is_ended = is_ended;
    }

    fn release(&mut self, key: StreamKey) {
        let held = self.live.remove(&key).map_or(0, |live| live.held);
        self.wire.release(key);
        self.wire.consume(key, held);
    }

    fn answer(&mut self, key: StreamKey, how: u8) {
        let long = format!("HTTP/1.1 200 \r\nx-long: {}\r\n\r\n", "v".repeat(17_000));
        let text = match how / 2 % 4 {
            0 => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-A: b\r\n\r\n",
            1 => "HTTP/1.1 103 Early\r\nlink: x\r\n\r\n",
            2 => "HTTP/1.1 204 \r\nset-cookie: a\r\n\r\n",
            _ => &long,
        };
        let mut head = ResponseHead::default();
        let limits = Limits { head_bytes_max: 1 << 16, headers_count_max: 10, target_bytes_max: 0 };
        assert_eq!(parse::response(text.as_bytes(), &limits, Method::Get, &mut head), Ok(Parsed::Complete));
        let edits = ResponseEdits {
            headers: &[],
            body: BodyOut::None,
            close: false,
            version: Version::Http11,
            method: Method::Get,
        };
        let ends = how % 2 == 1 && head.status >= 200;
        self.wire.send_response(key, ResponseView { head: &head, bytes: text.as_bytes() }, &edits, ends);
    }

    fn ask(&mut self, how: u8) {
        let Some(key) = self.wire.open() else { return };
        assert!(self.live.insert(key, Live::default()).is_none());
        let text = match how % 3 {
            0 => "GET /a HTTP/1.1\r\nhost: b\r\nX-A: c\r\n\r\n",
            1 => "POST / HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n",
            _ => "HEAD / HTTP/1.1\r\nhost: b\r\ncookie: d\r\n\r\n",
        };
        let mut head = RequestHead::default();
        assert_eq!(parse::request(text.as_bytes(), &LIMITS, &mut head), Ok(Parsed::Complete));
        let view = RequestView { head: &head, bytes: text.as_bytes() };
        self.wire.send_request(key, view, &HeadEdits::default(), b"https").expect("it has no edits");
    }

    /// Takes what was told and sent.
    fn end_step(&mut self) -> Done {
        assert_eq!(self.wire.streams_count(), self.live.len());
        assert!(self.wire.streams_count() <= CONFIG.settings.streams_max as usize);
        let mut out = Vec::new();
        self.wire.take_output(&mut out);
        assert!(out.len() < 200_000);
        let frames = frames::read(out.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(&out));
        for frame in &frames {
            self.peer.receive(frame, self.is_server);
        }
        if let Some(error) = self.error
            && let Some(last) = frames.last()
        {
            assert_eq!((last.kind, last.number(4)), (kind::GOAWAY, error.code().0), "{error:?}");
        }
        (std::mem::take(&mut self.told), out)
    }

    /// All that is held is given back, and nothing is left.
    fn end(mut self) {
        if self.error.is_some() {
            return;
        }
        while let Some(key) = self.any(0) {
            self.release(key);
        }
        self.end_step();
        assert_eq!(self.wire.streams_count(), 0);
        // What is less than a half is given later.
        assert!(self.peer.window > WINDOW_BYTES / 2, "{} of the window is left", self.peer.window);
    }
}

/// Small ids, two far ones, and the last.
fn stream_of(byte: u8) -> u32 {
    match byte {
        0..=251 => u32::from(byte),
        252 => (1 << 31) + 1,
        253 => 1001,
        254 => (1 << 31) - 3,
        255 => (1 << 31) - 1,
    }
}

impl Peer {
    fn new() -> Peer {
        Peer {
            window: 65_535,
            send_window: 65_535,
            initial_window: 65_535,
            streams: BTreeMap::new(),
            decoder: hpack::Decoder::new(4096),
            block: None,
            reset: BTreeSet::new(),
            ended: BTreeSet::new(),
            known: BTreeSet::new(),
            last: u32::MAX,
        }
    }

    /// It begins to send this.
    fn on_begin(&mut self, frame: &Frame) {
        if frame.kind == kind::DATA {
            self.window -= frame.payload.len() as i64;
        }
        if frame.kind == kind::HEADERS {
            self.known.insert(frame.stream & (u32::MAX >> 1));
        }
    }

    /// It has sent this.
    fn on_frame(&mut self, frame: &Frame) {
        match frame.kind {
            kind::SETTINGS if frame.flags & 1 == 0 => {
                for setting in frame.payload.chunks_exact(6).filter(|setting| setting[..2] == [0, 4]) {
                    let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                    self.initial_window = i64::from(value);
                }
            }
            kind::WINDOW_UPDATE if frame.payload.len() == 4 => {
                let more = i64::from(frame.number(0) & (u32::MAX >> 1));
                match frame.stream & (u32::MAX >> 1) {
                    0 => self.send_window += more,
                    id => *self.streams.entry(id).or_default() += more,
                }
            }
            _ => {}
        }
    }

    /// It reads what we sent.
    fn receive(&mut self, frame: &Frame, from_server: bool) {
        let Frame { kind, flags, stream, payload } = frame;
        assert!(payload.len() <= 16 * 1024);
        if let Some((id, _)) = &self.block {
            assert_eq!((*kind, stream), (kind::CONTINUATION, id), "a block in between");
        }
        let ends = flags & END_STREAM != 0;
        match *kind {
            kind::DATA => {
                self.may_go_on(*stream);
                let count = payload.len() as i64;
                self.send_window -= count;
                let window = self.streams.entry(*stream).or_default();
                *window -= count;
                let left = self.send_window.min(self.initial_window + *window);
                assert!(count == 0 || left >= 0, "{count} sent, and a window is {left}");
                self.end_of(*stream, ends);
            }
            kind::HEADERS => {
                self.may_go_on(*stream);
                assert!(from_server || stream % 2 == 1);
                self.known.insert(*stream);
                self.end_of(*stream, ends);
                self.block = Some((*stream, payload.clone()));
                self.end_block(*flags);
            }
            kind::CONTINUATION => {
                let (_, block) = self.block.as_mut().expect("a block that goes on");
                block.extend_from_slice(payload);
                self.end_block(*flags);
            }
            kind::RST_STREAM => {
                // One below those that exist was passed over, and is closed (RFC 9113 §5.1.1).
                let is_known = self.known.last().is_some_and(|last| stream <= last);
                assert!(is_known, "a reset of {stream}, which nobody opened");
                self.reset.insert(*stream);
            }
            kind::GOAWAY => {
                let last = frame.number(0);
                assert!(last <= self.last, "{last} is more than was said before");
                self.last = last;
            }
            kind::WINDOW_UPDATE => {
                assert!(frame.number(0) > 0);
                if *stream == 0 {
                    self.window += i64::from(frame.number(0));
                    assert!(self.window <= WINDOW_BYTES, "more than the whole window");
                }
            }
            kind::SETTINGS | kind::PING => assert_eq!(*stream, 0),
            other => panic!("a frame of type {other} was sent"),
        }
    }

    fn may_go_on(&self, stream: u32) {
        assert!(!self.reset.contains(&stream), "{stream} was reset by us");
        assert!(!self.ended.contains(&stream), "{stream} was ended by us");
    }

    fn end_of(&mut self, stream: u32, ends: bool) {
        if ends {
            self.ended.insert(stream);
        }
    }

    fn end_block(&mut self, flags: u8) {
        if flags & END_HEADERS == 0 {
            return;
        }
        let (_, block) = self.block.take().expect("a block that goes on");
        let fields = self.decoder.decode(&block).unwrap_or_else(|| panic!("{}", block.escape_ascii()));
        for (name, value, _) in fields {
            assert!(!name.iter().any(u8::is_ascii_uppercase) && !value.iter().any(|byte| *byte < b' '));
        }
    }
}
