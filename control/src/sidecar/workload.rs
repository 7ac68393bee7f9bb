//! A whole sidecar: what `ringway run` and the demo put beside an application.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use proto::control::Registration;
use tokio::sync::watch;

use super::backoff::random;
use super::bootstrap::{Role, SidecarRole, ToRole};
use super::environment::{self, Dependency};
use super::folder::{Folder, Kept};
use super::lease::{Lease, LeaseStatus};
use super::port::{Reservation, ReserveError};
use super::process::{Ending, Life};
use super::proxy::{Proxy, ProxyOptions, SetupError, StartError};
use crate::compile::identity;
use crate::model::Name;

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
    /// What it speaks: `http`, `http2`, `grpc`, `ws` or `tcp`.
    pub app_protocol: String,
    /// The address on which other proxies reach it.
    pub advertise: IpAddr,
    /// Services it calls by a local port.
    pub dependencies: Vec<Dependency>,
    /// What selectors of Services match.
    pub labels: BTreeMap<String, String>,
    /// What every proxy needs.
    pub proxy: ProxyOptions,
}

/// Dependencies and the local addresses that stand for them.
type Dependencies = Vec<(Dependency, Reservation)>;

/// A proxy beside an application, and its place in the mesh.
#[derive(Debug)]
pub struct Sidecar {
    inbound: Reservation,
    outbound: Reservation,
    dependencies: Dependencies,
    lease: Lease,
    proxy: Proxy,
}

impl Sidecar {
    /// Reserves its ports, starts the proxy and registers the workload as not ready.
    pub fn start(options: SidecarOptions) -> Result<Sidecar, SetupError> {
        let SidecarOptions { namespace, service, port, app_protocol, .. } = &options;
        let name: PathBuf = ["run", namespace, &format!("{service}-{port}")].iter().collect();
        let folder = Folder::open(&options.proxy.data_dir, &name)?;
        let before = folder.kept();
        let named = || format!("{service}.{namespace}-{:08x}", random() >> 32);
        let instance = before.instance.clone().unwrap_or_else(named);
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let inbound = reserve(before.inbound, options.advertise)
            .map_err(wanted_by(|| format!("--advertise {}", options.advertise)))?;
        let own = || "a port of the sidecar".to_owned();
        let outbound = reserve(before.outbound, loopback).map_err(wanted_by(own))?;
        let admin = reserve(before.admin, loopback).map_err(wanted_by(own))?;
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
        let own_name = Name::new(namespace.as_str(), service.as_str());
        let identity = identity(&options.proxy.trust_domain, &own_name);
        let role = SidecarRole {
            namespace: namespace.clone(),
            service: service.clone(),
            instance: instance.clone(),
            inbound: inbound.address(),
            app: SocketAddr::new(loopback, *port),
            app_protocol: app_protocol.clone(),
            outbound: outbound.address(),
            to: to.collect(),
            identity: identity.clone(),
        };
        let mut proxy = options.proxy.clone();
        proxy.arguments.splice(0..0, SIDECAR_ARGUMENTS.iter().map(|argument| (*argument).to_owned()));
        let proxy = Proxy::start(proxy, folder, admin, instance.clone(), Role::Sidecar(role))?;
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
            identity,
            app_protocol: app_protocol.clone(),
        };
        let lease = Lease::open(&options.proxy.control, registration);
        Ok(Sidecar { inbound, outbound, dependencies, lease, proxy })
    }

    /// Until the proxy serves, for at most `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), StartError> {
        self.proxy.ready(timeout).await
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

    /// Until proxies are told of the drain, or there is nobody who could tell them.
    pub async fn until_draining(&self) {
        self.lease.until_draining().await;
    }

    /// Drains the proxy, then unregisters.
    pub async fn stop(self) -> Ending {
        self.drain();
        let ending = self.proxy.stop().await;
        self.lease.close().await;
        ending
    }

    /// As if its machine had lost power: nothing is drained, nothing is unregistered.
    pub async fn kill(self) {
        drop(self.lease);
        self.proxy.kill().await;
    }

    /// Ends the proxy at once and unregisters: nothing has been served yet.
    pub async fn abort(self) {
        self.proxy.kill().await;
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
        self.proxy.admin()
    }

    /// The local addresses of the dependencies, in the order in which they were declared.
    pub fn dependencies(&self) -> impl Iterator<Item = (&Dependency, SocketAddr)> {
        self.dependencies.iter().map(|(to, local)| (to, local.address()))
    }

    /// What becomes of the proxy.
    pub fn life(&self) -> watch::Receiver<Life> {
        self.proxy.life()
    }

    /// What the control plane makes of the registration.
    pub fn registration(&self) -> watch::Receiver<LeaseStatus> {
        self.lease.status()
    }
}

/// A port that cannot be had is said with the option that asks for it.
fn wanted_by(option: impl FnOnce() -> String) -> impl FnOnce(ReserveError) -> SetupError {
    move |source| SetupError::Port { option: option(), source }
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
            Some(port) => Reservation::new(SocketAddr::new(loopback, port)),
            None => reserve(before.get(&variable).copied(), loopback),
        };
        let local = local.map_err(wanted_by(|| format!("--to {to}")))?;
        reserved.push((to.clone(), local));
    }
    Ok(reserved)
}

/// Name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
