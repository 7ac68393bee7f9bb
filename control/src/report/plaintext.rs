//! Who comes to which service in plain text where others come by the mesh's TLS, as the proxies tell. What a proxy told is kept
//! when it is gone: its callers are still there, and will come to another one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::control::Plaintext;

use super::Proxies;
use super::proxy::{Proxy, Reported};
use crate::compile::Client;
use crate::model::Name;

/// How long it is remembered that somebody came.
pub const PLAINTEXT_REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Callers that are remembered, over all services; above it the longest gone is forgotten.
const EDGES_MAX: usize = 10_000;

/// Who comes in plain text.
#[derive(Debug, Default)]
pub(super) struct Callers {
    edges: BTreeMap<Edge, Seen>,
    /// Since when plain text is taken, in milliseconds since 1970, by service; not there for those that take none.
    open_since: BTreeMap<Name, u64>,
}

/// Who comes to whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The service.
    pub to: Name,
    /// Where the caller is.
    pub from: IpAddr,
    /// The machine on which that address is, if it is one that every machine has.
    pub host: Option<Arc<str>>,
}

/// What is known of an [`Edge`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections.
    pub connections: u64,
    /// When the last one was, in milliseconds since 1970.
    pub last_unix_ms: u64,
}

/// What is known of the callers of a service that takes plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Everybody who came since then.
    Since(u64),
    /// Not all of its proxies tell.
    Partly,
    /// It has no proxy.
    Not,
}

impl Callers {
    /// Takes in what a proxy of `to` on `host` tells; `counted` is what was taken in of its earlier tellings.
    fn take(&mut self, to: &Name, host: &str, told: &Plaintext, counted: &mut BTreeMap<IpAddr, u64>) {
        match u64::try_from(told.open_since_unix_ms) {
            Ok(since) if since > 0 => {
                self.open_since
                    .entry(to.clone())
                    .and_modify(|known| *known = since.min(*known))
                    .or_insert(since);
            }
            _ => drop(self.open_since.remove(to)),
        }
        let before = std::mem::take(counted);
        for source in told.sources.iter().take(EDGES_MAX) {
            let Ok(from) = source.address.parse::<IpAddr>() else { continue };
            let host = from.is_loopback().then(|| Arc::from(host));
            let seen = self.edges.entry(Edge { to: to.clone(), from, host }).or_default();
            // A proxy that had forgotten a source counts it anew.
            let known = before.get(&from).filter(|known| **known <= source.connections);
            seen.connections += source.connections - known.copied().unwrap_or_default();
            let last = u64::try_from(source.last_seen_unix_ms).unwrap_or_default();
            seen.last_unix_ms = seen.last_unix_ms.max(last);
            counted.insert(from, source.connections);
        }
        self.forget();
    }

    fn forget(&mut self) {
        let oldest = unix_ms(SystemTime::now()).saturating_sub(PLAINTEXT_REMEMBERED.as_millis() as u64);
        self.edges.retain(|_, seen| seen.last_unix_ms >= oldest);
        if let Some(excess @ 1..) = self.edges.len().checked_sub(EDGES_MAX) {
            let mut times: Vec<_> = self.edges.values().map(|seen| seen.last_unix_ms).collect();
            let (_, last_gone, _) = times.select_nth_unstable(excess - 1);
            let last_gone = *last_gone;
            self.edges.retain(|_, seen| seen.last_unix_ms > last_gone);
        }
    }
}

/// The service before whose workload a proxy is.
fn service_of(proxy: &Proxy) -> Option<Name> {
    match proxy.client.as_ref() {
        Client::Sidecar(sidecar) => Some(Name::new(sidecar.namespace.as_str(), sidecar.service.as_str())),
        Client::Gateway(_) => None,
    }
}

impl super::Reporting {
    /// A proxy told who comes in plain text. It is believed of the service that its ADS stream is for, and of no other.
    pub fn plaintext(&self, told: Plaintext) {
        let mut state = self.proxies.lock();
        let super::State { by_node, reports, callers, .. } = &mut *state;
        let Some(report) = reports.get_mut(&self.node).filter(|report| report.stream == self.stream) else {
            return;
        };
        report.open_since_unix_ms = told.open_since_unix_ms;
        let service = by_node.get(self.node.as_str()).and_then(service_of);
        match service {
            Some(to) => {
                let Reported { hello, counted, .. } = report;
                callers.take(&to, &hello.host, &told, counted);
            }
            // It is taken in as soon as the stream is there.
            None => report.untaken = Some(told),
        }
    }
}

impl super::State {
    /// The ADS stream of a node is there: what it told before is taken in.
    pub(super) fn take_untaken(&mut self, node: &str) {
        let super::State { by_node, reports, callers, .. } = self;
        let Some(report) = reports.get_mut(node) else { return };
        if let Some(told) = report.untaken.take()
            && let Some(to) = by_node.get(node).and_then(service_of)
        {
            callers.take(&to, &report.hello.host, &told, &mut report.counted);
        }
    }
}

impl Proxies {
    /// Who came in plain text since then, in order of the services.
    pub fn plaintext_since(&self, unix_ms: u64) -> Vec<(Edge, Seen)> {
        let state = self.lock();
        let edges = state.callers.edges.iter().filter(|(_, seen)| seen.last_unix_ms >= unix_ms);
        edges.map(|(edge, seen)| (edge.clone(), *seen)).collect()
    }

    /// How well it is known who comes to a service in plain text.
    pub fn plaintext_watched(&self, service: &Name) -> Watched {
        let state = self.lock();
        let of_service = |proxy: &Proxy| service_of(proxy).as_ref() == Some(service);
        let tells = |node: &str, proxy: &Proxy| {
            let report = state.reports.get(node);
            proxy.stream.is_some() && report.is_some_and(|report| report.open_since_unix_ms > 0)
        };
        let proxies: Vec<_> = state.by_node.iter().filter(|(_, proxy)| of_service(proxy)).collect();
        let all_tell = proxies.iter().all(|(node, proxy)| tells(node, proxy));
        match state.callers.open_since.get(service) {
            _ if proxies.is_empty() => Watched::Not,
            Some(since) if all_tell => Watched::Since(*since),
            _ => Watched::Partly,
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
