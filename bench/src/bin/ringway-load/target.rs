//! What `ringway-load` takes as a URL: plain HTTP, to a host, perhaps a port, perhaps a path.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Where requests go, and what they ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As the `host` header has it.
    pub(crate) host: String,
    /// With its query.
    pub(crate) path: String,
}

/// Why a text is no target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTarget {
    #[error("only http:// is supported")]
    Scheme,
    #[error("no host")]
    Host,
    #[error("spaces and control characters must be percent-encoded")]
    Characters,
}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(NoTarget::Scheme),
            None => text,
        };
        if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(NoTarget::Characters);
        }
        // A fragment is the browser's, not the server's.
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        if host.is_empty() || host.starts_with(':') {
            return Err(NoTarget::Host);
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), path: format!("{slash}{path}") })
    }
}

impl Target {
    /// The first address of the host.
    pub(crate) fn resolve(&self) -> io::Result<SocketAddr> {
        let has_port = self.host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { self.host.clone() } else { format!("{}:80", self.host) };
        with_port.to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_a_path() {
        for (text, host, path) in [
            ("http://127.0.0.1:8000/a?b=c", "127.0.0.1:8000", "/a?b=c"),
            ("HTTP://orders", "orders", "/"),
            ("orders:80?x", "orders:80", "/?x"),
            ("http://[::1]:80/a#b", "[::1]:80", "/a"),
        ] {
            let expected = Target { host: host.to_owned(), path: path.to_owned() };
            assert_eq!(text.parse::<Target>().unwrap(), expected, "{text}");
        }
        for wrong in ["https://a/", "http://", "http:///a", "http://:80/", "http://a/b c", "http://a/\r\n"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_is_80_unless_it_is_said() {
        for (text, address) in
            [("127.0.0.1", "127.0.0.1:80"), ("http://[::1]", "[::1]:80"), ("[::1]:9", "[::1]:9")]
        {
            assert_eq!(
                text.parse::<Target>().unwrap().resolve().unwrap(),
                address.parse().unwrap(),
                "{text}"
            );
        }
    }
}
