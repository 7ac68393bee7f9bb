//! `ringway serve`: the control plane in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::data_dir::{DataDir, NoDataDir};
use super::output;
use crate::address;
use crate::ca::{self, GivenFiles, TRUST_DOMAIN_DEFAULT};
use crate::server::{self, Options, Server, StartError};

/// What to serve, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The directory is watched: a change is served within 100 ms. A document that cannot be used is reported with \
file:line:column, its last good version and all others serve.

Exit codes: 0 after Ctrl-C or SIGTERM, 1 if it cannot start.

Examples:
  ringway serve --config ./mesh
  ringway serve --config ./mesh --data-dir ./state --api 127.0.0.1:0
  ringway serve --config ./mesh --listen 0.0.0.0:15010
  ringway serve --config ./mesh --socket /run/ringway/control.sock
  ringway serve --config ./mesh --ca-cert mesh.pem --ca-key mesh.key --ca-root company.pem

Port 0 lets the system choose; what was chosen is printed.")]
pub(super) struct Args {
    /// Directory of YAML or JSON documents, read at any depth
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Unix socket that proxies and workloads connect to [default: control.sock in the data directory]
    #[arg(long, value_name = "PATH", env = "RINGWAY_SOCKET")]
    socket: Option<PathBuf>,
    /// Where other machines connect to (`ringway join`), over TLS: IP:PORT [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "RINGWAY_LISTEN", value_parser = address::parse)]
    listen: Option<SocketAddr>,
    /// Where the API is served: IP:PORT on loopback
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:15080", env = "RINGWAY_API_LISTEN",
        value_parser = address::parse)]
    api: SocketAddr,
    /// What the identities of the mesh begin with: spiffe://DOMAIN/ns/NAMESPACE/sa/SERVICE
    #[arg(long, value_name = "DOMAIN", default_value = TRUST_DOMAIN_DEFAULT, env = "RINGWAY_TRUST_DOMAIN")]
    trust_domain: String,
    /// How long the certificate of a workload is good for; it is renewed at half of that
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = svid_life)]
    svid_ttl: Duration,
    /// Sign with this certificate (PEM; those between it and a root may follow) instead of the built-in authority
    #[arg(long, value_name = "FILE", requires = "ca_key", env = "RINGWAY_CA_CERT")]
    ca_cert: Option<PathBuf>,
    /// The private key of --ca-cert (PEM, not encrypted)
    #[arg(long, value_name = "FILE", requires = "ca_cert", env = "RINGWAY_CA_KEY")]
    ca_key: Option<PathBuf>,
    /// Whom proxies trust (PEM) [default: the last certificate of --ca-cert]
    #[arg(long, value_name = "FILE", requires = "ca_cert", env = "RINGWAY_CA_ROOT")]
    ca_root: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Least important events to print: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing::level_filters::LevelFilter,
}

fn svid_life(text: &str) -> Result<Duration, String> {
    let life = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match life < ca::SVID_LIFE_MIN {
        true => Err(format!("at least {}", humantime::format_duration(ca::SVID_LIFE_MIN))),
        false => Ok(life),
    }
}

/// Serves until a signal.
pub(super) fn run(args: Args) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(output::stderr_has_colour())
        .with_target(false)
        .with_max_level(args.log)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::print_error(&error);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Why there is nothing to serve, or nothing any more.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    NoDataDir(#[from] NoDataDir),
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
}

async fn serve(args: Args) -> Result<(), ServeError> {
    // Before anything is started: a signal must find someone who listens.
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signal)?;
    let data_dir = args.data_dir.path()?;
    let options = Options {
        config: args.config.clone(),
        socket: args.socket.unwrap_or_else(|| data_dir.join(server::CONTROL_SOCKET)),
        listen: args.listen,
        api: args.api,
        data_dir: data_dir.clone(),
        lease: server::LEASE,
        trust_domain: args.trust_domain,
        svid_life: args.svid_ttl,
        // Neither is there without the other.
        authority: args.ca_cert.zip(args.ca_key).map(|(certificate, key)| GivenFiles {
            certificate,
            key,
            root: args.ca_root,
        }),
    };
    let server = Server::start(options).await?;
    let world = server.worlds().borrow().clone();
    let (documents, errors) = (world.documents.objects.len(), world.documents.errors.len());
    println!("control plane  unix:{}", server.socket().display());
    if let Some(address) = server.hosts() {
        println!("other hosts    {address}");
    }
    println!("api            http://{}", server.api());
    println!(
        "config         {}  {}  {documents} documents, {errors} errors",
        args.config.display(),
        world.revision
    );
    println!("data           {}", data_dir.display());
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = name, "stopping; proxies go on with what they have");
    server.stop().await;
    Ok(())
}
