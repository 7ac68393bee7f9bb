//! The same bootstrap file starts Envoy 1.40 and ringway-proxy; the same requests get the same answers from both, and the
//! origin sees the same requests.
//!
//! `deploy/setup.sh test` fetches Envoy into `.cache/` at the root of the repository (`RINGWAY_CACHE` moves it). If that
//! fails, so does the test.

mod client_address;
#[path = "../support/envoy_program.rs"]
mod envoy_program;
mod paths;
mod peers;
mod routes;

use self::peers::{Ports, Proxy, Request, ask, start_origin};

/// Asks both proxies, started with this bootstrap file, for everything; no answer may differ.
fn answer_alike(bootstrap: &dyn Fn(Ports) -> String, requests: &[Request<'_>]) {
    let dir = tempfile::tempdir().unwrap();
    let origin = start_origin();
    let envoy = Proxy::envoy(dir.path(), origin, bootstrap);
    let ringway = Proxy::ringway(dir.path(), origin, bootstrap);
    let port = origin.port().to_string();
    let mut differences: Vec<String> = requests
        .iter()
        .filter_map(|(method, target, host, headers)| {
            let request = &(*method, *target, &*host.replace("ORIGIN", &port), *headers);
            let (theirs, ours) = (ask(envoy.address, request), ask(ringway.address, request));
            (theirs != ours).then(|| format!("{request:?}\n  envoy:   {theirs:?}\n  ringway: {ours:?}"))
        })
        .collect();
    let count = requests.len();
    if let Some((theirs, ours)) = envoy.logged_clients(count).zip(ringway.logged_clients(count)) {
        let of_requests =
            requests.iter().zip(theirs.iter().zip(&ours)).filter(|(_, (theirs, ours))| theirs != ours);
        differences.extend(of_requests.map(|(request, both)| format!("{request:?}\n  logged: {both:?}")));
    }
    let (count, all) = (differences.len(), requests.len());
    assert!(differences.is_empty(), "{count} of {all} differ:\n{}", differences.join("\n"));
}

/// A bootstrap file with these options of the connection manager and these routes; `/` leads to the origin.
fn front(Ports { port, admin, origin, .. }: Ports, options: &str, routes: &str) -> String {
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
        typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: front, {options},
          route_config: {{name: table, virtual_hosts: [{{name: all, domains: ["*"], routes: [
            {routes},
            {{match: {{prefix: /}}, route: {{cluster: origin}}}}]}}]}},
          http_filters: [{{name: envoy.filters.http.router, typed_config: {{
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router,
            suppress_envoy_headers: true}}}}]}}
  clusters:
  - name: origin
    type: STATIC
    load_assignment:
      cluster_name: origin
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {origin}}}}}}}}}]}}]
"#
    )
}
