//! One end of a connection: what is sent on it. What is received is in `receive`.

use alloc::vec::Vec;
use core::time::Duration;

use super::{
    budget::{Account, Allowance, FrameBounds, Frames},
    error::{ConnectionError, ErrorCode},
    flow::{RecvWindow, SendWindow, WINDOW_BYTES_INITIAL},
    frame::{self, PREFACE, STREAM_ID_MAX},
    head::Writer,
    hpack::{Decoder, Encoder},
    receive::Reading,
    settings::Settings,
    stream::{Half, Stream, StreamKey, Streams},
};
use crate::{
    Tick,
    head::{Method, RequestHead, ResponseHead},
    http1::{
        body::TrailerLimits,
        parse::{Limits, ParseError},
    },
};

/// What is settled of a connection before it begins.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What we tell the peer; [`Settings::streams_max`] is also how many streams of its own it may have, and
    /// [`Settings::table_bytes`] the most that we keep for what we send, if the peer takes as much.
    pub settings: Settings,
    /// To what the window of one stream may grow, in bytes; at least [`Settings::window_bytes`].
    pub stream_window_bytes_max: u32,
    /// The window of the connection: what all its streams together may hold that nobody took, in bytes.
    pub connection_window_bytes: u32,
    /// Streams of ours at a time, whatever the peer allows.
    pub own_streams_max: u32,
    /// Bounds of the heads that come.
    pub head: Limits,
    /// Bounds of the trailers that come.
    pub trailers: TrailerLimits,
    /// What the peer may do without purpose: streams that are reset.
    pub resets: Allowance,
    /// And frames that move nothing.
    pub chatter: Allowance,
    /// And frames that have a measure of their own.
    pub frames: FrameBounds,
    /// Whether the peer is asked for a sign of life.
    pub keepalive: Option<Keepalive>,
}

/// When a silent peer is asked for a sign of life (Envoy: `connection_keepalive`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// So long after the last byte came; `None` is never.
    pub interval: Option<Duration>,
    /// Before a stream is opened on a connection that was silent for so long ([`Connection::ask_when_idle`]); `None` is never.
    pub idle_interval: Option<Duration>,
    /// How long it has for the answer, or for anything else.
    pub timeout: Duration,
}

/// What came. Bytes are those that were received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A request head; [`Connection::take_request`] has it until the next call of `receive`.
    Request {
        /// Its stream.
        stream: StreamKey,
    },
    /// A request head that is more than we take. Its stream waits for an answer.
    TooLarge {
        /// Its stream.
        stream: StreamKey,
        /// What is too large.
        error: ParseError,
    },
    /// A response head, interim or final; [`Connection::take_response`] has it until the next call of `receive`.
    Response {
        /// Its stream.
        stream: StreamKey,
    },
    /// A part of the body, maybe empty where it ends. The caller says with [`Connection::consume`] when it has found a
    /// place for it that is not memory.
    Data {
        /// Its stream.
        stream: StreamKey,
        /// The part.
        bytes: &'a [u8],
        /// Nothing follows.
        ends: bool,
    },
    /// Trailers, which end the body; [`Connection::trailers`] has them until the next call of `receive`.
    Trailers {
        /// Their stream.
        stream: StreamKey,
    },
    /// The stream was reset, by the peer or by us for what the peer did. Nothing more comes on it, and nothing that is
    /// sent on it arrives.
    Reset {
        /// The stream.
        stream: StreamKey,
        /// Why.
        code: ErrorCode,
    },
    /// More may be sent, on this stream, or on any that has room of its own.
    Window {
        /// `None` is any.
        stream: Option<StreamKey>,
    },
    /// The peer has said what it takes: any stream may have more room.
    Settings,
    /// The peer takes no new streams. Those that it has not looked at are given by [`Connection::next_refused`].
    GoAway {
        /// Why.
        code: ErrorCode,
    },
}

