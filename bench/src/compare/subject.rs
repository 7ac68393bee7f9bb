//! The proxies that are compared, and equivalent configurations for them.
//!
//! Ringway and Envoy read the very same file. What every HTTP subject does: HTTP/1.1 keep-alive on both sides, the
//! `host` kept, two request headers set ([`ADDED_REQUEST_HEADERS`]), one response header added ([`ADDED_RESPONSE_HEADER`]),
//! counters on, access log off, one worker. `proof` checks the part of it that can be seen from outside.

use std::fmt::Write;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;

/// Request headers that every HTTP subject sets on its way upstream. Envoy sets the first by itself.
pub(crate) const ADDED_REQUEST_HEADERS: [(&str, &str); 2] = [("x-forwarded-proto", "http"), ("x-bench", "1")];
/// Response header that every HTTP subject adds.
pub(crate) const ADDED_RESPONSE_HEADER: (&str, &str) = ("x-served-by", "bench");

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Subject {
    /// ringway-proxy on io_uring
    Ringway,
    /// ringway-proxy on epoll
    RingwayEpoll,
    /// HAProxy 2.8
    Haproxy,
    /// nginx
    Nginx,
    /// Envoy
    Envoy,
    /// Bytes without a look at them: the floor
    Relay,
    /// No proxy at all
    Direct,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) ringway_proxy: PathBuf,
    /// The folder with `envoy`, `haproxy` and `nginx`.
    pub(crate) peers: PathBuf,
}

/// What a configuration is made for.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// A folder of the subject's own, for its files.
    pub(crate) folder: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) origin: SocketAddr,
    /// How many routes there are; every request takes the last one.
    pub(crate) routes_count: usize,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Subject::Ringway => "ringway",
            Subject::RingwayEpoll => "ringway-epoll",
            Subject::Haproxy => "haproxy",
            Subject::Nginx => "nginx",
            Subject::Envoy => "envoy",
            Subject::Relay => "relay",
            Subject::Direct => "direct",
        }
    }

    /// Whether it reads requests, and so must show the added headers and reuse upstream connections.
    pub(crate) fn speaks_http(self) -> bool {
        !matches!(self, Subject::Relay | Subject::Direct)
    }

    /// The program that is run; `None` when there is no process to run.
    pub(crate) fn program(self, programs: &Programs) -> io::Result<Option<PathBuf>> {
        Ok(Some(match self {
            Subject::Ringway | Subject::RingwayEpoll => programs.ringway_proxy.clone(),
            Subject::Haproxy | Subject::Nginx | Subject::Envoy => programs.peers.join(self.name()),
            Subject::Relay => std::env::current_exe()?,
            Subject::Direct => return Ok(None),
        }))
    }

    /// Writes the subject's files into its folder. Gives the arguments that make its program use them.
    pub(crate) fn configure(self, place: &Place) -> io::Result<Vec<String>> {
        let folder = place.folder.to_string_lossy();
        let (file, text, arguments) = match self {
            Subject::Ringway | Subject::RingwayEpoll => {
                let io = if self == Subject::Ringway { "io_uring" } else { "epoll" };
                let arguments =
                    format!("-c {folder}/bootstrap.yaml --workers 1 --io {io} --data-dir {folder}/data");
                ("bootstrap.yaml", bootstrap(place), arguments)
            }
            Subject::Envoy => {
                let arguments = format!(
                    "-c {folder}/bootstrap.yaml --concurrency 1 --disable-hot-restart --log-level warn"
                );
                ("bootstrap.yaml", bootstrap(place), arguments)
            }
            Subject::Haproxy => ("haproxy.cfg", haproxy(place), format!("-db -f {folder}/haproxy.cfg")),
            Subject::Nginx => ("nginx.conf", nginx(place), format!("-p {folder} -c nginx.conf")),
            Subject::Relay => {
                let arguments = format!("relay --listen {} --upstream {}", place.listen, place.origin);
                return Ok(words(&arguments));
            }
            Subject::Direct => return Ok(Vec::new()),
        };
        fs::create_dir_all(place.folder.join("data"))?;
        fs::write(place.folder.join(file), text)?;
        Ok(words(&arguments))
    }

    /// The subject's own word on its version, in one line.
    pub(crate) fn version(self, programs: &Programs) -> io::Result<String> {
        let flag = match self {
            Subject::Haproxy | Subject::Nginx => "-v",
            Subject::Relay | Subject::Direct => return Ok(String::from("of this bench")),
            _ => "--version",
        };
        let Some(program) = self.program(programs)? else { return Ok(String::new()) };
        let output = Command::new(program).arg(flag).stdin(Stdio::null()).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
        // Envoy puts its own path before it.
        Ok(line.split_once(" version: ").map_or(line, |(_, version)| version).to_owned())
    }
}

