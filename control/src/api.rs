//! The control plane's HTTP API: what it knows, as JSON with stable field names, and its metrics. Read only.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | `ok` |
//! | `/metrics` | Prometheus text, see [`crate::metrics`] |
//! | `/api/v1/status` | [`Status`]; with `?fresh=true` of what is in the directory at the time of the question |
//! | `/api/v1/documents` | [`DocumentList`] |
//! | `/api/v1/services` | list of [`ServiceRow`] |
//! | `/api/v1/registrations` | list of [`RegistrationRow`] |
//! | `/api/v1/certificates` | list of [`CertificateRow`] |
//! | `/api/v1/edges?plaintext=true` | [`PlaintextEdges`] of the last hour, or of the last `since_ms` |
//! | `/api/v1/can` | [`Answer`](crate::authorize::Answer) to the [`Question`] in the query; what is wrong with it as [`Refusal`] |

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::document::{DocumentError, Object};
use crate::metrics::{Gauges, Metrics};
use crate::model::{self, Name, Protocol};
use crate::registry::{RegistrationRow, Registry};
use crate::report::{Proxies, Status, SyncState};
use crate::source::file::LookNow;
use crate::store::Store;
use crate::world::World;

mod can;
mod certificates;
pub mod client;
mod edges;

pub use can::{Question, Refusal};
pub use certificates::CertificateRow;
pub use edges::{PermissiveService, PlaintextEdge, PlaintextEdges, Verdict};

/// What the API reads.
#[derive(Debug, Clone)]
pub struct Api {
    /// The newest world.
    pub worlds: watch::Receiver<Arc<World>>,
    /// Every proxy.
    pub proxies: Arc<Proxies>,
    /// Every registration.
    pub registry: Arc<Registry>,
    /// What was issued.
    pub store: Arc<Store>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Of the identities of the mesh.
    pub trust_domain: Arc<str>,
    /// Looks at the documents when it matters that nothing was missed.
    pub look_now: LookNow,
}

/// `/api/v1/documents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentList {
    /// The revision they make.
    pub revision: String,
    /// Every object, in order of kind, namespace and name.
    pub documents: Vec<DocumentRow>,
    /// Documents that could not be used.
    pub errors: Vec<ErrorRow>,
}

/// One object in [`DocumentList`], in the shape Kubernetes would show it, without its `spec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentRow {
    /// `apiVersion`, as written.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name and namespace.
    pub metadata: ObjectName,
    /// Conditions, for routes per parent; not there for a kind that has no status.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub status: serde_json::Value,
    /// `file:line:column` of the object.
    pub origin: String,
    /// Fields that Kubernetes defines and Ringway does not use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
}

/// `metadata` of a [`DocumentRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectName {
    /// Name.
    pub name: String,
    /// Namespace; empty, and not written, for kinds that have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// One unusable document in [`DocumentList`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorRow {
    /// The file, relative to the directory.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// `Kind namespace/name`; empty if not even that could be read.
    pub object: String,
    /// What is wrong.
    pub reason: String,
    /// The last good version of the object still serves.
    pub last_good_serves: bool,
}

/// One service of `/api/v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `documents`, or `run` if only registrations make it.
    pub source: String,
    /// Its ports, in the order of their numbers.
    pub ports: Vec<PortRow>,
}

/// One port of a [`ServiceRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortRow {
    /// The port callers name.
    pub port: u16,
    /// Its name; empty if it has none.
    pub name: String,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Who takes the traffic.
    pub endpoints: Vec<EndpointRow>,
}

/// One endpoint of a [`PortRow`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// `IP:PORT`.
    pub address: String,
    /// It finishes what it has and takes nothing new.
    pub draining: bool,
    /// Share of the traffic in proportion to the others.
    pub weight: u16,
    /// Zone; empty if not said.
    pub zone: String,
}

/// The routes of the API.
pub fn router(api: Api) -> axum::Router {
    axum::Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/documents", get(documents))
        .route("/api/v1/services", get(services))
        .route("/api/v1/registrations", get(registrations))
        .route("/api/v1/certificates", get(certificates::list))
        .route("/api/v1/edges", get(edges::list))
        .route("/api/v1/can", get(can::answer))
        .with_state(api)
}

async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, api.metrics.render(&gauges(&api)))
}

