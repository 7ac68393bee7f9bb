//! Socket addresses as a command line says them: `IP:PORT`, or `localhost:PORT`. Other names are not looked up.

use std::net::{Ipv4Addr, SocketAddr};

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected IP:PORT or localhost:PORT")]
pub(crate) struct AddressError;

/// The address that `text` says.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, AddressError> {
    match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port: u16| (Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse().ok(),
    }
    .ok_or(AddressError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_number_or_this_machine() {
        for (text, address) in [
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost:15080", Some("127.0.0.1:15080")),
            ("localhost", None),
            ("localhost:65536", None),
            ("example.com:80", None),
            (":80", None),
        ] {
            assert_eq!(parse(text).ok().map(|address| address.to_string()).as_deref(), address, "{text}");
        }
    }
}
