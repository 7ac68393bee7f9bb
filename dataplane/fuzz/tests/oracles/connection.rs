//! A server's connection: frame by frame we and h2 tell the same of every stream, and end the stream or the connection at the same
//! frame. Comparing ends there, since what may follow is a different story on either side.
//!
//! They may differ in what an error reaches and in its code: h2 ends the connection where RFC 9113 lets one end a stream (§5.4.2),
//! and the other way round. And a head that h2 takes must be what our rules make of its fields, which are stricter: those of
//! HTTP/1.1 hold, too ([`fuzz::targets::downgrade`]).

use fuzz::{
    frames::{self, Frame, kind},
    targets::{
        downgrade::{self, Verdict},
        h2_conn,
    },
};
use wire::{
    Tick,
    head::RequestHead,
    http2::{
        Config, Connection, Event,
        budget::{Allowance, FrameBounds},
    },
};

use crate::python;

/// Frames of one case: fewer than h2 takes streams.
const FRAMES_MAX: usize = 90;

/// What was told of a frame, in the order in which it was.
#[derive(PartialEq, Eq, Debug)]
enum Told {
    Request(Verdict),
    Data(Vec<u8>),
    Trailers,
    End,
    Reset,
}

/// What became of a frame.
#[derive(Debug, Default)]
struct Outcome {
    told: Vec<Told>,
    /// What may become of a request with these fields, by our rules.
    expected: Vec<Verdict>,
    /// The stream or the connection ends for it.
    is_refused: bool,
    /// Nothing is compared from here on.
    is_last: bool,
}

/// Judges the frames among the steps of `h2_conn`.
pub(crate) fn run(input: &[u8]) {
    let Some((_, steps)) = input.split_first() else { return };
    let frames: Vec<Frame> = h2_conn::frames_of(steps).into_iter().take(FRAMES_MAX).collect();
    if frames.is_empty() {
        return;
    }
    let said = python::ask("h2", &frames.iter().map(Frame::bytes).collect::<Vec<_>>());
    let mut server = Server::new();
    for (frame, said) in frames.iter().zip(&said) {
        let theirs = parse(said, frame);
        let ours = server.receive(frame);
        let shown = || format!("{frame:?}\nours {ours:?}\nh2 {theirs:?}");
        let is_too_large = ours.told.contains(&Told::Request(Verdict::TooLarge));
        if is_too_large && theirs.is_refused {
            // That is looked at first.
            return;
        }
        if ours.is_refused || theirs.is_refused {
            let is_stricter = ours.is_refused && (theirs.is_head_refused() || minds(frame));
            let is_weaker = theirs.is_refused && bears(frame);
            assert!(ours.is_refused == theirs.is_refused || is_stricter || is_weaker, "{}", shown());
            return;
        }
        // What came of a head is told by ours alone, and must be one of what may.
        let is_head = |told: &&Told| matches!(told, Told::Request(..));
        let of_ours: Vec<&Told> = ours.told.iter().filter(|told| !is_head(told)).collect();
        assert!(of_ours.iter().eq(&theirs.told.iter().collect::<Vec<_>>()), "{}", shown());
        let head = ours.told.iter().find_map(|told| match told {
            Told::Request(verdict) => Some(verdict),
            _ => None,
        });
        assert_eq!(head.is_some(), !theirs.expected.is_empty(), "{}", shown());
        assert!(head.is_none_or(|head| theirs.expected.contains(head)), "{}", shown());
        if ours.is_last || theirs.is_last {
            return;
        }
    }
}

impl Outcome {
    /// Whether it is a head that our rules may refuse: those of HTTP/1.1 hold for trailers, too, and so does the length that was
    /// announced, at which h2 looks with DATA alone.
    fn is_head_refused(&self) -> bool {
        self.expected.contains(&Verdict::Refused) || self.told.contains(&Told::Trailers)
    }
}

/// What we refuse and h2 takes, or not yet.
fn minds(Frame { kind, flags, payload, .. }: &Frame) -> bool {
    let has = |flag: u8| flags & flag != 0;
    match *kind {
        // It waits for the frame behind, where that is not the end of the block (RFC 9113 §8.4: a client sends none).
        PUSH_PROMISE => true,
        // Of a stream that was never open (§6.4).
        kind::RST_STREAM => true,
        // Padding that reaches into the priority fields (§6.2).
        kind::HEADERS if has(frames::PADDED) && has(PRIORITY_FIELDS) => {
            payload.first().is_some_and(|padding| usize::from(*padding) + 6 > payload.len())
        }
        _ => false,
    }
}

