//! GRPCRoute: which rule takes a call, and who gives way to whom.

use crate::support::{Mesh, conditions, grpc_route, grpc_route_at, route, route_at};

/// A call of a gRPC client, as far as routing looks at it.
fn call(path: &str) -> String {
    format!("POST h{path} content-type=application/grpc")
}

fn expect(mesh: &Mesh, asked: &[(&str, &str)]) {
    let calls: Vec<_> = asked.iter().map(|(path, expected)| (call(path), *expected)).collect();
    let calls: Vec<_> = calls.iter().map(|(call, expected)| (call.as_str(), *expected)).collect();
    mesh.expect("edge", 80, &calls);
}

/// GRPCExactMethodMatching
#[test]
fn a_method_is_matched_by_service_by_name_or_by_both() {
    let mesh = Mesh::new(&grpc_route(
        "exact",
        "rules:
- {matches: [{method: {service: shop.Cart, method: Add}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{method: {service: shop.Cart}}], backendRefs: [{name: v2, port: 8080}]}
- {matches: [{method: {method: Check}}], backendRefs: [{name: v3, port: 8080}]}",
    ));
    expect(
        &mesh,
        &[
            ("/shop.Cart/Add", "v1"),
            ("/shop.Cart/Remove", "v2"),
            ("/shop.Cart/add", "v2"),
            ("/shop.cart/Add", "404"),
            ("/shop.Carts/Add", "404"),
            ("/shop.Cart", "404"),
            ("/any.Service/Check", "v3"),
            ("/any.Service/Checked", "404"),
            ("/a/b/Check", "404"),
            ("/shop.Cart/Check", "v2"),
        ],
    );
    let accepted = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    assert_eq!(mesh.route_conditions("GRPCRoute infra/exact"), [accepted]);
}

#[test]
fn an_expression_is_of_the_whole_name() {
    let mesh = Mesh::new(&grpc_route(
        "regex",
        "rules:
- matches: [{method: {type: RegularExpression, service: 'shop\\.(Cart|Stock)', method: 'Get.*'}}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{method: {type: RegularExpression, method: 'List|Watch'}}]
  backendRefs: [{name: v2, port: 8080}]
- matches: [{method: {type: RegularExpression, service: '.*Admin'}}]
  backendRefs: [{name: v3, port: 8080}]",
    ));
    expect(
        &mesh,
        &[
            ("/shop.Cart/Get", "v1"),
            ("/shop.Stock/GetAll", "v1"),
            ("/my.shop.Stock/GetAll", "404"),
            ("/shop.Stock/Forget", "404"),
            ("/any.One/List", "v2"),
            ("/any.One/Watch", "v2"),
            ("/any.One/Lists", "404"),
            ("/any.Admin/Do", "v3"),
            ("/any.Admins/Do", "404"),
        ],
    );
}

/// GRPCRouteHeaderMatching
#[test]
fn headers_are_matched_and_more_of_them_go_first() {
    let mesh = Mesh::new(&grpc_route(
        "headers",
        "rules:
- {matches: [{headers: [{name: version, value: one}]}], backendRefs: [{name: v1, port: 8080}]}
- matches: [{headers: [{name: version, value: one}, {name: color, type: RegularExpression, value: 'r.d'}]}]
  backendRefs: [{name: v2, port: 8080}]
- {backendRefs: [{name: v3, port: 8080}]}",
    ));
    let calls = [
        ("POST h/a.B/c content-type=application/grpc version=one", "v1"),
        ("POST h/a.B/c content-type=application/grpc Version=one color=red", "v2"),
        ("POST h/a.B/c content-type=application/grpc version=two color=red", "v3"),
        ("POST h/a.B/c content-type=application/grpc+proto", "v3"),
        ("POST h/a.B/c content-type=application/json", "404"),
        ("POST h/a.B/c", "404"),
    ];
    mesh.expect("edge", 80, &calls);
}

/// GRPCRouteWeight
#[test]
fn calls_are_shared_by_weight_and_a_broken_share_is_unavailable() {
    let mesh = Mesh::new(&grpc_route(
        "weights",
        "rules: [{backendRefs: [
  {name: v1, port: 8080, weight: 7}, {name: v2, port: 8080, weight: 2}, {name: nobody, port: 8080, weight: 1}]}]",
    ));
    let shares: Vec<_> = mesh.shares("edge", 80, &call("/a.B/c")).into_iter().collect();
    assert_eq!(shares, [("503".to_owned(), 100), ("v1".to_owned(), 700), ("v2".to_owned(), 200)]);
    let broken = "Accepted=True/Accepted ResolvedRefs=False/BackendNotFound";
    assert_eq!(mesh.route_conditions("GRPCRoute infra/weights"), [broken]);
}

