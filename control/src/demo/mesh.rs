//! The demo's mesh itself: control plane, gateway, two replicas of every toy with a sidecar each. Everything is a task
//! or a child of this process, on loopback, and what is written lies in one temporary folder.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::sync::{Mutex, mpsc};

use super::board::Board;
use super::folder::Folder;
use super::place::{MeshError, NAMESPACE, Place, READY_TIMEOUT, any, watch};
use super::replica::{Replica, ReplicaNow};
use super::toy::SERVICES;
use crate::ca::{SVID_LIFE_DEFAULT, TRUST_DOMAIN_DEFAULT};
use crate::report::{Status, SyncState};
use crate::server::{self, CONTROL_SOCKET, Server};
use crate::sidecar::control::ControlAddress;
use crate::sidecar::port::{Reservation, ReserveError};
use crate::sidecar::{GatewayOptions, Proxy, start_gateway};

/// Replicas of each toy.
const REPLICAS: u8 = 2;

/// Name of the Gateway in the documents.
const GATEWAY: &str = "front";
/// And of its proxy, in what is said and in the folder.
const WHO_GATEWAY: &str = "the gateway";
const GATEWAY_LOG: &str = "gateway.log";

/// How long a dead replica keeps its place in the mesh: short, so that a lesson fits into half a minute.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// Usual port of the API.
pub(super) const API_PORT: u16 = 15080;

const DOCUMENTS: &str = include_str!("shop.yaml");

/// Where to listen; `None` takes the usual port, or any if that is taken.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) api: Option<SocketAddr>,
    pub(super) gateway: Option<SocketAddr>,
    pub(super) socket: Option<PathBuf>,
    /// The usual one.
    pub(super) usual_socket: Option<PathBuf>,
}

/// The whole mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    options: server::Options,
    place: Place,
    server: Mutex<Option<Server>>,
    gateway: Proxy,
    gateway_port: Reservation,
    replicas: Vec<Replica>,
    _api_port: Reservation,
    /// Made for the socket.
    socket_folder: Option<PathBuf>,
    // Last: everything above may still write into it.
    _folder: Folder,
}

impl Mesh {
    /// Starts control plane and gateway; [`Self::ready`] does the rest.
    pub(super) async fn start(
        addresses: &Addresses,
        proxy: PathBuf,
        board: Arc<Board>,
        events: mpsc::UnboundedSender<String>,
    ) -> Result<Mesh, MeshError> {
        let folder = Folder::new().map_err(MeshError::Folder)?;
        let gateway_port = reserve(addresses.gateway, 8080)?;
        let api = reserve(addresses.api, API_PORT)?;
        let config = folder.path().join("mesh");
        let documents = DOCUMENTS.replace("GATEWAY_PORT", &gateway_port.address().port().to_string());
        fs::create_dir(&config)
            .and_then(|()| fs::write(config.join("shop.yaml"), documents))
            .map_err(MeshError::Folder)?;
        let data_dir = folder.path().join("control");
        let (socket, socket_folder) = socket(addresses, &data_dir);
        let options = server::Options {
            config,
            socket,
            listen: None,
            api: api.address(),
            data_dir,
            lease: LEASE,
            trust_domain: TRUST_DOMAIN_DEFAULT.to_owned(),
            svid_life: SVID_LIFE_DEFAULT,
            authority: None,
        };
        let control = ControlAddress::at(&options.socket).map_err(MeshError::Control)?;
        let server = Server::start(options.clone()).await?;

        let place = Place { control, proxy, folder: folder.path().to_owned(), board, events };
        let gateway = start_gateway(GatewayOptions {
            namespace: NAMESPACE.to_owned(),
            name: GATEWAY.to_owned(),
            bind: gateway_port.address().ip(),
            admin: any(),
            proxy: place.proxy_options(GATEWAY_LOG),
        })
        .map_err(|source| MeshError::Setup { who: WHO_GATEWAY.to_owned(), source })?;
        watch(WHO_GATEWAY.to_owned(), gateway.life(), place.events.clone());
        let mut replicas = Vec::new();
        for service in SERVICES {
            for number in 1..=REPLICAS {
                replicas.push(Replica::new(service, number)?);
            }
        }
        Ok(Mesh {
            options,
            place,
            server: Mutex::new(Some(server)),
            gateway,
            gateway_port,
            replicas,
            _api_port: api,
            socket_folder,
            _folder: folder,
        })
    }

