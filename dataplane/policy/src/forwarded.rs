//! What the hops before us say of a request: which address is the client's, and which scheme it used.
//!
//! `x-forwarded-for` grows by one address per hop, so its end was written by whom we know and its beginning by anybody.
//! Which part is believed is configured as in Envoy (`use_remote_address`, `xff_num_trusted_hops`, `skip_xff_append`).
//! The header's lines are one list, whichever line an address stands in (RFC 9110 §5.3).
//!
//! One difference is on purpose: a connection from 127.0.0.1 is told as that, where Envoy tells an address of the machine
//! instead.

use alloc::vec::Vec;
use core::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use wire::head::RequestView;

/// `x-forwarded-for`.
pub const FORWARDED_FOR: &[u8] = b"x-forwarded-for";
/// `x-forwarded-proto`.
pub const FORWARDED_PROTO: &[u8] = b"x-forwarded-proto";

/// How far `x-forwarded-for` and `x-forwarded-proto` are believed (Envoy: fields of `HttpConnectionManager`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ForwardedTrust {
    /// We are the edge: the connection's own address is part of the chain, and is appended to it.
    pub use_remote_address: bool,
    /// Hops between the client and us that are trusted (Envoy: `xff_num_trusted_hops`).
    pub hops: u32,
    /// Leave `x-forwarded-for` as it came, also at the edge (Envoy: `skip_xff_append`).
    pub skip_append: bool,
}

/// Where a request came from first, as far as is known and believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientAddress {
    /// From the other end of the connection.
    Connection(SocketAddr),
    /// From an address that `x-forwarded-for` tells.
    Forwarded(IpAddr),
}

impl ClientAddress {
    /// The address without a port.
    pub fn ip(&self) -> IpAddr {
        match self {
            ClientAddress::Connection(address) => address.ip(),
            ClientAddress::Forwarded(ip) => *ip,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddress::Connection(address) => address.fmt(f),
            ClientAddress::Forwarded(ip) => ip.fmt(f),
        }
    }
}

impl ForwardedTrust {
    /// The client of a request that came over a connection from `remote`.
    ///
    /// Of the chain of addresses the trusted hops are left out from its end; at the edge `remote` is the last of the
    /// chain. Where the chain is shorter, or what stands there is no address, it is `remote`.
    pub fn client(&self, request: &RequestView<'_>, remote: SocketAddr) -> ClientAddress {
        let from_end = match (self.use_remote_address, self.hops) {
            (true, 0) => return ClientAddress::Connection(remote),
            (true, hops) => hops - 1,
            (false, hops) => hops,
        };
        let told = usize::try_from(from_end).ok().and_then(|from_end| address(request, from_end));
        told.map_or(ClientAddress::Connection(remote), ClientAddress::Forwarded)
    }

    /// Whether `x-forwarded-proto` is replaced by what the connection is: at the edge, where nobody before us is trusted.
    pub fn replaces_proto(&self) -> bool {
        self.use_remote_address && self.hops == 0
    }

    /// The scheme that the client used: what the first `x-forwarded-proto` tells, where it is believed and is one of the two,
    /// else `own`, that of the connection.
    pub fn scheme(&self, request: &RequestView<'_>, own: &'static str) -> &'static str {
        if self.replaces_proto() {
            return own;
        }
        match request.header_values(FORWARDED_PROTO).next() {
            Some(told) if told.eq_ignore_ascii_case(b"https") => "https",
            Some(told) if told.eq_ignore_ascii_case(b"http") => "http",
            _ => own,
        }
    }

    /// Writes what `x-forwarded-for` becomes behind what `out` holds: its lines as one, and `remote` at the end.
    pub fn append_to(&self, request: &RequestView<'_>, remote: &str, out: &mut Vec<u8>) {
        for line in request.header_values(FORWARDED_FOR) {
            out.extend_from_slice(line);
            out.push(b',');
        }
        out.extend_from_slice(remote.as_bytes());
    }
}

