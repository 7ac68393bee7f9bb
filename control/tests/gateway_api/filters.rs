//! What is changed on the way, or answered instead.

use crate::support::{Mesh, route, route_at};

/// HTTPRouteRequestHeaderModifier, HTTPRouteResponseHeaderModifier
#[test]
fn headers_are_set_added_and_removed() {
    let mesh = Mesh::new(&route(
        "headers",
        "rules:
- matches: [{path: {value: /set}}]
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Header-Set, value: set-overwrites-values}]}}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{path: {value: /add}}]
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: X-Header-Add, value: 100%}]}}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{path: {value: /remove}}]
  filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [X-Header-Remove]}}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{path: {value: /answer}}]
  filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-a, value: a}], remove: [x-b]}}]
  backendRefs: [{name: v1, port: 8080}]",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/set", "v1 -X-Header-Set +X-Header-Set=set-overwrites-values"),
            ("GET h/add", "v1 +X-Header-Add=100%"),
            ("GET h/remove", "v1 -X-Header-Remove"),
            ("GET h/answer", "v1 answer -x-b -x-a +x-a=a"),
        ],
    );
}

/// HTTPRouteRequestHeaderModifierBackendWeights
#[test]
fn a_backend_may_have_changes_of_its_own() {
    let mesh = Mesh::new(&route(
        "backends",
        "rules:
- backendRefs:
  - {name: v1, port: 8080, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: backend, value: one}]}}]}
  - {name: v2, port: 8080, filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: backend, value: two}]}}]}",
    ));
    let shares = mesh.shares("edge", 80, "GET h/");
    let fates: Vec<_> = shares.keys().map(String::as_str).collect();
    assert_eq!(fates, ["v1 -backend +backend=one", "v2 -backend +backend=two"]);
}

/// HTTPRouteRewritePath, and the table of ReplacePrefixMatch in the specification.
#[test]
fn a_prefix_or_the_whole_path_is_replaced() {
    let rewrite = |prefix: &str, with: &str| {
        Mesh::new(&route(
            "rewrite",
            &format!(
                "rules: [{{matches: [{{path: {{value: {prefix}}}}}], filters: [{{type: URLRewrite, urlRewrite: \
                 {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{with}'}}}}}}], \
                 backendRefs: [{{name: v1, port: 8080}}]}}]"
            ),
        ))
    };
    let table = [
        ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz", "/foo", "/xyz"),
        ("/foo", "/xyz", "/foo/", "/xyz/"),
        ("/foo", "", "/foo/bar", "/bar"),
        ("/foo", "", "/foo/", "/"),
        ("/foo", "", "/foo", "/"),
        ("/foo", "/", "/foo/", "/"),
        ("/foo", "/", "/foo", "/"),
        ("/foo", "/", "/foo/bar?a=b", "/bar?a=b"),
        ("/", "/xyz", "/foo", "/xyz/foo"),
    ];
    for (prefix, with, path, expected) in table {
        rewrite(prefix, with).expect("edge", 80, &[(&format!("GET h{path}"), &format!("v1 {expected}"))]);
    }
    // Prefix and element: what only begins alike is another path.
    rewrite("/foo", "/").expect("edge", 80, &[("GET h/food", "404")]);

    let full = |path: &str, to: &str| {
        Mesh::new(&route(
            "full",
            &format!(
                "rules: [{{matches: [{{path: {path}}}], filters: [{{type: URLRewrite, urlRewrite: {{path: \
                 {{type: ReplaceFullPath, replaceFullPath: {to}}}}}}}], backendRefs: [{{name: v1, port: 8080}}]}}]"
            ),
        ))
    };
    for (to, path) in [("/one", "/one"), ("''", "/")] {
        let (plain, with_query) = (format!("v1 {path}"), format!("v1 {path}?a=b"));
        full("{value: /full/one}", to).expect("edge", 80, &[("GET h/full/one/two?a=b", &with_query)]);
        full("{type: Exact, value: /full}", to).expect("edge", 80, &[("GET h/full", &plain)]);
        full("{type: RegularExpression, value: '/f.*'}", to).expect("edge", 80, &[("GET h/full", &plain)]);
    }
}

