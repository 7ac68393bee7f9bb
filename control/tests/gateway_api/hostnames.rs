//! Which hosts a route is for: its own and those of the listener.

use crate::support::{Mesh, route, route_at};

/// HTTPRouteHostnameIntersection
#[test]
fn a_route_is_for_the_hosts_it_has_in_common_with_a_listener() {
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: hosts, namespace: infra}
spec:
  gatewayClassName: ringway
  listeners:
  - {name: one, port: 80, protocol: HTTP, hostname: very.specific.com}
  - {name: two, port: 80, protocol: HTTP, hostname: '*.wildcard.io'}
  - {name: three, port: 80, protocol: HTTP, hostname: '*.anotherwildcard.io'}
";
    let at = |name: &str, hosts: &str, path: &str, backend: &str| {
        let spec = format!(
            "hostnames: [{hosts}]\nrules: [{{matches: [{{path: {{value: {path}}}}}], \
             backendRefs: [{{name: {backend}, port: 8080}}]}}]"
        );
        route_at(name, "{name: hosts}", &spec)
    };
    let documents = [
        gateway.to_owned(),
        at("s1", "non.matching.com, '*.nonmatchingwildcard.io', very.specific.com", "/s1", "v1"),
        at(
            "s2",
            "non.matching.com, wildcard.io, foo.wildcard.io, bar.wildcard.io, foo.bar.wildcard.io",
            "/s2",
            "v2",
        ),
        at("s3", "non.matching.com, '*.specific.com'", "/s3", "v3"),
        at("s4", "'*.anotherwildcard.io'", "/s4", "v1"),
        at("s5", "specific.but.wrong.com, wildcard.io", "/s5", "v2"),
    ];
    let mesh = Mesh::new(&documents.concat());
    mesh.expect(
        "hosts",
        80,
        &[
            ("GET very.specific.com/s1", "v1"),
            ("GET very.specific.com:1234/s1", "v1"),
            ("GET VERY.specific.com/s1", "v1"),
            ("GET non.matching.com/s1", "404"),
            ("GET foo.nonmatchingwildcard.io/s1", "404"),
            ("GET foo.wildcard.io/s1", "404"),
            ("GET very.specific.com/non-matching-prefix", "404"),
            ("GET foo.wildcard.io/s2", "v2"),
            ("GET bar.wildcard.io/s2", "v2"),
            ("GET foo.bar.wildcard.io/s2", "v2"),
            ("GET non.matching.com/s2", "404"),
            ("GET wildcard.io/s2", "404"),
            ("GET very.specific.com/s2", "404"),
            ("GET foo.wildcard.io/non-matching-prefix", "404"),
            ("GET very.specific.com/s3", "v3"),
            ("GET non.matching.com/s3", "404"),
            ("GET foo.specific.com/s3", "404"),
            ("GET foo.wildcard.io/s3", "404"),
            ("GET foo.anotherwildcard.io/s4", "v1"),
            ("GET foo.bar.anotherwildcard.io/s4", "v1"),
            ("GET anotherwildcard.io/s4", "404"),
            ("GET foo.wildcard.io/s4", "404"),
            ("GET specific.but.wrong.com/s5", "404"),
            ("GET wildcard.io/s5", "404"),
        ],
    );
    let refused = "Accepted=False/NoMatchingListenerHostname ResolvedRefs=True/ResolvedRefs";
    assert_eq!(mesh.route_conditions("HTTPRoute infra/s5"), [refused]);
    let attached = |listener| mesh.listener("Gateway infra/hosts", listener).1;
    assert_eq!(["one", "two", "three"].map(attached), [2, 1, 1]);
}

/// HTTPRouteListenerHostnameMatching
#[test]
fn the_most_specific_listener_takes_a_request() {
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: hosts, namespace: infra}
spec:
  gatewayClassName: ringway
  listeners:
  - {name: one, port: 80, protocol: HTTP, hostname: bar.com}
  - {name: two, port: 80, protocol: HTTP, hostname: foo.bar.com}
  - {name: three, port: 80, protocol: HTTP, hostname: '*.bar.com'}
  - {name: four, port: 80, protocol: HTTP, hostname: '*.foo.com'}
