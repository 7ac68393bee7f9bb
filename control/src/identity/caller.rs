//! Who is at the other end of a connection.
//!
//! Within one machine the kernel knows: of a unix socket it says so itself, of TCP on loopback it is in its table of
//! connections (proc(5), `/proc/net/tcp`), where the user of the other end stands beside the two addresses.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use tonic::Request;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};

use super::Refused;
use crate::store::Token;

/// The state `ESTABLISHED` in the kernel's table. Of connections that are ending it no longer knows the user, and says 0.
const ESTABLISHED: &str = "01";

/// What proves who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A process of this machine, of this user.
    User(u32),
    /// Whoever was given this.
    Token(Token),
}

/// What a call says of where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connection {
    /// It brought a token.
    Token(Token),
    /// A unix socket; the user, where the kernel said.
    Unix(Option<u32>),
    /// TCP, between these two addresses.
    Tcp {
        /// Where it came from.
        client: SocketAddr,
        /// Where it arrived.
        server: SocketAddr,
    },
}

impl Connection {
    /// Of a call.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Connection, Refused> {
        if let Some(value) = request.metadata().get("authorization") {
            let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
            return token.and_then(Token::parse).map(Connection::Token).ok_or(Refused::Token);
        }
        let extensions = request.extensions();
        if let Some(info) = extensions.get::<UdsConnectInfo>() {
            return Ok(Connection::Unix(info.peer_cred.map(|of| of.uid())));
        }
        let tcp = extensions.get::<TcpConnectInfo>().and_then(|of| of.remote_addr.zip(of.local_addr));
        let (client, server) = tcp.ok_or(Refused::Unproved("the connection is of no kind that says"))?;
        Ok(Connection::Tcp { client, server })
    }

    /// Who that is, by the kernel's table where it is needed.
    pub(super) fn caller(self) -> Result<Caller, Refused> {
        let uid = match self {
            Connection::Token(token) => return Ok(Caller::Token(token)),
            Connection::Unix(uid) => {
                uid.ok_or(Refused::Unproved("the kernel does not say whose process it is"))
            }
            Connection::Tcp { client, server } => {
                if !(client.ip().to_canonical().is_loopback() && server.ip().to_canonical().is_loopback()) {
                    return Err(Refused::Unproved("it takes a token to ask from another machine"));
                }
                let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
                uid_of(&read("/proc/net/tcp"), client, server)
                    .or_else(|| uid_of(&read("/proc/net/tcp6"), client, server))
                    .ok_or(Refused::Unproved("the kernel does not know of the connection"))
            }
        };
        uid.map(Caller::User)
    }
}

/// The user who opened the connection from `client` to `server`, by a table as `/proc/net/tcp` and `/proc/net/tcp6` are.
fn uid_of(table: &str, client: SocketAddr, server: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = state == ESTABLISHED && is_address(local, client) && is_address(remote, server);
        // Queues, timer and retransmissions stand between.
        is_it.then(|| fields.nth(3)?.parse().ok())?
    })
}

/// Whether `text` is how the kernel's table writes `address`: words of four bytes, each as a number of this machine, and a port.
fn is_address(text: &str, address: SocketAddr) -> bool {
    let Some((words, port)) = text.split_once(':') else { return false };
    let octets = match words.len() {
        8 => match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(_) => return false,
        },
        _ => match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
    };
    let word = |four: &[u8]| four.try_into().map(|four| format!("{:08X}", u32::from_ne_bytes(four)));
    let wanted: Result<String, _> = octets.chunks(4).map(word).collect();
    wanted.is_ok_and(|wanted| wanted == words) && u16::from_str_radix(port, 16) == Ok(address.port())
}

/// Users of this machine who may ask for any identity of the mesh: they could take the authority's key as well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Users {
    ours: u32,
}

impl Users {
    /// Root, and the user of this process.
    pub(super) fn ours() -> Users {
        Users { ours: rustix::process::geteuid().as_raw() }
    }

    #[cfg(test)]
    pub(super) fn of(ours: u32) -> Users {
        Users { ours }
    }

    /// Whether `uid` is one of them.
    pub(super) fn may_be_anybody(self, uid: u32) -> bool {
        uid == 0 || uid == self.ours
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:3A9A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1 1 0 100 0 0 10 0
   1: 0100007F:3A9A 0100007F:C350 01 00000000:00000000 00:00000000 00000000     7        0 2 1 0 20 4 30 10 -1
   2: 0100007F:C350 0100007F:3A9A 01 00000000:00000000 00:00000000 00000000  1001        0 3 1 0 20 4 30 10 -1
   3: 0100007F:C351 0100007F:3A9A 06 00000000:00000000 03:00001706 00000000     0        0 0 3 0
   4: 0100007F:C352 0100007F:3A9A 01 00000000
";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_user_is_that_of_the_other_end_of_an_open_connection() {
        for (client, server, uid) in [
            ("127.0.0.1:50000", "127.0.0.1:15002", Some(1001)),
            ("[::ffff:127.0.0.1]:50000", "[::ffff:127.0.0.1]:15002", Some(1001)),
            // Our own end of it.
            ("127.0.0.1:15002", "127.0.0.1:50000", Some(7)),
            ("127.0.0.1:50001", "127.0.0.1:15002", None),
            ("127.0.0.1:50002", "127.0.0.1:15002", None),
            ("127.0.0.2:50000", "127.0.0.1:15002", None),
            ("127.0.0.1:50000", "127.0.0.1:15003", None),
            ("[::1]:50000", "[::1]:15002", None),
        ] {
            assert_eq!(uid_of(TABLE, client.parse().unwrap(), server.parse().unwrap()), uid, "{client}");
        }
        assert_eq!(uid_of("", "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()), None);
    }

    #[test]
    fn the_kernel_of_this_machine_says_who_connects() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(ip) else { continue };
            let server = listener.local_addr().unwrap();
            let stream = TcpStream::connect(server).unwrap();
            let client = stream.local_addr().unwrap();
            let uid = rustix::process::getuid().as_raw();
            assert_eq!(Connection::Tcp { client, server }.caller().unwrap(), Caller::User(uid));
            drop((stream, listener));
            let refused = Connection::Tcp { client, server }.caller().unwrap_err().to_string();
            assert_eq!(refused, "who asks is not proved: the kernel does not know of the connection");
        }
        let far = Connection::Tcp {
            client: "192.0.2.1:5".parse().unwrap(),
            server: "192.0.2.2:6".parse().unwrap(),
        };
        assert!(far.caller().unwrap_err().to_string().ends_with("from another machine"));
        assert!(Connection::Unix(None).caller().is_err());
        assert_eq!(Connection::Unix(Some(5)).caller().unwrap(), Caller::User(5));
    }
}
