//! What `wire` reads on one connection, whose bytes come in whatever pieces.

use std::{collections::BTreeSet, fmt, slice};

use wire::{
    head::{self, Method, RequestHead, RequestView, ResponseHead, ResponseView, Span, Version},
    http1::{
        body::{Decoder, Step, TrailerLimits},
        encode::Sink,
        parse::{self, Limits, METHOD_BYTES_MAX, ParseError, Parsed},
    },
};

use crate::{
    message::{Connection, Framing, Head, Message, Rest, Start},
    reference::{self, Side},
};

/// Small, so that inputs of a few hundred bytes reach them.
pub const LIMITS: Limits = Limits { head_bytes_max: 400, headers_count_max: 12, target_bytes_max: 80 };

/// Those of a trailer section.
pub const TRAILER_LIMITS: TrailerLimits = TrailerLimits { bytes_max: 64, count_max: 3 };

/// The same, for the reference.
pub const REFERENCE_LIMITS: reference::head::Limits = reference::head::Limits {
    head_bytes: LIMITS.head_bytes_max,
    headers: LIMITS.headers_count_max,
    target_bytes: LIMITS.target_bytes_max,
    method_bytes: METHOD_BYTES_MAX,
    connection_options: 32,
    trailers: REFERENCE_TRAILER_LIMITS,
};

/// The same, for the reference.
pub const REFERENCE_TRAILER_LIMITS: reference::body::TrailerLimits =
    reference::body::TrailerLimits { bytes: TRAILER_LIMITS.bytes_max, count: TRAILER_LIMITS.count_max };

/// Reads one message after the other. `pieces` says where the bytes that are there end, each time that more come.
pub fn read(bytes: &[u8], side: Side<'_>, pieces: impl IntoIterator<Item = usize>) -> Connection {
    read_within(&LIMITS, bytes, side, pieces).0
}

/// Reads as [`read`] does, within other limits. Gives also the message whose head is there, but not all of its body.
pub fn read_within(
    limits: &Limits,
    bytes: &[u8],
    side: Side<'_>,
    pieces: impl IntoIterator<Item = usize>,
) -> (Connection, Option<Message>) {
    let mut reader = Reader { side, limits, at: 0, state: State::new(side), messages: Vec::new() };
    for end in pieces.into_iter().chain([bytes.len()]) {
        if let Some(rest) = reader.receive(&bytes[..end]) {
            let is_over = rest == Rest::Unread && reader.at == bytes.len();
            let rest = if is_over { Rest::Nothing } else { rest };
            return (Connection { messages: reader.messages, rest }, None);
        }
    }
    reader.finish(bytes.len())
}

struct Reader<'a> {
    side: Side<'a>,
    limits: &'a Limits,
    /// Bytes that were taken.
    at: usize,
    state: State,
    messages: Vec<Message>,
}

enum State {
    Request(RequestHead),
    Response(ResponseHead),
    Body(Decoder, Message),
}

impl State {
    fn new(side: Side<'_>) -> State {
        match side {
            Side::Requests => State::Request(RequestHead::default()),
            Side::Responses(_) => State::Response(ResponseHead::default()),
        }
    }
}

impl Reader<'_> {
    /// Reads as far as the bytes go; what comes after the messages when nothing more will be read.
    fn receive(&mut self, bytes: &[u8]) -> Option<Rest> {
        loop {
            let rest = &bytes[self.at..];
            if rest.is_empty() && !matches!(self.state, State::Body(..)) {
                return None;
            }
            let step = match &mut self.state {
                State::Request(head) => match parse::request(rest, self.limits, head) {
                    Ok(Parsed::Partial) => return None,
                    Ok(Parsed::Complete) => Ok((of_request(head, rest), head.framing, head.end as usize)),
                    Err(error) => Err(error),
                },
                State::Response(head) => {
                    let Side::Responses(method) = self.side else { return None };
                    match parse::response(rest, self.limits, method_of(method), head) {
                        Ok(Parsed::Partial) => return None,
                        Ok(Parsed::Complete) => {
                            Ok((of_response(head, rest), head.framing, head.end as usize))
                        }
                        Err(error) => Err(error),
                    }
                }
                State::Body(decoder, message) => {
                    match take_body(decoder, message, rest, &mut self.at) {
                        Ok(true) => {}
                        Ok(false) => return None,
                        Err(status) => return Some(reference::refused(BTreeSet::from([status]), self.side)),
                    }
                    if self.end_message() {
                        return Some(Rest::Unread);
                    }
                    continue;
                }
            };
            match step {
                Ok((head, framing, taken)) => {
                    self.at += taken;
                    let message = Message { head, ..Message::default() };
                    self.state = State::Body(Decoder::new(framing, TRAILER_LIMITS), message);
                }
                Err(error) => return Some(reference::refused(BTreeSet::from([status_of(error)]), self.side)),
            }
        }
    }

    /// Whether it was the last one of the connection.
    fn end_message(&mut self) -> bool {
        let State::Body(_, mut message) = std::mem::replace(&mut self.state, State::new(self.side)) else {
            return false;
        };
        message.end = self.at;
        let goes_on = match &message.head.start {
            Start::Request { method, .. } => message.head.keep_alive && method != b"CONNECT",
            Start::Response { status, .. } => message.head.keep_alive || matches!(status, 100 | 102..=199),
        };
        self.messages.push(message);
        !goes_on
    }

    /// The connection was closed behind `end` bytes.
    fn finish(mut self, end: usize) -> (Connection, Option<Message>) {
        let mut begun = None;
        let rest = match &mut self.state {
            State::Body(decoder, message) => {
                if decoder.on_close().is_ok() {
                    self.end_message();
                    Rest::Nothing
                } else {
                    begun = Some(std::mem::take(message));
                    Rest::Part
                }
            }
            State::Request(_) | State::Response(_) if self.at == end => Rest::Nothing,
            State::Request(_) | State::Response(_) => Rest::Part,
        };
        (Connection { messages: self.messages, rest }, begun)
    }
}

