//! The headers the proxy acts on: named once by length and first byte, then read strictly.
//!
//! What is kept here is only what framing, keep-alive and routing need; every other header stays bytes.

use super::parse::ParseError;
use crate::head::{ConnectionOptions, Header, Known, Span};

/// The largest accepted `Content-Length` and chunk size, in bytes: 2^63 - 1, since upstreams that count with signed
/// numbers would read more as less.
pub(super) const BODY_BYTES_MAX: u64 = i64::MAX as u64;

/// Most elements of all `Connection` headers of one head. Each may cost a look at every header when a head goes out.
const CONNECTION_OPTIONS_COUNT_MAX: u32 = 32;

/// What the headers of one head say, taken together.
#[derive(Default)]
pub(super) struct Fields {
    /// The value of the only `Host`.
    pub(super) host: Option<Span>,
    /// The only `Content-Length`.
    pub(super) length: Option<u64>,
    /// `Transfer-Encoding: chunked` was given, and nothing else with it.
    pub(super) chunked: bool,
    /// All `Connection` headers together.
    pub(super) options: ConnectionOptions,
    options_count: u32,
    /// `Expect: 100-continue` was given.
    pub(super) expect: bool,
    /// `Expect` was given with something else.
    pub(super) expect_unknown: bool,
    /// An `Upgrade` header was given.
    pub(super) upgrade: bool,
    /// One of the `Upgrade` headers names `h2c`.
    pub(super) h2c: bool,
    /// A header is there that some readers take for one that frames the message.
    pub(super) disguised: bool,
}

impl Fields {
    /// Takes note of one header line whose `known` is not `Other`.
    pub(super) fn note(&mut self, header: &Header, bytes: &[u8]) -> Result<(), ParseError> {
        let value = header.value.of(bytes);
        match header.known {
            Known::Host => {
                let earlier = self.host.replace(header.value);
                if earlier.is_some() {
                    return Err(ParseError::DuplicateHost);
                }
            }
            Known::ContentLength => {
                if self.length.is_some() {
                    return Err(ParseError::DuplicateContentLength);
                }
                let length = content_length(value).filter(|_| only_spaces_around(header, bytes));
                self.length = Some(length.ok_or(ParseError::ContentLength)?);
            }
            Known::TransferEncoding => {
                if self.chunked || !only_spaces_around(header, bytes) {
                    return Err(ParseError::TransferEncoding);
                }
                transfer_encoding(value)?;
                self.chunked = true;
            }
            Known::Connection => self.note_options(value)?,
            Known::Expect => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.expect |= known;
                self.expect_unknown |= !known;
            }
            Known::Upgrade => {
                self.upgrade = true;
                self.h2c |= list(value).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
            }
            _ => {}
        }
        Ok(())
    }

    fn note_options(&mut self, value: &[u8]) -> Result<(), ParseError> {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.options_count += 1;
            if self.options_count > CONNECTION_OPTIONS_COUNT_MAX {
                return Err(ParseError::ConnectionOptions);
            }
            if option.eq_ignore_ascii_case(b"close") {
                self.options.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.options.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.options.upgrade = true;
            } else if !option.is_empty() {
                self.options.names = true;
            }
        }
        Ok(())
    }
}

/// Which of the names the proxy acts on `name`, a token, is, ASCII case ignored.
pub(crate) fn classify(name: &[u8]) -> Known {
    let Some(first) = name.first() else { return Known::Other };
    let (known, text): (Known, &[u8]) = match (name.len(), first | 0x20) {
        (2, b't') => (Known::Te, b"te"),
        (4, b'h') => (Known::Host, b"host"),
        (4, b'd') => (Known::Date, b"date"),
        (6, b'e') => (Known::Expect, b"expect"),
        (6, b's') => (Known::Server, b"server"),
        (7, b't') => (Known::Trailer, b"trailer"),
        (7, b'u') => (Known::Upgrade, b"upgrade"),
        (10, b'c') => (Known::Connection, b"connection"),
        (10, b'k') => (Known::KeepAlive, b"keep-alive"),
        (14, b'c') => (Known::ContentLength, b"content-length"),
        (16, b'p') => (Known::ProxyConnection, b"proxy-connection"),
        (17, b't') => (Known::TransferEncoding, b"transfer-encoding"),
        (18, b'p') => (Known::ProxyAuthenticate, b"proxy-authenticate"),
        (19, b'p') => (Known::ProxyAuthorization, b"proxy-authorization"),
        (23, b'x') => (Known::ForwardedClientCert, b"x-forwarded-client-cert"),
        _ => (Known::Other, b""),
    };
    if known != Known::Other && is_name(name, text) {
        known
    } else if is_disguised_identity(name) {
        Known::DisguisedIdentity
    } else {
        Known::Other
    }
}

