//! The whole control plane as one value: [`Server::start`] binds and serves, [`Server::stop`] ends it and leaves
//! nothing behind. `ringway serve` and `ringway demo` are two ways to call it.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proto::ads::server::AggregatedDiscoveryServiceServer;
use proto::control::identity_server::IdentityServer;
use proto::control::proxy_server::ProxyServer;
use proto::control::registry_server::RegistryServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Router;

use crate::ads::server::AdsServer;
use crate::api;
use crate::ca::{AuthorityError, AuthoritySource, CurrentAuthority, GivenFiles};
use crate::caller::{Callers, Users};
use crate::files::{self, Readers};
use crate::host;
use crate::identity::IdentityService;
use crate::metrics::Metrics;
use crate::registry::{Registry, RegistryService};
use crate::report::{Proxies, ReportService};
use crate::source::file::{Directory, DirectoryError, LookNow};
use crate::store::{Store, StoreError};
use crate::transport::{self, Connection, TlsError, TlsIdentity};
use crate::world::World;
use crate::world_maker::WorldMaker;

/// How long a registration holds without a sign of life.
pub const LEASE: Duration = Duration::from_secs(10);

/// Largest message a client may send, in bytes: the versions of a large mesh after a reconnect.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection on which nothing came for this long is asked for a sign of life,
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
/// and closed if there is none for this long.
const KEEP_ALIVE_WAIT: Duration = Duration::from_secs(10);

/// The unix socket in the data directory that proxies and workloads of this machine connect to, where nobody says another.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Roots of the mesh in the data directory, in PEM.
pub(crate) const BUNDLE: &str = "bundle.pem";

/// How long [`Server::stop`] waits for streams and requests to end.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What a control plane is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of documents.
    pub config: PathBuf,
    /// The unix socket that proxies and workloads connect to; see [`CONTROL_SOCKET`].
    pub socket: PathBuf,
    /// Where other machines connect to, over TLS; nowhere if `None`.
    pub listen: Option<SocketAddr>,
    /// Where the API is served; loopback only.
    pub api: SocketAddr,
    /// What survives a restart; created if missing.
    pub data_dir: PathBuf,
    /// How long a registration holds without a sign of life; [`LEASE`] unless a test is in a hurry.
    pub lease: Duration,
    /// What the identities of the mesh begin with.
    pub trust_domain: String,
    /// How long the certificate of a workload is good for.
    pub svid_life: Duration,
    /// The authority that signs; without it there is one in `data_dir`.
    pub authority: Option<GivenFiles>,
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The documents cannot be read at all.
    #[error(transparent)]
    Config(#[from] DirectoryError),
    /// There is no store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other machines cannot be shown who this is.
    #[error("cannot make an identity for other machines")]
    Tls(#[from] TlsError),
    /// There is no certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Plain text may not leave the machine.
    #[error(
        "the API's address {address} is not loopback; until its users are authenticated nothing else is served"
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address} ({option})")]
    Bind {
        /// What says otherwise on the command line.
        option: &'static str,
        /// The address or path.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be created or used.
    #[error("cannot use the data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two control planes would overwrite each other's files.
    #[error("the data directory {path} belongs to another ringway that runs; --data-dir names another place")]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A running control plane. Dropping it ends it at once.
#[derive(Debug)]
pub struct Server {
    /// Removed at the end.
    socket: PathBuf,
    hosts: Option<SocketAddr>,
    api: SocketAddr,
    proxies: Arc<Proxies>,
    worlds: watch::Receiver<Arc<World>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Released when it is closed, however the process ends.
    _data_dir_lock: File,
}

impl Server {
    /// Reads the documents, binds both addresses and serves. Documents that are wrong are reported and the others
    /// serve; everything else that is wrong is an error here.
    pub async fn start(options: Options) -> Result<Server, StartError> {
        let Options { config, socket, listen, api, data_dir, lease, trust_domain, svid_life, authority } =
            options;
        check_loopback(api)?;
        let data_dir_lock = take_data_dir(&data_dir)?;
        let directory = Directory::open(&config, &data_dir.join("documents"))?;
        let authority = Arc::new(CurrentAuthority::open(AuthoritySource {
            given: authority,
            data_dir: data_dir.clone(),
            trust_domain: trust_domain.clone(),
            svid_life,
        })?);
        keep_bundle(&authority.get().bundle(), &data_dir)?;
        let store = Arc::new(Store::open(&data_dir)?);
        let bind =
            |source| StartError::Bind { option: "--socket", address: socket.display().to_string(), source };
        let workloads = listen_on(&socket).await.map_err(bind)?;
        let bind = |source| StartError::Bind { option: "--api", address: api.to_string(), source };
        let hosts = match listen {
            None => None,
            Some(address) => {
                let bind =
                    |source| StartError::Bind { option: "--listen", address: address.to_string(), source };
                let identity = TlsIdentity::new(authority.clone(), SystemTime::now())?;
                Some((TcpListener::bind(address).await.map_err(bind)?, Arc::new(identity)))
            }
        };
        // An address by which other machines come is one by which they reach workloads, too.
        if let Some(ip) = listen.map(|address| address.ip()).filter(|ip| !ip.is_unspecified()) {
            let kept = host::advertise(&data_dir, ip);
            kept.map_err(|source| StartError::DataDir { path: data_dir.clone(), source })?;
        }
        let hosts_address = hosts.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
        let api_listener = TcpListener::bind(api).await.map_err(bind)?;
        let api = api_listener.local_addr().map_err(bind)?;

        let metrics = Arc::new(Metrics::default());
        let proxies = Proxies::new(metrics.clone());
        let registry = Arc::new(Registry::open(data_dir.join("registrations"), lease, &trust_domain));
        let (look_now, looks) = LookNow::new();
        let (reads_sender, reads) = mpsc::channel(1);
        let (maker, world) =
            WorldMaker::start(directory.documents(), reads, registry.watch(), &data_dir, proxies.clone());
        let (sender, worlds) = watch::channel(Arc::new(world));
        let (stop, _) = watch::channel(false);

        let identity = IdentityService::new(authority.clone(), store.clone(), metrics.clone());
        let known = api::Api {
            worlds: worlds.clone(),
            proxies: proxies.clone(),
            registry,
            store,
            metrics,
            trust_domain: trust_domain.into(),
            look_now,
        };
        let returning_from = (!known.registry.is_restored()).then(|| Instant::now() + lease);
        let mut tasks = JoinSet::new();
        let router = router(&known, identity, returning_from);
        let workloads = UnixListenerStream::new(workloads).map(|accepted| accepted.map(Connection::Unix));
        let (accepted, remote) = mpsc::channel(1);
        if let Some((listener, identity)) = hosts {
            let accepting = transport::accept(listener, identity, known.metrics.clone(), accepted);
            tasks.spawn(until(stopped(&stop), accepting));
        }
        let connections = workloads.merge(ReceiverStream::new(remote));
        let served = router.serve_with_incoming_shutdown(connections, stopped(&stop));
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the xDS server ended");
            }
        });
        let (routes, ending) = (api::router(known.clone()), stopped(&stop));
        tasks.spawn(async move {
            // Binding was the only part that can fail.
            let _ = axum::serve(api_listener, routes).with_graceful_shutdown(ending).await;
        });
        // When it ends the worlds are closed, and with them every stream.
        tasks.spawn(until(stopped(&stop), maker.run(sender)));
        // Ends with the maker of worlds, which is the one who listens.
        tasks.spawn(directory.run(looks, reads_sender));
        tasks.spawn(known.registry.clone().keep(stopped(&stop)));
        tasks.spawn(until(stopped(&stop), authority.keep()));
        let (registry, forgetting) = (known.registry, known.proxies);
        tasks.spawn(until(stopped(&stop), async move {
            registry.expire(|instance| forgetting.forget_workload(instance)).await;
        }));
        Ok(Server {
            socket,
            hosts: hosts_address,
            api,
            proxies,
            worlds,
            stop,
            tasks,
            _data_dir_lock: data_dir_lock,
        })
    }

    /// The unix socket that proxies and workloads connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where other machines connect to; the port is the one that was bound.
    pub fn hosts(&self) -> Option<SocketAddr> {
        self.hosts
    }

    /// Where the API is; the port is the one that was bound.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// Every proxy and what is active in it.
    pub fn proxies(&self) -> &Arc<Proxies> {
        &self.proxies
    }

    /// The newest world, and every later one.
    pub fn worlds(&self) -> watch::Receiver<Arc<World>> {
        self.worlds.clone()
    }

    /// Ends every stream and request in good order. Proxies go on with what they have.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WAIT, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What proxies and workloads call. Identities are for others too, who show a token.
