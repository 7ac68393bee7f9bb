//! The configuration of HAProxy.

use std::fmt::Write;

use super::{ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADER, Place};
use crate::compare::plan::{Mode, Plan};

/// The whole file. Many routes are a map of prefixes, which it searches as a tree: rules would be tried one by one. The
/// map gives the longest prefix, rules would give the first, and here no prefix is one of another. By default it gives up
/// idle upstream connections when a quarter of its descriptors are in use; here they are what they are for.
pub(super) fn configuration(place: &Place, plan: &Plan) -> String {
    let mut rules = String::new();
    if plan.mode == Mode::Http {
        for (name, value) in ADDED_REQUEST_HEADERS {
            // Writing into a string cannot fail.
            let _ = writeln!(rules, "  http-request set-header {name} {value}");
        }
        if plan.routes.len() > 1 {
            let map = place.folder.join("routes.map");
            let _ = writeln!(rules, "  use_backend %[path,map_beg({})]", map.display());
        }
        let (name, value) = ADDED_RESPONSE_HEADER;
        let _ = writeln!(rules, "  http-response set-header {name} {value}");
    }
    if plan.routes.len() == 1 {
        let _ = writeln!(rules, "  default_backend {}", plan.clusters[0].name);
    }
    let (mode, reuse) = match plan.mode {
        Mode::Http => ("http", "  http-reuse always\n"),
        Mode::Tcp => ("tcp", ""),
    };
    let protocol = if plan.is_http2 { " proto h2" } else { "" };
    let (listen, workers, connections) = (place.listen, place.workers, plan.connections_max);
    let mut text = format!(
        "global
  nbthread {workers}
  maxconn {connections}
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
defaults
  mode {mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
{reuse}frontend bench
  bind {listen}{protocol}
{rules}"
    );
    for cluster in &plan.clusters {
        let _ = writeln!(text, "backend {}\n  balance roundrobin", cluster.name);
        for (number, endpoint) in cluster.endpoints.iter().enumerate() {
            let _ = writeln!(text, "  server {number} {endpoint}{protocol}");
        }
    }
    text
}

/// The map of prefixes to clusters.
pub(super) fn map(plan: &Plan) -> String {
    plan.routes.iter().fold(String::new(), |mut map, route| {
        let _ = writeln!(map, "{} {}", route.prefix, plan.clusters[route.cluster].name);
        map
    })
}
