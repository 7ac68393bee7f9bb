//! Which listeners take which routes, and what the objects say of it.

use crate::support::{Mesh, conditions, route_at};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: many, namespace: infra, generation: 3}
spec:
  gatewayClassName: ringway
  listeners:
  - {name: same, port: 80, protocol: HTTP}
  - {name: all, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - {name: selected, port: 8090, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: web}}}}}
  - {name: tcp-only, port: 9000, protocol: TCP}
---
{apiVersion: v1, kind: Namespace, metadata: {name: web, labels: {team: web}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: other}}
";

fn from(namespace: &str, name: &str, parent: &str) -> String {
    route_at(name, parent, "rules: [{backendRefs: [{name: web, namespace: web, port: 8080}]}]")
        .replace("namespace: infra}\nspec", &format!("namespace: {namespace}}}\nspec"))
}

/// HTTPRouteCrossNamespace, HTTPRouteInvalidCrossNamespaceParentRef, HTTPRouteInvalidParentRefNotMatchingSectionName,
/// HTTPRouteInvalidParentRefNotMatchingListenerPort, HTTPRouteInvalidParentRefSectionNameNotMatchingPort,
/// HTTPRouteDisallowedKind, GatewayWithAttachedRoutes
#[test]
fn a_route_attaches_where_namespace_kind_section_and_port_allow() {
    let many = |fields: &str| format!("{{name: many, namespace: infra{fields}}}");
    let cases = [
        ("web", many(", sectionName: same"), "False/NotAllowedByListeners"),
        ("web", many(", sectionName: all"), "True/Accepted"),
        ("web", many(", sectionName: selected"), "True/Accepted"),
        ("other", many(", sectionName: selected"), "False/NotAllowedByListeners"),
        ("infra", many(", sectionName: same"), "True/Accepted"),
        ("infra", many(", sectionName: missing"), "False/NoMatchingParent"),
        ("infra", many(", port: 81"), "False/NoMatchingParent"),
        ("infra", many(", sectionName: same, port: 8080"), "False/NoMatchingParent"),
        ("infra", many(", sectionName: tcp-only"), "False/NotAllowedByListeners"),
        ("infra", "{name: missing}".to_owned(), "False/NoMatchingParent"),
        ("web", "{name: many}".to_owned(), "False/NoMatchingParent"),
    ];
    for (namespace, parent, expected) in cases {
        let mesh = Mesh::new(&format!("{GATEWAY}{}", from(namespace, "one", &parent)));
        let conditions = mesh.route_conditions(&format!("HTTPRoute {namespace}/one"));
        let accepted = conditions[0].split(' ').next().unwrap();
        assert_eq!(accepted, format!("Accepted={expected}"), "{namespace} {parent}");
    }
}

/// GatewayWithAttachedRoutes
#[test]
fn a_listener_counts_its_routes_once_each() {
    let documents = [
        GATEWAY.to_owned(),
        from("web", "a", "{name: many, namespace: infra}"),
        from(
            "web",
            "b",
            "{name: many, namespace: infra, sectionName: all}, {name: many, namespace: infra, port: 8080}",
        ),
    ];
    let mesh = Mesh::new(&documents.concat());
    let valid = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs Programmed=True/Programmed \
                 Conflicted=False/NoConflicts";
    let listener = |name: &str| mesh.listener("Gateway infra/many", name);
    assert_eq!(listener("same"), (valid.to_owned(), 0));
    assert_eq!(listener("all"), (valid.to_owned(), 2));
    assert_eq!(listener("selected"), (valid.to_owned(), 1));
    let status = mesh.status("Gateway infra/many");
    assert_eq!(conditions(status), "Accepted=True/Accepted Programmed=True/Programmed");
    assert_eq!(status["conditions"][0]["observedGeneration"], 3);
    assert_eq!(status["listeners"][3]["supportedKinds"][0]["kind"], "TCPRoute");
}