/// Whether some readers take `name` for another one that says where a request comes from. All of those that have a joint
/// begin with `x` and one, and a letter of few.
fn is_disguised_identity(name: &[u8]) -> bool {
    match name {
        [b'x' | b'X', b'-' | b'_', third, ..] if matches!(third | 0x20, b'f' | b'e' | b'r') => {
            is_disguised_extension(name)
        }
        [b'x' | b'X', b'-' | b'_', b'-' | b'_', ..] => is_disguised_extension(name),
        _ => false,
    }
}

fn is_disguised_extension(name: &[u8]) -> bool {
    const FAMILIES: [&[u8]; 3] = [b"forwarded", b"envoy", b"ringway"];
    const NAMES: [[&[u8]; 2]; 2] = [[b"request", b"id"], [b"real", b"ip"]];
    let is_joint = |byte: &u8| matches!(byte, b'-' | b'_');
    let is_plain = !name.contains(&b'_') && !name.windows(2).any(|pair| pair == b"--");
    if is_plain {
        return false;
    }
    let mut words = name.split(is_joint).filter(|word| !word.is_empty()).skip(1);
    let (first, second, third) = (words.next().unwrap_or_default(), words.next(), words.next());
    let Some(second) = second else { return false };
    let is = |word: &[u8], text: &[u8]| word.eq_ignore_ascii_case(text);
    FAMILIES.iter().any(|family| is(first, family))
        || third.is_none() && NAMES.iter().any(|[one, other]| is(first, one) && is(second, other))
}

/// Whether `name`, a token, is `text`, which has lower-case letters and `-` only, and is as long; ASCII case ignored.
///
/// Compared in words with the bit set that small letters have and large ones have not. Of the bytes of a token that makes
/// no other one equal to a letter or `-`.
fn is_name(name: &[u8], text: &[u8]) -> bool {
    const SMALL: u64 = u64::from_ne_bytes([0x20; 8]);
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let is_same = |(one, other): (&[u8; 8], &[u8; 8])| word(one) | SMALL == word(other);
    let (words, rest) = name.as_chunks::<8>();
    let (text_words, text_rest) = text.as_chunks::<8>();
    words.iter().zip(text_words).all(is_same)
        && rest.iter().zip(text_rest).all(|(one, other)| one | 0x20 == *other)
}

/// Whether some readers take `name`, which is none that [`classify`] knows, for one that frames a message: where headers
/// become variables of an environment, as CGI did it, `_` stands for `-`, and some take several for one.
pub(super) fn is_disguised(name: &[u8]) -> bool {
    match name.first() {
        Some(b'c' | b'C') if name.len() >= 14 => is_joined(name, b"content", b"length"),
        Some(b't' | b'T') if name.len() >= 17 => is_joined(name, b"transfer", b"encoding"),
        _ => false,
    }
}

#[cold]
fn is_joined(name: &[u8], first: &[u8], second: &[u8]) -> bool {
    let Some((begin, rest)) = name.split_at_checked(first.len()) else { return false };
    let Some((between, end)) = rest.len().checked_sub(second.len()).and_then(|at| rest.split_at_checked(at))
    else {
        return false;
    };
    begin.eq_ignore_ascii_case(first)
        && end.eq_ignore_ascii_case(second)
        && between.iter().all(|byte| matches!(byte, b'-' | b'_'))
}

/// The elements of a comma-separated list without their white space; empty ones are left out (RFC 9110 §5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Digits only, at least one, no more than [`BODY_BYTES_MAX`].
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let length = value.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })?;
    (length <= BODY_BYTES_MAX).then_some(length)
}

/// Accepts exactly `chunked`. Everything else is told apart only for the status: a well-formed list that ends in
/// `chunked` or does not name it asks for a coding we do not have (501), anything else is malformed (400).
fn transfer_encoding(value: &[u8]) -> Result<(), ParseError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let well_formed = |coding: &[u8]| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        !name.is_empty() && name.iter().all(|byte| is_token(*byte))
    };
    let last = codings.next_back().unwrap_or_default();
    if well_formed(last) && codings.all(|coding| well_formed(coding) && !chunked(coding)) {
        return Err(ParseError::TransferCoding);
    }
    Err(ParseError::TransferEncoding)
}

/// Whether nothing but spaces surrounds the value. A tab is legal there, yet readers that trim only spaces would see
/// another value; for the headers that frame a message that is one reading too many.
fn only_spaces_around(header: &Header, bytes: &[u8]) -> bool {
    let before = Span { start: header.name.end.saturating_add(1), end: header.value.start };
    let after = Span { start: header.value.end, end: header.line.end.saturating_sub(2) };
    [before, after].iter().all(|span| span.of(bytes).iter().all(|byte| *byte == b' '))
}

