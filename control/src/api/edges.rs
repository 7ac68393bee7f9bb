//! `/api/v1/edges`: who comes to whom in plain text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Api, Refusal};
use crate::document::MtlsMode;
use crate::model::Name;
use crate::report::{Edge, PLAINTEXT_REMEMBERED, Seen, Watched};
use crate::world::World;

/// How far is looked back if nobody says.
const SINCE_DEFAULT: Duration = Duration::from_secs(3600);

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// It is all that is known.
    #[serde(default)]
    plaintext: bool,
    /// How far to look back, in milliseconds.
    since_ms: Option<u64>,
}

/// Who comes to whom in plain text, and where nobody does any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaintextEdges {
    /// How far is looked back.
    pub since_ms: u64,
    /// Who came since then, in order of the services.
    pub edges: Vec<PlaintextEdge>,
    /// Every service that takes plain text.
    pub permissive: Vec<PermissiveService>,
}

/// A caller of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaintextEdge {
    /// `namespace/service`.
    pub to: String,
    /// Where the caller is.
    pub address: String,
    /// The services that have a workload at this address; the caller may be any of them, or a neighbour of theirs.
    pub from: Vec<String>,
    /// The machine, as far as it is known.
    pub host: String,
    /// Connections, as far as they are remembered.
    pub connections: u64,
    /// When the last one was, in milliseconds since 1970.
    pub last_seen_unix_ms: u64,
    /// How long ago that is.
    pub last_seen_age_ms: u64,
}

/// A service that takes plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissiveService {
    /// `namespace/service`.
    pub service: String,
    /// Whether it needs to.
    pub verdict: Verdict,
    /// For how long it is known who comes; 0 if that is not known of all of its proxies.
    pub watched_ms: u64,
}

/// Whether a service needs to take plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Somebody came in plain text.
    Needed,
    /// Nobody did: it can be strict now.
    CanBeStrict,
    /// Nobody did, but it is not watched for as long.
    NotYetKnown,
    /// Some of its proxies do not tell: they are not connected, or not ours.
    NotAllTell,
}

impl PlaintextEdges {
    /// Whether it is known of every service that nobody came in plain text.
    pub fn is_nobody(&self) -> bool {
        let is_known = |of: &PermissiveService| of.verdict == Verdict::CanBeStrict;
        self.edges.is_empty() && self.permissive.iter().all(is_known)
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(asked): Query<Asked>,
) -> Result<Json<PlaintextEdges>, (StatusCode, Json<Refusal>)> {
    if !asked.plaintext {
        let error =
            "only `plaintext=true` is answered: which of the mesh's calls there are is not known here yet";
        return Err((StatusCode::BAD_REQUEST, Json(Refusal { error: error.to_owned() })));
    }
    // What is looked at has to be what is in force.
    api.look_now.ask().await;
    let since = asked.since_ms.map_or(SINCE_DEFAULT, Duration::from_millis);
    if since > PLAINTEXT_REMEMBERED {
        let days = PLAINTEXT_REMEMBERED.as_secs() / (24 * 3600);
        let error = format!("since: it is remembered for {days} days who came in plain text, and not longer");
        return Err((StatusCode::BAD_REQUEST, Json(Refusal { error })));
    }
    let world = api.worlds.borrow().clone();
    let now_ms = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let since_ms = millis(since);
    let edges = api.proxies.plaintext_since(now_ms.saturating_sub(since_ms));
    let watched = |service: &Name| api.proxies.plaintext_watched(service);
    Ok(Json(answer(&world, &edges, watched, (now_ms, since_ms))))
}

fn answer(
    world: &World,
    edges: &[(Edge, Seen)],
    watched: impl Fn(&Name) -> Watched,
    (now_ms, since_ms): (u64, u64),
) -> PlaintextEdges {
    let needed: BTreeSet<&Name> = edges.iter().map(|(edge, _)| &edge.to).collect();
    let is_permissive = |name: &&Name| world.model.peer_authentications.mode_of(name) == MtlsMode::Permissive;
    let permissive = world.model.services.keys().filter(is_permissive).filter_map(|name| {
        let watched_ms = match watched(name) {
            // Nobody can come to it.
            Watched::Not => return None,
            Watched::Partly => 0,
            Watched::Since(since) => now_ms.saturating_sub(since),
        };
        let verdict = match watched(name) {
            _ if needed.contains(name) => Verdict::Needed,
            Watched::Since(_) if watched_ms >= since_ms => Verdict::CanBeStrict,
            Watched::Since(_) => Verdict::NotYetKnown,
            Watched::Partly | Watched::Not => Verdict::NotAllTell,
        };
        Some(PermissiveService { service: name.to_string(), verdict, watched_ms })
    });
    let who = Who::new(world);
    PlaintextEdges {
        since_ms,
        edges: edges.iter().map(|(edge, seen)| who.edge(edge, *seen, now_ms)).collect(),
        permissive: permissive.collect(),
    }
}

/// Who is where.
struct Who {
    services: BTreeMap<IpAddr, BTreeSet<String>>,
    hosts: BTreeMap<IpAddr, BTreeSet<String>>,
}

impl Who {
    fn new(world: &World) -> Who {
        let mut who = Who { services: BTreeMap::new(), hosts: BTreeMap::new() };
        for (name, service) in &world.model.services {
            for endpoint in service.ports.iter().flat_map(|port| &port.endpoints) {
                who.services.entry(endpoint.address.ip()).or_default().insert(name.to_string());
            }
        }
        for registration in world.registrations.values().filter(|of| !of.host.is_empty()) {
            who.hosts.entry(registration.address.ip()).or_default().insert(registration.host.clone());
        }
        who
    }

    fn edge(&self, Edge { to, from, host }: &Edge, seen: Seen, now_ms: u64) -> PlaintextEdge {
        // What every machine has as its own tells nothing of who is there.
        let (services, hosts) = match host {
            Some(host) => (Vec::new(), vec![host.to_string()]),
            None => {
                let of = |all: &BTreeMap<IpAddr, BTreeSet<String>>| {
                    all.get(from).into_iter().flatten().cloned().collect::<Vec<_>>()
                };
                (of(&self.services), of(&self.hosts))
            }
        };
        PlaintextEdge {
            to: to.to_string(),
            address: from.to_string(),
            from: services,
            host: hosts.join(", "),
            connections: seen.connections,
            last_seen_unix_ms: seen.last_unix_ms,
            last_seen_age_ms: now_ms.saturating_sub(seen.last_unix_ms),
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