/// GatewayInvalidRouteKind, GatewayInvalidListenersUnsupportedProtocol, and the rules for distinct listeners.
#[test]
fn a_listener_that_cannot_be_served_says_why_and_the_others_serve() {
    let gateway = |listeners: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: infra}}\n\
             spec: {{gatewayClassName: ringway, listeners: [{listeners}]}}\n"
        )
    };
    let good = "{name: good, port: 1, protocol: HTTP}";
    let cases = [
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: InvalidRoute}]}}",
            "Accepted=True/Accepted ResolvedRefs=False/InvalidRouteKinds Programmed=False/Invalid Conflicted=False/NoConflicts",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: InvalidRoute}, {kind: HTTPRoute}]}}",
            "Accepted=True/Accepted ResolvedRefs=False/InvalidRouteKinds Programmed=True/Programmed Conflicted=False/NoConflicts",
        ),
        (
            "{name: a, port: 443, protocol: UDP}",
            "Accepted=False/UnsupportedProtocol ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid Conflicted=False/NoConflicts",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}",
            "Accepted=True/Accepted ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid Conflicted=False/NoConflicts",
        ),
        (
            "{name: a, port: 80, protocol: example.com/soup}",
            "Accepted=False/UnsupportedProtocol ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid Conflicted=False/NoConflicts",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}",
            "Accepted=False/HostnameConflict ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid Conflicted=True/HostnameConflict",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP}",
            "Accepted=False/ProtocolConflict ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid Conflicted=True/ProtocolConflict",
        ),
    ];
    for (listeners, expected) in cases {
        let mesh = Mesh::new(&gateway(&format!("{listeners}, {good}")));
        assert_eq!(mesh.listener("Gateway infra/g", "a").0, expected, "{listeners}");
        let status = mesh.status("Gateway infra/g");
        assert_eq!(conditions(status), "Accepted=True/ListenersNotValid Programmed=True/Programmed");

        let alone = Mesh::new(&gateway(listeners));
        let served = expected.contains("Programmed=True");
        let status = conditions(alone.status("Gateway infra/g"));
        assert_eq!(status.contains("Programmed=True"), served, "{listeners}: {status}");
    }
}

/// GatewayInvalidParametersRef
#[test]
fn a_gateway_with_parameters_is_not_served_and_its_listeners_are_valid_all_the_same() {
    let gateway = |infrastructure: &str| {
        Mesh::new(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: infra}}\n\
             spec: {{gatewayClassName: ringway, listeners: [{{name: http, port: 80, protocol: HTTP}}], \
             infrastructure: {infrastructure}}}\n"
        ))
    };
    let good = gateway("{labels: {team: web}}");
    assert_eq!(
        conditions(good.status("Gateway infra/g")),
        "Accepted=True/Accepted Programmed=True/Programmed"
    );

    let mesh = gateway("{parametersRef: {group: example.com, kind: Size, name: large}}");
    let status = conditions(mesh.status("Gateway infra/g"));
    assert_eq!(status, "Accepted=False/InvalidParameters Programmed=False/Invalid");
    let listener = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid \
                    Conflicted=False/NoConflicts";
    assert_eq!(mesh.listener("Gateway infra/g", "http").0, listener);
}

/// A Gateway of another controller is neither served nor judged; one of no controller waits.
#[test]
fn only_gateways_of_our_classes_are_served() {
    let gateway = |class: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: of-{class}, namespace: infra}}\nspec: {{gatewayClassName: {class}, \
             listeners: [{{name: http, port: 80, protocol: HTTP}}]}}\n"
        )
    };
    let class = |name: &str, controller: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: {name}}}\n\
             spec: {{controllerName: {controller}}}\n"
        )
    };
    let documents = [
        class("ours", "ringway.io/gateway"),
        class("theirs", "example.com/gateway"),
        gateway("ours"),
        gateway("theirs"),
        gateway("nobodys"),
        from("infra", "one", "{name: of-theirs}"),
    ];
    let mesh = Mesh::new(&documents.concat());
    assert_eq!(conditions(mesh.status("GatewayClass ours")), "Accepted=True/Accepted");
    let programmed = "Accepted=True/Accepted Programmed=True/Programmed";
    assert_eq!(conditions(mesh.status("Gateway infra/of-ours")), programmed);
    let pending = "Accepted=False/Pending Programmed=False/Pending";
    assert_eq!(conditions(mesh.status("Gateway infra/of-nobodys")), pending);
    let judged: Vec<_> = mesh.conditions.objects.keys().map(ToString::to_string).collect();
    assert!(!judged.iter().any(|object| object.contains("theirs")), "{judged:?}");
    assert!(mesh.route_conditions("HTTPRoute infra/one").is_empty());
}

/// TCPRouteMultipleRoutesAttachment
#[test]
fn of_several_tcp_routes_at_a_listener_the_oldest_serves() {
    let at = |name: &str, created: &str, service: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1alpha2\nkind: TCPRoute\n\
             metadata: {{name: {name}, namespace: infra, creationTimestamp: {created}}}\nspec:\n  \
             parentRefs: [{{name: many, sectionName: tcp-only}}]\n  \
             rules: [{{backendRefs: [{{name: {service}, port: 8080}}]}}]\n"
        )
    };
    let documents =
        [GATEWAY.to_owned(), at("a", "2024-02-01T00:00:00Z", "v1"), at("b", "2024-01-01T00:00:00Z", "v2")];
    let mesh = Mesh::new(&documents.concat());
    assert_eq!(mesh.listener("Gateway infra/many", "tcp-only").1, 2);
    assert_eq!(mesh.tcp_clusters("many", 9000), ["outbound|8080|v2.infra"]);
}
