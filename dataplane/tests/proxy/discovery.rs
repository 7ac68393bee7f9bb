//! A proxy whose configuration comes from a control plane.

use proto::{
    control::report_request::Report,
    pb::envoy::config::{cluster::v3::Cluster, listener::v3::Listener, route::v3::RouteConfiguration},
    type_url,
};
use rustix::process::Signal;
use serde_json::json;
use translate::assemble::hash_of;

use crate::{
    control_plane::{AdsStream, ControlPlane, address, cluster, endpoints, listener, routes},
    support::{Client, Home, Proxy, origin, refuses, soon},
};

fn bootstrap(home: &Home) -> String {
    home.admin()
        + &format!(
            r#"
node: {{id: web-1, cluster: web, metadata: {{ringway: {{role: sidecar}}}}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control}}}}]
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: control
    type: STATIC
    load_assignment:
      cluster_name: control
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {}}}}}}}}}]}}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
"#,
            home.path("control.sock").display()
        )
}

/// Two clusters, a listener, and routes to the first cluster; all of it accepted and serving.
async fn configure(control_plane: &mut ControlPlane, proxy: &mut Proxy) -> AdsStream {
    let mut ads = control_plane.stream().await;
    let clusters = [("blue", "1", cluster("blue")), ("green", "1", cluster("green"))];
    assert_eq!(ads.send(&clusters).await, None);
    let (blue, green) = (origin("blue").await, origin("green").await);
    let assignments = [("blue", "1", endpoints("blue", blue)), ("green", "1", endpoints("green", green))];
    assert_eq!(ads.send(&assignments).await, None);
    assert_eq!(ads.send(&[("in", "1", listener("in", "table"))]).await, None);
    assert_eq!(ads.send(&[("table", "1", routes("table", "blue"))]).await, None);
    proxy.is_ready().await;
    ads
}

async fn body_of(proxy: &Proxy) -> String {
    proxy.connect("in").await.get("/").await.unwrap().1
}

