//! `bench compare` (which `bench/run` builds and calls) measures Ringway beside other proxies; `bench origin` and `bench
//! relay` are its parts, each of use by itself. The load by itself is the program `ringway-load`.

mod compare;
mod process;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use bench::{origin, relay};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Measures Ringway and other proxies on this machine, on loopback only")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Origin, HTTP/1.1 and HTTP/2: /bytes/N answers with N bytes, /echo with the request's head, /count with what was counted
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
    /// Measure subjects beside one another: JSON lines on stdout, a table on stderr
    Compare(Box<compare::Arguments>),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Origin { listen } => TcpListener::bind(listen)
            .and_then(|listener| origin::serve(&[listener], &origin::Counts::default()))
            .map_err(compare::Error::from),
        Command::Relay { listen, upstream } => TcpListener::bind(listen)
            .and_then(|listener| relay::serve(&listener, upstream))
            .map_err(compare::Error::from),
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
