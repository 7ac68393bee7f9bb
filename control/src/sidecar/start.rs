//! What starting a sidecar and starting a gateway have in common: their errors, and waiting for the proxy.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::control::ControlAddress;
use super::folder::FolderError;
use super::port::ReserveError;
use super::process::{Life, Process, ProcessOptions};

/// Why a proxy cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Its folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] ReserveError),
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
    #[error("no control plane at {control} for {}", humantime::format_duration(*waited))]
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

/// Starts the proxy.
pub(super) fn process(options: ProcessOptions) -> Result<Process, SetupError> {
    let proxy = options.proxy.clone();
    Process::start(options).map_err(|source| SetupError::Spawn { proxy, source })
}

/// Until the proxy serves, for at most `timeout`; then why it does not.
pub(super) async fn until_ready(
    process: &Process,
    control: &ControlAddress,
    timeout: Duration,
) -> Result<(), StartError> {
    let mut life = process.life();
    let settled = life.wait_for(|life| matches!(life, Life::Ready { .. } | Life::Failed { .. }));
    match tokio::time::timeout(timeout, settled).await.as_ref().map(|life| life.as_deref()) {
        Ok(Ok(Life::Failed { why })) => Err(StartError::Failed { why: why.clone() }),
        Ok(_) => Ok(()),
        Err(_) => Err(match control.probe().await {
            Err(source) => StartError::Control { control: control.clone(), waited: timeout, source },
            Ok(()) => StartError::Slow { waited: timeout },
        }),
    }
}