";
    let at = |name: &str, parents: &str| {
        route_at(name, parents, &format!("rules: [{{backendRefs: [{{name: {name}, port: 8080}}]}}]"))
    };
    let documents = [
        gateway.to_owned(),
        at("v1", "{name: hosts, sectionName: one}"),
        at("v2", "{name: hosts, sectionName: two}"),
        at("v3", "{name: hosts, sectionName: three}, {name: hosts, sectionName: four}"),
    ];
    Mesh::new(&documents.concat()).expect(
        "hosts",
        80,
        &[
            ("GET bar.com/", "v1"),
            ("GET foo.bar.com/", "v2"),
            ("GET baz.bar.com/", "v3"),
            ("GET multiple.prefixes.bar.com/", "v3"),
            ("GET multiple.prefixes.foo.com/", "v3"),
            ("GET foo.com/", "404"),
            ("GET no.matching.host/", "404"),
        ],
    );
}

/// HTTPRouteListenerPortMatching
#[test]
fn a_parent_may_name_listeners_by_port() {
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ports, namespace: infra}
spec:
  gatewayClassName: ringway
  listeners:
  - {name: one, port: 80, protocol: HTTP, hostname: foo.com}
  - {name: two, port: 8080, protocol: HTTP, hostname: foo.com}
  - {name: three, port: 8080, protocol: HTTP, hostname: bar.com}
  - {name: four, port: 8090, protocol: HTTP, hostname: foo.com}
  - {name: five, port: 8090, protocol: HTTP, hostname: bar.com}
";
    let at = |name: &str, parent: &str| {
        route_at(name, parent, &format!("rules: [{{backendRefs: [{{name: {name}, port: 8080}}]}}]"))
    };
    let documents = [
        gateway.to_owned(),
        at("v1", "{name: ports, port: 80}"),
        at("v2", "{name: ports, port: 8080}"),
        at("v3", "{name: ports, port: 8090, sectionName: four}"),
    ];
    let mesh = Mesh::new(&documents.concat());
    mesh.expect("ports", 80, &[("GET foo.com/", "v1"), ("GET bar.com/", "404")]);
    mesh.expect("ports", 8080, &[("GET foo.com:8080/", "v2"), ("GET bar.com:8080/", "v2")]);
    mesh.expect("ports", 8090, &[("GET foo.com:8090/", "v3"), ("GET bar.com:8090/", "404")]);
}

/// GatewayHTTPListenerIsolation: a request belongs to one listener, even where that has no rule for it.
#[test]
fn a_listener_keeps_its_hosts_from_the_routes_of_wider_listeners() {
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: isolated, namespace: infra}
spec:
  gatewayClassName: ringway
  listeners:
  - {name: one, port: 80, protocol: HTTP, hostname: abc.foo.example.com}
  - {name: narrow, port: 80, protocol: HTTP, hostname: '*.foo.example.com'}
  - {name: all, port: 80, protocol: HTTP}
  - {name: wide, port: 80, protocol: HTTP, hostname: '*.example.com'}
";
    let at = |listener: &str| {
        let spec = format!(
            "hostnames: ['bar.com', '*.example.com', '*.foo.example.com', abc.foo.example.com]\n\
             rules: [{{matches: [{{path: {{value: /{listener}}}}}], backendRefs: [{{name: v1, port: 8080}}]}}]"
        );
        route_at(listener, &format!("{{name: isolated, sectionName: {listener}}}"), &spec)
    };
    let documents = [gateway.to_owned(), at("all"), at("wide"), at("narrow"), at("one")];
    let mesh = Mesh::new(&documents.concat());
    let hosts = [
        ("bar.com", "all"),
        ("x.example.com", "wide"),
        ("y.foo.example.com", "narrow"),
        ("abc.foo.example.com", "one"),
    ];
    for (host, own) in hosts {
        for listener in ["all", "wide", "narrow", "one"] {
            let expected = if listener == own { "v1" } else { "404" };
            mesh.expect("isolated", 80, &[(&format!("GET {host}/{listener}"), expected)]);
        }
    }
}

/// HTTPRouteSpec.hostnames: rules of the route that names the host more closely come first, those of the other are
/// there for what is left.
#[test]
fn a_route_for_a_wider_host_takes_what_a_narrower_one_leaves() {
    let wide = route(
        "a-wide",
        "hostnames: ['*.example.com']
rules: [{matches: [{path: {type: Exact, value: /both}}, {path: {value: /wide}}], backendRefs: [{name: v1, port: 8080}]}]",
    );
    let narrow = route(
        "narrow",
        "hostnames: [a.example.com]
rules: [{matches: [{path: {value: /both}}], backendRefs: [{name: v2, port: 8080}]}]",
    );
    Mesh::new(&(wide + &narrow)).expect(
        "edge",
        80,
        &[
            ("GET a.example.com/both", "v2"),
            ("GET b.example.com/both", "v1"),
            ("GET a.example.com/wide", "v1"),
            ("GET a.example.com/neither", "404"),
        ],
    );
}
