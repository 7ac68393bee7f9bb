//! Which proxies there are, what each should have and what is active in it: the answer to "is the newest revision
//! active everywhere?".
//!
//! [`Proxies`] is told by the ADS streams what a proxy should have and has accepted, and by the proxies' own reports
//! (`service`) what serves. A proxy that reports is judged by its report; one that cannot, Envoy, by its ACKs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use proto::control::{ActiveType, Hello};
use serde::{Deserialize, Serialize};

use crate::ads::session::Refused;
use crate::ads::view::{ResourceType, View};
use crate::compile::Client;
use crate::metrics::Metrics;

mod service;

pub use service::ReportService;

/// How long a proxy that went away without a word is shown as offline. Its last good configuration serves as long
/// as it lives; after this time it more likely does not.
pub const OFFLINE_KEPT: Duration = Duration::from_secs(600);

/// Proxies that are remembered while they are offline; above it the longest gone is forgotten.
const OFFLINE_COUNT_MAX: usize = 10_000;

/// Every proxy, connected or lately so.
#[derive(Debug)]
pub struct Proxies {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest world, whether its views have reached the streams or not.
    sequence: u64,
    revision: Arc<str>,
    revision_since: Option<SystemTime>,
    /// Proxies that have served this revision at some time: before all have, it is not looked at each of them.
    reached: usize,
    /// The last revision that was said to be active everywhere.
    announced: Arc<str>,
    by_node: BTreeMap<Arc<str>, Proxy>,
    /// By node, too: a report may come before the ADS stream it belongs to, and outlive it.
    reports: BTreeMap<String, Reported>,
    next_stream: u64,
}

#[derive(Debug)]
struct Proxy {
    client: Arc<Client>,
    agent: UserAgent,
    /// The ADS stream that is open.
    stream: Option<u64>,
    gone_since: Option<Instant>,
    wanted: Wanted,
    accepted: Accepted,
    /// The last revision of which everything was active.
    active_revision: Arc<str>,
    active_since: Option<SystemTime>,
    /// When the change was noticed that this proxy does not serve yet.
    behind_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Wanted {
    sequence: u64,
    revision: Arc<str>,
    hashes: [String; 4],
}

/// What the ADS stream saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The client has taken everything of the view that it asked for.
    pub settled: bool,
    /// What it refused.
    pub refused: Vec<Refused>,
}

/// What a proxy said of itself.
#[derive(Debug)]
struct Reported {
    stream: u64,
    hello: Hello,
    types: Vec<ActiveType>,
    snapshot: u64,
}

/// Which program a client is, by `node.user_agent_name` and its version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserAgent {
    /// `envoy`, `ringway-proxy`, …
    pub name: String,
    /// As the program writes it.
    pub version: String,
}

impl UserAgent {
    /// Envoy wants the endpoints of a cluster again after every update of that cluster.
    pub fn is_envoy(&self) -> bool {
        self.name == "envoy"
    }

    /// Ours say what is active; until they did, they are not synced.
    fn reports(&self) -> bool {
        self.name.starts_with("ringway")
    }
}

/// An open report stream.
#[derive(Debug)]
pub struct Reporting {
    proxies: Arc<Proxies>,
    node: String,
    stream: u64,
}

/// An open ADS stream; when it is dropped, the proxy is offline.
#[derive(Debug)]
pub struct Connected {
    proxies: Arc<Proxies>,
    node: Arc<str>,
    stream: u64,
}

/// Whether a proxy has what it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// The newest configuration is active.
    Synced,
    /// It is on its way.
    Pending,
    /// The proxy refused some of it; the last good version of that serves.
    Nack,
    /// The proxy is not connected; its last configuration serves if it lives.
    Offline,
}

/// `/api/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The newest revision.
    pub revision: String,
    /// Milliseconds since it began.
    pub revision_age_ms: u64,
    /// Whether it is active in every proxy.
    pub synced: bool,
    /// Documents that could not be used.
    pub document_errors: usize,
    /// One row per proxy, by app and node.
    pub proxies: Vec<ProxyRow>,
}

