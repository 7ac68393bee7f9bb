//! Request targets and authorities (RFC 9112 §3.2, RFC 3986 §3.2): split and judged, never rewritten.
//!
//! Stricter than the grammar where others disagree about it: no user information, no sub-delimiters or percent
//! escapes in a host name (`a,b` is two hosts to some), no empty port, no byte above 0x7f.

use super::parse::ParseError;
use crate::head::{Method, Span, TargetForm};

/// A request target taken apart. Spans are relative to the head's first byte.
#[derive(Default)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    /// Empty unless the form carries one.
    pub(super) authority: Span,
    pub(super) path: Span,
    pub(super) query: Option<Span>,
    /// The port that need not be written: of the scheme; for CONNECT the one that was given.
    pub(super) default_port: u16,
}

/// Takes apart `bytes[span]`, which holds neither white space nor control bytes (the request line was parsed).
pub(super) fn split(bytes: &[u8], span: Span, method: Method) -> Result<Target, ParseError> {
    let text = span.of(bytes);
    let start = span.start as usize;
    match text {
        _ if method == Method::Connect => {
            let (_, port) = split_authority(text).ok_or(ParseError::Target)?;
            let default_port = port.ok_or(ParseError::Target)?;
            Ok(Target { form: TargetForm::Authority, authority: span, default_port, ..Target::default() })
        }
        [b'/', ..] => {
            let (path, query) = path_and_query(text, start)?;
            Ok(Target { path, query, ..Target::default() })
        }
        b"*" if method == Method::Options => Ok(Target { form: TargetForm::Asterisk, ..Target::default() }),
        _ => absolute(text, start),
    }
}

fn absolute(text: &[u8], start: usize) -> Result<Target, ParseError> {
    let (scheme_bytes, default_port) = if has_prefix(text, b"http://") {
        (7, 80)
    } else if has_prefix(text, b"https://") {
        (8, 443)
    } else {
        return Err(ParseError::Target);
    };
    let rest = text.get(scheme_bytes..).unwrap_or_default();
    let host_bytes = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (host, tail) = rest.split_at(host_bytes);
    split_authority(host).ok_or(ParseError::Target)?;
    let host_start = start + scheme_bytes;
    let (path, query) = path_and_query(tail, host_start + host_bytes)?;
    let authority = Span::new(host_start, host_start + host_bytes);
    Ok(Target { form: TargetForm::Absolute, authority, path, query, default_port })
}

/// Splits at the first `?`. A fragment is not part of a request target: whoever routes by the text before `#` and
/// whoever forwards all of it disagree.
fn path_and_query(text: &[u8], start: usize) -> Result<(Span, Option<Span>), ParseError> {
    let mut question = None;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'?' if question.is_none() => question = Some(at),
            b'#' => return Err(ParseError::Fragment),
            0x80.. => return Err(ParseError::Target),
            _ => {}
        }
    }
    let end = start + text.len();
    Ok(match question {
        Some(at) => (Span::new(start, start + at), Some(Span::new(start + at + 1, end))),
        None => (Span::new(start, end), None),
    })
}

/// Host and port of `host[:port]`; `None` when it is not one. Brackets stay with an IPv6 address.
pub fn split_authority(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, port) = match text {
        [b'[', ..] => {
            let close = text.iter().position(|byte| *byte == b']')?;
            let address = core::str::from_utf8(text.get(1..close)?).ok()?;
            address.parse::<core::net::Ipv6Addr>().ok()?;
            text.split_at(close + 1)
        }
        _ => {
            let end = text.iter().position(|byte| !HOST_NAME[usize::from(*byte)]).unwrap_or(text.len());
            text.split_at(end)
        }
    };
    if host.is_empty() {
        return None;
    }
    match port {
        [] => Some((host, None)),
        [b':', digits @ ..] => Some((host, Some(port_number(digits)?))),
        _ => None,
    }
}

/// What a host name may hold, by byte.
static HOST_NAME: [bool; 256] = {
    let mut names = [false; 256];
    let mut byte = 0;
    while byte < names.len() {
        names[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    names
};

/// Whether `text` is `host[:port]`, as strictly as it is asked of a received one.
pub fn is_authority(text: &[u8]) -> bool {
    split_authority(text).is_some()
}

/// Whether `text` may be the target of a request that we send: `*`, or a path that begins with `/`, with or without a
/// query, and holds no white space, control byte, `#` or byte above 0x7f.
pub fn is_target(text: &[u8]) -> bool {
    text == b"*"
        || (text.starts_with(b"/") && text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'))
}

fn port_number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(value).ok()
}

/// Whether two valid authorities name the same host and port, case of the host ignored.
pub(crate) fn same(one: &[u8], other: &[u8], default_port: u16) -> bool {
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    let (Some((host, port)), Some((other_host, other_port))) = (split_authority(one), split_authority(other))
    else {
        return false;
    };
    host.eq_ignore_ascii_case(other_host)
        && port.unwrap_or(default_port) == other_port.unwrap_or(default_port)
}

fn has_prefix(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
