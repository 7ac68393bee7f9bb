//! Bodies: where the data lies in what was received, and the framing of what is sent on.
//!
//! [`Decoder`] never copies and never keeps bytes: it names the next run at the front of what the caller holds. Chunked
//! bodies are decoded and encoded again, so chunk extensions and odd chunk sizes of one side never reach the other
//! (RFC 9112 §7.1). Trailer fields are checked and handed on one line at a time; they are never merged into a head.
//!
//! Longer than 500 lines: a third of it are the tables of its tests.

use super::chunk_extension::Extension;
use super::fields::{BODY_BYTES_MAX, classify, is_disguised, is_token, is_value};
use crate::head::{Framing, Known};

/// Most bytes of chunk extensions in one message. Nobody uses them; those who send much of them attack the counting.
pub const EXTENSION_BYTES_MAX: usize = 4 * 1024;
/// Most hex digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;

/// What ends the data of a chunk that was opened with [`ChunkHead`].
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk, before trailer fields; [`TRAILERS_END`] follows them.
pub const LAST_CHUNK: &[u8] = b"0\r\n";
/// The empty line after the trailer fields.
pub const TRAILERS_END: &[u8] = b"\r\n";
/// The last chunk and the empty line of a body without trailer fields.
pub const BODY_END: &[u8] = b"0\r\n\r\n";

/// What lies at the front of the received bytes. Every count is at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// This many bytes are body data; they count as taken.
    Data(usize),
    /// This many bytes are framing and go no further; they count as taken.
    Skip(usize),
    /// This many bytes are one trailer field line with its CRLF, fit to be sent on as it is; they count as taken.
    Trailer(usize),
    /// Nothing can be said without more bytes. Keep all bytes and append.
    NeedMore,
    /// The body ended before these bytes; they belong to the next message. Given again on every later call.
    End,
}

/// Why a body is refused. The message cannot be completed and its connection not be used again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyError {
    /// A chunk size is empty, has a byte that is no hex digit, or too many digits.
    #[error("malformed chunk size")]
    ChunkSize,
    /// A chunk is larger than 2^63 - 1 bytes.
    #[error("chunk too large")]
    ChunkTooLarge,
    /// A line of the chunked coding does not end in CRLF.
    #[error("malformed line end in chunked body")]
    LineEnd,
    /// A chunk extension is not `;name`, `;name=value` or `;name="value"`, without white space.
    #[error("malformed chunk extension")]
    Extension,
    /// Chunk extensions of one message exceed [`EXTENSION_BYTES_MAX`].
    #[error("too many bytes of chunk extensions")]
    ExtensionsTooLarge,
    /// A trailer line is not `name: value`, or folded.
    #[error("malformed trailer field")]
    Trailer,
    /// A trailer field that frames or routes a message.
    #[error("trailer field that frames or routes")]
    ForbiddenTrailer,
    /// Trailer fields exceed the [`TrailerLimits`].
    #[error("trailer too large")]
    TrailersTooLarge,
    /// The peer closed before the end.
    #[error("connection closed inside a body")]
    Truncated,
}

impl BodyError {
    /// The status a request with this error is answered with, if an answer is still possible. A response with any
    /// error is 502, or a reset when its head has gone out.
    pub fn status(self) -> u16 {
        match self {
            BodyError::ChunkSize
            | BodyError::LineEnd
            | BodyError::Extension
            | BodyError::ExtensionsTooLarge
            | BodyError::Trailer
            | BodyError::ForbiddenTrailer
            | BodyError::Truncated => 400,
            BodyError::ChunkTooLarge => 413,
            BodyError::TrailersTooLarge => 431,
        }
    }

    /// A short word for logs, metrics and `x-ringway-reason`. These do not change between versions.
    pub fn reason(self) -> &'static str {
        match self {
            BodyError::ChunkSize => "chunk-size",
            BodyError::ChunkTooLarge => "chunk-too-large",
            BodyError::LineEnd => "chunk-line-end",
            BodyError::Extension => "chunk-extension",
            BodyError::ExtensionsTooLarge => "chunk-extensions-too-large",
            BodyError::Trailer => "trailer",
            BodyError::ForbiddenTrailer => "trailer-forbidden",
            BodyError::TrailersTooLarge => "trailers-too-large",
            BodyError::Truncated => "body-truncated",
        }
    }
}

