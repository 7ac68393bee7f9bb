//! The demo's mesh itself: control plane, gateway, two replicas of every toy with a sidecar each. Everything is a task
//! or a child of this process, on loopback, and what is written lies in one temporary folder.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};

use super::board::Board;
use super::toy::{Environment, SERVICES, Service, Toy};
use crate::report::{Status, SyncState};
use crate::server::{self, Listen, Server};
use crate::sidecar::control::ControlAddress;
use crate::sidecar::environment::Dependency;
use crate::sidecar::port::{Reservation, ReserveError};
use crate::sidecar::process::{Life, Output};
use crate::sidecar::{Gateway, GatewayOptions, SetupError, Sidecar, SidecarOptions, StartError};

/// Replicas of each toy.
const REPLICAS: u8 = 2;

/// Namespace of everything, so that `ringway run` without more joins the same mesh.
const NAMESPACE: &str = "default";

/// Name of the Gateway in the documents.
const GATEWAY: &str = "front";

/// Longest wait until a proxy serves; a cold machine is slow.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a dead replica keeps its place in the mesh: short, so that a lesson fits into half a minute.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// How long proxies may finish at the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Usual port of the API.
pub(super) const API_PORT: u16 = 15080;

/// Name of the temporary folder, before its random part, and of the file in it that is locked while it is used.
const FOLDER_PREFIX: &str = "ringway-demo-";
const LOCK: &str = "lock";

const DOCUMENTS: &str = include_str!("shop.yaml");

/// Where to listen; `None` takes the usual port, or any if that is taken.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) api: Option<SocketAddr>,
    pub(super) gateway: Option<SocketAddr>,
}

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The temporary folder cannot be used.
    #[error("cannot write the demo's files")]
    Folder(#[source] io::Error),
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] ReserveError),
    /// No control plane.
    #[error("the control plane did not start")]
    Server(#[from] server::StartError),
    /// A toy cannot listen.
    #[error("{replica} cannot listen")]
    Toy {
        /// Which.
        replica: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A proxy cannot be started.
    #[error("the proxy of {who} cannot be started")]
    Setup {
        /// Whose.
        who: String,
        /// Why.
        #[source]
        source: SetupError,
    },
    /// A proxy does not become ready.
    #[error("the proxy of {who} did not start; the last it said: {said}")]
    Start {
        /// Whose.
        who: String,
        /// The end of its log.
        said: String,
        /// Why.
        #[source]
        source: StartError,
    },
}

/// The whole mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    options: server::Options,
    control: ControlAddress,
    proxy: PathBuf,
    board: Arc<Board>,
    /// Takes what happens to proxies.
    events: mpsc::UnboundedSender<String>,
    server: Mutex<Option<Server>>,
    gateway: Gateway,
    gateway_port: Reservation,
    replicas: Vec<Replica>,
    _control_ports: [Reservation; 2],
    /// Says that the folder is in use.
    _lock: File,
    // Last: everything above may still write into it.
    folder: TempDir,
}

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
    toy: Toy,
}

/// A line of the view's table of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaNow {
    pub(super) service: Service,
    /// Whether it runs.
    pub(super) up: bool,
    /// Requests it has answered since it was started.
    pub(super) served: u64,
}

