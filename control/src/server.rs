//! The whole control plane as one value: [`Server::start`] binds and serves, [`Server::stop`] ends it and leaves
//! nothing behind. `ringway serve` and `ringway demo` are two ways to call it.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::ads::server::AggregatedDiscoveryServiceServer;
use proto::control::identity_server::IdentityServer;
use proto::control::proxy_server::ProxyServer;
use proto::control::registry_server::RegistryServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::Router;

use crate::address;
use crate::ads::server::AdsServer;
use crate::api;
use crate::ca::{Authority, AuthorityError, GivenFiles};
use crate::identity::IdentityService;
use crate::metrics::Metrics;
use crate::registry::{Registry, RegistryService};
use crate::report::{Proxies, ReportService};
use crate::source::file::{Directory, DirectoryError, LookNow};
use crate::store::{Store, StoreError};
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

/// The unix socket under the data directory that proxies and hosts of this machine are served on, beside `listen`.
pub const CONTROL_SOCKET: &str = "control.sock";

/// How long [`Server::stop`] waits for streams and requests to end.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// What a control plane is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of documents.
    pub config: PathBuf,
    /// Where proxies and workloads connect.
    pub listen: Listen,
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

/// Where proxies and workloads connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Loopback only, until peers are authenticated.
    Tcp(SocketAddr),
    /// Guarded by its file permissions.
    Unix(PathBuf),
}

/// Why a text is not a [`Listen`].
#[derive(Debug, thiserror::Error)]
#[error("expected IP:PORT, localhost:PORT or unix:PATH")]
pub struct ListenError;

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The documents cannot be read at all.
    #[error(transparent)]
    Config(#[from] DirectoryError),
    /// There is no store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Plain text may not leave the machine.
    #[error("{what} address {address} is not loopback; until peers are authenticated nothing else is served")]
    NotLoopback {
        /// `listen` or `api`.
        what: &'static str,
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
    #[error(
        "the data directory {path} belongs to another control plane that runs; --data-dir names another place"
    )]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
    },
}

/// A running control plane. Dropping it ends it at once.
#[derive(Debug)]
pub struct Server {
    listen: Listen,
    /// Removed at the end.
    sockets: Vec<PathBuf>,
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
        let Options { config, listen, api, data_dir, lease, trust_domain, svid_life, authority } = options;
        if let Listen::Tcp(address) = &listen {
            check_loopback("listen", *address)?;
        }
        check_loopback("api", api)?;
        let directory = Directory::open(&config)?;
        let data_dir_lock = take_data_dir(&data_dir)?;
        let authority = Arc::new(match &authority {
            Some(files) => Authority::given(files, &trust_domain, svid_life)?,
            None => Authority::open(&data_dir, &trust_domain, svid_life)?,
        });
        let store = Arc::new(Store::open(&data_dir)?);
        let (incoming, listen) = Incoming::bind(listen, "--listen").await?;
        let socket = Listen::Unix(data_dir.join(CONTROL_SOCKET));
        let mut incomings = vec![incoming];
        if socket != listen {
            incomings.push(Incoming::bind(socket.clone(), "--data-dir").await?.0);
        }
        let sockets = [&socket, &listen].into_iter().filter_map(Listen::path).collect();
        let bind = |source| StartError::Bind { option: "--api", address: api.to_string(), source };
        let api_listener = TcpListener::bind(api).await.map_err(bind)?;
        let api = api_listener.local_addr().map_err(bind)?;

        let metrics = Arc::new(Metrics::default());
        let proxies = Proxies::new(metrics.clone());
        let registry = Arc::new(Registry::open(data_dir.join("registrations"), lease));
        let (look_now, looks) = LookNow::new();
        let (reads_sender, reads) = mpsc::channel(1);
        let (maker, world) =
            WorldMaker::start(directory.documents(), reads, registry.watch(), &data_dir, proxies.clone());
        let (sender, worlds) = watch::channel(Arc::new(world));
        let (stop, _) = watch::channel(false);

        let identity = IdentityService::new(authority, store.clone(), metrics.clone());
        let known =
            api::Api { worlds: worlds.clone(), proxies: proxies.clone(), registry, store, metrics, look_now };
        let returning_from = (!known.registry.is_restored()).then(|| Instant::now() + lease);
        let mut tasks = JoinSet::new();
        for incoming in incomings {
            tasks.spawn(incoming.serve(router(&known, identity.clone(), returning_from), stopped(&stop)));
        }
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
        let (registry, forgetting) = (known.registry, known.proxies);
        tasks.spawn(until(stopped(&stop), async move {
            registry.expire(|instance| forgetting.forget_workload(instance)).await;
        }));
        Ok(Server { listen, sockets, api, proxies, worlds, stop, tasks, _data_dir_lock: data_dir_lock })
    }

    /// Where proxies and workloads connect; the port is the one that was bound.
    pub fn listen(&self) -> &Listen {
        &self.listen
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
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// What proxies and workloads connect to.
fn router(known: &api::Api, identity: IdentityService, returning_from: Option<Instant>) -> Router {
    let api::Api { worlds, proxies, registry, metrics, store: _, look_now: _ } = known.clone();
    let ads = AdsServer { worlds: worlds.clone(), proxies: proxies.clone(), metrics, returning_from };
    let ads = AggregatedDiscoveryServiceServer::new(ads).max_decoding_message_size(MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WAIT))
        .tcp_nodelay(true)
        .add_service(ads)
        .add_service(IdentityServer::new(identity))
        .add_service(ProxyServer::new(ReportService::new(proxies.clone(), worlds.clone())))
        .add_service(RegistryServer::new(RegistryService::new(registry, worlds, proxies)))
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

fn check_loopback(what: &'static str, address: SocketAddr) -> Result<(), StartError> {
    if address.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(StartError::NotLoopback { what, address })
    }
}

/// Creates the directory if it is missing, and takes it for this control plane alone.
fn take_data_dir(path: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(failed)?;
    let lock = File::create(path.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::DataDirInUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A bound address.
enum Incoming {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Incoming {
    async fn bind(listen: Listen, option: &'static str) -> Result<(Incoming, Listen), StartError> {
        let failed = |source| StartError::Bind { option, address: listen.to_string(), source };
        match &listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok((Incoming::Tcp(listener), Listen::Tcp(address)))
            }
            Listen::Unix(path) => {
                remove_stale(path).await.map_err(failed)?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                Ok((Incoming::Unix(listener), listen))
            }
        }
    }

    async fn serve(self, router: Router, stopped: impl Future<Output = ()>) {
        let served = match self {
            Incoming::Tcp(listener) => {
                router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped).await
            }
            Incoming::Unix(listener) => {
                router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped).await
            }
        };
        if let Err(error) = served {
            tracing::error!(%error, "the xDS server ended");
        }
    }
}

/// Removes a socket that an earlier process left behind; one that somebody serves is left alone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

impl Listen {
    /// The file of a unix socket.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Listen::Tcp(_) => None,
            Listen::Unix(path) => Some(path.clone()),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Listen, ListenError> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Listen::Unix(path.into()));
        }
        address::parse(text).map(Listen::Tcp).map_err(|_| ListenError)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
