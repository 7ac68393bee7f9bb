//! The same bootstrap file starts Envoy 1.40 and ringway-proxy; the same requests get the same answers from both, and the
//! origin sees the same requests.
//!
//! `deploy/setup.sh test` fetches Envoy into `.cache/` at the root of the repository (`RINGWAY_CACHE` moves it). If that
//! fails, so does the test.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::TcpSocket;

/// Rules that cover the matchers, rewrites and header edits of the route table; the first that matches wins.
const ROUTES: &str = r#"
- {match: {path: /exact}, direct_response: {status: 200, body: {inline_string: exact}}}
- {match: {path: /Exact, case_sensitive: false}, direct_response: {status: 200, body: {inline_string: folded}}}
- {match: {prefix: /teapot}, direct_response: {status: 418}}
- {match: {path_separated_prefix: /api}, direct_response: {status: 200, body: {inline_string: separated}}}
- {match: {prefix: /api}, direct_response: {status: 200, body: {inline_string: prefix}}}
- {match: {safe_regex: {regex: "/r/[0-9]+(/x)?"}}, direct_response: {status: 200, body: {inline_string: regex}}}
- {match: {prefix: /h, headers: [{name: x-a, string_match: {exact: one}}]}, direct_response: {status: 200, body: {inline_string: h-exact}}}
- {match: {prefix: /h, headers: [{name: x-a, string_match: {prefix: tw}}]}, direct_response: {status: 200, body: {inline_string: h-prefix}}}
- {match: {prefix: /h, headers: [{name: x-b, present_match: true}]}, direct_response: {status: 200, body: {inline_string: h-present}}}
- {match: {prefix: /h, headers: [{name: x-n, range_match: {start: 5, end: 9}}]}, direct_response: {status: 200, body: {inline_string: h-range}}}
- {match: {prefix: /h, headers: [{name: ":method", string_match: {exact: POST}}]}, direct_response: {status: 200, body: {inline_string: h-post}}}
- {match: {prefix: /h, headers: [{name: x-c, string_match: {exact: why}, invert_match: true}]}, direct_response: {status: 200, body: {inline_string: h-not}}}
- {match: {prefix: /h, headers: [{name: x-j, string_match: {exact: "p,q"}}]}, direct_response: {status: 200, body: {inline_string: h-joined}}}
- {match: {prefix: /h, headers: [{name: x-k, string_match: {safe_regex: {regex: "p.q"}}}]}, direct_response: {status: 200, body: {inline_string: h-joined-regex}}}
- {match: {prefix: /h}, direct_response: {status: 200, body: {inline_string: h-rest}}}
- {match: {prefix: /q, query_parameters: [{name: a, string_match: {exact: "1"}}]}, direct_response: {status: 200, body: {inline_string: q-exact}}}
- {match: {prefix: /q, query_parameters: [{name: b, present_match: true}]}, direct_response: {status: 200, body: {inline_string: q-present}}}
- {match: {prefix: /q}, direct_response: {status: 200, body: {inline_string: q-rest}}}
- {match: {prefix: /to-https}, redirect: {https_redirect: true}}
- {match: {prefix: /to-host}, redirect: {host_redirect: other.test, response_code: FOUND}}
- {match: {prefix: /to-path}, redirect: {path_redirect: /new/place}}
- {match: {prefix: /to-prefix}, redirect: {prefix_rewrite: /p, response_code: PERMANENT_REDIRECT}}
- {match: {prefix: /to-port}, redirect: {port_redirect: 8443, response_code: SEE_OTHER}}
- {match: {prefix: /to-bare}, redirect: {path_redirect: /bare, strip_query: true}}
- {match: {prefix: /to-no-path}, redirect: {path_redirect: "", host_redirect: other.test}}
- {match: {prefix: /to-no-prefix}, redirect: {prefix_rewrite: "", host_redirect: other.test}}
- {match: {path: /to-no-exact}, redirect: {prefix_rewrite: "", host_redirect: other.test}}
- {match: {prefix: /to-query}, redirect: {path_redirect: "/new?of=ours"}}
- {match: {prefix: /no-rewrite/}, route: {cluster: origin, prefix_rewrite: ""}}
- {match: {prefix: /rewrite/}, route: {cluster: origin, prefix_rewrite: /}}
- {match: {path_separated_prefix: /sep}, route: {cluster: origin, prefix_rewrite: /short}}
- {match: {prefix: /re/}, route: {cluster: origin, regex_rewrite: {pattern: {regex: "^/re/([^/]+)/(.*)$"}, substitution: "/\\2/of/\\1"}}}
- {match: {prefix: /host}, route: {cluster: origin, host_rewrite_literal: upstream.test}}
- match: {prefix: /edit}
  route: {cluster: origin}
  request_headers_to_add:
  - {header: {key: x-appended, value: ours}, append_action: APPEND_IF_EXISTS_OR_ADD}
  - {header: {key: x-set, value: ours}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  - {header: {key: x-maybe, value: ours}, append_action: ADD_IF_ABSENT}
  request_headers_to_remove: [x-secret]
  response_headers_to_add:
  - {header: {key: x-from, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  response_headers_to_remove: [x-internal]
- {match: {prefix: /gone}, route: {cluster: nobody}}
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /pass}, route: {cluster: origin}}
"#;

/// Method, target, host (`ORIGIN` in it is the origin's port), further headers.
type Request<'a> = (&'static str, &'static str, &'a str, &'static [(&'static str, &'static str)]);

/// One letter more than a label may have: no name server needs to be asked that it does not exist.
const IMPOSSIBLE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.invalid";

const REQUESTS: &[Request<'static>] = &[
    ("GET", "/exact", "a.test", &[]),
    ("GET", "/exact?x=1", "a.test", &[]),
    ("GET", "/EXACT", "a.test", &[]),
    ("GET", "/exact/", "a.test", &[]),
    ("GET", "/teapot/x", "a.test", &[]),
    ("GET", "/api", "a.test", &[]),
    ("GET", "/api/x", "a.test", &[]),
    ("GET", "/apix", "a.test", &[]),
    ("GET", "/api?x", "a.test", &[]),
    ("GET", "/r/12", "a.test", &[]),
    ("GET", "/r/12/x", "a.test", &[]),
    ("GET", "/r/12/y", "a.test", &[]),
    ("GET", "/r/12?z", "a.test", &[]),
    ("GET", "/h", "a.test", &[("x-a", "one")]),
    ("GET", "/h", "a.test", &[("X-A", "two")]),
    ("GET", "/h", "a.test", &[("x-a", "one"), ("x-a", "two")]),
    ("GET", "/h", "a.test", &[("x-a", "two"), ("x-a", "one")]),
    ("GET", "/h", "a.test", &[("x-a", "zero"), ("x-a", "two"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-c", "why"), ("x-c", "no")]),
    ("GET", "/h", "a.test", &[("x-c", "no"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-n", "1"), ("x-n", "7"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-j", "p"), ("x-j", "q"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-j", "p,q"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-k", "p"), ("x-k", "q"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-b", "")]),
    ("GET", "/h", "a.test", &[("x-n", "7"), ("x-c", "why")]),
    ("GET", "/h", "a.test", &[("x-n", "9"), ("x-c", "why")]),
    ("POST", "/h", "a.test", &[("content-length", "0")]),
    ("GET", "/h", "a.test", &[("x-c", "no")]),
    ("GET", "/h", "a.test", &[("x-c", "why")]),
    ("GET", "/q?a=1", "a.test", &[]),
    ("GET", "/q?c&a=1", "a.test", &[]),
    ("GET", "/q?a=2", "a.test", &[]),
    ("GET", "/q?b=", "a.test", &[]),
    ("GET", "/q?b", "a.test", &[]),
    ("GET", "/q", "a.test", &[]),
    ("GET", "/to-https/x?y=1", "a.test", &[]),
    ("GET", "/to-https", "a.test:80", &[]),
    ("GET", "/to-host/x?y=1", "a.test", &[]),
    ("GET", "/to-path/x?y=1", "a.test", &[]),
    ("GET", "/to-prefix/x?y=1", "a.test", &[]),
    ("GET", "/to-port/x", "a.test", &[]),
    ("GET", "/to-bare?y=1", "a.test", &[]),
    ("GET", "/to-no-path/x?y=1", "a.test", &[]),
    ("GET", "/to-no-path", "a.test", &[]),
    ("GET", "/to-no-prefix/x?y=1", "a.test", &[]),
    ("GET", "/to-no-prefix", "a.test", &[]),
    ("GET", "/to-no-exact?y=1", "a.test", &[]),
    ("GET", "/to-query?y=1", "a.test", &[]),
    ("GET", "/no-rewrite/a?b=c", "a.test", &[]),
    ("GET", "/rewrite/a/b?c=d", "a.test", &[]),
    ("GET", "/rewrite/", "a.test", &[]),
    ("GET", "/sep", "a.test", &[]),
    ("GET", "/sep/x", "a.test", &[]),
    ("GET", "/sep?x", "a.test", &[]),
    ("GET", "/re/one/two/three?q", "a.test", &[]),
    ("GET", "/host/x", "a.test", &[]),
    (
        "GET",
        "/edit",
        "a.test",
        &[("x-appended", "theirs"), ("x-set", "theirs"), ("x-maybe", "theirs"), ("x-secret", "s")],
    ),
    ("GET", "/edit", "a.test", &[]),
    ("GET", "/gone", "a.test", &[]),
    ("GET", "/refused", "a.test", &[]),
    ("GET", "/pass/Case%2Fkept?%20", "a.test", &[("x-forwarded-proto", "https")]),
    ("HEAD", "/pass", "a.test", &[]),
    ("DELETE", "/pass", "a.test", &[]),
    (
        "GET",
        "/pass",
        "a.test",
        &[("connection", "x-hop"), ("x-hop", "1"), ("te", "trailers"), ("keep-alive", "timeout=5")],
    ),
    ("GET", "/pass", "a.test", &[("te", "trailers, deflate;q=0.5")]),
    ("GET", "/pass", "a.test", &[("te", "gzip;q=1, trailers")]),
    ("GET", "/pass", "a.test", &[("te", "deflate")]),
    ("GET", "/pass", "a.test", &[("te", "gzip"), ("te", "trailers")]),
    ("GET", "/pass", "a.test", &[("te", "trailers"), ("connection", "te, close")]),
    ("GET", "/nowhere", "a.test", &[]),
    ("GET", "/pass", "A.TEST", &[]),
    ("GET", "/", "b.test", &[]),
    ("GET", "/", "x.wild.test", &[]),
    ("GET", "/", "y.x.wild.test", &[]),
    ("GET", "/", "wild.test", &[]),
    ("GET", "/", "prefix.anything", &[]),
    ("GET", "/", "unknown.test", &[]),
    ("GET", "/outside/x", "localhost:ORIGIN", &[]),
    ("GET", "/outside/x", "LOCALHOST:ORIGIN", &[]),
    ("POST", "/outside/x", "127.0.0.1:ORIGIN", &[("content-length", "0")]),
    ("GET", "/outside/x", "127.0.0.1:1", &[]),
    ("GET", "/outside/x", IMPOSSIBLE, &[]),
    ("GET", "/outside/rewritten", IMPOSSIBLE, &[]),
];

#[test]
fn the_same_file_and_the_same_requests_give_the_same_answers_as_envoy() {
    let dir = tempfile::tempdir().unwrap();
    let origin = start_origin();
    let envoy = Proxy::envoy(dir.path(), origin);
    let ringway = Proxy::ringway(dir.path(), origin);
    let port = origin.port().to_string();
    let differences: Vec<String> = REQUESTS
        .iter()
        .filter_map(|(method, target, host, headers)| {
            let request = &(*method, *target, &*host.replace("ORIGIN", &port), *headers);
            let (theirs, ours) = (ask(envoy.address, request), ask(ringway.address, request));
            (theirs != ours).then(|| format!("{request:?}\n  envoy:   {theirs:?}\n  ringway: {ours:?}"))
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        REQUESTS.len(),
        differences.join("\n")
    );
}

fn bootstrap([port, admin, refused, origin]: [u16; 4]) -> String {
    let indented = ROUTES.replace('\n', "\n              ");
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: front
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          route_config:
            name: table
            virtual_hosts:
            - name: b
              domains: [b.test]
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: b}}}}}}]
            - name: wild
              domains: ["*.wild.test"]
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: wild}}}}}}]
            - name: prefix
              domains: ["prefix.*"]
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: prefix}}}}}}]
            - name: outside
              domains: ["localhost:{origin}", "127.0.0.1:{origin}", "127.0.0.1:1", {IMPOSSIBLE}]
              routes:
              - {{match: {{prefix: /outside/rewritten}}, route: {{cluster: outside, host_rewrite_literal: "localhost:{origin}"}}}}
              - {{match: {{prefix: /outside}}, route: {{cluster: outside}}}}
            - name: a
              domains: [a.test, "a.test:80"]
              routes: {indented}
          http_filters:
          - name: envoy.filters.http.dynamic_forward_proxy
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
              dns_cache_config: {{name: outside, dns_lookup_family: V4_PREFERRED}}
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
  clusters:
  - name: outside
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.dynamic_forward_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
        dns_cache_config: {{name: outside, dns_lookup_family: V4_PREFERRED}}
  - name: origin
    type: STATIC
    load_assignment:
      cluster_name: origin
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {origin}}}}}}}}}]}}]
  - name: nobody
    type: STATIC
    load_assignment: {{cluster_name: nobody}}
  - name: refused
    type: STATIC
    load_assignment:
      cluster_name: refused
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {refused}}}}}}}}}]}}]
"#
    )
}

