//! A whole sidecar: what `ringway run` and the demo put beside an application.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use proto::control::Registration;
use tokio::sync::watch;

use super::backoff::random;
use super::bootstrap::{Bootstrap, Role, SidecarRole, ToRole};
use super::control::ControlAddress;
use super::environment::{self, Dependency};
use super::folder::{Folder, Kept};
use super::lease::{Lease, LeaseStatus};
use super::port::{Reservation, ReserveError};
use super::process::{Ending, Life, Output, Process, ProcessOptions};
use super::start::{self, SetupError, StartError};

/// A sidecar takes one worker and leaves its place to the scheduler: the application has the better claim to a core.
const SIDECAR_ARGUMENTS: &[&str] = &["--workers", "1", "--no-pin"];

/// Which workload, and what its sidecar needs.
#[derive(Debug, Clone)]
pub struct SidecarOptions {
    /// Namespace of the application.
    pub namespace: String,
    /// Its service.
    pub service: String,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// What it speaks: `http`, `http2`, `grpc` or `tcp`.
    pub app_protocol: String,
    /// The address on which other proxies reach it.
    pub advertise: IpAddr,
    /// Services it calls by a local port.
    pub dependencies: Vec<Dependency>,
    /// What selectors of Services match.
    pub labels: BTreeMap<String, String>,
    /// Where the control plane is.
    pub control: ControlAddress,
    /// The proxy.
    pub proxy: PathBuf,
    /// More of its command line.
    pub arguments: Vec<String>,
    /// Where it keeps what it needs next time.
    pub data_dir: PathBuf,
    /// How long the proxy may finish what it has when it is stopped.
    pub drain: Duration,
    /// Where the proxy's words go.
    pub output: Output,
}

/// Dependencies and the local addresses that stand for them.
type Dependencies = Vec<(Dependency, Reservation)>;

/// A proxy beside an application, and its place in the mesh.
#[derive(Debug)]
pub struct Sidecar {
    control: ControlAddress,
    inbound: Reservation,
    outbound: Reservation,
    admin: Reservation,
    dependencies: Dependencies,
    lease: Lease,
    process: Process,
    // Last: the bootstrap file is needed for as long as the process may start again.
    _folder: Folder,
}

impl Sidecar {
    /// Reserves its ports, starts the proxy and registers the workload as not ready.
    pub fn start(options: SidecarOptions) -> Result<Sidecar, SetupError> {
        let SidecarOptions { namespace, service, port, app_protocol, .. } = &options;
        let name: PathBuf = ["run", namespace, &format!("{service}-{port}")].iter().collect();
        let folder = Folder::open(&options.data_dir, &name)?;
        let before = folder.kept();
        let named = || format!("{service}.{namespace}-{:08x}", random() >> 32);
        let instance = before.instance.clone().unwrap_or_else(named);
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let inbound = reserve(before.inbound, options.advertise)?;
        let outbound = reserve(before.outbound, loopback)?;
        let admin = reserve(before.admin, loopback)?;
        let dependencies = reserve_dependencies(&options.dependencies, &before.to)?;
        folder.keep(&Kept {
            instance: Some(instance.clone()),
            inbound: Some(inbound.address()),
            outbound: Some(outbound.address()),
            admin: Some(admin.address()),
            to: dependencies.iter().map(|(to, local)| (to.variable(), local.address())).collect(),
        })?;

        let to = dependencies.iter().map(|(to, local)| ToRole {
            service: to.service.clone(),
            namespace: to.namespace.clone().unwrap_or_else(|| namespace.clone()),
            port: to.port,
            local: local.address(),
        });
        let role = SidecarRole {
            namespace: namespace.clone(),
            service: service.clone(),
            instance: instance.clone(),
            inbound: inbound.address(),
            app: SocketAddr::new(loopback, *port),
            app_protocol: app_protocol.clone(),
            outbound: outbound.address(),
            to: to.collect(),
        };
        let bootstrap = Bootstrap {
            node_id: instance.clone(),
            role: Role::Sidecar(role),
            admin: admin.address(),
            control: options.control.clone(),
        };
        let bootstrap = folder.write_bootstrap(&bootstrap.to_json())?;
        let sidecar_arguments = SIDECAR_ARGUMENTS.iter().map(|argument| (*argument).to_owned());
        let process = start::process(ProcessOptions {
            proxy: options.proxy.clone(),
            bootstrap,
            data_dir: folder.path().to_owned(),
            admin: admin.address(),
            arguments: sidecar_arguments.chain(options.arguments.iter().cloned()).collect(),
            drain: options.drain,
            output: options.output.clone(),
        })?;
        let registration = Registration {
            instance,
            namespace: namespace.clone(),
            service: service.clone(),
            address: inbound.address().to_string(),
            port: (*port).into(),
            labels: options.labels.clone().into_iter().collect(),
            ready: false,
            draining: false,
            host: host(),
            app_protocol: app_protocol.clone(),
        };
        let lease = Lease::open(&options.control, registration);
        let control = options.control;
        Ok(Sidecar { control, inbound, outbound, admin, dependencies, lease, process, _folder: folder })
    }

