//! What a TLS ClientHello says in clear text, read from a peeked prefix of a connection (RFC 8446 §4.1.2, RFC 6066 §3,
//! RFC 7301 §3.1): the server name and the protocols. It decides a filter chain and never takes part in the handshake.
//!
//! Sans-I/O: ask again with the same bytes and more after them while the answer is [`Sniff::Partial`]. The bytes are
//! hostile. A hello that is TLS and cannot be read is told from bytes that are no TLS at all, so that nobody slips past
//! the rules for a name by writing it in a way that only the server understands.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes looked at. A hello with post-quantum key shares and a session ticket has about 4 KiB.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Longest server name in bytes (RFC 1035 §2.3.4).
pub const SERVER_NAME_BYTES_MAX: usize = 255;

const RECORD_HEAD_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 1 << 14;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// What the bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sniff {
    /// Not yet to be told.
    Partial,
    /// Not TLS: another protocol, in clear text.
    NotTls,
    /// TLS, but no well-formed ClientHello within [`HELLO_BYTES_MAX`]: the connection is to be closed.
    Malformed,
    /// A whole ClientHello.
    Hello(ClientHello),
}

/// The part of a ClientHello that chooses a filter chain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientHello {
    /// The host name asked for, in lower case; `None` when none was given, or an address in its place.
    pub server_name: Option<String>,
    /// The protocols as on the wire: a length byte before each.
    protocols: Vec<u8>,
}

impl ClientHello {
    /// The application protocols offered, best first; empty when none were offered.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Reader(&self.protocols);
        core::iter::from_fn(move || rest.vector8())
    }
}

/// Says what a connection that begins with `bytes` is.
pub fn client_hello(bytes: &[u8]) -> Sniff {
    let seen = bytes.get(..HELLO_BYTES_MAX).unwrap_or(bytes);
    let message = match first_message(seen) {
        Ok(message) => message,
        Err(Sniff::Partial) if bytes.len() >= HELLO_BYTES_MAX => return Sniff::Malformed,
        Err(other) => return other,
    };
    match read_hello(&message) {
        Some(hello) => Sniff::Hello(hello),
        None => Sniff::Malformed,
    }
}

/// The body of the first handshake message, which may be spread over records cut anywhere.
fn first_message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Sniff> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut rest = bytes;
    let mut first = true;
    loop {
        let foreign = if first { Sniff::NotTls } else { Sniff::Malformed };
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3)
        {
            return Err(foreign);
        }
        let &[_, _, _, high, low, ref payload @ ..] = rest else { return Err(Sniff::Partial) };
        let record_bytes = usize::from(u16::from_be_bytes([high, low]));
        if record_bytes == 0 || record_bytes > RECORD_BYTES_MAX {
            return Err(Sniff::Malformed);
        }
        let payload = payload.get(..record_bytes).unwrap_or(payload);
        if first {
            message = Cow::Borrowed(payload);
        } else {
            message.to_mut().extend_from_slice(payload);
        }
        first = false;

        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Sniff::NotTls);
        }
        if let [_, high, middle, low, ..] = *message {
            let body_bytes = u32::from_be_bytes([0, high, middle, low]) as usize;
            if body_bytes > HELLO_BYTES_MAX {
                return Err(Sniff::Malformed);
            }
            if message.len() >= 4 + body_bytes {
                return Ok(match message {
                    Cow::Borrowed(whole) => Cow::Borrowed(whole.get(4..4 + body_bytes).unwrap_or_default()),
                    Cow::Owned(whole) => {
                        Cow::Owned(whole.get(4..4 + body_bytes).unwrap_or_default().to_vec())
                    }
                });
            }
        }
        rest = rest.get(RECORD_HEAD_BYTES + record_bytes..).ok_or(Sniff::Partial)?;
    }
}

fn read_hello(body: &[u8]) -> Option<ClientHello> {
    let mut body = Reader(body);
    body.take(2 + 32)?;
    let session_bytes = body.vector8()?.len();
    let suites_bytes = body.vector16()?.len();
    let compressions = body.vector8()?;
    if session_bytes > 32 || suites_bytes < 2 || suites_bytes % 2 != 0 || compressions.is_empty() {
        return None;
    }
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = Reader(body.vector16()?);
    if !body.0.is_empty() {
        return None;
    }
    let (mut named, mut offered) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME if core::mem::replace(&mut named, true) => return None,
            EXTENSION_SERVER_NAME => hello.server_name = server_name(content)?,
            EXTENSION_ALPN if core::mem::replace(&mut offered, true) => return None,
            EXTENSION_ALPN => hello.protocols = protocols(content)?.to_vec(),
            _ => {}
        }
    }
    Some(hello)
}

