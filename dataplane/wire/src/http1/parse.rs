//! Request and response heads: bytes to spans, everything ambiguous refused.
//!
//! [`Lines`] reads the grammar, this file what the lines mean together.
//!
//! The answer is defined as: look for the end of the head, then read it whole; that is what makes it independent of
//! how the bytes arrive, and looking never goes over the same byte twice. Reading first, without looking, is only a
//! short cut for the common case of a good head that is there at once.
//!
//! Longer than 500 lines: half of it are the tables of its tests, one case or more for each row of the catalogue of refusals.

use alloc::vec::Vec;

use super::fields::{Fields, classify, is_disguised, is_token};
use super::lines::{Lines, RequestLine};
use super::target;
use crate::head::{
    Framing, Header, Known, Method, RequestHead, ResponseHead, Scan, Span, TargetForm, Version,
};

pub use super::refusal::ParseError;

/// The most header lines a head may ever have: what bounds [`Limits::headers_count_max`], since many a step looks at each
/// of them.
pub const HEADERS_COUNT_MAX: usize = 256;

/// The longest method, in bytes. Registered ones have up to 17.
pub const METHOD_BYTES_MAX: usize = 32;

/// Bounds of one head, given by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest head in bytes, first line and final empty line included (Envoy: `max_request_headers_kb`).
    pub head_bytes_max: usize,
    /// Most header lines (Envoy: `max_headers_count`); [`HEADERS_COUNT_MAX`] holds above it.
    pub headers_count_max: usize,
    /// Longest request target in bytes.
    pub target_bytes_max: usize,
}

/// What a parse found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The head is whole and its spans are filled in; the body begins at `head.end`.
    Complete,
    /// More bytes are needed. Call again with the same bytes and what follows them, and the same head.
    Partial,
}

