//! What the proxies are told: the bootstrap of Ringway, and the same for HAProxy.

use std::{net::SocketAddr, path::Path, time::Duration};

use super::Setting;
use crate::world::{TIMEOUT, World};

/// The bootstrap of Ringway.
pub(super) fn bootstrap(admin: &Path, setting: &Setting, world: &World) -> String {
    let timeout = TIMEOUT.as_secs_f32();
    let cluster = |name: &str, addresses: &[SocketAddr]| {
        let endpoints: Vec<String> = addresses.iter().map(|address| endpoint(*address)).collect();
        let endpoints = endpoints.join(", ");
        format!(
            "  - {{name: {name}, type: STATIC, connect_timeout: {timeout}s, load_assignment: {{cluster_name: {name}, \
             endpoints: [{{lb_endpoints: [{endpoints}]}}]}}}}\n"
        )
    };
    let clusters = [
        cluster("origin", &[world.origin.address]),
        cluster("three", &world.three.each_ref().map(|origin| origin.address)),
        cluster("mute", &[world.mute.address]),
        cluster("refused", &[world.refused.1]),
        cluster("tcp", &[world.tcp.address]),
    ];
    let own = setting.clusters.iter().map(|(name, text)| format!("  - {{name: {name}, {text}}}\n"));
    let (admin, clusters) = (admin.display(), clusters.into_iter().chain(own).collect::<String>());
    let own = setting.clusters.iter().map(|(name, _)| name);
    let routes: String = own
        .map(|name| format!("              - {{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}\n"))
        .collect();
    let (waits, route_timeout) = setting.wait.map(waits).unwrap_or_default();
    let access_log = setting.access_log.as_ref().map_or("", |_| ACCESS_LOG);
    format!(
        r#"
admin: {{address: {{pipe: {{path: {admin}}}}}}}
static_resources:
  listeners:
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: tcp
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http2_protocol_options: {{allow_connect: true}}
{waits}{access_log}          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{routes}              - {{match: {{prefix: /silent}}, route: {{cluster: origin, timeout: {timeout}s}}}}
              - {{match: {{prefix: /three}}, route: {{cluster: three, idle_timeout: 60s}}}}
              - {{match: {{prefix: /mute}}, route: {{cluster: mute}}}}
              - {{match: {{prefix: /refused}}, route: {{cluster: refused}}}}
              - {{match: {{prefix: /ws}}, route: {{cluster: tcp, upgrade_configs: [{{upgrade_type: websocket}}]}}}}
              - {{match: {{prefix: /}}, route: {{cluster: origin{route_timeout}}}}}
  clusters:
{clusters}"#
    )
}

fn endpoint(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}")
}

/// Every timeout of a connection manager, and that of a route.
fn waits(wait: Duration) -> (String, String) {
    let s = wait.as_secs_f32();
    let names = ["request_headers_timeout", "request_timeout", "stream_idle_timeout"];
    let lines = names.map(|name| format!("          {name}: {s}s\n"));
    let idle = format!("          common_http_protocol_options: {{idle_timeout: {s}s}}\n");
    (lines.concat() + &idle, format!(", timeout: {s}s"))
}

/// That requests are logged; where to is told on the command line.
const ACCESS_LOG: &str = "          access_log: [{name: log, typed_config: \
    {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}]\n";

/// The same for HAProxy.
pub(super) fn haproxy(address: SocketAddr, tcp: SocketAddr, setting: &Setting, world: &World) -> String {
    let ms = TIMEOUT.as_millis();
    let wait = setting.wait.unwrap_or(Duration::from_secs(10)).as_millis();
    let [first, second, third] = world.three.each_ref().map(|origin| origin.address);
    let (origin, mute, refused) = (world.origin.address, world.mute.address, world.refused.1);
    let behind_tcp = world.tcp.address;
    format!(
        "global
  nbthread 1
defaults
  mode http
  timeout connect {ms}ms
  timeout client {wait}ms
  timeout server {wait}ms
  timeout http-request {wait}ms
  timeout http-keep-alive {wait}ms
  retries 0
  http-reuse always
frontend in
  bind {address}
  use_backend silent if {{ path_beg /silent }}
  use_backend three if {{ path_beg /three }}
  use_backend mute if {{ path_beg /mute }}
  use_backend refused if {{ path_beg /refused }}
  use_backend ws if {{ path_beg /ws }}
  default_backend origin
backend origin
  server origin {origin}
backend silent
  timeout server {ms}ms
  server origin {origin}
backend three
  server first {first}
  server second {second}
  server third {third}
backend mute
  server mute {mute}
backend refused
  server refused {refused}
backend ws
  server tcp {behind_tcp}
frontend tcp
  mode tcp
  bind {tcp}
  default_backend tcp
backend tcp
  mode tcp
  server tcp {behind_tcp}
"
    )
}
