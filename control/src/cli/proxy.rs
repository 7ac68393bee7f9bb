//! What `ringway run` and `ringway gateway` have in common: the options of the proxy they start, why it does not start,
//! and that a signal ends every wait for it.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::data_dir::{DataDir, NoDataDir};
use super::output;
use super::progress::say;
use crate::ca::TRUST_DOMAIN_DEFAULT;
use crate::server::CONTROL_SOCKET;
use crate::sidecar::binary::{self, BinaryError};
use crate::sidecar::control::{ControlAddress, ControlAddressError};
use crate::sidecar::process::{Ending, Output};
use crate::sidecar::signals::{Received, Signals};
use crate::sidecar::{ProxyOptions, SetupError, StartError};

/// Options of a proxy, whatever it is for.
#[derive(Debug, clap::Args)]
pub(super) struct ProxyArgs {
    /// Control plane: unix:PATH [default: control.sock in the data directory]
    #[arg(long, value_name = "ADDR", env = "RINGWAY_CONTROL")]
    control: Option<ControlAddress>,
    /// What the identities of the mesh begin with, as the control plane has it
    #[arg(long, value_name = "DOMAIN", default_value = TRUST_DOMAIN_DEFAULT, env = "RINGWAY_TRUST_DOMAIN")]
    trust_domain: String,
    /// The proxy to use [default: ringway-proxy beside this executable, else on PATH]
    #[arg(long, value_name = "PATH")]
    proxy_bin: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Longest wait for a first configuration
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    pub(super) control_timeout: Duration,
}

impl ProxyArgs {
    /// What the proxy is started with: it prints events from `log` on, and may finish what it has for `drain`.
    pub(super) fn options(&self, log: &str, drain: Duration) -> Result<ProxyOptions, ProxyError> {
        let data_dir = self.data_dir.path()?;
        let control = match &self.control {
            Some(control) => control.clone(),
            None => ControlAddress::at(&data_dir.join(CONTROL_SOCKET))
                .map_err(|source| ProxyError::NoControl { data_dir: data_dir.clone(), source })?,
        };
        Ok(ProxyOptions {
            control,
            trust_domain: self.trust_domain.clone(),
            proxy: binary::find(self.proxy_bin.as_deref())?,
            arguments: vec!["--log".to_owned(), log.to_owned()],
            data_dir,
            drain,
            output: Output::Stderr,
        })
    }
}

/// `--proxy-log`: a level, or tracing directives. A word that is neither would be taken for the name of a part, and
/// silence all others.
pub(super) fn log_filter(text: &str) -> Result<String, &'static str> {
    let is_level = text.parse::<tracing::level_filters::LevelFilter>().is_ok();
    match is_level || text.contains('=') {
        true => Ok(text.to_owned()),
        false => Err("expected error, warn, info, debug, or directives such as warn,dataplane::xds=debug"),
    }
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error(transparent)]
    Binary(#[from] BinaryError),
    #[error(transparent)]
    NoDataDir(#[from] NoDataDir),
    #[error("no control plane can be at {CONTROL_SOCKET} in {data_dir}; --control names another")]
    NoControl {
        data_dir: PathBuf,
        #[source]
        source: ControlAddressError,
    },
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Runs a story to its exit code; an error is printed, and is `failed`.
pub(super) fn tell<E: Error + 'static>(story: impl Future<Output = Result<u8, E>>, failed: u8) -> ExitCode {
    // One thread: children are tied to the thread that starts them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::print_error(&error);
            return ExitCode::from(failed);
        }
    };
    match runtime.block_on(story) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(failed)
        }
    }
}

/// Waits until a proxy is ready, or for the signal that came before. Whoever gets a signal or an error aborts it.
pub(super) async fn ready_or_signal(
    ready: impl Future<Output = Result<(), StartError>>,
    signals: &mut Signals,
) -> Result<Option<Received>, StartError> {
    tokio::select! {
        ready = ready => ready.map(|()| None),
        signal = signals.next() => Ok(Some(signal)),
    }
}

/// The proxy finishes what it has, unless a second signal says that nobody wants to wait.
pub(super) async fn drained_or_signal(
    stop: impl Future<Output = Ending>,
    drain: Duration,
    signals: &mut Signals,
) {
    tokio::select! {
        ending = stop => if ending == Ending::Killed {
            say(&format!("the proxy was not done after {}", humantime::format_duration(drain)));
        },
        _ = signals.next() => {}
    }
}
