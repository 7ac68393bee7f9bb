//! One proxy as [`Proxies`](super::Proxies) knows it: what it should have, what it accepted and reports, and what
//! follows from that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use proto::control::{ActiveType, Hello, Plaintext};

use super::status::{ProxyRow, RefusedRow, SyncState, age_ms};
use crate::compile::{Client, ResourceType};

/// One proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) client: Arc<Client>,
    pub(super) agent: UserAgent,
    /// The ADS stream that is open.
    pub(super) stream: Option<u64>,
    pub(super) gone_since: Option<Instant>,
    pub(super) wanted: Wanted,
    pub(super) accepted: Accepted,
    /// The last revision of which everything was active.
    pub(super) active_revision: Arc<str>,
    pub(super) active_since: Option<SystemTime>,
    /// When the change was noticed that this proxy does not serve yet.
    pub(super) behind_since: Option<Instant>,
}

/// What a proxy should have.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The world it was compared with.
    pub sequence: u64,
    /// The revision of that world.
    pub revision: Arc<str>,
    /// What it reports as `ActiveType.hash` once all of it is active, by type in the order of [`ResourceType::ALL`].
    pub hashes: [String; ResourceType::COUNT],
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
pub(super) struct Reported {
    pub(super) stream: u64,
    pub(super) hello: Hello,
    pub(super) types: Vec<ActiveType>,
    pub(super) snapshot: u64,
    /// It said goodbye.
    pub(super) left: bool,
    /// Since when it takes plain text, in milliseconds since 1970; 0 if it does not, or never told.
    pub(super) open_since_unix_ms: i64,
    /// The connections of each plain caller that it told of and that are taken in.
    pub(super) counted: BTreeMap<IpAddr, u64>,
    /// What it told of them before it was known which service it is of.
    pub(super) untaken: Option<Plaintext>,
}

impl Reported {
    /// Of a stream that has just begun, of a process that may have told on another one before.
    pub(super) fn begin(stream: u64, hello: Hello, before: Option<Reported>) -> Reported {
        let before = before.filter(|before| before.hello.started_unix_ms == hello.started_unix_ms);
        let counted = before.map(|before| before.counted).unwrap_or_default();
        Reported {
            stream,
            hello,
            types: Vec::new(),
            snapshot: 0,
            left: false,
            open_since_unix_ms: 0,
            counted,
            untaken: None,
        }
    }
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

/// A resource whose newest version the client refused; it goes on with the last one it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Type of the resource.
    pub kind: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// The version that was refused.
    pub version: Arc<str>,
    /// The client's own words.
    pub reason: Arc<str>,
}

impl Proxy {
    pub(super) fn new(client: Arc<Client>) -> Proxy {
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

    /// `sequence` is the newest world's.
    pub(super) fn state(&self, sequence: u64, report: Option<&Reported>) -> SyncState {
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

    /// The row of `node`; `newest` is the newest world's sequence and revision.
    pub(super) fn row(&self, node: &str, newest: (u64, &Arc<str>), report: Option<&Reported>) -> ProxyRow {
        let (sequence, revision) = newest;
        let (role, app) = match self.client.as_ref() {
            Client::Sidecar(sidecar) => ("sidecar", format!("{}/{}", sidecar.namespace, sidecar.service)),
            Client::Gateway(gateway) => ("gateway", format!("{}/{}", gateway.namespace, gateway.name)),
        };
        let hello = report.map(|report| report.hello.clone()).unwrap_or_default();
        let types = report.map_or(&[][..], |report| &report.types);
        let agent = format!("{} {}", self.agent.name, self.agent.version);
        let behind = self.wanted.sequence != sequence || self.stream.is_none();
        let wanted = if behind { revision } else { &self.wanted.revision };
        ProxyRow {
            node: node.to_owned(),
            app,
            role: role.to_owned(),
            host: hello.host,
            version: if hello.version.is_empty() { agent.trim().to_owned() } else { hello.version },
            state: self.state(sequence, report),
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