/// Bounds of the trailer section of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrailerLimits {
    /// All trailer lines together, in bytes. One line must fit the caller's buffer.
    pub bytes_max: usize,
    /// Number of trailer lines.
    pub count_max: usize,
}

/// Finds the data and the end of one body.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_count: usize,
    limits: TrailerLimits,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Data until this many bytes have come; `chunked` tells what follows.
    Data {
        left: u64,
        chunked: bool,
    },
    UntilClose,
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        at: Extension,
    },
    /// LF after the chunk-size line's CR.
    SizeLf {
        size: u64,
    },
    DataCr,
    DataLf,
    Trailers,
    End,
}

impl Decoder {
    /// A decoder for the body that `framing` announces.
    pub fn new(framing: Framing, limits: TrailerLimits) -> Decoder {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(left) => State::Data { left, chunked: false },
            Framing::Chunked => State::Size { value: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        Decoder { state, extension_bytes: 0, trailer_bytes: 0, trailer_count: 0, limits }
    }

    /// Names what lies at the front of `bytes`: the next bytes of the message, and those that the last call did not
    /// take.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        if self.state == State::End {
            return Ok(Step::End);
        }
        if bytes.is_empty() {
            return Ok(Step::NeedMore);
        }
        match self.state {
            State::End => Ok(Step::End),
            State::UntilClose => Ok(Step::Data(bytes.len())),
            State::Data { left, chunked } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                self.state = match left - taken as u64 {
                    0 if chunked => State::DataCr,
                    0 => State::End,
                    left => State::Data { left, chunked },
                };
                Ok(Step::Data(taken))
            }
            State::Trailers => self.trailer(bytes),
            _ => self.framing(bytes),
        }
    }

    /// Tells whether the message was whole when the peer closed: a body until close ends so, any other must have
    /// ended before.
    pub fn on_close(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End | State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Whether the last byte of the body was taken.
    pub fn is_ended(&self) -> bool {
        self.state == State::End
    }

    /// Bytes of data still to come before the next framing, when known: what may be forwarded without looking.
    pub fn data_left(&self) -> Option<u64> {
        match self.state {
            State::Data { left, .. } => Some(left),
            State::UntilClose => None,
            _ => Some(0),
        }
    }

    /// Takes framing bytes up to the next data, trailer or end of `bytes`.
    fn framing(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        for (at, byte) in bytes.iter().enumerate() {
            self.state = match self.state {
                State::Size { value, digits } => self.size_byte(value, digits, *byte)?,
                State::Extension { size, at } => self.extension_byte(size, at, *byte)?,
                State::SizeLf { .. } | State::DataLf if *byte != b'\n' => return Err(BodyError::LineEnd),
                State::SizeLf { size: 0 } => State::Trailers,
                State::SizeLf { size } => State::Data { left: size, chunked: true },
                State::DataCr if *byte != b'\r' => return Err(BodyError::LineEnd),
                State::DataCr => State::DataLf,
                State::DataLf => State::Size { value: 0, digits: 0 },
                State::Data { .. } | State::UntilClose | State::Trailers | State::End => {
                    return Ok(Step::Skip(at));
                }
            };
        }
        Ok(Step::Skip(bytes.len()))
    }

    fn size_byte(&mut self, value: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(State::SizeLf { size: value }),
            b';' if digits > 0 => return Ok(State::Extension { size: value, at: Extension::default() }),
            b'\n' if digits > 0 => return Err(BodyError::LineEnd),
            _ => return Err(BodyError::ChunkSize),
        };
        if digits == SIZE_DIGITS_MAX {
            return Err(BodyError::ChunkSize);
        }
        // Sixteen digits cannot wrap a u64.
        let value = (value << 4) | u64::from(digit);
        if value > BODY_BYTES_MAX {
            return Err(BodyError::ChunkTooLarge);
        }
        Ok(State::Size { value, digits: digits + 1 })
    }

    fn extension_byte(&mut self, size: u64, at: Extension, byte: u8) -> Result<State, BodyError> {
        self.extension_bytes += 1;
        match byte {
            b'\r' if at.may_end() => Ok(State::SizeLf { size }),
            b'\n' => Err(BodyError::LineEnd),
            byte => match at.after(byte) {
                None => Err(BodyError::Extension),
                Some(_) if self.extension_bytes > EXTENSION_BYTES_MAX => Err(BodyError::ExtensionsTooLarge),
                Some(at) => Ok(State::Extension { size, at }),
            },
        }
    }

    /// One line of the trailer section, or its end.
    fn trailer(&mut self, bytes: &[u8]) -> Result<Step, BodyError> {
        let room = self.limits.bytes_max.saturating_sub(self.trailer_bytes);
        let Some(feed) = bytes.iter().position(|byte| *byte == b'\n') else {
            // The empty line that ends the section does not count.
            let ended = bytes == b"\r";
            return if bytes.len() > room && !ended {
                Err(BodyError::TrailersTooLarge)
            } else {
                Ok(Step::NeedMore)
            };
        };
        let line_bytes = feed + 1;
        let Some(line) = bytes.get(..feed).and_then(|line| line.strip_suffix(b"\r")) else {
            return Err(if line_bytes > room { BodyError::TrailersTooLarge } else { BodyError::LineEnd });
        };
        if line.is_empty() {
            self.state = State::End;
            return Ok(Step::Skip(line_bytes));
        }
        self.trailer_bytes += line_bytes;
        self.trailer_count += 1;
        if line_bytes > room || self.trailer_count > self.limits.count_max {
            return Err(BodyError::TrailersTooLarge);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(BodyError::Trailer)?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        if name.is_empty()
            || !name.iter().all(|byte| is_token(*byte))
            || !value.iter().all(|byte| is_value(*byte))
        {
            return Err(BodyError::Trailer);
        }
        match trailer_verdict(name) {
            Verdict::Forward => Ok(Step::Trailer(line_bytes)),
            Verdict::Drop => Ok(Step::Skip(line_bytes)),
            Verdict::Refuse => Err(BodyError::ForbiddenTrailer),
        }
    }
}

