//! The programs of others, and the proxy between them and their origins.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use tokio::process::Command;

use crate::support::{Home, Proxy, soon};

/// The drivers; a machine may refuse the first, which then is said loudly.
pub(crate) const DRIVERS: [&str; 2] = ["io_uring", "epoll"];

/// Where `deploy/setup.sh` puts a program; it is fetched if it is not there yet.
pub(crate) fn fetched(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let program = cache.join("peers/bin").join(name);
    if !program.exists() {
        let setup = std::process::Command::new(root.join("deploy/setup.sh")).arg("test").status().unwrap();
        assert!(setup.success() && program.exists(), "{name} could not be fetched");
    }
    program
}

/// Runs a program to its end, whatever that is.
pub(crate) async fn run(program: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let said = format!("the end of {} {arguments:?}", program.display());
    let output = soon(&said, command.output()).await;
    output.unwrap_or_else(|error| panic!("{}, of deploy/setup.sh test: {error}", program.display()))
}

/// What a program says that must end well.
pub(crate) async fn good(program: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = run(program, arguments).await;
    assert!(output.status.success(), "{} {arguments:?}: {}", program.display(), text(&output));
    output.stdout
}

/// All that it said.
pub(crate) fn text(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{stdout}\n{stderr}", output.status)
}

/// A proxy in front of an origin that speaks HTTP/1.1, where `/1` leads, and of one that speaks HTTP/2, where all else does.
/// `codec` is what it speaks downstream.
pub(crate) async fn proxy(
    home: &Home,
    driver: &str,
    codec: &str,
    origins: [SocketAddr; 2],
) -> (Proxy, SocketAddr) {
    let text = home.admin() + &resources(codec, origins);
    let mut proxy = home.start(&text, &["--io", driver, "--no-pin", "--workers", "1"]);
    proxy.is_ready().await;
    let address = proxy.address("in").await;
    (proxy, address)
}

fn resources(codec: &str, [http1, http2]: [SocketAddr; 2]) -> String {
    let cluster = |name: &str, to: SocketAddr, protocol: &str| {
        let (ip, port) = (to.ip(), to.port());
        format!(
            r#"
  - name: {name}
    type: STATIC
    load_assignment:
      cluster_name: {name}
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}]}}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}: {{}}}}"#
        )
    };
    let clusters =
        [cluster("one", http1, "http_protocol_options"), cluster("two", http2, "http2_protocol_options")];
    let clusters = clusters.concat();
    format!(
        r#"
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: {codec}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            name: all
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - {{match: {{prefix: /1}}, route: {{cluster: one}}}}
              - {{match: {{prefix: /}}, route: {{cluster: two}}}}
  clusters:{clusters}
"#
    )
}
