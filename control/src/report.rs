//! Which proxies there are, what each should have and what is active in it: the answer to "is the newest revision
//! active everywhere?".
//!
//! [`Proxies`] is told by the ADS streams what a proxy should have and has accepted, and by the proxies' own reports
//! (`service`) what serves. A proxy that reports is judged by its report; one that cannot, Envoy, by its ACKs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use proto::control::{ActiveType, Hello};

use crate::compile::Client;
use crate::metrics::Metrics;

use proxy::{Proxy, Reported};
use status::age_ms;

mod plaintext;
mod proxy;
mod service;
mod status;

pub use plaintext::{Edge, PLAINTEXT_REMEMBERED, Seen, Watched};
pub use proxy::{Accepted, Refused, UserAgent, Wanted};
pub use service::ReportService;
pub use status::{ProxyRow, RefusedRow, Status, SyncState};

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
    callers: plaintext::Callers,
    next_stream: u64,
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
        state.take_untaken(&node);
        Connected { proxies: self.clone(), node, stream }
    }

    /// A proxy said who it is.
    pub fn hello(self: &Arc<Self>, hello: Hello) -> Reporting {
        let mut state = self.lock();
        let (node, stream) = (hello.node_id.clone(), state.next_stream);
        state.next_stream += 1;
        let before = state.reports.remove(&node);
        state.reports.insert(node.clone(), Reported::begin(stream, hello, before));
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
        let newest = (state.sequence, &state.revision);
        let row =
            |(node, proxy): (&Arc<str>, &Proxy)| proxy.row(node, newest, state.reports.get(node.as_ref()));
        let mut proxies: Vec<_> = state.by_node.iter().map(row).collect();
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

impl Reporting {
    /// The proxy said goodbye: its process ends because it was told to, and is not missed.
    pub fn leave(&self) {
        let mut state = self.proxies.lock();
        let State { by_node, reports, .. } = &mut *state;
        if let Some(report) = reports.get_mut(&self.node).filter(|report| report.stream == self.stream) {
            report.left = true;
            if by_node.get(self.node.as_str()).is_some_and(|proxy| proxy.stream.is_none()) {
                by_node.remove(self.node.as_str());
            }
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
    /// The stream compared a world: the proxy should have `wanted` from now on. `noticed` is when the change was, if
    /// it concerns this proxy.
    pub fn want(&self, wanted: Wanted, noticed: Option<Instant>) {
        self.update(|proxy| {
            proxy.wanted = wanted;
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
        let mut state = self.proxies.lock();
        let State { by_node, reports, .. } = &mut *state;
        let has_left = reports.get(self.node.as_ref()).is_some_and(|report| report.left);
        if has_left && by_node.get(&self.node).is_some_and(|proxy| proxy.stream.is_none()) {
            by_node.remove(&self.node);
        }
        state.forget_long_gone();
    }
}

#[cfg(test)]
mod tests;