/// A port of 127.0.0.1 for a bootstrap file, which must name one before anybody listens on it. Bound and not listening: the
/// kernel refuses connections to it and gives it to no other test; a proxy listens beside it, as SO_REUSEADDR allows.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

struct Proxy {
    process: Child,
    address: SocketAddr,
    _ports: [TcpSocket; 3],
}

impl Proxy {
    fn envoy(dir: &Path, origin: SocketAddr) -> Proxy {
        let mut command = Command::new(envoy_program());
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]);
        Proxy::start(command, &dir.join("envoy.yaml"), origin)
    }

    fn ringway(dir: &Path, origin: SocketAddr) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-proxy"));
        command.args(["--workers", "1", "--log", "warn", "--data-dir"]).arg(dir.join("data"));
        Proxy::start(command, &dir.join("ringway.yaml"), origin)
    }

    fn start(mut command: Command, file: &Path, origin: SocketAddr) -> Proxy {
        let [(first, address), (second, admin), (third, refused)] = [reserve(), reserve(), reserve()];
        let ports = [address, admin, refused, origin].map(|address| address.port());
        std::fs::write(file, bootstrap(ports)).unwrap();
        let process = command.arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut proxy = Proxy { process, address, _ports: [first, second, third] };
        let ready = ("GET", "/ready", "localhost", &[][..]);
        while try_ask(admin, &ready).is_none_or(|answer| answer.status != 200) {
            if let Some(status) = proxy.process.try_wait().unwrap() {
                panic!("{command:?} ended: {status}");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, fetched if it is not there yet.
fn envoy_program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let program = cache.join("peers/bin/envoy");
    if !program.exists() {
        let setup = Command::new(root.join("deploy/setup.sh")).arg("test").status().unwrap();
        assert!(setup.success(), "Envoy could not be fetched");
    }
    program
}

/// Answers every request with what it saw of it.
fn start_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(connection));
        }
    });
    address
}