/// One end of an HTTP/2 connection. The contract is in the module's documentation.
#[derive(Debug)]
pub struct Connection {
    pub(super) is_server: bool,
    pub(super) config: Config,
    pub(super) peer: Settings,
    /// The peer has said what it takes.
    pub(super) peer_is_known: bool,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) out: Vec<u8>,
    pub(super) reading: Reading,
    /// Fields that came in more than one frame.
    pub(super) block: Vec<u8>,
    pub(super) writer: Writer,
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
    pub(super) streams: Streams,
    pub(super) send_window: SendWindow,
    pub(super) recv_window: RecvWindow,
    pub(super) growth: Growth,
    /// The last id that the peer opened.
    pub(super) peer_last: u32,
    /// The ids between these two the peer has passed over, the last time that it did so.
    pub(super) peer_passed_over: (u32, u32),
    /// The last id that we took, as the last GOAWAY said; those above were not looked at.
    taken_last: u32,
    /// The id of our next stream.
    pub(super) own_next: u32,
    /// Streams that we have reset not long ago, on which frames may be on their way still.
    pub(super) reset_lately: Vec<u32>,
    reset_lately_next: usize,
    /// The last stream that the peer will look at.
    pub(super) peer_takes_until: Option<u32>,
    /// How far our own leaving is.
    leaving: Leaving,
    pub(super) resets: Account,
    pub(super) chatter: Account,
    pub(super) frames: Frames,
    pub(super) last_received: Tick,
    /// When a sign of life was asked for.
    pub(super) asked_at: Option<Tick>,
}

/// Streams of ours before the peer has said how many it takes: no server should take fewer (RFC 9113 §6.5.2).
const STREAMS_UNTIL_KNOWN: u32 = 100;

/// How many of our resets are remembered: as many as streams may end at once, within these bounds.
const RESET_LATELY_MIN: usize = 64;
const RESET_LATELY_MAX: usize = 1024;

/// How the connection is left (RFC 9113 §6.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    No,
    /// The peer was told that we will leave, and is asked for a sign that it has heard.
    Announced,
    /// It was told the last stream that we take.
    Final,
}

/// The size that the windows of streams shall have: what is on its way in one round trip, as far as that was seen. While a
/// PING is on its way bytes are counted. A window is opened in steps of half, so in a round trip that it holds up a half of it
/// comes, less the frame that was there when the PING went; three eighths are taken for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    pub(super) window_bytes: u32,
    pub(super) counted: u32,
    pub(super) is_measuring: bool,
}

/// What our PINGs carry, to tell them apart.
pub(super) const PING_GROWTH: [u8; 8] = *b"rw-delay";
const PING_ALIVE: [u8; 8] = *b"rw-alive";
const PING_LEAVING: [u8; 8] = *b"rw-leave";

/// Output that is waiting to be taken, in bytes, above which no more DATA is added: what one send may carry.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

impl Connection {
    /// A connection that begins `now`. What is to be sent first is output already.
    pub fn new(is_server: bool, config: Config, now: Tick) -> Connection {
        let mut out = Vec::new();
        if !is_server {
            out.extend_from_slice(PREFACE);
        }
        config.settings.write(is_server, &mut out);
        let window = config.connection_window_bytes.max(WINDOW_BYTES_INITIAL);
        let mut recv_window = RecvWindow::new(WINDOW_BYTES_INITIAL);
        if let Some(more) = recv_window.consume(0, window) {
            frame::write_window_update(0, more, &mut out);
        }
        Connection {
            is_server,
            config,
            peer: Settings::default(),
            peer_is_known: false,
            decoder: Decoder::new(config.settings.table_bytes),
            encoder: Encoder::new(config.settings.table_bytes),
            out,
            reading: Reading::begin(is_server),
            block: Vec::new(),
            writer: Writer::new(config.settings.connect_protocol),
            request: RequestHead::default(),
            response: ResponseHead::default(),
            streams: Streams::default(),
            send_window: SendWindow::new(WINDOW_BYTES_INITIAL),
            recv_window,
            growth: Growth { window_bytes: config.settings.window_bytes, counted: 0, is_measuring: false },
            peer_last: 0,
            peer_passed_over: (0, 0),
            taken_last: STREAM_ID_MAX,
            own_next: 1,
            reset_lately: Vec::new(),
            reset_lately_next: 0,
            peer_takes_until: None,
            leaving: Leaving::No,
            resets: Account::new(config.resets, now),
            chatter: Account::new(config.chatter, now),
            frames: Frames::new(config.frames),
            last_received: now,
            asked_at: None,
        }
    }

    // ---- output ----

    /// Whether there is output to be taken.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Changes places with an empty vector, which has the output then.
    pub fn take_output(&mut self, empty: &mut Vec<u8>) {
        debug_assert!(empty.is_empty(), "what it holds would be sent again");
        self.frames.taken();
        core::mem::swap(&mut self.out, empty);
    }

