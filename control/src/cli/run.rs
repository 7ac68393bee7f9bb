//! `ringway run`: an application with a sidecar, without an orchestrator. The story of one such pair.
//!
//! The proxy is ready before the application starts; the application takes requests when its port accepts; when it
//! ends, the proxy drains, the registration goes, and our exit code is the application's.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::progress::{say, tell_life, tell_registration};
use super::proxy::{self, ProxyArgs, ProxyError, drained_or_signal, log_filter, ready_or_signal};
use crate::host;
use crate::sidecar::environment::{Dependency, is_dns_label};
use crate::sidecar::process::Life;
use crate::sidecar::signals::{Received, Signals};
use crate::sidecar::{Sidecar, SidecarOptions, tied};

/// Exit code when we failed and not the application, as `env`, `timeout` and `docker run` have it.
const FAILED: u8 = 125;

/// Longest wait for the control plane to say that it tells proxies of the application's end; it takes milliseconds. Whoever
/// asked us to end will not wait for ever either: `docker stop` kills after 10 s.
const DRAIN_KNOWN_MAX: Duration = Duration::from_secs(5);

/// From then until we tell the application: its endpoint is gone from the other proxies by then (the fast lane of
/// endpoints takes 5–20 ms).
const DRAIN_NOTICE: Duration = Duration::from_millis(100);

/// First and longest pause between two looks whether the application accepts.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(200);

/// The application, and its place in the mesh.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The application listens on 127.0.0.1:PORT and gets HTTP_PROXY (and http_proxy, NO_PROXY), so that http://pay.mesh \
reaches service pay, and RINGWAY_<SERVICE>_<PORT>_ADDR for each --to.

Two replicas on one machine need two ports, and would make two ports of their service. A Service document with a \
target port that has a name, `ports: [{port: 80, targetPort: http}]`, takes both as one.

Exit codes: those of the application, 128+N if signal N killed it; 125 if the sidecar cannot be started or the \
application never accepts, 126 and 127 if the application cannot be started.

Examples:
  ringway run --name orders --port 8080 -- ./my-app
  ringway run --name orders --port 8080 --to ledger:7000 -- ./my-app --verbose
  ringway run --name pay --port 50051 --protocol grpc -- ./pay
  ringway run --name chat --port 8081 --protocol ws -- ./chat
  ringway run --name ledger --port 7000 --protocol tcp --advertise 10.0.0.7 -- ./ledger")]
pub(super) struct Args {
    /// Service of the application
    #[arg(long, value_name = "SERVICE", value_parser = dns_label)]
    name: String,
    /// Port of 127.0.0.1 on which the application listens
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Namespace of the service
    #[arg(long, value_name = "NS", default_value = "default", value_parser = dns_label)]
    namespace: String,
    /// Address of this machine on which other proxies reach the application [default: that by which it has joined, or 127.0.0.1]
    #[arg(long, value_name = "IP")]
    advertise: Option<IpAddr>,
    /// A service the application calls by a local port: SERVICE[.NAMESPACE]:PORT[=LOCALPORT]; may be repeated
    #[arg(long, value_name = "SERVICE:PORT[=LOCALPORT]")]
    to: Vec<Dependency>,
    /// What the application speaks; http and ws are HTTP/1.1, http2 and grpc are HTTP/2 without TLS
    #[arg(long, value_name = "PROTOCOL", default_value = "http",
        value_parser = ["http", "http2", "grpc", "ws", "tcp"])]
    protocol: String,
    /// A label for selectors of Services; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Least important events that the proxy prints: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = log_filter)]
    proxy_log: String,
    /// Longest wait for the application to accept on its port
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    ready_timeout: Duration,
    /// How long the proxy may finish what it has when the application has ended
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    #[command(flatten)]
    proxy: ProxyArgs,
    /// The application and its arguments
    #[arg(last = true, required = true, value_name = "APP")]
    app: Vec<std::ffi::OsString>,
}

