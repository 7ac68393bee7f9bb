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
use std::str::FromStr;

use clap::ValueEnum;

/// Request headers that every HTTP subject sets on its way upstream. Envoy sets the first by itself.
pub(crate) const ADDED_REQUEST_HEADERS: [(&str, &str); 2] = [("x-forwarded-proto", "http"), ("x-bench", "1")];
/// Response header that every HTTP subject adds.
pub(crate) const ADDED_RESPONSE_HEADER: (&str, &str) = ("x-served-by", "bench");

/// What is measured: one kind of proxy, run from one program, under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// As records and tables call it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Another program than the usual one: a second build beside the first.
    program: Option<PathBuf>,
}

/// What can be measured: how it is configured and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
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

/// Why a text names no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSubject {
    #[error("`{kind}` is none of {kinds}; a subject is [NAME=]KIND[@PROGRAM]")]
    UnknownKind { kind: String, kinds: String },
    #[error(
        "the name of a subject is made of letters, digits, `.`, `-` and `_`, not `{name}`; say NAME=KIND in `{text}`"
    )]
    BadName { name: String, text: String },
}

impl FromStr for Subject {
    type Err = NoSubject;

    /// `[NAME=]KIND[@PROGRAM]`. Without a name it goes by its kind, and by its program's file name too if that is given.
    fn from_str(text: &str) -> Result<Self, NoSubject> {
        let (words, program) = text
            .split_once('@')
            .map_or((text, None), |(words, program)| (words, Some(PathBuf::from(program))));
        let (name, kind) = words.split_once('=').map_or((None, words), |(name, kind)| (Some(name), kind));
        let kind = Kind::from_str(kind, false).map_err(|_| NoSubject::UnknownKind {
            kind: kind.to_owned(),
            kinds: Kind::value_variants().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
        })?;
        let name = match (name, program.as_ref().and_then(|program| program.file_name())) {
            (Some(name), _) => name.to_owned(),
            (None, Some(file)) => format!("{}_{}", kind.name(), file.to_string_lossy()),
            (None, None) => kind.name().to_owned(),
        };
        // It becomes the name of a folder.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(NoSubject::BadName { name, text: text.to_owned() });
        }
        Ok(Self { name, kind, program })
    }
}

impl Subject {
    /// The program that is run; `None` when there is no process to run.
    pub(crate) fn program(&self, programs: &Programs) -> io::Result<Option<PathBuf>> {
        match &self.program {
            Some(program) => std::path::absolute(program).map(Some),
            None => self.kind.program(programs),
        }
    }

    /// The subject's own word on its version, in one line.
    pub(crate) fn version(&self, programs: &Programs) -> io::Result<String> {
        let flag = match self.kind {
            Kind::Haproxy | Kind::Nginx => "-v",
            Kind::Relay | Kind::Direct => return Ok(String::from("of this bench")),
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

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ringway => "ringway",
            Kind::RingwayEpoll => "ringway-epoll",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Envoy => "envoy",
            Kind::Relay => "relay",
            Kind::Direct => "direct",
        }
    }

    /// Whether it reads requests, and so must show the added headers and reuse upstream connections.
    pub(crate) fn speaks_http(self) -> bool {
        !matches!(self, Kind::Relay | Kind::Direct)
    }

    fn program(self, programs: &Programs) -> io::Result<Option<PathBuf>> {
        Ok(Some(match self {
            Kind::Ringway | Kind::RingwayEpoll => programs.ringway_proxy.clone(),
            Kind::Haproxy | Kind::Nginx | Kind::Envoy => programs.peers.join(self.name()),
            Kind::Relay => std::env::current_exe()?,
            Kind::Direct => return Ok(None),
        }))
    }

    /// Writes the subject's files into its folder. Gives the arguments that make its program use them.
    pub(crate) fn configure(self, place: &Place) -> io::Result<Vec<String>> {
        let folder = place.folder.to_string_lossy();
        let (file, text, arguments) = match self {
            Kind::Ringway | Kind::RingwayEpoll => {
                let io = if self == Kind::Ringway { "io_uring" } else { "epoll" };
                let arguments =
                    format!("-c {folder}/bootstrap.yaml --workers 1 --io {io} --data-dir {folder}/data");
                ("bootstrap.yaml", bootstrap(place), arguments)
            }
            Kind::Envoy => {
                let arguments = format!(
                    "-c {folder}/bootstrap.yaml --concurrency 1 --disable-hot-restart --log-level warn"
                );
                ("bootstrap.yaml", bootstrap(place), arguments)
            }
            Kind::Haproxy => ("haproxy.cfg", haproxy(place), format!("-db -f {folder}/haproxy.cfg")),
            Kind::Nginx => ("nginx.conf", nginx(place), format!("-p {folder} -c nginx.conf")),
            Kind::Relay => {
                let arguments = format!("relay --listen {} --upstream {}", place.listen, place.origin);
                return Ok(words(&arguments));
            }
            Kind::Direct => return Ok(Vec::new()),
        };
        fs::create_dir_all(place.folder.join("data"))?;
        fs::write(place.folder.join(file), text)?;
        Ok(words(&arguments))
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
    fn a_subject_is_a_kind_and_perhaps_a_name_and_a_program() {
        let parsed = |text: &str| {
            let subject = Subject::from_str(text).unwrap();
            (subject.name, subject.kind, subject.program)
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(parsed("ringway-epoll"), ("ringway-epoll".to_owned(), Kind::RingwayEpoll, None));
        assert_eq!(parsed("new=ringway@../b/p"), ("new".to_owned(), Kind::Ringway, path("../b/p")));
        assert_eq!(parsed("ha=haproxy@/x/ha=3"), ("ha".to_owned(), Kind::Haproxy, path("/x/ha=3")));
        assert_eq!(parsed("ringway@/b/new"), ("ringway_new".to_owned(), Kind::Ringway, path("/b/new")));
        for wrong in ["squid", "new=", "a b=relay", "../up=relay", "=relay", "new=/path/without/kind"] {
            assert!(Subject::from_str(wrong).is_err(), "{wrong}");
        }
    }

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
