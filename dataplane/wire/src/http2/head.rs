//! A received field block becomes the HTTP/1.1 head that says the same, as text and as spans.
//!
//! So there is one kind of head above this: what routes, filters and edits it, and what sends it on over HTTP/1.1, has no
//! second case. And there is one judge: the text is read by the parser of HTTP/1.1 heads, so nothing that it refuses can be
//! written to an HTTP/1.1 upstream, whatever trick brought it here (FAILURES DG-01 to DG-08). Bytes that could forge the
//! text, and what RFC 9113 §8 forbids besides, are refused before. Where the header lines are it is told, since fields were
//! looked at when they came into the table; in a debug build it looks for them as well, and must find the same.
//!
//! What HTTP/2 asks for with an extended CONNECT (RFC 8441) is the upgrade that HTTP/1.1 asks for with GET, and the answer
//! that grants it is a 101.
//!
//! What HTTP/1.1 says by framing is added: `transfer-encoding: chunked` where a body of unknown length follows,
//! `content-length: 0` where a response ends without one.

use alloc::vec::Vec;

use super::{
    error::HeadError,
    field::{Judged, Kind},
    hpack::Field,
};
use crate::{
    head::{Framing, Header, Known, Method, RequestHead, ResponseHead, Span},
    http1::{
        body::{Decoder, Step, TrailerLimits},
        parse::{self, Limits},
        same_authority, split_authority,
    },
};

/// What a block is the head of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Request,
    Response,
    Trailers,
}

/// Takes fields, one after the other, and makes a head of them. Its memory is used again for the next block.
#[derive(Debug)]
pub(super) struct Writer {
    role: Role,
    text: Vec<u8>,
    /// Values of the pseudo fields, which come first in any order.
    values: Vec<u8>,
    pseudo: Pseudo,
    /// The first line was written: a regular field came.
    has_begun: bool,
    /// All `cookie` fields, which HTTP/1.1 has in one (RFC 9113 §8.2.3).
    cookies: Vec<u8>,
    has_length: bool,
    /// Whether an extended CONNECT is understood.
    takes_protocols: bool,
    /// The header lines of the text.
    headers: Vec<Header>,
    error: Option<HeadError>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
    status: Option<Span>,
}

impl Writer {
    pub(super) fn new(takes_protocols: bool) -> Writer {
        Writer {
            role: Role::Request,
            text: Vec::new(),
            values: Vec::new(),
            pseudo: Pseudo::default(),
            has_begun: false,
            cookies: Vec::new(),
            has_length: false,
            takes_protocols,
            headers: Vec::new(),
            error: None,
        }
    }

    /// Begins with the next block.
    pub(super) fn begin(&mut self, role: Role) {
        self.role = role;
        self.text.clear();
        self.values.clear();
        self.pseudo = Pseudo::default();
        self.has_begun = false;
        self.cookies.clear();
        self.has_length = false;
        self.headers.clear();
        self.error = None;
    }

    /// Takes the next field.
    pub(super) fn take(&mut self, field: &Field<'_>) {
        if self.error.is_none()
            && let Err(error) = self.add(field)
        {
            self.error = Some(error);
        }
    }

    fn add(&mut self, field: &Field<'_>) -> Result<(), HeadError> {
        let Judged { kind, name_ok, value_ok, .. } = field.judged;
        if !name_ok {
            return Err(HeadError::Name);
        }
        if !value_ok {
            return Err(HeadError::Value);
        }
        match kind {
            Kind::Regular(known) => self.add_regular(field, known),
            _ => self.add_pseudo(kind, field.value()),
        }
    }

    fn add_pseudo(&mut self, kind: Kind, value: &[u8]) -> Result<(), HeadError> {
        let Pseudo { method, scheme, authority, path, protocol, status } = &mut self.pseudo;
        let place = match (self.role, kind) {
            (Role::Request, Kind::Method) => method,
            (Role::Request, Kind::Scheme) => scheme,
            (Role::Request, Kind::Authority) => authority,
            (Role::Request, Kind::Path) => path,
            (Role::Request, Kind::Protocol) => protocol,
            (Role::Response, Kind::Status) => status,
            _ => return Err(HeadError::Pseudo),
        };
        if self.has_begun || place.is_some() {
            return Err(HeadError::Pseudo);
        }
        *place = Some(Span::new(self.values.len(), self.values.len() + value.len()));
        self.values.extend_from_slice(value);
        Ok(())
    }

