//! Heads and trailers on their way out: as fields, which end at this hop or go on by the same rules as over HTTP/1.1.

use alloc::vec::Vec;

use super::{
    frame::{END_HEADERS, END_STREAM, FRAME_HEAD_BYTES, FrameHead, Kind as FrameKind},
    hpack::{Encoder, Indexing},
};
use crate::{
    head::{Header, Known, Method, RequestView, ResponseView, TargetForm},
    http1::{
        answer::Decimal,
        edits::{Filter, is_clean, is_editable},
        encode::{Answer, HeadEdits, ResponseEdits, takes_trailers},
    },
};

/// Writes the fields of a request head; the edits were checked. With a `protocol` it is an extended CONNECT.
pub(super) fn request(
    view: RequestView<'_>,
    edits: &HeadEdits<'_>,
    (scheme, protocol): (&[u8], Option<&[u8]>),
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) {
    let head = view.head;
    let authority = edits.authority.unwrap_or_else(|| view.authority());
    encoder.begin(out);
    match protocol {
        Some(protocol) => {
            encoder.method(b"CONNECT", out);
            encoder.protocol(protocol, out);
        }
        None => encoder.method(view.method(), out),
    }
    if head.form != TargetForm::Authority {
        encoder.scheme(scheme, out);
    }
    // HTTP/1.0 may name none, and an empty one would be malformed (RFC 9113 §8.3.1).
    if !authority.is_empty() {
        encoder.authority(authority, out);
    }
    match (edits.path_and_query, head.form) {
        (_, TargetForm::Authority) => {}
        (Some(text), _) => encoder.path(text, out),
        // RFC 9113 §8.3.1: OPTIONS without a path asks about the server.
        (None, TargetForm::Absolute)
            if head.path.is_empty() && head.method == Method::Options && head.query.is_none() =>
        {
            encoder.path(b"*", out);
        }
        (None, TargetForm::Absolute) if head.path.is_empty() => {
            let query = view.query().map_or(&b""[..], |_| b"?");
            let text = [b"/", query, view.query().unwrap_or_default()].concat();
            encoder.path(&text, out);
        }
        (None, TargetForm::Absolute) => {
            let span = crate::head::Span { start: head.path.start, end: head.target.end };
            encoder.path(span.of(view.bytes), out);
        }
        (None, TargetForm::Origin | TargetForm::Asterisk) => {
            encoder.path(head.target.of(view.bytes), out);
        }
    }
    let filter = Filter::new(&head.headers, view.bytes, head.options, edits.headers);
    let mut has_trailers = false;
    for header in &head.headers {
        let goes_on = match header.known {
            Known::Other | Known::Date | Known::Server => filter.keeps(header),
            Known::ContentLength | Known::Trailer | Known::Expect => true,
            Known::Te => {
                if takes_trailers(header.value.of(view.bytes)) && !core::mem::replace(&mut has_trailers, true)
                {
                    encoder.field(b"te", b"trailers", 0, Indexing::Allowed, out);
                }
                false
            }
            Known::Host
            | Known::Connection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::ForwardedClientCert
            | Known::DisguisedIdentity => false,
        };
        if goes_on {
            field(header, view.bytes, encoder, out);
        }
    }
    added(&filter, encoder, out);
}

/// Writes the fields of a response head.
pub(super) fn response(
    view: ResponseView<'_>,
    edits: &ResponseEdits<'_>,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) {
    let head = view.head;
    let is_interim = head.status < 200;
    let is_tunnel = edits.method == Method::Connect && (200..300).contains(&head.status);
    encoder.begin(out);
    encoder.status(if head.status == 101 { 200 } else { head.status }, out);
    let filter = Filter::new(&head.headers, view.bytes, head.options, edits.headers);
    for header in &head.headers {
        let goes_on = match header.known {
            Known::Other
            | Known::Date
            | Known::Server
            | Known::ForwardedClientCert
            | Known::DisguisedIdentity => filter.keeps(header),
            Known::ContentLength => !is_interim && head.status != 204 && !is_tunnel && !head.has_added_length,
            Known::Trailer | Known::Expect => true,
            Known::Te
            | Known::Host
            | Known::Connection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization => false,
        };
        if goes_on {
            field(header, view.bytes, encoder, out);
        }
    }
    added(&filter, encoder, out);
}

