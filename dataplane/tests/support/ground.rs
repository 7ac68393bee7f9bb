//! What a mesh can stand on: a simulated network, or a kernel's loopback.

use std::net::SocketAddr;

use policy::limits;
use runtime::{Io, kernel::Kernel, listen};
use sim::{SimIo, SimSocket};
use tokio::net::TcpSocket;

/// A network that a mesh can stand on.
pub(crate) trait Ground: Io {
    /// A listening socket at an address of its own.
    fn socket(&self) -> (SocketAddr, Self::Socket);
    /// A listening socket at this address.
    fn socket_at(&self, address: SocketAddr) -> Self::Socket;
    /// An address where nobody listens, one for each number, and what keeps it so.
    fn nobody(&self, number: usize) -> (SocketAddr, Option<TcpSocket>);
}

impl Ground for SimIo {
    fn socket(&self) -> (SocketAddr, Self::Socket) {
        let socket = self.bind((self.ip(), 0).into());
        (socket.address(), socket)
    }

    fn socket_at(&self, address: SocketAddr) -> SimSocket {
        self.bind(address)
    }

    fn nobody(&self, number: usize) -> (SocketAddr, Option<TcpSocket>) {
        ((self.ip(), 9 + number as u16).into(), None)
    }
}

impl Ground for Kernel {
    fn socket(&self) -> (SocketAddr, Self::Socket) {
        let mut bound =
            listen::bind("127.0.0.1:0".parse().unwrap(), 1, limits::UNSENT_BYTES_DEFAULT).unwrap();
        (bound.address, bound.sockets.remove(0))
    }

    fn socket_at(&self, address: SocketAddr) -> Self::Socket {
        listen::bind(address, 1, limits::UNSENT_BYTES_DEFAULT).unwrap().sockets.remove(0)
    }

    fn nobody(&self, _: usize) -> (SocketAddr, Option<TcpSocket>) {
        // Bound and not listening: the kernel refuses connections, and gives the port to no other test.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (socket.local_addr().unwrap(), Some(socket))
    }
}
