//! Code that measures. `bench compare` (which `bench/run` builds and calls) measures Ringway beside other proxies; the
//! other commands are its parts, each of use by itself.

mod compare;
mod load;
mod message;
mod origin;
mod poll;
mod process;
mod relay;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::load::{Load, Pace, Until};

#[derive(Parser)]
#[command(name = "bench", about = "Measures Ringway and other proxies on this machine, on loopback only")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// HTTP/1.1 origin: /bytes/N answers with N bytes, /echo with the request's head, /count with what was counted
    Origin {
        #[arg(long, default_value = "127.0.0.1:8000")]
        listen: SocketAddr,
    },
    /// Relay bytes to an upstream without a look at them: the floor of what a proxy can cost
    Relay {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        upstream: SocketAddr,
    },
    /// Keep-alive load: closed loop, or open loop with --rate; prints one JSON object
    Load(LoadArguments),
    /// Measure subjects beside one another: JSON lines on stdout, a table on stderr
    Compare(Box<compare::Arguments>),
}

#[derive(clap::Args)]
struct LoadArguments {
    target: SocketAddr,
    #[arg(long, default_value_t = 32)]
    connections: usize,
    #[arg(long, default_value_t = 5.0, help = "How long, in seconds")]
    seconds: f64,
    #[arg(
        long,
        help = "Requests per second, on an absolute schedule; without it, each connection sends when it can"
    )]
    rate: Option<f64>,
    #[arg(long, default_value = "/bytes/128")]
    path: String,
    #[arg(long, default_value_t = 0, help = "Bytes of the request's body; any makes it a POST")]
    body: usize,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Origin { listen } => TcpListener::bind(listen)
            .and_then(|listener| origin::serve(&listener, &origin::Counts::default()))
            .map_err(compare::Error::from),
        Command::Relay { listen, upstream } => TcpListener::bind(listen)
            .and_then(|listener| relay::serve(&listener, upstream))
            .map_err(compare::Error::from),
        Command::Load(arguments) => put_load(&arguments).map_err(compare::Error::from),
        Command::Compare(arguments) => compare::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn put_load(arguments: &LoadArguments) -> io::Result<()> {
    let outcome = load::run(&Load {
        target: arguments.target,
        connections_count: arguments.connections,
        request: load::request(&arguments.path, arguments.body),
        pace: arguments.rate.map_or(Pace::Closed, Pace::Open),
        until: Until::Elapsed(Duration::from_secs_f64(arguments.seconds)),
    })?;
    writeln!(
        io::stdout(),
        "{}",
        serde_json::json!({
            "answers": outcome.answers,
            "errors": outcome.errors,
            "seconds": outcome.elapsed.as_secs_f64(),
            "p50_us": outcome.latency_us(0.5),
            "p99_us": outcome.latency_us(0.99),
            "p999_us": outcome.latency_us(0.999),
        })
    )
}
