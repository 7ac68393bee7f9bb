//! A proxy whose whole configuration is its bootstrap file.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
};

use rustix::process::Signal;

use crate::support::{Home, Proxy, origin, soon, text_of};

/// One listener on `listen`, all requests to `upstream`.
pub(crate) fn bootstrap(home: &Home, listen: &str, upstream: SocketAddr) -> String {
    let (ip, port) = (upstream.ip(), upstream.port());
    let (listen_ip, listen_port) = listen.rsplit_once(':').unwrap();
    home.admin()
        + &format!(
            r#"
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: {listen_ip}, port_value: {listen_port}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: all
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}
  clusters:
  - name: app
    type: STRICT_DNS
    dns_lookup_family: V4_ONLY
    load_assignment:
      cluster_name: app
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
"#
        )
}

const ANY: &str = "127.0.0.1:0";

async fn ended_with(proxy: Proxy, lines: &[&str]) {
    let (status, log) = proxy.end().await;
    assert_eq!((status.code(), log), (Some(1), lines.iter().map(ToString::to_string).collect()));
}

#[tokio::test]
async fn connections_that_stay_are_even_over_the_workers() {
    for io in ["auto", "epoll"] {
        let home = Home::new();
        let upstream = origin("app").await;
        let mut proxy = home.start(&bootstrap(&home, ANY, upstream), &["--workers", "8", "--io", io]);
        proxy.is_ready().await;
        let mut clients = Vec::new();
        for _ in 0..32 {
            let mut client = proxy.connect("in").await;
            assert_eq!(client.get("/").await.unwrap().0, 200);
            clients.push(client);
        }
        let page = proxy.json("/cores").await;
        let of_each = |field: &str| -> Vec<u64> {
            page["cores"].as_array().unwrap().iter().map(|core| core[field].as_u64().unwrap()).collect()
        };
        let connections = of_each("connections");
        assert_eq!(connections.iter().sum::<u64>(), 32);
        // Four each, and one more where a worker was busy for a moment; by their hashes alone some would have none.
        assert!(connections.iter().all(|count| (3..=5).contains(count)), "{connections:?}");
        assert_eq!(of_each("handed_over").iter().sum::<u64>(), of_each("taken_over").iter().sum::<u64>());
        // Whoever serves a connection now serves its next request, too.
        for client in &mut clients {
            assert_eq!(client.get("/").await.unwrap().0, 200);
        }
    }
}

#[tokio::test]
async fn what_many_routes_needed_to_be_read_is_given_back() {
    let home = Home::new();
    let text = bootstrap(&home, ANY, origin("app").await);
    let route = |n| format!("{{match: {{prefix: /{n}/}}, route: {{cluster: app}}}}, ");
    let routes: String = (0..5000).map(route).collect();
    let text = text.replace("routes: [", &format!("routes: [{routes}"));
    let mut proxy = home.start(&text, &["--workers", "1", "--log", "debug"]);
    proxy.says("memory given back").await;
    assert_eq!(proxy.connect("in").await.get("/4999/").await.unwrap().0, 200);
    // Decoded all at once they need 30 MB, which then stay with the allocator.
    let kb = proxy.own_memory_kb();
    assert!(kb < 13_000, "{kb} kB");
}

