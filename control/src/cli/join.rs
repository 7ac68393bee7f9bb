//! `ringway join`: this machine becomes one of a mesh whose control plane is elsewhere.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::data_dir::{DataDir, NoDataDir};
use super::output;
use crate::host::{Agent, AgentOptions, JoinError, JoinToken, TokenError};

/// Where the token itself may be, where there is no file. Everybody may see a command line, so it has no option.
const TOKEN_VARIABLE: &str = "RINGWAY_TOKEN";

/// Where the control plane is, and what this host joins with.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It runs as long as this machine is of the mesh: `ringway run` and `ringway gateway` of root and of its user find it by the \
data directory. The token buys an identity of the host, which is kept and renewed; a later start needs none. The control \
plane listens for other machines with `ringway serve --listen 0.0.0.0:15010`.

Who may run here is what --allow said where the token was made.

Exit codes: 0 after Ctrl-C or SIGTERM, 1 if it cannot join.

Examples:
  ringway join mesh.example.com:15010 --token-file vm1.token
  ringway token --host vm1 --allow shop/web | ssh vm1 ringway join mesh.example.com:15010 --token-file -
  ringway join 10.0.0.1:15010")]
pub(super) struct Args {
    /// Where the control plane listens for other machines: HOST:PORT
    #[arg(value_name = "CONTROL", value_parser = control)]
    control: String,
    /// What `ringway token` printed, in a file; `-` is standard input [default: the variable RINGWAY_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Least important events to print: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing::level_filters::LevelFilter,
}

fn control(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(text.to_owned())
        }
        _ => Err("expected HOST:PORT"),
    }
}

/// Why this machine is not of the mesh.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    NoDataDir(#[from] NoDataDir),
    #[error("cannot read the token from {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the token in {place} is none: {source}")]
    Token { place: String, source: TokenError },
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
}

/// Joins, and serves until a signal.
pub(super) fn run(args: &Args) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(output::stderr_has_colour())
        .with_target(false)
        .with_max_level(args.log)
        .init();
    let joined = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(join(args)),
        Err(error) => Err(CliError::Signal(error)),
    };
    match joined {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn join(args: &Args) -> Result<(), CliError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Signal)?;
    let options =
        AgentOptions { control: args.control.clone(), token: token(args)?, data_dir: args.data_dir.path()? };
    let agent = tokio::select! {
        agent = Agent::start(options) => agent?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    println!("joined         {}", agent.identity());
    println!("control plane  {}", args.control);
    println!("workloads      unix:{}", agent.socket().display());
    tokio::select! {
        () = agent.serve() => {}
        _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "stopping; proxies go on with what they have"),
        _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "stopping; proxies go on with what they have"),
    }
    Ok(())
}

fn token(args: &Args) -> Result<Option<JoinToken>, CliError> {
    let (place, text) = match (&args.token_file, std::env::var(TOKEN_VARIABLE)) {
        (Some(path), _) => {
            let failed = |source| CliError::File { path: path.clone(), source };
            (path.display().to_string(), read(path).map_err(failed)?)
        }
        (None, Ok(text)) => (TOKEN_VARIABLE.to_owned(), text),
        (None, Err(_)) => return Ok(None),
    };
    text.parse().map(Some).map_err(|source| CliError::Token { place, source })
}

fn read(path: &Path) -> io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_control_plane_is_has_a_host_and_a_port() {
        for (text, fine) in [
            ("mesh.example.com:15010", true),
            ("[::1]:15010", true),
            ("10.0.0.1", false),
            (":15010", false),
            ("a:0", false),
            ("a:x", false),
        ] {
            assert_eq!(control(text).is_ok(), fine, "{text}");
        }
    }
}
