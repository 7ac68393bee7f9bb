//! A control plane in a temporary directory, and the clients that stories talk to it with.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a part of each test binary, which uses a part of it"
)]

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::ads::client::AggregatedDiscoveryServiceClient;
use proto::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::control::registry_client::RegistryClient;
use proto::control::{
    KeepAlive, RegisterRequest, RegisterResponse, Registration, Unregister, register_request::Message,
};
use proto::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use proto::pb::google::rpc;
use proto::well_known::{object, string, structure};
use ringway::api::client::Api;
use ringway::ca::{SVID_LIFE_DEFAULT, TRUST_DOMAIN_DEFAULT};
use ringway::report::{Status, SyncState};
use ringway::server::{Options, Server};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

#[path = "../../../dataplane/tests/support/envoy_program.rs"]
pub mod envoy_program;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane and its directory.
pub struct Plane {
    pub server: Server,
    pub dir: TempDir,
    lease: Duration,
}

impl Plane {
    /// Starts on `documents`: file name and content.
    pub async fn start(documents: &[(&str, &str)]) -> Plane {
        Plane::with_lease(Duration::from_secs(60), documents).await
    }

    pub async fn with_lease(lease: Duration, documents: &[(&str, &str)]) -> Plane {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        for (file, content) in documents {
            std::fs::write(dir.path().join("config").join(file), content).unwrap();
        }
        let server = Server::start(options(dir.path(), lease)).await.unwrap();
        Plane { server, dir, lease }
    }

    /// The same again, as after a crash of the process or an upgrade.
    pub async fn restart(self) -> Plane {
        let lease = self.lease;
        self.restart_with_lease(lease).await
    }

    /// With another lease.
    pub async fn restart_with_lease(self, lease: Duration) -> Plane {
        let Plane { server, dir, .. } = self;
        server.stop().await;
        let server = Server::start(options(dir.path(), lease)).await.unwrap();
        Plane { server, dir, lease }
    }

    /// Replaces a document by rename, as editors and deployment tools do.
    pub fn write(&self, file: &str, content: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, self.config().join(file)).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    pub fn socket(&self) -> &Path {
        self.server.socket()
    }

    pub fn api(&self) -> Api {
        Api::new(&self.api_url()).unwrap()
    }

    pub fn api_url(&self) -> String {
        format!("http://{}", self.server.api())
    }

    /// The status as soon as it is as wanted.
    pub async fn status(&self, mut wanted: impl FnMut(&Status) -> bool) -> Status {
        let api = self.api();
        eventually(async || {
            let status = api.status().await.unwrap();
            if wanted(&status) { Ok(status) } else { Err(status) }
        })
        .await
    }

    /// Waits until what proxies are sent has this workload: a moment after it was registered.
    pub async fn knows(&self, instance: &str) {
        let mut worlds = self.server.worlds();
        soon(worlds.wait_for(|world| world.registrations.contains_key(instance))).await.unwrap();
    }

    pub async fn synced(&self, proxies: usize) -> Status {
        let all = |state: &Status| state.proxies.iter().filter(|p| p.state == SyncState::Synced).count();
        self.status(|status| status.synced && all(status) == proxies).await
    }
}

pub fn options(dir: &Path, lease: Duration) -> Options {
    Options {
        config: dir.join("config"),
        socket: dir.join("control.sock"),
        listen: None,
        api: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.join("data"),
        lease,
        trust_domain: TRUST_DOMAIN_DEFAULT.to_owned(),
        svid_life: SVID_LIFE_DEFAULT,
        authority: None,
    }
}