#[tokio::test]
async fn a_bootstrap_file_is_enough_for_traffic_and_its_metrics_on_both_drivers() {
    for io in ["auto", "epoll"] {
        let home = Home::new();
        let upstream = origin("app").await;
        let mut proxy = home.start(&bootstrap(&home, ANY, upstream), &["--workers", "2", "--io", io]);
        proxy.is_ready().await;
        let mut client = proxy.connect("in").await;
        for _ in 0..3 {
            let (status, body, _) = client.get("/").await.unwrap();
            assert_eq!((status, body.as_str()), (200, "app"));
        }
        let total = "envoy_cluster_upstream_rq_total{envoy_cluster_name=\"app\"}";
        assert_eq!(proxy.metric(total).await, 3.0);
        let class = "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_prefix=\"ingress\"}";
        // A client has its response a moment before the worker has counted it.
        soon("three responses", async { while proxy.metric(class).await != 3.0 {} }).await;
        assert_eq!(proxy.metric("envoy_server_live{}").await, 1.0);
        let requests = |cores: &serde_json::Value| -> u64 {
            cores["cores"].as_array().unwrap().iter().map(|core| core["requests"].as_u64().unwrap()).sum()
        };
        soon("three requests", async { while requests(&proxy.json("/cores").await) != 3 {} }).await;
        let cores = proxy.json("/cores").await;
        if io == "epoll" {
            assert_eq!(cores["io_driver"], "epoll");
        }
        let dump = proxy.json("/config_dump").await;
        assert_eq!(dump["types"][1]["static"], serde_json::json!(["app"]));
        drop(client);
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_one_line_and_exit_code_1() {
    let home = Home::new();
    let file = home.path("bootstrap.yaml");
    let file = text_of(&file);
    let good = bootstrap(&home, ANY, origin("app").await);
    for (text, error) in [
        (
            good.replace("    type: STRICT_DNS\n", "    type: STRICT_DNS\n    outlier_detection: {}\n"),
            format!("{file}:23:5: static_resources.clusters[0].outlier_detection: not supported by Ringway"),
        ),
        (
            good.replace("{prefix: /}", "{safe_regex: {regex: '('}}"),
            format!(
                "{file}: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.\
                 virtual_hosts[0].routes[0].match.safe_regex.regex: "
            ),
        ),
    ] {
        let (status, log) = home.start(&text, &[]).end().await;
        assert_eq!(status.code(), Some(1));
        let [line] = &log[..] else { panic!("{log:#?}") };
        assert!(line.starts_with(&format!("ringway-proxy: {error}")), "{line}");
    }
    std::fs::remove_file(home.path("bootstrap.yaml")).unwrap();
    assert!(!home.path("admin.sock").exists(), "nothing may be half-started");
}

#[tokio::test]
async fn a_listener_whose_address_is_taken_stops_the_start() {
    let home = Home::new();
    let foreign = TcpListener::bind(ANY).unwrap();
    let taken = foreign.local_addr().unwrap().to_string();
    let proxy = home.start(&bootstrap(&home, &taken, origin("app").await), &["--log", "off"]);
    let file = home.path("bootstrap.yaml");
    let error = format!(
        "ringway-proxy: {}: listener `in`: address: cannot listen on {taken}: Address already in use (os error 98)",
        file.display()
    );
    ended_with(proxy, &[&error]).await;
}

#[tokio::test]
async fn a_file_without_resources_is_served_as_it_is() {
    let home = Home::new();
    let mut proxy = home.start(&home.admin(), &[]);
    proxy.is_ready().await;
    assert_eq!(proxy.ask("/listeners").await, (200, String::new()));
    proxy.stop().await;
}

#[tokio::test]
async fn validate_says_ok_and_serves_nothing() {
    let home = Home::new();
    let proxy = home.start(&bootstrap(&home, ANY, origin("app").await), &["--validate"]);
    let (status, log) = proxy.end().await;
    assert!(status.success() && log.is_empty(), "{log:?}");
    assert!(!home.path("admin.sock").exists());
}

#[tokio::test]
async fn the_end_of_standard_input_or_a_signal_drains_and_ends_the_process() {
    let home = Home::new();
    let text = bootstrap(&home, ANY, origin("app").await);
    let mut proxy = home.start(&text, &["--exit-on-stdin-eof"]);
    proxy.is_ready().await;
    proxy.stdin = None;
    assert!(proxy.end().await.0.success());
    let mut proxy = home.start(&text, &[]);
    proxy.is_ready().await;
    proxy.signal(Signal::INT);
    assert!(proxy.end().await.0.success());
}

#[tokio::test]
async fn a_drain_that_runs_out_of_time_says_what_held_it() {
    let home = Home::new();
    // Takes connections and never answers.
    let silent = TcpListener::bind(ANY).unwrap();
    let tcp = r#"
  - name: tcp
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: app
  clusters:"#;
    let text = bootstrap(&home, ANY, silent.local_addr().unwrap()).replace("\n  clusters:", tcp);
    let mut proxy = home.start(&text, &["--drain-timeout", "100ms"]);
    proxy.is_ready().await;
    let (in_http, in_tcp) = (proxy.address("in").await, proxy.address("tcp").await);
    let _tcp = [TcpStream::connect(in_tcp).unwrap(), TcpStream::connect(in_tcp).unwrap()];
    let mut http = TcpStream::connect(in_http).unwrap();
    http.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let labels = "{envoy_cluster_name=\"app\"}";
    for (gauge, wanted) in [("upstream_cx_active", 3.0), ("upstream_rq_active", 1.0)] {
        let name = format!("envoy_cluster_{gauge}{labels}");
        soon(&name, async { while proxy.metric(&name).await != wanted {} }).await;
    }
    proxy.signal(Signal::TERM);
    let line = proxy.says("drained no longer").await;
    assert!(line.contains("connections=3 exchanges=1 tcp_connections=2"), "{line}");
    assert!(proxy.end().await.0.success());
}
