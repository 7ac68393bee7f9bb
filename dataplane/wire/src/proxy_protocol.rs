//! The PROXY protocol, versions 1 and 2: a header before the first byte of a connection that says between which two
//! addresses it was made, written by a proxy before us or by us (HAProxy's `proxy-protocol.txt`).
//!
//! Sans-I/O: [`parse`] again with the same bytes and more after them while the answer is [`Parsed::Partial`]. The bytes are
//! hostile, and a header that is wrong in anything refuses the connection: who may write it may say who asks.
//!
//! Longer than 500 lines: half of it are the tables of its tests.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header, in bytes. The specification allows 64 KiB of further values (`TLV`s); a client certificate is what makes
/// them long.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Longest header of version 1, in bytes, with its CRLF (§2.1).
const LINE_BYTES_MAX: usize = 107;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const V2_FIXED_BYTES: usize = 16;
const CRC32C: u8 = 3;

/// Which form a header has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Which headers are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Version 1 is.
    pub v1: bool,
    /// Version 2 is.
    pub v2: bool,
    /// A connection may begin without one. Whoever can connect can then also write one, so only where all are trusted.
    pub absent: bool,
}

impl Accepted {
    /// Both versions, and no connection without one.
    pub const ALL: Accepted = Accepted { v1: true, v2: true, absent: false };
}

/// Between whom a connection was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Who made it.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// Not yet to be told.
    Partial,
    /// No header, and none is needed: all bytes are the application's.
    Absent,
    /// A header.
    Header {
        /// Its length in bytes: what follows is the application's.
        length: usize,
        /// `None` where it speaks of no connection over TCP: the proxy's own connection (a health check), or one of a kind
        /// that has no such addresses. The connection's own addresses then stand.
        addresses: Option<Addresses>,
    },
}

/// Why a connection is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// The first bytes are no header of an accepted version.
    #[error("no PROXY protocol header")]
    Missing,
    /// The line of version 1 does not end within its 107 bytes.
    #[error("the line is too long")]
    LineTooLong,
    /// The line is not what the specification says.
    #[error("the line is malformed")]
    Line,
    /// Version 2 with a version number or command that there is not.
    #[error("unknown version or command")]
    Command,
    /// A family or protocol that there is not, or that is not TCP's.
    #[error("unknown address family or protocol")]
    Family,
    /// The length is below what the family needs.
    #[error("too short for its addresses")]
    TooShort,
    /// The length is above [`HEADER_BYTES_MAX`].
    #[error("too long")]
    TooLong,
    /// The values behind the addresses do not fill the header.
    #[error("malformed values")]
    Values,
    /// The checksum is wrong.
    #[error("wrong checksum")]
    Checksum,
}

