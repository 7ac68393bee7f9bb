//! Where requests go: weights, and references that lead nowhere.

use crate::support::{Mesh, route};

const GRANT: &str = "---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: web}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}]
  to: [{group: '', kind: Service, name: web}]
";

fn resolved(mesh: &Mesh, route: &str) -> String {
    let conditions = mesh.route_conditions(&format!("HTTPRoute infra/{route}"));
    let [conditions] = &conditions[..] else { panic!("{conditions:?}") };
    conditions.split(' ').find(|condition| condition.starts_with("ResolvedRefs")).unwrap().to_owned()
}

/// HTTPRouteWeight
#[test]
fn requests_are_shared_by_weight_and_none_goes_to_weight_zero() {
    let mesh = Mesh::new(&route(
        "weights",
        "rules: [{backendRefs: [{name: v1, port: 8080, weight: 70}, {name: v2, port: 8080, weight: 30}, {name: v3, port: 8080, weight: 0}]}]",
    ));
    let shares = mesh.shares("edge", 80, "GET h/");
    let shares: Vec<_> = shares.iter().map(|(fate, share)| (fate.as_str(), *share)).collect();
    let [("v1", 690..=710), ("v2", 290..=310)] = shares[..] else { panic!("{shares:?}") };
}

/// HTTPRouteNoBackendRefs
#[test]
fn a_rule_without_backends_answers_500() {
    let mesh = Mesh::new(&route(
        "none",
        "rules:
- {matches: [{path: {value: /forward}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{path: {value: /omitted}}]}
- {matches: [{path: {value: /empty}}], backendRefs: []}
- {matches: [{path: {value: /zero}}], backendRefs: [{name: v1, port: 8080, weight: 0}]}",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/forward", "v1"),
            ("GET h/omitted", "500"),
            ("GET h/empty", "500"),
            ("GET h/zero", "500"),
            ("GET h/", "404"),
        ],
    );
    assert_eq!(resolved(&mesh, "none"), "ResolvedRefs=True/ResolvedRefs");
}

/// HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidBackendRefUnknownKind,
/// HTTPRouteInvalidCrossNamespaceBackendRef, HTTPRouteReferenceGrant, HTTPRouteInvalidReferenceGrant
#[test]
fn a_broken_reference_answers_500_and_says_why() {
    let wrong = |from: &str, to: &str| GRANT.replace(from, to);
    let not_permitted = "ResolvedRefs=False/RefNotPermitted";
    let cases = [
        ("", "{name: missing, port: 8080}", "500", "ResolvedRefs=False/BackendNotFound"),
        ("", "{name: v1, port: 9999}", "500", "ResolvedRefs=False/BackendNotFound"),
        (
            "",
            "{name: v1, port: 8080, group: unknown.io, kind: Thing}",
            "500",
            "ResolvedRefs=False/InvalidKind",
        ),
        ("", "{name: web, namespace: web, port: 8080}", "500", not_permitted),
        // What is there is nobody's business without a grant.
        ("", "{name: missing, namespace: web, port: 8080}", "500", not_permitted),
        (GRANT, "{name: web, namespace: web, port: 8080}", "web.web", "ResolvedRefs=True/ResolvedRefs"),
        (&wrong("HTTPRoute", "TCPRoute"), "{name: web, namespace: web, port: 8080}", "500", not_permitted),
        (
            &wrong("gateway.networking.k8s.io, kind", "x.io, kind"),
            "{name: web, namespace: web, port: 8080}",
            "500",
            not_permitted,
        ),
        (
            &wrong("namespace: infra", "namespace: other"),
            "{name: web, namespace: web, port: 8080}",
            "500",
            not_permitted,
        ),
        (
            &wrong("name: web}", "name: other}"),
            "{name: web, namespace: web, port: 8080}",
            "500",
            not_permitted,
        ),
        (
            &wrong("kind: Service", "kind: Secret"),
            "{name: web, namespace: web, port: 8080}",
            "500",
            not_permitted,
        ),
        (
            &wrong("namespace: web}\nspec", "namespace: infra}\nspec"),
            "{name: web, namespace: web, port: 8080}",
            "500",
            not_permitted,
        ),
        (
            &wrong(", name: web}", "}"),
            "{name: web, namespace: web, port: 8080}",
            "web.web",
            "ResolvedRefs=True/ResolvedRefs",
        ),
    ];
    for (grant, backend, fate, condition) in cases {
        // The rule beside it serves all the same.
        let spec = format!(
            "rules: [{{backendRefs: [{backend}]}}, {{matches: [{{path: {{value: /good}}}}], backendRefs: [{{name: v1, port: 8080}}]}}]"
        );
        let mesh = Mesh::new(&(route("one", &spec) + grant));
        mesh.expect("edge", 80, &[("GET h/", fate), ("GET h/good", "v1")]);
        assert_eq!(resolved(&mesh, "one"), condition, "{backend} {grant}");
        let accepted = &mesh.route_conditions("HTTPRoute infra/one")[0];
        assert!(accepted.starts_with("Accepted=True/Accepted"), "{accepted}");
    }
}

/// HTTPRoutePartiallyInvalidViaInvalidReferenceGrant
#[test]
fn the_share_of_a_broken_reference_is_answered_500() {
    let mesh = Mesh::new(&route(
        "partly",
        "rules:
- matches: [{path: {value: /half}}]
  backendRefs: [{name: v1, port: 8080, weight: 2}, {name: web, namespace: web, port: 8080, weight: 2}]
- matches: [{path: {value: /fifth}}]
  backendRefs: [{name: v1, port: 8080, weight: 60}, {name: v2, port: 8080, weight: 20}, {name: missing, port: 8080, weight: 20}]
- backendRefs: [{name: v2, port: 8080}]",
    ));
    let shares = |path: &str| {
        let shares = mesh.shares("edge", 80, &format!("GET h{path}"));
        shares.into_iter().collect::<Vec<_>>()
    };
    let close = |shares: Vec<(String, u32)>, expected: &[(&str, u32)]| {
        assert_eq!(shares.len(), expected.len(), "{shares:?}");
        for ((fate, share), (expected_fate, expected)) in shares.iter().zip(expected) {
            assert!(fate == expected_fate && share.abs_diff(*expected) <= 10, "{shares:?}");
        }
    };
    close(shares("/half"), &[("500", 500), ("v1", 500)]);
    close(shares("/fifth"), &[("500", 200), ("v1", 600), ("v2", 200)]);
    close(shares("/"), &[("v2", 1000)]);
    assert_eq!(resolved(&mesh, "partly"), "ResolvedRefs=False/RefNotPermitted");
}
