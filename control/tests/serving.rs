//! Stories of what proxies get: a control plane in this process, documents in a directory, clients on real streams.

mod support;

use std::time::Duration;

use prost::Message as _;
use proto::ads::DeltaDiscoveryResponse;
use proto::control::{Registration, register_request::Message};
use proto::pb::envoy::config::core::v3::{HealthStatus, address::Address, socket_address::PortSpecifier};
use proto::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier};
use proto::type_url::{CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION};
use ringway::api::{DocumentList, ServiceRow};
use ringway::report::SyncState;
use support::{
    Ads, Plane, Workload, eventually, gateway, names, registration, route, service, subscribe, wildcard,
};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: ringway
  listeners: [{name: web, port: 8080, protocol: HTTP}]
";

/// The gateway routes to `pay`.
async fn shop() -> Plane {
    let documents =
        [("gateway.yaml", GATEWAY), ("route.yaml", &route("pay")), ("pay.yaml", &service("pay", 7001))];
    Plane::start(&documents).await
}

const PAY: &str = "outbound|80|pay.shop";
const CART: &str = "outbound|80|cart.shop";
const EDGE: &str = "gateway|shop/edge|8080";

/// A client of every type that has taken everything.
async fn taken(plane: &Plane, agent: &str) -> Ads {
    let mut ads =
        Ads::open(plane.socket(), gateway("edge-1", "shop", "edge", agent), wildcard(CLUSTER)).await;
    let clusters = ads.next_of(CLUSTER).await;
    assert_eq!(names(&clusters), [PAY]);
    ads.send(subscribe(CLUSTER_LOAD_ASSIGNMENT, &[PAY])).await;
    ads.ack(&clusters).await;
    let endpoints = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
    ads.ack(&endpoints).await;
    ads.send(wildcard(LISTENER)).await;
    let listeners = ads.next_of(LISTENER).await;
    assert_eq!(names(&listeners), [EDGE]);
    ads.send(subscribe(ROUTE_CONFIGURATION, &[EDGE])).await;
    ads.ack(&listeners).await;
    let routes = ads.next_of(ROUTE_CONFIGURATION).await;
    ads.ack(&routes).await;
    plane.synced(1).await;
    ads
}

/// Addresses with their health, of the only resource in it.
fn endpoints(response: &DeltaDiscoveryResponse) -> Vec<(String, HealthStatus)> {
    assert_eq!(response.resources.len(), 1);
    let any = response.resources[0].resource.as_ref().unwrap();
    let assignment = ClusterLoadAssignment::decode(any.value.clone()).unwrap();
    let all = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let shown = all.map(|endpoint| {
        let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else { panic!("{endpoint:?}") };
        let Some(Address::SocketAddress(socket)) = host.address.as_ref().and_then(|a| a.address.clone())
        else {
            panic!("{host:?}")
        };
        let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("{socket:?}") };
        (format!("{}:{port}", socket.address), endpoint.health_status())
    });
    shown.collect()
}

#[tokio::test]
async fn a_new_backend_is_there_before_its_route_and_the_old_one_until_after_it() {
    let plane = shop().await;
    let mut ads = taken(&plane, "test").await;
    // In one file: two may be read one after the other.
    plane.write("route.yaml", &(service("cart", 7002) + "---" + &route("cart")));
    let clusters = ads.next_of(CLUSTER).await;
    assert_eq!((names(&clusters), clusters.removed_resources.is_empty()), (vec![CART], true));
    assert!(clusters.system_version_info.starts_with("r2-"), "{}", clusters.system_version_info);
    ads.is_quiet().await;
    ads.ack(&clusters).await;
    ads.is_quiet().await;
    ads.send(subscribe(CLUSTER_LOAD_ASSIGNMENT, &[CART])).await;
    let endpoints = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
    ads.is_quiet().await;
    ads.ack(&endpoints).await;
    let routes = ads.next_of(ROUTE_CONFIGURATION).await;
    assert_eq!(names(&routes), [EDGE]);
    ads.is_quiet().await;
    ads.ack(&routes).await;
    let removed = ads.next_of(CLUSTER).await;
    assert_eq!((names(&removed).len(), removed.removed_resources.as_slice()), (0, &[PAY.to_owned()][..]));
    ads.send(subscribe_not(&[PAY])).await;
    ads.ack(&removed).await;
    plane.synced(1).await;
}

fn subscribe_not(names: &[&str]) -> proto::ads::DeltaDiscoveryRequest {
    let unsubscribed = subscribe(CLUSTER_LOAD_ASSIGNMENT, names);
    proto::ads::DeltaDiscoveryRequest {
        resource_names_unsubscribe: unsubscribed.resource_names_subscribe.clone(),
        resource_names_subscribe: Vec::new(),
        ..unsubscribed
    }
}

