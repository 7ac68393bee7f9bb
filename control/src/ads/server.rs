//! The ADS server: carries requests and responses between a stream and its [`Session`], which decides everything.
//!
//! Each stream is one task. It compiles its own view when there is a new world, or only replaces the endpoints that
//! changed, and hands it to the session; encoded resources are shared by all streams.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use proto::ads::server::AggregatedDiscoveryService;
use proto::ads::{DeltaDiscoveryRequest, EncodedDeltaResponse};
use proto::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session::{self, Answer, Session};
use super::view::View;
use crate::caller::SpeaksFor;
use crate::compile::{Client, ResourceType};
use crate::metrics::Metrics;
use crate::report::{Accepted, Connected, Proxies, UserAgent, Wanted};
use crate::world::World;

/// Longest reason of a NACK that is kept, in bytes.
const REASON_BYTES_MAX: usize = 2048;

/// Longest node id, in bytes.
const NODE_BYTES_MAX: usize = 512;

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`, delta only.
#[derive(Debug)]
pub struct AdsServer {
    /// The newest world; streams end when it is closed.
    pub worlds: watch::Receiver<Arc<World>>,
    /// Told who is connected and what they accepted.
    pub proxies: Arc<Proxies>,
    /// Counted up.
    pub metrics: Arc<Metrics>,
    /// What the identities of the mesh begin with.
    pub trust_domain: Arc<str>,
    /// Until then a client that brings resources from an earlier stream is not answered: workloads that were
    /// registered with an earlier control plane may not have come back, and it is better off with what it has.
    pub returning_from: Option<Instant>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsServer {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<EncodedDeltaResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let speaks_for = SpeaksFor::of(requests.extensions())?;
        // At most one response per type is unanswered, so a client that does not read fills nothing.
        let (responses, receiver) = mpsc::channel(2 * ResourceType::ALL.len());
        let server = AdsServer {
            worlds: self.worlds.clone(),
            proxies: self.proxies.clone(),
            metrics: self.metrics.clone(),
            trust_domain: self.trust_domain.clone(),
            returning_from: self.returning_from,
        };
        self.metrics.streams.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let metrics = server.metrics.clone();
            if let Err(status) = serve(server, &speaks_for, requests.into_inner(), &responses).await {
                metrics.refused_streams.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(reason = status.message(), "stream refused");
                let _ = responses.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type Responses = mpsc::Sender<Result<EncodedDeltaResponse, Status>>;

/// One stream from its first request to its end. An error is the client's fault.
async fn serve(
    mut server: AdsServer,
    speaks_for: &SpeaksFor,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: &Responses,
) -> Result<(), Status> {
    let Ok(Some(first)) = requests.message().await else { return Ok(()) };
    let (node, client, agent) = who(first.node.as_ref(), &server.trust_domain)?;
    let identity = client.own_identity(&server.trust_domain);
    speaks_for.check(&identity).map_err(|refused| Status::permission_denied(refused.to_string()))?;
    if let Some(from) = server.returning_from.filter(|_| !first.initial_resource_versions.is_empty()) {
        tokio::select! {
            () = tokio::time::sleep_until(from.into()) => {}
            () = closed(&mut server.worlds) => return Ok(()),
        }
    }
    let client = Arc::new(client);
    let resend_children = agent.is_envoy();
    let connected = server.proxies.connect(&node, client.clone(), agent);
    tracing::info!(node, "connected");
    let world = server.worlds.borrow_and_update().clone();
    let view = Arc::new(View::new(world.revision.clone(), world.compile(&client), None));
    connected.want(wanted(&world, &view), None);
    let session = Session::new(view.clone(), resend_children, Instant::now());
    let metrics = server.metrics.clone();
    let mut stream = OpenStream {
        node,
        client,
        sequence: world.sequence,
        view,
        session,
        connected,
        metrics,
        responses,
        foreign_nonce: 0,
    };
    stream.receive(first).await?;
    loop {
        if !stream.send_due().await {
            break;
        }
        tokio::select! {
            biased;
            request = requests.message() => match request {
                Ok(Some(request)) => stream.receive(request).await?,
                Ok(None) | Err(_) => break,
            },
            changed = server.worlds.changed() => {
                if changed.is_err() {
                    break;
                }
                let world = server.worlds.borrow_and_update().clone();
                stream.adopt(&world);
            }
            () = until(stream.session.deadline()) => {}
        }
    }
    tracing::info!(node = stream.node, "disconnected");
    Ok(())
}

/// When the control plane stops.
async fn closed(worlds: &mut watch::Receiver<Arc<World>>) {
    while worlds.changed().await.is_ok() {}
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Who opened a stream, from its first request.
fn who(node: Option<&Node>, trust_domain: &str) -> Result<(String, Client, UserAgent), Status> {
    let node = node.ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
    if node.id.is_empty() || node.id.len() > NODE_BYTES_MAX {
        return Err(Status::invalid_argument(format!("node.id has to have 1 to {NODE_BYTES_MAX} bytes")));
    }
    let metadata = node.metadata.clone().unwrap_or_default();
    let client = Client::from_metadata(&metadata, trust_domain)
        .map_err(|error| Status::invalid_argument(format!("node {}: {error}", node.id)))?;
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => {
            let version = build.version.unwrap_or_default();
            format!("{}.{}.{}", version.major_number, version.minor_number, version.patch)
        }
        None => String::new(),
    };
    Ok((node.id.clone(), client, UserAgent { name: node.user_agent_name.clone(), version }))
}

/// What the proxy should report once `view`, which was made of `world`, is active in it.
fn wanted(world: &World, view: &View) -> Wanted {
    let (sequence, revision, hashes) = (world.sequence, view.revision.clone(), view.active_hashes());
    Wanted { sequence, revision, hashes }
}

struct OpenStream<'a> {
    node: String,
    client: Arc<Client>,
    /// The world that `view` is of.
    sequence: u64,
    view: Arc<View>,
    session: Session,
    connected: Connected,
    metrics: Arc<Metrics>,
    responses: &'a Responses,
    /// Counts answers about types that are not served.
    foreign_nonce: u64,
}

impl OpenStream<'_> {
    async fn receive(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            self.answer_foreign(request).await;
            return Ok(());
        };
        let error = request.error_detail.as_ref().map(|status| shortened(&status.message, REASON_BYTES_MAX));
        let versions = &request.initial_resource_versions;
        let asked = session::Request {
            subscribe: &request.resource_names_subscribe,
            unsubscribe: &request.resource_names_unsubscribe,
            initial_versions: versions
                .iter()
                .map(|(name, version)| (name.as_str(), version.as_str()))
                .collect(),
            nonce: &request.response_nonce,
            error,
        };
        match self.session.receive(kind, &asked) {
            Ok(Answer::Nack(new)) => {
                self.metrics.nacks.add(kind, 1);
                for refused in new {
                    tracing::warn!(
                        node = self.node, kind = kind.short(), resource = %refused.name, version = %refused.version,
                        reason = %refused.reason, "refused; the last good version serves"
                    );
                }
                Ok(())
            }
            Ok(Answer::Ack | Answer::None) => Ok(()),
            Err(error) => Err(Status::resource_exhausted(error.to_string())),
        }
    }

    /// A type that is not served has no resources: said at once, since the client may be waiting.
    async fn answer_foreign(&mut self, request: DeltaDiscoveryRequest) {
        let answers_one = !request.response_nonce.is_empty();
        let removed: Vec<_> =
            request.resource_names_subscribe.into_iter().filter(|name| name != "*").collect();
        if answers_one && removed.is_empty() {
            return;
        }
        self.foreign_nonce += 1;
        let response = EncodedDeltaResponse {
            system_version_info: self.view.revision.to_string(),
            resources: Vec::new(),
            type_url: request.type_url,
            nonce: format!("none-{}", self.foreign_nonce),
            removed_resources: removed,
        };
        // A closed channel is noticed by `send_due`.
        let _ = self.responses.send(Ok(response)).await;
    }

    fn adopt(&mut self, world: &World) {
        let revision = world.revision.clone();
        let view = match world.endpoints_since(self.sequence) {
            Some(changed) => self.view.with_endpoints(revision, changed),
            None => View::new(revision, world.compile(&self.client), Some(&self.view)),
        };
        let view = Arc::new(view);
        self.sequence = world.sequence;
        let changed = ResourceType::ALL.iter().any(|kind| !Arc::ptr_eq(view.of(*kind), self.view.of(*kind)));
        self.connected.want(wanted(world, &view), changed.then_some(world.since));
        self.view = view.clone();
        self.session.adopt(view);
    }

    /// Sends what may go now. False when the client is gone.
    async fn send_due(&mut self) -> bool {
        while let Some(response) = self.session.next_response(Instant::now()) {
            self.metrics.pushes.add(response.kind, 1);
            self.metrics.resources.add(response.kind, response.resources.len() as u64);
            let bytes: usize = response.resources.iter().map(|resource| resource.envelope.len()).sum();
            self.metrics.resource_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            let response = EncodedDeltaResponse {
                system_version_info: response.revision.to_string(),
                resources: response.resources.iter().map(|resource| resource.envelope.clone()).collect(),
                type_url: response.kind.type_url().to_owned(),
                nonce: response.nonce,
                removed_resources: response.removed.iter().map(|name| name.to_string()).collect(),
            };
            if self.responses.send(Ok(response)).await.is_err() {
                return false;
            }
        }
        let refused = self.session.refused().cloned().collect();
        self.connected.accept(Accepted { settled: self.session.is_settled(), refused });
        true
    }
}

/// At most `bytes` of `text`, cut between characters.
fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
