//! A control plane that does what a test tells it: streams are accepted one by one, requests read, responses sent.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
};

use prost::{Message, Name};
use proto::{
    ads::{
        Any, DeltaDiscoveryRequest, EncodedDeltaResponse, Resource,
        server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    control::{
        ReportRequest, ReportResponse,
        proxy_server::{Proxy as ReportService, ProxyServer},
        report_request::Report,
    },
    pb::envoy::config::{
        bootstrap::v3::Bootstrap,
        cluster::v3::Cluster,
        core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
        },
        listener::v3::Listener,
        route::v3::RouteConfiguration,
    },
    type_url,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream, UnixListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, ServerTlsConfig, server::Connected},
};

use crate::support::soon;

/// Listens on a unix socket until dropped or [`ControlPlane::kill`]ed.
pub(crate) struct ControlPlane {
    streams: mpsc::Receiver<AdsStream>,
    reports: mpsc::Receiver<Report>,
    server: JoinHandle<()>,
}

/// One stream of a proxy.
pub(crate) struct AdsStream {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<EncodedDeltaResponse, Status>>,
    unread: VecDeque<DeltaDiscoveryRequest>,
    /// Type URL and name of everything that was ever asked for by name.
    asked: BTreeSet<(String, String)>,
    nonce: u32,
}

impl ControlPlane {
    /// On a unix socket, plain.
    pub(crate) fn start(path: &Path) -> ControlPlane {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        ControlPlane::serve(Server::builder(), UnixListenerStream::new(listener))
    }

    /// On TCP, with mutual TLS.
    pub(crate) async fn start_tls(tls: ServerTlsConfig) -> (ControlPlane, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder().tls_config(tls).unwrap();
        (ControlPlane::serve(server, TcpListenerStream::new(listener)), address)
    }

    fn serve<S>(
        mut server: Server,
        incoming: impl Stream<Item = io::Result<S>> + Send + 'static,
    ) -> ControlPlane
    where
        S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        S::ConnectInfo: Clone + Send + Sync + 'static,
    {
        let (streams_in, streams) = mpsc::channel(4);
        let (reports_in, reports) = mpsc::channel(64);
        let server = server
            .add_service(AggregatedDiscoveryServiceServer::new(Ads(streams_in)))
            .add_service(ProxyServer::new(Reports(reports_in)))
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async move { server.await.unwrap() });
        ControlPlane { streams, reports, server }
    }

    /// The next stream that a proxy opens.
    pub(crate) async fn stream(&mut self) -> AdsStream {
        soon("a stream", self.streams.recv()).await.unwrap()
    }

    /// The next report of a proxy.
    pub(crate) async fn report(&mut self) -> Report {
        soon("a report", self.reports.recv()).await.unwrap()
    }

    pub(crate) async fn kill(self) {
        self.server.abort();
        // Only now are its sockets closed.
        let _ = self.server.await;
    }
}

impl AdsStream {
    /// The next request of this type; others are kept.
    pub(crate) async fn request(&mut self, type_url: &str) -> DeltaDiscoveryRequest {
        if let Some(at) = self.unread.iter().position(|request| request.type_url == type_url) {
            return self.unread.remove(at).unwrap();
        }
        loop {
            let request = self.read(type_url).await;
            if request.type_url == type_url {
                return request;
            }
            self.unread.push_back(request);
        }
    }

    async fn read(&mut self, what: &str) -> DeltaDiscoveryRequest {
        let request = soon(what, self.requests.message()).await.unwrap().expect("the stream ended");
        let names = request.resource_names_subscribe.iter();
        self.asked.extend(names.map(|name| (request.type_url.clone(), name.clone())));
        request
    }

    /// Waits until a proxy has asked for this by name: nothing of these types may be sent before.
    pub(crate) async fn was_asked(&mut self, type_url: &str, name: &str) {
        if type_url == type_url::CLUSTER || type_url == type_url::LISTENER {
            return;
        }
        let wanted = (type_url.to_owned(), name.to_owned());
        while !self.asked.contains(&wanted) {
            let request = self.read(name).await;
            self.unread.push_back(request);
        }
    }