#[test]
fn a_rule_that_cannot_be_followed_is_unavailable() {
    let mesh = Mesh::new(&grpc_route(
        "broken",
        "rules:
- {matches: [{method: {service: a.Gone}}], backendRefs: [{name: nobody, port: 8080}]}
- matches: [{method: {service: a.Copied}}]
  filters: [{type: RequestMirror, requestMirror: {}}]
  backendRefs: [{name: v1, port: 8080}]
- {matches: [{method: {type: RegularExpression, service: '('}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{method: {service: a.Good}}], backendRefs: [{name: v1, port: 8080}]}",
    ));
    expect(&mesh, &[("/a.Gone/x", "503"), ("/a.Copied/x", "503"), ("/a.Good/x", "v1")]);
    let conditions = mesh.route_conditions("GRPCRoute infra/broken");
    let expected =
        "Accepted=True/Accepted ResolvedRefs=False/BackendNotFound PartiallyInvalid=True/UnsupportedValue";
    assert_eq!(conditions, [expected]);
}

#[test]
fn headers_are_changed_on_the_way() {
    let mesh = Mesh::new(&grpc_route(
        "filters",
        "rules:
- filters:
  - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}
  - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: d, value: e}]}}
  backendRefs:
  - name: v1
    port: 8080
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: f, value: g}]}}]",
    ));
    expect(&mesh, &[("/a.B/c", "v1 -f +f=g -c -a +a=b answer +d=e")]);
}

/// GRPCRouteListenerHostnameMatching
#[test]
fn hostnames_are_those_of_listener_and_route_together() {
    let route = |name: &str, hosts: &str, service: &str| {
        grpc_route(
            name,
            &format!("hostnames: [{hosts}]\nrules: [{{backendRefs: [{{name: {service}, port: 8080}}]}}]"),
        )
    };
    let mesh = Mesh::new(&(route("one", "a.example", "v1") + &route("all", "'*.example'", "v2")));
    let grpc = "content-type=application/grpc";
    mesh.expect(
        "edge",
        80,
        &[
            (&format!("POST a.example/a.B/c {grpc}"), "v1"),
            (&format!("POST b.example/a.B/c {grpc}"), "v2"),
            (&format!("POST example/a.B/c {grpc}"), "404"),
        ],
    );
}