/// Exactly one host name; the inner `None` is an address, which is no server name (RFC 6066 §3) but is sent by some.
fn server_name(content: &[u8]) -> Option<Option<String>> {
    let mut content = Reader(content);
    let mut names = Reader(content.vector16()?);
    let host_name = names.take(1)? == [0];
    let name = names.vector16()?;
    if !content.0.is_empty() || !names.0.is_empty() || !host_name {
        return None;
    }
    let text = core::str::from_utf8(name).ok()?;
    if text.parse::<core::net::IpAddr>().is_ok() {
        return Some(None);
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if text.len() > SERVER_NAME_BYTES_MAX || !text.split('.').all(label) {
        return None;
    }
    Some(Some(text.to_ascii_lowercase()))
}

/// A list of at least one protocol, none of them empty.
fn protocols(content: &[u8]) -> Option<&[u8]> {
    let mut content = Reader(content);
    let list = content.vector16()?;
    let mut names = Reader(list);
    if !content.0.is_empty() || list.is_empty() {
        return None;
    }
    while !names.0.is_empty() {
        if names.vector8()?.is_empty() {
            return None;
        }
    }
    Some(list)
}

/// Takes fields off the front; `None` once they do not fit.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let count = *self.take(1)?.first()?;
        self.take(usize::from(count))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let count = self.number16()?;
        self.take(usize::from(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn vector16(content: &[u8]) -> Vec<u8> {
        [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(content)].concat()
    }

    fn names(name: &[u8]) -> Vec<u8> {
        extension(0, &vector16(&[&[0][..], &vector16(name)].concat()))
    }

    fn alpn(list: &[u8]) -> Vec<u8> {
        extension(16, &vector16(list))
    }

    /// The handshake message of a hello with these extensions.
    fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[32]);
        body.extend_from_slice(&[9; 32]);
        body.extend_from_slice(&vector16(&[0x13, 0x01, 0x13, 0x02]));
        body.extend_from_slice(&[1, 0]);
        body.extend_from_slice(&vector16(&extensions.concat()));
        let bytes = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1][..], &bytes[1..], &body].concat()
    }

    fn records(message: &[u8], record_bytes: usize) -> Vec<u8> {
        message.chunks(record_bytes).flat_map(|part| [&[22, 3, 1][..], &vector16(part)].concat()).collect()
    }

    /// The whole answer, which every prefix must agree with or leave open.
    fn sniff(bytes: &[u8]) -> Sniff {
        let whole = client_hello(bytes);
        for cut in 0..bytes.len() {
            let part = client_hello(&bytes[..cut]);
            assert!(part == Sniff::Partial || part == whole, "cut at {cut}: {part:?} then {whole:?}");
        }
        whole
    }

    fn hello(name: Option<&str>, protocols: &[u8]) -> Sniff {
        Sniff::Hello(ClientHello { server_name: name.map(String::from), protocols: protocols.to_vec() })
    }

    #[test]
    fn name_and_protocols_are_read_from_any_cut_into_records() {
        let list = b"\x02h2\x08http/1.1";
        let message =
            message(&[extension(10, &[0; 8]), names(b"Pay.MESH"), alpn(list), extension(43, &[2, 3, 4])]);
        for record_bytes in [1, 2, 3, 5, 40, 100, message.len()] {
            let bytes = records(&message, record_bytes);
            assert_eq!(sniff(&bytes), hello(Some("pay.mesh"), list), "{record_bytes}");
            let more = [&bytes[..], b"\x14\x03\x03\x00\x01\x01"].concat();
            assert_eq!(sniff(&more), hello(Some("pay.mesh"), list), "{record_bytes}");
        }
        let Sniff::Hello(hello) = client_hello(&records(&message, 9)) else { panic!("no hello") };
        assert_eq!(hello.protocols().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn a_hello_without_extensions_is_whole() {
        let mut bare = message(&[]);
        bare.truncate(bare.len() - 2);
        bare[3] -= 2;
        assert_eq!(sniff(&records(&bare, 100)), hello(None, b""));
        assert_eq!(sniff(&records(&message(&[]), 100)), hello(None, b""));
    }

    #[test]
    fn other_protocols_are_not_tls() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02\x01\x00\x05\x01",
            b"\x00",
            b"SSH-2.0",
            b"\x80\x2e\x01\x03\x01",
        ] {
            assert_eq!(sniff(bytes), Sniff::NotTls, "{bytes:?}");
        }
        // A handshake record that begins with another message.
        assert_eq!(sniff(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"), Sniff::NotTls);
        assert_eq!(sniff(b""), Sniff::Partial);
    }

    #[test]
    fn names_are_host_names_or_the_hello_is_refused() {
        let long = [b"a.".repeat(127), b"a".to_vec()].concat();
        let too_long = [b"a.".repeat(127), b"aa".to_vec()].concat();
        let cases: &[(&[u8], Option<Option<&str>>)] = &[
            (b"a", Some(Some("a"))),
            (b"_x-1.B.c", Some(Some("_x-1.b.c"))),
            (&long, Some(Some(core::str::from_utf8(&long).unwrap()))),
            (b"10.0.0.1", Some(None)),
            (b"::1", Some(None)),
            (b"", None),
            (b"a.", None),
            (b".a", None),
            (b"a..b", None),
            (b"a b", None),
            (b"a\0", None),
            (b"a\r\nb", None),
            (b"*.a", None),
            (b"a:1", None),
            (b"\xc3\xa9", None),
            (b"\xff", None),
            (&[b'a'; 64], None),
            (&too_long, None),
        ];
        for (name, expected) in cases {
            let expected = expected.map_or(Sniff::Malformed, |name| hello(name, b""));
            assert_eq!(sniff(&records(&message(&[names(name)]), 4096)), expected, "{name:?}");
        }
    }

    #[test]
    fn malformed_hellos_are_refused() {
        let inner = |list: &[u8]| extension(0, &vector16(list));
        let cases = [
            vec![names(b"a"), names(b"a")],
            vec![inner(b"")],
            vec![inner(b"\x01\x00\x01a")],
            vec![inner(b"\x00\x00\x01a\x00\x00\x01b")],
            vec![inner(b"\x00\x00\x09a")],
            vec![extension(0, b"\x00\x04\x00\x00\x01ax")],
            vec![alpn(b"")],
            vec![alpn(b"\x00")],
            vec![alpn(b"\x03h2")],
            vec![alpn(b"\x02h2"), alpn(b"\x02h2")],
            vec![vec![0, 16, 0]],
            vec![vec![0, 16, 0, 9, 1]],
        ];
        for extensions in cases {
            assert_eq!(sniff(&records(&message(&extensions), 4096)), Sniff::Malformed, "{extensions:?}");
        }
        let good = message(&[names(b"a")]);
        let changed = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            records(&message, 4096)
        };
        let session = 4 + 2 + 32;
        assert_eq!(sniff(&changed(session, 33)), Sniff::Malformed);
        assert_eq!(sniff(&changed(session + 34, 3)), Sniff::Malformed);
        assert_eq!(sniff(&changed(session + 39, 0)), Sniff::Malformed);
        // A record without content, one beyond the limit, and another kind in the middle.
        assert_eq!(sniff(b"\x16\x03\x01\x00\x00"), Sniff::Malformed);
        assert_eq!(sniff(b"\x16\x03\x01\x40\x01"), Sniff::Malformed);
        let middle = [&records(&good[..20], 20)[..], b"\x17\x03\x01\x00\x01a"].concat();
        assert_eq!(sniff(&middle), Sniff::Malformed);
    }

    #[test]
    fn no_more_than_the_bound_is_looked_at() {
        let padding = |bytes: usize| message(&[names(b"a"), extension(21, &vec![0; bytes])]);
        let overhead = records(&padding(0), RECORD_BYTES_MAX).len();
        let fitting = records(&padding(HELLO_BYTES_MAX - overhead), RECORD_BYTES_MAX);
        assert_eq!(fitting.len(), HELLO_BYTES_MAX);
        assert_eq!(client_hello(&fitting), hello(Some("a"), b""));
        let longer = records(&padding(HELLO_BYTES_MAX - overhead + 1), RECORD_BYTES_MAX);
        assert_eq!(client_hello(&longer), Sniff::Malformed);
        assert_eq!(client_hello(&longer[..HELLO_BYTES_MAX - 1]), Sniff::Partial);
        assert_eq!(sniff(b"\x16\x03\x01\x00\x04\x01\x01\x00\x00"), Sniff::Malformed);
    }
}