/// One proxy in [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProxyRow {
    /// Node id: unique per process.
    pub node: String,
    /// `namespace/service` of a sidecar, `namespace/name` of a gateway.
    pub app: String,
    /// `sidecar` or `gateway`.
    pub role: String,
    /// Name of the machine; empty if the proxy does not report.
    pub host: String,
    /// Version of the proxy: as it reports it, else what its user agent says.
    pub version: String,
    /// Synced, pending, nack or offline.
    pub state: SyncState,
    /// The revision it should have.
    pub revision_wanted: String,
    /// The last revision that was wholly active; empty if none was.
    pub revision_active: String,
    /// Milliseconds since that became active; 0 if none was.
    pub active_age_ms: u64,
    /// `io_uring` or `epoll`; empty if the proxy does not report.
    pub io_driver: String,
    /// Why it is not `io_uring`; empty if it is.
    pub io_driver_reason: String,
    /// Threads that carry traffic; 0 if the proxy does not report.
    pub workers: u32,
    /// The proxy's own count of adopted configurations.
    pub snapshot: u64,
    /// Resources accepted and not active yet, because something they refer to is not known.
    pub warming: u32,
    /// Address of its admin listener; empty if none.
    pub admin: String,
    /// When the process started, milliseconds since the Unix epoch; 0 if the proxy does not report.
    pub started_unix_ms: i64,
    /// What it refused.
    pub refused: Vec<RefusedRow>,
}

/// A refused resource in [`ProxyRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedRow {
    /// `cds`, `eds`, `lds` or `rds`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the resource.
    pub name: String,
    /// Version that was refused.
    pub version: String,
    /// The proxy's own words.
    pub reason: String,
}

