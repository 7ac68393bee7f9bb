//! From the bootstrap file to a running proxy, or to one error and nothing.
//!
//! Everything that can fail fails before the first connection could be accepted.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use policy::{
    Rng,
    snapshot::{Named, Snapshot},
};
use runtime::{
    affinity,
    kernel::{Choice, Holdings, Probed, probe},
};
use tokio::sync::{mpsc, watch};
use translate::assemble::{Assembler, Options as AssemblerOptions, Update};

use super::{
    ControlThread, Inbox, care::Care, discovery, hosts, operator::CpuTimes, pace::Pace, plaintext::Known,
};
use crate::{
    admin,
    admission::{self, Admission},
    bootstrap::{AdminAddress, Bootstrap, Role},
    dns, drain,
    identity::{self, IdentityFile},
    memory::{Beside, Budget},
    report::Identity,
    state::{LastGood, StateFile},
    telemetry::{access_log::AccessLog, registry::Registry},
    worker::Outlets,
    workers::{self, Workers},
    xds::{
        Kind,
        outage::Outage,
        session::Session,
        sockets::Sockets,
        transport::{self, chain},
    },
};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bootstrap file, for errors and `/server_info`.
    pub config_path: String,
    /// How many workers, if not as the role says.
    pub workers: Option<usize>,
    /// Whether they are pinned, if not as the role says.
    pub pin: Option<bool>,
    /// Kernel interface of the workers.
    pub io: Choice,
    /// Where the last good configuration is kept; nowhere without.
    pub data_dir: Option<PathBuf>,
    /// Where exchanges are logged.
    pub access_log: Option<PathBuf>,
    /// How long connections may take to end.
    pub drain_timeout: Duration,
    /// Stop when standard input ends.
    pub exit_on_stdin_eof: bool,
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No runtime, no signals.
    #[error("cannot start the control thread")]
    Runtime(#[source] io::Error),
    /// `--io io_uring`, and it does not work.
    #[error("--io io_uring does not work here")]
    Driver(#[source] io::Error),
    /// The access log cannot be opened.
    #[error("cannot open the access log {}", path.display())]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The admin listener cannot be opened.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// A listener of the bootstrap file cannot have its address.
    #[error("{file}: listener `{name}`: {reason}")]
    Listener {
        /// The bootstrap file.
        file: String,
        /// The listener.
        name: String,
        /// Why.
        reason: String,
    },
    /// The workers do not run.
    #[error(transparent)]
    Workers(#[from] workers::StartError),
}

/// Runs the proxy until it is told to stop and has drained.
pub fn run(bootstrap: Bootstrap, options: &Options) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For getaddrinfo and the state file; both are rare.
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(StartError::Runtime)?;
    let result = runtime.block_on(async {
        let (control_thread, inbox) = start(bootstrap, options).await?;
        control_thread.run(inbox, options.drain_timeout).await;
        Ok(())
    });
    // A look-up may hang in the system's resolver; nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn start(bootstrap: Bootstrap, options: &Options) -> Result<(ControlThread, Inbox), StartError> {
    let started = Instant::now();
    let mut rng = Rng::new(random_seed());
    let workers_count = options.workers.unwrap_or_else(|| match bootstrap.role {
        Role::Sidecar => 1,
        Role::Gateway => affinity::worker_count(),
    });
    let driver = probe(options.io, workers_count).map_err(StartError::Driver)?;
    if let Some(reason) = &driver.fallback_reason {
        tracing::warn!(reason, "workers run on epoll");
    }
    let is_pinned = options.pin.unwrap_or(bootstrap.role == Role::Gateway);
    let access_log = open_access_log(options)?;
    let stop = drain::Stop::listen(options.exit_on_stdin_eof).map_err(StartError::Runtime)?;
    let (questions_in, questions) = admin::questions();
    let admin_address = open_admin(bootstrap.admin.as_ref(), questions_in).await?;

    let budget = Budget::find(bootstrap.overload.memory_bytes_max);
    let held_bytes_max = budget.as_ref().and_then(Budget::held_bytes_max);
    let mut sockets = Sockets::new(workers_count, held_bytes_max);
    let mut updates = static_resources(&bootstrap, &options.config_path, &mut sockets)?;
    let state_file = state_file(&bootstrap, options);
    let mut session = bootstrap.control_plane.as_ref().map(|_| new_session(&bootstrap));
    let assembler_options = AssemblerOptions { workers: workers_count, seed: rng.next_u64() };
    let last_good = read_last_good(state_file.as_ref());
    if let Some(session) = &mut session {
        let is_static = |kind, name: &str| updates.iter().any(|update| is_named(update, kind, name));
        let restored = restore(&last_good, session, &mut sockets, is_static);
        updates.extend(restored);
    }

    let mut registry = Registry::new(workers_count);
    let nothing = Arc::new(Snapshot {
        version: 0,
        listeners: Named::default(),
        route_tables: Named::default(),
        clusters: Named::default(),
        secrets: Named::default(),
    });
    let descriptors = admission::descriptors(workers_count);
    let admission = Arc::new(Admission::new(bootstrap.overload.connections_max, descriptors));
    let (wanted, hosts) = hosts::Inbox::new().map_err(StartError::Runtime)?;
    let holdings = budget
        .as_ref()
        .map(|budget| Holdings { provided_max: budget.provided_max(workers_count), held_bytes_max });
    let worker_options = workers::Options {
        driver: driver.driver,
        is_pinned,
        seed: rng.next_u64(),
        holdings,
        outlets: Outlets { access_log: access_log.clone(), wanted, admission: admission.clone() },
    };
    let budget = budget.map(|budget| (budget.clone(), Beside::begin(&budget, workers_count)));
    let workers = Workers::start(registry.bind(&nothing, &mut rng), &worker_options)?;
    tracing::info!(
        workers = workers.count(),
        io = driver.driver.name(),
        admin = admin_address,
        node = bootstrap.node.id,
        "started"
    );

    let (events, discovered) = mpsc::channel(1);
    if let Some(control_plane) = bootstrap.control_plane.clone() {
        tokio::spawn(transport::run(control_plane, Rng::new(rng.next_u64()), events));
    }
    let (issued, identities) = mpsc::channel(1);
    if let (Some(control_plane), Some(id)) = (bootstrap.control_plane.clone(), bootstrap.identity.clone()) {
        let file = options.data_dir.as_ref().map(|folder| IdentityFile::of(folder, &id));
        tokio::spawn(identity::run(control_plane, id, file, Rng::new(rng.next_u64()), issued));
    }
    let (resolver, names) = dns::Resolver::new();
    let identity = own_identity(&bootstrap, &driver, workers_count, admin_address);
    let mut control_thread = ControlThread {
        config_path: options.config_path.clone(),
        started,
        identity,
        driver,
        access_log,
        rng,
        assembler: Assembler::new(assembler_options),
        waiting: Vec::new(),
        pace: Pace::new(started),
        sockets,
        registry,
        workers,
        admission,
        resolver,
        hosts: hosts::Hosts::default(),
        snapshot: nothing,
        adoption: None,
        is_live: false,
        is_draining: false,
        session,
        identity_life: None,
        outage: Outage::new(started),
        requests: None,
        discovery: bootstrap.kinds.iter().map(|kind| (*kind, Default::default())).collect(),
        reports: None,
        active: watch::Sender::new(None),
        plaintext: Known::new(started),
        is_restored: !last_good.is_empty(),
        last_good,
        state_file,
        state_due: None,
        state_write: None,
        care: Care::new(workers_count, budget, started),
        cpu_times: CpuTimes::new(workers_count),
        bootstrap,
    };
    control_thread.take(updates);
    // A file without resources is a whole configuration, too.
    control_thread.when_settled();
    Ok((control_thread, Inbox { discovery: discovered, names, hosts, identities, questions, stop }))
}

/// The standard library seeds its hash maps from the system; the same source seeds everything random here.
fn random_seed() -> u64 {
    RandomState::new().hash_one(SystemTime::now())
}

fn open_access_log(options: &Options) -> Result<AccessLog, StartError> {
    match &options.access_log {
        None => Ok(AccessLog::off()),
        Some(path) => {
            AccessLog::start(path).map_err(|source| StartError::AccessLog { path: path.clone(), source })
        }
    }
}

/// Opens the admin listener; gives its address, empty if there is none.
async fn open_admin(
    address: Option<&AdminAddress>,
    questions: mpsc::Sender<admin::Question>,
) -> Result<String, StartError> {
    let Some(address) = address else { return Ok(String::new()) };
    let listener = admin::bind(address).await?;
    let address = listener.address.clone();
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, questions).await {
            tracing::error!(%error, "the admin listener broke");
        }
    });
    Ok(address)
}