/// Splits arguments at spaces: no path of ours has one, for the folder is a fresh one under the system's own.
fn words(arguments: &str) -> Vec<String> {
    arguments.split(' ').map(str::to_owned).collect()
}

/// Paths of all routes but the last; no request has one of them.
fn other_routes(place: &Place) -> impl Iterator<Item = String> {
    (1..place.routes_count).map(|n| format!("/route-{n:05}/"))
}

/// The bootstrap that both Envoy and Ringway read. Envoy's own additions (a request id, its timing and server headers)
/// are off, as nobody else makes them.
fn bootstrap(place: &Place) -> String {
    let mut routes = String::new();
    for prefix in other_routes(place).chain([String::from("/")]) {
        // Writing into a string cannot fail.
        let _ =
            write!(routes, "\n              - {{match: {{prefix: {prefix}}}, route: {{cluster: origin}}}}");
    }
    let address =
        |a: SocketAddr| format!("{{socket_address: {{address: {}, port_value: {}}}}}", a.ip(), a.port());
    let (listen, admin, origin) = (address(place.listen), address(place.admin), address(place.origin));
    let (name, value) = ADDED_REQUEST_HEADERS[1];
    let (answer_name, answer_value) = ADDED_RESPONSE_HEADER;
    format!(
        r#"node: {{id: bench, cluster: bench}}
admin:
  address: {admin}
static_resources:
  listeners:
  - name: bench
    address: {listen}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: AUTO
          generate_request_id: false
          server_header_transformation: PASS_THROUGH
          route_config:
            name: bench
            request_headers_to_add:
            - {{header: {{key: {name}, value: "{value}"}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}
            response_headers_to_add:
            - {{header: {{key: {answer_name}, value: {answer_value}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}
            virtual_hosts:
            - name: bench
              domains: ["*"]
              routes:{routes}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {origin}}}
"#
    )
}

fn haproxy(place: &Place) -> String {
    let mut rules = String::new();
    for (name, value) in ADDED_REQUEST_HEADERS {
        let _ = writeln!(rules, "  http-request set-header {name} {value}");
    }
    let (answer_name, answer_value) = ADDED_RESPONSE_HEADER;
    for prefix in other_routes(place) {
        let _ = writeln!(rules, "  use_backend origin if {{ path_beg {prefix} }}");
    }
    let (listen, origin) = (place.listen, place.origin);
    format!(
        "global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend bench
  bind {listen}
{rules}  http-response set-header {answer_name} {answer_value}
  default_backend origin
backend origin
  server origin {origin}
"
    )
}

fn nginx(place: &Place) -> String {
    let mut headers = String::from("proxy_set_header Connection \"\"; proxy_set_header Host $http_host;");
    for (name, value) in ADDED_REQUEST_HEADERS {
        let _ = write!(headers, " proxy_set_header {name} {value};");
    }
    let (answer_name, answer_value) = ADDED_RESPONSE_HEADER;
    let pass = format!(
        "{{ proxy_pass http://origin; proxy_http_version 1.1; proxy_pass_header Server; {headers} add_header {answer_name} {answer_value} always; }}"
    );
    let mut locations = String::new();
    for prefix in other_routes(place).chain([String::from("/")]) {
        let _ = writeln!(locations, "    location {prefix} {pass}");
    }
    let (listen, origin) = (place.listen, place.origin);
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 60s;
  client_max_body_size 0;
  proxy_max_temp_file_size 0;
  upstream origin {{
    server {origin};
    keepalive 512;
    keepalive_requests 1000000000;
    keepalive_timeout 60s;
  }}
  server {{
    listen {listen};
{locations}  }}
}}
"
    )
}

/// Where a subject's own words go: a file beside its configuration.
pub(crate) fn log_path(folder: &Path) -> PathBuf {
    folder.join("said.txt")
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::pb::envoy::config::bootstrap::v3::Bootstrap;
    use translate::Origin;

    use super::*;

    #[test]
    fn ringway_understands_all_of_the_file_it_shares_with_envoy() {
        let address = "127.0.0.1:1".parse().unwrap();
        let place = Place {
            folder: PathBuf::new(),
            listen: address,
            admin: address,
            origin: address,
            routes_count: 3,
        };
        let bytes = proto::bootstrap::parse("bootstrap.yaml", &bootstrap(&place)).unwrap();
        let resources = Bootstrap::decode(&bytes[..]).unwrap().static_resources.unwrap();
        let listener = translate::listener::translate(&resources.listeners[0], Origin::Static).unwrap();
        assert_eq!(listener.clusters.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["origin"]);
        translate::cluster::translate(&resources.clusters[0]).unwrap();
    }
}