    /// Bytes of output that wait to be taken.
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    // ---- heads ----

    /// The request head of the last event, in exchange for one whose memory is used for the next; and its text.
    pub fn take_request(&mut self, head: &mut RequestHead) -> &[u8] {
        core::mem::swap(&mut self.request, head);
        self.writer.text()
    }

    /// The response head of the last event, in the same way.
    pub fn take_response(&mut self, head: &mut ResponseHead) -> &[u8] {
        core::mem::swap(&mut self.response, head);
        self.writer.text()
    }

    /// The trailer lines of the last event, each with its line end.
    pub fn trailers(&self) -> &[u8] {
        self.writer.trailer_lines()
    }

    // ---- streams ----

    /// A new stream for a request; `None` when the peer, or we, allow no other now.
    pub fn open(&mut self) -> Option<StreamKey> {
        if !self.can_open() {
            return None;
        }
        Some(self.streams.insert(Stream {
            // It gets one when its head goes out: they must go up in the order in which they are sent.
            id: 0,
            receiving: Half::Head,
            sending: Half::Head,
            is_reset: false,
            by_peer: false,
            send_window: SendWindow::new(self.peer.window_bytes),
            recv_window: RecvWindow::new(self.config.settings.window_bytes),
            body_left: None,
            method: Method::Get,
            protocol: None,
        }))
    }

    /// Whether [`Connection::open`] would give a stream.
    pub fn can_open(&self) -> bool {
        // What the peer takes is on its way until its SETTINGS are here, and more than that it refuses.
        let takes = if self.peer_is_known { self.peer.streams_max } else { STREAMS_UNTIL_KNOWN };
        let most = takes.min(self.config.own_streams_max) as usize;
        // Each that is open may be one that has no id yet.
        let ids_left = (STREAM_ID_MAX + 2).saturating_sub(self.own_next) / 2;
        !self.is_server && !self.is_leaving() && self.streams.live_count() < most.min(ids_left as usize)
    }

