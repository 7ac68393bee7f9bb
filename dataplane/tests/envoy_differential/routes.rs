//! Matching, rewriting, redirecting, editing heads, hosts that only requests name.

use super::{
    answer_alike,
    peers::{Ports, Request},
};

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
    answer_alike(&bootstrap, REQUESTS);
}

fn bootstrap(Ports { port, admin, refused, origin }: Ports) -> String {
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
