//! PROXY protocol headers: told the same at every length, as the specification's offsets and words say, and written again
//! they name the same two addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wire::proxy_protocol::{Accepted, Addresses, Parsed, Version, parse, write};

/// Words of such headers.
pub const WORDS: &[&str] = &[
    "PROXY ",
    "TCP4 ",
    "TCP6 ",
    "UNKNOWN",
    "192.0.2.1 ",
    "255.255.255.255 ",
    "::1 ",
    "2001:db8::1 ",
    "::ffff:1.2.3.4 ",
    "0",
    "65535",
    "65536",
    "080",
    " ",
    "\r\n",
    "\r\n\r\n\u{0}\r\nQUIT\n",
    "\u{20}",
    "\u{21}",
    "\u{11}",
    "\u{31}",
    "\u{0}\u{c}",
    "\u{0}\u{24}",
    "\u{3}\u{0}\u{4}",
    "\u{1}\u{0}\u{2}h2",
    "\u{ff}\u{ff}",
];

/// Judges the first bytes of a connection.
pub fn run(bytes: &[u8]) {
    let shown = bytes.escape_ascii();
    let whole = parse(bytes, Accepted::ALL);
    for cut in 0..bytes.len() {
        let part = parse(&bytes[..cut], Accepted::ALL);
        assert!(part == Ok(Parsed::Partial) || part == whole, "{part:?} at {cut} and {whole:?}: {shown}");
    }
    for (v1, v2) in [(true, false), (false, true)] {
        let one = parse(bytes, Accepted { v1, v2, absent: false });
        // Who looks for one of them finds what who looks for both finds, or refuses what begins otherwise.
        assert!(
            one == whole || one.is_err() || whole == Ok(Parsed::Partial),
            "{one:?} and {whole:?}: {shown}"
        );
    }
    let optional = parse(bytes, Accepted { absent: true, ..Accepted::ALL });
    assert!(optional == whole || (optional == Ok(Parsed::Absent) && whole.is_err()), "{optional:?}: {shown}");
    let Ok(Parsed::Header { length, addresses }) = whole else { return };
    let header = &bytes[..length];
    assert_eq!(parse(header, Accepted::ALL), whole, "{shown}");
    assert_eq!(parse(&header[..length - 1], Accepted::ALL), Ok(Parsed::Partial), "{shown}");
    let told = if header.starts_with(b"PROXY ") { of_line(header) } else { of_offsets(header) };
    assert_eq!(addresses, told, "{shown}");
    if let Some(addresses) = addresses {
        written_again(&addresses);
    }
}

/// Version 1: five words with one space between two.
fn of_line(header: &[u8]) -> Option<Addresses> {
    let line = std::str::from_utf8(header).expect("a line is text");
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, family, source, destination, from, to] = words[..] else {
        assert!(words.get(1) == Some(&"UNKNOWN"), "{line:?}");
        return None;
    };
    if family == "UNKNOWN" {
        return None;
    }
    assert_eq!(line, format!("PROXY {family} {source} {destination} {from} {to}\r\n"));
    let address = |ip: &str, port: &str| {
        let number: u16 = port.parse().expect("a port");
        assert_eq!(number.to_string(), port, "{line:?}");
        let address = SocketAddr::new(ip.parse().expect("an address"), number);
        assert_eq!(address.is_ipv4(), family == "TCP4", "{line:?}");
        address
    };
    Some(Addresses { source: address(source, from), destination: address(destination, to) })
}

/// Version 2: the command at 12, the family at 13, the length at 14, addresses and ports from 16 on.
fn of_offsets(header: &[u8]) -> Option<Addresses> {
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    assert_eq!(16 + usize::from(number(14)), header.len());
    let ip = |at: usize, bytes: usize| match bytes {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&header[at..at + 4]).expect("four"))),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("sixteen"))),
    };
    let bytes = match (header[12], header[13]) {
        (0x21, 0x11) => 4,
        (0x21, 0x21) => 16,
        _ => return None,
    };
    let ports = 16 + 2 * bytes;
    Some(Addresses {
        source: SocketAddr::new(ip(16, bytes), number(ports)),
        destination: SocketAddr::new(ip(16 + bytes, bytes), number(ports + 2)),
    })
}

fn written_again(addresses: &Addresses) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let Addresses { source, destination } = *addresses;
    let expected = Addresses { source: canonical(source), destination: canonical(destination) };
    let is_one_family = expected.source.is_ipv4() == expected.destination.is_ipv4();
    for version in [Version::V1, Version::V2] {
        let mut header = Vec::new();
        write(version, addresses, &mut header);
        let length = header.len();
        let addresses = is_one_family.then_some(expected);
        assert_eq!(
            parse(&header, Accepted::ALL),
            Ok(Parsed::Header { length, addresses }),
            "{version:?}: {}",
            header.escape_ascii()
        );
    }
}
