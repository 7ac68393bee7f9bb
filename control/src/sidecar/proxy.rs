//! A proxy with its folder and its admin port, whatever it is for: what a sidecar and a gateway have in common.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::bootstrap::{Bootstrap, Role};
use super::control::ControlAddress;
use super::folder::{Folder, FolderError};
use super::port::{Reservation, ReserveError};
use super::process::{Ending, Life, Output, Process, ProcessOptions};

/// What a proxy is started with, whatever it is for.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Where the control plane is.
    pub control: ControlAddress,
    /// What the identities of the mesh begin with.
    pub trust_domain: String,
    /// The executable.
    pub proxy: PathBuf,
    /// More of its command line.
    pub arguments: Vec<String>,
    /// Where it keeps what it needs next time.
    pub data_dir: PathBuf,
    /// How long it may finish what it has when it is stopped.
    pub drain: Duration,
    /// Where its words go.
    pub output: Output,
}

/// A proxy that is kept alive.
#[derive(Debug)]
pub struct Proxy {
    control: ControlAddress,
    admin: Reservation,
    process: Process,
    // Last: the bootstrap file is needed for as long as the process may start again.
    _folder: Folder,
}

impl Proxy {
    /// Writes the bootstrap file of node `node_id` into `folder` and starts the process.
    pub(super) fn start(
        options: ProxyOptions,
        folder: Folder,
        admin: Reservation,
        node_id: String,
        role: Role,
    ) -> Result<Proxy, SetupError> {
        let ProxyOptions { control, trust_domain: _, proxy, arguments, data_dir: _, drain, output } = options;
        let bootstrap = Bootstrap { node_id, role, admin: admin.address(), control: control.clone() };
        let process = ProcessOptions {
            proxy: proxy.clone(),
            bootstrap: folder.write_bootstrap(&bootstrap.to_json())?,
            data_dir: folder.path().to_owned(),
            admin: admin.address(),
            arguments,
            drain,
            output,
        };
        let process = Process::start(process).map_err(|source| SetupError::Spawn { proxy, source })?;
        Ok(Proxy { control, admin, process, _folder: folder })
    }

    /// Until it serves, for at most `timeout`; then why it does not.
    pub async fn ready(&self, timeout: Duration) -> Result<(), StartError> {
        let mut life = self.process.life();
        let settled = life.wait_for(|life| matches!(life, Life::Ready { .. } | Life::Failed { .. }));
        match tokio::time::timeout(timeout, settled).await.as_ref().map(|life| life.as_deref()) {
            Ok(Ok(Life::Failed { why })) => Err(StartError::Failed { why: why.clone() }),
            Ok(_) => Ok(()),
            Err(_) => Err(match self.control.probe().await {
                Err(source) => StartError::Control { control: self.control.clone(), waited: timeout, source },
                Ok(()) => StartError::Slow { waited: timeout },
            }),
        }
    }

    /// Lets it finish what it has.
    pub async fn stop(self) -> Ending {
        self.process.stop().await
    }

    /// Ends it at once.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Its admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// What becomes of it.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.process.life()
    }
}

/// Why a proxy cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A port cannot be had.
    #[error("{option}")]
    Port {
        /// The option that asks for it.
        option: String,
        /// Why.
        #[source]
        source: ReserveError,
    },
    /// Two dependencies have one variable.
    #[error("two dependencies would both be {variable}")]
    Ambiguous {
        /// The variable.
        variable: String,
    },
    /// The operating system does not start it.
    #[error("cannot start {}", proxy.display())]
    Spawn {
        /// The file.
        proxy: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a proxy that was started does not become ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The proxy ended.
    #[error("the proxy {why} before it was ready")]
    Failed {
        /// How.
        why: String,
    },
    /// The control plane cannot be reached, and there is no last good configuration.
    #[error("no control plane at {control} for {} (`ringway serve` is one; --control names another)",
        humantime::format_duration(*waited))]
    Control {
        /// Where it should be.
        control: ControlAddress,
        /// How long we tried.
        waited: Duration,
        /// What connecting says.
        #[source]
        source: io::Error,
    },
    /// It has everything it needs, as far as we see.
    #[error("the proxy was not ready within {}", humantime::format_duration(*waited))]
    Slow {
        /// How long we waited.
        waited: Duration,
    },
}