    /// Whether no new streams come about, because one side is leaving. What a client says of the streams of a server means
    /// nothing, since there are none.
    pub fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No || !self.is_server && self.peer_takes_until.is_some()
    }

    /// Whether the other end is the client.
    pub fn is_server(&self) -> bool {
        self.is_server
    }

    /// Whether the peer was told the last stream that we take.
    pub fn has_left(&self) -> bool {
        self.leaving == Leaving::Final
    }

    /// Streams that were not released.
    pub fn streams_count(&self) -> usize {
        self.streams.live_count()
    }

    /// Whether the peer has said what it takes.
    pub fn is_heard(&self) -> bool {
        self.peer_is_known
    }

    /// Whether the peer takes CONNECT with a protocol; `None` before it has said what it takes.
    pub fn peer_takes_protocols(&self) -> Option<bool> {
        self.peer_is_known.then_some(self.peer.connect_protocol)
    }

    /// Whether the request, or the response, has been received to its end.
    pub fn has_received_all(&self, key: StreamKey) -> bool {
        self.streams.get(key).is_none_or(|stream| stream.receiving == Half::Ended)
    }

    /// A stream of ours that the peer said it has not looked at; each is given once.
    pub fn next_refused(&mut self) -> Option<StreamKey> {
        // A server has none, and its client's word is not about the client's own.
        let last = self.peer_takes_until.filter(|_| !self.is_server)?;
        // Without an id it would get one that is above the last.
        let is_refused = |stream: &Stream| (stream.id == 0 || stream.id > last) && !stream.is_reset;
        let (key, stream) = self.streams.iter_mut().find(|(_, stream)| is_refused(stream))?;
        stream.is_reset = true;
        Some(key)
    }

    /// Ends a stream, whatever state it is in, and forgets it.
    pub fn release(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.remove(key) else { return };
        if stream.is_reset || stream.sending == Half::Ended && stream.receiving == Half::Ended {
            return;
        }
        if stream.id == 0 {
            return;
        }
        // A server that has said everything needs no more of the request (RFC 9113 §8.1).
        let code = match stream.sending == Half::Ended && self.is_server {
            true => ErrorCode::NO_ERROR,
            false => ErrorCode::CANCEL,
        };
        self.write_reset(stream.id, code);
    }

    /// Resets a stream; it must still be released.
    pub fn reset(&mut self, key: StreamKey, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) else { return };
        stream.is_reset = true;
        let id = stream.id;
        if id != 0 {
            self.write_reset(id, code);
        }
    }

    pub(super) fn write_reset(&mut self, id: u32, code: ErrorCode) {
        frame::write_reset(id, code, &mut self.out);
        if self.reset_lately.contains(&id) {
            return;
        }
        let most = (self.config.settings.streams_max as usize).clamp(RESET_LATELY_MIN, RESET_LATELY_MAX);
        match self.reset_lately.get_mut(self.reset_lately_next) {
            Some(place) => *place = id,
            None => self.reset_lately.push(id),
        }
        self.reset_lately_next = (self.reset_lately_next + 1) % most;
    }

    // ---- life ----

    /// A PING of ours was answered, if one with this payload is on its way.
    pub(super) fn on_pong(&mut self, payload: [u8; 8]) {
        match payload {
            PING_GROWTH if self.growth.is_measuring => {
                let growth = &mut self.growth;
                if growth.counted >= growth.window_bytes / 8 * 3 {
                    growth.window_bytes =
                        growth.window_bytes.saturating_mul(2).min(self.config.stream_window_bytes_max);
                }
                growth.counted = 0;
                growth.is_measuring = false;
            }
            PING_ALIVE => self.asked_at = None,
            PING_LEAVING if self.leaving == Leaving::Announced => self.leave(ErrorCode::NO_ERROR),
            _ => {}
        }
    }

    /// Announces that we will leave: the peer is told to open no more streams, those that are on their way are taken still.
    pub fn announce_leaving(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Announced;
            frame::write_go_away(STREAM_ID_MAX, ErrorCode::NO_ERROR, &mut self.out);
            frame::write_ping(PING_LEAVING, 0, &mut self.out);
        }
    }

    /// Leaves: streams that come from now on are not looked at; those that are here go on.
    pub fn leave(&mut self, code: ErrorCode) {
        if self.leaving != Leaving::Final {
            self.say_last(code);
        }
    }

    /// Leaves at once, for what the peer did; it is told why, whatever it was told before.
    pub(super) fn fail(&mut self, code: ErrorCode) {
        self.say_last(code);
    }

    fn say_last(&mut self, code: ErrorCode) {
        self.leaving = Leaving::Final;
        // What was not taken once is never (RFC 9113 §6.8).
        self.taken_last = self.taken_last.min(self.peer_last);
        frame::write_go_away(self.taken_last, code, &mut self.out);
    }

    /// Whether frames on a stream that nobody has may be on their way still: it was given up by us, or not looked at.
    pub(super) fn is_given_up(&self, id: u32) -> bool {
        !self.is_server || id > self.taken_last || self.reset_lately.contains(&id)
    }

    /// When [`Connection::on_timeout`] wants to be called.
    pub fn deadline(&self) -> Tick {
        match (self.config.keepalive, self.asked_at) {
            (None, _) => Tick::NEVER,
            (Some(keepalive), None) => {
                keepalive.interval.map_or(Tick::NEVER, |interval| self.last_received.after(interval))
            }
            // Who sends anything is there.
            (Some(keepalive), Some(asked_at)) => asked_at.max(self.last_received).after(keepalive.timeout),
        }
    }

    /// Looks what it is time for.
    pub fn on_timeout(&mut self, now: Tick) -> Result<(), ConnectionError> {
        if now < self.deadline() {
            return Ok(());
        }
        if self.asked_at.is_some() {
            self.fail(ConnectionError::PingTimeout.code());
            return Err(ConnectionError::PingTimeout);
        }
        self.ask(now);
        Ok(())
    }

    /// A stream is about to be opened: asks for a sign of life where the connection was silent for long. The stream does not
    /// wait for it, and ends with the connection if none comes.
    pub fn ask_when_idle(&mut self, now: Tick) {
        let interval = self.config.keepalive.and_then(|keepalive| keepalive.idle_interval);
        let is_due = interval.is_some_and(|interval| now >= self.last_received.after(interval));
        if is_due && self.asked_at.is_none() {
            self.ask(now);
        }
    }

    fn ask(&mut self, now: Tick) {
        self.asked_at = Some(now);
        frame::write_ping(PING_ALIVE, 0, &mut self.out);
    }
}