/// What we take, or pass over, and h2 refuses.
fn bears(Frame { kind, flags, payload, stream }: &Frame) -> bool {
    match *kind {
        // Padding that is all of the payload; only more is an error (§6.1, §6.2).
        kind::DATA | kind::HEADERS => {
            let is_all = |padding: &u8| usize::from(*padding) + 1 == payload.len();
            flags & frames::PADDED != 0 && payload.first().is_some_and(is_all)
        }
        // What would end a stream, of one that is over (§5.1).
        PRIORITY => match payload.first_chunk() {
            Some(on) if payload.len() == 5 => (u32::from_be_bytes(*on) ^ stream) & ID == 0,
            _ => true,
        },
        // The same; and the bit without a meaning, which is to be passed over (§6.9).
        kind::WINDOW_UPDATE => matches!(payload[..], [0, 0, 0, 0] | [0x80..=0xff, ..]),
        _ => false,
    }
}

/// Without the bit that has no meaning.
const ID: u32 = (1 << 31) - 1;
const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
/// A flag of HEADERS.
const PRIORITY_FIELDS: u8 = 0x20;

/// What h2 said.
fn parse(said: &str, frame: &Frame) -> Outcome {
    let mut outcome = Outcome::default();
    for word in said.split(',').filter(|word| !word.is_empty()) {
        let mut parts = word.splitn(3, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (what, stream, rest) = (next(), next(), next());
        assert!(stream.is_empty() || stream == (frame.stream & ID).to_string(), "{said} of {frame:?}");
        outcome.told.push(match what {
            "data" if rest.is_empty() => continue,
            "data" => Told::Data(python::bytes(rest)),
            "trailers" => Told::Trailers,
            "end" => Told::End,
            "reset" => Told::Reset,
            "goaway" => {
                outcome.is_last = true;
                continue;
            }
            "request" => {
                let fields: Vec<_> = rest.split(';').filter(|field| !field.is_empty()).map(field).collect();
                outcome.expected = downgrade::expected(&fields, said.contains(",end:"));
                continue;
            }
            _ => {
                assert!(what == "own-reset" || what.starts_with('!'), "{said}");
                outcome.is_refused = true;
                continue;
            }
        });
    }
    outcome
}

fn field(shown: &str) -> downgrade::Field {
    let mut parts = shown.split(':');
    let mut next = || python::bytes(parts.next().unwrap_or_default());
    (next(), next())
}

struct Server {
    wire: Connection,
    head: RequestHead,
}

impl Server {
    fn new() -> Server {
        let plenty = Allowance { most: u32::MAX, per_second: 0, per_use: 0 };
        let mut config = Config {
            resets: plenty,
            chatter: plenty,
            frames: FrameBounds::NONE,
            keepalive: None,
            ..h2_conn::CONFIG
        };
        config.settings.streams_max = 100;
        let mut server =
            Server { wire: Connection::new(true, config, Tick(0)), head: RequestHead::default() };
        let begin = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &Frame::new(kind::SETTINGS, 0, 0, []).bytes()];
        server.take(&begin.concat());
        server.sent();
        server
    }

    fn receive(&mut self, frame: &Frame) -> Outcome {
        let mut outcome = self.take(&frame.bytes());
        outcome.is_refused |= self.sent().iter().any(|frame| frame.kind == kind::RST_STREAM);
        outcome
    }

    fn take(&mut self, bytes: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut done = 0;
        loop {
            let (count, event) = match self.wire.receive(&bytes[done..], Tick(0)) {
                Ok(received) => received,
                Err(_) => {
                    outcome.is_refused = true;
                    return outcome;
                }
            };
            done += count;
            match event {
                None => return outcome,
                Some(event) => self.note(event, &mut outcome),
            }
        }
    }

    fn note(&mut self, event: Event<'_>, outcome: &mut Outcome) {
        let told = &mut outcome.told;
        match event {
            Event::Request { stream } => {
                told.push(Told::Request(Verdict::Head(self.wire.take_request(&mut self.head).to_vec())));
                told.extend(self.wire.has_received_all(stream).then_some(Told::End));
            }
            Event::TooLarge { .. } => {
                told.push(Told::Request(Verdict::TooLarge));
                outcome.is_last = true;
            }
            Event::Data { stream, bytes, ends } => {
                self.wire.consume(stream, bytes.len());
                told.extend((!bytes.is_empty()).then(|| Told::Data(bytes.to_vec())));
                told.extend(ends.then_some(Told::End));
            }
            Event::Trailers { .. } => told.extend([Told::Trailers, Told::End]),
            Event::Reset { .. } => told.push(Told::Reset),
            Event::GoAway { .. } => outcome.is_last = true,
            Event::Window { .. } | Event::Settings => {}
            Event::Response { .. } => panic!("a response to a server"),
        }
    }

    fn sent(&mut self) -> Vec<Frame> {
        let mut out = Vec::new();
        self.wire.take_output(&mut out);
        frames::read(&out)
    }
}