#[test]
fn of_two_kinds_for_the_same_hosts_the_older_is_attached() {
    let http = |name: &str, hosts: &str| {
        route(name, &format!("hostnames: [{hosts}]\nrules: [{{backendRefs: [{{name: v1, port: 8080}}]}}]"))
    };
    let grpc = |name: &str, hosts: &str| {
        grpc_route(
            name,
            &format!("hostnames: [{hosts}]\nrules: [{{backendRefs: [{{name: v2, port: 8080}}]}}]"),
        )
    };
    let created = |document: String, day: u32| {
        let stamp = format!("namespace: infra, creationTimestamp: \"2026-01-0{day}T00:00:00Z\"}}\nspec");
        document.replace("namespace: infra}\nspec", &stamp)
    };
    let accepted = |mesh: &Mesh, kind: &str, name: &str| {
        let conditions = mesh.route_conditions(&format!("{kind} infra/{name}"));
        conditions[0].split(' ').next().unwrap().to_owned()
    };
    let refused = "Accepted=False/RouteConflict";
    let taken = "Accepted=True/Accepted";
    for (documents, of_http, of_grpc) in [
        (http("a", "x.example") + &grpc("b", "x.example"), taken, refused),
        (http("b", "x.example") + &grpc("a", "x.example"), refused, taken),
        (http("a", "x.example") + &grpc("a", "x.example"), refused, taken),
        (http("a", "'*.example'") + &grpc("b", "x.example"), taken, refused),
        (http("a", "x.example") + &grpc("b", "y.example, x.example"), taken, refused),
        (http("a", "y.example") + &grpc("b", "x.example"), taken, taken),
        (created(http("a", "x.example"), 2) + &created(grpc("b", "x.example"), 1), refused, taken),
        (http("a", "x.example") + &created(grpc("b", "x.example"), 1), refused, taken),
    ] {
        let mesh = Mesh::new(&documents);
        let name = |kind: &str| {
            let at = documents.find(&format!("kind: {kind}")).unwrap();
            documents[at..].split("name: ").nth(1).unwrap()[..1].to_owned()
        };
        let (http, grpc) = (name("HTTPRoute"), name("GRPCRoute"));
        assert_eq!(accepted(&mesh, "HTTPRoute", &http), of_http, "{documents}");
        assert_eq!(accepted(&mesh, "GRPCRoute", &grpc), of_grpc, "{documents}");
        let (_, attached) = mesh.listener("Gateway infra/edge", "http");
        let expected = [of_http, of_grpc].iter().filter(|of| **of == taken).count() as u64;
        assert_eq!(attached, expected, "{documents}");
    }
}

#[test]
fn a_listener_says_which_kinds_it_takes() {
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: kinds, namespace: infra}
spec:
  gatewayClassName: ringway
  listeners:
  - {name: both, port: 80, protocol: HTTP}
  - {name: grpc, port: 81, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}
  - {name: http, port: 82, protocol: HTTP, allowedRoutes: {kinds: [{kind: HTTPRoute}]}}
  - {name: tcp, port: 83, protocol: TCP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}
";
    let rules = "rules: [{backendRefs: [{name: v1, port: 8080}]}]";
    let mesh = Mesh::new(&format!("{gateway}{}", grpc_route_at("all", "{name: kinds}", rules)));
    let of = |listener: &str| {
        let (conditions, attached) = mesh.listener("Gateway infra/kinds", listener);
        (conditions.contains("InvalidRouteKinds"), attached)
    };
    assert_eq!(["both", "grpc", "http", "tcp"].map(of), [(false, 1), (false, 1), (false, 0), (true, 0)]);
    let gateway = mesh.status("Gateway infra/kinds");
    let kinds: Vec<_> = gateway["listeners"][0]["supportedKinds"].as_array().unwrap().iter().collect();
    let kinds: Vec<_> = kinds.iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["HTTPRoute", "GRPCRoute"]);
}

#[test]
fn a_reference_to_another_namespace_needs_a_grant_for_the_kind() {
    let rules = "rules: [{backendRefs: [{name: web, namespace: web, port: 8080}]}]";
    let grant = |kind: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
             metadata: {{name: grant, namespace: web}}\nspec:\n  from: [{{group: gateway.networking.k8s.io, \
             kind: {kind}, namespace: infra}}]\n  to: [{{group: '', kind: Service}}]\n"
        )
    };
    for (kind, expected) in [("GRPCRoute", "web.web"), ("HTTPRoute", "503")] {
        let mesh = Mesh::new(&(grpc_route("abroad", rules) + &grant(kind)));
        expect(&mesh, &[("/a.B/c", expected)]);
    }
}

