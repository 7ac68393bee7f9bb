//! What everything in the demo's mesh has in common: where it lies, how long it may take, why it is not there.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::board::Board;
use crate::ca::TRUST_DOMAIN_DEFAULT;
use crate::server;
use crate::sidecar::control::{ControlAddress, ControlAddressError};
use crate::sidecar::port::ReserveError;
use crate::sidecar::process::{Life, Output};
use crate::sidecar::{ProxyOptions, SetupError, StartError};

/// Namespace of everything, so that `ringway run` without more joins the same mesh.
pub(super) const NAMESPACE: &str = "default";

/// Longest wait until a proxy serves; a cold machine is slow.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long proxies may finish at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// What gateway and replicas have in common.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) control: ControlAddress,
    pub(super) proxy: PathBuf,
    /// For logs and for what proxies keep.
    pub(super) folder: PathBuf,
    pub(super) board: Arc<Board>,
    /// Takes what happens to proxies.
    pub(super) events: mpsc::UnboundedSender<String>,
}

impl Place {
    /// For a proxy that writes to `log`.
    pub(super) fn proxy_options(&self, log: &str) -> ProxyOptions {
        ProxyOptions {
            control: self.control.clone(),
            trust_domain: TRUST_DOMAIN_DEFAULT.to_owned(),
            proxy: self.proxy.clone(),
            arguments: Vec::new(),
            data_dir: self.folder.clone(),
            drain: DRAIN,
            output: Output::File(self.folder.join(log)),
        }
    }

    /// Why a proxy is not ready, with the last it said.
    pub(super) fn not_ready(&self, who: &str, log: &str, source: StartError) -> MeshError {
        let said = fs::read_to_string(self.folder.join(log)).unwrap_or_default();
        let said = said.lines().next_back().unwrap_or("nothing").to_owned();
        MeshError::Start { who: who.to_owned(), said, source }
    }
}

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The temporary folder cannot be used.
    #[error("cannot write the demo's files")]
    Folder(#[source] io::Error),
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] ReserveError),
    /// Its socket cannot be there.
    #[error("the control plane cannot be at this place (--socket)")]
    Control(#[source] ControlAddressError),
    /// No control plane.
    #[error("the control plane did not start")]
    Server(#[from] server::StartError),
    /// A toy cannot listen.
    #[error("{replica} cannot listen")]
    Toy {
        /// Which.
        replica: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A proxy cannot be started.
    #[error("the proxy of {who} cannot be started")]
    Setup {
        /// Whose.
        who: String,
        /// Why.
        #[source]
        source: SetupError,
    },
    /// A proxy does not become ready.
    #[error("the proxy of {who} did not start; the last it said: {said}")]
    Start {
        /// Whose.
        who: String,
        /// The end of its log.
        said: String,
        /// Why.
        #[source]
        source: StartError,
    },
}

/// Any port of loopback.
pub(super) fn any() -> SocketAddr {
    SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), 0)
}

/// Says when a proxy dies and when it is back.
pub(super) fn watch(
    who: String,
    mut life: tokio::sync::watch::Receiver<Life>,
    events: mpsc::UnboundedSender<String>,
) {
    tokio::spawn(async move {
        let mut died = false;
        while life.changed().await.is_ok() {
            let event = match &*life.borrow_and_update() {
                Life::Down { why, .. } => {
                    died = true;
                    format!("the proxy of {who} {why}")
                }
                Life::Ready { after, .. } if died => {
                    format!("the proxy of {who} is back, {} ms after its start", after.as_millis())
                }
                Life::Ready { .. } | Life::Starting { .. } | Life::Failed { .. } | Life::Stopped => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
}