/// Asks until there is an answer; what came instead is shown when patience ends.
pub async fn eventually<T, E: Debug>(mut ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    let start = std::time::Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(instead) => assert!(start.elapsed() < PATIENCE, "still {instead:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn channel(socket: &Path) -> Channel {
    let uri = format!("unix:{}", socket.display());
    tonic::transport::Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing came")
}

/// A delta ADS client that does what it is told.
pub struct Ads {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Ads {
    /// Opens a stream as `node`; the first request goes with it.
    pub async fn open(socket: &Path, node: Node, first: DeltaDiscoveryRequest) -> Ads {
        Ads::open_on(channel(socket).await, node, first).await
    }

    pub async fn open_on(channel: Channel, node: Node, first: DeltaDiscoveryRequest) -> Ads {
        let (requests, receiver) = mpsc::channel(100);
        requests.send(DeltaDiscoveryRequest { node: Some(node), ..first }).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses =
            client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Ads { requests, responses }
    }

    pub async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        soon(self.responses.message()).await.unwrap().expect("the stream ended")
    }

    /// The next response, which has to be of this type; shown as `name… -removed…`.
    pub async fn next_of(&mut self, type_url: &str) -> DeltaDiscoveryResponse {
        let response = self.next().await;
        assert_eq!(response.type_url, type_url, "{}", summary(&response));
        response
    }

    pub async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.send(answer(response, None)).await;
    }

    pub async fn nack(&self, response: &DeltaDiscoveryResponse, reason: &str) {
        self.send(answer(response, Some(reason))).await;
    }

    /// The end of the stream: its status.
    pub async fn end(&mut self) -> Option<tonic::Status> {
        loop {
            match soon(self.responses.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Asserts that nothing is under way: what is asked now is what is answered next.
    pub async fn is_quiet(&mut self) {
        self.send(subscribe("type.googleapis.com/ringway.test.Nothing", &["ping"])).await;
        let response = self.next().await;
        assert_eq!(response.removed_resources, ["ping"], "{}", summary(&response));
    }
}

fn answer(response: &DeltaDiscoveryResponse, error: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail: error.map(|message| rpc::Status { message: message.into(), ..rpc::Status::default() }),
        ..DeltaDiscoveryRequest::default()
    }
}

pub fn wildcard(type_url: &str) -> DeltaDiscoveryRequest {
    subscribe(type_url, &[])
}

pub fn subscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

pub fn summary(response: &DeltaDiscoveryResponse) -> String {
    format!("{}: {:?} without {:?}", response.type_url, names(response), response.removed_resources)
}

/// The node of a gateway proxy.
pub fn gateway(id: &str, namespace: &str, name: &str, agent: &str) -> Node {
    let ringway = object([
        ("role", string("gateway")),
        ("namespace", string(namespace)),
        ("name", string(name)),
        ("bind", string("127.0.0.1")),
    ]);
    Node {
        id: id.into(),
        cluster: name.into(),
        metadata: Some(structure([("ringway", ringway)])),
        user_agent_name: agent.into(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion("1.40.0".into())),
        ..Node::default()
    }
}

/// A service on a port with one endpoint.
pub fn service(name: &str, endpoint_port: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{port: {endpoint_port}}}]
"
    )
}

/// A route of gateway `edge` to one service.
pub fn route(service: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: main, namespace: shop}}
spec:
  parentRefs: [{{name: edge}}]
  rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]
"
    )
}

/// A workload's registration stream.
pub struct Workload {
    requests: mpsc::Sender<RegisterRequest>,
    responses: Streaming<RegisterResponse>,
}

impl Workload {
    /// Registers, and returns what it was told.
    pub async fn register(socket: &Path, registration: Registration) -> (Workload, RegisterResponse) {
        let (requests, receiver) = mpsc::channel(100);
        let mut client = RegistryClient::new(channel(socket).await);
        let first = RegisterRequest { message: Some(Message::Registration(registration)) };
        requests.send(first).await.unwrap();
        let responses = client.register(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut workload = Workload { requests, responses };
        let told = workload.next().await;
        (workload, told)
    }

    pub async fn send(&self, message: Message) {
        self.requests.send(RegisterRequest { message: Some(message) }).await.unwrap();
    }

    pub async fn next(&mut self) -> RegisterResponse {
        soon(self.responses.message()).await.unwrap().expect("the stream ended")
    }

    pub async fn keep_alive(&self) {
        self.send(Message::KeepAlive(KeepAlive {})).await;
    }

    /// Leaves, and waits until that is known.
    pub async fn unregister(mut self) {
        self.send(Message::Unregister(Unregister {})).await;
        while let Ok(Some(_)) = soon(self.responses.message()).await {}
    }
}

pub fn registration(instance: &str, service: &str, address: &str) -> Registration {
    Registration {
        instance: instance.into(),
        namespace: "shop".into(),
        service: service.into(),
        address: address.into(),
        port: 80,
        ready: true,
        host: "vm1".into(),
        identity: format!("spiffe://{TRUST_DOMAIN_DEFAULT}/ns/shop/sa/{service}"),
        ..Registration::default()
    }
}