impl Proxies {
    /// No proxies yet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Proxies> {
        Arc::new(Proxies { state: Mutex::default(), metrics })
    }

    /// There is a new world: no proxy counts as synced before its stream has compared it.
    pub fn announce(&self, sequence: u64, revision: &Arc<str>, revision_since: SystemTime) {
        let mut state = self.lock();
        state.sequence = sequence;
        if state.revision != *revision {
            state.reached = 0;
        }
        state.revision = revision.clone();
        state.revision_since = Some(revision_since);
    }

    /// An ADS stream opened. A second one of the same node takes over.
    pub fn connect(self: &Arc<Self>, node: &str, client: Arc<Client>, agent: UserAgent) -> Connected {
        let mut state = self.lock();
        let stream = state.next_stream;
        state.next_stream += 1;
        let node: Arc<str> = node.into();
        let before = state.by_node.remove(&node);
        if before.as_ref().is_some_and(|proxy| proxy.stream.is_some()) {
            tracing::warn!(%node, "a second stream of the same node took over");
        }
        let mut proxy = before.unwrap_or_else(|| Proxy::new(client.clone()));
        (proxy.client, proxy.agent) = (client, agent);
        (proxy.stream, proxy.gone_since) = (Some(stream), None);
        (proxy.wanted, proxy.accepted) = (Wanted::default(), Accepted::default());
        state.by_node.insert(node.clone(), proxy);
        Connected { proxies: self.clone(), node, stream }
    }

    /// A proxy said who it is.
    pub fn hello(self: &Arc<Self>, hello: Hello) -> Reporting {
        let mut state = self.lock();
        let (node, stream) = (hello.node_id.clone(), state.next_stream);
        state.next_stream += 1;
        state.reports.insert(node.clone(), Reported { stream, hello, types: Vec::new(), snapshot: 0 });
        Reporting { proxies: self.clone(), node, stream }
    }

    /// The workload said goodbye, or its lease ended: its proxy is not expected back.
    pub fn forget_workload(&self, instance: &str) {
        let mut state = self.lock();
        state.by_node.retain(|_, proxy| {
            let its =
                matches!(proxy.client.as_ref(), Client::Sidecar(sidecar) if sidecar.instance == instance);
            !its || proxy.stream.is_some()
        });
        state.forget_long_gone();
    }

    /// Everything, for the API; how many documents could not be used is passed through.
    pub fn status(&self, document_errors: usize) -> Status {
        let mut state = self.lock();
        state.forget_long_gone();
        let state = &*state;
        let mut proxies: Vec<_> = state.by_node.iter().map(|(node, proxy)| proxy.row(node, state)).collect();
        proxies.sort_by(|a, b| (&a.app, &a.node).cmp(&(&b.app, &b.node)));
        Status {
            revision: state.revision.to_string(),
            revision_age_ms: age_ms(state.revision_since),
            synced: proxies.iter().all(|proxy| proxy.state == SyncState::Synced),
            document_errors,
            proxies,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is a few plain assignments; a panic in between leaves nothing that is worse than old.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called whenever something about one proxy changed: notices when it, and when all, became synced.
    fn judge(&self, state: &mut State, node: &str) {
        let State { sequence, revision, by_node, reports, .. } = state;
        let is_synced =
            |node: &str, proxy: &Proxy| proxy.state(*sequence, reports.get(node)) == SyncState::Synced;
        let Some(proxy) = by_node.get_mut(node).filter(|proxy| is_synced(node, proxy)) else { return };
        if proxy.active_revision != *revision {
            proxy.active_revision = revision.clone();
            proxy.active_since = Some(SystemTime::now());
            state.reached += 1;
        }
        if let Some(since) = proxy.behind_since.take() {
            self.metrics.apply_to_active.observe(since.elapsed());
        }
        if state.announced == *revision || state.reached < by_node.len() {
            return;
        }
        let all = by_node.iter().all(|(node, proxy)| is_synced(node, proxy));
        if all {
            state.announced = revision.clone();
            let after_ms = age_ms(state.revision_since);
            tracing::info!(%revision, proxies = by_node.len(), after_ms, "active everywhere");
        }
    }
}

impl State {
    fn forget_long_gone(&mut self) {
        self.by_node.retain(|_, proxy| proxy.gone_since.is_none_or(|gone| gone.elapsed() < OFFLINE_KEPT));
        let mut gone: Vec<_> =
            self.by_node.iter().filter_map(|(node, proxy)| Some((proxy.gone_since?, node.clone()))).collect();
        gone.sort();
        let excess = gone.len().saturating_sub(OFFLINE_COUNT_MAX);
        for (_, node) in gone.into_iter().take(excess) {
            self.by_node.remove(&node);
        }
        // A report whose stream ended is kept for its offline proxy only.
        let State { by_node, reports, .. } = self;
        reports.retain(|node, report| report.stream != ENDED || by_node.contains_key(node.as_str()));
    }
}

/// Instead of the number of a report stream: it is over.
const ENDED: u64 = u64::MAX;

impl Reporting {
    /// A proxy said what is active in it.
    pub fn active(&self, types: Vec<ActiveType>, snapshot: u64) {
        let mut state = self.proxies.lock();
        if let Some(report) = state.reports.get_mut(&self.node).filter(|report| report.stream == self.stream)
        {
            (report.types, report.snapshot) = (types, snapshot);
            self.proxies.judge(&mut state, &self.node);
        }
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        let mut state = self.proxies.lock();
        if let Some(report) = state.reports.get_mut(&self.node).filter(|report| report.stream == self.stream)
        {
            report.stream = ENDED;
            state.forget_long_gone();
        }
    }
}

impl Connected {
    /// The stream compared world `sequence`: the proxy should have `view` from now on. `noticed` is when the change
    /// was, if it concerns this proxy.
    pub fn want(&self, sequence: u64, view: &View, noticed: Option<Instant>) {
        self.update(|proxy| {
            let hashes = ResourceType::ALL.map(|kind| view.of(kind).active_hash.clone());
            proxy.wanted = Wanted { sequence, revision: view.revision.clone(), hashes };
            proxy.behind_since = proxy.behind_since.or(noticed);
        });
    }

    /// What the stream knows of the client's answers.
    pub fn accept(&self, accepted: Accepted) {
        self.update(|proxy| proxy.accepted = accepted);
    }

    fn update(&self, update: impl FnOnce(&mut Proxy)) {
        let mut state = self.proxies.lock();
        if let Some(proxy) =
            state.by_node.get_mut(&self.node).filter(|proxy| proxy.stream == Some(self.stream))
        {
            update(proxy);
            self.proxies.judge(&mut state, &self.node);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.update(|proxy| {
            proxy.stream = None;
            proxy.gone_since = Some(Instant::now());
        });
        self.proxies.lock().forget_long_gone();
    }
}

impl Proxy {
    fn new(client: Arc<Client>) -> Proxy {
        Proxy {
            client,
            agent: UserAgent::default(),
            stream: None,
            gone_since: None,
            wanted: Wanted::default(),
            accepted: Accepted::default(),
            active_revision: Arc::default(),
            active_since: None,
            behind_since: None,
        }
    }

    fn state(&self, sequence: u64, report: Option<&Reported>) -> SyncState {
        let rejected = report.iter().flat_map(|report| &report.types).any(|t| !t.rejected.is_empty());
        if self.stream.is_none() {
            SyncState::Offline
        } else if rejected || !self.accepted.refused.is_empty() {
            SyncState::Nack
        } else if self.wanted.sequence == sequence && self.is_active(report) {
            SyncState::Synced
        } else {
            SyncState::Pending
        }
    }

    /// Whether what is wanted serves: by the proxy's own report, or, if it makes none, by its ACKs.
    fn is_active(&self, report: Option<&Reported>) -> bool {
        let Some(report) = report else { return !self.agent.reports() && self.accepted.settled };
        ResourceType::ALL.into_iter().zip(&self.wanted.hashes).all(|(kind, wanted)| {
            report.types.iter().find(|t| t.type_url == kind.type_url()).is_some_and(|t| t.hash == *wanted)
        })
    }

    fn row(&self, node: &str, state: &State) -> ProxyRow {
        let (role, app) = match self.client.as_ref() {
            Client::Sidecar(sidecar) => ("sidecar", format!("{}/{}", sidecar.namespace, sidecar.service)),
            Client::Gateway(gateway) => ("gateway", format!("{}/{}", gateway.namespace, gateway.name)),
        };
        let report = state.reports.get(node);
        let hello = report.map(|report| report.hello.clone()).unwrap_or_default();
        let types = report.map_or(&[][..], |report| &report.types);
        let agent = format!("{} {}", self.agent.name, self.agent.version);
        let behind = self.wanted.sequence != state.sequence || self.stream.is_none();
        let wanted = if behind { &state.revision } else { &self.wanted.revision };
        ProxyRow {
            node: node.to_owned(),
            app,
            role: role.to_owned(),
            host: hello.host,
            version: if hello.version.is_empty() { agent.trim().to_owned() } else { hello.version },
            state: self.state(state.sequence, report),
            revision_wanted: wanted.to_string(),
            revision_active: self.active_revision.to_string(),
            active_age_ms: age_ms(self.active_since),
            io_driver: hello.io_driver,
            io_driver_reason: hello.io_driver_reason,
            workers: hello.workers,
            snapshot: report.map_or(0, |report| report.snapshot),
            warming: types.iter().map(|t| t.warming_count).sum(),
            admin: hello.admin,
            started_unix_ms: hello.started_unix_ms,
            refused: self.refused(types),
        }
    }

    /// What the proxy itself reports as refused, and what its NACKs said of the rest.
    fn refused(&self, types: &[ActiveType]) -> Vec<RefusedRow> {
        let mut rows: Vec<_> = types
            .iter()
            .flat_map(|t| t.rejected.iter().map(|rejected| (t.type_url.as_str(), rejected)))
            .map(|(type_url, rejected)| RefusedRow {
                kind: ResourceType::from_type_url(type_url)
                    .map_or_else(|| type_url.to_owned(), |kind| kind.short().to_owned()),
                name: rejected.name.clone(),
                version: rejected.version.clone(),
                reason: rejected.reason.clone(),
            })
            .collect();
        for refused in &self.accepted.refused {
            let row = RefusedRow {
                kind: refused.kind.short().to_owned(),
                name: refused.name.to_string(),
                version: refused.version.to_string(),
                reason: refused.reason.to_string(),
            };
            if !rows.iter().any(|known| known.kind == row.kind && known.name == row.name) {
                rows.push(row);
            }
        }
        rows
    }
}

fn age_ms(since: Option<SystemTime>) -> u64 {
    let age = since.and_then(|since| since.elapsed().ok());
    age.map_or(0, |age| age.as_millis().try_into().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