/// Why the application does not run, or no longer.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error(
        "127.0.0.1:{0} is taken: stop what listens there, or name the application's own port with --port"
    )]
    PortTaken(u16),
    #[error("nothing accepts on 127.0.0.1:{port} after {}; --port is where the application listens",
        humantime::format_duration(*waited))]
    NeverAccepts { port: u16, waited: Duration },
    #[error("cannot start the application")]
    App(#[source] io::Error),
    #[error("cannot wait for the application")]
    Wait(#[source] io::Error),
}

/// Runs the pair until the application ends.
pub(super) fn run(args: Args) -> ExitCode {
    proxy::tell(story(args), FAILED)
}

async fn story(args: Args) -> Result<u8, RunError> {
    let mut signals = Signals::listen().map_err(ProxyError::Signals)?;
    let options = options(&args)?;
    let app = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    if TcpStream::connect(app).await.is_ok() {
        return Err(RunError::PortTaken(args.port));
    }
    let sidecar = Sidecar::start(options).map_err(ProxyError::Setup)?;
    match ready_or_signal(sidecar.ready(args.proxy.control_timeout), &mut signals).await {
        Ok(None) => {}
        Ok(Some(signal)) => {
            sidecar.abort().await;
            return Ok(code_of_signal(signal.number));
        }
        Err(error) => {
            sidecar.abort().await;
            return Err(ProxyError::Start(error).into());
        }
    }
    let pair = Pair { args, app, sidecar };
    pair.announce();
    let ended = pair.accompany(&mut signals).await;
    drained_or_signal(pair.sidecar.stop(), pair.args.drain_timeout, &mut signals).await;
    ended
}

fn options(args: &Args) -> Result<SidecarOptions, ProxyError> {
    let proxy = args.proxy.options(&args.proxy_log, args.drain_timeout)?;
    let joined = host::advertised(&proxy.data_dir);
    Ok(SidecarOptions {
        namespace: args.namespace.clone(),
        service: args.name.clone(),
        port: args.port,
        app_protocol: args.protocol.clone(),
        advertise: args.advertise.or(joined).unwrap_or(Ipv4Addr::LOCALHOST.into()),
        dependencies: args.to.clone(),
        labels: args.label.iter().cloned().collect(),
        proxy,
    })
}

/// The application and its sidecar, while the application lives.
struct Pair {
    args: Args,
    app: SocketAddr,
    sidecar: Sidecar,
}

impl Pair {
    fn announce(&self) {
        if let Life::Ready { after, .. } = &*self.sidecar.life().borrow() {
            say(&format!("proxy ready in {} ms", after.as_millis()));
        }
        let Args { name, namespace, .. } = &self.args;
        say(&format!("{name}.{namespace}  {} -> {}", self.sidecar.inbound(), self.app));
        say(&format!("http://SERVICE.mesh  through {}", self.sidecar.outbound()));
        for (to, local) in self.sidecar.dependencies() {
            say(&format!("{}:{}  at {local}", to.service, to.port));
        }
    }

    /// From the application's start to its end; its exit code.
    async fn accompany(&self, signals: &mut Signals) -> Result<u8, RunError> {
        let mut child = self.start_app().map_err(RunError::App)?;
        let started = Instant::now();
        let (mut life, mut registration) = (self.sidecar.life(), self.sidecar.registration());
        let accepts = until_it_accepts(self.app);
        let too_late = tokio::time::sleep(self.args.ready_timeout);
        tokio::pin!(accepts, too_late);
        let (mut accepted, mut ending) = (false, false);
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_err(RunError::Wait)?;
                    return Ok(code_of(status));
                }
                () = &mut accepts, if !accepted => {
                    accepted = true;
                    // After a signal to end, an endpoint that comes up late would only fail requests.
                    if !ending {
                        self.sidecar.serve();
                        say(&format!("taking requests after {} ms", started.elapsed().as_millis()));
                    }
                }
                () = &mut too_late, if !accepted && !ending => {
                    self.end_app(&mut child).await;
                    return Err(RunError::NeverAccepts { port: self.args.port, waited: self.args.ready_timeout });
                }
                signal = signals.next() => {
                    ending |= signal.ends();
                    self.pass_on(&mut child, signal, signals).await;
                }
                Ok(()) = life.changed() => tell_life(&life.borrow_and_update()),
                Ok(()) = registration.changed() => tell_registration(&registration.borrow_and_update()),
            }
        }
    }

    /// In our own process group: it keeps the terminal.
    fn start_app(&self) -> io::Result<Child> {
        // The command line requires at least one word.
        let (program, arguments) = self.args.app.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = tied::command(program);
        command.args(arguments).envs(self.sidecar.variables());
        Command::from(command).kill_on_drop(true).spawn()
    }

    /// What asks the application to end asks the mesh first to send no more requests, unless it is asked twice.
    async fn pass_on(&self, child: &mut Child, signal: Received, signals: &mut Signals) {
        if signal.ends() {
            self.sidecar.drain();
        }
        if signal.from_terminal {
            return;
        }
        if !signal.ends() {
            return send(child, signal.number);
        }
        let known = async {
            // An application that is never told would be worse than one that is told too early.
            let _ = tokio::time::timeout(DRAIN_KNOWN_MAX, self.sidecar.until_draining()).await;
            tokio::time::sleep(DRAIN_NOTICE).await;
        };
        tokio::pin!(known);
        let hurry = loop {
            tokio::select! {
                () = &mut known => break None,
                // It ended by itself; how, the next wait says again.
                _ = child.wait() => return,
                other = signals.next() => match other.ends() {
                    true => break Some(other),
                    false => send(child, other.number),
                },
            }
        };
        send(child, signal.number);
        if let Some(other) = hurry.filter(|other| !other.from_terminal) {
            send(child, other.number);
        }
    }

    async fn end_app(&self, child: &mut Child) {
        send(child, Signal::TERM.as_raw());
        if tokio::time::timeout(self.args.drain_timeout, child.wait()).await.is_err() {
            // Ends and reaps it; an error means that it was already gone.
            let _ = child.kill().await;
        }
    }
}

async fn until_it_accepts(app: SocketAddr) {
    let mut pause = LOOK_FIRST;
    while TcpStream::connect(app).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// Does nothing once the process is reaped: its id may be another's.
fn send(child: &Child, number: i32) {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number)) {
        // It fails for a process that has just ended, and then there is nobody to tell.
        let _ = kill_process(pid, signal);
    }
}

fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        // The kernel keeps eight bits of a code.
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => code_of_signal(signal),
        (None, None) => u8::MAX,
    }
}

fn code_of_signal(number: i32) -> u8 {
    u8::try_from(number).map_or(u8::MAX, |number| 128u8.saturating_add(number))
}

fn dns_label(text: &str) -> Result<String, String> {
    match is_dns_label(text) {
        true => Ok(text.to_owned()),
        false => Err("not a DNS label (a-z, 0-9 and -, at most 63)".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