impl Mesh {
    /// Starts everything and waits until every proxy serves and every replica is registered.
    pub(super) async fn start(
        addresses: &Addresses,
        proxy: PathBuf,
        board: Arc<Board>,
        events: mpsc::UnboundedSender<String>,
    ) -> Result<Mesh, MeshError> {
        let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir().map_err(MeshError::Folder)?;
        let lock = lock(folder.path()).map_err(MeshError::Folder)?;
        let gateway_port = reserve(addresses.gateway, 8080)?;
        let api = reserve(addresses.api, API_PORT)?;
        let listen = reserve(None, 15010)?;
        let config = folder.path().join("mesh");
        let documents = DOCUMENTS.replace("GATEWAY_PORT", &gateway_port.address().port().to_string());
        fs::create_dir(&config)
            .and_then(|()| fs::write(config.join("shop.yaml"), documents))
            .map_err(MeshError::Folder)?;
        let options = server::Options {
            config,
            listen: Listen::Tcp(listen.address()),
            api: api.address(),
            data_dir: folder.path().join("control"),
            lease: LEASE,
        };
        let server = Server::start(options.clone()).await?;
        let control = ControlAddress::Tcp(listen.address());

        let who = "the gateway".to_owned();
        let gateway = Gateway::start(GatewayOptions {
            namespace: NAMESPACE.to_owned(),
            name: GATEWAY.to_owned(),
            bind: gateway_port.address().ip(),
            admin: any(),
            control: control.clone(),
            proxy: proxy.clone(),
            arguments: Vec::new(),
            data_dir: folder.path().to_owned(),
            output: Output::File(folder.path().join("gateway.log")),
        })
        .map_err(|source| MeshError::Setup { who: who.clone(), source })?;
        watch(who.clone(), gateway.life(), events.clone());
        let mut replicas = Vec::new();
        for service in SERVICES {
            for number in 1..=REPLICAS {
                let port = Reservation::new(any())?;
                replicas.push(Replica { service, number, port, running: Mutex::default() });
            }
        }
        let mesh = Mesh {
            options,
            control,
            proxy,
            board,
            events,
            server: Mutex::new(Some(server)),
            gateway,
            gateway_port,
            replicas,
            _control_ports: [api, listen],
            _lock: lock,
            folder,
        };
        let gateway_ready = async {
            let ready = mesh.gateway.ready(READY_TIMEOUT).await;
            ready.map_err(|source| MeshError::Start { who, said: mesh.last_words("gateway"), source })
        };
        let replicas_ready = try_join_all(mesh.replicas.iter().map(|replica| mesh.start_replica(replica)));
        if let Err(error) = tokio::try_join!(gateway_ready, replicas_ready) {
            mesh.stop().await;
            return Err(error);
        }
        Ok(mesh)
    }

    /// Starts a replica that does not run, as `ringway run` would.
    pub(super) async fn start_replica(&self, replica: &Replica) -> Result<(), MeshError> {
        let who = replica.name();
        let ledger = Dependency {
            service: Service::Ledger.name().to_owned(),
            namespace: None,
            port: 7000,
            local_port: None,
        };
        let sidecar = Sidecar::start(SidecarOptions {
            namespace: NAMESPACE.to_owned(),
            service: replica.service.name().to_owned(),
            port: replica.port.address().port(),
            app_protocol: replica.service.protocol().to_owned(),
            advertise: Ipv4Addr::LOCALHOST.into(),
            dependencies: if replica.service == Service::Pay { vec![ledger] } else { Vec::new() },
            labels: Default::default(),
            control: self.control.clone(),
            proxy: self.proxy.clone(),
            arguments: Vec::new(),
            data_dir: self.folder.path().to_owned(),
            output: Output::File(self.folder.path().join(format!("{who}.log"))),
        })
        .map_err(|source| MeshError::Setup { who: who.clone(), source })?;
        if let Err(source) = sidecar.ready(READY_TIMEOUT).await {
            sidecar.stop(Duration::ZERO).await;
            return Err(MeshError::Start { said: self.last_words(&who), who, source });
        }
        let environment = Environment {
            http_proxy: sidecar.outbound(),
            ledger: sidecar.dependencies().next().map(|(_, local)| local),
        };
        let listener = TcpListener::bind(replica.port.address()).await;
        let listener = listener.map_err(|source| MeshError::Toy { replica: who, source })?;
        let toy = Toy::start(replica.service, listener, environment, self.board.clone());
        sidecar.serve();
        watch(replica.name(), sidecar.life(), self.events.clone());
        *replica.running.lock().await = Some(Running { sidecar, toy });
        Ok(())
    }

    /// Ends a replica as if its machine had lost power.
    pub(super) async fn kill_replica(&self, replica: &Replica) {
        if let Some(Running { sidecar, toy }) = replica.running.lock().await.take() {
            drop(toy);
            sidecar.kill().await;
        }
    }