/// Whether `byte` may stand in a token (RFC 9110 §5.6.2).
pub fn is_token(byte: u8) -> bool {
    TOKENS[usize::from(byte)]
}

/// Looked up, since every header name that we add is judged byte by byte.
static TOKENS: [bool; 256] = {
    let mut tokens = [false; 256];
    let mut byte = 0;
    while byte < tokens.len() {
        tokens[byte] = is_token_character(byte as u8);
        byte += 1;
    }
    tokens
};

const fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether `byte` may stand in a header value (RFC 9110 §5.5): everything but control bytes, the tab excepted.
pub fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_known_in_any_case_and_nothing_else_is() {
        let names: &[(&[u8], Known)] = &[
            (b"host", Known::Host),
            (b"connection", Known::Connection),
            (b"content-length", Known::ContentLength),
            (b"transfer-encoding", Known::TransferEncoding),
            (b"te", Known::Te),
            (b"trailer", Known::Trailer),
            (b"upgrade", Known::Upgrade),
            (b"expect", Known::Expect),
            (b"keep-alive", Known::KeepAlive),
            (b"proxy-connection", Known::ProxyConnection),
            (b"proxy-authenticate", Known::ProxyAuthenticate),
            (b"proxy-authorization", Known::ProxyAuthorization),
            (b"date", Known::Date),
            (b"server", Known::Server),
            (b"x-forwarded-client-cert", Known::ForwardedClientCert),
        ];
        for (name, known) in names {
            assert_eq!(classify(name), *known);
            assert_eq!(classify(&name.to_ascii_uppercase()), *known);
            for at in 0..name.len() {
                let mut other = name.to_vec();
                other[at] ^= 0x01;
                assert_eq!(classify(&other), Known::Other, "{other:?}");
                // This bit is the case of letters; `-` without it stands in no token.
                other[at] = name[at] ^ 0x20;
                assert_eq!(classify(&other), *known, "{other:?}");
                for byte in (0..=255).filter(|byte| is_token(*byte)) {
                    other[at] = byte;
                    let expected = match byte.eq_ignore_ascii_case(&name[at]) {
                        true => *known,
                        // The only one that begins with `x` has joints.
                        false if is_disguised_identity(&other) => Known::DisguisedIdentity,
                        false => Known::Other,
                    };
                    assert_eq!(classify(&other), expected, "{other:?}");
                }
            }
            assert_eq!(classify(&name[1..]), Known::Other);
        }
        assert_eq!(classify(b""), Known::Other);
    }

    #[test]
    fn names_that_others_take_for_whom_a_request_is_from_are_told() {
        for name in [
            "x_forwarded_client_cert",
            "X_Forwarded_Client_Cert",
            "x-forwarded-client_cert",
            "x-forwarded_client-cert",
            "x_forwarded-client-cert",
            "x--forwarded-client-cert",
            "x-forwarded-client--cert",
            "x_-_forwarded-client-cert",
            "x_forwarded_for",
            "x-forwarded_proto",
            "X_ENVOY_EXTERNAL_ADDRESS",
            "x-envoy_internal",
            "x_ringway_id",
            "x_request_id",
            "x-request_id",
            "x_real_ip",
            "x--real-ip",
        ] {
            assert_eq!(classify(name.as_bytes()), Known::DisguisedIdentity, "{name}");
        }
        for name in [
            "x-forwarded-for",
            "x-envoy-internal",
            "x-ringway-id",
            "x-request-id",
            "x-real-ip",
            "x_forwarded",
            "x-forwarded_",
            "x-forward_for",
            "xforwarded_for",
            "x_forwardedfor",
            "x_request_id_of",
            "x-request_ids",
            "x_real",
            "x-a_forwarded-for",
            "forwarded_for",
            "y_forwarded_for",
            "_x_forwarded_for",
            "x_",
            "x-",
            "content_type",
        ] {
            assert_eq!(classify(name.as_bytes()), Known::Other, "{name}");
        }
    }

    #[test]
    fn names_that_others_take_for_framing_are_told() {
        for name in ["content_length", "Content__Length", "content--length", "CONTENT-_LENGTH"] {
            assert!(is_disguised(name.as_bytes()), "{name}");
        }
        for name in ["transfer_encoding", "Transfer___Encoding", "transfer---encoding", "TRANSFER_-ENCODING"]
        {
            assert!(is_disguised(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "contentlength",
            "content_type",
            "content_lengths",
            "x_content_length",
            "content.length",
            "content_len-length",
            "transferencoding",
            "transfer_encodings",
            "transfer_length_coding",
            "content_encoding_x",
        ] {
            assert!(!is_disguised(name.as_bytes()), "{name}");
        }
    }
}