    /// Sends resources and waits for the answer: `None` is an ACK, else the error's message.
    pub(crate) async fn send<M: Message + Name>(&mut self, resources: &[(&str, &str, M)]) -> Option<String> {
        for (name, ..) in resources {
            self.was_asked(&M::type_url(), name).await;
        }
        let encoded = resources.iter().map(|(name, version, message)| {
            let body = Some(Any::pack(message));
            Resource { name: (*name).to_owned(), version: (*version).to_owned(), resource: body }
                .encode_shared()
        });
        self.respond::<M>(encoded.collect(), &[]).await
    }

    /// Removes resources and waits for the answer.
    pub(crate) async fn remove<M: Message + Name>(&mut self, names: &[&str]) -> Option<String> {
        self.respond::<M>(Vec::new(), names).await
    }

    async fn respond<M: Name>(&mut self, resources: Vec<bytes::Bytes>, removed: &[&str]) -> Option<String> {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let response = EncodedDeltaResponse {
            system_version_info: format!("r{nonce}"),
            resources,
            type_url: M::type_url(),
            nonce: nonce.clone(),
            removed_resources: removed.iter().map(ToString::to_string).collect(),
        };
        self.responses.send(Ok(response)).await.unwrap();
        // Changes of subscriptions answer nothing; they stay for who looks for them.
        let mut others = Vec::new();
        let answer = loop {
            let request = self.request(&M::type_url()).await;
            if request.response_nonce == nonce {
                break request;
            }
            others.push(request);
        };
        self.unread.extend(others);
        answer.error_detail.map(|detail| detail.message)
    }
}

struct Ads(mpsc::Sender<AdsStream>);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<EncodedDeltaResponse, Status>> + Send>>;

    async fn delta_aggregated_resources(
        &self,
        requests: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, outgoing) = mpsc::channel(16);
        let stream = AdsStream {
            requests: requests.into_inner(),
            responses,
            unread: VecDeque::new(),
            asked: BTreeSet::new(),
            nonce: 0,
        };
        self.0.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

struct Reports(mpsc::Sender<Report>);

#[tonic::async_trait]
impl ReportService for Reports {
    type ReportStream = ReceiverStream<Result<ReportResponse, Status>>;

    async fn report(
        &self,
        requests: Request<Streaming<ReportRequest>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let (answers, outgoing) = mpsc::channel(1);
        let (mut requests, reports) = (requests.into_inner(), self.0.clone());
        tokio::spawn(async move {
            // Held open for as long as the proxy reports.
            let _answers = answers;
            while let Ok(Some(request)) = requests.message().await {
                if let Some(report) = request.report
                    && reports.send(report).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// An HTTP listener on a free port whose routes come by RDS.
pub(crate) fn listener(name: &str, route_table: &str) -> Listener {
    let text = format!(
        r#"
static_resources:
  listeners:
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          rds: {{route_config_name: {route_table}, config_source: {{ads: {{}}}}}}
"#
    );
    parse(&text).listeners.remove(0)
}

/// All requests to one cluster.
pub(crate) fn routes(name: &str, cluster: &str) -> RouteConfiguration {
    use proto::pb::envoy::config::route::v3::{
        Route, RouteAction, RouteMatch, VirtualHost, route::Action, route_action::ClusterSpecifier,
        route_match::PathSpecifier,
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..RouteAction::default()
    };
    let every =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() };
    let route = Route { r#match: Some(every), action: Some(Action::Route(action)), ..Route::default() };
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

/// A cluster whose endpoints come by EDS.
pub(crate) fn cluster(name: &str) -> Cluster {
    let text = format!(
        "static_resources: {{clusters: [{{name: {name}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}}}}}}}]}}"
    );
    parse(&text).clusters.remove(0)
}

/// A transport address.
pub(crate) fn address(at: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// One endpoint.
pub(crate) fn endpoints(name: &str, at: SocketAddr) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: Some(address(at)), ..Endpoint::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    }
}

fn parse(text: &str) -> proto::pb::envoy::config::bootstrap::v3::bootstrap::StaticResources {
    let message = proto::bootstrap::parse("test", text).unwrap();
    Bootstrap::decode(&*message).unwrap().static_resources.unwrap()
}