    /// Every replica.
    pub(super) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// What each replica does now.
    pub(super) async fn replicas_now(&self) -> Vec<ReplicaNow> {
        join_all(self.replicas.iter().map(|replica| async {
            let running = replica.running.lock().await;
            let served = running.as_ref().map(|running| running.toy.served());
            ReplicaNow { service: replica.service, up: served.is_some(), served: served.unwrap_or_default() }
        }))
        .await
    }

    /// The admin listeners of the proxies beside a toy.
    pub(super) async fn admins_of(&self, service: Service) -> Vec<SocketAddr> {
        let mut admins = Vec::new();
        for replica in self.replicas.iter().filter(|replica| replica.service == service) {
            admins.extend(replica.running.lock().await.as_ref().map(|running| running.sidecar.admin()));
        }
        admins
    }

    /// What the control plane knows of its proxies; `None` while there is none.
    pub(super) async fn status(&self) -> Option<Status> {
        self.server.lock().await.as_ref().map(|server| server.proxies().status(0))
    }

    /// Replicas that are registered and ready; `None` without a control plane.
    pub(super) async fn registered(&self) -> Option<usize> {
        let server = self.server.lock().await;
        let world = server.as_ref()?.worlds().borrow().clone();
        Some(world.registrations.values().filter(|registration| registration.ready).count())
    }

    /// How many proxies there should be.
    pub(super) async fn proxies_count(&self) -> usize {
        1 + self.replicas_now().await.iter().filter(|replica| replica.up).count()
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
        let Mesh { replicas, gateway, server, .. } = self;
        // Callers first would be kinder to the last requests, but the load has stopped already.
        let replicas = replicas.into_iter().map(|replica| async move {
            if let Some(Running { sidecar, toy }) = replica.running.into_inner() {
                sidecar.stop(DRAIN).await;
                drop(toy);
            }
        });
        tokio::join!(join_all(replicas), gateway.stop(DRAIN));
        if let Some(server) = server.into_inner() {
            server.stop().await;
        }
    }

    /// The end of what a proxy has said.
    fn last_words(&self, who: &str) -> String {
        let log = fs::read_to_string(self.folder.path().join(format!("{who}.log"))).unwrap_or_default();
        log.lines().next_back().unwrap_or("nothing").to_owned()
    }
}

impl Replica {
    /// `orders-2`.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.service.name(), self.number)
    }

    /// Requests it has answered since it was started; `None` while it does not run.
    pub(super) async fn served(&self) -> Option<u64> {
        self.running.lock().await.as_ref().map(|running| running.toy.served())
    }
}

/// Proxies in which the newest configuration is active.
pub(super) fn in_sync_count(status: &Status) -> usize {
    status.proxies.iter().filter(|row| row.state == SyncState::Synced).count()
}

/// Removes the folders of demos that were killed.
pub(super) fn sweep() {
    // What cannot be read or removed is another user's, or gone.
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER_PREFIX));
        let unused = || File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if ours && unused() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn lock(folder: &Path) -> io::Result<File> {
    let lock = File::create(folder.join(LOCK))?;
    lock.try_lock()?;
    Ok(lock)
}

/// Says when a proxy dies and when it is back.
fn watch(who: String, mut life: watch::Receiver<Life>, events: mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        let mut died = false;
        while life.changed().await.is_ok() {
            let event = match &*life.borrow_and_update() {
                Life::Down { why, .. } => {
                    died = true;
                    format!("the proxy of {who} {why}")
                }
                Life::Ready { after, .. } if died => {
                    format!("the proxy of {who} is back, {} ms after its start", after.as_millis())
                }
                Life::Ready { .. } | Life::Starting { .. } | Life::Failed { .. } | Life::Stopped => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
}

fn any() -> SocketAddr {
    SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), 0)
}

fn reserve(wanted: Option<SocketAddr>, usual: u16) -> Result<Reservation, ReserveError> {
    match wanted {
        Some(address) => Reservation::new(address),
        None => Reservation::prefer(SocketAddr::new(any().ip(), usual)),
    }
}