fn router(known: &api::Api, identity: IdentityService, returning_from: Option<Instant>) -> Router {
    let api::Api { worlds, proxies, registry, metrics, trust_domain, store, look_now: _ } = known.clone();
    let ads =
        AdsServer { worlds: worlds.clone(), proxies: proxies.clone(), metrics, trust_domain, returning_from };
    let ads = AggregatedDiscoveryServiceServer::new(ads).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let reports = ReportService::new(proxies.clone(), worlds.clone());
    let registrations = RegistryService::new(registry, worlds, proxies);
    let callers = Callers::new(Users::ours(), store);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WAIT))
        .add_service(InterceptedService::new(ads, callers.clone()))
        .add_service(IdentityServer::new(identity))
        .add_service(ProxyServer::with_interceptor(reports, callers.clone()))
        .add_service(RegistryServer::with_interceptor(registrations, callers))
}

async fn until(stopped: impl Future<Output = ()>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = stopped => {}
    }
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + 'static {
    let mut stop = stop.subscribe();
    async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

fn check_loopback(api: SocketAddr) -> Result<(), StartError> {
    match api.ip().to_canonical().is_loopback() {
        true => Ok(()),
        false => Err(StartError::NotLoopback { address: api }),
    }
}

/// Creates the directory if it is missing, and takes it for this process alone.
pub(crate) fn take_data_dir(path: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    let lock = File::create(path.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::DataDirInUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Writes down whom the mesh trusts: a token names one of them, and tools take it as it is.
fn keep_bundle(roots: &[Vec<u8>], data_dir: &Path) -> Result<(), StartError> {
    let pem = |root: &Vec<u8>| pem::encode(&pem::Pem::new("CERTIFICATE", root.clone()));
    let (path, content) = (data_dir.join(BUNDLE), roots.iter().map(pem).collect::<String>());
    let written = files::replace(&path, content.as_bytes(), Readers::Any);
    written.map_err(|source| StartError::DataDir { path: data_dir.to_owned(), source })
}

/// Listens on a unix socket that nobody else serves.
pub(crate) async fn listen_on(socket: &Path) -> io::Result<UnixListener> {
    remove_stale(socket).await?;
    UnixListener::bind(socket)
}

/// Removes a socket that an earlier process left behind; one that somebody serves is left alone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}
