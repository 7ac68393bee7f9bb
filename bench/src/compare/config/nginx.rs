//! The configuration of nginx.

use std::fmt::Write;

use super::{ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADER, Place};
use crate::compare::plan::{Mode, Plan};

/// Upstream connections kept: as many as are ever busy at once, or, with many clusters, as many in each as can be busy.
const KEPT_CONNECTIONS: usize = 512;
const KEPT_CONNECTIONS_OF_MANY: usize = 64;

/// The whole file.
pub(super) fn configuration(place: &Place, plan: &Plan) -> String {
    let (upstreams, server) = (upstreams(plan), server(plan));
    let (kind, options) = match plan.mode {
        Mode::Tcp => ("stream", ""),
        Mode::Http => (
            "http",
            "  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 60s;
  client_max_body_size 0;
  proxy_max_temp_file_size 0;
",
        ),
    };
    // Its own upstream connections count too.
    let connections = plan.connections_max + 1000;
    let http2 = if plan.is_http2 { "    http2 on;\n" } else { "" };
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
{kind} {{
{options}{upstreams}  server {{
    listen {};
{http2}{server}  }}
}}
",
        place.listen
    )
}

fn upstreams(plan: &Plan) -> String {
    let kept = if plan.clusters.len() > 10 { KEPT_CONNECTIONS_OF_MANY } else { KEPT_CONNECTIONS };
    let mut text = String::new();
    for cluster in &plan.clusters {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  upstream {} {{", cluster.name);
        for endpoint in &cluster.endpoints {
            let _ = writeln!(text, "    server {endpoint};");
        }
        if plan.mode == Mode::Http {
            let _ = writeln!(
                text,
                "    keepalive {kept};\n    keepalive_requests 1000000000;\n    keepalive_timeout 60s;"
            );
        }
        let _ = writeln!(text, "  }}");
    }
    text
}

fn server(plan: &Plan) -> String {
    if plan.mode == Mode::Tcp {
        return format!(
            "    tcp_nodelay on;\n    proxy_half_close on;\n    proxy_pass {};\n",
            plan.clusters[0].name
        );
    }
    if plan.has_grpc {
        return grpc_server(plan);
    }
    let version = if plan.is_http2 { "2" } else { "1.1" };
    let mut headers = String::from("proxy_set_header Connection \"\"; proxy_set_header Host $http_host;");
    for (name, value) in ADDED_REQUEST_HEADERS {
        let _ = write!(headers, " proxy_set_header {name} {value};");
    }
    let (name, value) = ADDED_RESPONSE_HEADER;
    let mut text = format!(
        "    proxy_http_version {version};\n    proxy_pass_header Server;\n    {headers}\n    add_header {name} {value} always;\n"
    );
    for route in &plan.routes {
        let cluster = &plan.clusters[route.cluster].name;
        let _ = writeln!(text, "    location {} {{ proxy_pass http://{cluster}; }}", route.prefix);
    }
    text
}

/// What it has for gRPC is a module of its own, which carries anything else that comes over HTTP/2, too.
fn grpc_server(plan: &Plan) -> String {
    let mut headers = String::from("grpc_set_header Host $http_host;");
    for (name, value) in ADDED_REQUEST_HEADERS {
        // Writing into a string cannot fail.
        let _ = write!(headers, " grpc_set_header {name} {value};");
    }
    let (name, value) = ADDED_RESPONSE_HEADER;
    let mut text =
        format!("    grpc_pass_header Server;\n    {headers}\n    add_header {name} {value} always;\n");
    for route in &plan.routes {
        let cluster = &plan.clusters[route.cluster].name;
        let _ = writeln!(text, "    location {} {{ grpc_pass grpc://{cluster}; }}", route.prefix);
    }
    text
}
