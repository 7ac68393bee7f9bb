//! Chunked bodies (RFC 9112 §7.1), a whole line at a time.

use crate::{
    message::Read,
    reference::text::{find, is_disguised, is_disguised_identity, is_token, is_value, split_at_byte},
};

/// The bounds of a trailer section.
#[derive(Clone, Copy, Debug)]
pub struct TrailerLimits {
    /// All lines together, in bytes; the empty one does not count.
    pub bytes: usize,
    /// Lines.
    pub count: usize,
}

/// A body that is whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chunked {
    /// The data of all chunks.
    pub data: Vec<u8>,
    /// The trailer lines that go further, each with its end.
    pub trailers: Vec<u8>,
    /// Bytes of the body with its framing.
    pub end: usize,
}

/// Ours: all extensions of a body together.
const EXTENSION_BYTES: usize = 4096;

/// Fields that a trailer may not have, since they frame or route (RFC 9110 §6.5.1); ours: the whole body is refused.
const FORBIDDEN: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "trailer"];

/// Fields that have no meaning after a body, or would be believed there: left out.
const LEFT_OUT: [&str; 23] = [
    "te",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "x-forwarded-client-cert",
    "authorization",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "cache-control",
    "age",
    "expires",
    "vary",
    "location",
    "max-forwards",
    "range",
    "forwarded",
    "via",
    "x-request-id",
    "x-real-ip",
];
/// The same, by how they begin.
const LEFT_OUT_PREFIXES: [&str; 4] = ["content-", "x-forwarded-", "x-envoy-", "x-ringway-"];

/// Reads a body that begins with the first byte.
pub fn read(bytes: &[u8], limits: &TrailerLimits) -> Read<Chunked> {
    let mut body = Chunked::default();
    let mut extension_bytes = 0;
    loop {
        let Some(line) = line(&bytes[body.end..]) else { return Read::Part };
        let (digits, extension) = split_at_byte(line, b';');
        // 400 for what is no number, 413 for a number above all; which comes first depends on the digits.
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Read::Refused([400, 413].into());
        }
        let size = digits.iter().fold(0u128, |size, digit| {
            size * 16 + u128::from(char::from(*digit).to_digit(16).unwrap_or_default())
        });
        if size > i64::MAX as u128 {
            return Read::refused(413);
        }
        if let Some(extension) = extension {
            extension_bytes += extension.len();
            if !are_extensions(extension) || extension_bytes > EXTENSION_BYTES {
                return Read::refused(400);
            }
        }
        body.end += line.len() + 2;
        if size == 0 {
            return trailers(bytes, limits, body);
        }
        let Some(data) = usize::try_from(size).ok().and_then(|size| bytes[body.end..].get(..size)) else {
            return Read::Part;
        };
        body.data.extend_from_slice(data);
        body.end += data.len();
        match &bytes[body.end..] {
            [] | [b'\r'] => return Read::Part,
            [b'\r', b'\n', ..] => body.end += 2,
            _ => return Read::refused(400),
        }
    }
}

/// RFC 9112 §7.1.1, behind the first `;`; ours: no white space around `;` and `=`.
fn are_extensions(text: &[u8]) -> bool {
    let (name, rest) = leading_token(text);
    let rest = match rest {
        [b'=', b'"', quoted @ ..] => match behind_quotes(quoted) {
            Some(rest) => rest,
            None => return false,
        },
        [b'=', value @ ..] => match leading_token(value) {
            ([], _) => return false,
            (_, rest) => rest,
        },
        rest => rest,
    };
    !name.is_empty() && (rest.is_empty() || rest.strip_prefix(b";").is_some_and(are_extensions))
}

fn leading_token(text: &[u8]) -> (&[u8], &[u8]) {
    let bytes =
        (0..=text.len()).take_while(|end| *end == 0 || is_token(&text[..*end])).last().unwrap_or_default();
    text.split_at(bytes)
}

/// What follows the closing quote (RFC 9110 §5.6.4).
fn behind_quotes(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'"', rest @ ..] => Some(rest),
        [b'\\', escaped, rest @ ..] if is_value(&[*escaped]) => behind_quotes(rest),
        [b'\\', ..] => None,
        [byte, rest @ ..] if is_value(&[*byte]) => behind_quotes(rest),
        _ => None,
    }
}

fn trailers(bytes: &[u8], limits: &TrailerLimits, mut body: Chunked) -> Read<Chunked> {
    let (mut taken, mut count) = (0, 0);
    loop {
        let Some(line) = line(&bytes[body.end..]) else { return Read::Part };
        body.end += line.len() + 2;
        if line.is_empty() {
            return Read::Whole(body);
        }
        (taken, count) = (taken + line.len() + 2, count + 1);
        if taken > limits.bytes || count > limits.count {
            return Read::Refused([400, 431].into());
        }
        let (name, value) = split_at_byte(line, b':');
        if !is_token(name) || !value.is_some_and(is_value) {
            return Read::refused(400);
        }
        let name = String::from_utf8_lossy(name).to_lowercase();
        if FORBIDDEN.contains(&name.as_str()) || is_disguised(&name) {
            return Read::refused(400);
        }
        let is_left_out = LEFT_OUT.contains(&name.as_str())
            || is_disguised_identity(&name)
            || LEFT_OUT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !is_left_out {
            body.trailers.extend_from_slice(line);
            body.trailers.extend_from_slice(b"\r\n");
        }
    }
}

/// The first line, without its end.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    Some(&bytes[..find(bytes, b"\r\n")?])
}