/// MeshGRPCRouteWeight, as far as one proxy tells
#[test]
fn calls_to_a_service_take_its_grpc_route_and_its_http_route_gives_way() {
    let parent = "{group: '', kind: Service, name: v1, port: 8080}";
    let grpc = grpc_route_at(
        "calls",
        parent,
        "rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: v2, port: 8080}]}]",
    );
    let http = route_at("pages", parent, "rules: [{backendRefs: [{name: v3, port: 8080}]}]");
    let mesh = Mesh::new(&(grpc.clone() + &http));
    let routes = mesh.sidecar("web");
    for (path, expected) in [("/a.B/c", "v2"), ("/a.C/c", "404")] {
        let asked = format!("POST v1.infra.mesh{path} content-type=application/grpc");
        assert_eq!(routes.ask(&asked, 0), expected, "{path}");
    }
    assert_eq!(routes.ask("GET v1.infra.mesh/", 0), "404");
    let conditions = |of: &str| conditions(&mesh.status(of)["parents"][0]);
    assert!(conditions("GRPCRoute infra/calls").starts_with("Accepted=True/Accepted"));
    assert!(conditions("HTTPRoute infra/pages").starts_with("Accepted=False/RouteConflict"));

    // A route that is not served is in nobody's way, and callers of another namespace have their own.
    let mirrored =
        grpc.replace("backendRefs", "filters: [{type: RequestMirror, requestMirror: {}}], backendRefs");
    let mesh = Mesh::new(&(mirrored + &http));
    assert_eq!(mesh.sidecar("web").ask("GET v1.infra.mesh/", 0), "v3");
    let consumer = http.replace("namespace: infra}\nspec", "namespace: web}\nspec");
    let consumer = consumer.replace("name: v1, port", "name: v1, namespace: infra, port");
    let consumer = consumer.replace("{name: v3, port", "{name: v3, namespace: infra, port");
    let mesh = Mesh::new(&(grpc + &consumer));
    assert_eq!(mesh.sidecar("web").ask("GET v1.infra.mesh/", 0), "v3");
    assert_eq!(mesh.sidecar("infra").ask(&call("/a.B/c").replace("h/", "v1.mesh/"), 0), "v2");
}

#[test]
fn http_2_is_spoken_where_it_is_declared_and_where_a_grpc_route_leads() {
    let port = |name: &str, fields: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: infra}}, \
             spec: {{ports: [{{port: 1, {fields}}}]}}}}\n"
        )
    };
    // Service, its port; HTTP/2 without a route, HTTP/2 behind a GRPCRoute. Nothing is routed of what is not HTTP.
    let cases = [
        ("silent", "", Some(false), Some(true)),
        ("http-name", "name: http-api", Some(false), Some(true)),
        ("http", "appProtocol: http", Some(false), Some(false)),
        ("ws", "appProtocol: kubernetes.io/ws", Some(false), Some(false)),
        ("web-name", "name: grpc-web", Some(false), Some(false)),
        ("web-names", "name: grpc-web-cart", Some(false), Some(false)),
        ("h2c", "appProtocol: kubernetes.io/h2c", Some(true), Some(true)),
        ("grpc", "appProtocol: grpc", Some(true), Some(true)),
        ("grpc-name", "name: grpc", Some(true), Some(true)),
        ("grpc-names", "name: grpc-cart", Some(true), Some(true)),
        ("http2-name", "name: http2-cart", Some(true), Some(true)),
        ("tcp", "appProtocol: tcp", None, Some(false)),
        ("wss", "appProtocol: kubernetes.io/wss", None, Some(false)),
        ("foreign", "appProtocol: example.com/else", None, Some(false)),
    ];
    let services: String = cases.iter().map(|(name, fields, ..)| port(name, fields)).collect();
    let rules = cases.map(|(name, ..)| {
        format!(
            "\n- {{matches: [{{method: {{method: M_{}}}}}], backendRefs: [{{name: {name}, port: 1}}]}}",
            name.replace('-', "_")
        )
    });
    let route = grpc_route("all", &format!("rules:{}", rules.concat()));
    let (without, with) = (Mesh::new(&services), Mesh::new(&(services.clone() + &route)));
    for (name, fields, alone, called) in cases {
        let cluster = format!("outbound|1|{name}.infra");
        assert_eq!(without.speaks_http2_in_sidecar(&cluster), alone, "{fields}");
        assert_eq!(with.speaks_http2_at_gateway("edge", &cluster), called, "{fields}, called");
    }
}
