//! Transport addresses.

use alloc::sync::Arc;
use core::{fmt, net::SocketAddr};

/// A transport address: of a listener or of an endpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    /// IP address and port.
    Socket(SocketAddr),
    /// Path of a unix socket; a leading `@` is Linux's abstract namespace.
    Pipe(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Pipe(path) => path.fmt(f),
        }
    }
}