/// HTTPRouteRewriteHost
#[test]
fn the_host_is_replaced() {
    let mesh = Mesh::new(&route(
        "host",
        "hostnames: [rewrite.example]
rules:
- matches: [{path: {value: /one}}]
  filters: [{type: URLRewrite, urlRewrite: {hostname: one.example.org}}]
  backendRefs: [{name: v1, port: 8080}]
- filters:
  - {type: URLRewrite, urlRewrite: {hostname: example.org}}
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: y}]}}
  backendRefs: [{name: v2, port: 8080}]",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET rewrite.example/one", "v1 host=one.example.org"),
            ("GET rewrite.example/two", "v2 host=example.org -x +x=y"),
        ],
    );
}

/// HTTPRouteRedirectHostAndStatus, HTTPRouteRedirectPath, HTTPRouteRedirectScheme, HTTPRouteRedirectPort,
/// HTTPRoute303Redirect, 307, 308
#[test]
fn a_redirect_changes_what_it_names() {
    let rule = |path: &str, redirect: &str| {
        format!(
            "- {{matches: [{{path: {{value: {path}}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}\n"
        )
    };
    let rules = [
        rule("/host", "{hostname: example.org}"),
        rule("/host-and-status", "{hostname: example.org, statusCode: 301}"),
        rule("/prefix", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement}}"),
        rule("/full", "{path: {type: ReplaceFullPath, replaceFullPath: /replacement}}"),
        rule("/root", "{path: {type: ReplaceFullPath, replaceFullPath: ''}}"),
        rule("/strip", "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}"),
        rule("/scheme", "{scheme: https}"),
        rule("/scheme-and-host", "{scheme: https, hostname: example.org}"),
        rule("/port", "{port: 8083}"),
        rule("/port-and-host", "{port: 8083, hostname: example.org}"),
        rule("/303", "{statusCode: 303}"),
        rule("/307", "{statusCode: 307}"),
        rule("/308", "{statusCode: 308, port: 8083}"),
    ];
    let mesh = Mesh::new(&route("redirect", &format!("rules:\n{}", rules.concat())));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/host", "302 http://example.org/host"),
            ("GET h/root/x?a=b", "302 http://h/?a=b"),
            ("GET h/host-and-status", "301 http://example.org/host-and-status"),
            ("GET h/prefix/lemon", "302 http://h/replacement/lemon"),
            ("GET h/full/path/original", "302 http://h/replacement"),
            ("GET h/strip/a", "302 http://h/a"),
            ("GET h/strip", "302 http://h/"),
            ("GET h/scheme?a=b", "302 https://h/scheme?a=b"),
            ("GET h/scheme-and-host", "302 https://example.org/scheme-and-host"),
            ("GET h/port", "302 http://h:8083/port"),
            ("GET h/port-and-host", "302 http://example.org:8083/port-and-host"),
            ("GET h/303", "303 http://h/303"),
            ("GET h/307", "307 http://h/307"),
            ("GET h/308", "308 http://h:8083/308"),
        ],
    );
}

/// HTTPRouteRedirectPortAndScheme
#[test]
fn a_redirect_goes_to_the_port_of_its_scheme_or_of_the_listener() {
    let rules = "rules:
- {matches: [{path: {value: /nil-nil}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org}}]}
- {matches: [{path: {value: /nil-80}}], filters: [{type: RequestRedirect, requestRedirect: {port: 80, hostname: example.org}}]}
- {matches: [{path: {value: /nil-8080}}], filters: [{type: RequestRedirect, requestRedirect: {port: 8080, hostname: example.org}}]}
- {matches: [{path: {value: /https-nil}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: example.org}}]}
- {matches: [{path: {value: /https-443}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 443, hostname: example.org}}]}
- {matches: [{path: {value: /https-8443}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, hostname: example.org}}]}";
    let mesh = Mesh::new(&(route("low", rules) + &route_at("high", "{name: high}", rules)));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/nil-nil", "302 http://example.org/nil-nil"),
            ("GET h/nil-80", "302 http://example.org/nil-80"),
            ("GET h/nil-8080", "302 http://example.org:8080/nil-8080"),
            ("GET h/https-nil", "302 https://example.org/https-nil"),
            ("GET h/https-443", "302 https://example.org/https-443"),
            ("GET h/https-8443", "302 https://example.org:8443/https-8443"),
        ],
    );
    mesh.expect(
        "high",
        8080,
        &[
            ("GET h:8080/nil-nil", "302 http://example.org:8080/nil-nil"),
            ("GET h:8080/nil-80", "302 http://example.org/nil-80"),
            ("GET h:8080/https-nil", "302 https://example.org/https-nil"),
        ],
    );
}