fn serve(connection: TcpStream) {
    let mut out = connection.try_clone().unwrap();
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let seen: BTreeSet<String> =
            head.iter().filter_map(|line| compared(line, &NOT_FORWARDED_ALIKE)).collect();
        let body = format!("{first}\n{}", Vec::from_iter(seen).join("\n"));
        let shown = if first.starts_with("HEAD ") { "" } else { &body };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nx-internal: 1\r\nx-from: origin\r\n\r\n{shown}"
        );
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What the two add differently on purpose, or at random.
const NOT_FORWARDED_ALIKE: [&str; 2] = ["x-request-id", "connection"];
const NOT_ANSWERED_ALIKE: [&str; 8] = [
    "server",
    "date",
    "connection",
    "x-ringway-reason",
    "content-length",
    "content-type",
    "transfer-encoding",
    "x-envoy-upstream-service-time",
];

/// A header line as it is compared: the case of names is Envoy's to change and ours to keep.
fn compared(line: &str, left_out: &[&str]) -> Option<String> {
    let (name, value) = line.split_once(':')?;
    let name = name.to_ascii_lowercase();
    (!left_out.contains(&&*name)).then(|| format!("{name}: {}", value.trim()))
}

#[derive(PartialEq, Eq, Debug)]
struct Answer {
    status: u16,
    headers: BTreeSet<String>,
    /// Of the origin or of a route; the words of errors are each proxy's own.
    body: String,
}

fn ask(proxy: SocketAddr, request: &Request<'_>) -> Answer {
    try_ask(proxy, request).unwrap_or_else(|| panic!("{proxy} gave no answer to {request:?}"))
}

fn try_ask(proxy: SocketAddr, (method, target, host, headers): &Request<'_>) -> Option<Answer> {
    let mut connection = TcpStream::connect(proxy).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    if !headers.iter().any(|(name, _)| *name == "connection") {
        text.push_str("connection: close\r\n");
    }
    text.push_str("\r\n");
    connection.write_all(text.as_bytes()).ok()?;
    let mut reader = BufReader::new(connection);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let status = line()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = BTreeSet::new();
    let mut length = 0;
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        headers.extend(compared(&header, &NOT_ANSWERED_ALIKE));
    }
    let mut body = vec![0; if *method == "HEAD" { 0 } else { length }];
    reader.read_exact(&mut body).ok()?;
    let body = if status == 200 { String::from_utf8(body).ok()? } else { String::new() };
    Some(Answer { status, headers, body })
}
