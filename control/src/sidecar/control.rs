//! Where the control plane is, as `--control` says it, and a channel to it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use crate::address;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that answers no ping for this long is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Where the control plane is. Plaintext stays on this machine until there are identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlAddress {
    /// `127.0.0.1:15010`
    Tcp(SocketAddr),
    /// `unix:/run/ringway/control.sock`
    Unix(PathBuf),
}

/// Why text is no address of a control plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlAddressError {
    /// Neither form.
    #[error("expected IP:PORT, localhost:PORT or unix:/absolute/path")]
    Form,
    /// It would leave this machine in the clear.
    #[error("{0} is not on this machine; control planes are reached over loopback or a unix socket only")]
    NotLocal(SocketAddr),
}

impl ControlAddress {
    /// A channel that connects when it is first used, and again after a failure.
    pub fn channel(&self) -> Channel {
        // A URI of a parsed address always parses; a path is percent-free because tonic takes it as it is.
        let uri = match self {
            Self::Tcp(address) => format!("http://{address}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        };
        let endpoint =
            Endpoint::from_shared(uri).unwrap_or_else(|_| Endpoint::from_static("http://127.0.0.1:0"));
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy()
    }

    /// Whether somebody listens there.
    pub async fn probe(&self) -> io::Result<()> {
        let connected = async {
            match self {
                Self::Tcp(address) => TcpStream::connect(address).await.map(drop),
                Self::Unix(path) => UnixStream::connect(path).await.map(drop),
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connected).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl FromStr for ControlAddress {
    type Err = ControlAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let local = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
            return if local { Ok(Self::Unix(path.into())) } else { Err(ControlAddressError::Form) };
        }
        let address = address::parse(text)
            .ok()
            .filter(|address| address.port() > 0)
            .ok_or(ControlAddressError::Form)?;
        if !address.ip().is_loopback() {
            return Err(ControlAddressError::NotLocal(address));
        }
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_on_this_machine_or_an_error() {
        for (text, expected) in [
            ("127.0.0.1:15010", Ok("127.0.0.1:15010")),
            ("[::1]:15010", Ok("[::1]:15010")),
            ("localhost:15010", Ok("127.0.0.1:15010")),
            ("unix:/run/ringway/control.sock", Ok("unix:/run/ringway/control.sock")),
            ("unix:control.sock", Err("expected IP:PORT, localhost:PORT or unix:/absolute/path")),
            ("127.0.0.1", Err("expected IP:PORT, localhost:PORT or unix:/absolute/path")),
            ("127.0.0.1:0", Err("expected IP:PORT, localhost:PORT or unix:/absolute/path")),
            ("http://127.0.0.1:15010", Err("expected IP:PORT, localhost:PORT or unix:/absolute/path")),
            (
                "10.0.0.1:15010",
                Err("10.0.0.1:15010 is not on this machine; \
                     control planes are reached over loopback or a unix socket only"),
            ),
        ] {
            let parsed = text.parse::<ControlAddress>().map(|a| a.to_string()).map_err(|e| e.to_string());
            assert_eq!(parsed, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