#[tokio::test]
async fn a_poison_document_changes_nothing_that_runs() {
    let plane = shop().await;
    let mut ads = taken(&plane, "envoy").await;
    let before = plane.api().status().await.unwrap();
    plane.write("route.yaml", &route("pay").replace("rules:", "rulez:"));
    let status = plane.status(|status| status.document_errors == 1 && status.synced).await;
    assert_eq!(status.revision, before.revision);
    let list: DocumentList = plane.api().documents().await.unwrap();
    let error = &list.errors[0];
    assert_eq!((error.file.as_str(), error.line, error.last_good_serves), ("route.yaml", 7, true));
    assert!(error.reason.contains("rulez"), "{}", error.reason);
    assert!(list.documents.iter().any(|document| document.kind == "HTTPRoute"));
    // The others go on, and so does this one once it is good again.
    plane.write("pay.yaml", &service("pay", 7005));
    let moved = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(endpoints(&moved), [("127.0.0.1:7005".to_owned(), HealthStatus::Unknown)]);
    ads.ack(&moved).await;
    plane.write("route.yaml", &route("pay"));
    plane.status(|status| status.document_errors == 0 && status.synced).await;
    ads.is_quiet().await;
}

#[tokio::test]
async fn a_restart_finds_what_a_poison_document_was_before() {
    let plane = shop().await;
    let copy = plane.config().with_file_name("data").join("documents/route.yaml");
    eventually(async || std::fs::metadata(&copy)).await;
    plane.write("route.yaml", "]");
    plane.status(|status| status.document_errors == 1).await;
    let plane = plane.restart().await;
    let list: DocumentList = plane.api().documents().await.unwrap();
    assert!(list.errors[0].last_good_serves, "{:?}", list.errors);
    assert!(list.documents.iter().any(|document| document.kind == "HTTPRoute"));
}

#[tokio::test]
async fn every_document_is_shown_as_kubernetes_would_and_keeps_the_time_of_what_did_not_change() {
    let plane = shop().await;
    let route_of = async || {
        let list: serde_json::Value = plane.api().json("/api/v1/documents").await.unwrap();
        list["documents"].as_array().unwrap().iter().find(|d| d["kind"] == "HTTPRoute").unwrap().clone()
    };
    let condition = |route: &serde_json::Value, kind: &str| {
        let conditions = route["status"]["parents"][0]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap().clone()
    };
    let before = route_of().await;
    assert_eq!(before["apiVersion"], "gateway.networking.k8s.io/v1");
    assert_eq!(before["metadata"], serde_json::json!({"name": "main", "namespace": "shop"}));
    assert_eq!(before["origin"], "route.yaml:2:1");
    assert_eq!(condition(&before, "ResolvedRefs")["status"], "True");
    let time = condition(&before, "Accepted")["lastTransitionTime"].as_str().unwrap().to_owned();
    assert_eq!((time.len(), time.ends_with('Z')), ("2026-01-01T00:00:00Z".len(), true), "{time}");
    plane.write("route.yaml", &route("nobody"));
    plane.status(|status| status.revision.starts_with("r2-")).await;
    let after = route_of().await;
    assert_eq!(condition(&after, "ResolvedRefs")["reason"], "BackendNotFound");
    assert_eq!(condition(&after, "Accepted"), condition(&before, "Accepted"));
}

#[tokio::test]
async fn a_reconnect_with_its_versions_gets_nothing_even_from_another_process() {
    let plane = shop().await;
    let ads = taken(&plane, "envoy").await;
    drop(ads);
    let first = plane.api().status().await.unwrap().revision;
    let plane = plane.restart().await;
    assert_eq!(plane.api().status().await.unwrap().revision, first, "the same documents, the same revision");
    let node = gateway("edge-1", "shop", "edge", "envoy");
    let mut fresh = Ads::open(plane.socket(), gateway("edge-2", "shop", "edge", ""), wildcard(CLUSTER)).await;
    let clusters = fresh.next().await;
    fresh.send(subscribe(CLUSTER_LOAD_ASSIGNMENT, &[PAY])).await;
    let endpoints = fresh.next().await;
    drop(fresh);
    let kept = |response: &DeltaDiscoveryResponse| {
        response.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect()
    };
    let mut first = wildcard(CLUSTER);
    first.initial_resource_versions = kept(&clusters);
    let mut ads = Ads::open(plane.socket(), node, first).await;
    ads.is_quiet().await;
    let mut request = subscribe(CLUSTER_LOAD_ASSIGNMENT, &[PAY]);
    request.initial_resource_versions = kept(&endpoints);
    ads.send(request).await;
    ads.is_quiet().await;
}