fn static_resources(
    bootstrap: &Bootstrap,
    file: &str,
    sockets: &mut Sockets,
) -> Result<Vec<Update>, StartError> {
    let mut refused = Vec::new();
    let updates = discovery::reserve(sockets, bootstrap.resources.clone(), &[], &mut refused);
    match refused.into_iter().next() {
        None => Ok(updates),
        Some(refused) => {
            Err(StartError::Listener { file: file.to_owned(), name: refused.name, reason: refused.reason })
        }
    }
}

fn state_file(bootstrap: &Bootstrap, options: &Options) -> Option<StateFile> {
    bootstrap.control_plane.as_ref()?;
    match &options.data_dir {
        Some(data_dir) => Some(StateFile::of(data_dir, &bootstrap.node.cluster, &bootstrap.node.id)),
        None => {
            tracing::warn!("no --data-dir: without the control plane this proxy cannot start again");
            None
        }
    }
}

fn read_last_good(file: Option<&StateFile>) -> LastGood {
    match file.map(StateFile::read) {
        Some(Ok(Some(last_good))) => last_good,
        Some(Err(error)) => {
            tracing::warn!(error = chain(&error), "the last good configuration on disk is ignored");
            LastGood::default()
        }
        Some(Ok(None)) | None => LastGood::default(),
    }
}