/// Writes the fields of an answer of our own.
pub(super) fn answer(answer: &Answer<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    encoder.status(answer.status, out);
    for (name, value) in answer.headers {
        if is_editable(name) && is_clean(name, value) {
            encoder.field(name, trimmed(value), 0, Indexing::Allowed, out);
        }
    }
    // Without a body the end of the stream says it.
    if !answer.body.is_empty() && !matches!(answer.status, 204 | 304) {
        let length = Decimal::new(answer.body.len() as u64);
        encoder.field(b"content-length", length.as_bytes(), 0, Indexing::Allowed, out);
    }
}

/// Writes trailer fields, given as lines.
pub(super) fn trailers(lines: &[u8], encoder: &mut Encoder, out: &mut Vec<u8>) {
    encoder.begin(out);
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        encoder.field(name, trimmed(value), 0, indexing(name), out);
    }
}

fn field(header: &Header, bytes: &[u8], encoder: &mut Encoder, out: &mut Vec<u8>) {
    let name = header.name.of(bytes);
    let indexing = if header.never_indexed { Indexing::Never } else { indexing(name) };
    encoder.field(name, header.value.of(bytes), header.hash, indexing, out);
}

fn added(filter: &Filter<'_>, encoder: &mut Encoder, out: &mut Vec<u8>) {
    // Blanks around a value are nothing in HTTP/1.1, and malformed here (RFC 9113 §8.2.1).
    filter.for_added(|name, value| encoder.field(name, trimmed(value), 0, indexing(name), out));
}

/// Without the blanks around it, and the line end behind.
fn trimmed(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// Values that nobody shall be able to guess by watching how well they are compressed beside guesses (RFC 7541 §7.1): a
/// connection to an upstream carries the requests of many.
fn indexing(name: &[u8]) -> Indexing {
    const SECRET: [&[u8]; 3] = [b"authorization", b"cookie", b"set-cookie"];
    match SECRET.iter().any(|secret| name.eq_ignore_ascii_case(secret)) {
        true => Indexing::Never,
        false => Indexing::Allowed,
    }
}

/// Writes a field block as HEADERS and, where one frame does not hold it, CONTINUATION.
pub(super) fn write_block(
    out: &mut Vec<u8>,
    (stream, ends, payload_max): (u32, bool, usize),
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEAD_BYTES]);
    write(out);
    let body = start + FRAME_HEAD_BYTES;
    let length = out.len() - body;
    let end_stream = if ends { END_STREAM } else { 0 };
    let put_head = |out: &mut Vec<u8>, at: usize, head: FrameHead| {
        if let Some(place) = out.get_mut(at..at + FRAME_HEAD_BYTES) {
            place.copy_from_slice(&head.bytes());
        }
    };
    if length <= payload_max {
        let flags = end_stream | END_HEADERS;
        put_head(out, start, FrameHead { length: length as u32, kind: FrameKind::Headers, flags, stream });
        return;
    }
    // Seldom: the rest is moved behind heads of its own.
    let rest = out.split_off(body + payload_max);
    let head = FrameHead { length: payload_max as u32, kind: FrameKind::Headers, flags: end_stream, stream };
    put_head(out, start, head);
    let last = rest.len().div_ceil(payload_max);
    for (at, part) in rest.chunks(payload_max).enumerate() {
        let flags = if at + 1 == last { END_HEADERS } else { 0 };
        FrameHead { length: part.len() as u32, kind: FrameKind::Continuation, flags, stream }.write(out);
        out.extend_from_slice(part);
    }
}
