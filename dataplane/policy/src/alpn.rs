//! Application protocols as they are agreed on within a handshake (RFC 7301), and which HTTP each of them is.
//!
//! Between proxies of a mesh the names are of their own, so that TLS of the mesh can be told from an application's: a proxy
//! offers its own name first, then the plain one for others.

use alloc::vec::Vec;

/// A version of HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Plain names.
pub const HTTP1: &[u8] = b"http/1.1";
/// See [`HTTP1`].
pub const HTTP2: &[u8] = b"h2";

/// The names with which proxies of a mesh offer HTTP/2, HTTP/1.1 and anything else.
pub const MESH_HTTP2: &[u8] = b"ringway-h2";
/// See [`MESH_HTTP2`].
pub const MESH_HTTP1: &[u8] = b"ringway-http/1.1";
/// See [`MESH_HTTP2`].
pub const MESH_TCP: &[u8] = b"ringway-tcp";

/// Which HTTP a protocol is, under its plain name, ours or Istio's; `None` when it is none.
pub fn http(protocol: &[u8]) -> Option<Http> {
    match protocol {
        HTTP1 | MESH_HTTP1 | b"http/1.0" | b"istio-http/1.1" | b"istio-http/1.0" => Some(Http::Http1),
        HTTP2 | MESH_HTTP2 | b"istio-h2" => Some(Http::Http2),
        _ => None,
    }
}

/// What a connection that is being made will carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carries {
    /// This HTTP.
    Only(Http),
    /// HTTP, whichever the server likes.
    Either,
    /// Bytes.
    Bytes,
}

impl Carries {
    /// What is offered, best first, of what is `configured`: a name that would promise what is not spoken is left out. Where
    /// nothing is configured, plain names are offered, and none for bytes.
    pub fn offered<'a>(self, configured: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<&'a [u8]> {
        let is_fit = |protocol: &&[u8]| match (self, http(protocol)) {
            (Carries::Only(wanted), Some(http)) => http == wanted,
            (Carries::Either, http) => http.is_some(),
            (Carries::Bytes, http) => http.is_none(),
            (Carries::Only(_), None) => false,
        };
        let fit: Vec<_> = configured.clone().filter(is_fit).collect();
        if !fit.is_empty() {
            return fit;
        }
        let mut all = configured.peekable();
        match self {
            // A cluster of bytes may well be told what is in them.
            _ if all.peek().is_some() => all.collect(),
            Carries::Only(Http::Http1) => [HTTP1].into(),
            Carries::Only(Http::Http2) => [HTTP2].into(),
            Carries::Either => [HTTP2, HTTP1].into(),
            Carries::Bytes => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec};

    use super::*;

    #[test]
    fn what_is_offered_is_what_will_be_spoken() {
        let mesh: &[&str] = &["ringway-h2", "ringway-http/1.1", "ringway-tcp", "h2", "http/1.1"];
        let (one, two) = (Carries::Only(Http::Http1), Carries::Only(Http::Http2));
        for (carries, configured, offered) in [
            (one, mesh, vec!["ringway-http/1.1", "http/1.1"]),
            (two, mesh, vec!["ringway-h2", "h2"]),
            (Carries::Either, mesh, vec!["ringway-h2", "ringway-http/1.1", "h2", "http/1.1"]),
            (Carries::Bytes, mesh, vec!["ringway-tcp"]),
            (one, &[], vec!["http/1.1"]),
            (two, &[], vec!["h2"]),
            (Carries::Either, &[], vec!["h2", "http/1.1"]),
            (Carries::Bytes, &[], vec![]),
            (Carries::Bytes, &["h2"], vec!["h2"]),
            (one, &["istio"], vec!["istio"]),
        ] {
            let found = carries.offered(configured.iter().map(|name| name.as_bytes()));
            let found: Vec<_> = found.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            assert_eq!(found, offered, "{carries:?} {configured:?}");
        }
    }
}