    fn add_regular(&mut self, field: &Field<'_>, known: Known) -> Result<(), HeadError> {
        if !self.has_begun {
            self.first_lines()?;
        }
        match known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => return Err(HeadError::ConnectionSpecific),
            Known::Te if field.value() != b"trailers" => return Err(HeadError::ConnectionSpecific),
            // It says nothing new, and the authority stands for it.
            Known::Host if let Some(authority) = self.pseudo.authority => {
                let is_same = self.is_host_of(authority.of(&self.values), field.value());
                return if is_same { Ok(()) } else { Err(HeadError::HostMismatch) };
            }
            Known::ContentLength => self.has_length = true,
            Known::Other if field.name() == b"cookie" && self.role == Role::Request => {
                if !self.cookies.is_empty() {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(field.value());
                return Ok(());
            }
            _ => {}
        }
        self.line(&[field.line()], field.name().len(), known);
        if let Some(header) = self.headers.last_mut() {
            header.never_indexed = field.is_sensitive;
            header.hash = field.judged.hash;
        }
        Ok(())
    }

    /// Whether `host` names what `authority` does. They are compared as HTTP/1.1 compares `Host` with the authority in a
    /// target: ports of the scheme need not be written, nor need the one that CONNECT asks for.
    fn is_host_of(&self, authority: &[u8], host: &[u8]) -> bool {
        let default_port = match self.pseudo.scheme.map(|scheme| scheme.of(&self.values)) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"https") => 443,
            Some(_) => 80,
            None => split_authority(authority).and_then(|(_, port)| port).unwrap_or_default(),
        };
        same_authority(authority, host, default_port)
    }

    /// Writes a header line, given in parts: name, colon, space, value, CR, LF.
    fn line(&mut self, parts: &[&[u8]], name_len: usize, known: Known) {
        let start = self.text.len();
        parts.iter().for_each(|part| self.text.extend_from_slice(part));
        let end = self.text.len();
        self.headers.push(Header {
            name: Span::new(start, start + name_len),
            value: Span::new(start + name_len + 2, end - 2),
            line: Span::new(start, end),
            known,
            ..Header::default()
        });
    }

    /// Writes what comes before the first regular field.
    fn first_lines(&mut self) -> Result<(), HeadError> {
        self.has_begun = true;
        match self.role {
            Role::Request => self.request_lines(),
            Role::Response => {
                let status = self.pseudo.status.ok_or(HeadError::Pseudo)?;
                let status = status.of(&self.values);
                // There is no switching of protocols here (RFC 9113 §8.6).
                if status.len() != 3 || status == b"101" {
                    return Err(HeadError::Pseudo);
                }
                [b"HTTP/1.1 ", status, b" \r\n"].iter().for_each(|part| self.text.extend_from_slice(part));
                Ok(())
            }
            Role::Trailers => Ok(()),
        }
    }

    fn request_lines(&mut self) -> Result<(), HeadError> {
        // Taken out, for they are read while lines are written.
        let values = core::mem::take(&mut self.values);
        let written = self.request_lines_of(&values);
        self.values = values;
        written
    }

    fn request_lines_of(&mut self, values: &[u8]) -> Result<(), HeadError> {
        let Pseudo { method, scheme, authority, path, protocol, .. } = self.pseudo;
        let of = |span: Span| span.of(values);
        let method = of(method.ok_or(HeadError::Pseudo)?);
        let is_connect = method == b"CONNECT";
        let is_known = |scheme: Span| {
            let scheme = of(scheme);
            [&b"http"[..], b"https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        };
        let (method, target) = match (is_connect, protocol, path, scheme) {
            // RFC 9113 §8.5: nothing but the authority.
            (true, None, None, None) => (method, of(authority.ok_or(HeadError::Pseudo)?)),
            (true, Some(_), Some(path), Some(scheme)) if self.takes_protocols && is_known(scheme) => {
                (&b"GET"[..], of(path))
            }
            (false, None, Some(path), Some(scheme)) if is_known(scheme) => (method, of(path)),
            _ => return Err(HeadError::Pseudo),
        };
        let is_origin_form = target.starts_with(b"/") || target == b"*" && method == b"OPTIONS";
        if !is_origin_form && path.is_some() {
            return Err(HeadError::Pseudo);
        }
        for part in [method, b" ", target, b" HTTP/1.1\r\n"] {
            self.text.extend_from_slice(part);
        }
        if let Some(protocol) = protocol {
            self.line(&[b"connection: upgrade\r\n"], b"connection".len(), Known::Connection);
            self.line(&[b"upgrade: ", of(protocol), b"\r\n"], b"upgrade".len(), Known::Upgrade);
        }
        if let Some(authority) = authority {
            self.line(&[b"host: ", of(authority), b"\r\n"], b"host".len(), Known::Host);
        }
        Ok(())
    }

    /// The head of a request; its text begins with it and ends with it. `ends`: no body follows.
    pub(super) fn request(
        &mut self,
        ends: bool,
        limits: &Limits,
        head: &mut RequestHead,
    ) -> Result<(), HeadError> {
        self.whole()?;
        if !self.cookies.is_empty() {
            let cookies = core::mem::take(&mut self.cookies);
            // Where the last one is empty the blank before it is left, which is not part of a value.
            let cookie = cookies.trim_ascii_end();
            self.line(&[b"cookie: ", cookie, b"\r\n"], b"cookie".len(), Known::Other);
            self.cookies = cookies;
        }
        let is_tunnel = self.pseudo.protocol.is_some() || self.text.starts_with(b"CONNECT ");
        // What comes through a tunnel has no length.
        if is_tunnel && self.has_length {
            return Err(HeadError::End);
        }
        if !ends && !self.has_length && !is_tunnel {
            self.line(&[CHUNKED_LINE], b"transfer-encoding".len(), Known::TransferEncoding);
        }
        self.text.extend_from_slice(b"\r\n");
        parse::written_request(&self.text, limits, &mut self.headers, head)?;
        match head.framing {
            Framing::Length(1..) if ends => Err(HeadError::End),
            // Such as `h2c`, which is no upgrade to anybody.
            _ if self.pseudo.protocol.is_some() && !head.upgrade => Err(HeadError::Pseudo),
            _ => Ok(()),
        }
    }

    /// The head of a response to a request with `method`, which asked for `protocol`.
    pub(super) fn response(
        &mut self,
        ends: bool,
        (method, protocol): (Method, Option<&[u8]>),
        limits: &Limits,
        head: &mut ResponseHead,
    ) -> Result<(), HeadError> {
        self.whole()?;
        let status = self.pseudo.status.map(|status| status.of(&self.values));
        if let (Some(protocol), Some([b'2', ..]), false) = (protocol, status, ends) {
            return self.switching(protocol, limits, head);
        }
        let is_tunnel = method == Method::Connect && matches!(status, Some([b'2', ..]));
        let is_bodyless =
            is_tunnel || method == Method::Head || matches!(status, Some(b"204" | b"304" | [b'1', ..]));
        let adds_length = ends && !self.has_length && !is_bodyless;
        if adds_length {
            self.line(&[EMPTY_LINE_OF_LENGTH], b"content-length".len(), Known::ContentLength);
        } else if !ends && !self.has_length && !is_bodyless {
            self.line(&[CHUNKED_LINE], b"transfer-encoding".len(), Known::TransferEncoding);
        }
        self.text.extend_from_slice(b"\r\n");
        parse::written_response(&self.text, (limits, method), &mut self.headers, head)?;
        head.has_added_length = adds_length;
        match head.framing {
            Framing::Length(1..) if ends => Err(HeadError::End),
            _ => Ok(()),
        }
    }

    /// The head of a response that grants a protocol.
    fn switching(
        &mut self,
        protocol: &[u8],
        limits: &Limits,
        head: &mut ResponseHead,
    ) -> Result<(), HeadError> {
        if self.has_length {
            return Err(HeadError::End);
        }
        if let Some(status) = self.text.get_mut(STATUS_AT..STATUS_AT + 3) {
            status.copy_from_slice(b"101");
        }
        self.line(&[b"connection: upgrade\r\n"], b"connection".len(), Known::Connection);
        self.line(&[b"upgrade: ", protocol, b"\r\n"], b"upgrade".len(), Known::Upgrade);
        self.text.extend_from_slice(b"\r\n");
        Ok(parse::written_response(&self.text, (limits, Method::Get), &mut self.headers, head)?)
    }

    /// Trailer lines that may be sent on.
    pub(super) fn trailers(&mut self, limits: TrailerLimits) -> Result<(), HeadError> {
        self.whole()?;
        // The chunked coding's own reader judges them, and leaves those out that go no further.
        self.values.clear();
        self.text.extend_from_slice(b"\r\n");
        let mut reader = Decoder::new(Framing::Chunked, limits);
        reader.receive(b"0\r\n")?;
        let mut at = 0;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            match reader.receive(rest)? {
                Step::Trailer(count) => {
                    self.values.extend_from_slice(rest.get(..count).unwrap_or_default());
                    at += count;
                }
                Step::Data(count) | Step::Skip(count) => at += count,
                Step::NeedMore | Step::End => return Ok(()),
            }
        }
    }

    /// The text of the last head.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The lines of the last trailers.
    pub(super) fn trailer_lines(&self) -> &[u8] {
        &self.values
    }

    /// The head is refused, whatever its fields.
    pub(super) fn refuse(&mut self, error: HeadError) {
        self.error = Some(error);
    }

    /// Bytes that it has room for.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity() + self.values.capacity() + self.cookies.capacity()
    }

    fn whole(&mut self) -> Result<(), HeadError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.has_begun {
            self.first_lines()?;
        }
        Ok(())
    }
}