enum Verdict {
    Forward,
    Drop,
    Refuse,
}

/// RFC 9110 §6.5.1: a trailer must not hold what a recipient needs before the body. What frames or routes is an attack
/// on the next hop; what authenticates, or says where a request comes from, is dropped.
fn trailer_verdict(name: &[u8]) -> Verdict {
    match classify(name) {
        Known::Host | Known::ContentLength | Known::TransferEncoding | Known::Connection | Known::Trailer => {
            Verdict::Refuse
        }
        Known::Te | Known::Upgrade | Known::Expect | Known::KeepAlive | Known::ProxyConnection => {
            Verdict::Drop
        }
        Known::ProxyAuthenticate
        | Known::ProxyAuthorization
        | Known::ForwardedClientCert
        | Known::DisguisedIdentity => Verdict::Drop,
        Known::Other | Known::Date | Known::Server => {
            if is_disguised(name) {
                return Verdict::Refuse;
            }
            let dropped = DROPPED_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other));
            if dropped || super::edits::is_identity(name) { Verdict::Drop } else { Verdict::Forward }
        }
    }
}

/// Names that authenticate, control caching or describe the content.
const DROPPED_TRAILERS: [&[u8]; 14] = [
    b"authorization",
    b"www-authenticate",
    b"cookie",
    b"set-cookie",
    b"cache-control",
    b"age",
    b"expires",
    b"vary",
    b"location",
    b"max-forwards",
    b"content-encoding",
    b"content-type",
    b"content-range",
    b"range",
];

/// The line that opens a chunk, in a small array: `<hex size>CRLF`.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    text: [u8; 18],
    start: usize,
}

