//! The process of a host that has joined: it renews the host's identity, and carries what proxies and workloads say to the
//! control plane.
//!
//! Bytes are carried as they are, each connection over one of its own, so there is no second speaker of any protocol here. Who may
//! connect is decided here, by the kernel's word; who may speak for which workload the control plane decides, by the host's
//! certificate.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use super::address::advertise;
use super::identity::{HostIdentity, IdentityError};
use super::tls::Connector;
use super::token::JoinToken;
use crate::caller::Users;
use crate::server::{CONTROL_SOCKET, StartError, listen_on, take_data_dir};
use crate::sidecar::backoff::Backoff;

/// First and longest pause between two attempts to renew.
const RENEW_FIRST: Duration = Duration::from_secs(1);
const RENEW_MAX: Duration = Duration::from_secs(60);

/// Pause after the system did not let us accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a host joins.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// `HOST:PORT` of the control plane.
    pub control: String,
    /// Spent if there is no identity from an earlier start, or none that is still good.
    pub token: Option<JoinToken>,
    /// The identity is kept there, and the socket is there.
    pub data_dir: PathBuf,
}

/// Why a host has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The socket cannot be listened on.
    #[error("cannot listen on {socket}")]
    Listen {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Nobody gave a token.
    #[error(
        "this host has not joined yet and there is no token; `ringway token` makes one where the control plane runs"
    )]
    NoToken,
    /// It was away for too long.
    #[error(
        "the identity of this host has ended and there is no token to buy another; `ringway token` makes one where the control plane runs"
    )]
    Ended,
}

/// A host that has joined.
pub struct Agent {
    host: Arc<Host>,
    listener: UnixListener,
    socket: PathBuf,
    /// Released when it is closed, however the process ends.
    _data_dir_lock: File,
}

struct Host {
    control: Arc<str>,
    data_dir: PathBuf,
    now: RwLock<Arc<HostIdentity>>,
    connector: RwLock<Connector>,
    /// Whether the last connection was made: each change of that is one line.
    reaches: AtomicBool,
}

impl Agent {
    /// Joins, or goes on with the identity that an earlier start kept, and listens.
    ///
    /// # Errors
    /// When there is no identity, or the data directory is another process's.
    pub async fn start(options: AgentOptions) -> Result<Agent, JoinError> {
        let AgentOptions { control, token, data_dir } = options;
        let lock = take_data_dir(&data_dir)?;
        let control: Arc<str> = control.into();
        let kept = HostIdentity::read(&data_dir)?;
        let ended = kept.is_some();
        let identity = match (kept.filter(|kept| kept.not_after > SystemTime::now()), token) {
            (Some(kept), _) => kept,
            (None, Some(token)) => {
                let bought = HostIdentity::buy(&control, &token).await?;
                bought.keep(&data_dir)?;
                bought
            }
            (None, None) if ended => return Err(JoinError::Ended),
            (None, None) => return Err(JoinError::NoToken),
        };
        let socket = data_dir.join(CONTROL_SOCKET);
        let bound = listen_on(&socket).await;
        let listener = bound.map_err(|source| JoinError::Listen { socket: socket.clone(), source })?;
        let connector = RwLock::new(identity.connector(&control)?);
        let (now, reaches) = (RwLock::new(Arc::new(identity)), AtomicBool::new(true));
        let host = Arc::new(Host { control, data_dir, now, connector, reaches });
        // Otherwise whoever is started first would not know.
        if let Ok(remote) = host.reach().await {
            host.remember_address(&remote);
        }
        Ok(Agent { host, listener, socket, _data_dir_lock: lock })
    }

    /// Who it is.
    pub fn identity(&self) -> String {
        self.host.identity().id.to_string()
    }

    /// Where proxies and workloads of this host connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Serves for ever. Dropping it ends every connection.
    pub async fn serve(&self) {
        let mut tasks = JoinSet::new();
        tasks.spawn(renew(Arc::clone(&self.host)));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) if is_served(&stream) => {
                    tasks.spawn(carry(Arc::clone(&self.host), stream));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Host {
    fn identity(&self) -> Arc<HostIdentity> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn connector(&self) -> Connector {
        self.connector.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One more connection to the control plane. Only a change of whether there can be one is told.
    async fn reach(&self) -> io::Result<TlsStream<TcpStream>> {
        let connected = self.connector().connect().await;
        let control = &*self.control;
        match (&connected, self.reaches.swap(connected.is_ok(), Relaxed)) {
            (Ok(_), false) => tracing::info!(control, "the control plane is reached again"),
            (Err(error), true) => tracing::warn!(
                control,
                %error,
                "the control plane cannot be reached; proxies go on with what they have"
            ),
            _ => {}
        }
        connected
    }

    /// Others reach this machine as it reaches them, where nobody says otherwise.
    fn remember_address(&self, remote: &TlsStream<TcpStream>) {
        let own = remote.get_ref().0.local_addr();
        if let Err(error) = own.and_then(|own| advertise(&self.data_dir, own.ip().to_canonical())) {
            tracing::warn!(%error, "cannot keep the address of this host");
        }
    }

    fn adopt(&self, identity: HostIdentity) -> Result<(), IdentityError> {
        identity.keep(&self.data_dir)?;
        *self.connector.write().unwrap_or_else(PoisonError::into_inner) =
            identity.connector(&self.control)?;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
        Ok(())
    }
}

/// Whoever could read the host's key may speak for it.
fn is_served(stream: &UnixStream) -> bool {
    let users = Users::ours();
    match stream.peer_cred() {
        Ok(of) if users.may_be_anybody(of.uid()) => true,
        Ok(of) => {
            tracing::warn!(reason = users.refusal(of.uid()), "a connection is refused");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "a connection is refused: the kernel does not say whose it is");
            false
        }
    }
}

/// One connection, both ways, to its end. However it ends: who speaks over it connects again.
async fn carry(host: Arc<Host>, mut local: UnixStream) {
    if let Ok(mut remote) = host.reach().await {
        host.remember_address(&remote);
        let _ = copy_bidirectional(&mut local, &mut remote).await;
    }
}

/// Renews at half of the life that is left, and then as often as it takes.
async fn renew(host: Arc<Host>) {
    let left = |of: &HostIdentity| of.not_after.duration_since(SystemTime::now()).unwrap_or_default();
    loop {
        let identity = host.identity();
        sleep(left(&identity) / 2).await;
        let mut backoff = Backoff::new(RENEW_FIRST, RENEW_MAX);
        loop {
            let renewed = match identity.renew(&host.control).await {
                Ok(renewed) => host.adopt(renewed),
                Err(error) => Err(error),
            };
            let Err(error) = renewed else { break };
            let left = humantime::format_duration(Duration::from_secs(left(&identity).as_secs())).to_string();
            tracing::warn!(
                error = &error as &(dyn std::error::Error + 'static),
                left,
                "cannot renew the identity of this host"
            );
            sleep(backoff.next_wait()).await;
        }
        tracing::info!(id = %host.identity().id, "identity renewed");
    }
}