/// Says what a connection that begins with `bytes` is.
///
/// # Errors
/// When it must not be served.
pub fn parse(bytes: &[u8], accepted: Accepted) -> Result<Parsed, HeaderError> {
    let mut may_come = false;
    for (is_accepted, start, of_version) in [
        (accepted.v1, V1_START, line as fn(&[u8]) -> Result<Parsed, HeaderError>),
        (accepted.v2, V2_START, binary),
    ] {
        if is_accepted && bytes.starts_with(start) {
            return of_version(bytes);
        }
        may_come |= is_accepted && start.starts_with(bytes);
    }
    match (may_come, accepted.absent) {
        (true, _) => Ok(Parsed::Partial),
        (false, true) => Ok(Parsed::Absent),
        (false, false) => Err(HeaderError::Missing),
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 50000 80`, or `PROXY UNKNOWN` with anything behind it.
fn line(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let seen = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        let is_whole = seen.len() == LINE_BYTES_MAX;
        return if is_whole { Err(HeaderError::LineTooLong) } else { Ok(Parsed::Partial) };
    };
    let text = seen.get(V1_START.len()..end).and_then(|text| core::str::from_utf8(text).ok());
    let text = text.ok_or(HeaderError::Line)?;
    let length = end + 2;
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(Parsed::Header { length, addresses: None });
    }
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(HeaderError::Line);
    let family = word()?;
    let (source, destination) = (ip(family, word()?)?, ip(family, word()?)?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(HeaderError::Line);
    }
    let addresses = Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok(Parsed::Header { length, addresses: Some(addresses) })
}

fn ip(family: &str, text: &str) -> Result<IpAddr, HeaderError> {
    let address = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().map(IpAddr::V6),
        _ => return Err(HeaderError::Line),
    };
    address.map_err(|_| HeaderError::Line)
}

/// Digits only, and no zero before others (§2.1).
fn port(text: &str) -> Result<u16, HeaderError> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_canonical).ok_or(HeaderError::Line)
}

fn binary(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let Some([command, family, high, low]) = bytes.get(V2_START.len()..V2_FIXED_BYTES) else {
        // What is there already may be wrong already.
        check_start(bytes.get(V2_START.len()).copied(), bytes.get(V2_START.len() + 1).copied())?;
        return Ok(Parsed::Partial);
    };
    check_start(Some(*command), Some(*family))?;
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    let addresses_bytes = addresses_bytes(*family);
    if length < V2_FIXED_BYTES + addresses_bytes {
        return Err(HeaderError::TooShort);
    }
    if length > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Partial) };
    let (addresses, values) = header
        .get(V2_FIXED_BYTES..)
        .and_then(|rest| rest.split_at_checked(addresses_bytes))
        .unwrap_or_default();
    check_values(header, values)?;
    // Of its own connections a proxy says nothing that matters here (§2.2, `LOCAL`).
    let is_local = command & 0xf == 0;
    Ok(Parsed::Header { length, addresses: if is_local { None } else { read_addresses(*family, addresses) } })
}

fn check_start(command: Option<u8>, family: Option<u8>) -> Result<(), HeaderError> {
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(HeaderError::Command);
    }
    // Unspecified; TCP over IPv4, IPv6; a unix socket. What says datagrams did not come here.
    match family.is_some_and(|family| !matches!(family, 0x00 | 0x11 | 0x21 | 0x31)) {
        true => Err(HeaderError::Family),
        false => Ok(()),
    }
}

fn addresses_bytes(family: u8) -> usize {
    match family {
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => 0,
    }
}

fn read_addresses(family: u8, bytes: &[u8]) -> Option<Addresses> {
    fn split<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N], u16, u16)> {
        let (source, rest) = bytes.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let [a, b, c, d] = *rest.first_chunk::<4>()?;
        Some((*source, *destination, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
    match family {
        0x11 => split::<4>(bytes).map(|(source, destination, from, to)| Addresses {
            source: (source, from).into(),
            destination: (destination, to).into(),
        }),
        0x21 => split::<16>(bytes).map(|(source, destination, from, to)| Addresses {
            source: (source, from).into(),
            destination: (destination, to).into(),
        }),
        _ => None,
    }
}

/// The values behind the addresses: a type, a length of two bytes and as many bytes, until the header ends. None of them is
/// used, but a checksum is checked.
fn check_values(header: &[u8], mut values: &[u8]) -> Result<(), HeaderError> {
    while let [kind, rest @ ..] = values {
        let [high, low, rest @ ..] = rest else { return Err(HeaderError::Values) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(HeaderError::Values)?;
        if *kind == CRC32C {
            let told: [u8; 4] = value.try_into().map_err(|_| HeaderError::Values)?;
            let value_start = header.len() - rest.len() - told.len();
            let before = header.get(..value_start).unwrap_or_default();
            // Reckoned with zeroes in its own place (§2.2.5).
            let crc = crc32c(crc32c(crc32c(!0, before), &[0; 4]), rest);
            if !crc != u32::from_be_bytes(told) {
                return Err(HeaderError::Checksum);
            }
        }
        values = rest;
    }
    Ok(())
}

fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < table.len() {
            let mut crc = at as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    bytes.iter().fold(start, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

/// Appends a header that says who made a connection, and to where. Addresses of two families have no header of their own:
/// it then says that nothing is known.
pub fn write(version: Version, of: &Addresses, out: &mut Vec<u8>) {
    let (source, destination) = (of.source.ip().to_canonical(), of.destination.ip().to_canonical());
    let (from, to) = (of.source.port(), of.destination.port());
    match (version, source, destination) {
        (Version::V1, IpAddr::V4(_), IpAddr::V4(_)) | (Version::V1, IpAddr::V6(_), IpAddr::V6(_)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            out.extend_from_slice(
                alloc::format!("PROXY {family} {source} {destination} {from} {to}\r\n").as_bytes(),
            );
        }
        (Version::V1, ..) => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
        (Version::V2, IpAddr::V4(source), IpAddr::V4(destination)) => {
            write_binary(0x11, &[&source.octets(), &destination.octets()], [from, to], out);
        }
        (Version::V2, IpAddr::V6(source), IpAddr::V6(destination)) => {
            write_binary(0x21, &[&source.octets(), &destination.octets()], [from, to], out);
        }
        // Version 2, a proxied connection, its addresses unspecified, and nothing behind.
        (Version::V2, ..) => {
            out.extend_from_slice(V2_START);
            out.extend_from_slice(&[0x21, 0x00, 0, 0]);
        }
    }
}

fn write_binary(family: u8, addresses: &[&[u8]], ports: [u16; 2], out: &mut Vec<u8>) {
    out.extend_from_slice(V2_START);
    out.extend_from_slice(&[0x21, family, 0, addresses_bytes(family) as u8]);
    addresses.iter().for_each(|address| out.extend_from_slice(address));
    ports.iter().for_each(|port| out.extend_from_slice(&port.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use std::{format, vec};

    use super::*;

    const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0xc3, 0x50, 0, 80];

    fn v2(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
        [V2_START, &[command, family], &length.to_be_bytes(), rest].concat()
    }

    fn v2_with(values: &[u8]) -> Vec<u8> {
        v2(0x21, 0x11, (V4.len() + values.len()) as u16, &[V4, values].concat())
    }

    /// As `parse`, and alike however the bytes come: split at every byte, the answer is the same, and partial before it.
    fn parsed(bytes: &[u8], accepted: Accepted) -> Result<Parsed, HeaderError> {
        let whole = parse(bytes, accepted);
        let mut decided = None;
        for end in 0..=bytes.len() {
            let answer = parse(&bytes[..end], accepted);
            match decided {
                None if answer != Ok(Parsed::Partial) => decided = Some(answer),
                None => {}
                Some(decided) => assert_eq!(answer, decided, "at {end} of {}", bytes.escape_ascii()),
            }
        }
        assert_eq!(decided.unwrap_or(Ok(Parsed::Partial)), whole);
        whole
    }

    fn told(bytes: &[u8]) -> std::string::String {
        match parsed(bytes, Accepted::ALL) {
            Ok(Parsed::Header { length, addresses: Some(Addresses { source, destination }) }) => {
                format!("{source} to {destination}, {} left", bytes.len() - length)
            }
            Ok(Parsed::Header { length, addresses: None }) => {
                format!("nothing, {} left", bytes.len() - length)
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn a_line_is_what_the_specification_says_or_refused() {
        let longest = "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
        let longest = longest.replace("ffff:f...f:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        let six = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        let unknown = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        for (text, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\r\nGET", "192.0.2.1:50000 to 192.0.2.2:80, 3 left"),
            ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0 to 255.255.255.255:65535, 0 left"),
            ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "[2001:db8::1]:1 to [::1]:2, 0 left"),
            (&format!("{longest}\r\n"), &format!("{six} to {six}, 0 left")),
            ("PROXY UNKNOWN\r\nx", "nothing, 1 left"),
            (&format!("{}x", longest.replace("TCP6", "UNKNOWN") + "\r\n"), "nothing, 1 left"),
            (&unknown(107), "nothing, 0 left"),
            (&unknown(108), "LineTooLong"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\r", "Partial"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\n\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 80 \r\n", "Line"),
            ("PROXY TCP4  192.0.2.1 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY\tTCP4 192.0.2.1 192.0.2.2 50000 80\r\n", "Missing"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 80 90\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 65536\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 50000 -1\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +500 80\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 050 80\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 00 80\r\n", "Line"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2  80\r\n", "Line"),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY TCP4 192.0.2.256 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY TCP4 192.0.2 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY TCP4 ::1 ::1 50000 80\r\n", "Line"),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY TCP6 ::1%lo ::1 50000 80\r\n", "Line"),
            ("PROXY TCP6 [::1] [::1] 50000 80\r\n", "Line"),
            ("PROXY tcp4 192.0.2.1 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY UDP4 192.0.2.1 192.0.2.2 50000 80\r\n", "Line"),
            ("PROXY UNKNOWNS\r\n", "Line"),
            ("PROXY \r\n", "Line"),
            ("PROXY TCP4 192.0.2.\u{661} 192.0.2.2 50000 80\r\n", "Line"),
            ("proxy TCP4 192.0.2.1 192.0.2.2 50000 80\r\n", "Missing"),
            ("GET / HTTP/1.1\r\n", "Missing"),
            ("PROX", "Partial"),
            ("", "Partial"),
        ] {
            assert_eq!(told(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(longest.len() + 2, 104);
        assert_eq!(told(b"PROXY UNKNOWN \xff\r\n"), "Line");
        assert_eq!(told(b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n"), "Line");
    }

    #[test]
    fn a_binary_header_is_what_the_specification_says_or_refused() {
        let six = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 15], &[1, 0, 1, 0, 2]];
        for (bytes, expected) in [
            (v2_with(b""), "192.0.2.1:50000 to 192.0.2.2:80, 0 left"),
            ([v2_with(b""), b"GET".to_vec()].concat(), "192.0.2.1:50000 to 192.0.2.2:80, 3 left"),
            (v2(0x21, 0x21, 36, &six.concat()), "[2001:db8::1]:1 to [::1]:2, 0 left"),
            (v2(0x20, 0x00, 0, b"x"), "nothing, 1 left"),
            (v2(0x20, 0x11, 12, V4), "nothing, 0 left"),
            (v2(0x21, 0x00, 0, b""), "nothing, 0 left"),
            (v2(0x21, 0x00, 3, &[4, 0, 0]), "nothing, 0 left"),
            (v2(0x21, 0x31, 216, &[1; 216]), "nothing, 0 left"),
            // Values: none, an empty one, two, one that is not known.
            (v2_with(&[4, 0, 0]), "192.0.2.1:50000 to 192.0.2.2:80, 0 left"),
            (v2_with(&[1, 0, 2, b'h', b'2', 0xee, 0, 1, 9]), "192.0.2.1:50000 to 192.0.2.2:80, 0 left"),
            (v2_with(&[4]), "Values"),
            (v2_with(&[4, 0]), "Values"),
            (v2_with(&[4, 0, 2, 1]), "Values"),
            (v2_with(&[4, 0, 0, 4]), "Values"),
            (v2_with(&[3, 0, 3, 1, 2, 3]), "Values"),
            (v2_with(&[3, 0, 4, 1, 2, 3, 4]), "Checksum"),
            (v2(0x11, 0x11, 12, V4), "Command"),
            (v2(0x31, 0x11, 12, V4), "Command"),
            (v2(0x22, 0x11, 12, V4), "Command"),
            (v2(0x2f, 0x11, 12, V4), "Command"),
            (v2(0x21, 0x12, 12, V4), "Family"),
            (v2(0x21, 0x10, 12, V4), "Family"),
            (v2(0x21, 0x01, 12, V4), "Family"),
            (v2(0x21, 0x13, 12, V4), "Family"),
            (v2(0x21, 0x41, 12, V4), "Family"),
            (v2(0x20, 0x99, 0, b""), "Family"),
            (v2(0x21, 0x11, 11, V4), "TooShort"),
            (v2(0x21, 0x21, 35, &[0; 35]), "TooShort"),
            (v2(0x21, 0x31, 215, &[0; 215]), "TooShort"),
            (v2(0x21, 0x11, (HEADER_BYTES_MAX - 15) as u16, b""), "TooLong"),
            (v2(0x21, 0x11, (HEADER_BYTES_MAX - 16) as u16, b""), "Partial"),
            (v2(0x21, 0x11, u16::MAX, b""), "TooLong"),
            (v2(0x21, 0x11, 13, V4), "Partial"),
            (V2_START.to_vec(), "Partial"),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "Missing"),
        ] {
            assert_eq!(told(&bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_checksum_covers_the_header_wherever_it_stands() {
        // The check value of the algorithm's catalogue.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        for (before, after) in [(&[][..], &[][..]), (&[4, 0, 1, 7], &[5, 0, 2, 8, 9])] {
            let mut bytes = v2_with(&[before, &[3, 0, 4, 0, 0, 0, 0], after].concat());
            let at = bytes.len() - after.len() - 4;
            let crc = (!crc32c(!0, &bytes)).to_be_bytes();
            bytes[at..at + 4].copy_from_slice(&crc);
            assert_eq!(told(&bytes), "192.0.2.1:50000 to 192.0.2.2:80, 0 left");
            // All but the byte that says that it is one.
            for spoiled in (16..bytes.len()).filter(|spoiled| *spoiled != at - 3) {
                let mut bytes = bytes.clone();
                bytes[spoiled] ^= 1;
                assert!(!told(&bytes).contains("192.0.2.1:50000 to 192.0.2.2:80"), "{spoiled}");
            }
        }
    }

    #[test]
    fn what_is_not_accepted_is_missing_or_the_applications_own() {
        let (one, two) = (b"PROXY UNKNOWN\r\n".to_vec(), v2(0x20, 0, 0, b""));
        let header = |length| Ok(Parsed::Header { length, addresses: None });
        for (v1, v2, absent, bytes, expected) in [
            (true, false, false, &one, header(15)),
            (true, false, false, &two, Err(HeaderError::Missing)),
            (false, true, false, &one, Err(HeaderError::Missing)),
            (false, true, false, &two, header(16)),
            (true, true, true, &one, header(15)),
            (true, true, true, &two, header(16)),
            (true, false, true, &two, Ok(Parsed::Absent)),
            (false, true, true, &one, Ok(Parsed::Absent)),
            (true, true, true, &b"GET /".to_vec(), Ok(Parsed::Absent)),
            (true, true, true, &b"PROXY".to_vec(), Ok(Parsed::Partial)),
            (true, true, true, &b"PUT".to_vec(), Ok(Parsed::Absent)),
            (true, true, true, &b"PROXY TCP4 x\r\n".to_vec(), Err(HeaderError::Line)),
            (true, true, true, &vec![], Ok(Parsed::Partial)),
        ] {
            let accepted = Accepted { v1, v2, absent };
            assert_eq!(parsed(bytes, accepted), expected, "{accepted:?} {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (source, destination, is_told) in [
            ("192.0.2.1:50000", "192.0.2.2:80", true),
            ("[2001:db8::1]:1", "[::1]:2", true),
            ("[::ffff:192.0.2.1]:50000", "192.0.2.2:80", true),
            ("[::1]:1", "192.0.2.2:80", false),
        ] {
            let canonical = |text: &str| {
                let address: SocketAddr = text.parse().unwrap();
                SocketAddr::new(address.ip().to_canonical(), address.port())
            };
            let of = Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
            let expected = Addresses { source: canonical(source), destination: canonical(destination) };
            for version in [Version::V1, Version::V2] {
                let mut out = Vec::new();
                write(version, &of, &mut out);
                let addresses = is_told.then_some(expected);
                assert_eq!(
                    parsed(&out, Accepted::ALL),
                    Ok(Parsed::Header { length: out.len(), addresses }),
                    "{source} {version:?}"
                );
            }
        }
        let mut out = Vec::new();
        let of =
            Addresses { source: ([192, 0, 2, 1], 50000).into(), destination: ([192, 0, 2, 2], 80).into() };
        write(Version::V2, &of, &mut out);
        assert_eq!(out, v2_with(b""));
        out.clear();
        write(Version::V1, &of, &mut out);
        assert_eq!(out, b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\r\n");
    }
}