fn new_session(bootstrap: &Bootstrap) -> Session {
    let mut node = bootstrap.node.clone();
    node.user_agent_name = "ringway-proxy".to_owned();
    node.user_agent_version_type =
        Some(proto::pb::envoy::config::core::v3::node::UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").to_owned(),
        ));
    let mut session = Session::new(node, bootstrap.kinds.iter().copied());
    for (kind, timeout) in &bootstrap.fetch_timeouts {
        session.limit_first(*kind, *timeout);
    }
    session
}

fn is_named(update: &Update, kind: Kind, name: &str) -> bool {
    match update {
        Update::Listener(listener) => kind == Kind::Listener && *listener.name == *name,
        Update::Cluster(cluster) => kind == Kind::Cluster && *cluster.name == *name,
        Update::Secret(secret) => kind == Kind::Secret && *secret.name == *name,
        _ => false,
    }
}

/// Judges what was accepted in an earlier life as if it came just now: this may be another version of the program, or
/// another process may have taken an address.
fn restore(
    last_good: &LastGood,
    session: &mut Session,
    sockets: &mut Sockets,
    is_static: impl Fn(Kind, &str) -> bool,
) -> Vec<Update> {
    let mut updates = Vec::new();
    for (kind, resource) in last_good.resources() {
        let one = std::slice::from_ref(resource);
        let judged = discovery::judge(kind, one, |name| is_static(kind, name));
        let mut refused = judged.refused;
        let accepted = discovery::reserve(sockets, judged.accepted, &[], &mut refused);
        if !accepted.is_empty() {
            session.remember(kind, &resource.name, &resource.version);
        }
        for refused in refused {
            let (name, reason) = (refused.name, refused.reason);
            tracing::warn!(
                kind = kind.word(),
                name,
                reason,
                "a resource of the last good configuration is ignored"
            );
        }
        updates.extend(accepted);
    }
    for (kind, revision) in last_good.revisions() {
        session.remember_answer(kind);
        updates.push(Update::Revision { type_url: kind.type_url(), revision: revision.to_owned() });
    }
    if !last_good.is_empty() {
        tracing::info!(
            resources = last_good.resources().count(),
            "starting from the last good configuration"
        );
    }
    updates
}

fn own_identity(bootstrap: &Bootstrap, driver: &Probed, workers: usize, admin: String) -> Identity {
    Identity {
        node_id: bootstrap.node.id.clone(),
        io_driver: driver.driver.name().to_owned(),
        io_driver_reason: driver.fallback_reason.clone().unwrap_or_default(),
        workers,
        started: SystemTime::now(),
        admin,
    }
}
