//! Where the control plane is, as `--control` says it, and a channel to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that answers no ping for this long is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Where the control plane is: its unix socket, over which the kernel tells it who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddress {
    socket: PathBuf,
}

/// Why a path is no address of a control plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected unix:PATH, an absolute path without spaces")]
pub struct ControlAddressError;

impl ControlAddress {
    /// The control plane that listens on `socket`.
    pub fn at(socket: &Path) -> Result<Self, ControlAddressError> {
        let text = socket.to_str().ok_or(ControlAddressError)?;
        match text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self { socket: socket.to_owned() }),
            false => Err(ControlAddressError),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A channel that connects when it is first used, and again after a failure.
    pub fn channel(&self) -> Channel {
        // The path is percent-free because tonic takes it as it is, and a URI of graphic characters always parses.
        let endpoint = Endpoint::from_shared(self.to_string())
            .unwrap_or_else(|_| Endpoint::from_static("unix:/nowhere"));
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy()
    }

    /// Whether somebody listens there.
    pub async fn probe(&self) -> io::Result<()> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(&self.socket));
        connected.await.unwrap_or(Err(io::ErrorKind::TimedOut.into())).map(drop)
    }
}

impl FromStr for ControlAddress {
    type Err = ControlAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("unix:").ok_or(ControlAddressError).and_then(|path| Self::at(Path::new(path)))
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_absolute_path_or_an_error() {
        let good = "unix:/run/ringway/control.sock";
        assert_eq!(good.parse::<ControlAddress>().unwrap().to_string(), good);
        let wrong = ["unix:control.sock", "unix:", "/run/control.sock", "unix:/a b", "127.0.0.1:15010", ""];
        for text in wrong {
            assert_eq!(text.parse::<ControlAddress>(), Err(ControlAddressError), "{text}");
        }
    }
}