/// Takes what is there of a body; true when it ended.
fn take_body(
    decoder: &mut Decoder,
    message: &mut Message,
    bytes: &[u8],
    at: &mut usize,
) -> Result<bool, u16> {
    let mut rest = bytes;
    loop {
        let count = match decoder.receive(rest).map_err(|error| error.status())? {
            Step::Data(count) => {
                message.body.extend_from_slice(&rest[..count]);
                count
            }
            Step::Trailer(count) => {
                message.trailers.extend_from_slice(&rest[..count]);
                count
            }
            Step::Skip(count) => count,
            Step::NeedMore => return Ok(false),
            Step::End => return Ok(true),
        };
        assert!(count > 0, "a step of no bytes");
        rest = &rest[count..];
        *at += count;
    }
}

fn status_of(error: ParseError) -> u16 {
    assert!(!error.reason().is_empty());
    error.status()
}

/// What the head says, in the words of the reference.
pub fn of_request(head: &RequestHead, bytes: &[u8]) -> Head {
    let view = RequestView { head, bytes };
    let inside = [head.method_span, head.target, head.authority, head.path];
    inside.iter().for_each(|span| assert!(span.start <= span.end && span.end <= head.end, "{span:?}"));
    Head {
        start: Start::Request {
            method: view.method().to_vec(),
            path: view.path().to_vec(),
            query: view.query().map(<[u8]>::to_vec),
            authority: view.authority().to_vec(),
            expects_continue: head.expects_continue,
            upgrade: head.upgrade,
        },
        version: digit_of(head.version),
        headers: headers_of(&head.headers, bytes, head.end),
        framing: framing_of(head.framing),
        keep_alive: head.keep_alive,
        end: head.end as usize,
    }
}

/// What the head says, in the words of the reference.
pub fn of_response(head: &ResponseHead, bytes: &[u8]) -> Head {
    assert!(head.reason.start <= head.reason.end && head.reason.end <= head.end);
    let view = ResponseView { head, bytes };
    Head {
        start: Start::Response { status: head.status, reason: head.reason.of(view.bytes).to_vec() },
        version: digit_of(head.version),
        headers: headers_of(&head.headers, bytes, head.end),
        framing: framing_of(head.framing),
        keep_alive: head.keep_alive,
        end: head.end as usize,
    }
}

fn headers_of(headers: &[head::Header], bytes: &[u8], end: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut last = 0;
    for header in headers {
        let line = header.line;
        assert!(
            last <= line.start && line.start <= header.name.start && header.name.end <= header.value.start
        );
        assert!(header.value.end <= line.end && line.end < end, "{header:?} of {end}");
        last = line.end;
    }
    headers.iter().map(|header| (header.name.of(bytes).to_vec(), header.value.of(bytes).to_vec())).collect()
}

fn digit_of(version: Version) -> u8 {
    match version {
        Version::Http10 => 0,
        Version::Http11 => 1,
    }
}

fn framing_of(framing: head::Framing) -> Framing {
    match framing {
        head::Framing::None => Framing::None,
        head::Framing::Length(length) => Framing::Length(length),
        head::Framing::Chunked => Framing::Chunked,
        head::Framing::UntilClose => Framing::UntilClose,
    }
}

/// The methods that responses are read for.
pub fn method_of(method: &[u8]) -> Method {
    match method {
        b"HEAD" => Method::Head,
        b"CONNECT" => Method::Connect,
        _ => Method::Get,
    }
}

/// Several ways in which the network may cut so many bytes: one at a time, and in two parts at a few places that depend
/// on the bytes alone.
pub fn ways_to_cut(bytes: &[u8]) -> impl Iterator<Item = Vec<usize>> {
    let mut rng = policy::Rng::new(
        bytes.iter().fold(0, |seed: u64, byte| seed.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(*byte)),
    );
    let len = bytes.len() as u64;
    let cuts: Vec<usize> = (0..4).map(|_| rng.below(len + 1) as usize).collect();
    let each: Vec<usize> = (1..bytes.len()).collect();
    let mut some: Vec<usize> = (0..3).map(|_| rng.below(len + 1) as usize).collect();
    some.sort_unstable();
    cuts.into_iter().map(|cut| slice::from_ref(&cut).to_vec()).chain([each, some])
}

/// What was received and what was sent, for whom it fails.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a [u8], pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nsent as {}", self.0.escape_ascii(), self.1.escape_ascii())
    }
}

/// A head as it goes out.
pub struct Written<'a> {
    from: &'a [u8],
    /// What was written.
    pub bytes: Vec<u8>,
}

impl<'a> Written<'a> {
    /// Nothing yet, of a head that came in `from`.
    pub fn of(from: &'a [u8]) -> Written<'a> {
        Written { from, bytes: Vec::new() }
    }
}

impl Sink for Written<'_> {
    fn keep(&mut self, span: Span) {
        assert!(span.start < span.end && span.end as usize <= self.from.len(), "{span:?}");
        self.bytes.extend_from_slice(span.of(self.from));
    }

    fn insert(&mut self, bytes: &[u8]) {
        assert!(!bytes.is_empty());
        self.bytes.extend_from_slice(bytes);
    }
}
