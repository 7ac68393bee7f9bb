//! What is known of a connection, and what its events change.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
};

use wire::{
    Tick,
    head::{Framing as WireFraming, Header, RequestHead, RequestView, ResponseHead},
    http1::body::TrailerLimits,
    http2::{
        Config, Connection, Event, StreamKey,
        budget::{Allowance, FrameBounds},
        error::{ConnectionError, ErrorCode},
        settings::Settings,
    },
};

use super::{LIMITS, Seen, StreamConfig};
use crate::{
    client::Loss,
    faults::End,
    http::{Framing, Message},
};

pub(super) struct State {
    pub(super) wire: Connection,
    /// Frames that go behind what the connection says.
    pub(super) raw: Vec<u8>,
    /// By [`StreamKey::index`].
    pub(super) streams: BTreeMap<usize, Seen>,
    pub(super) arrived: VecDeque<StreamKey>,
    pub(super) wakers: Vec<Waker>,
    /// Nothing is received.
    pub(super) is_deaf: bool,
    /// Windows of new streams are not opened.
    pub(super) is_holding: bool,
    /// We end it.
    pub(super) closing: Option<End>,
    /// It is over.
    pub(super) loss: Option<Loss>,
    /// The other end said that it leaves.
    pub(super) is_left: bool,
}

impl State {
    pub(super) fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    pub(super) fn end(&self) -> Option<Loss> {
        self.loss.clone().or(self.closing.map(|_| Loss::Closed))
    }

    pub(super) fn over(&mut self, loss: Loss) {
        self.loss.get_or_insert(loss);
        self.wake();
    }

    /// Takes received bytes as far as they are whole; gives how many.
    pub(super) fn receive(&mut self, bytes: &[u8], now: u64) -> usize {
        let mut done = 0;
        loop {
            let (count, event) = match self.wire.receive(&bytes[done..], Tick(now)) {
                Ok(received) => received,
                // A client that was too slow for its preface is answered in HTTP/1.1: nobody could know better.
                Err(ConnectionError::Preface) if !self.wire.is_server() && done == 0 => {
                    self.over(Loss::Closed);
                    return bytes.len();
                }
                Err(error) => panic!("the other end must not do that: {error}"),
            };
            done += count;
            match event {
                None => return done,
                Some(event) => self.note(event),
            }
        }
    }

    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Request { stream } => {
                let mut head = RequestHead::default();
                let bytes = self.wire.take_request(&mut head);
                let view = RequestView { head: &head, bytes };
                let method = latin1(view.method());
                let message = Message {
                    start: format!("{method} {} HTTP/2", latin1(head.target.of(bytes))),
                    headers: headers(&head.headers, bytes),
                    framing: framing(head.framing),
                    body: Vec::new(),
                    trailers: Vec::new(),
                };
                let is_ended = self.wire.has_received_all(stream);
                let is_held = self.is_holding;
                let seen = Seen { method, head: Some(message), is_ended, is_held, ..Seen::default() };
                self.streams.insert(stream.index(), seen);
                self.arrived.push_back(stream);
            }
            Event::Response { stream } => {
                let mut head = ResponseHead::default();
                let bytes = self.wire.take_response(&mut head);
                let message = Message {
                    start: format!("HTTP/2 {} -", head.status),
                    headers: headers(&head.headers, bytes),
                    framing: framing(head.framing),
                    body: Vec::new(),
                    trailers: Vec::new(),
                };
                let is_ended = self.wire.has_received_all(stream);
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                if head.status < 200 && head.status != 101 {
                    return seen.interims.push(head.status);
                }
                assert!(seen.head.is_none(), "a second final response");
                seen.head = Some(message);
                seen.is_ended = is_ended;
            }
            Event::Data { stream, bytes, ends } => {
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                seen.body.extend_from_slice(bytes);
                seen.is_ended |= ends;
                match seen.is_held {
                    true => seen.held_bytes += bytes.len(),
                    false => self.wire.consume(stream, bytes.len()),
                }
            }
            Event::Trailers { stream } => {
                let text = latin1(self.wire.trailers());
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                let fields = text.lines().filter_map(|line| line.split_once(':'));
                seen.trailers =
                    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
                seen.is_ended = true;
            }
            Event::Reset { stream, code } => {
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                seen.gone.get_or_insert(Loss::Reset(code.0));
            }
            Event::GoAway { code } => {
                // On a network where an end is slow, its first word may come too late.
                let is_fair = [ErrorCode::NO_ERROR, ErrorCode::SETTINGS_TIMEOUT].contains(&code);
                assert!(is_fair, "the other end found fault: {code:?}");
                self.is_left = true;
                while let Some(stream) = self.wire.next_refused() {
                    if let Some(seen) = self.streams.get_mut(&stream.index()) {
                        seen.gone.get_or_insert(Loss::Left);
                    }
                }
            }
            Event::TooLarge { .. } => panic!("a head that is too large"),
            Event::Window { .. } | Event::Settings => {}
        }
    }
}

pub(super) fn wire_config(config: StreamConfig) -> Config {
    let plenty = Allowance { most: u32::MAX, per_second: 0, per_use: 0 };
    Config {
        settings: Settings {
            streams_max: config.streams_max,
            window_bytes: config.window_bytes,
            connect_protocol: config.takes_protocols,
            ..Settings::default()
        },
        stream_window_bytes_max: config.window_bytes,
        connection_window_bytes: 4 << 20,
        own_streams_max: u32::MAX,
        head: LIMITS,
        trailers: TrailerLimits { bytes_max: 16 * 1024, count_max: 100 },
        resets: plenty,
        chatter: plenty,
        frames: FrameBounds::NONE,
        keepalive: None,
    }
}

fn framing(framing: WireFraming) -> Framing {
    match framing {
        WireFraming::None => Framing::None,
        WireFraming::Length(_) => Framing::Length,
        WireFraming::Chunked => Framing::Chunked,
        WireFraming::UntilClose => Framing::UntilClose,
    }
}

fn headers(headers: &[Header], bytes: &[u8]) -> Vec<(String, String)> {
    headers.iter().map(|header| (latin1(header.name.of(bytes)), latin1(header.value.of(bytes)))).collect()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
