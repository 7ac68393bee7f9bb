//! The bootstrap that Envoy reads, and Ringway.

use std::fmt::Write;
use std::net::SocketAddr;

use super::{ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADER, Place};
use crate::compare::plan::{Mode, Plan};

/// What may be said in another way where Envoy does better for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    routes: Routes,
    /// Envoy's workers count connections under a lock and give each new one to the worker with fewest. By default each
    /// keeps what the kernel gives it.
    is_balanced: bool,
}

/// How routes are said. Envoy tries a list one by one; its matcher tree costs the same for any number of prefixes, and
/// picks the same one as the list where no prefix is one of another. Ringway takes the list, and finds in it by an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Routes {
    Listed,
    Matched,
}

impl Form {
    /// That of both.
    pub(super) const SHARED: Self = Self { routes: Routes::Listed, is_balanced: false };

    /// What is best for Envoy.
    pub(super) fn best(plan: &Plan, workers: usize) -> Self {
        let routes = if plan.routes.len() > 1 { Routes::Matched } else { Routes::Listed };
        Self { routes, is_balanced: workers > 1 }
    }
}

/// The whole file. Envoy's own additions (a request id, its timing and server headers) are off, as nobody else makes
/// them.
pub(super) fn bootstrap(place: &Place, plan: &Plan, form: Form) -> String {
    let (listen, admin) = (address(place.listen), address(place.admin));
    let filter = match plan.mode {
        Mode::Tcp => tcp_filter(plan),
        Mode::Http => http_filter(plan, form.routes),
    };
    let balance = if form.is_balanced { "    connection_balance_config: {exact_balance: {}}\n" } else { "" };
    let clusters: String = plan.clusters.iter().map(|one| cluster(one, plan.is_http2)).collect();
    format!(
        r#"node: {{id: bench, cluster: bench}}
admin:
  address: {admin}
static_resources:
  listeners:
  - name: bench
    address: {listen}
{balance}    filter_chains:
    - filters:
{filter}  clusters:
{clusters}"#
    )
}

fn tcp_filter(plan: &Plan) -> String {
    let cluster = &plan.clusters[0].name;
    format!(
        r#"      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: {cluster}
"#
    )
}

fn http_filter(plan: &Plan, routes: Routes) -> String {
    let (name, value) = ADDED_REQUEST_HEADERS[1];
    let (answer_name, answer_value) = ADDED_RESPONSE_HEADER;
    let codec = if plan.is_http2 { "HTTP2" } else { "AUTO" };
    let routes = match routes {
        Routes::Listed => listed(plan),
        Routes::Matched => matched(plan),
    };
    format!(
        r#"      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: {codec}
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
{routes}          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
"#
    )
}

fn listed(plan: &Plan) -> String {
    let mut routes = String::from("              routes:\n");
    for route in &plan.routes {
        let (prefix, cluster) = (&route.prefix, &plan.clusters[route.cluster].name);
        // Writing into a string cannot fail.
        let _ = writeln!(
            routes,
            "              - {{match: {{prefix: {prefix}}}, route: {{cluster: {cluster}}}}}"
        );
    }
    routes
}

fn matched(plan: &Plan) -> String {
    let mut tree = String::from(
        r#"              matcher:
                matcher_tree:
                  input:
                    name: path
                    typed_config:
                      "@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput
                      header_name: ":path"
                  prefix_match_map:
                    map:
"#,
    );
    for route in &plan.routes {
        let (prefix, cluster) = (&route.prefix, &plan.clusters[route.cluster].name);
        let _ = write!(
            tree,
            r#"                      "{prefix}":
                        action:
                          name: route
                          typed_config:
                            "@type": type.googleapis.com/envoy.config.route.v3.Route
                            match: {{prefix: /}}
                            route: {{cluster: {cluster}}}
"#
        );
    }
    tree
}

fn cluster(cluster: &crate::compare::plan::Cluster, is_http2: bool) -> String {
    let name = &cluster.name;
    let protocol = if is_http2 { HTTP2 } else { "" };
    let mut text = format!(
        r#"  - name: {name}
    type: STATIC
    connect_timeout: 5s
    lb_policy: ROUND_ROBIN
{protocol}    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
"#
    );
    for endpoint in &cluster.endpoints {
        let _ = writeln!(text, "        - endpoint: {{address: {}}}", address(*endpoint));
    }
    text
}

const HTTP2: &str = r#"    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"#;

fn address(address: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use prost::Message;
    use proto::pb::envoy::config::bootstrap::v3::Bootstrap;
    use translate::Origin;

    use super::*;
    use crate::compare::{plan, workload::Setup};

    #[test]
    fn ringway_understands_all_of_the_file_it_shares_with_envoy() {
        let listen = "127.0.0.1:1".parse().unwrap();
        let place = Place { folder: PathBuf::new(), listen, admin: listen, workers: 1 };
        let origin = plan::Origin { plain: listen, many: 2 };
        for (setup, clusters) in [
            (Setup::One, 1),
            (Setup::Tcp, 1),
            (Setup::Http2, 1),
            (Setup::Idle, 1),
            (Setup::Prefixes, 2),
            (Setup::Mesh, plan::MESH_CLUSTERS),
        ] {
            let text = bootstrap(&place, &Plan::new(setup, origin, 3, 100), Form::SHARED);
            let bytes = proto::bootstrap::parse("bootstrap.yaml", &text).unwrap();
            let resources = Bootstrap::decode(&bytes[..]).unwrap().static_resources.unwrap();
            let listener = translate::listener::translate(&resources.listeners[0], Origin::Static).unwrap();
            assert_eq!(listener.clusters.len(), clusters, "{setup:?}");
            assert_eq!(resources.clusters.len(), clusters, "{setup:?}");
            for cluster in &resources.clusters {
                translate::cluster::translate(cluster, Origin::Static).unwrap();
            }
        }
    }
}
