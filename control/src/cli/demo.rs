//! `ringway demo`, and the lessons it gives.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::{data_dir, output};
use crate::address;
use crate::demo::{self, DemoError, Lesson, Options};
use crate::sidecar::binary::{self, BinaryError};

/// How to run it, or which lesson the running one gives.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Control plane, gateway, six toy services of two replicas with a sidecar each, and a steady load over HTTP/1.1, gRPC, \
WebSocket and TCP, on loopback and without root. Ctrl-C leaves no process, port or file.

Exit codes: 0 when it was ended, 1 if it cannot start.

Examples:
  ringway demo
  ringway demo --plain --for 30s --rate 500
  ringway demo break dead-replica
  ringway demo kill control-plane

The last two are for another terminal while the demo runs."
)]
pub(super) struct Args {
    #[command(subcommand)]
    lesson: Option<Given>,
    /// One line per second instead of a live view
    #[arg(long)]
    plain: bool,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Requests per second; there is a WebSocket message for every fourth
    #[arg(long, value_name = "RPS", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Where the API listens [default: 127.0.0.1:15080, or any port if that is taken]
    #[arg(long, value_name = "ADDR", value_parser = address::parse)]
    api: Option<SocketAddr>,
    /// Where the gateway listens [default: 127.0.0.1:8080, or any port if that is taken]
    #[arg(long, value_name = "ADDR", value_parser = address::parse)]
    gateway: Option<SocketAddr>,
    /// Unix socket of the control plane [default: the one where `ringway run` looks for it, or another if that is taken]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The proxy to use [default: ringway-proxy beside this executable, else on PATH]
    #[arg(long, value_name = "PATH")]
    proxy_bin: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Given {
    /// Break something in the running demo and see what the mesh does about it
    #[command(after_help = "Examples:\n  ringway demo break dead-replica")]
    Break {
        /// What to break
        what: Breakable,
    },
    /// Kill something in the running demo and see that nothing happens
    #[command(after_help = "Examples:\n  ringway demo kill control-plane")]
    Kill {
        /// What to kill
        what: Killable,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Breakable {
    /// A replica dies with its proxy, and nobody is told
    DeadReplica,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Killable {
    /// The control plane is away for a while
    ControlPlane,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Binary(#[from] BinaryError),
    #[error(transparent)]
    Demo(#[from] DemoError),
    #[error("cannot start threads")]
    Runtime(#[source] std::io::Error),
}

/// Runs the demo, or asks the running one for a lesson.
pub(super) fn run(args: Args) -> ExitCode {
    let lesson = match args.lesson {
        Some(Given::Break { what: Breakable::DeadReplica }) => Lesson::DeadReplica,
        Some(Given::Kill { what: Killable::ControlPlane }) => Lesson::KillControlPlane,
        None => return code(show(args)),
    };
    code(demo::ask(lesson, |line| println!("{line}")))
}

fn show(args: Args) -> Result<(), StartError> {
    let options = Options {
        plain: args.plain,
        lasts: args.lasts,
        rate: args.rate,
        api: args.api,
        gateway: args.gateway,
        socket: args.socket,
        usual_socket: data_dir::usual_socket(),
        proxy: binary::find(args.proxy_bin.as_deref())?,
    };
    // Its threads live as long as the process, so children may be tied to any of them.
    let runtime = tokio::runtime::Runtime::new().map_err(StartError::Runtime)?;
    Ok(runtime.block_on(demo::run(options))?)
}

fn code<E: std::error::Error>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
