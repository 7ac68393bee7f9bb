//! HAProxy before and behind the proxy: what one says in a PROXY protocol header, the other reads.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    net::TcpSocket,
    process::{Child, Command},
};

use crate::support::{Client, Home, soon, text_of};

/// How HAProxy begins connections to us; with values behind the addresses, too.
const SENDS: [&str; 3] =
    ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"];

const LISTENERS: [&str; 4] = ["http-V1", "http-V2", "tcp-V1", "tcp-V2"];

/// Listeners that read headers; each sends on to `upstream` by HTTP or TCP and writes a header of a version.
fn bootstrap(home: &Home, upstream: SocketAddr) -> String {
    let mut listeners = String::new();
    for name in LISTENERS {
        let (kind, version) = name.split_once('-').unwrap();
        let filter = match kind {
            "http" => format!(
                r#"
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          use_remote_address: true
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: all
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: {version}}}}}]}}"#
            ),
            _ => format!(
                r#"
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: {name}
          cluster: {version}"#
            ),
        };
        listeners.push_str(&format!(
            r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    listener_filters:
    - name: envoy.filters.listener.proxy_protocol
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}
    filter_chains:
    - filters:
      - name: of-{kind}{filter}"#
        ));
    }
    let (ip, port) = (upstream.ip(), upstream.port());
    let clusters: String = ["V1", "V2"]
        .iter()
        .map(|version| {
            format!(
                r#"
  - name: {version}
    load_assignment:
      cluster_name: {version}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
    transport_socket:
      name: envoy.transport_sockets.upstream_proxy_protocol
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
        config: {{version: {version}}}
        transport_socket:
          name: envoy.transport_sockets.raw_buffer
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}"#
            )
        })
        .collect();
    home.admin() + &format!("static_resources:\n  listeners:{listeners}\n  clusters:{clusters}\n")
}

/// A port that HAProxy, told of it, can listen at and nobody else gets.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The program, fetched if it is not there yet.
fn haproxy_program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let program = cache.join("peers/bin/haproxy");
    if !program.exists() {
        let setup = std::process::Command::new(root.join("deploy/setup.sh")).arg("test").status().unwrap();
        assert!(setup.success(), "HAProxy could not be fetched");
    }
    program
}

fn haproxy(home: &Home, config: &str) -> Child {
    let file = home.path("haproxy.cfg");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(haproxy_program());
    command.args(["-db", "-f", text_of(&file)]).stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

#[tokio::test]
async fn haproxy_understands_our_headers_and_we_understand_those_of_haproxy() {
    let home = Home::new();
    let [(_front, front), (_back, back)] = [reserve(), reserve()];
    let mut proxy = home.start(&bootstrap(&home, back), &["--workers", "1"]);
    proxy.is_ready().await;
    let mut config = format!(
        "defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend back
  bind {back} accept-proxy
  http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port]\"
frontend front
  bind {front}
  use_backend %[path,field(2,/)]
"
    );
    for listener in LISTENERS {
        let address = proxy.address(listener).await;
        for send in SENDS {
            let name = backend(listener, send);
            config.push_str(&format!("backend {name}\n  server ringway {address} {send}\n"));
        }
    }
    let mut peer = haproxy(&home, &config);
    for listener in LISTENERS {
        for send in SENDS {
            let (client, mut connection) = connect(front, &mut peer).await;
            let target = format!("/{}", backend(listener, send));
            for _ in 0..2 {
                let (status, body, _) = connection.get(&target).await.unwrap();
                assert_eq!((status, body), (200, format!("{client} {front}")), "{target}");
            }
        }
    }
    // Or the proxy would wait for the TCP connections that it keeps open.
    peer.kill().await.unwrap();
    proxy.stop().await;
}

fn backend(listener: &str, send: &str) -> String {
    let options = if send.contains(' ') { "-options" } else { "" };
    format!("{listener}-{}{options}", send.split(' ').next().unwrap())
}

/// From an address that nobody else here has.
async fn connect(to: SocketAddr, peer: &mut Child) -> (SocketAddr, Client<tokio::net::TcpStream>) {
    soon("HAProxy", async {
        loop {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
            let client = socket.local_addr().unwrap();
            match socket.connect(to).await {
                Ok(stream) => return (client, Client::over(stream)),
                Err(_) => assert!(peer.try_wait().unwrap().is_none(), "HAProxy ended"),
            }
        }
    })
    .await
}