    /// Until the gateway and every replica serve.
    pub(super) async fn ready(&self) -> Result<(), MeshError> {
        let gateway = async {
            let ready = self.gateway.ready(READY_TIMEOUT).await;
            ready.map_err(|source| self.place.not_ready(WHO_GATEWAY, GATEWAY_LOG, source))
        };
        let replicas = try_join_all(self.replicas.iter().map(|replica| replica.start(&self.place)));
        tokio::try_join!(gateway, replicas).map(drop)
    }

    /// Every replica.
    pub(super) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Where they are, and who else is there.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// What each replica does now.
    pub(super) fn replicas_now(&self) -> Vec<ReplicaNow> {
        self.replicas.iter().map(Replica::now).collect()
    }

    /// What the control plane knows of its proxies; `None` while there is none.
    pub(super) async fn status(&self) -> Option<Status> {
        self.server.lock().await.as_ref().map(|server| server.proxies().status(0))
    }

    /// Replicas that are registered and ready; `None` without a control plane.
    pub(super) async fn registered(&self) -> Option<usize> {
        let server = self.server.lock().await;
        let world = server.as_ref()?.worlds().borrow().clone();
        let ready = world.registrations.values().filter(|registration| registration.ready);
        // Others may have joined: `ringway run` finds this control plane by default.
        Some(ready.filter(|registration| self.replicas.iter().any(|it| it.is(registration))).count())
    }

    /// Proxies in which the newest configuration is active, and all that there should be or are; `None` without a
    /// control plane.
    pub(super) async fn in_sync(&self) -> Option<(usize, usize)> {
        let status = self.server.lock().await.as_ref().map(|server| server.proxies().status(0))?;
        let count =
            |wanted: fn(SyncState) -> bool| status.proxies.iter().filter(|row| wanted(row.state)).count();
        let synced = count(|state| state == SyncState::Synced);
        let here = count(|state| state != SyncState::Offline);
        Some((synced, here.max(1 + self.replicas_now().iter().filter(|replica| replica.up).count())))
    }

    /// Ends the control plane at once. False if there is none.
    pub(super) async fn kill_control_plane(&self) -> bool {
        match self.server.lock().await.take() {
            Some(server) => {
                drop(server);
                true
            }
            None => false,
        }
    }

    /// Starts the control plane again, where it was, with what it had written down.
    pub(super) async fn start_control_plane(&self) -> Result<(), MeshError> {
        let server = Server::start(self.options.clone()).await?;
        *self.server.lock().await = Some(server);
        Ok(())
    }

    /// Where the control plane is.
    pub(super) fn control(&self) -> &ControlAddress {
        &self.place.control
    }

    /// Where the API is.
    pub(super) fn api(&self) -> SocketAddr {
        self.options.api
    }

    /// Where the gateway takes requests.
    pub(super) fn gateway(&self) -> SocketAddr {
        self.gateway_port.address()
    }

    /// Ends everything; afterwards there is no process, port or file of it.
    pub(super) async fn stop(self) {
        let Mesh { replicas, gateway, server, socket_folder, .. } = self;
        // Callers first would be kinder to the last requests, but the load has stopped already.
        tokio::join!(join_all(replicas.into_iter().map(Replica::stop)), gateway.stop());
        if let Some(server) = server.into_inner() {
            server.stop().await;
        }
        // Unless somebody has put something into it.
        let _ = socket_folder.map(fs::remove_dir);
    }
}

fn reserve(wanted: Option<SocketAddr>, usual: u16) -> Result<Reservation, ReserveError> {
    match wanted {
        Some(address) => Reservation::new(address),
        None => Reservation::prefer(SocketAddr::new(any().ip(), usual)),
    }
}

/// Where the control plane listens, and the folder that was made for that.
fn socket(addresses: &Addresses, data_dir: &Path) -> (PathBuf, Option<PathBuf>) {
    if let Some(wanted) = &addresses.socket {
        return (wanted.clone(), None);
    }
    let own = (data_dir.join(CONTROL_SOCKET), None);
    let Some((usual, folder)) =
        addresses.usual_socket.as_ref().and_then(|usual| usual.parent().map(|of| (usual, of)))
    else {
        return own;
    };
    let is_new = !folder.exists();
    match fs::create_dir_all(folder).is_ok() && UnixStream::connect(usual).is_err() {
        true => (usual.clone(), is_new.then(|| folder.to_owned())),
        false => own,
    }
}