#[tokio::test]
async fn a_workload_is_routable_when_ready_marked_when_it_drains_and_gone_when_it_leaves() {
    let plane = shop().await;
    let mut ads = taken(&plane, "test").await;
    let register = Registration { ready: false, ..registration("pay-1", "pay", "127.0.0.1:7010") };
    let (workload, told) = Workload::register(plane.socket(), register.clone()).await;
    assert_eq!(told.refused, "");
    let healthy = |port: u16| (format!("127.0.0.1:{port}"), HealthStatus::Unknown);
    let mut next = async || {
        let response = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
        ads.ack(&response).await;
        endpoints(&response)
    };
    let ready = Registration { ready: true, ..register.clone() };
    workload.send(Message::Registration(ready.clone())).await;
    assert_eq!(next().await, [healthy(7001), healthy(7010)]);
    workload.send(Message::Registration(Registration { draining: true, ..ready })).await;
    assert_eq!(next().await, [healthy(7001), ("127.0.0.1:7010".to_owned(), HealthStatus::Draining)]);
    workload.unregister().await;
    assert_eq!(next().await, [healthy(7001)]);
    let revision = plane.api().status().await.unwrap().revision;
    assert!(revision.starts_with("r1-"), "endpoints make no new configuration: {revision}");
}

#[tokio::test]
async fn a_service_that_nobody_wrote_down_exists_while_a_workload_registers_it() {
    let plane = shop().await;
    let (_workload, _) =
        Workload::register(plane.socket(), registration("new-1", "new", "127.0.0.1:7011")).await;
    let services: Vec<ServiceRow> = support::eventually(async || {
        let services: Vec<ServiceRow> = plane.api().json("/api/v1/services").await.unwrap();
        if services.len() == 2 { Ok(services) } else { Err(services) }
    })
    .await;
    let shown: Vec<_> =
        services.iter().map(|s| (s.name.as_str(), s.source.as_str(), s.ports[0].port)).collect();
    assert_eq!(shown, [("new", "run", 80), ("pay", "documents", 80)]);
    assert_eq!(services[0].ports[0].endpoints[0].address, "127.0.0.1:7011");
}

#[tokio::test]
async fn a_restart_takes_no_endpoint_away_before_its_workload_can_come_back() {
    let plane = shop().await;
    let (workload, _) =
        Workload::register(plane.socket(), registration("pay-1", "pay", "127.0.0.1:7010")).await;
    plane.knows("pay-1").await;
    let node = || gateway("edge-1", "shop", "edge", "");
    let first = subscribe(CLUSTER_LOAD_ASSIGNMENT, &[PAY]);
    let mut ads = Ads::open(plane.socket(), node(), first.clone()).await;
    let response = ads.next().await;
    assert_eq!(endpoints(&response).len(), 2);
    drop((ads, workload));
    let plane = plane.restart().await;
    let mut again = first;
    again.initial_resource_versions =
        response.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect();
    let mut ads = Ads::open(plane.socket(), node(), again.clone()).await;
    ads.is_quiet().await;
    // It does not come back: one lease later, here a short one, it is gone.
    let plane = plane.restart_with_lease(Duration::from_millis(100)).await;
    let mut ads = Ads::open(plane.socket(), node(), again).await;
    let later = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(endpoints(&later).len(), 1);
}

#[tokio::test]
async fn without_memory_of_registrations_a_returning_client_keeps_what_it_has_for_one_lease() {
    let lease = Duration::from_secs(1);
    let documents =
        [("gateway.yaml", GATEWAY), ("route.yaml", &route("pay")), ("pay.yaml", &service("pay", 7001))];
    let started = std::time::Instant::now();
    let plane = Plane::with_lease(lease, &documents).await;
    let mut returning = subscribe(CLUSTER_LOAD_ASSIGNMENT, &[PAY]);
    returning.initial_resource_versions = [(PAY.to_owned(), "old".to_owned())].into();
    let mut ads = Ads::open(plane.socket(), gateway("edge-1", "shop", "edge", ""), returning).await;
    assert_eq!(names(&ads.next().await), [PAY]);
    assert!(started.elapsed() >= lease, "answered after {:?}", started.elapsed());
}

