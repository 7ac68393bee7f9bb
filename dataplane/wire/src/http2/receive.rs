//! What comes on a connection: frames, in their order, to events.
//!
//! Longer than 500 lines: the way of a frame is read from top to bottom, and DATA and heads share its state.

use core::mem;

use super::{
    conn::{Connection, Event},
    control::depends_on,
    error::{ConnectionError, ErrorCode, HeadError},
    flow::{RecvWindow, SendWindow},
    frame::{
        self, ACK, END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, FrameHead, Kind, PADDED, PAYLOAD_BYTES_MAX,
        PREFACE, PRIORITY,
    },
    head::Role,
    stream::{Half, Stream, StreamKey},
};
use crate::{
    Tick,
    head::{Framing, Method},
    http1::parse::ParseError,
};

/// Where the reading stands between two calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    /// The preface has not come whole.
    Preface,
    /// SETTINGS must be next.
    First,
    /// Any frame may be next.
    Frame,
    /// In the payload of a DATA frame.
    Data(Data),
    /// CONTINUATION of this block must be next.
    Block(Block),
    /// It failed.
    Failed,
}

/// What is left of a DATA frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Data {
    /// Of a stream that was live when the frame began.
    key: Option<StreamKey>,
    id: u32,
    left: u32,
    padding: u32,
    ends: bool,
}

/// A field block that comes in several frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    id: u32,
    ends: bool,
    /// Its stream depends on itself (RFC 7540 §5.3.1).
    is_self_dependent: bool,
    frames_count: u32,
}

/// Most frames of one field block. A block as large as we take needs four; who sends more, small ones, attacks
/// (CVE-2024-27919 and others).
const BLOCK_FRAMES_MAX: u32 = 16;

/// Bytes of the priority fields of HEADERS (RFC 9113 §6.2).
pub(super) const PRIORITY_BYTES: usize = 5;

pub(super) type Outcome<'a> = Result<Option<Event<'a>>, ConnectionError>;

impl Reading {
    pub(super) fn begin(is_server: bool) -> Reading {
        if is_server { Reading::Preface } else { Reading::First }
    }
}