/// Reads a request head from `bytes`, which begin at its first byte and may go on after its end.
///
/// `head` is new or cleared ([`RequestHead::clear`]), or the one that the last call for this request left `Partial`.
/// An error of the first line, or a line end without CR, is given at once; any other when the head is whole.
pub fn request(bytes: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Parsed, ParseError> {
    if head.scan == Scan::default() && read_request(bytes, limits, head, read_fields) == Ok(Parsed::Complete)
    {
        return Ok(Parsed::Complete);
    }
    if bytes.first().is_some_and(|byte| !is_token(*byte)) {
        return Err(ParseError::Start);
    }
    match find_end(bytes, limits, &mut head.scan, judge_request_line)? {
        None => Ok(Parsed::Partial),
        Some(end) => read_request(bytes.get(..end).unwrap_or_default(), limits, head, read_fields),
    }
}

/// Reads the head of a response to a request with `method`, as [`request`] does.
///
/// `framing` takes the method into account: after HEAD, and with 1xx, 204 and 304, and a 2xx to CONNECT, there is no
/// body whatever the headers say (RFC 9112 §6.3).
pub fn response(
    bytes: &[u8],
    limits: &Limits,
    method: Method,
    head: &mut ResponseHead,
) -> Result<Parsed, ParseError> {
    if head.scan == Scan::default()
        && read_response(bytes, limits, method, head, read_fields) == Ok(Parsed::Complete)
    {
        return Ok(Parsed::Complete);
    }
    if bytes.first().is_some_and(|byte| *byte != b'H') {
        return Err(ParseError::Start);
    }
    match find_end(bytes, limits, &mut head.scan, judge_status_line)? {
        None => Ok(Parsed::Partial),
        Some(end) => read_response(bytes.get(..end).unwrap_or_default(), limits, method, head, read_fields),
    }
}

/// Reads the head of a request that was written by us, whole, with `headers` beside it: where each of its lines is, in
/// their order and without a gap, the names tokens and the values good. So the lines are not looked for again, which is
/// most of the work of [`request`]; what they mean is judged as there, and by it where anything is wrong. `headers` has
/// other memory afterwards.
pub(crate) fn written_request(
    bytes: &[u8],
    limits: &Limits,
    headers: &mut Vec<Header>,
    head: &mut RequestHead,
) -> Result<(), ParseError> {
    core::mem::swap(&mut head.headers, headers);
    if let Err(error) = read_request(bytes, limits, head, known_fields) {
        let judged = request(bytes, limits, head);
        debug_assert!(judged.is_err(), "what was written is read otherwise: {error}");
        return Err(judged.err().unwrap_or(error));
    }
    #[cfg(test)]
    {
        let mut judged = RequestHead::default();
        let parsed = request(bytes, limits, &mut judged);
        judged.headers.iter_mut().zip(&head.headers).for_each(|(judged, written)| judged.know(written));
        assert_eq!((parsed, &judged), (Ok(Parsed::Complete), &*head), "what was written is read otherwise");
    }
    Ok(())
}

/// Reads the head of a response in the same way.
pub(crate) fn written_response(
    bytes: &[u8],
    (limits, method): (&Limits, Method),
    headers: &mut Vec<Header>,
    head: &mut ResponseHead,
) -> Result<(), ParseError> {
    core::mem::swap(&mut head.headers, headers);
    if let Err(error) = read_response(bytes, limits, method, head, known_fields) {
        let judged = response(bytes, limits, method, head);
        debug_assert!(judged.is_err(), "what was written is read otherwise: {error}");
        return Err(judged.err().unwrap_or(error));
    }
    #[cfg(test)]
    {
        let mut judged = ResponseHead { has_added_length: head.has_added_length, ..Default::default() };
        let parsed = response(bytes, limits, method, &mut judged);
        judged.headers.iter_mut().zip(&head.headers).for_each(|(judged, written)| judged.know(written));
        assert_eq!((parsed, &judged), (Ok(Parsed::Complete), &*head), "what was written is read otherwise");
    }
    Ok(())
}

/// How the header lines of a head are read.
type ReadFields = fn(&[u8], Lines<'_>, &Limits, &mut Vec<Header>, &mut u32) -> Result<Fields, ParseError>;

fn read_request(
    bytes: &[u8],
    limits: &Limits,
    head: &mut RequestHead,
    read_fields: ReadFields,
) -> Result<Parsed, ParseError> {
    let mut lines = Lines::new(bytes);
    let RequestLine { method, target, version } = lines.request_line()?;
    check_lengths(method, target, limits)?;
    head.method = known_method(method.of(bytes));
    head.method_span = method;
    head.target = target;
    head.target_end = target.end;
    head.version = version;

    let fields = read_fields(bytes, lines, limits, &mut head.headers, &mut head.end)?;
    if fields.disguised {
        return Err(ParseError::DisguisedFraming);
    }
    let target = target::split(bytes, target, head.method)?;
    head.form = target.form;
    head.path = target.path;
    head.query = target.query;
    head.authority = authority(bytes, &target, fields.host, version)?;
    head.framing = match (fields.chunked, fields.length) {
        _ if fields.chunked && version == Version::Http10 => {
            return Err(ParseError::TransferEncodingVersion);
        }
        (true, Some(_)) => return Err(ParseError::LengthAndEncoding),
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::None,
    };
    if head.method == Method::Connect && !matches!(head.framing, Framing::None | Framing::Length(0)) {
        return Err(ParseError::ConnectBody);
    }
    // A server ignores `Expect` and `Upgrade` of HTTP/1.0 (RFC 9110 §10.1.1, §7.8).
    let current = version == Version::Http11;
    if current && fields.expect_unknown {
        return Err(ParseError::Expectation);
    }
    head.keep_alive = persists(&fields, version);
    head.expects_continue =
        current && fields.expect && !matches!(head.framing, Framing::None | Framing::Length(0));
    head.upgrade = current && fields.upgrade && fields.options.upgrade && !fields.h2c;
    head.options = fields.options;
    Ok(Parsed::Complete)
}

fn read_response(
    bytes: &[u8],
    limits: &Limits,
    method: Method,
    head: &mut ResponseHead,
    read_fields: ReadFields,
) -> Result<Parsed, ParseError> {
    let mut lines = Lines::new(bytes);
    let line = lines.status_line()?;
    let (status, version) = (line.status, line.version);
    head.status = status;
    head.reason = line.reason;
    head.version = version;

    let fields = read_fields(bytes, lines, limits, &mut head.headers, &mut head.end)?;
    if fields.chunked && version == Version::Http10 {
        return Err(ParseError::TransferEncodingVersion);
    }
    if fields.chunked && fields.length.is_some() {
        return Err(ParseError::LengthAndEncoding);
    }
    let tunnel = method == Method::Connect && (200..300).contains(&status);
    // What announces a body where there must be none may be followed by one: the connection is not used again.
    let surplus =
        matches!(status, 100..200 | 204) && (fields.chunked || fields.length.is_some_and(|n| n > 0));
    head.framing = match (fields.chunked, fields.length) {
        _ if tunnel || method == Method::Head || matches!(status, 100..200 | 204 | 304) => Framing::None,
        (true, _) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    head.keep_alive = persists(&fields, version)
        && head.framing != Framing::UntilClose
        && !surplus
        && !tunnel
        && status != 101;
    head.options = fields.options;
    Ok(Parsed::Complete)
}

/// Reads the header lines and notes what they say, up to the `end` of the head.
fn read_fields(
    bytes: &[u8],
    mut lines: Lines<'_>,
    limits: &Limits,
    headers: &mut Vec<Header>,
    end: &mut u32,
) -> Result<Fields, ParseError> {
    let count_max = limits.headers_count_max.min(HEADERS_COUNT_MAX);
    let mut fields = Fields::default();
    // What is wrong with the lines themselves is told before what is wrong with their meaning.
    let mut wrong = None;
    headers.clear();
    while let Some(line) = lines.header()? {
        if headers.len() == count_max {
            return Err(ParseError::TooManyHeaders);
        }
        let name = line.name.of(bytes);
        let known = classify(name);
        let header =
            Header { name: line.name, value: line.value, line: line.line, known, ..Header::default() };
        headers.push(header);
        match known {
            Known::Other => fields.disguised |= is_disguised(name),
            _ => wrong = wrong.or(fields.note(&header, bytes).err()),
        }
    }
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if lines.at() > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    *end = Span::new(0, lines.at()).end;
    Ok(fields)
}

/// The same where `headers` says already where the lines are.
#[allow(clippy::ptr_arg, reason = "one of two functions of one type")]
fn known_fields(
    bytes: &[u8],
    lines: Lines<'_>,
    limits: &Limits,
    headers: &mut Vec<Header>,
    end: &mut u32,
) -> Result<Fields, ParseError> {
    let first = headers.first().map_or(bytes.len().saturating_sub(2), |header| header.line.start as usize);
    if lines.at() != first {
        return Err(ParseError::HeaderName);
    }
    if headers.len() > limits.headers_count_max.min(HEADERS_COUNT_MAX) {
        return Err(ParseError::TooManyHeaders);
    }
    let mut fields = Fields::default();
    for header in headers.iter() {
        match header.known {
            Known::Other => fields.disguised |= is_disguised(header.name.of(bytes)),
            _ => fields.note(header, bytes)?,
        }
    }
    if bytes.len() > limits.head_bytes_max {
        return Err(ParseError::HeadTooLarge);
    }
    *end = Span::new(0, bytes.len()).end;
    Ok(fields)
}

fn authority(
    bytes: &[u8],
    target: &target::Target,
    host: Option<Span>,
    version: Version,
) -> Result<Span, ParseError> {
    let Some(host) = host else {
        return if version == Version::Http11 { Err(ParseError::MissingHost) } else { Ok(target.authority) };
    };
    let host_text = host.of(bytes);
    target::split_authority(host_text).ok_or(ParseError::Host)?;
    if matches!(target.form, TargetForm::Origin | TargetForm::Asterisk) {
        return Ok(host);
    }
    if !target::same(target.authority.of(bytes), host_text, target.default_port) {
        return Err(ParseError::HostMismatch);
    }
    Ok(target.authority)
}

/// RFC 9112 §9.3. An HTTP/1.0 peer must ask for it.
fn persists(fields: &Fields, version: Version) -> bool {
    !fields.options.close && (version == Version::Http11 || fields.options.keep_alive)
}

fn known_method(method: &[u8]) -> Method {
    match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"CONNECT" => Method::Connect,
        b"OPTIONS" => Method::Options,
        b"TRACE" => Method::Trace,
        b"PATCH" => Method::Patch,
        _ => Method::Other,
    }
}

/// Looks for the end of the head from where the last call stopped. The first line is judged as soon as it is there, so
/// that other protocols and HTTP/0.9, which sends nothing more, get their answer.
fn find_end(
    bytes: &[u8],
    limits: &Limits,
    scan: &mut Scan,
    judge: fn(&[u8], &Limits) -> Result<(), ParseError>,
) -> Result<Option<usize>, ParseError> {
    let visible = bytes.get(..bytes.len().min(limits.head_bytes_max)).unwrap_or_default();
    let from = (scan.bytes as usize).min(visible.len());
    for (at, byte) in visible.iter().enumerate().skip(from) {
        if *byte != b'\n' {
            continue;
        }
        let before = visible.get(..at).unwrap_or_default();
        if !before.ends_with(b"\r") {
            return Err(ParseError::BareLf);
        }
        if !scan.first_line {
            judge(visible.get(..=at).unwrap_or_default(), limits)?;
            scan.first_line = true;
        }
        if before.ends_with(b"\r\n\r") {
            *scan = Scan::default();
            return Ok(Some(at + 1));
        }
    }
    if bytes.len() >= limits.head_bytes_max {
        // A first line that fills everything is long by its target.
        return Err(if scan.first_line { ParseError::HeadTooLarge } else { ParseError::TargetTooLong });
    }
    scan.bytes = Span::new(0, visible.len()).end;
    Ok(None)
}

/// What can be said about a request by its first line, given with its line end.
fn judge_request_line(line: &[u8], limits: &Limits) -> Result<(), ParseError> {
    let RequestLine { method, target, .. } = Lines::new(line).request_line()?;
    check_lengths(method, target, limits)
}

fn judge_status_line(line: &[u8], _: &Limits) -> Result<(), ParseError> {
    Lines::new(line).status_line().map(drop)
}

fn check_lengths(method: Span, target: Span, limits: &Limits) -> Result<(), ParseError> {
    if method.len() > METHOD_BYTES_MAX {
        return Err(ParseError::MethodTooLong);
    }
    if target.len() > limits.target_bytes_max {
        return Err(ParseError::TargetTooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{RequestView, ResponseView};
    use std::string::String;
    use std::{format, vec};

    const LIMITS: Limits =
        Limits { head_bytes_max: 32 * 1024, headers_count_max: 100, target_bytes_max: 8 * 1024 };

    /// Parses the whole, and again with every prefix before it: the first answer other than `Partial` must agree.
    fn ask(bytes: &[u8]) -> Result<Parsed, ParseError> {
        let mut whole = RequestHead::default();
        let answer = request(bytes, &LIMITS, &mut whole);
        for cut in 0..bytes.len() {
            let mut head = RequestHead::default();
            let first = request(&bytes[..cut], &LIMITS, &mut head);
            let last = if first == Ok(Parsed::Partial) { request(bytes, &LIMITS, &mut head) } else { first };
            assert_eq!(last, answer, "cut at {cut}: {}", String::from_utf8_lossy(bytes));
            if last == Ok(Parsed::Complete) {
                assert_eq!(format!("{head:?}"), format!("{whole:?}"), "cut at {cut}");
            }
        }
        let mut head = RequestHead::default();
        let trickled = (0..=bytes.len()).map(|end| request(&bytes[..end], &LIMITS, &mut head));
        let trickled = trickled.into_iter().find(|answer| *answer != Ok(Parsed::Partial));
        assert_eq!(trickled.unwrap_or(Ok(Parsed::Partial)), answer, "{}", String::from_utf8_lossy(bytes));
        answer
    }

    fn ask_response(bytes: &[u8], method: Method) -> Result<ResponseHead, ParseError> {
        let mut whole = ResponseHead::default();
        let answer = response(bytes, &LIMITS, method, &mut whole);
        for cut in 0..bytes.len() {
            let mut head = ResponseHead::default();
            let first = response(&bytes[..cut], &LIMITS, method, &mut head);
            let last = if first == Ok(Parsed::Partial) {
                response(bytes, &LIMITS, method, &mut head)
            } else {
                first
            };
            assert_eq!(last, answer, "cut at {cut}: {}", String::from_utf8_lossy(bytes));
        }
        assert_ne!(answer, Ok(Parsed::Partial), "{}", String::from_utf8_lossy(bytes));
        answer.map(|_| whole)
    }

    /// A POST with these header lines after `Host`.
    fn post(lines: &str) -> Vec<u8> {
        format!("POST /p HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
    }

    fn parsed(bytes: &[u8]) -> RequestHead {
        assert_eq!(ask(bytes), Ok(Parsed::Complete), "{}", String::from_utf8_lossy(bytes));
        let mut head = RequestHead::default();
        request(bytes, &LIMITS, &mut head).unwrap();
        head
    }

    #[test]
    fn a_plain_request_is_spans_over_its_bytes() {
        let bytes =
            b"GET /a/b?x=1 HTTP/1.1\r\nhOsT: A.example:80\r\nX-Empty:\r\nX-Two: \tv w \r\n\r\nGET /next";
        let head = parsed(bytes);
        let view = RequestView { head: &head, bytes };
        assert_eq!((head.method, view.method(), head.version), (Method::Get, &b"GET"[..], Version::Http11));
        assert_eq!(
            (view.path(), view.query(), view.authority()),
            (&b"/a/b"[..], Some(&b"x=1"[..]), &b"A.example:80"[..])
        );
        assert_eq!(&bytes[head.end as usize..], b"GET /next");
        assert_eq!((head.framing, head.keep_alive, head.form), (Framing::None, true, TargetForm::Origin));
        let lines: Vec<_> =
            head.headers.iter().map(|header| (header.name.of(bytes), header.value.of(bytes))).collect();
        assert_eq!(lines, [(&b"hOsT"[..], &b"A.example:80"[..]), (b"X-Empty", b""), (b"X-Two", b"v w")]);
        assert_eq!(head.headers[0].known, Known::Host);
        assert_eq!(head.headers[1].line.of(bytes), b"X-Empty:\r\n");
        assert_eq!(head.headers[2].line.of(bytes), b"X-Two: \tv w \r\n");
        assert_eq!(view.header_values(b"x-two").collect::<Vec<_>>(), [b"v w"]);
    }

    #[test]
    fn a_cleared_head_keeps_its_memory_and_nothing_else() {
        let mut head =
            parsed(b"POST http://a/x?y HTTP/1.0\r\nContent-Length: 3\r\nConnection: close, x\r\n\r\n");
        let capacity = head.headers.capacity();
        head.clear();
        assert_eq!(head.headers.capacity(), capacity);
        assert_eq!(format!("{head:?}"), format!("{:?}", RequestHead::default()));
    }

    #[test]
    fn request_lines_and_targets_are_read_strictly() {
        let host = "Host: a";
        let cases: &[(&str, &str, Result<(), ParseError>)] = &[
            ("GET / HTTP/1.1", host, Ok(())),
            ("GET /?a?b HTTP/1.1", host, Ok(())),
            ("GET //admin/../x;p=%2e HTTP/1.1", host, Ok(())),
            ("BREW-IT /pot HTTP/1.1", host, Ok(())),
            ("OPTIONS * HTTP/1.1", host, Ok(())),
            ("GET http://a/ HTTP/1.1", host, Ok(())),
            ("GET HTTP://A:80 HTTP/1.1", host, Ok(())),
            ("GET https://a/ HTTP/1.1", "Host: a:443", Ok(())),
            ("GET http://a?q HTTP/1.1", host, Ok(())),
            ("GET http://[::1]:80/ HTTP/1.1", "Host: [::1]", Ok(())),
            ("CONNECT a:443 HTTP/1.1", "Host: a:443", Ok(())),
            ("CONNECT a:443 HTTP/1.1", host, Ok(())),
            // H1-11 target forms
            ("GET http://b/ HTTP/1.1", host, Err(ParseError::HostMismatch)),
            ("GET http://a:81/ HTTP/1.1", host, Err(ParseError::HostMismatch)),
            ("GET http://a/ HTTP/1.1", "Host: a:443", Err(ParseError::HostMismatch)),
            ("GET http://a,b/ HTTP/1.1", "Host: a,b", Err(ParseError::Target)),
            ("GET http://a,b/ HTTP/1.1", host, Err(ParseError::Target)),
            ("GET http://u@a/ HTTP/1.1", host, Err(ParseError::Target)),
            ("GET http:///x HTTP/1.1", host, Err(ParseError::Target)),
            ("GET ftp://a/ HTTP/1.1", host, Err(ParseError::Target)),
            ("GET /a#b HTTP/1.1", host, Err(ParseError::Fragment)),
            ("GET http://a#b HTTP/1.1", host, Err(ParseError::Fragment)),
            ("GET ? HTTP/1.1", host, Err(ParseError::Target)),
            ("GET a HTTP/1.1", host, Err(ParseError::Target)),
            ("GET * HTTP/1.1", host, Err(ParseError::Target)),
            ("CONNECT a HTTP/1.1", host, Err(ParseError::Target)),
            ("CONNECT /x HTTP/1.1", host, Err(ParseError::Target)),
            ("CONNECT a:1 HTTP/1.1", "Host: b:1", Err(ParseError::HostMismatch)),
            ("GET /a\tb HTTP/1.1", host, Err(ParseError::RequestLine)),
            ("GET /a b HTTP/1.1", host, Err(ParseError::Version)),
            ("GET  / HTTP/1.1", host, Err(ParseError::RequestLine)),
            ("GET /  HTTP/1.1", host, Err(ParseError::Version)),
            ("GET / HTTP/1.1 ", host, Err(ParseError::Version)),
            ("G(T / HTTP/1.1", host, Err(ParseError::RequestLine)),
            ("GET /\x01 HTTP/1.1", host, Err(ParseError::RequestLine)),
            ("GET /\x7f HTTP/1.1", host, Err(ParseError::RequestLine)),
            ("GET /\u{e9} HTTP/1.1", host, Err(ParseError::Target)),
            // H1-13 version
            ("GET / HTTP/1.2", host, Err(ParseError::UnsupportedVersion)),
            ("GET / HTTP/2.0", host, Err(ParseError::UnsupportedVersion)),
            ("PRI * HTTP/2.0", host, Err(ParseError::UnsupportedVersion)),
            ("GET / HTTP/1.20", host, Err(ParseError::Version)),
            ("GET / HTTP/1.01", host, Err(ParseError::Version)),
            ("GET / http/1.1", host, Err(ParseError::Version)),
            ("GET / HTTP/11", host, Err(ParseError::Version)),
            ("GET /", host, Err(ParseError::RequestLine)),
        ];
        for (line, host, expected) in cases {
            let answer = ask(format!("{line}\r\n{host}\r\n\r\n").as_bytes());
            assert_eq!(answer.map(|_| ()), *expected, "{line:?} {host:?}");
        }
        assert_eq!(ask(b"GET /\x85 HTTP/1.1\r\nHost: a\r\n\r\n"), Err(ParseError::Target));
        // Nothing more need come for these.
        assert_eq!(ask(b"GET /\r\n"), Err(ParseError::RequestLine));
        assert_eq!(ask(b"EHLO mail.example\r\n"), Err(ParseError::RequestLine));
        assert_eq!(ask(b"PRI * HTTP/2.0\r\n"), Err(ParseError::UnsupportedVersion));
    }

    #[test]
    fn hosts_are_one_and_well_formed() {
        // H1-12
        let cases: &[(&str, Result<(), ParseError>)] = &[
            ("Host: a.b-c_d~e:8080\r\n", Ok(())),
            ("Host: 10.0.0.7:65535\r\n", Ok(())),
            ("Host: [fe80::1]:80\r\n", Ok(())),
            ("", Err(ParseError::MissingHost)),
            ("Host: a\r\nHost: a\r\n", Err(ParseError::DuplicateHost)),
            ("Host:\r\n", Err(ParseError::Host)),
            ("Host: a:99999\r\n", Err(ParseError::Host)),
            ("Host: a:\r\n", Err(ParseError::Host)),
            ("Host: :80\r\n", Err(ParseError::Host)),
            ("Host: a:+80\r\n", Err(ParseError::Host)),
            ("Host: a b\r\n", Err(ParseError::Host)),
            ("Host: [::1\r\n", Err(ParseError::Host)),
            ("Host: [::1]x\r\n", Err(ParseError::Host)),
            ("Host: [a]\r\n", Err(ParseError::Host)),
            ("Host: a/b\r\n", Err(ParseError::Host)),
            ("Host: a,b\r\n", Err(ParseError::Host)),
            ("Host: u@a\r\n", Err(ParseError::Host)),
        ];
        for (lines, expected) in cases {
            let answer = ask(format!("GET / HTTP/1.1\r\n{lines}\r\n").as_bytes());
            assert_eq!(answer.map(|_| ()), *expected, "{lines:?}");
        }
        let head = parsed(b"GET / HTTP/1.0\r\n\r\n");
        assert!(head.authority.is_empty() && !head.keep_alive);
    }

    #[test]
    fn a_body_is_framed_in_one_way_or_refused() {
        let cases: &[(&str, Result<Framing, ParseError>)] = &[
            ("", Ok(Framing::None)),
            ("Content-Length: 0\r\n", Ok(Framing::Length(0))),
            ("cOnTeNt-LeNgTh:5\r\n", Ok(Framing::Length(5))),
            ("Content-Length: 9223372036854775807\r\n", Ok(Framing::Length(u64::MAX >> 1))),
            ("Transfer-Encoding: chunked\r\n", Ok(Framing::Chunked)),
            ("Transfer-Encoding: CHUNKED\r\n", Ok(Framing::Chunked)),
            // H1-01 both
            ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", Err(ParseError::LengthAndEncoding)),
            ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", Err(ParseError::LengthAndEncoding)),
            // H1-02 other codings
            ("Transfer-Encoding: chunked, identity\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding: xchunked\r\n", Err(ParseError::TransferCoding)),
            ("Transfer-Encoding: identity\r\n", Err(ParseError::TransferCoding)),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(ParseError::TransferCoding)),
            ("Transfer-Encoding: gzip;q=1\r\n", Err(ParseError::TransferCoding)),
            ("Transfer-Encoding: ,chunked\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding: chunked,\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding: chunked, chunked\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding:\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding: Chunked\x0b\r\n", Err(ParseError::HeaderValue)),
            ("Transfer-Encoding:\tchunked\r\n", Err(ParseError::TransferEncoding)),
            ("Transfer-Encoding: chunked\t\r\n", Err(ParseError::TransferEncoding)),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Err(ParseError::TransferEncoding),
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
                Err(ParseError::TransferEncoding),
            ),
            ("Transfer_Encoding: chunked\r\n", Err(ParseError::DisguisedFraming)),
            ("Content-Length: 5\r\ntransfer--encoding: x\r\n", Err(ParseError::DisguisedFraming)),
            ("Content_Length: 0\r\n", Err(ParseError::DisguisedFraming)),
            // H1-04 lengths
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(ParseError::DuplicateContentLength)),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Err(ParseError::DuplicateContentLength)),
            ("Content-Length: 5, 5\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: +5\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: -0\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: 0x5\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: 5 5\r\n", Err(ParseError::ContentLength)),
            ("Content-Length:\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: \t5\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: 9223372036854775808\r\n", Err(ParseError::ContentLength)),
            ("Content-Length: 18446744073709551616\r\n", Err(ParseError::ContentLength)),
        ];
        for (lines, expected) in cases {
            let bytes = post(lines);
            let mut head = RequestHead::default();
            let answer = ask(&bytes).and_then(|_| request(&bytes, &LIMITS, &mut head));
            assert_eq!(answer.map(|_| head.framing), *expected, "{lines:?}");
        }
        // H1-03
        let old = b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(ask(old), Err(ParseError::TransferEncodingVersion));
        let connect = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(ask(connect), Err(ParseError::ConnectBody));
    }

    #[test]
    fn lines_and_header_bytes_are_read_strictly() {
        let cases: &[(&[u8], Result<(), ParseError>)] = &[
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x80\x85\xa0\xff\r\n\r\n", Ok(())),
            // H1-05 folded lines
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", Err(ParseError::Fold)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", Err(ParseError::Fold)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", Err(ParseError::Fold)),
            (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(ParseError::Fold)),
            // H1-06 names
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", Err(ParseError::HeaderName)),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\n", Err(ParseError::HeaderName)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n", Err(ParseError::HeaderName)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nFoo\r\n\r\n", Err(ParseError::HeaderName)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n", Err(ParseError::HeaderName)),
            // H1-07 line ends
            (b"GET / HTTP/1.1\nHost: a\n\n", Err(ParseError::BareLf)),
            (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(ParseError::BareLf)),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(ParseError::BareLf)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: w\r\n\r\n", Err(ParseError::BareLf)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(ParseError::BareLf)),
            (b"GET /\n HTTP/1.1\r\nHost: a\r\n\r\n", Err(ParseError::BareLf)),
            (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Err(ParseError::BareCr)),
            (b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Err(ParseError::BareCr)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\rX\r\n\r\n", Err(ParseError::BareCr)),
            (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", Err(ParseError::BareCr)),
            (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(ParseError::Start)),
            (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(ParseError::Start)),
            (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(ParseError::Start)),
            (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(ParseError::Start)),
            (b"\x16\x03\x01\x02\x00\x01", Err(ParseError::Start)),
            // H1-10 control bytes
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Err(ParseError::HeaderValue)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", Err(ParseError::HeaderValue)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", Err(ParseError::HeaderValue)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: ab\r\n\r\n", Err(ParseError::HeaderName)),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX\x85: ab\r\n\r\n", Err(ParseError::HeaderName)),
            (b"GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n", Err(ParseError::RequestLine)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(ask(bytes).map(|_| ()), *expected, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn white_space_0x85_and_0xa0_is_not_trimmed() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: \x85v\xa0\r\n\r\n";
        let head = parsed(bytes);
        assert_eq!(head.headers[1].value.of(bytes), b"\x85v\xa0");
    }

    #[test]
    fn limits_hold_to_the_byte() {
        let limits = Limits { head_bytes_max: 100, headers_count_max: 3, target_bytes_max: 20 };
        let answer = |bytes: &[u8]| {
            let whole = request(bytes, &limits, &mut RequestHead::default());
            let mut head = RequestHead::default();
            let trickled = (0..=bytes.len()).map(|end| request(&bytes[..end], &limits, &mut head));
            let trickled = trickled.into_iter().find(|answer| *answer != Ok(Parsed::Partial));
            assert_eq!(trickled.unwrap_or(Ok(Parsed::Partial)), whole);
            whole
        };
        let padded = |bytes_count: usize| {
            let base = "GET / HTTP/1.1\r\nHost: a\r\nX: ".len() + 4;
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes_count - base)).into_bytes()
        };
        assert_eq!(answer(&padded(99)), Ok(Parsed::Complete));
        assert_eq!(answer(&padded(100)), Ok(Parsed::Complete));
        assert_eq!(answer(&padded(101)), Err(ParseError::HeadTooLarge));
        assert_eq!(answer(&[b'x'; 99]), Ok(Parsed::Partial));
        assert_eq!(answer(&[b'x'; 100]), Err(ParseError::TargetTooLong));
        let mut follow = padded(100);
        follow.extend_from_slice(&[b'y'; 500]);
        assert_eq!(answer(&follow), Ok(Parsed::Complete));

        let target =
            |bytes_count: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes_count - 1));
        assert_eq!(answer(target(20).as_bytes()), Ok(Parsed::Complete));
        assert_eq!(answer(target(21).as_bytes()), Err(ParseError::TargetTooLong));

        let lines =
            |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(count - 1));
        assert_eq!(answer(lines(3).as_bytes()), Ok(Parsed::Complete));
        assert_eq!(answer(lines(4).as_bytes()), Err(ParseError::TooManyHeaders));

        let method =
            |bytes_count: usize| format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(bytes_count));
        assert_eq!(answer(method(METHOD_BYTES_MAX).as_bytes()), Ok(Parsed::Complete));
        assert_eq!(answer(method(METHOD_BYTES_MAX + 1).as_bytes()), Err(ParseError::MethodTooLong));

        let wide = Limits { head_bytes_max: 1 << 20, headers_count_max: usize::MAX, target_bytes_max: 20 };
        let most = lines(HEADERS_COUNT_MAX);
        assert_eq!(request(most.as_bytes(), &wide, &mut RequestHead::default()), Ok(Parsed::Complete));
        let more = lines(HEADERS_COUNT_MAX + 1);
        let answer = request(more.as_bytes(), &wide, &mut RequestHead::default());
        assert_eq!(answer, Err(ParseError::TooManyHeaders));
    }

    #[test]
    fn connections_persist_by_version_and_option() {
        let cases = [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: keep-alive\r\n", true),
            ("HTTP/1.1", "Connection: Close\r\n", false),
            ("HTTP/1.1", "Connection: x\r\nConnection: y , close\r\n", false),
            ("HTTP/1.1", "Proxy-Connection: close\r\n", true),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
            ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
        ];
        for (version, lines, expected) in cases {
            let bytes = format!("GET / {version}\r\nHost: a\r\n{lines}\r\n");
            assert_eq!(parsed(bytes.as_bytes()).keep_alive, expected, "{version} {lines:?}");
        }
        let options =
            |count: usize| post(&format!("Connection: {}\r\nConnection: close\r\n", ",".repeat(count - 2)));
        assert!(!parsed(&options(32)).keep_alive);
        assert_eq!(ask(&options(33)), Err(ParseError::ConnectionOptions));
    }

    #[test]
    fn expectations_and_upgrades_count_only_where_they_may() {
        let head = parsed(&post("Expect: 100-Continue\r\nContent-Length: 3\r\n"));
        assert!(head.expects_continue);
        assert!(!parsed(&post("Expect: 100-continue\r\n")).expects_continue);
        assert!(
            !parsed(b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").expects_continue
        );
        assert_eq!(ask(&post("Expect: y\r\n")), Err(ParseError::Expectation));
        let fold = "Expect: 100-continue\r\n x\r\nContent-Length: 3\r\n";
        assert_eq!(ask(&post(fold)), Err(ParseError::Fold));

        assert!(parsed(&post("Connection: Upgrade\r\nUpgrade: websocket\r\n")).upgrade);
        assert!(!parsed(&post("Upgrade: websocket\r\n")).upgrade);
        assert!(!parsed(&post("Connection: Upgrade\r\n")).upgrade);
        assert!(!parsed(&post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")).upgrade);
        assert!(!parsed(b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade);
    }

    #[test]
    fn a_million_empty_lines_are_refused_at_the_first() {
        let bytes = vec![b'\n'; 1 << 20];
        assert_eq!(request(&bytes, &LIMITS, &mut RequestHead::default()), Err(ParseError::Start));
    }

    #[test]
    fn every_error_has_the_status_that_its_kind_asks_for() {
        let cases = [
            (ParseError::BareLf, 400, "bare-lf"),
            (ParseError::HostMismatch, 400, "host-mismatch"),
            (ParseError::LengthAndEncoding, 400, "length-and-encoding"),
            (ParseError::TransferEncodingVersion, 400, "transfer-encoding-version"),
            (ParseError::TargetTooLong, 414, "target-too-long"),
            (ParseError::Expectation, 417, "expectation"),
            (ParseError::HeadTooLarge, 431, "head-too-large"),
            (ParseError::TooManyHeaders, 431, "too-many-headers"),
            (ParseError::TransferCoding, 501, "transfer-coding-unknown"),
            (ParseError::UnsupportedVersion, 505, "version-unsupported"),
        ];
        for (error, status, reason) in cases {
            assert_eq!((error.status(), error.reason()), (status, reason));
        }
    }

    #[test]
    fn responses_are_framed_with_their_request_in_mind() {
        use Framing::{Chunked, Length, None, UntilClose};
        let cases: &[(Method, &str, Framing, bool)] = &[
            (Method::Get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Length(5), true),
            (Method::Get, "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n", Chunked, true),
            (Method::Get, "HTTP/1.1 200 OK\r\n", UntilClose, false),
            (Method::Get, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", Length(5), false),
            (
                Method::Get,
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n",
                Length(5),
                true,
            ),
            (Method::Get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n", Length(5), false),
            (Method::Get, "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n", Length(0), true),
            // H1-18
            (Method::Head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", None, true),
            (Method::Head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", None, true),
            (Method::Get, "HTTP/1.1 204 No Content\r\n", None, true),
            (Method::Get, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n", None, false),
            (Method::Get, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", None, false),
            (Method::Get, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", None, true),
            (Method::Get, "HTTP/1.1 100 Continue\r\n", None, true),
            (Method::Get, "HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n", None, false),
            (Method::Connect, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", None, false),
            (Method::Connect, "HTTP/1.1 403 No\r\nContent-Length: 5\r\n", Length(5), true),
        ];
        for (method, text, framing, keep_alive) in cases {
            let head = ask_response(format!("{text}\r\n").as_bytes(), *method).unwrap();
            assert_eq!((head.framing, head.keep_alive), (*framing, *keep_alive), "{method:?} {text:?}");
        }
        let bytes = b"HTTP/1.1 200 Tr\xc3\xa8s bien\r\nServer: x\r\nContent-Length: 0\r\n\r\n";
        let head = ask_response(bytes, Method::Get).unwrap();
        assert_eq!((head.status, head.reason.of(bytes)), (200, &b"Tr\xc3\xa8s bien"[..]));
        assert_eq!(head.headers[0].known, Known::Server);
        let view = ResponseView { head: &head, bytes };
        assert_eq!(view.header_values(b"server").collect::<Vec<_>>(), [b"x"]);
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        // H1-19
        let cases: &[(&str, ParseError)] = &[
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                ParseError::DuplicateContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                ParseError::LengthAndEncoding,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", ParseError::TransferCoding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ParseError::TransferEncodingVersion),
            ("HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\n", ParseError::BareLf),
            ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", ParseError::Fold),
            ("HTTP/1.1 200 OK\r\nX : a\r\n\r\n", ParseError::HeaderName),
            ("HTTP/1.1 200\r\n\r\n", ParseError::StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n", ParseError::StatusLine),
            ("HTTP/1.1 099 OK\r\n\r\n", ParseError::StatusLine),
            ("HTTP/1.1  200 OK\r\n\r\n", ParseError::StatusLine),
            ("HTTP/1.1 2000 OK\r\n\r\n", ParseError::StatusLine),
            ("HTTP/1.1 200 O\0K\r\n\r\n", ParseError::StatusLine),
            ("HTTP/2.0 200 OK\r\n\r\n", ParseError::UnsupportedVersion),
            ("HTTP/x.1 200 OK\r\n\r\n", ParseError::Version),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", ParseError::Start),
            ("SSH-2.0-x\r\n", ParseError::Start),
        ];
        for (text, expected) in cases {
            assert_eq!(ask_response(text.as_bytes(), Method::Get).map(|_| ()), Err(*expected), "{text:?}");
        }
    }
}
