//! A replica of a toy with its sidecar: started, killed and stopped as a machine with `ringway run` would be.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::place::{MeshError, NAMESPACE, Place, READY_TIMEOUT, any, watch};
use super::toy::{Environment, Service, Toy};
use crate::model::Registration;
use crate::sidecar::environment::Dependency;
use crate::sidecar::port::{Reservation, ReserveError};
use crate::sidecar::{Sidecar, SidecarOptions};

/// One of the replicas of a toy, whether it runs or not.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) service: Service,
    number: u8,
    port: Reservation,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    sidecar: Sidecar,
    /// `None` until the sidecar is ready.
    toy: Option<Toy>,
}

/// What a replica does at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaNow {
    pub(super) service: Service,
    /// Whether it runs.
    pub(super) up: bool,
    /// Requests it has answered since it was started.
    pub(super) served: u64,
}

impl Replica {
    /// One that does not run yet; its port is its own already.
    pub(super) fn new(service: Service, number: u8) -> Result<Replica, ReserveError> {
        Ok(Replica { service, number, port: Reservation::new(any())?, running: Mutex::default() })
    }

    /// Starts it: first the sidecar, then the toy, then it takes requests.
    pub(super) async fn start(&self, place: &Place) -> Result<(), MeshError> {
        let who = self.name();
        let log = format!("{who}.log");
        let mut running = self.running.lock().await;
        let sidecar = Sidecar::start(self.options(place, &log))
            .map_err(|source| MeshError::Setup { who: who.clone(), source })?;
        // In its place before anything is waited for, so that an end meanwhile finds it.
        let running = running.insert(Running { sidecar, toy: None });
        let ready = running.sidecar.ready(READY_TIMEOUT).await;
        ready.map_err(|source| place.not_ready(&who, &log, source))?;
        let sidecar = &running.sidecar;
        watch(who.clone(), sidecar.life(), place.events.clone());
        let environment = Environment {
            http_proxy: sidecar.outbound(),
            dependency: sidecar.dependencies().next().map(|(_, local)| local),
        };
        let listener = TcpListener::bind(self.port.address()).await;
        let listener = listener.map_err(|source| MeshError::Toy { replica: who, source })?;
        running.toy = Some(Toy::start(self.service, listener, environment, place.board.clone()));
        running.sidecar.serve();
        Ok(())
    }

    fn options(&self, place: &Place, log: &str) -> SidecarOptions {
        let dependency = self.service.dependency().map(|(service, port)| Dependency {
            service: service.name().to_owned(),
            namespace: None,
            port,
            local_port: None,
        });
        SidecarOptions {
            namespace: NAMESPACE.to_owned(),
            service: self.service.name().to_owned(),
            port: self.port.address().port(),
            app_protocol: self.service.protocol().to_owned(),
            advertise: Ipv4Addr::LOCALHOST.into(),
            dependencies: dependency.into_iter().collect(),
            labels: Default::default(),
            proxy: place.proxy_options(log),
        }
    }

    /// Ends it as if its machine had lost power.
    pub(super) async fn kill(&self) {
        if let Some(Running { sidecar, toy }) = self.running.lock().await.take() {
            drop(toy);
            sidecar.kill().await;
        }
    }

    /// Ends it in good order.
    pub(super) async fn stop(self) {
        if let Some(Running { sidecar, toy }) = self.running.into_inner() {
            sidecar.stop().await;
            drop(toy);
        }
    }

    /// Whether the registration is this replica's.
    pub(super) fn is(&self, registration: &Registration) -> bool {
        registration.service == self.service.name() && registration.port == self.port.address().port()
    }

    /// `orders-2`.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.service.name(), self.number)
    }

    /// What it does now. One that is being started or ended does not run.
    pub(super) fn now(&self) -> ReplicaNow {
        let running = self.running.try_lock();
        let toy = running.as_ref().ok().and_then(|running| running.as_ref()?.toy.as_ref());
        let served = toy.map(Toy::served);
        ReplicaNow { service: self.service, up: served.is_some(), served: served.unwrap_or_default() }
    }

    /// The admin listener of its proxy, if it runs.
    pub(super) async fn admin(&self) -> Option<SocketAddr> {
        self.running.lock().await.as_ref().map(|running| running.sidecar.admin())
    }
}