    /// Until the proxy serves, for at most `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), StartError> {
        start::until_ready(&self.process, &self.control, timeout).await
    }

    /// The application accepts: its endpoint takes requests.
    pub fn serve(&self) {
        self.lease.update(|registration| registration.ready = true);
    }

    /// The application is about to end: its endpoint takes no new requests.
    pub fn drain(&self) {
        self.lease.update(|registration| {
            registration.ready = false;
            registration.draining = true;
        });
    }

    /// Drains the proxy, then unregisters.
    pub async fn stop(self) -> Ending {
        self.drain();
        let ending = self.process.stop().await;
        self.lease.close().await;
        ending
    }

    /// As if its machine had lost power: nothing is drained, nothing is unregistered.
    pub async fn kill(self) {
        drop(self.lease);
        self.process.kill().await;
    }

    /// Ends the proxy at once and unregisters: nothing has been served yet.
    pub async fn abort(self) {
        self.process.kill().await;
        self.lease.close().await;
    }

    /// What the application is told.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let dependencies = self.dependencies.iter().map(|(to, local)| (to, local.address()));
        environment::variables(self.outbound(), dependencies)
    }

    /// Where other proxies reach the application.
    pub fn inbound(&self) -> SocketAddr {
        self.inbound.address()
    }

    /// The HTTP proxy for the application's own calls.
    pub fn outbound(&self) -> SocketAddr {
        self.outbound.address()
    }

    /// The proxy's admin listener.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The local addresses of the dependencies, in the order in which they were declared.
    pub fn dependencies(&self) -> impl Iterator<Item = (&Dependency, SocketAddr)> {
        self.dependencies.iter().map(|(to, local)| (to, local.address()))
    }

    /// What becomes of the proxy.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.process.life()
    }

    /// What the control plane makes of the registration.
    pub fn registration(&self) -> watch::Receiver<LeaseStatus> {
        self.lease.status()
    }
}

/// The port of last time if it is on the wanted address and free, else any.
fn reserve(before: Option<SocketAddr>, ip: IpAddr) -> Result<Reservation, ReserveError> {
    let before = before.filter(|before| before.ip() == ip);
    Reservation::prefer(before.unwrap_or(SocketAddr::new(ip, 0)))
}

fn reserve_dependencies(
    dependencies: &[Dependency],
    before: &BTreeMap<String, SocketAddr>,
) -> Result<Dependencies, SetupError> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut reserved = Dependencies::new();
    for to in dependencies {
        let variable = to.variable();
        if reserved.iter().any(|(other, _)| other.variable() == variable) {
            return Err(SetupError::Ambiguous { variable });
        }
        let local = match to.local_port {
            Some(port) => Reservation::new(SocketAddr::new(loopback, port))?,
            None => reserve(before.get(&variable).copied(), loopback)?,
        };
        reserved.push((to.clone(), local));
    }
    Ok(reserved)
}

/// Name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