impl ChunkHead {
    /// The head of a chunk of `data_bytes` bytes, which must not be 0: that would end the body ([`LAST_CHUNK`]).
    pub fn new(data_bytes: usize) -> ChunkHead {
        debug_assert!(data_bytes > 0, "an empty chunk ends the body");
        let mut text = [b'0'; 18];
        let mut left = data_bytes;
        let mut start = 16;
        for (at, slot) in text.iter_mut().enumerate().rev() {
            match at {
                17 => *slot = b'\n',
                16 => *slot = b'\r',
                _ if left == 0 => break,
                _ => {
                    let digit = (left & 15) as u8;
                    *slot = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
                    left >>= 4;
                    start = at;
                }
            }
        }
        ChunkHead { text, start }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;
    use std::vec::Vec;
    use std::{format, vec};

    const LIMITS: TrailerLimits = TrailerLimits { bytes_max: 64, count_max: 3 };

    /// What a consumer ends up with.
    #[derive(PartialEq, Eq, Debug, Default)]
    struct Read {
        data: Vec<u8>,
        trailers: Vec<u8>,
        /// Bytes of the input that the body took, when it ended.
        end: Option<usize>,
    }

    /// Feeds the input in parts that end at `cuts`, keeping what was not taken, as a connection does.
    fn read_in_parts(
        input: &[u8],
        framing: Framing,
        cuts: impl Iterator<Item = usize>,
    ) -> Result<Read, BodyError> {
        let mut decoder = Decoder::new(framing, LIMITS);
        let mut read = Read::default();
        let mut taken = 0;
        for cut in cuts.chain([input.len()]) {
            loop {
                let bytes = &input[taken..cut];
                match decoder.receive(bytes)? {
                    Step::Data(count) => {
                        read.data.extend_from_slice(&bytes[..count]);
                        taken += count;
                    }
                    Step::Skip(count) => {
                        assert!(count > 0);
                        taken += count;
                    }
                    Step::Trailer(count) => {
                        read.trailers.extend_from_slice(&bytes[..count]);
                        taken += count;
                    }
                    Step::NeedMore => break,
                    Step::End => {
                        assert!(decoder.is_ended());
                        read.end = Some(taken);
                        return Ok(read);
                    }
                }
            }
        }
        Ok(read)
    }

    fn read(input: &[u8], framing: Framing) -> Result<Read, BodyError> {
        let whole = read_in_parts(input, framing, [].into_iter());
        for cut in 0..input.len().min(300) {
            assert_eq!(read_in_parts(input, framing, [cut].into_iter()), whole, "cut at {cut}");
        }
        let trickled = read_in_parts(input, framing, 0..input.len());
        assert_eq!(trickled, whole, "{}", String::from_utf8_lossy(&input[..input.len().min(80)]));
        whole
    }

    /// Data, trailers, and where the body ended.
    type Text = Result<(String, String, Option<usize>), BodyError>;

    fn chunked(input: &str) -> Text {
        let read = read(input.as_bytes(), Framing::Chunked)?;
        Ok((String::from_utf8(read.data).unwrap(), String::from_utf8(read.trailers).unwrap(), read.end))
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let data = |text: &str, end| Ok(Read { data: text.as_bytes().to_vec(), trailers: vec![], end });
        assert_eq!(read(b"GET /", Framing::None), data("", Some(0)));
        assert_eq!(read(b"GET /", Framing::Length(0)), data("", Some(0)));
        assert_eq!(read(b"helloGET /", Framing::Length(5)), data("hello", Some(5)));
        assert_eq!(read(b"hel", Framing::Length(5)), data("hel", None));
        assert_eq!(read(b"hello", Framing::UntilClose), data("hello", None));
        assert_eq!(read(b"5\r\nhello\r\n0\r\n\r\nGET /", Framing::Chunked), data("hello", Some(15)));
    }

    #[test]
    fn chunks_are_read_strictly() {
        let ok = |text: &str, end| Ok((String::from(text), String::new(), Some(end)));
        let open = |text: &str| Ok((String::from(text), String::new(), None));
        let cases: &[(&str, Text)] = &[
            ("0\r\n\r\n", ok("", 5)),
            ("000\r\n\r\n", ok("", 7)),
            ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", ok("abc", 18)),
            ("A\r\n0123456789\r\n0\r\n\r\n", ok("0123456789", 20)),
            ("a\r\n0123456789\r\n0\r\n\r\n", ok("0123456789", 20)),
            ("5;a=\"b;c\"\r\nhello\r\n0;x\r\n\r\n", ok("hello", 25)),
            ("5\r\nhello\r\n0\r\n\r", open("hello")),
            ("5\r\nhello\r\n", open("hello")),
            ("ffffffff\r\nhe", open("he")),
            // H1-08
            ("5;\nhello\r\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5;a=\rhello\r\n0\r\n\r\n", Err(BodyError::Extension)),
            ("5;a\rhello\r\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5;\r\nhello\r\n0\r\n\r\n", Err(BodyError::Extension)),
            ("5;a=\"b\r\nhello\r\n0\r\n\r\n", Err(BodyError::Extension)),
            ("5\nhello\r\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("1\rXy\r\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("1;a\rXy\r\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5\rhello\r\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5\r\nhelloXX0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5\r\nhelloX\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5\r\nhello\n0\r\n\r\n", Err(BodyError::LineEnd)),
            ("5\r\nhello\rX0\r\n\r\n", Err(BodyError::LineEnd)),
            ("0\r\n\n", Err(BodyError::LineEnd)),
            ("0x5\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            ("+5\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            ("-5\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (" 5\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            ("5 \r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            ("\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            (";a\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            ("G\r\n", Err(BodyError::ChunkSize)),
            ("00000000000000005\r\nhello\r\n0\r\n\r\n", Err(BodyError::ChunkSize)),
            ("ffffffffffffffff\r\n", Err(BodyError::ChunkTooLarge)),
            ("8000000000000000\r\n", Err(BodyError::ChunkTooLarge)),
            ("10000000000000005\r\n", Err(BodyError::ChunkSize)),
            ("5;a=\0\r\nhello\r\n0\r\n\r\n", Err(BodyError::Extension)),
        ];
        for (input, expected) in cases {
            assert_eq!(chunked(input), *expected, "{input:?}");
        }
        assert_eq!(chunked("7fffffffffffffff\r\nx"), open("x"));
    }

    #[test]
    fn chunk_extensions_have_a_bound_per_message() {
        let one = |bytes: usize| format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(bytes));
        assert!(chunked(&one(EXTENSION_BYTES_MAX)).is_ok());
        assert_eq!(chunked(&one(EXTENSION_BYTES_MAX + 1)), Err(BodyError::ExtensionsTooLarge));
        assert_eq!(chunked(&one(64 * 1024)), Err(BodyError::ExtensionsTooLarge));
        let many = "1;eeeeeee\r\nx\r\n".repeat(EXTENSION_BYTES_MAX / 8);
        assert!(chunked(&format!("{many}0\r\n\r\n")).is_ok());
        assert_eq!(chunked(&format!("{many}1;eeeeeeeee\r\nx\r\n")), Err(BodyError::ExtensionsTooLarge));
    }

    #[test]
    fn a_million_chunks_of_one_byte_are_one_body() {
        let input = "1\r\nx\r\n".repeat(1_000_000) + "0\r\n\r\n";
        let read = read_in_parts(input.as_bytes(), Framing::Chunked, [].into_iter()).unwrap();
        assert_eq!((read.data.len(), read.end), (1_000_000, Some(input.len())));
    }

    #[test]
    fn trailers_are_passed_dropped_or_refused_by_name() {
        let ok = |trailers: &str| Ok(String::from(trailers));
        let cases: &[(&str, Result<String, BodyError>)] = &[
            ("", ok("")),
            ("gRpc-Status: 0\r\n", ok("gRpc-Status: 0\r\n")),
            ("A:\r\nB: \x7e\t\r\n", ok("A:\r\nB: \x7e\t\r\n")),
            ("Authorization: x\r\nb: c\r\n", ok("b: c\r\n")),
            ("X-Forwarded-For: 1.1.1.1\r\n", ok("")),
            ("X_Forwarded_For: 1.1.1.1\r\nx-forwarded_client-cert: a\r\n", ok("")),
            ("set-cookie: a\r\n", ok("")),
            // H1-09
            ("Content-Length: 5\r\n", Err(BodyError::ForbiddenTrailer)),
            ("transfer-encoding: chunked\r\n", Err(BodyError::ForbiddenTrailer)),
            ("HOST: a\r\n", Err(BodyError::ForbiddenTrailer)),
            ("Content_Length: 5\r\n", Err(BodyError::ForbiddenTrailer)),
            ("a: b\n", Err(BodyError::LineEnd)),
            ("a : b\r\n", Err(BodyError::Trailer)),
            ("a: b\r\n c\r\n", Err(BodyError::Trailer)),
            (": b\r\n", Err(BodyError::Trailer)),
            ("ab\r\n", Err(BodyError::Trailer)),
            ("a: b\0\r\n", Err(BodyError::Trailer)),
            ("a: b\rc: d\r\n", Err(BodyError::Trailer)),
            ("a: 1\r\nb: 2\r\nc: 3\r\n", ok("a: 1\r\nb: 2\r\nc: 3\r\n")),
            ("a: 1\r\nb: 2\r\nc: 3\r\nd: 4\r\n", Err(BodyError::TrailersTooLarge)),
        ];
        for (lines, expected) in cases {
            let input = format!("1\r\nx\r\n0\r\n{lines}\r\nGET /");
            let answer = chunked(&input);
            if let Ok((_, _, end)) = &answer {
                assert_eq!(*end, Some(input.len() - 5), "{lines:?}");
            }
            assert_eq!(answer.map(|(_, trailers, _)| trailers), *expected, "{lines:?}");
        }
        let long = |bytes: usize| format!("0\r\na: {}\r\n\r\n", "v".repeat(bytes - 5));
        assert!(chunked(&long(LIMITS.bytes_max)).is_ok());
        assert_eq!(chunked(&long(LIMITS.bytes_max + 1)), Err(BodyError::TrailersTooLarge));
        let endless = format!("0\r\na: {}", "v".repeat(LIMITS.bytes_max));
        assert_eq!(chunked(&endless), Err(BodyError::TrailersTooLarge));
    }

    #[test]
    fn a_close_ends_only_a_body_that_ends_so() {
        let close_after = |framing, input: &[u8]| {
            let mut decoder = Decoder::new(framing, LIMITS);
            let mut taken = 0;
            while let Step::Data(count) | Step::Skip(count) = decoder.receive(&input[taken..]).unwrap() {
                taken += count;
            }
            decoder.on_close()
        };
        assert_eq!(close_after(Framing::UntilClose, b"abc"), Ok(()));
        assert_eq!(close_after(Framing::None, b""), Ok(()));
        assert_eq!(close_after(Framing::Length(3), b"abc"), Ok(()));
        assert_eq!(close_after(Framing::Length(4), b"abc"), Err(BodyError::Truncated));
        let whole = b"3\r\nabc\r\n0\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(
                close_after(Framing::Chunked, &whole[..cut]),
                Err(BodyError::Truncated),
                "cut at {cut}"
            );
        }
        assert_eq!(close_after(Framing::Chunked, whole), Ok(()));
    }

    #[test]
    fn written_chunks_are_read_back() {
        for bytes in [1, 9, 10, 15, 16, 255, 4096, 65_535, usize::MAX >> 1] {
            let head = ChunkHead::new(bytes);
            assert_eq!(head.as_bytes(), format!("{bytes:x}\r\n").as_bytes());
            let mut decoder = Decoder::new(Framing::Chunked, LIMITS);
            assert_eq!(decoder.receive(head.as_bytes()), Ok(Step::Skip(head.as_bytes().len())));
            assert_eq!(decoder.data_left(), Some(bytes as u64));
        }
        assert_eq!(ChunkHead::new(usize::MAX).as_bytes(), b"ffffffffffffffff\r\n");
        let written =
            [ChunkHead::new(2).as_bytes(), b"hi", CHUNK_END, LAST_CHUNK, b"a: b\r\n", TRAILERS_END].concat();
        let written = String::from_utf8(written).unwrap();
        assert_eq!(chunked(&written), Ok(("hi".into(), "a: b\r\n".into(), Some(written.len()))));
        assert_eq!(BODY_END, [LAST_CHUNK, TRAILERS_END].concat());
    }
}
