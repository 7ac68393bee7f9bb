//! Hosts that requests name and the configuration does not: their names, and what is known of them (Envoy:
//! `dynamic_forward_proxy`).
//!
//! Names come from hostile requests. What is taken here for a name is a host as DNS or an address literal could have it;
//! everything else is refused before anybody looks it up.

use core::{
    fmt::{self, Write},
    str,
    sync::atomic::{AtomicBool, Ordering},
};

use wire::http1::split_authority;

use crate::balance::EndpointSet;

/// Longest name of a host (RFC 1035 §2.3.4 allows 253 characters), its port and what is between and around them.
const BYTES_MAX: usize = 264;

/// Longest name of a host alone.
const HOST_BYTES_MAX: usize = 253;

/// The port of an authority without one, where requests are not encrypted.
const HTTP_PORT: u16 = 80;

/// What is known of one host of a dynamic forward cluster.
#[derive(Debug)]
pub struct DynamicHost {
    /// Its endpoints, one for each address; none if the name does not exist.
    pub endpoints: EndpointSet,
    used: AtomicBool,
}

impl DynamicHost {
    /// A host that was not used yet.
    pub fn new(endpoints: EndpointSet) -> DynamicHost {
        DynamicHost { endpoints, used: AtomicBool::new(false) }
    }

    /// Notes that a request went there. Any worker may: all store the same, and only when it is not there yet, so the
    /// cache line stays shared.
    pub fn note_use(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a request went there since the last time this was asked.
    pub fn take_use(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

/// The name of a host with its port, in the one form that is compared: lower case, the port always there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostName {
    bytes: [u8; BYTES_MAX],
    len: usize,
    host_len: usize,
    /// The port.
    pub port: u16,
}

impl HostName {
    /// The host that an authority names; `None` if it is none that DNS could know, or no authority at all.
    pub fn parse(authority: &[u8]) -> Option<HostName> {
        let (host, port) = split_authority(authority)?;
        let host = str::from_utf8(host).ok()?;
        if !(host.starts_with('[') || is_name(host)) {
            return None;
        }
        let port = port.unwrap_or(HTTP_PORT);
        let mut name = HostName { bytes: [0; BYTES_MAX], len: 0, host_len: host.len(), port };
        write!(name, "{host}:{port}").ok()?;
        name.bytes.make_ascii_lowercase();
        (port > 0).then_some(name)
    }

    /// Host and port, as `example.com:80`.
    pub fn as_str(&self) -> &str {
        // Only strings were written.
        self.bytes.get(..self.len).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The host alone, an IPv6 address without its brackets: what is looked up.
    pub fn host(&self) -> &str {
        let host = self.as_str().get(..self.host_len).unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

/// Not every name that an authority may hold is one that DNS could know. A final dot says that no search domain shall be
/// tried on it.
fn is_name(host: &str) -> bool {
    host.len() <= HOST_BYTES_MAX && !host.starts_with('.') && !host.contains("..") && !host.contains('~')
}

impl Write for HostName {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn one_host_and_port_has_one_form() {
        for (authority, form, host, port) in [
            ("example.com", "example.com:80", "example.com", 80),
            ("Example.COM:8080", "example.com:8080", "example.com", 8080),
            ("my_host.local.", "my_host.local.:80", "my_host.local.", 80),
            ("10.0.0.1:00081", "10.0.0.1:81", "10.0.0.1", 81),
            ("[2001:DB8::1]", "[2001:db8::1]:80", "2001:db8::1", 80),
            ("[::1]:8080", "[::1]:8080", "::1", 8080),
        ] {
            let name = HostName::parse(authority.as_bytes()).unwrap_or_else(|| panic!("{authority}"));
            assert_eq!((name.as_str(), name.host(), name.port), (form, host, port));
            assert_eq!(HostName::parse(form.as_bytes()), Some(name), "{form} is its own form");
        }
        let longest = "a".repeat(HOST_BYTES_MAX);
        let name = HostName::parse(format!("{longest}:65535").as_bytes()).unwrap();
        assert_eq!(name.host(), longest);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let too_long = "a".repeat(HOST_BYTES_MAX + 1);
        for authority in [
            "",
            ":80",
            ".",
            ".com",
            "a..b",
            "a~b",
            "a/b",
            "user@host",
            "host:80:80",
            "host:",
            "host:0",
            "host:65536",
            "host:http",
            "::1",
            "[::1",
            "[host]",
            "ho\0st",
            "*",
            &too_long,
        ] {
            assert_eq!(HostName::parse(authority.as_bytes()), None, "{authority:?}");
        }
    }
}