#[tokio::test]
async fn a_fresh_answer_is_about_what_was_written_before_the_question() {
    let plane = shop().await;
    let mut ads = taken(&plane, "envoy").await;
    let before = plane.api().status().await.unwrap();
    assert!(before.synced);
    for port in 7010..7020 {
        // Whoever asks at once after writing must not be told of the revision before.
        plane.write("pay.yaml", &service("pay", port));
        let fresh = plane.api().status_now().await.unwrap();
        assert!(!fresh.synced, "{} has not reached the proxy", fresh.revision);
        let moved = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
        assert_eq!(moved.system_version_info, fresh.revision);
        ads.ack(&moved).await;
        plane.synced(1).await;
    }
    plane.write("broken.yaml", "[");
    assert_eq!(plane.api().status_now().await.unwrap().document_errors, 1);
    let last = plane.api().status_now().await.unwrap();
    assert_eq!(last.revision, plane.api().status().await.unwrap().revision, "looking changes nothing");
    assert!(plane.api().json::<serde_json::Value>("/api/v1/status?fresh=perhaps").await.is_err());
}

#[tokio::test]
async fn a_refusal_is_shown_with_resource_and_reason_until_a_good_version_is_taken() {
    let plane = shop().await;
    let mut ads = taken(&plane, "envoy").await;
    plane.write("pay.yaml", &service("pay", 7006));
    let moved = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
    ads.nack(&moved, "outbound|80|pay.shop: endpoints[0]: bad").await;
    let status = plane.status(|status| status.proxies[0].state == SyncState::Nack).await;
    let refused = &status.proxies[0].refused[0];
    assert_eq!((refused.kind.as_str(), refused.name.as_str()), ("eds", PAY));
    assert_eq!(refused.reason, "outbound|80|pay.shop: endpoints[0]: bad");
    plane.write("pay.yaml", &service("pay", 7007));
    let good = ads.next_of(CLUSTER_LOAD_ASSIGNMENT).await;
    ads.ack(&good).await;
    plane.synced(1).await;
}

#[tokio::test]
async fn whoever_cannot_be_a_client_is_told_why() {
    let plane = Plane::start(&[]).await;
    let good = gateway("edge-1", "shop", "edge", "");
    let nameless = proto::pb::envoy::config::core::v3::Node { id: String::new(), ..good.clone() };
    let unknown = proto::pb::envoy::config::core::v3::Node { metadata: None, ..good.clone() };
    let long = "x".repeat(2000);
    let table = [
        (nameless, wildcard(CLUSTER), "node.id has to have 1 to 512 bytes"),
        (unknown, wildcard(CLUSTER), "node edge-1: node.metadata has no struct `ringway`"),
        (good, subscribe(CLUSTER, &[&long]), "a cds name of 2000 bytes, the limit is 1024"),
    ];
    for (node, first, reason) in table {
        let mut ads = Ads::open(plane.socket(), node, first).await;
        let status = ads.end().await.expect("an error");
        assert_eq!(status.message(), reason);
    }
}

#[tokio::test]
async fn a_stop_ends_every_stream_and_frees_the_ports() {
    let plane = shop().await;
    let mut ads = taken(&plane, "envoy").await;
    let (workload, _) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    let (socket, api) = (plane.socket().to_owned(), plane.server.api());
    plane.server.stop().await;
    assert_eq!(ads.end().await.map(|status| status.to_string()), None, "in good order, not cut off");
    drop(workload);
    assert!(!socket.exists());
    std::net::TcpListener::bind(api).unwrap();
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_control_plane_at_a_time() {
    let plane = Plane::start(&[]).await;
    let second =
        ringway::server::Server::start(support::options(plane.dir.path(), Duration::from_secs(60))).await;
    let data = plane.dir.path().join("data");
    let said = format!(
        "the data directory {} belongs to another ringway that runs; --data-dir names another place",
        data.display()
    );
    assert_eq!(second.unwrap_err().to_string(), said);
    plane.restart().await;
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_in_nobodys_way_and_one_that_is_served_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    let options = support::options(dir.path(), Duration::from_secs(60));
    drop(std::os::unix::net::UnixListener::bind(&options.socket).unwrap());
    let server = ringway::server::Server::start(options.clone()).await.unwrap();
    let node = gateway("edge-1", "shop", "edge", "");
    let mut ads = Ads::open(&options.socket, node, wildcard(CLUSTER)).await;
    assert_eq!(ads.next().await.type_url, CLUSTER);
    let other = ringway::server::Options { data_dir: dir.path().join("other"), ..options.clone() };
    let second = ringway::server::Server::start(other).await.unwrap_err().to_string();
    assert_eq!(second, format!("cannot listen on {} (--socket)", options.socket.display()));
    server.stop().await;
    assert!(!options.socket.exists());
}