/// Where the status is in a status line.
const STATUS_AT: usize = b"HTTP/1.1 ".len();
const CHUNKED_LINE: &[u8] = b"transfer-encoding: chunked\r\n";
const EMPTY_LINE_OF_LENGTH: &[u8] = b"content-length: 0\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::{self, Encoder, Indexing};

    const LIMITS: Limits = Limits { head_bytes_max: 600, headers_count_max: 8, target_bytes_max: 64 };

    /// What the fields are as a head: as it is made of them, and as the parser reads its text.
    fn both(fields: &[(&[u8], &[u8])], ends: bool) -> (Result<RequestHead, HeadError>, Option<RequestHead>) {
        let mut block = Vec::new();
        let mut encoder = Encoder::new(4096);
        for (name, value) in fields {
            encoder.field(name, value, 0, Indexing::Allowed, &mut block);
        }
        let mut writer = Writer::new(true);
        writer.begin(Role::Request);
        hpack::Decoder::new(4096).decode(&block, 1 << 16, &mut |field| writer.take(field)).unwrap();
        let mut head = RequestHead::default();
        let made = writer.request(ends, &LIMITS, &mut head).map(|()| head);
        let mut read = RequestHead::default();
        let is_read = parse::request(writer.text(), &LIMITS, &mut read) == Ok(parse::Parsed::Complete);
        (made, is_read.then_some(read))
    }

    /// In a debug build the two are compared whenever a head is made; here are the fields that are worth it.
    #[test]
    fn a_head_that_is_made_of_fields_is_the_one_that_the_parser_reads_in_its_text() {
        const NAMES: [&[u8]; 14] = [
            b"host",
            b"x-a",
            b"content-length",
            b"content_length",
            b"te",
            b"cookie",
            b"expect",
            b"trailer",
            b"date",
            b"x-forwarded-client-cert",
            b"transfer_encoding",
            b"upgrade",
            b"a",
            b"server",
        ];
        const VALUES: [&[u8]; 12] = [
            b"",
            b"a",
            b"5",
            b"trailers",
            b"100-continue",
            b"a b",
            b"a\tb",
            b"\xff",
            b"a:80",
            b"05",
            b" a",
            b"x\r\ny",
        ];
        const PATHS: [&[u8]; 7] = [b"/", b"/a?b", b"*", b"/a b", b"/%zz#x", b"a", b"//x"];
        const AUTHORITIES: [&[u8]; 5] = [b"a", b"a:80", b"a b", b"", b"[::1]:1"];
        let (mut random, mut made_count) = (11_u64, 0);
        let mut draw = |most: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % most
        };
        for _ in 0..20_000 {
            let method: &[u8] =
                [&b"GET"[..], b"POST", b"OPTIONS", b"CONNECT", b"G T"][draw(24).saturating_sub(19)];
            let mut fields =
                Vec::from([(&b":method"[..], method), (b":scheme", b"http"), (b":path", PATHS[draw(7)])]);
            if draw(4) > 0 {
                fields.push((b":authority", AUTHORITIES[draw(5)]));
            }
            if method == b"CONNECT" && draw(2) > 0 {
                fields.push((b":protocol", b"websocket"));
            }
            for _ in 0..draw(10) {
                fields.push((NAMES[draw(14)], VALUES[draw(12)]));
            }
            let (made, read) = both(&fields, draw(2) > 0);
            if let Ok(made) = made {
                let mut read = read.unwrap();
                read.headers.iter_mut().zip(&made.headers).for_each(|(read, made)| read.know(made));
                assert_eq!(made, read);
                made_count += 1;
            }
        }
        assert!(made_count > 500, "{made_count}");
    }
}
