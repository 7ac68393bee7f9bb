//! `ringway gateway`: a proxy that serves the listeners of one Gateway, supervised in the foreground.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use super::output;
use super::progress::{say, tell_life};
use super::serve::default_data_dir;
use crate::sidecar::binary::{self, BinaryError};
use crate::sidecar::control::ControlAddress;
use crate::sidecar::environment::is_dns_label;
use crate::sidecar::process::{Ending, Output};
use crate::sidecar::signals::Signals;
use crate::sidecar::{Gateway, GatewayOptions, SetupError, StartError};

/// Which Gateway, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The proxy opens the ports that the Gateway's listeners name, takes the CPUs it may use, and is started again on the
same ports if it dies. SIGTERM and Ctrl-C let it finish what it has.

Exit codes: 0 after a signal, 1 if it cannot start.

Examples:
  ringway gateway shop/front
  ringway gateway shop/front --bind 10.0.0.7 --admin 127.0.0.1:15001")]
pub(super) struct Args {
    /// The Gateway
    #[arg(value_name = "NAMESPACE/NAME")]
    gateway: GatewayName,
    /// Local address on which its ports are opened
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    bind: IpAddr,
    /// Control plane: IP:PORT on loopback, or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15010", env = "RINGWAY_CONTROL")]
    control: ControlAddress,
    /// Admin listener of the proxy; port 0 chooses one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15000")]
    admin: SocketAddr,
    /// The proxy to use [default: ringway-proxy beside this executable, else on PATH]
    #[arg(long, value_name = "PATH")]
    proxy_bin: Option<PathBuf>,
    /// Least important events that the proxy prints: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    proxy_log: String,
    /// What is kept for the next start [default: $XDG_STATE_HOME/ringway, for root /var/lib/ringway]
    #[arg(long, value_name = "DIR", env = "RINGWAY_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Longest wait for a first configuration
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    control_timeout: Duration,
    /// How long the proxy may finish what it has
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
}

/// `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GatewayName {
    namespace: String,
    name: String,
}

impl FromStr for GatewayName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if is_dns_label(namespace) && is_dns_label(name) => {
                Ok(GatewayName { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("expected NAMESPACE/NAME, each a DNS label"),
        }
    }
}

/// Why there is no gateway, or no longer.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error(transparent)]
    Binary(#[from] BinaryError),
    #[error("cannot find a data directory: neither XDG_STATE_HOME nor HOME is set; name one with --data-dir")]
    NoDataDir,
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot wait for signals or processes")]
    Wait(#[source] io::Error),
}

/// Runs the gateway until a signal.
pub(super) fn run(args: &Args) -> ExitCode {
    // One thread: children are tied to the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(GatewayError::Wait).and_then(|runtime| runtime.block_on(story(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn story(args: &Args) -> Result<(), GatewayError> {
    let mut signals = Signals::listen().map_err(GatewayError::Wait)?;
    let GatewayName { namespace, name } = args.gateway.clone();
    let gateway = Gateway::start(GatewayOptions {
        namespace,
        name,
        bind: args.bind,
        admin: args.admin,
        control: args.control.clone(),
        proxy: binary::find(args.proxy_bin.as_deref())?,
        arguments: vec!["--log".to_owned(), args.proxy_log.clone()],
        data_dir: args.data_dir.clone().or_else(default_data_dir).ok_or(GatewayError::NoDataDir)?,
        drain: args.drain_timeout,
        output: Output::Stderr,
    })?;
    tokio::select! {
        ready = gateway.ready(args.control_timeout) => {
            if let Err(error) = ready {
                gateway.abort().await;
                return Err(error.into());
            }
        }
        _ = signals.next() => {
            gateway.abort().await;
            return Ok(());
        }
    }
    let GatewayName { namespace, name } = &args.gateway;
    say(&format!("gateway {namespace}/{name} on {}, admin http://{}", args.bind, gateway.admin()));
    accompany(&gateway, &mut signals).await;
    let drain = args.drain_timeout;
    tokio::select! {
        ending = gateway.stop() => if ending == Ending::Killed {
            say(&format!("the proxy was not done after {}", humantime::format_duration(drain)));
        },
        // Nobody wants to wait.
        _ = signals.next() => {}
    }
    Ok(())
}

/// Until a signal that asks to end.
async fn accompany(gateway: &Gateway, signals: &mut Signals) {
    let mut life = gateway.life();
    loop {
        tokio::select! {
            signal = signals.next() => if signal.ends() { return },
            Ok(()) = life.changed() => tell_life(&life.borrow_and_update()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_by_namespace_and_name() {
        let name = GatewayName { namespace: "shop".to_owned(), name: "front".to_owned() };
        assert_eq!("shop/front".parse(), Ok(name));
        for text in ["", "front", "/front", "shop/", "shop/front/80", "Shop/front"] {
            assert!(text.parse::<GatewayName>().is_err(), "{text}");
        }
    }
}