/// The address at a place of the chain, counted from its end.
fn address(request: &RequestView<'_>, from_end: usize) -> Option<IpAddr> {
    let lines = request.header_values(FORWARDED_FOR).rev();
    let text = lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).nth(from_end)?;
    core::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;
    use crate::route::test_request::TestRequest;

    fn request(lines: &[&str], name: &str) -> TestRequest {
        lines.iter().fold(TestRequest::get("/"), |request, line| request.header(name, line))
    }

    #[test]
    fn the_client_is_found_behind_the_trusted_hops() {
        let edge = |hops| ForwardedTrust { use_remote_address: true, hops, skip_append: false };
        let inner = |hops| ForwardedTrust { use_remote_address: false, hops, skip_append: false };
        for (trust, lines, expected) in [
            (edge(0), &[][..], "9.9.9.9:99"),
            (edge(0), &["1.1.1.1"], "9.9.9.9:99"),
            (edge(1), &["1.1.1.1"], "1.1.1.1"),
            (edge(1), &["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
            (edge(1), &[], "9.9.9.9:99"),
            (edge(2), &["1.1.1.1, 2.2.2.2"], "1.1.1.1"),
            (edge(2), &["1.1.1.1"], "9.9.9.9:99"),
            (edge(2), &["1.1.1.1", "2.2.2.2"], "1.1.1.1"),
            (edge(3), &["1.1.1.1 ,\t2.2.2.2", " 3.3.3.3"], "1.1.1.1"),
            (edge(u32::MAX), &["1.1.1.1"], "9.9.9.9:99"),
            (inner(0), &[], "9.9.9.9:99"),
            (inner(0), &["1.1.1.1"], "1.1.1.1"),
            (inner(0), &["1.1.1.1,2.2.2.2"], "2.2.2.2"),
            (inner(1), &["1.1.1.1,2.2.2.2"], "1.1.1.1"),
            (inner(2), &["1.1.1.1,2.2.2.2"], "9.9.9.9:99"),
            (inner(u32::MAX), &["1.1.1.1"], "9.9.9.9:99"),
            (inner(0), &["2001:DB8::0:1"], "2001:db8::1"),
            // What is no bare address is none, and no other is taken for it.
            (inner(0), &["[2001:db8::1]"], "9.9.9.9:99"),
            (inner(0), &["1.1.1.1:80"], "9.9.9.9:99"),
            (inner(0), &["1.1.1.1,"], "9.9.9.9:99"),
            (inner(0), &["1.1.1.1, unknown"], "9.9.9.9:99"),
            (inner(0), &["01.1.1.1"], "9.9.9.9:99"),
            (inner(0), &["1.1.1"], "9.9.9.9:99"),
            (inner(0), &["::1%1"], "9.9.9.9:99"),
            (inner(0), &["\u{e9}"], "9.9.9.9:99"),
            (inner(0), &[""], "9.9.9.9:99"),
            (inner(1), &["1.1.1.1,,"], "9.9.9.9:99"),
            (inner(1), &["1.1.1.1,"], "1.1.1.1"),
        ] {
            let request = request(lines, "X-Forwarded-For");
            let client = trust.client(&request.view(), "9.9.9.9:99".parse().unwrap());
            assert_eq!(format!("{client}"), expected, "{trust:?} {lines:?}");
        }
    }

    #[test]
    fn the_chain_goes_on_as_one_line_with_the_connection_at_its_end() {
        for (lines, expected) in [
            (&[][..], "9.9.9.9"),
            (&["1.1.1.1"], "1.1.1.1,9.9.9.9"),
            (&["1.1.1.1, 2.2.2.2", "3.3.3.3"], "1.1.1.1, 2.2.2.2,3.3.3.3,9.9.9.9"),
            (&["", "x"], ",x,9.9.9.9"),
        ] {
            let mut out = Vec::new();
            let request = request(lines, "x-forwarded-for");
            ForwardedTrust::default().append_to(&request.view(), "9.9.9.9", &mut out);
            assert_eq!(core::str::from_utf8(&out).unwrap(), expected);
        }
    }

    #[test]
    fn the_scheme_is_what_somebody_trusted_says_if_it_is_one() {
        let edge = |hops| ForwardedTrust { use_remote_address: true, hops, skip_append: false };
        let inner = ForwardedTrust::default();
        for (trust, lines, expected) in [
            (inner, &[][..], "http"),
            (inner, &["https"], "https"),
            (inner, &["HTTPS"], "https"),
            (inner, &["ftp"], "http"),
            (inner, &["https,http"], "http"),
            (edge(0), &["https"], "http"),
            (edge(1), &["https"], "https"),
            (edge(1), &[], "http"),
        ] {
            let request = request(lines, "x-forwarded-proto");
            assert_eq!(trust.scheme(&request.view(), "http"), expected, "{trust:?} {lines:?}");
        }
    }
}
