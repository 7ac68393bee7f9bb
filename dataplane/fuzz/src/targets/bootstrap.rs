//! Bootstrap files and the messages in them: understood, or refused with a place that is in the file; never more. What is
//! understood makes a snapshot, and so do the bytes of a message that no file could say.

use std::collections::BTreeSet;

use prost::Message;
use proto::{
    bootstrap::{self, BootstrapError, Place},
    pb::envoy::config::bootstrap::v3::Bootstrap,
};
use translate::assemble::{Assembler, Options};

/// Words of bootstrap files.
pub const WORDS: &[&str] = &[
    "node: ",
    "id: ",
    "cluster: ",
    "admin: ",
    "address: ",
    "socket_address: ",
    "pipe: {path: /tmp/a}",
    "port_value: ",
    "127.0.0.1",
    "static_resources:\n",
    "dynamic_resources:\n",
    "ads_config: ",
    "api_type: DELTA_GRPC",
    "grpc_services: ",
    "lds_config: {ads: {}}",
    "listeners:\n",
    "- ",
    "name: ",
    "filter_chains:\n",
    "filter_chain_match: ",
    "filters:\n",
    "typed_config:\n",
    "\"@type\": ",
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    "stat_prefix: ",
    "http_filters:\n",
    "route_config:\n",
    "rds: ",
    "virtual_hosts:\n",
    "domains: [\"*\"]",
    "routes:\n",
    "match: ",
    "prefix: /",
    "safe_regex: {regex: \"/a+\"}",
    "route: {cluster: a}",
    "weighted_clusters: ",
    "weight: ",
    "redirect: ",
    "direct_response: {status: 200}",
    "timeout: 1.5s",
    "clusters:\n",
    "type: STRICT_DNS",
    "type: EDS",
    "connect_timeout: ",
    "load_assignment: ",
    "cluster_name: ",
    "endpoints: ",
    "lb_endpoints: ",
    "endpoint: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "\n",
    "\n  ",
    "\"",
    "'",
    "&a ",
    "*a",
    "|\n",
    ">\n",
    "# ",
    "---\n",
    "!!str ",
    "? ",
    "-1",
    "4294967296",
    "1e99",
    ".nan",
    "true",
    "null",
    "~",
    "0x10",
    "\u{0}",
    "\t",
];

/// Judges a file, and the same bytes as a message.
pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        match bootstrap::parse("file", text) {
            Ok(message) => {
                let message = Bootstrap::decode(&*message).expect("what we encoded can be decoded");
                judge(&message, Some(text));
            }
            Err(error) => judge_error(&error, text),
        }
    }
    if let Ok(message) = Bootstrap::decode(bytes) {
        judge(&message, None);
    }
}

fn judge_error(error: &BootstrapError, text: &str) {
    let said = error.to_string();
    match error {
        BootstrapError::Descriptors { .. } => panic!("{said}"),
        BootstrapError::Syntax { place, .. } | BootstrapError::Field { place, .. } => {
            assert_inside(*place, text, &said)
        }
    }
    assert!(said.starts_with("file:"), "{said}");
}

/// Lines may end in ways that others do not count as ends, but never are there more of them than characters.
fn assert_inside(place: Place, text: &str, said: &str) {
    let characters = text.chars().count() as u64;
    assert!((1..=characters + 1).contains(&place.line), "{said}");
    assert!((1..=characters + 1).contains(&place.column), "{said}");
}

/// Translates a message and makes a snapshot of it.
fn judge(message: &Bootstrap, text: Option<&str>) {
    match translate::bootstrap::translate(message) {
        Err(fault) => {
            let (path, said) = (fault.path.to_string(), fault.reason.to_string());
            assert!(!said.is_empty());
            if let Some(text) = text {
                let place = bootstrap::place_of(text, &path).expect("the text was read before");
                assert_inside(place, text, &said);
            }
        }
        Ok(understood) => {
            let mut assembler = Assembler::new(Options { workers: 1, seed: 7 });
            let snapshot = assembler.apply(understood.resources.clone());
            let Some(snapshot) = snapshot else { return };
            let resources = message.static_resources.as_ref().expect("a snapshot of something");
            let told: BTreeSet<&str> =
                resources.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
            for (name, _) in snapshot.clusters.iter() {
                assert!(told.contains(&**name), "a cluster that nobody told of: {name}");
            }
            // What is there already changes nothing.
            assert!(
                assembler.apply(understood.resources).is_none(),
                "the same resources made another snapshot"
            );
        }
    }
}
