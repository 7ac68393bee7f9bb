//! Whether a connection that was not declared speaks HTTP, read from its first bytes. It decides a filter chain; how the
//! request is read is somebody else's business, and stricter.
//!
//! Sans-I/O: ask again with the same bytes and more after them while the answer is [`Sniff::Partial`].

use crate::{
    head::Version,
    http1::{
        encode::{is_token, is_value},
        parse::METHOD_BYTES_MAX,
    },
    http2::frame::PREFACE,
};

/// Most bytes looked at for the end of a request line. A longer one is HTTP by its looks.
pub const LINE_BYTES_MAX: usize = 8 * 1024;

/// What the bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sniff {
    /// Not yet to be told.
    Partial,
    /// Another protocol.
    NotHttp,
    /// A request line of HTTP/1.
    Http1(Version),
    /// The preface of HTTP/2 (RFC 9113 §3.4).
    Http2,
}

impl Sniff {
    /// The protocol as ALPN has it, and as filter chains match it; `h2c` is HTTP/2 in clear text (Envoy).
    pub fn protocol(self) -> Option<&'static [u8]> {
        match self {
            Sniff::Partial | Sniff::NotHttp => None,
            Sniff::Http1(Version::Http10) => Some(b"http/1.0"),
            Sniff::Http1(Version::Http11) => Some(b"http/1.1"),
            Sniff::Http2 => Some(b"h2c"),
        }
    }
}

/// Says what a connection that begins with `bytes` speaks.
pub fn http(bytes: &[u8]) -> Sniff {
    if bytes.starts_with(PREFACE) {
        return Sniff::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Sniff::Partial;
    }
    let seen = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let method = seen.iter().position(|byte| !is_token(*byte)).unwrap_or(seen.len());
    if method > METHOD_BYTES_MAX {
        return Sniff::NotHttp;
    }
    let Some((space, rest)) = seen.get(method..).and_then(<[u8]>::split_first) else { return Sniff::Partial };
    if method == 0 || *space != b' ' {
        return Sniff::NotHttp;
    }
    let is_target = |byte: &u8| is_value(*byte) && !matches!(byte, b' ' | b'\t');
    let target = rest.iter().position(|byte| !is_target(byte)).unwrap_or(rest.len());
    let version = rest.get(target..).unwrap_or_default();
    let lines: [(&[u8], Version); 2] =
        [(b" HTTP/1.1\r\n", Version::Http11), (b" HTTP/1.0\r\n", Version::Http10)];
    for (line, known) in lines {
        if version.starts_with(line) && target > 0 {
            return Sniff::Http1(known);
        }
    }
    let may_be = lines.iter().any(|(line, _)| line.starts_with(version));
    match may_be && (target > 0 || version.is_empty()) {
        // The end is not looked for any further.
        true if seen.len() == LINE_BYTES_MAX => Sniff::Http1(Version::Http11),
        true => Sniff::Partial,
        false => Sniff::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_are_told_as_soon_as_they_can_be_and_alike_however_they_come() {
        let http1 = Sniff::Http1(Version::Http11);
        // Bytes, what they are, and after how many of them that is known.
        for (bytes, expected, known_after) in [
            (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], http1, 16),
            (b"POST /a?b HTTP/1.0\r\n", Sniff::Http1(Version::Http10), 20),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", Sniff::Http2, 24),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Sniff::NotHttp, 19),
            (b"GET / HTTP/2.0\r\n", Sniff::NotHttp, 12),
            (b"GET /\r\n", Sniff::NotHttp, 6),
            (b"GET  HTTP/1.1\r\n", Sniff::NotHttp, 5),
            (b"\x16\x03\x01\x02\x00\x01", Sniff::NotHttp, 1),
            (b"SSH-2.0-x\r\n", Sniff::NotHttp, 10),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Sniff::NotHttp, 1),
            (b"*1\r\n$4\r\nPING\r\n", Sniff::NotHttp, 3),
            (b"EHLO there\r\n", Sniff::NotHttp, 11),
            (&[b'A'; 40], Sniff::NotHttp, METHOD_BYTES_MAX + 1),
        ] {
            for count in 0..=bytes.len() {
                let answer = http(&bytes[..count]);
                let wanted = if count < known_after { Sniff::Partial } else { expected };
                assert_eq!(answer, wanted, "{} of {}", count, bytes.escape_ascii());
            }
        }
        let mut long = *b"GET /x ";
        long[6] = b'y';
        let long: alloc::vec::Vec<u8> = long.into_iter().chain([b'z'; LINE_BYTES_MAX]).collect();
        assert_eq!(http(&long[..LINE_BYTES_MAX - 1]), Sniff::Partial);
        assert_eq!(http(&long), http1);
        // Wherever in the line the end of what is looked at falls.
        for target in LINE_BYTES_MAX - 20..LINE_BYTES_MAX {
            let line = [b"GET /", &long[6..5 + target], b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
            assert_eq!(http(&line), http1, "{target}");
        }
    }
}