#[tokio::test]
async fn a_proxy_asks_for_what_its_configuration_names_and_reports_what_is_active() {
    let home = Home::new();
    let mut control_plane = ControlPlane::start(&home.path("control.sock"));
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = control_plane.stream().await;
    let first = ads.request(type_url::CLUSTER).await;
    let node = first.node.unwrap();
    assert_eq!((node.id.as_str(), node.user_agent_name.as_str()), ("web-1", "ringway-proxy"));
    assert!(first.resource_names_subscribe.is_empty());
    let hello = control_plane.report().await;
    assert!(matches!(hello, Report::Hello(hello) if hello.node_id == "web-1" && hello.workers == 1));

    assert_eq!(ads.send(&[("blue", "7", cluster("blue"))]).await, None);
    let ask = ads.request(type_url::CLUSTER_LOAD_ASSIGNMENT).await;
    assert_eq!(ask.resource_names_subscribe, ["blue"]);
    assert_eq!(ads.send(&[("in", "1", listener("in", "table"))]).await, None);
    assert_eq!(ads.request(type_url::ROUTE_CONFIGURATION).await.resource_names_subscribe, ["table"]);
    let waiting = proxy.ask("/ready").await;
    assert_eq!(waiting, (503, "INITIALIZING\n".to_owned()), "the listener waits for its routes");
    assert_eq!(ads.send(&[("blue", "3", endpoints("blue", origin("blue").await))]).await, None);
    assert_eq!(ads.send(&[("table", "2", routes("table", "blue"))]).await, None);
    proxy.is_ready().await;
    assert_eq!(body_of(&proxy).await, "blue");

    let expected = format!("{:016x}", hash_of([("table", "2")]));
    loop {
        let Report::Active(active) = control_plane.report().await else { panic!("a second hello") };
        let routes = active.types.iter().find(|of| of.type_url == type_url::ROUTE_CONFIGURATION).unwrap();
        if routes.hash == expected {
            assert_eq!((routes.resources_count, routes.warming_count), (1, 0));
            break;
        }
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_change_of_routes_under_load_closes_no_connection_and_loses_no_request() {
    let home = Home::new();
    let mut control_plane = ControlPlane::start(&home.path("control.sock"));
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = configure(&mut control_plane, &mut proxy).await;
    let address = proxy.address("in").await;
    let load: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::to(address).await;
                let mut before_blue = 0;
                // On one connection from blue to green.
                loop {
                    let (status, body, _) = client.get("/").await.expect("the connection was closed");
                    match (status, body.as_str()) {
                        (200, "blue") => before_blue += 1,
                        (200, "green") => return before_blue,
                        other => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let requests = "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=\"in\"}";
    soon("load", async { while proxy.metric(requests).await < 100.0 {} }).await;
    for version in 2..50 {
        let to = if version == 49 { "green" } else { "blue" };
        assert_eq!(ads.send(&[("table", &version.to_string(), routes("table", to))]).await, None);
    }
    for client in load {
        soon("green", client).await.unwrap();
    }
    assert_eq!(
        proxy.metric("envoy_http_downstream_cx_total{envoy_http_conn_manager_prefix=\"in\"}").await,
        8.0
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_poisoned_resource_is_named_in_the_nack_and_changes_nothing_that_runs() {
    let home = Home::new();
    let mut control_plane = ControlPlane::start(&home.path("control.sock"));
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = configure(&mut control_plane, &mut proxy).await;
    let mut client = proxy.connect("in").await;
    assert_eq!(client.get("/").await.unwrap().1, "blue");

    let maglev = Cluster { lb_policy: 5, ..cluster("blue") };
    let nack = ads.send(&[("blue", "2", maglev), ("red", "1", cluster("red"))]).await;
    let reason =
        "lb_policy: MAGLEV is not supported by Ringway; supported: ROUND_ROBIN, RANDOM, LEAST_REQUEST";
    assert_eq!(nack, Some(format!("blue: {reason}")));
    ads.was_asked(type_url::CLUSTER_LOAD_ASSIGNMENT, "red").await;
    let nack = ads
        .send(&[("table", "2", RouteConfiguration { name: "other".into(), ..routes("table", "green") })])
        .await;
    assert_eq!(nack, Some("table: the resource is named `other` inside".to_owned()));

    assert_eq!(client.get("/").await.unwrap().1, "blue", "on the same connection");
    let dump = proxy.json("/config_dump").await;
    let clusters = &dump["types"][1];
    assert_eq!(clusters["rejected"], json!([{"name": "blue", "version": "2", "reason": reason}]));
    assert_eq!(
        clusters["active"],
        json!([{"name": "blue", "version": "1"}, {"name": "green", "version": "1"}])
    );
    assert_eq!(clusters["warming"], json!(["red"]), "the good neighbour was taken");
    assert_eq!(proxy.metric("envoy_cluster_manager_cds_update_rejected{}").await, 1.0);
    proxy.stop().await;
}

#[tokio::test]
async fn a_listener_that_cannot_be_bound_is_refused_and_others_come_move_and_go() {
    let home = Home::new();
    let mut control_plane = ControlPlane::start(&home.path("control.sock"));
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = configure(&mut control_plane, &mut proxy).await;
    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = foreign.local_addr().unwrap();
    let bad = Listener { address: Some(address(taken)), ..listener("bad", "table") };
    let nack = ads.send(&[("bad", "1", bad), ("more", "1", listener("more", "table"))]).await.unwrap();
    assert!(nack.starts_with(&format!("bad: address: cannot listen on {taken}: ")), "{nack}");
    proxy.says("snapshot published").await;
    assert_eq!(proxy.connect("more").await.get("/").await.unwrap().1, "blue");

    let before = proxy.address("more").await;
    let other_address = Some(address("127.0.0.2:0".parse().unwrap()));
    let moved = Listener { address: other_address, ..listener("more", "table") };
    assert_eq!(ads.send(&[("more", "2", moved)]).await, None);
    proxy.says("snapshot published").await;
    refuses(before).await;
    assert_eq!(proxy.connect("more").await.get("/").await.unwrap().1, "blue");

    let after = proxy.address("more").await;
    assert_eq!(ads.remove::<Listener>(&["more"]).await, None);
    proxy.says("snapshot published").await;
    refuses(after).await;
    assert_eq!(body_of(&proxy).await, "blue");
    assert_eq!(proxy.json("/config_dump").await["types"][3]["active"].as_array().unwrap().len(), 1);
    proxy.stop().await;
}

#[tokio::test]
async fn without_its_control_plane_a_proxy_goes_on_starts_again_and_converges_later() {
    let home = Home::new();
    let socket = home.path("control.sock");
    let mut control_plane = ControlPlane::start(&socket);
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = configure(&mut control_plane, &mut proxy).await;
    let maglev = Cluster { lb_policy: 5, ..cluster("blue") };
    assert!(ads.send(&[("blue", "2", maglev)]).await.is_some(), "what is refused is not kept either");
    drop(ads);
    control_plane.kill().await;
    proxy.says("no control plane").await;
    assert_eq!(body_of(&proxy).await, "blue");
    let mut control_plane = ControlPlane::start(&socket);
    let mut ads = control_plane.stream().await;
    ads.request(type_url::CLUSTER).await;
    assert_eq!(ads.send(&[("blue", "1", cluster("blue"))]).await, None);
    let back = proxy.says("connected to the control plane").await;
    assert!(back.contains("after="), "{back}");
    drop(ads);
    control_plane.kill().await;
    proxy.stop().await;

    let mut proxy = home.start(&bootstrap(&home), &[]);
    proxy.is_ready().await;
    assert_eq!(body_of(&proxy).await, "blue", "from the disk");
    let mut control_plane = ControlPlane::start(&socket);
    let mut ads = control_plane.stream().await;
    let first = ads.request(type_url::CLUSTER).await;
    let mut kept: Vec<_> = first.initial_resource_versions.into_iter().collect();
    kept.sort();
    assert_eq!(kept, [("blue".into(), "1".into()), ("green".into(), "1".into())]);
    assert_eq!(ads.request(type_url::ROUTE_CONFIGURATION).await.resource_names_subscribe, ["table"]);
    let mut client = proxy.connect("in").await;
    assert_eq!(ads.send(&[("table", "2", routes("table", "green"))]).await, None);
    client.until_answered("green").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_cluster_that_never_had_endpoints_does_not_keep_the_last_good_configuration_from_serving() {
    let home = Home::new();
    let socket = home.path("control.sock");
    let mut control_plane = ControlPlane::start(&socket);
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = configure(&mut control_plane, &mut proxy).await;
    assert_eq!(ads.send(&[("red", "1", cluster("red"))]).await, None);
    assert_eq!(ads.send(&[("late", "1", listener("late", "later"))]).await, None);
    ads.was_asked(type_url::ROUTE_CONFIGURATION, "later").await;
    proxy.stop().await;
    drop(ads);
    control_plane.kill().await;

    let mut proxy = home.start(&bootstrap(&home), &[]);
    proxy.says("not in the last good configuration").await;
    proxy.is_ready().await;
    assert_eq!(body_of(&proxy).await, "blue");
    assert_eq!(proxy.connect("late").await.get("/").await.unwrap().0, 404);
    // What was given up is still asked for, and serves as soon as it comes.
    let mut control_plane = ControlPlane::start(&socket);
    let mut ads = control_plane.stream().await;
    assert_eq!(ads.send(&[("red", "1", endpoints("red", origin("red").await))]).await, None);
    assert_eq!(ads.send(&[("later", "1", routes("later", "red"))]).await, None);
    proxy.connect("late").await.until_answered("red").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_storm_of_endpoints_makes_fewer_snapshots_than_changes_and_ends_with_the_last() {
    let home = Home::new();
    let mut control_plane = ControlPlane::start(&home.path("control.sock"));
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let mut ads = configure(&mut control_plane, &mut proxy).await;
    let (blue, other) = (origin("blue").await, origin("other").await);
    for version in 2..=300 {
        let at = if version == 300 { other } else { blue };
        let assignment = [("blue", version.to_string(), endpoints("blue", at))];
        let assignment =
            assignment.each_ref().map(|(name, version, message)| (*name, version.as_str(), message.clone()));
        assert_eq!(ads.send(&assignment).await, None);
    }
    let mut client = proxy.connect("in").await;
    client.until_answered("other").await;
    assert_eq!(proxy.metric("ringway_eds_update_attempt{}").await, 300.0);
    proxy.signal(Signal::TERM);
    let told = proxy.end().await.1.into_iter().filter(|line| line.contains("published")).count();
    assert!(told < 10, "{told} lines of log for what nobody acts on");
}

#[tokio::test]
async fn a_damaged_state_file_is_ignored_with_a_warning() {
    let home = Home::new();
    let mut control_plane = ControlPlane::start(&home.path("control.sock"));
    let mut proxy = home.start(&bootstrap(&home), &[]);
    configure(&mut control_plane, &mut proxy).await;
    proxy.stop().await;
    let file = std::fs::read_dir(home.path("data")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut proxy = home.start(&bootstrap(&home), &[]);
    let warning = proxy.says("the last good configuration on disk is ignored").await;
    assert!(warning.contains("its checksum is wrong"), "{warning}");
    configure(&mut control_plane, &mut proxy).await;
    assert_eq!(body_of(&proxy).await, "blue");
    proxy.stop().await;
}
