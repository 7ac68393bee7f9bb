//! Ports that stay ours while nobody listens on them, so that a restarted proxy gets the same ones.
//!
//! A reservation is a bound socket that never listens. The kernel gives its port to nobody else, neither to a bind of
//! port 0 nor as the source of a connection. The proxy binds the same port beside it: with SO_REUSEPORT, as its
//! listeners do, or with SO_REUSEADDR alone, which Linux allows as long as no socket of the two listens yet. For the same
//! reason two reservations could share a port, so each also holds a name that only one can hold.

use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    address: SocketAddr,
    _socket: Socket,
    _name: UnixListener,
}

/// Why an address could not be reserved.
#[derive(Debug, thiserror::Error)]
#[error("cannot reserve {address}")]
pub struct ReserveError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Reservation {
    /// Reserves `address`; port 0 means any.
    pub fn new(address: SocketAddr) -> Result<Reservation, ReserveError> {
        reserve(address).map_err(|source| ReserveError { address, source })
    }

    /// Reserves `wanted` if it is free, else any port of its address.
    pub fn prefer(wanted: SocketAddr) -> Result<Reservation, ReserveError> {
        Reservation::new(wanted).or_else(|_| Reservation::new(SocketAddr::new(wanted.ip(), 0)))
    }

    /// The address, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn reserve(address: SocketAddr) -> io::Result<Reservation> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections that wait for their end on a port (TIME_WAIT) do not make it taken; a listener does.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    // Only now: bound with it, the port of any other listener with this option would be shared in silence.
    socket.set_reuse_port(true)?;
    // An abstract name ends with the process and belongs to the network namespace, as ports do.
    let name = UnixAddr::from_abstract_name(format!("ringway/reserve/{bound}"))?;
    Ok(Reservation { address: bound, _socket: socket, _name: UnixListener::bind_addr(&name)? })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    /// An address that no other test of this process binds: on a usual one somebody might take a port that is given back.
    const ANY: &str = "127.0.0.3:0";

    fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.bind(&address.into())?;
        socket.listen(8)?;
        Ok(socket)
    }

    #[test]
    fn a_listener_comes_and_goes_on_a_reserved_port_and_gets_every_connection() {
        let reservation = Reservation::new(ANY.parse().unwrap()).unwrap();
        for reuse_port in [true, false, true] {
            let listener = bind(reservation.address(), reuse_port).unwrap();
            for _ in 0..8 {
                let mut client = TcpStream::connect(reservation.address()).unwrap();
                let (accepted, _) = listener.accept().unwrap();
                TcpStream::from(accepted).write_all(b"hello").unwrap();
                let mut text = String::new();
                client.read_to_string(&mut text).unwrap();
                assert_eq!(text, "hello");
            }
        }
    }

    #[test]
    fn a_reserved_port_cannot_be_reserved_again_until_it_is_given_back() {
        let reservation = Reservation::new(ANY.parse().unwrap()).unwrap();
        let error = Reservation::new(reservation.address()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert_ne!(Reservation::prefer(reservation.address()).unwrap().address(), reservation.address());
        let address = reservation.address();
        drop(reservation);
        assert_eq!(Reservation::prefer(address).unwrap().address(), address);
    }

    #[test]
    fn a_port_that_somebody_listens_on_cannot_be_reserved_and_another_is_preferred() {
        for reuse_port in [true, false] {
            let listener = bind(ANY.parse().unwrap(), reuse_port).unwrap();
            let taken = listener.local_addr().unwrap().as_socket().unwrap();
            let error = Reservation::new(taken).unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
            let other = Reservation::prefer(taken).unwrap();
            assert_ne!(other.address(), taken);
            assert_eq!(other.address().ip(), taken.ip());
        }
    }
}