impl Connection {
    /// Takes received bytes: how many of them are done with, and the event that they end with, if any. Without an event the
    /// rest is the beginning of a frame. After an error nothing more is received.
    pub fn receive<'a>(
        &mut self,
        bytes: &'a [u8],
        now: Tick,
    ) -> Result<(usize, Option<Event<'a>>), ConnectionError> {
        let mut at = 0;
        loop {
            let before = (at, self.reading);
            let rest = bytes.get(at..).unwrap_or_default();
            let event = match self.step(rest, &mut at, now) {
                Ok(event) => event,
                Err(error) => {
                    self.reading = Reading::Failed;
                    self.fail(error.code());
                    return Err(error);
                }
            };
            // A DATA frame without payload ends where it began.
            if event.is_some() || (at, self.reading) == before {
                if at > 0 {
                    self.last_received = now;
                }
                return Ok((at, event));
            }
        }
    }

    /// Takes the next frame, or a part of DATA, from the front of `bytes`; takes nothing where it is not whole.
    fn step<'a>(&mut self, bytes: &'a [u8], at: &mut usize, now: Tick) -> Outcome<'a> {
        match self.reading {
            Reading::Failed => Ok(None),
            Reading::Preface => {
                let known = PREFACE.get(..bytes.len().min(PREFACE.len())).unwrap_or_default();
                if !bytes.starts_with(known) {
                    return Err(ConnectionError::Preface);
                }
                if known.len() == PREFACE.len() {
                    *at += PREFACE.len();
                    self.reading = Reading::First;
                }
                Ok(None)
            }
            Reading::Data(data) => self.data(data, bytes, at),
            Reading::First | Reading::Frame | Reading::Block(_) => {
                let Some(head) = bytes.first_chunk() else { return Ok(None) };
                let head = FrameHead::read(head);
                self.check_order(head)?;
                let length = head.length as usize;
                if length > PAYLOAD_BYTES_MAX {
                    return Err(ConnectionError::FrameSize);
                }
                let rest = bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
                if head.kind == Kind::Data {
                    if head.has(PADDED) && rest.is_empty() && length > 0 {
                        return Ok(None);
                    }
                    *at += FRAME_HEAD_BYTES;
                    return self.begin_data(head, rest, at, now);
                }
                let Some(payload) = rest.get(..length) else { return Ok(None) };
                *at += FRAME_HEAD_BYTES + length;
                self.frame(head, payload, now)
            }
        }
    }

    /// Which frames may come now.
    fn check_order(&mut self, head: FrameHead) -> Result<(), ConnectionError> {
        match self.reading {
            Reading::First if head.kind != Kind::Settings || head.has(ACK) => Err(ConnectionError::Preface),
            Reading::Block(block) if head.kind != Kind::Continuation || head.stream != block.id => {
                Err(ConnectionError::OutOfPlace)
            }
            Reading::Frame if head.kind == Kind::Continuation => Err(ConnectionError::OutOfPlace),
            _ => Ok(()),
        }
    }

    fn frame<'a>(&mut self, head: FrameHead, payload: &'a [u8], now: Tick) -> Outcome<'a> {
        match head.kind {
            Kind::Headers => self.headers(head, payload, now),
            Kind::Continuation => self.continuation(head, payload, now),
            Kind::Settings => self.settings(head, payload, now),
            Kind::WindowUpdate => self.window_update(head, payload, now),
            Kind::RstStream => self.rst_stream(head, payload, now),
            Kind::Ping => self.ping(head, payload, now),
            Kind::GoAway => self.go_away(head, payload, now),
            Kind::Priority => self.priority(head, payload, now),
            // We told clients' peers that we take none, and a client must not send one.
            Kind::PushPromise => Err(ConnectionError::OutOfPlace),
            Kind::Unknown => self.chatter(now).map(|()| None),
            // It was begun before.
            Kind::Data => Ok(None),
        }
    }

    pub(super) fn chatter(&mut self, now: Tick) -> Result<(), ConnectionError> {
        if self.chatter.spend(now) { Ok(()) } else { Err(ConnectionError::Calm) }
    }

    /// Something is about to be sent because the peer asks for it, or did what it must not.
    pub(super) fn answer(&mut self) -> Result<(), ConnectionError> {
        if self.frames.answer() { Ok(()) } else { Err(ConnectionError::Calm) }
    }

    /// A frame came that may have had a payload.
    fn payload(&mut self, is_empty: bool) -> Result<(), ConnectionError> {
        if self.frames.payload(is_empty) { Ok(()) } else { Err(ConnectionError::Calm) }
    }

    /// A stream ends for what the peer did on it.
    pub(super) fn stream_error<'a>(&mut self, key: StreamKey, code: ErrorCode, now: Tick) -> Outcome<'a> {
        if !self.resets.spend(now) {
            return Err(ConnectionError::Calm);
        }
        let is_news = self.streams.get(key).is_some_and(|stream| !stream.is_reset);
        if is_news {
            self.answer()?;
        }
        self.reset(key, code);
        Ok(is_news.then_some(Event::Reset { stream: key, code }))
    }

    /// The same for a stream that is not, or not any more, anybody's.
    pub(super) fn refuse<'a>(&mut self, id: u32, code: ErrorCode, now: Tick) -> Outcome<'a> {
        if !self.resets.spend(now) {
            return Err(ConnectionError::Calm);
        }
        self.answer()?;
        self.write_reset(id, code);
        Ok(None)
    }

    /// Whether a stream with this id has not been opened yet.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        let is_own = id % 2 == u32::from(!self.is_server);
        if is_own { id >= self.own_next } else { id > self.peer_last }
    }

    /// Whether the peer has opened a later stream without this one.
    fn is_passed_over(&self, id: u32) -> bool {
        let (before, behind) = self.peer_passed_over;
        before < id && id < behind
    }

    // ---- DATA ----

    fn begin_data<'a>(&mut self, head: FrameHead, rest: &[u8], at: &mut usize, now: Tick) -> Outcome<'a> {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(ConnectionError::OutOfPlace);
        }
        let mut data = Data {
            key: self.streams.find(head.stream),
            id: head.stream,
            left: head.length,
            padding: 0,
            ends: head.has(END_STREAM),
        };
        self.recv_window.receive(head.length)?;
        if head.has(PADDED) {
            let left = head.length.checked_sub(1).ok_or(ConnectionError::FrameSize)?;
            let padding = *rest.first().ok_or(ConnectionError::FrameSize)?;
            *at += 1;
            data.padding = u32::from(padding);
            data.left = left.checked_sub(data.padding).ok_or(ConnectionError::Padding)?;
        }
        self.payload(data.left == 0 && !data.ends)?;
        // Nobody has to take the padding.
        self.consume_of_connection(head.length - data.left);
        self.reading = Reading::Data(data);
        let Some(key) = data.key else {
            self.consume_of_connection(data.left);
            return if self.is_given_up(head.stream) {
                self.data_for_nobody(data, now)
            } else {
                self.refuse(head.stream, ErrorCode::STREAM_CLOSED, now)
            };
        };
        self.count_for_growth(head.length);
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        let error = match stream.receiving {
            _ if stream.is_reset => ErrorCode::STREAM_CLOSED,
            Half::Head => ErrorCode::PROTOCOL_ERROR,
            Half::Ended => ErrorCode::STREAM_CLOSED,
            Half::Body => {
                let left = stream.body_left.map(|left| left.checked_sub(u64::from(data.left)));
                let is_too_much = left == Some(None);
                let is_too_little = data.ends && matches!(left, Some(Some(1..)));
                if is_too_much || is_too_little {
                    ErrorCode::PROTOCOL_ERROR
                } else if stream.recv_window.receive(head.length).is_err() {
                    ErrorCode::FLOW_CONTROL_ERROR
                } else {
                    stream.body_left = left.flatten();
                    self.chatter.earn();
                    // Padding goes nowhere, so nobody else gives it back.
                    let padding = head.length - data.left;
                    let target = if data.ends { 0 } else { self.growth.window_bytes };
                    if let Some(more) = stream.recv_window.consume(padding, target) {
                        frame::write_window_update(head.stream, more, &mut self.out);
                    }
                    return Ok(None);
                }
            }
        };
        self.consume_of_connection(data.left);
        if let Reading::Data(data) = &mut self.reading {
            data.key = None;
        }
        match self.streams.get(key) {
            Some(stream) if stream.by_peer => self.refuse(head.stream, error, now),
            Some(stream) if stream.is_reset => self.data_for_nobody(data, now),
            _ => self.stream_error(key, error, now),
        }
    }

    /// What is on its way to a stream that was given up has its window; what needs none is chatter.
    fn data_for_nobody<'a>(&mut self, data: Data, now: Tick) -> Outcome<'a> {
        if data.left == 0 {
            self.chatter(now)?;
        }
        Ok(None)
    }

    fn data<'a>(&mut self, mut data: Data, bytes: &'a [u8], at: &mut usize) -> Outcome<'a> {
        let part = bytes.get(..bytes.len().min(data.left as usize)).unwrap_or_default();
        *at += part.len();
        data.left -= part.len() as u32;
        let was_data = !part.is_empty();
        let mut event = None;
        // Its owner may have given it up since the frame began.
        let owned = data.key.filter(|key| self.streams.get(*key).is_some_and(|stream| stream.id == data.id));
        if data.key.is_some() && owned.is_none() {
            self.consume_of_connection(part.len() as u32);
        }
        if let Some(key) = owned {
            let ends = data.ends && data.left == 0;
            if let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.is_reset) {
                if ends {
                    stream.receiving = Half::Ended;
                }
                if was_data || ends {
                    event = Some(Event::Data { stream: key, bytes: part, ends });
                }
            } else {
                self.consume_of_connection(part.len() as u32);
            }
            if ends {
                // Told once, though padding may follow.
                data.key = None;
            }
        }
        let rest = bytes.get(part.len()..).unwrap_or_default();
        if data.left == 0 {
            let padding = rest.len().min(data.padding as usize);
            *at += padding;
            data.padding -= padding as u32;
        }
        self.reading = match data.left == 0 && data.padding == 0 {
            true => Reading::Frame,
            false => Reading::Data(data),
        };
        Ok(event)
    }

    // ---- heads ----

    fn headers<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        if head.stream == 0 {
            return Err(ConnectionError::OutOfPlace);
        }
        let mut fragment = payload;
        let mut padding = 0;
        if head.has(PADDED) {
            let (first, rest) = fragment.split_first().ok_or(ConnectionError::FrameSize)?;
            (padding, fragment) = (usize::from(*first), rest);
        }
        let mut is_self_dependent = false;
        if head.has(PRIORITY) {
            is_self_dependent = depends_on(fragment) == Some(head.stream);
            fragment = fragment.get(PRIORITY_BYTES..).ok_or(ConnectionError::FrameSize)?;
        }
        let length = fragment.len().checked_sub(padding).ok_or(ConnectionError::Padding)?;
        let fragment = fragment.get(..length).unwrap_or_default();
        let block = Block { id: head.stream, ends: head.has(END_STREAM), is_self_dependent, frames_count: 1 };
        self.payload(fragment.is_empty() && !block.ends)?;
        if head.has(END_HEADERS) {
            self.reading = Reading::Frame;
            return self.fields(block, fragment, now);
        }
        self.block.clear();
        self.gather(block, fragment)?;
        Ok(None)
    }

    fn continuation<'a>(&mut self, head: FrameHead, payload: &[u8], now: Tick) -> Outcome<'a> {
        let Reading::Block(mut block) = self.reading else { return Err(ConnectionError::OutOfPlace) };
        block.frames_count += 1;
        if block.frames_count > BLOCK_FRAMES_MAX {
            return Err(ConnectionError::BlockTooLarge);
        }
        self.payload(payload.is_empty())?;
        self.gather(block, payload)?;
        if !head.has(END_HEADERS) {
            return Ok(None);
        }
        self.reading = Reading::Frame;
        let whole = mem::take(&mut self.block);
        let event = self.fields(block, &whole, now);
        self.block = whole;
        event
    }

    fn gather(&mut self, block: Block, fragment: &[u8]) -> Result<(), ConnectionError> {
        if self.block.len() + fragment.len() > self.config.head.head_bytes_max {
            return Err(ConnectionError::BlockTooLarge);
        }
        self.block.extend_from_slice(fragment);
        self.reading = Reading::Block(block);
        Ok(())
    }

    /// A whole field block. It is decoded whatever becomes of it, since the blocks behind it build on it.
    fn fields<'a>(&mut self, block: Block, bytes: &[u8], now: Tick) -> Outcome<'a> {
        let key = self.streams.find(block.id);
        let receiving = key.and_then(|key| self.streams.get(key)).map(|stream| stream.receiving);
        let role = match receiving {
            Some(Half::Head) => Role::Response,
            Some(Half::Body | Half::Ended) => Role::Trailers,
            None if self.is_server => Role::Request,
            None => Role::Response,
        };
        let is_new = key.is_none() && self.is_server && block.id > self.peer_last;
        if is_new && block.id.is_multiple_of(2) {
            return Err(ConnectionError::StreamId);
        }
        if key.is_none() && !is_new && self.is_idle(block.id) {
            return Err(ConnectionError::OutOfPlace);
        }
        self.writer.begin(role);
        let (decoder, writer) = (&mut self.decoder, &mut self.writer);
        let decoded = decoder
            .decode(bytes, self.config.head.head_bytes_max, &mut |field| writer.take(field))
            .map_err(|_| ConnectionError::Compression)?;
        if decoded.is_too_large {
            self.writer.refuse(HeadError::TooLarge);
        }
        match (key, receiving) {
            (Some(key), Some(receiving)) => self.head_of(key, receiving, block, now),
            _ if is_new => self.new_stream(block, now),
            // It was on its way when we gave the stream up.
            _ if self.is_given_up(block.id) => self.chatter(now).map(|()| None),
            // Closed without having been open (RFC 9113 §5.1.1). Of those that were passed over before the last time it is
            // not known any more, and they are told as those that are over; either ends the connection.
            _ if self.is_passed_over(block.id) => Err(ConnectionError::StreamId),
            _ => Err(ConnectionError::StreamClosed),
        }
    }

    fn new_stream<'a>(&mut self, block: Block, now: Tick) -> Outcome<'a> {
        let id = block.id;
        if id - self.peer_last > 2 {
            self.peer_passed_over = (self.peer_last, id);
        }
        self.peer_last = id;
        // Streams that come after our last word are not looked at.
        if self.has_left() {
            return self.chatter(now).map(|()| None);
        }
        if block.is_self_dependent {
            return self.refuse(id, ErrorCode::PROTOCOL_ERROR, now);
        }
        if self.streams.live_count() >= self.config.settings.streams_max as usize {
            return self.refuse(id, ErrorCode::REFUSED_STREAM, now);
        }
        let written = self.writer.request(block.ends, &self.config.head, &mut self.request);
        let (too_large, body_left) = match written {
            Ok(()) => match self.request.framing {
                Framing::Length(length) => (None, Some(length)),
                _ => (None, None),
            },
            Err(error) => match too_large(error) {
                Some(error) => (Some(error), None),
                None => return self.refuse(id, ErrorCode::PROTOCOL_ERROR, now),
            },
        };
        self.frames.opened();
        let stream = self.streams.insert(Stream {
            id,
            receiving: if block.ends { Half::Ended } else { Half::Body },
            sending: Half::Head,
            is_reset: false,
            by_peer: false,
            send_window: SendWindow::new(self.peer.window_bytes),
            recv_window: RecvWindow::new(self.config.settings.window_bytes),
            body_left,
            method: Method::Get,
            protocol: None,
        });
        Ok(Some(match too_large {
            Some(error) => Event::TooLarge { stream, error },
            None => Event::Request { stream },
        }))
    }

    /// A response head, or trailers, of a stream that is live.
    fn head_of<'a>(&mut self, key: StreamKey, receiving: Half, block: Block, now: Tick) -> Outcome<'a> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(None) };
        if stream.by_peer {
            return Err(ConnectionError::StreamClosed);
        }
        if stream.is_reset {
            return self.chatter(now).map(|()| None);
        }
        let written = match receiving {
            _ if block.is_self_dependent => Err(HeadError::End),
            Half::Ended => return self.stream_error(key, ErrorCode::STREAM_CLOSED, now),
            Half::Body if !block.ends || matches!(stream.body_left, Some(1..)) => Err(HeadError::End),
            Half::Body => self.writer.trailers(self.config.trailers),
            Half::Head => {
                let asked = (stream.method, stream.protocol.as_deref());
                self.writer.response(block.ends, asked, &self.config.head, &mut self.response)
            }
        };
        if written.is_err() {
            return self.stream_error(key, ErrorCode::PROTOCOL_ERROR, now);
        }
        if receiving == Half::Body {
            stream.receiving = Half::Ended;
            return Ok(Some(Event::Trailers { stream: key }));
        }
        let is_switch = self.response.status == 101;
        let is_interim = self.response.status < 200 && !is_switch;
        if is_interim && block.ends {
            return self.stream_error(key, ErrorCode::PROTOCOL_ERROR, now);
        }
        if !is_interim {
            stream.receiving = if block.ends { Half::Ended } else { Half::Body };
            let is_tunnel = stream.method == Method::Connect && (200..300).contains(&self.response.status);
            // To HEAD, and with 304, the length says what the body would have.
            stream.body_left = match self.response.framing {
                _ if is_tunnel => None,
                Framing::Length(length) => Some(length),
                Framing::None if is_switch => None,
                Framing::None => Some(0),
                Framing::Chunked | Framing::UntilClose => None,
            };
        }
        Ok(Some(Event::Response { stream: key }))
    }
}

/// What of a head that is refused is too large, so that it is told with 431 or 414 and not taken for an attack.
fn too_large(error: HeadError) -> Option<ParseError> {
    match error {
        HeadError::TooLarge => Some(ParseError::HeadTooLarge),
        HeadError::Head(
            error @ (ParseError::HeadTooLarge | ParseError::TooManyHeaders | ParseError::TargetTooLong),
        ) => Some(error),
        _ => None,
    }
}