/// HTTPRouteTimeoutRequest, HTTPRouteTimeoutBackendRequest
#[test]
fn the_shorter_limit_holds_and_none_where_none_is_written() {
    let mesh = Mesh::new(&route(
        "timeouts",
        "rules:
- {matches: [{path: {value: /request}}], timeouts: {request: 500ms}, backendRefs: [{name: v1, port: 8080}]}
- {matches: [{path: {value: /both}}], timeouts: {request: 2s, backendRequest: 1s}, backendRefs: [{name: v1, port: 8080}]}
- {matches: [{path: {value: /off}}], timeouts: {request: 0s}, backendRefs: [{name: v1, port: 8080}]}
- {backendRefs: [{name: v1, port: 8080}]}",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/request", "v1 within=500ms"),
            ("GET h/both", "v1 within=1s"),
            ("GET h/off", "v1"),
            ("GET h/", "v1"),
        ],
    );
}

/// A filter that is not served must not be skipped: HTTPRouteFilter.type
#[test]
fn a_rule_with_a_filter_that_is_not_served_answers_500_and_says_so() {
    let bad = "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 8080}}}], \
               matches: [{path: {value: /bad}}], backendRefs: [{name: v1, port: 8080}]}";
    let good = "{backendRefs: [{name: v1, port: 8080}]}";
    let mesh = Mesh::new(&route("partly", &format!("rules: [{bad}, {good}]")));
    mesh.expect("edge", 80, &[("GET h/bad", "500"), ("GET h/", "v1")]);
    let partly =
        "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs PartiallyInvalid=True/UnsupportedValue";
    assert_eq!(mesh.route_conditions("HTTPRoute infra/partly"), [partly]);
    let message = &mesh.status("HTTPRoute infra/partly")["parents"][0]["conditions"][2]["message"];
    assert!(message.as_str().unwrap().starts_with("Dropped Rule"), "{message}");

    let mesh = Mesh::new(&route("wholly", &format!("rules: [{bad}]")));
    mesh.expect("edge", 80, &[("GET h/bad", "404")]);
    let wholly = "Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs";
    assert_eq!(mesh.route_conditions("HTTPRoute infra/wholly"), [wholly]);
}

/// One rule that the proxy would refuse must not hold back the table it shares with others.
#[test]
fn a_rule_that_the_proxy_would_refuse_is_refused_alone() {
    let rule = |fields: &str| format!("{{{fields}, backendRefs: [{{name: v1, port: 8080}}]}}");
    let set = |name: &str| {
        format!(
            "filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: {name}, value: a}}]}}}}]"
        )
    };
    let cases = [
        // Its requests are known, so they are answered.
        (rule(&format!("matches: [{{path: {{value: /bad}}}}], {}", set("Host"))), "500"),
        (rule(&format!("matches: [{{path: {{value: /bad}}}}], {}", set("transfer-encoding"))), "500"),
        // They are not, so the next rule has them.
        (rule("matches: [{path: {type: RegularExpression, value: '/bad('}}]"), "v2"),
        (
            rule(
                "matches: [{path: {value: /bad}, headers: [{name: a, type: RegularExpression, value: '(?=a)'}]}]",
            ),
            "v2",
        ),
    ];
    for (bad, fate) in cases {
        let documents = [
            route("a-bad", &format!("rules: [{bad}, {}]", rule("matches: [{path: {value: /good}}]"))),
            route("other", "rules: [{backendRefs: [{name: v2, port: 8080}]}]"),
        ];
        let mesh = Mesh::new(&documents.concat());
        mesh.expect("edge", 80, &[("GET h/bad", fate), ("GET h/good", "v1"), ("GET h/", "v2")]);
        let conditions = &mesh.route_conditions("HTTPRoute infra/a-bad")[0];
        assert!(conditions.contains("PartiallyInvalid=True/UnsupportedValue"), "{bad}: {conditions}");
    }
}