/// What is asked of `/api/v1/status`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    /// Look at the documents first: a file that was just written may not have been noticed yet.
    #[serde(default)]
    fresh: bool,
}

async fn status(State(api): State<Api>, Query(query): Query<StatusQuery>) -> Json<Status> {
    if query.fresh {
        api.look_now.ask().await;
    }
    let errors = api.worlds.borrow().documents.errors.len();
    Json(api.proxies.status(errors))
}

async fn documents(State(api): State<Api>) -> Json<DocumentList> {
    let world = api.worlds.borrow().clone();
    Json(document_list(&world))
}

async fn services(State(api): State<Api>) -> Json<Vec<ServiceRow>> {
    let world = api.worlds.borrow().clone();
    let documents = world.documents.objects.values();
    let declared: BTreeSet<Name> = documents
        .filter(|document| matches!(document.object, Object::Service(_)))
        .map(|document| Name::from(&document.key))
        .collect();
    let row = |(name, service): (&Name, &model::Service)| ServiceRow {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        source: if declared.contains(name) { "documents" } else { "run" }.to_owned(),
        ports: service.ports.iter().map(port_row).collect(),
    };
    Json(world.model.services.iter().map(row).collect())
}

fn port_row(port: &model::ServicePort) -> PortRow {
    let endpoints = port.endpoints.iter().map(|endpoint| EndpointRow {
        address: endpoint.address.to_string(),
        draining: endpoint.draining,
        weight: endpoint.weight,
        zone: endpoint.zone.to_string(),
    });
    PortRow {
        port: port.port,
        name: port.name.as_deref().unwrap_or_default().to_owned(),
        protocol: match port.protocol {
            Protocol::Http | Protocol::Http1 => "http",
            Protocol::Http2 => "http2",
            Protocol::Tcp => "tcp",
        }
        .to_owned(),
        endpoints: endpoints.collect(),
    }
}

async fn registrations(State(api): State<Api>) -> Json<Vec<RegistrationRow>> {
    let world = api.worlds.borrow().clone();
    Json(registration_rows(&api.registry, &world))
}

/// Every registration, with what the documents have against it.
fn registration_rows(registry: &Registry, world: &World) -> Vec<RegistrationRow> {
    let mut rows = registry.rows();
    for row in rows.iter_mut().filter(|row| row.refused.is_empty()) {
        if let Some(reason) = world.conditions.refused_registrations.get(&row.instance) {
            row.refused.clone_from(reason);
        }
    }
    rows
}

fn document_list(world: &World) -> DocumentList {
    let documents = world.documents.objects.iter().map(|(key, document)| DocumentRow {
        api_version: document.object.api_version().to_owned(),
        kind: key.kind.to_string(),
        metadata: ObjectName { name: key.name.to_string(), namespace: key.namespace.to_string() },
        status: world.conditions.objects.get(key).cloned().unwrap_or_default(),
        origin: document.origin.to_string(),
        unused: document.unused.iter().map(ToString::to_string).collect(),
    });
    DocumentList {
        revision: world.revision.to_string(),
        documents: documents.collect(),
        errors: world.documents.errors.iter().map(error_row).collect(),
    }
}

fn error_row(error: &DocumentError) -> ErrorRow {
    ErrorRow {
        file: error.origin.file.to_string(),
        line: error.origin.line,
        column: error.origin.column,
        object: error.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: error.reason.clone(),
        last_good_serves: error.last_good_serves,
    }
}

fn gauges(api: &Api) -> Gauges {
    let world = api.worlds.borrow().clone();
    let rows = registration_rows(&api.registry, &world);
    let used = rows.iter().filter(|row| row.refused.is_empty()).count() as u64;
    let status = api.proxies.status(0);
    let proxies = |state| status.proxies.iter().filter(|proxy| proxy.state == state).count() as u64;
    Gauges {
        proxies: [
            ("synced", proxies(SyncState::Synced)),
            ("pending", proxies(SyncState::Pending)),
            ("nack", proxies(SyncState::Nack)),
            ("offline", proxies(SyncState::Offline)),
        ],
        registrations: [("used", used), ("refused", rows.len() as u64 - used)],
        documents: world.documents.objects.len() as u64,
        document_errors: world.documents.errors.len() as u64,
        sequence: world.sequence,
    }
}
