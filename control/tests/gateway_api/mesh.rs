//! Routes of Services: what sidecars do with the calls of their applications (GAMMA).

use crate::support::{Mesh, route_at};

fn asked(mesh: &Mesh, namespace: &str, cases: &[(&str, &str)]) {
    let routes = mesh.sidecar(namespace);
    let wrong: Vec<_> = cases
        .iter()
        .map(|(request, expected)| (*request, *expected, routes.ask(request, 0)))
        .filter(|(_, expected, answer)| expected != answer)
        .collect();
    assert!(wrong.is_empty(), "(request, expected, answer): {wrong:#?}");
}

#[test]
fn a_service_is_reached_by_each_of_its_names() {
    let mesh = Mesh::new("");
    asked(
        &mesh,
        "infra",
        &[
            ("GET v1.mesh/", "v1"),
            ("GET v1.mesh:8080/", "v1"),
            ("GET V1.Mesh/", "v1"),
            ("GET v1.infra.mesh/", "v1"),
            ("GET v1/", "v1"),
            ("GET v1.infra/", "v1"),
            ("GET v1.infra.svc/", "v1"),
            ("GET v1.infra.svc.cluster.local:8080/", "v1"),
            ("GET v1.mesh:81/", "outside"),
            ("GET v2.infra.svc.cluster.local:81/", "outside"),
            ("GET web.mesh/", "404"),
            ("GET web.web.mesh/", "web.web"),
            ("GET nobody.mesh/", "404"),
            ("GET example.com/", "outside"),
            ("GET 10.0.0.1:8080/", "outside"),
        ],
    );
    asked(
        &mesh,
        "web",
        &[("GET web.mesh/", "web.web"), ("GET v1.mesh/", "404"), ("GET v1.infra.mesh/", "v1")],
    );
}

/// MeshHTTPRouteMatching, MeshHTTPRouteSimpleSameNamespace, MeshPorts, MeshConsumerRoute
#[test]
fn a_route_of_a_service_is_for_everyone_or_for_its_own_namespace() {
    let producer = route_at(
        "producer",
        "{group: '', kind: Service, name: v1, port: 8080}",
        "hostnames: [ignored.example]
rules:
- {matches: [{path: {value: /v2}}], backendRefs: [{name: v2, port: 8080}]}
- {matches: [{path: {value: /self}}], backendRefs: [{name: v1, port: 8080}]}",
    );
    let mesh = Mesh::new(&producer);
    for namespace in ["infra", "web"] {
        asked(
            &mesh,
            namespace,
            &[
                ("GET v1.infra.mesh/v2/a", "v2"),
                ("GET v1.infra.mesh/self", "v1"),
                // A port with routes takes only what a rule takes.
                ("GET v1.infra.mesh/", "404"),
                ("GET v2.infra.mesh/", "v2"),
            ],
        );
    }
    let accepted = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    assert_eq!(mesh.route_conditions("HTTPRoute infra/producer"), [accepted]);

    let consumer = route_at(
        "consumer",
        "{group: '', kind: Service, name: v1, namespace: infra}",
        "rules: [{backendRefs: [{name: web, port: 8080}]}]",
    )
    .replace("namespace: infra}\nspec", "namespace: web}\nspec");
    let mesh = Mesh::new(&(producer + &consumer));
    asked(&mesh, "web", &[("GET v1.infra.mesh/v2", "web.web"), ("GET v1.infra.mesh/", "web.web")]);
    asked(&mesh, "infra", &[("GET v1.infra.mesh/v2", "v2"), ("GET v1.infra.mesh/", "404")]);
}

/// MeshConsumerRoute, and GEP-1294 on ReferenceGrants: within the mesh a route opens nothing that was closed before.
#[test]
fn a_route_of_a_service_needs_no_grant_and_at_a_gateway_the_same_route_does() {
    let both = route_at(
        "both",
        "{kind: Service, name: v1, port: 8080}, {name: edge}",
        "rules: [{backendRefs: [{name: web, namespace: web, port: 8080}]}]",
    );
    let mesh = Mesh::new(&both);
    asked(&mesh, "infra", &[("GET v1.infra.mesh/", "web.web")]);
    mesh.expect("edge", 80, &[("GET h/", "500")]);
    let expected = [
        "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
        "Accepted=True/Accepted ResolvedRefs=False/RefNotPermitted",
    ];
    assert_eq!(mesh.route_conditions("HTTPRoute infra/both"), expected);
}

#[test]
fn a_route_of_a_service_says_whether_it_is_there() {
    let cases = [
        ("{group: '', kind: Service, name: missing}", "Accepted=False/NoMatchingParent"),
        ("{group: '', kind: Service, name: v1, port: 9}", "Accepted=False/NoMatchingParent"),
        ("{group: apps, kind: Service, name: v1}", "Accepted=False/NoMatchingParent"),
        // The group of a Service is empty, and no other group has a Service, so it may be left out.
        ("{kind: Service, name: v1}", "Accepted=True/Accepted"),
    ];
    for (parent, expected) in cases {
        let mesh = Mesh::new(&route_at("one", parent, "rules: [{backendRefs: [{name: v1, port: 8080}]}]"));
        let conditions = mesh.route_conditions("HTTPRoute infra/one");
        assert!(conditions[0].starts_with(expected), "{parent}: {conditions:?}");
    }
}
