//! Binding listening sockets, away from the workers so that a failure is known before anything is published.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::kernel::limit_held;

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another proxy listens there. SO_REUSEPORT would share its connections in silence, so it is an error.
    #[error("another ringway-proxy listens on {address}")]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The kernel refused.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Sockets on one address, one per worker, with the lock that keeps other proxies off it.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port the kernel chose where 0 was asked for.
    pub address: SocketAddr,
    /// One listening socket per worker.
    pub sockets: Vec<TcpListener>,
    /// Held for as long as the address is in use.
    pub lock: AddressLock,
}

/// An abstract unix socket named after the address: it ends with the process, belongs to the network namespace as
/// ports do, and leaves no file.
#[derive(Debug)]
pub struct AddressLock(#[expect(dead_code, reason = "held, never used")] OwnedFd);

/// Connections the kernel queues before they are accepted; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds `workers` listening sockets on one address, all with SO_REUSEPORT, SO_REUSEADDR and, inherited by what they accept,
/// TCP_NODELAY and a limit of unsent bytes ([`SendHalf::limit_unsent`](crate::SendHalf::limit_unsent)).
pub fn bind(address: SocketAddr, workers: usize, unsent_bytes_max: u32) -> Result<Bound, BindError> {
    bind_holding(address, workers, unsent_bytes_max, None)
}

/// The same, where the kernel may hold no more than `held_bytes_max` of what is accepted each way; `None` leaves it to the
/// kernel, which finds out what is fast and goes up to megabytes.
pub fn bind_holding(
    address: SocketAddr,
    workers: usize,
    unsent_bytes_max: u32,
    held_bytes_max: Option<u32>,
) -> Result<Bound, BindError> {
    let refused = |address| move |source| BindError::Refused { address, source };
    let socket = |address| socket(address, unsent_bytes_max, held_bytes_max);
    let first = socket(address).map_err(refused(address))?;
    let address = first.local_addr().map_err(refused(address))?;
    let lock = lock(address)?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(address).map_err(refused(address))?);
    }
    // Only after all are bound: a failure half way must not have taken a connection.
    for socket in &sockets {
        socket2::SockRef::from(socket).listen(BACKLOG).map_err(refused(address))?;
    }
    Ok(Bound { address, sockets, lock })
}

fn socket(
    address: SocketAddr,
    unsent_bytes_max: u32,
    held_bytes_max: Option<u32>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(unsent_bytes_max)?;
    if let Some(bytes) = held_bytes_max {
        limit_held(&socket, bytes)?;
    }
    // Both drivers wait until an accept is worth a try, and try without blocking.
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

fn lock(address: SocketAddr) -> Result<AddressLock, BindError> {
    let name = format!("ringway/listen/{address}");
    let taken = UnixAddr::from_abstract_name(name).and_then(|name| UnixListener::bind_addr(&name));
    match taken {
        Ok(listener) => Ok(AddressLock(listener.into())),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(BindError::Taken { address }),
        Err(source) => Err(BindError::Refused { address, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_proxy_on_the_same_address_is_an_error_until_the_first_is_gone() {
        // An address that no other test uses, so that nobody takes the port when it is given back.
        let first = bind("127.0.0.3:0".parse().unwrap(), 2, 0).unwrap();
        assert_eq!(first.sockets.len(), 2);
        assert!(first.sockets.iter().all(|socket| socket.local_addr().unwrap() == first.address));
        let error = bind(first.address, 1, 0).unwrap_err();
        assert_eq!(error.to_string(), format!("another ringway-proxy listens on {}", first.address));
        let address = first.address;
        drop(first);
        bind(address, 1, 0).unwrap();
    }

    #[test]
    fn a_foreign_listener_without_reuse_port_is_named_in_the_error() {
        let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = foreign.local_addr().unwrap();
        let error = bind(address, 1, 0).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}"));
    }
}
